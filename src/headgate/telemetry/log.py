"""Log: one JSON line for each call, written by a thread of its own.

The invariants: `record` only appends to a queue, so a slow disk or a stopped pipe never delays a call; the queue is
bounded; what was dropped is counted and said in the log itself as soon as it can be written again.

A line is the record's fields after `"event":"call"`; records hold no prompt, no answer and no secret.
"""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from headgate.model.record import CallRecord

_BATCH = 256


class LogSink:
    """Writes records to a binary stream."""

    def __init__(self, stream: BinaryIO, *, most: int = 10_000, linger: float = 0.2, owned: bool = False) -> None:
        """`most` records wait at a time. `linger` (seconds) gathers records for one write; `owned` streams are closed."""
        self._stream = stream
        self._most = most
        self._linger = linger
        self._owned = owned
        self._waiting: deque[CallRecord] = deque()
        # Each number has one writing thread: the loop's `_refused`, the writer's `_failed` and `_said`.
        self._refused = self._failed = self._said = 0
        self._some = threading.Event()
        self._closing = threading.Event()
        self._encoder = msgspec.json.Encoder()
        self._writer = threading.Thread(target=self._write_all, name="headgate-log", daemon=True)
        self._writer.start()

    @classmethod
    def to_file(cls, path: Path, *, most: int = 10_000) -> Self:
        """Append to a file. Raises OSError when it cannot be opened."""
        return cls(path.open("ab"), most=most, owned=True)

    @property
    def dropped(self) -> int:
        """Records that were not written, because the queue was full or the stream failed."""
        return self._refused + self._failed

    def record(self, record: CallRecord) -> None:
        """Queue one finished call, or drop it when the queue is full or closed."""
        if len(self._waiting) >= self._most or self._closing.is_set():
            self._refused += 1
            return
        self._waiting.append(record)
        if not self._some.is_set():
            self._some.set()

    def close(self, timeout: float = 5.0) -> None:
        """Write what is queued, waiting at most `timeout` seconds for a stream that does not take it."""
        self._closing.set()
        self._some.set()
        self._writer.join(timeout)

    def _write_all(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            self._closing.wait(self._linger)
            # Cleared before reading: a record that comes meanwhile sets it again.
            self._some.clear()
            self._drain()
        self._drain()
        self._failed += len(self._waiting)
        if self._owned:
            self._stream.close()

    def _drain(self) -> None:
        """Write until nothing waits, or the stream fails."""
        while self._waiting or self.dropped > self._said:
            taken = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            lines = [line for line in map(self._line, taken) if line]
            self._failed += len(taken) - len(lines)
            if not self._write(lines):
                return

    def _line(self, record: CallRecord) -> bytes:
        """Empty when the record holds text that is not Unicode, as a header may."""
        try:
            return b'{"event":"call",' + self._encoder.encode(record)[1:] + b"\n"
        except UnicodeEncodeError:
            return b""

    def _write(self, lines: list[bytes]) -> bool:
        """One write for many lines. False when the stream failed: those records count as dropped."""
        dropped = self.dropped
        said = b'{"event":"records_dropped","count":%d}\n' % (dropped - self._said) if dropped > self._said else b""
        try:
            self._stream.write(b"".join(lines) + said)
            self._stream.flush()
        except (OSError, ValueError):
            self._failed += len(lines)
            return False
        self._said = dropped
        return True
