"""Whether the ledger proves itself right: every call ended once, and the running sums equal the journal.

Everything is read in one transaction, so a server may go on writing meanwhile.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict

import msgspec

_SETTLED = """SELECT scopes, sum(amount >> 32), sum(amount & 4294967295) FROM journal
    WHERE seq <= (SELECT seq FROM folded) AND kind IN ('settle', 'lost') GROUP BY scopes"""

_ENDINGS = """SELECT count(*), coalesce(sum(endings > 1), 0), coalesce(sum(holds = 0 AND spent > 0), 0) FROM (
    SELECT sum(kind = 'hold') AS holds, sum(kind != 'hold') AS endings, max((kind != 'hold') * amount) AS spent FROM journal
    WHERE kind != 'note' GROUP BY id)"""
"""A call that was refused when it was to be dispatched may have settled at nothing without a hold."""


class Proof(msgspec.Struct, frozen=True):
    """What was found: `calls`, those that `ended_twice` or cost something `unheld`, `sums`, and those `unequal` to the journal."""

    calls: int
    ended_twice: int
    unheld: int
    sums: int
    unequal: int

    @property
    def holds(self) -> bool:
        """True when nothing is wrong."""
        return (self.ended_twice, self.unheld, self.unequal) == (0, 0, 0)


def prove(connection: sqlite3.Connection) -> Proof:
    """Check a ledger. Raises sqlite3.Error when it cannot be read."""
    connection.execute("BEGIN")
    try:
        calls, twice, unheld = connection.execute(_ENDINGS).fetchone()
        sums, unequal = _sums(connection)
        return Proof(calls, twice, unheld, sums, unequal)
    finally:
        connection.execute("ROLLBACK")


def _sums(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many running sums there are, and how many differ from the journal.

    Sums of windows that ended long ago have been dropped; they cannot differ. A total is never dropped.
    """
    kept = {(account, window): int(nano) for account, window, nano in connection.execute("SELECT * FROM spent")}
    settled: defaultdict[tuple[str, str], int] = defaultdict(int)
    for scopes, high, low in connection.execute(_SETTLED):
        for account, window in json.loads(scopes):
            settled[account, window] += (high << 32) + low
    places = kept.keys() | {place for place in settled if place[1] == "total"}
    return len(places), sum(kept.get(place, 0) != settled[place] for place in places)
