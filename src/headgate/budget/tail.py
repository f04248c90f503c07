"""Tail: the rows of a journal in a file behind a place, for whoever passes them on. What is promised of them is in `posted.py`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from headgate.budget.budget import Entry
from headgate.budget.journal import INSERT, row_of
from headgate.budget.posted import Bookmark, Fork, Posted, not_replaced, replaced, wrong_clock
from headgate.budget.sums import MICRO, RARE, mark_of, open_calls, whole
from headgate.model.errors import Conflict
from headgate.model.money import Usage
from headgate.storage.sqlite import Database, snapshot

_FIELDS = (
    "tenant key user feature route model deployment source amount billed saved prices prompt_tokens completion_tokens cached_tokens "
    "cache_write_tokens reasoning_tokens estimated"
).split()
_ENTRY = _FIELDS[:12]
_USAGE = _FIELDS[12:]
_ROWS = f"""SELECT seq, checksum, id, kind, attempt, at, detail, {", ".join(_FIELDS)} FROM journal
    WHERE seq > ? AND seq <= ? AND kind IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?"""
_LAST = "SELECT seq, checksum FROM journal ORDER BY seq DESC LIMIT 1"
_LAST_OLDER = "SELECT seq, checksum, at FROM journal WHERE at <= ? ORDER BY seq DESC LIMIT 1"
_BEHIND = """SELECT min(at), count(*), sum(billed >> 32), sum(billed & 4294967295) FROM journal
    WHERE seq > ? AND kind IN (SELECT value FROM json_each(?))"""
# Only opening a journal ends calls that another process began, and it ends them so.
_CUT_OFF = f"""SELECT seq, checksum, id, kind, attempt, at, detail, {", ".join(_FIELDS)} FROM journal l
    WHERE {RARE} AND kind = 'lost' AND seq > ? AND kind IN (SELECT value FROM json_each(?))
    AND EXISTS (SELECT 1 FROM journal h WHERE h.id = l.id AND h.kind = 'hold' AND h.seq <= ?) ORDER BY seq"""


class Tail:
    """Reads a journal from a place on, on a connection of its own, and writes alerts into it."""

    def __init__(self, path: str | Path) -> None:
        """Opens the file on first use; it must have been made."""
        self._database = Database(path)

    async def rows(self, after: Bookmark, kinds: Sequence[str], limit: int) -> tuple[Bookmark, list[Posted]]:
        """At most `limit` rows of these kinds behind `after`, and the row up to which there are no others.

        Raises Conflict when the row at `after` is another one or is gone: the journal is not the one that was read before.
        """
        return await self._database.call(lambda connection: _read(connection, after, kinds, limit))

    async def fork(self, after: Bookmark, moment: float, kinds: Sequence[str]) -> Fork:
        """Where this journal parts from the one that was read up to `after`: behind the last row not younger than `moment`.

        A journal that replaces another is written by a process that starts later. So with the unix time at which `after` was
        read, or any until that start, this is exact. Raises Conflict when the journal was not replaced, when the clock cannot
        be right, and while calls are open there that only the start of a server ends.
        """
        return await self._database.call(lambda connection: _fork(connection, after, moment, kinds))

    async def tell(self, id: str, at: float, entry: Entry, detail: str) -> bool:
        """Write an alert; whether it was not there yet. `at` in unix seconds."""
        row = row_of(id, "alert", at, entry, detail=detail)
        return await self._database.call(
            lambda connection: connection.execute(INSERT, ((b"[%b]" % row).decode(),)).rowcount > 0
        )

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def _read(
    connection: sqlite3.Connection, after: Bookmark, kinds: Sequence[str], limit: int
) -> tuple[Bookmark, list[Posted]]:
    if _replaced(connection, after):
        raise replaced(after[0])
    last = connection.execute(_LAST).fetchone() or after
    rows = connection.execute(_ROWS, (after[0], last[0], _json(kinds), limit)).fetchall()
    return (rows[-1][:2] if len(rows) == limit else last), [_posted(row) for row in rows]


def _replaced(connection: sqlite3.Connection, after: Bookmark) -> bool:
    """Whether another row, or none, has the place of the one that was read."""
    row, checksum = after
    if not row or checksum is None:
        return False
    found = connection.execute("SELECT checksum FROM journal WHERE seq = ?", (row,)).fetchone()
    return found is None or found[0] != checksum


def _fork(connection: sqlite3.Connection, after: Bookmark, moment: float, kinds: Sequence[str]) -> Fork:
    with snapshot(connection):
        if not _replaced(connection, after):
            raise not_replaced()
        row, checksum, at = connection.execute(_LAST_OLDER, (int(moment * MICRO),)).fetchone() or (0, None, None)
        if row >= after[0]:
            raise wrong_clock(row, after[0])
        if any(call.seq <= row for call in open_calls(connection, mark_of(connection))):
            raise Conflict(
                "Calls of before are still open in this journal. Start the server, which ends them, and repeat this."
            )
        first, rows, *billed = connection.execute(_BEHIND, (row, _json(kinds))).fetchone()
        cut_off = connection.execute(_CUT_OFF, (row, _json(kinds), row)).fetchall()
    return Fork(
        place=(row, checksum),
        at=None if at is None else at / MICRO,
        first=None if first is None else first / MICRO,
        rows=rows,
        billed=whole(*billed),
        cut_off=[_posted(row) for row in cut_off],
    )


def _json(kinds: Sequence[str]) -> str:
    return msgspec.json.encode(tuple(kinds)).decode()


def _posted(row: Sequence[Any]) -> Posted:
    seq, _, id, kind, attempt, at, detail, *fields = row
    usage = Usage(**dict(zip(_USAGE[:-1], fields[12:-1], strict=True)), estimated=bool(fields[-1]))
    entry = Entry(**dict(zip(_ENTRY, fields, strict=False)), usage=usage)
    return Posted(seq=seq, id=id, kind=kind, attempt=attempt, at=at, entry=entry, detail=detail)
