"""PostgresTail: the rows of the journal in PostgreSQL behind a place. What is promised of them is in `posted.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headgate.budget.budget import Entry
from headgate.budget.journal import row_of
from headgate.budget.posted import Bookmark, Fork, Posted, not_replaced, replaced, wrong_clock
from headgate.budget.postgres_acts import act
from headgate.budget.postgres_reading import ENTRY, POST, entry_of
from headgate.budget.sums import MICRO, micros
from headgate.model.errors import Conflict
from headgate.storage.postgres import Postgres

# What is shared is read of rows that spend; the detail of others is something else.
_POSTED = f"SELECT seq, checksum, id, kind, attempt, at, detail, {ENTRY} FROM headgate_journal"
_ROWS = f"{_POSTED} WHERE seq > %s AND seq <= %s AND kind = ANY (%s) ORDER BY seq LIMIT %s"
_PLACES = """SELECT (SELECT checksum FROM headgate_journal WHERE seq = %s), h.seq, coalesce(
    (SELECT checksum FROM headgate_journal j WHERE j.seq = h.seq), 0) FROM headgate_head h"""
_LAST_OLDER = "SELECT seq, checksum, at FROM headgate_journal WHERE at <= %s ORDER BY seq DESC LIMIT 1"
_BEHIND = "SELECT min(at), count(*), sum(billed) FROM headgate_journal WHERE seq > %s AND kind = ANY (%s)"
_OPEN = """SELECT EXISTS (SELECT FROM headgate_calls c JOIN headgate_journal j ON j.id = c.id AND j.kind = 'hold'
    WHERE c.state = 'open' AND j.seq <= %s)"""
# Only the end of its lease ends a call whose process is gone, and it ends it so.
_CUT_OFF = f"""{_POSTED} l WHERE kind = 'lost' AND seq > %s AND kind = ANY (%s)
    AND EXISTS (SELECT FROM headgate_journal h WHERE h.id = l.id AND h.kind = 'hold' AND h.seq <= %s) ORDER BY seq"""


class PostgresTail:
    """Reads the journal from a place on, and writes alerts into it."""

    def __init__(self, postgres: Postgres) -> None:
        """The connections are closed by whoever opened them."""
        self._postgres = postgres

    async def rows(self, after: Bookmark, kinds: Sequence[str], limit: int) -> tuple[Bookmark, list[Posted]]:
        """At most `limit` rows of these kinds behind `after`, and the row up to which there are no others."""
        ((checksum, last, its),) = await self._postgres.query(_PLACES, (after[0],))
        if _is_other(after, checksum):
            raise replaced(after[0])
        rows = await self._postgres.query(_ROWS, (after[0], last, list(kinds), limit))
        if len(rows) == limit:
            return (rows[-1][0], rows[-1][1]), [_posted(row) for row in rows]
        return (last, its) if last else after, [_posted(row) for row in rows]

    async def fork(self, after: Bookmark, moment: float, kinds: Sequence[str]) -> Fork:
        """Where this journal parts from the one that was read up to `after`. Calls of before that are open here end with their leases, so
        until then Conflict is raised."""
        ((found, _, _),) = await self._postgres.query(_PLACES, (after[0],))
        if not _is_other(after, found):
            raise not_replaced()
        older = await self._postgres.query(_LAST_OLDER, (micros(moment),))
        row, checksum, at = older[0] if older else (0, None, None)
        if row >= after[0]:
            raise wrong_clock(row, after[0])
        ((open_yet,),) = await self._postgres.query(_OPEN, (row,))
        if open_yet:
            raise Conflict(
                "Calls of before are still open in this journal. Start a server, which ends them when their leases are over, and repeat"
                " this."
            )
        ((first, number, billed),) = await self._postgres.query(_BEHIND, (row, list(kinds)))
        cut_off = await self._postgres.query(_CUT_OFF, (row, list(kinds), row))
        return Fork(
            place=(row, checksum),
            at=None if at is None else at / MICRO,
            first=None if first is None else first / MICRO,
            rows=number,
            billed=int(billed or 0),
            cut_off=[_posted(one) for one in cut_off],
        )

    async def tell(self, id: str, at: float, entry: Entry, detail: str) -> bool:
        """Write an alert; whether it was not there yet."""
        row = row_of(id, "alert", at, entry, detail=detail)
        ((told,),) = await self._postgres.query(POST, (f"[{act('once', id, [row]).decode()}]", "[]"))
        return bool(told["written"][0][0])


def _is_other(after: Bookmark, found: int | None) -> bool:
    """Whether another row, or none, has the place of the one that was read."""
    row, checksum = after
    return bool(row) and checksum is not None and found != checksum


def _posted(row: Sequence[Any]) -> Posted:
    seq, _, id, kind, attempt, at, detail, *entry = row
    return Posted(seq=seq, id=id, kind=kind, attempt=attempt, at=at, entry=entry_of(entry), detail=detail)
