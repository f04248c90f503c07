"""Deliveries: what goes over the wire for one call, and how a fault spoils it.

A delivery is a value: status line and headers, frames of bytes with the tokens that each of them generates, and how it
ends. `spoil` turns a sound one into a broken one; nothing here touches a socket.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from headgate.simulator.faults import Fault

Frame: TypeAlias = tuple[bytes, int]

SLICES = (23, 7, 41, 11)


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
    `prompt_tokens` to `model`. `spaced` sends each frame in a write of its own.
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


def head(status: int, reason: str, content_type: str, *extra: str) -> bytes:
    """Status line and headers, each line ended."""
    lines = (f"HTTP/1.1 {status} {reason}", f"content-type: {content_type}", *extra, "")
    return "\r\n".join(lines).encode("latin-1")


def whole(first_lines: bytes, body: bytes) -> Delivery:
    """A delivery of one body of known length that bills nothing."""
    return Delivery(first_lines, ((body, 0),), len(body))


def spoil(delivery: Delivery, fault: Fault) -> Delivery:
    """Commit a fault on the wire; faults of status or content leave the delivery as it is."""
    change: dict[str, Any] = {}
    match fault.name:
        case "hang":
            change = {"head": b"", "frames": (), "ending": Ending.HOLD}
        case "refuse":
            ending = Ending.OUTAGE if fault.amount else Ending.RESET
            change = {"head": b"", "frames": (), "ending": ending, "outage": fault.amount}
        case "slow-first-byte":
            change = {"delay": delivery.delay + fault.amount}
        case "stall":
            change = {"frames": _until(delivery, int(fault.amount)), "ending": Ending.HOLD}
        case "cut":
            change = {"frames": _until(delivery, int(fault.amount)), "ending": Ending.RESET}
        case "truncated-json":
            change = {"frames": _truncated(delivery), "ending": Ending.CLOSE}
        case "malformed-sse":
            change = _malformed(delivery, int(fault.amount))
        case "split-utf8":
            change = {"frames": slices(delivery.frames), "spaced": True}
    return msgspec.structs.replace(delivery, **change)


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
