"""Deliveries: what goes over the wire for one call, and how a fault spoils it.

A delivery is a value: status line and headers, frames of bytes with the tokens that each of them generates, and how it
ends. `spoil` turns a sound one into a broken one; nothing here touches a socket.
"""

from __future__ import annotations

import enum
import gzip
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from headgate.simulator.faults import Fault

Frame: TypeAlias = tuple[bytes, int]

SLICES = (23, 7, 41, 11)
MEBIBYTE = 1024 * 1024


class Ending(enum.Enum):
    """What happens to the connection after the last frame."""

    DONE = "complete; the connection may be used again"
    CLOSE = "closed in good order, although the answer is incomplete"
    RESET = "reset"
    HOLD = "left open and silent until the client goes"
    OUTAGE = "reset, with every other connection and the listener"


class Delivery(msgspec.Struct, frozen=True):
    """One answer ready to be played on a connection.

    `head` is the status line and the headers that do not depend on the connection; empty: nothing at all is sent.
    `length` is the promised body length, None for a stream. `delay` and `outage` are seconds; the first frame bills
    `prompt_tokens` to `model`. `spaced` sends each frame in a write of its own, `pause` waits so many seconds after each.
    """

    head: bytes
    frames: Sequence[Frame]
    length: int | None = None
    delay: float = 0.0
    ending: Ending = Ending.DONE
    outage: float = 0.0
    model: str = ""
    prompt_tokens: int = 0
    spaced: bool = False
    pause: float = 0.0


def head(status: int, reason: str, content_type: str, *extra: str) -> bytes:
    """Status line and headers, each line ended."""
    lines = (f"HTTP/1.1 {status} {reason}", f"content-type: {content_type}", *extra, "")
    return "\r\n".join(lines).encode("latin-1")


def whole(first_lines: bytes, body: bytes) -> Delivery:
    """A delivery of one body of known length that bills nothing."""
    return Delivery(first_lines, ((body, 0),), len(body))


def spoil(delivery: Delivery, fault: Fault) -> Delivery:
    """Commit a fault on the wire; faults of status or content leave the delivery as it is."""
    change = _SPOILT.get(fault.name)
    return delivery if change is None else msgspec.structs.replace(delivery, **change(delivery, fault.amount))


def _used_up(seconds: float) -> bytes:
    """OpenAI's headers of a limit that is used up, and whole again after some seconds."""
    return (
        "x-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 0\r\n"
        f"x-ratelimit-reset-requests: {seconds:g}s\r\n"
    ).encode()


def _error_inside(delivery: Delivery, count: int) -> dict[str, Any]:
    """An error in the place of what would come after content chunk `count`; before the first of them nothing is billed. Both vendors'
    readers understand the object."""
    error = b'{"type":"error","error":{"type":"overloaded_error","code":"overloaded_error","message":"Overloaded"}}'
    if delivery.length is not None:
        return {"frames": ((error, 0),), "length": len(error), "prompt_tokens": 0}
    event = b"event: error\ndata: " + error + b"\n\n"
    return {
        "frames": (*_until(delivery, count), (event, 0)),
        "prompt_tokens": delivery.prompt_tokens if count else 0,
    }


def _odd(delivery: Delivery) -> Sequence[Frame]:
    """The same events as the standard allows them to be written, of a stream; without the blank line after the last."""
    if delivery.length is not None:
        return delivery.frames
    odd = [
        (b": a comment\r\nstrange: field\r\nretry: 10\r\n" + _crlf(piece), generated)
        for piece, generated in delivery.frames
    ]
    odd[0] = b"\xef\xbb\xbf" + odd[0][0], odd[0][1]
    odd[-1] = odd[-1][0].removesuffix(b"\r\n"), odd[-1][1]
    return odd


def _crlf(piece: bytes) -> bytes:
    """Its lines end in CRLF, and an object is written on two lines of data."""
    return piece.replace(b"\n", b"\r\n").replace(b'data: {"', b'data: {\r\ndata: "')


