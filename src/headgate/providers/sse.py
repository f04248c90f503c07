"""Server-sent events: the one parser, incremental over bytes.

The algorithm is WHATWG's (HTML standard, section 9.2.6 "Interpreting an event stream"), kept in bytes because the values are
JSON, which its decoder wants in bytes. The invariant: the events do not depend on how the stream was cut into chunks.
"""

from __future__ import annotations

import msgspec

from headgate.model.errors import Malformed

MAX_EVENT = 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    """One event: its lines of data joined by newlines, and its type (`message` when it names none)."""

    data: bytes
    event: bytes = b"message"


class SseParser:
    """Takes chunks, gives the events that have ended. An event without its final blank line is never given."""

    def __init__(self, *, max_event: int = MAX_EVENT) -> None:
        """`max_event` is the most bytes of one line, and of one event's data."""
        self._max = max_event
        self._start: bytes | None = b""
        self._line = bytearray()
        self._skip_newline = False
        self._data: list[bytes] = []
        self._size = 0
        self._event = b""
        self.last_id = b""
        self.retry: int | None = None

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that this chunk completes. Raises Malformed when a line or an event is too long."""
        if chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") and self._between() and b"\r" not in chunk:
            self._start = None
            self._skip_newline = False
            return self._whole_events(chunk)
        return self._lines(chunk)

    def _between(self) -> bool:
        """True when nothing of an event or a line has come yet."""
        return not (self._start or self._line or self._data or self._event)

    def _whole_events(self, chunk: bytes) -> list[SseEvent]:
        """The common case: a chunk of whole events, mostly of one line of data each."""
        events: list[SseEvent] = []
        blocks = chunk.split(b"\n\n")
        blocks.pop()
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:
                if len(block) > self._max:
                    raise Malformed("The provider sent an event that is too long.")
                events.append(SseEvent(block[6:]))
            else:
                events += self._lines(block + b"\n\n")
        return events

    def _lines(self, chunk: bytes) -> list[SseEvent]:
        if self._start is not None:
            chunk = self._without_bom(chunk)
        if not chunk:
            return []
        if self._skip_newline:
            self._skip_newline = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._skip_newline = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *rest = chunk.split(b"\n")
        self._line += first
        events: list[SseEvent] = []
        for following in rest:
            self._check(len(self._line))
            self._take(bytes(self._line), events)
            self._line = bytearray(following)
        self._check(len(self._line))
        return events

    def _without_bom(self, chunk: bytes) -> bytes:
        """A byte order mark may open the stream, in pieces; hold back what may still become one."""
        held = (self._start or b"") + chunk
        if len(held) < len(_BOM) and _BOM.startswith(held):
            self._start = held
            return b""
        self._start = None
        return held.removeprefix(_BOM)

    def _take(self, line: bytes, events: list[SseEvent]) -> None:
        if not line:
            if self._data:
                events.append(SseEvent(b"\n".join(self._data), self._event or b"message"))
            self._data = []
            self._size = 0
            self._event = b""
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + 1
            self._check(self._size)
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and b"\0" not in value:
            self.last_id = value
        elif name == b"retry" and value.isdigit():
            self.retry = int(value[:9])

    def _check(self, size: int) -> None:
        if size > self._max:
            raise Malformed("The provider sent an event that is too long.")
