"""Posted: the journal's rows behind a place, for whoever passes them on. `tail.py` reads them from a file, `postgres_tail.py` from PostgreSQL.

Only what is committed is seen, and rows are numbered in the order of their commits: a row never appears before a place that was read already.
Unless the journal is replaced: a backup was restored, or a power cut took its newest rows. Then other rows have the numbers of those that were
read, which the checksum of the row at the place tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from headgate.budget.budget import Entry
from headgate.model.errors import Conflict

Bookmark = tuple[int, int | None]
"""Up to where a journal was read: the number of a row and its checksum. None: not known, and not checked."""


class Posted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row as it stands in the journal. `at` is unix microseconds."""

    seq: int
    id: str
    kind: str
    attempt: int
    at: int
    entry: Entry
    detail: str | None = None


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """Where a journal parts from another that was read before. Times are unix seconds, money nano-USD.

    place    the last row that both have
    at       when it was written; None when they have none in common
    first    when the first row behind it was written; None when there is none
    rows     how many are behind it, of the kinds that were asked for, and what they billed
    cut_off  those of them that end calls begun before: the other journal may have ended these calls too
    """

    place: Bookmark
    at: float | None
    first: float | None
    rows: int
    billed: int
    cut_off: list[Posted]


class JournalTail(Protocol):
    """Reads a journal from a place on, and writes alerts into it."""

    async def rows(self, after: Bookmark, kinds: Sequence[str], limit: int) -> tuple[Bookmark, list[Posted]]:
        """At most `limit` rows of these kinds behind `after`, and the row up to which there are no others.

        Raises Conflict when the row at `after` is another one or is gone: the journal is not the one that was read before.
        """
        ...

    async def fork(self, after: Bookmark, moment: float, kinds: Sequence[str]) -> Fork:
        """Where this journal parts from the one that was read up to `after`: behind the last row not younger than `moment`.

        A journal that replaces another is written by a process that starts later. So with the unix time at which `after` was
        read, or any until that start, this is exact. Raises Conflict when the journal was not replaced, when the clock cannot
        be right, and while calls of before are still open there.
        """
        ...

    async def tell(self, id: str, at: float, entry: Entry, detail: str) -> bool:
        """Write an alert; whether it was not there yet. `at` in unix seconds."""
        ...


def replaced(row: int) -> Conflict:
    """The journal is not the one that was read."""
    return Conflict(
        f"Row {row} of the journal is not the one that was read before: the journal was replaced, by an older backup for"
        " instance. Nothing is sent until somebody says where to go on; see `headgate billing rewind`."
    )


def not_replaced() -> Conflict:
    """There is nothing to go back from."""
    return Conflict("The journal is the one that was read before, so there is nothing to go back from.")


def wrong_clock(row: int, read: int) -> Conflict:
    """A row of the time after `moment` was read before it."""
    return Conflict(
        f"Row {row} is not younger than that moment, but the journals part before row {read}: a clock was wrong. Say an"
        " earlier moment: one between the backup and the first start with it."
    )
