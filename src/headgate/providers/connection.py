"""One HTTP/1.1 connection to a provider: send a request, read its answer as it comes.

The invariant: a connection is used again only after an answer that ended as its own framing says. Everything that a server
can make grow is bounded: the head, the framing between two pieces of body, and what waits to be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from headgate.model.errors import Malformed, Unavailable, UpstreamError, UpstreamTimeout

MAX_SILENT = 65_536
"""Most bytes that may come without any byte of body among them: the head, or framing and trailers."""

HIGH_WATER = 262_144
"""Bytes waiting to be read at which the server is made to wait."""


class Connection(asyncio.Protocol):
    """A connection in one of three states: in an exchange, lingering until an answer's last bytes, or idle."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, idle: Callable[[Connection], None]) -> None:
        """`idle` is called when a lingering answer has ended and the connection may be used again."""
        self._loop = loop
        self._idle = idle
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        self._due = (0.0, "", 0.0)
        self._total = (0.0, 0.0)
        self._paused = False
        self._lingering = False
        self.idle_since = 0.0
        self._reset()
        self.complete = True

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self._failure: UpstreamError | None = None
        self._head_read = False
        self._until_close = False
        self._keep_alive = False
        self._body: list[bytes] = []
        self._waiting = 0
        self._silent = 0

    # What an exchange does.

    @property
    def usable(self) -> bool:
        """True when another request may be sent."""
        transport = self._transport
        return (
            self.complete
            and self._failure is None
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
            and self._keep_alive
        )

    def send(self, request: bytes, *, end: float, total: float) -> None:
        """Start an exchange that must be over at the loop's time `end`, which is `total` seconds after its beginning."""
        self._reset()
        self._total = (end, total)
        transport = self._transport
        if transport is None or transport.is_closing():
            self._failure = Unavailable("closed the connection")
        else:
            transport.write(request)

    async def head(self, seconds: float) -> None:
        """Wait for the status and headers. Raises UpstreamError."""
        due = self._loop.time() + seconds
        while not self._head_read:
            if self._failure is not None:
                raise self._failure
            await self._wait(due, "first byte", seconds)

    async def read(self, seconds: float) -> bytes:
        """The body that has come since the last read; empty at its end. Raises UpstreamError."""
        if not self._readable():
            due = self._loop.time() + seconds
            while not self._readable():
                await self._wait(due, "idle", seconds)
        if self._body:
            return self._take()
        if self._failure is not None:
            raise self._failure
        return b""

    def linger(self, seconds: float) -> None:
        """Nobody reads on: keep the connection if the answer's end comes within `seconds`, else close it."""
        self._lingering = True
        self._take()
        self._arm(self._loop.time() + seconds)

    def abort(self) -> None:
        """Close at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    def _readable(self) -> bool:
        return bool(self._body) or self.complete or self._failure is not None

    def _take(self) -> bytes:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._waiting = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return body

    # Waiting, with one timer that is moved only when it would ring too late.

    async def _wait(self, due: float, what: str, seconds: float) -> None:
        end, total = self._total
        self._due = (end, "total", total) if end < due else (due, what, seconds)
        if self._timer is None or self._due[0] < self._armed_for:
            self._arm(self._due[0])
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = when
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._lingering:
            self.abort()
        elif self._waiter is not None and not self._waiter.done():
            due, what, seconds = self._due
            if self._loop.time() < due:
                self._arm(due)
            else:
                self._fail(UpstreamTimeout(f"gave no answer in time: the {what} timeout of {seconds:g} s ran out"))

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: UpstreamError) -> None:
        if self._failure is None and not self.complete:
            self._failure = error
        self.abort()
        self._wake()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        if self.complete:
            self.abort()
            return
        self._silent += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Malformed("answered with something that is not HTTP/1.1"))
            return
        if self._silent > MAX_SILENT:
            self._fail(Malformed("sent a head or framing that is too large"))
            return
        if self._lingering:
            self._linger_on()
        elif self._head_read:
            self._wake()

    def _linger_on(self) -> None:
        if self._waiting > MAX_SILENT:
            self.abort()
        elif self.complete:
            self._lingering = False
            self._take()
            self._idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        if self._until_close and exc is None and self._failure is None:
            self.complete = True
        elif not self.complete and self._failure is None:
            self._failure = Unavailable(
                "broke off its answer" if self._head_read else "closed the connection before it answered"
            )
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport = None
        self._wake()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol; trailers come here too and are dropped."""
        if not self._head_read:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        status = self._parser.get_status_code()
        if status < 200:
            self.headers = []
            return
        self.status = status
        self._head_read = True
        framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
        self._until_close = not framed and status not in (204, 304)
        self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Part of httptools' protocol."""
        self._silent = 0
        self._waiting += len(body)
        self._body.append(body)
        if self._waiting > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Part of httptools' protocol; an interim answer (1xx) ends nothing."""
        if self._head_read:
            self.complete = True
