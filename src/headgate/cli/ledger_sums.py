"""Whether the ledger's running sums equal its journal: the check that proves a bill right.

Both sides are read in one transaction, so a server may go on writing meanwhile.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict

_SETTLED = """SELECT scopes, sum(amount >> 32), sum(amount & 4294967295) FROM journal
    WHERE seq <= (SELECT seq FROM folded) AND kind IN ('settle', 'lost') GROUP BY scopes"""


def unequal_sums(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many running sums differ from the journal's, and how many there are.

    Sums of windows that ended long ago have been dropped; they cannot differ. A total is never dropped.
    """
    connection.execute("BEGIN")
    try:
        kept = {(account, window): int(nano) for account, window, nano in connection.execute("SELECT * FROM spent")}
        settled: defaultdict[tuple[str, str], int] = defaultdict(int)
        for scopes, high, low in connection.execute(_SETTLED):
            for account, window in json.loads(scopes):
                settled[account, window] += (high << 32) + low
    finally:
        connection.execute("ROLLBACK")
    places = kept.keys() | {place for place in settled if place[1] == "total"}
    return sum(kept.get(place, 0) != settled[place] for place in places), len(places)
