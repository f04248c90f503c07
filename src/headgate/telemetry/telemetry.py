"""Telemetry: what happened. One `CallRecord` leaves per call and goes to every sink; stages never report by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headgate.model.record import CallRecord


class Sink(Protocol):
    """Somewhere that records go. Guarantees: never blocks, never raises."""

    def record(self, record: CallRecord) -> None:
        """Take note of one finished call."""
        ...

    def close(self) -> None:
        """Write out what is still held."""
        ...


class Telemetry:
    """Hands each record to all sinks."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def record(self, record: CallRecord) -> None:
        """Take note of one finished call."""
        for sink in self._sinks:
            sink.record(record)

    def close(self) -> None:
        """Let every sink write out what it holds."""
        for sink in self._sinks:
            sink.close()
