"""Journal: the append-only table that says what every call may cost, and what it did cost.

A call writes two rows. `hold` is there before anything leaves the house: its amount is what the call may cost, its scopes are
where it counts. The second is `settle`, what it cost, or `lost`: nobody saw its end, so it counts at its hold. A reservation
given back before it was dispatched writes nothing. `note` is a call that held nothing, for its answer was at hand.

Invariant: the journal alone determines every balance of calls that may have cost something. The table `spent` is a running sum of its rows up to `folded.seq`, kept
so that opening a long journal is quick; no hold before that row is open.

Sums are made of two halves (the upper bits and the lower 32), so that no sum of 64-bit amounts overflows.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from headgate.budget.book import Place, State, is_live
from headgate.budget.budget import Balance, UsageQuery, UsageRow
from headgate.budget.memory import check_groups
from headgate.storage.sqlite import Database, Step, connect, migrate, transaction

COLUMNS = (
    "id kind at tenant key user feature route model deployment source amount saved prompt_tokens completion_tokens "
    "cached_tokens cache_write_tokens reasoning_tokens estimated scopes"
).split()

SCHEMA: tuple[Step, ...] = (
    (
        """CREATE TABLE journal (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('hold', 'settle', 'lost', 'note')),
            at REAL NOT NULL,
            tenant TEXT NOT NULL, key TEXT NOT NULL, user TEXT, feature TEXT,
            route TEXT NOT NULL, model TEXT NOT NULL, deployment TEXT NOT NULL, source TEXT NOT NULL,
            amount INTEGER NOT NULL, saved INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
            cache_write_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL,
            scopes TEXT NOT NULL
        ) STRICT""",
        "CREATE UNIQUE INDEX journal_once ON journal (id, kind)",
        "CREATE INDEX journal_usage ON journal (tenant, at) WHERE kind IN ('settle', 'lost', 'note')",
        """CREATE TRIGGER journal_is_append_only BEFORE UPDATE ON journal
            BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END""",
        """CREATE TABLE spent (account TEXT NOT NULL, window TEXT NOT NULL, nano TEXT NOT NULL,
            PRIMARY KEY (account, window)) STRICT, WITHOUT ROWID""",
        "CREATE TABLE folded (seq INTEGER NOT NULL) STRICT",
        "INSERT INTO folded VALUES (0)",
    ),
)

INSERT = (
    f"INSERT INTO journal ({', '.join(COLUMNS)}) WITH row AS MATERIALIZED (SELECT value FROM json_each(?))"
    f" SELECT {', '.join(f'json_extract(value, {chr(39)}$[{index}]{chr(39)})' for index in range(len(COLUMNS)))}"
    " FROM row WHERE true ON CONFLICT (id, kind) DO NOTHING"
)
"""Writes a JSON array of rows; a row that is there already is left as it is.