def _until(delivery: Delivery, count: int) -> Sequence[Frame]:
    """The frames before content chunk `count + 1`, or one frame less than all; of a single body its first half."""
    frames = delivery.frames
    if len(frames) == 1:
        return _half(frames)
    seen = 0
    for place, (_, generated) in enumerate(frames):
        seen += generated > 0
        if seen > count:
            return frames[:place]
    return frames[:-1]


def _half(frames: Sequence[Frame]) -> Sequence[Frame]:
    *sound, (body, generated) = frames
    return (*sound, (body[: len(body) // 2], generated))


def _truncated(delivery: Delivery) -> Sequence[Frame]:
    frames = delivery.frames
    return _half(frames if len(frames) == 1 else frames[: len(frames) // 2 + 1])


def _malformed(delivery: Delivery, count: int) -> dict[str, Any]:
    """Break the JSON: of a stream one event more after chunk `count`, of a single body its second half."""
    if delivery.length is not None:
        frames = _half(delivery.frames)
        return {"frames": frames, "length": sum(len(piece) for piece, _ in frames)}
    before = _until(delivery, count)
    rest = delivery.frames[len(before) :]
    event = rest[0][0]
    broken = (event[: 3 * len(event) // 4] + b"\n\n", 0)
    return {"frames": (*before, broken, *rest)}


def _unanswered(ending: Ending, seconds: float = 0.0) -> dict[str, Any]:
    return {"head": b"", "frames": (), "ending": ending, "outage": seconds}


def _endless(delivery: Delivery, mebibytes: float) -> dict[str, Any]:
    line = b"data: {" + b"x" * int(mebibytes * MEBIBYTE)
    return {"frames": [*_until(delivery, 0), (line, 0)], "length": None, "ending": Ending.HOLD}


def _compressed(delivery: Delivery) -> dict[str, Any]:
    body = gzip.compress(b"".join(piece for piece, _ in delivery.frames))
    billed = sum(generated for _, generated in delivery.frames)
    return {
        "head": delivery.head + b"content-encoding: gzip\r\n",
        "frames": ((body, billed),),
        "length": len(body),
    }


def slices(frames: Sequence[Frame]) -> list[Frame]:
    """Cut the same bytes anew: in short slices, and inside every character of several bytes."""
    starts: dict[int, int] = {}
    stream = bytearray()
    for piece, generated in frames:
        starts[len(stream)] = generated
        stream += piece
    cut: list[Frame] = []
    begin = billed = turn = 0
    for place, byte in enumerate(stream):
        billed += starts.get(place, 0)
        inside = byte >= 0xC0
        if inside or place + 1 - begin >= SLICES[turn % len(SLICES)] or place + 1 == len(stream):
            cut.append((bytes(stream[begin : place + 1]), billed))
            begin, billed, turn = place + 1, 0, turn + 1
    return cut


_SPOILT: Mapping[str, Callable[[Delivery, float], dict[str, Any]]] = {
    "quota": lambda sound, seconds: {"head": sound.head + _used_up(seconds)},
    "trickle": lambda _, seconds: {"pause": seconds},
    "error-event": lambda sound, chunks: _error_inside(sound, int(chunks)),
    "odd-sse": lambda sound, _: {"frames": _odd(sound)},
    "endless-line": _endless,
    "gzip": lambda sound, _: _compressed(sound),
    "hang": lambda _, __: _unanswered(Ending.HOLD),
    "refuse": lambda _, seconds: _unanswered(Ending.OUTAGE if seconds else Ending.RESET, seconds),
    "slow-first-byte": lambda sound, seconds: {"delay": sound.delay + seconds},
    "stall": lambda sound, chunks: {"frames": _until(sound, int(chunks)), "ending": Ending.HOLD},
    "cut": lambda sound, chunks: {"frames": _until(sound, int(chunks)), "ending": Ending.RESET},
    "truncated-json": lambda sound, _: {"frames": _truncated(sound), "ending": Ending.CLOSE},
    "malformed-sse": lambda sound, chunks: _malformed(sound, int(chunks)),
    "split-utf8": lambda sound, _: {"frames": slices(sound.frames), "spaced": True},
}
"""What each fault of the wire changes, given the sound delivery and the fault's amount."""
