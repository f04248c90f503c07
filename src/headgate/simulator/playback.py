"""Playing one delivery on one connection: latency, pacing, backpressure, billing, and the way it ends.

Invariant: tokens are billed when their frame is handed to the transport, so a client that leaves pays for what was
generated until then and for no more.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from headgate.simulator.delivery import Delivery, Ending

BATCH_BYTES = 65_536
RESET_POLL = 0.001


class Playback:
    """One delivery under way."""

    def __init__(
        self,
        delivery: Delivery,
        first_lines: bytes,
        *,
        transport: asyncio.Transport,
        chunked: bool,
        tokens_per_s: float,
        bill: Callable[[str, int, int], None],
        finished: Callable[[], None],
        outage: Callable[[float], None],
    ) -> None:
        self._delivery = delivery
        self._first_lines = first_lines
        self._transport = transport
        self._chunked = chunked
        self._tokens_per_s = tokens_per_s
        self._bill = bill
        self._finished = finished
        self._outage = outage
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._next = 0
        self._generated = 0
        self._began = 0.0
        self._blocked = False
        self._idle = False

    def start(self) -> None:
        """Begin after the delivery's delay."""
        self._began = self._loop.time() + self._delivery.delay
        if self._delivery.delay:
            self._timer = self._loop.call_later(self._delivery.delay, self._open)
        else:
            self._open()

    def cancel(self) -> None:
        """The client has gone; nothing more is generated."""
        if self._timer:
            self._timer.cancel()

    def block(self) -> None:
        """Stop generating until `unblock`."""
        self._blocked = True

    def unblock(self) -> None:
        """Go on generating."""
        self._blocked = False
        if self._idle:
            self._idle = False
            self._advance()

    def _open(self) -> None:
        if self._first_lines:
            self._transport.write(self._first_lines)
        if self._delivery.frames:
            self._bill(self._delivery.model, self._delivery.prompt_tokens, 0)
        self._advance()

    def _advance(self) -> None:
        """Hand over every frame that is due; come back for the rest."""
        frames = self._delivery.frames
        while self._next < len(frames):
            if self._blocked:
                self._idle = True
                return
            wait = self._wait()
            if wait > 0:
                self._timer = self._loop.call_later(wait, self._advance)
                return
            self._write_batch()
            if self._delivery.pause:
                self._timer = self._loop.call_later(self._delivery.pause, self._advance)
                return
            if self._delivery.spaced:
                self._timer = self._loop.call_soon(self._advance)
                return
        self._end()

    def _wait(self) -> float:
        """Seconds until the next frame's last token is generated."""
        if not self._tokens_per_s:
            return 0.0
        due = self._generated + self._delivery.frames[self._next][1]
        return self._began + due / self._tokens_per_s - self._loop.time()

    def _write_batch(self) -> None:
        """Write the due frames up to a limit at once; a paced or spaced delivery writes one frame."""
        single = self._delivery.spaced or self._delivery.pause > 0 or self._tokens_per_s > 0
        batch: list[bytes] = []
        size = generated = 0
        while self._next < len(self._delivery.frames) and size < BATCH_BYTES:
            piece, count = self._delivery.frames[self._next]
            self._next += 1
            batch.append(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
            size += len(piece)
            generated += count
            if single:
                break
        self._generated += generated
        self._bill(self._delivery.model, 0, generated)
        self._transport.write(b"".join(batch))

    def _end(self) -> None:
        match self._delivery.ending:
            case Ending.DONE:
                if self._chunked:
                    self._transport.write(b"0\r\n\r\n")
                self._finished()
            case Ending.CLOSE:
                self._transport.close()
            case Ending.RESET:
                self._reset()
            case Ending.OUTAGE:
                self._outage(self._delivery.outage)
            case Ending.HOLD:
                pass

    def _reset(self) -> None:
        """Send a TCP reset, once the bytes before it have left."""
        if self._transport.get_write_buffer_size():
            self._timer = self._loop.call_later(RESET_POLL, self._reset)
            return
        reset_connection(self._transport)


def reset_connection(transport: asyncio.Transport) -> None:
    """Close a connection at once with a TCP reset instead of an orderly end."""
    peer: socket.socket | None = transport.get_extra_info("socket")
    if peer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
