"""Proof: whether a ledger on disk is right, and how what is derived from its journal is made anew.

Everything is read in one moment, so a server may go on writing meanwhile.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec

from headgate.budget.journal import SCHEMA, damaged_rows, verify
from headgate.budget.sqlite import KEEP
from headgate.budget.sums import Mark, Place, Sum, added, kept_sums, last_row, mark_of, refold
from headgate.model.errors import Conflict
from headgate.storage.sqlite import Claim, connect, migrate, snapshot

_CALLS = """SELECT count(*), coalesce(sum(ends > 1), 0), coalesce(sum(unheld), 0) FROM (
    SELECT sum(kind IN ('settle', 'lost')) AS ends,
        max(kind != 'hold' AND amount > 0) AND coalesce(min(CASE WHEN kind != 'hold' AND amount > 0 THEN seq END)
            < min(CASE kind WHEN 'hold' THEN seq END), true)
        OR sum(CASE kind WHEN 'lost' THEN amount ELSE 0 END)
            > sum(CASE WHEN kind IN ('hold', 'extend') THEN amount ELSE 0 END) AS unheld
    FROM journal WHERE kind IN ('hold', 'extend', 'charge', 'settle', 'lost') GROUP BY id)"""
"""How many calls there are, how many ended twice, and how many cost something before it was held, or were lost at more than that.

A call that was refused when it was to be dispatched may have settled at nothing without a hold.
"""

_OWED = "SELECT count(*) FROM journal WHERE kind NOT IN ('hold', 'extend', 'charge', 'settle', 'lost', 'seed') AND amount != 0"
"""Rows that owe a provider something for no call."""

_UNENDED = """SELECT h.seq FROM journal h WHERE h.kind = 'hold' AND h.seq <= :seq AND NOT EXISTS (SELECT 1 FROM journal e
    WHERE e.id = h.id AND e.kind IN ('settle', 'lost', 'note') AND e.seq > h.seq AND e.seq <= :seq) ORDER BY h.seq"""

Kept = tuple[Mark, dict[Place, Sum]]


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    rows, damaged, missing  of the journal; `first` is the first of the latter two
    calls       how many there are, those that `ended_twice`, and those that cost something `unheld`
    sums        running sums that the journal makes, and those `unequal` to what is kept
    legible     whether what is kept can be read at all
    """

    rows: int
    damaged: int = 0
    missing: int = 0
    first: int = 0
    calls: int = 0
    ended_twice: int = 0
    unheld: int = 0
    sums: int = 0
    unequal: int = 0
    legible: bool = True

    @property
    def sound(self) -> bool:
        """True when each row is there as it was written."""
        return not (self.damaged or self.missing)

    @property
    def holds(self) -> bool:
        """True when nothing is wrong."""
        return self.sound and self.legible and (self.ended_twice, self.unheld, self.unequal) == (0, 0, 0)


def prove(connection: sqlite3.Connection) -> Proof:
    """Check a ledger. Of a journal with damaged rows nothing else is said. Raises sqlite3.Error when it cannot be read."""
    with snapshot(connection):
        kept = _kept(connection)
        found = whole_journal(connection, kept)
        if not found.sound:
            return found
        calls, twice, unheld = connection.execute(_CALLS).fetchone()
        (owed,) = connection.execute(_OWED).fetchone()
        sums, unequal = (0, 0) if kept is None else _compared(connection, *kept)
        return Proof(
            rows=found.rows,
            calls=calls,
            ended_twice=twice,
            unheld=unheld + owed,
            sums=sums,
            unequal=unequal,
            legible=kept is not None,
        )


def rebuild(path: Path) -> Proof:
    """Make the indexes and the running sums anew from the journal, which stays as it is; the proof after that.

    Raises Conflict while a server keeps this ledger, and when rows of the journal are damaged: then nothing has been changed.
    """
    claim = Claim(path)
    try:
        with closing(connect(path)) as connection:
            migrate(connection, SCHEMA)
            found = whole_journal(connection, _kept(connection))
            if not found.sound:
                raise damaged_rows(found.damaged + found.missing, found.first)
            connection.execute("REINDEX")
            refold(connection, oldest=time.time() - KEEP)
            return prove(connection)
    finally:
        claim.release()


def whole_journal(connection: sqlite3.Connection, kept: Kept | None) -> Proof:
    """Is every row there as it was written, to the last that is in the running sums at least?"""
    found = verify(connection)
    missing = found.missing + (0 if kept is None else max(0, kept[0].seq - last_row(connection)))
    return Proof(rows=found.rows, damaged=found.damaged, missing=missing, first=found.first or found.rows + 1)


def _kept(connection: sqlite3.Connection) -> Kept | None:
    """What is kept beside the journal; None when it is damaged."""
    try:
        mark = mark_of(connection)
        return mark, dict(kept_sums(connection, mark))
    except Conflict:
        return None


def _compared(connection: sqlite3.Connection, mark: Mark, kept: dict[Place, Sum]) -> tuple[int, int]:
    """How many running sums the journal makes, and how many of those kept differ, the list of what was open among them."""
    made = added(connection, 0, mark.seq, since=mark.since)
    differing = sum(made.get(place, Sum()) != kept.get(place, Sum()) for place in made.keys() | kept.keys())
    unended = tuple([seq for (seq,) in connection.execute(_UNENDED, {"seq": mark.seq})])
    return len(made), differing + (unended != mark.unended)