Materialized, because `json_each` makes the text of a row anew for every column that is taken from it.
"""

_UNENDED = """h.kind = 'hold' AND h.seq > (SELECT seq FROM folded) AND NOT EXISTS (
    SELECT 1 FROM journal e WHERE e.id = h.id AND e.kind IN ('settle', 'lost'))"""

_END_OPEN = f"""INSERT INTO journal ({", ".join(COLUMNS)})
    SELECT h.id, 'lost', ?, h.tenant, h.key, h.user, h.feature, h.route, h.model, h.deployment, h.source, h.amount,
        0, 0, 0, 0, 0, 0, 0, h.scopes
    FROM journal h WHERE {_UNENDED}"""

_SUMS = """SELECT scopes, sum(amount >> 32), sum(amount & 4294967295) FROM journal
    WHERE seq > ? AND seq <= ? AND kind IN ('settle', 'lost') GROUP BY scopes"""

_HELD = f"""SELECT h.scopes, sum(h.amount >> 32), sum(h.amount & 4294967295) FROM journal h
    WHERE {_UNENDED} GROUP BY h.scopes"""

_LOST = "SELECT sum(amount >> 32), sum(amount & 4294967295) FROM journal WHERE kind = 'lost'"

_ENDED = """SELECT id, kind, scopes FROM journal WHERE kind IN ('settle', 'lost')
    AND seq > (SELECT max(seq) FROM journal) - 20000 ORDER BY seq"""

_STATES: dict[str, State] = {"settle": "settled", "lost": "lost"}

_places = msgspec.json.Decoder(tuple[Place, ...])


def end_open(connection: sqlite3.Connection, now: float) -> int:
    """Count every call whose end a former process did not see at what was held for it. How many."""
    return connection.execute(_END_OPEN, (now,)).rowcount


def fold(connection: sqlite3.Connection, *, oldest: float) -> dict[Place, int]:
    """Bring the running sums up to the last row before which nothing is open; windows that ended before `oldest` go.

    Returns the sums. Only the last, short part takes the write lock.
    """
    folded, until = _range(connection)
    sums: defaultdict[Place, int] = defaultdict(int)
    for account, window, nano in connection.execute("SELECT account, window, nano FROM spent"):
        sums[account, window] = int(nano)
    for scopes, high, low in connection.execute(_SUMS, (folded, until)):
        for place in _places.decode(scopes):
            sums[place] += (high << 32) + low
    alive = {place: nano for place, nano in sums.items() if is_live(place[1], oldest)}
    with transaction(connection):
        connection.execute("DELETE FROM spent")
        rows = [(account, window, str(nano)) for (account, window), nano in alive.items()]
        connection.executemany("INSERT INTO spent VALUES (?, ?, ?)", rows)
        connection.execute("UPDATE folded SET seq = ?", (until,))
    return alive


def ended(connection: sqlite3.Connection) -> list[tuple[str, State, tuple[Place, ...]]]:
    """The reservations that ended last, oldest first: ids by which a repeat is recognised after a restart."""
    return [(id, _STATES[kind], _places.decode(scopes)) for id, kind, scopes in connection.execute(_ENDED)]


def _range(connection: sqlite3.Connection) -> tuple[int, int]:
    """The last row in the running sums, and the last that may be. One statement, so of one moment."""
    row = connection.execute(
        f"""SELECT (SELECT seq FROM folded), coalesce(
            (SELECT h.seq - 1 FROM journal h WHERE {_UNENDED} ORDER BY h.seq LIMIT 1),
            (SELECT max(seq) FROM journal), 0)"""
    ).fetchone()
    return int(row[0]), int(row[1])


def open_journal(path: str | Path) -> Journal:
    """A journal to read; the file is made when there is none. Blocks. Raises Conflict as `migrate` does."""
    connection = connect(path)
    try:
        migrate(connection, SCHEMA)
    finally:
        connection.close()
    return Journal(path)


class Journal:
    """Reads a journal, also while a server writes it."""

    def __init__(self, path: str | Path) -> None:
        """Opens the file on first use."""
        self._database = Database(path)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sum settled rows by group, ordered by group. Raises InvalidRequest for a group there is not."""
        check_groups(query)
        sql, parameters = _usage_sql(query)
        rows = await self._database.query(sql, parameters)
        return [_usage_row(query.group_by, row) for row in rows if row[len(query.group_by)]]

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent on a scope by the rows written so far, and what dispatched calls hold."""
        return await self._database.call(lambda connection: _balance(connection, (account, window)))

    async def lost(self) -> int:
        """Nano-USD that were settled at their holds because nobody saw the end of the call."""
        ((high, low),) = await self._database.query(_LOST)
        return (int(high or 0) << 32) + int(low or 0)

    async def fold(self, *, oldest: float) -> None:
        """Bring the running sums up to date."""
        await self._database.call(lambda connection: fold(connection, oldest=oldest))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def _balance(connection: sqlite3.Connection, place: Place) -> Balance:
    """One moment's balance: the running sum, what was settled after it, and what is open."""
    with transaction(connection):
        ((folded,),) = connection.execute("SELECT seq FROM folded").fetchall()
        kept = connection.execute("SELECT nano FROM spent WHERE account = ? AND window = ?", place).fetchone()
        later = connection.execute(_SUMS, (folded, 2**63 - 1)).fetchall()
        held = connection.execute(_HELD).fetchall()
    return Balance(spent=(int(kept[0]) if kept else 0) + _sum_on(place, later), held=_sum_on(place, held))


def _sum_on(place: Place, rows: list[tuple[str, int, int]]) -> int:
    return sum((high << 32) + low for scopes, high, low in rows if place in _places.decode(scopes))


def _usage_sql(query: UsageQuery) -> tuple[str, dict[str, Any]]:
    """The names in `group_by` have been checked; everything else is bound."""
    day = "strftime('%Y-%m-%d', at, 'unixepoch')"
    groups = [day if name == "day" else f"coalesce({name}, '')" for name in query.group_by]
    bounds = {"tenant": "tenant = :tenant", "since": "at >= :since", "until": "at < :until"}
    parameters = {name: value for name in bounds if (value := getattr(query, name)) is not None}
    conditions = ["kind IN ('settle', 'lost', 'note')", *(bounds[name] for name in parameters)]
    order = ", ".join(str(index + 1) for index in range(len(groups)))
    sums = (
        "count(*), sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens), "
        "sum(amount >> 32), sum(amount & 4294967295), sum(saved >> 32), sum(saved & 4294967295)"
    )
    sql = f"SELECT {', '.join([*groups, sums])} FROM journal WHERE {' AND '.join(conditions)}"
    return (f"{sql} GROUP BY {order} ORDER BY {order}" if groups else sql), parameters


def _usage_row(names: tuple[str, ...], row: tuple[Any, ...]) -> UsageRow:
    requests, prompt, completion, cached, cost_high, cost_low, saved_high, saved_low = row[len(names) :]
    return UsageRow(
        group=dict(zip(names, row, strict=False)),
        requests=requests,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cost=(cost_high << 32) + cost_low,
        saved=(saved_high << 32) + saved_low,
    )
