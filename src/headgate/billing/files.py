"""Files: every billed row of the journal as a line of CSV or of JSON, in a file of the data directory.

Exactly once: the length that was acknowledged last is kept in the outbox, in one transaction with the acknowledgement. What
stands behind it was written by a process that died before it could tell, and is cut off before more is appended. A file that
was moved away is begun anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from headgate.billing.billing import BILLED, DELIVERED, Delivery, Event, Line, Outcome
from headgate.billing.cells import csv_line, safe_cell
from headgate.model.money import to_usd

BATCH = 1_000

COLUMNS = (
    "id", "at", "kind", "tenant", "customer", "key", "user", "feature", "route", "model", "deployment", "source", "prompt_tokens",
    "completion_tokens", "cached_tokens", "cost_usd", "billed_usd", "saved_usd",
)  # fmt: skip

_encode = msgspec.json.Encoder().encode


class RowFile:
    """One growing file. CSV begins with a line of names."""

    kinds = BILLED
    batch = BATCH
    remembers = None

    def __init__(self, path: Path, shape: Literal["csv", "jsonl"]) -> None:
        """The file is made for this user's eyes alone when it is needed."""
        self._path = path
        self._shape = shape

    def render(self, line: Line, id: str, customer: str | None) -> bytes | None:
        """The row as a line of the file."""
        cells: dict[str, Any] = {
            **{name: getattr(line, name, None) for name in COLUMNS},
            "id": id,
            "at": line.time,
            "customer": customer,
            "cost_usd": to_usd(line.amount),
            "billed_usd": to_usd(line.billed),
            "saved_usd": to_usd(line.saved),
        }
        if self._shape == "jsonl":
            return _encode(cells) + b"\n"
        return csv_line([safe_cell(cells[name]) for name in COLUMNS])

    async def deliver(self, events: Sequence[Event], mark: int) -> Delivery:
        """Append behind `mark`, the acknowledged length, and wait for the disk (fsync)."""
        body = b"".join(event.body or b"" for event in events)
        try:
            length = await asyncio.to_thread(self._append, body, mark)
        except OSError as error:
            return Delivery((Outcome("again", f"{self._path.name}: {error.strerror or error}"),) * len(events), mark)
        return Delivery((DELIVERED,) * len(events), length)

    def _append(self, body: bytes, mark: int) -> int:
        self._path.touch(mode=0o600)
        with self._path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if 0 < size < mark:
                raise OSError(f"it has {size} bytes, fewer than the {mark} that were written; move it away")
            start = min(mark, size)
            if start == 0 and self._shape == "csv":
                body = csv_line(COLUMNS) + body
            file.truncate(start)
            file.seek(start)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
            return start + len(body)
