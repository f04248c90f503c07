"""Journal: the append-only table that says what every call may cost, and what it did cost.

A call writes two rows. `hold` is there before anything leaves the house: its amount is what the call may cost, its scopes are
where it counts. The second is `settle`, what it cost, or `lost`: nobody saw its end, so it counts at its hold. A reservation
given back before it was dispatched writes nothing. Besides:

    charge   an attempt that cost something before the last one
    extend   more was held; `adopt`: the call counts on a further scope too
    note     an answer that no provider was asked for: what it saved, and what it is billed at
    seed     a scope began to be counted: what its calls had spent before
    change   what an account may spend was changed; `price`: what a model costs was changed
    alert    a threshold of a budget was passed

Every row ends in a checksum of all its values, so a damaged file is noticed; a row is never changed. Times are whole
microseconds and money whole nano-USD, for a float may not come back as it was written.

Invariant: the journal alone determines every balance of calls that may have cost something.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headgate.budget.allowance import tenant_of
from headgate.budget.budget import Alert, Balance, Change, Entry, Match, Repricing, UsageQuery, UsageRow
from headgate.budget.memory import check_groups, usage_row
from headgate.budget.sums import LOST, MICRO, RARE, SHARED, Place, Reading, fold, halves, micros, spent_before, whole
from headgate.budget.windows import TOKENS
from headgate.model.errors import Conflict
from headgate.model.money import LARGEST, Usage
from headgate.storage.commits import Value, encoded
from headgate.storage.sqlite import Database, Step, connect, lenient, migrate

COLUMNS = (
    "id kind attempt at tenant key user feature route model deployment source amount billed saved prompt_tokens "
    "completion_tokens cached_tokens cache_write_tokens reasoning_tokens estimated scopes prices detail"
).split()


SCHEMA: tuple[Step, ...] = (
    (
        """CREATE TABLE journal (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('hold', 'extend', 'adopt', 'charge', 'settle', 'lost', 'note', 'seed', 'change',
                'price', 'alert')),
            attempt INTEGER NOT NULL,
            at INTEGER NOT NULL,
            tenant TEXT NOT NULL, key TEXT NOT NULL, user TEXT, feature TEXT,
            route TEXT NOT NULL, model TEXT NOT NULL, deployment TEXT NOT NULL, source TEXT NOT NULL,
            amount INTEGER NOT NULL, billed INTEGER NOT NULL, saved INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
            cache_write_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL,
            scopes TEXT NOT NULL, prices TEXT NOT NULL, detail TEXT,
            checksum INTEGER NOT NULL,
            currency TEXT NOT NULL DEFAULT 'USD' CHECK (currency = 'USD')
        ) STRICT""",
        "CREATE UNIQUE INDEX journal_once ON journal (id, kind, attempt)",
        "CREATE INDEX journal_usage ON journal (tenant, at) WHERE kind IN ('charge', 'settle', 'lost', 'note')",
        f"CREATE INDEX journal_rare ON journal (kind) WHERE {RARE}",
        """CREATE TRIGGER journal_is_append_only BEFORE UPDATE ON journal
            BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END""",
        """CREATE TRIGGER journal_keeps_its_rows BEFORE DELETE ON journal
            BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END""",
        """CREATE TABLE spent (window TEXT NOT NULL, account TEXT NOT NULL, spent TEXT NOT NULL, told INTEGER NOT NULL,
            seeded INTEGER NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (window, account)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE folded (seq INTEGER NOT NULL, since INTEGER NOT NULL, unended TEXT NOT NULL, places INTEGER NOT NULL,
            digest INTEGER NOT NULL, checksum INTEGER NOT NULL) STRICT""",
        f"INSERT INTO folded VALUES (0, 0, '[]', 0, 0, {zlib.crc32(encoded((0, 0, '[]', 0, 0)))})",
    ),
)

_COLUMNS_TO_FILL = (*COLUMNS, "checksum")

INSERT = (
    f"INSERT INTO journal ({', '.join(_COLUMNS_TO_FILL)}) WITH row AS MATERIALIZED (SELECT value FROM json_each(?))"
    f" SELECT {', '.join(f'json_extract(value, {chr(39)}$[{index}]{chr(39)})' for index in range(len(_COLUMNS_TO_FILL)))}"
    " FROM row WHERE true ON CONFLICT (id, kind, attempt) DO NOTHING"
)
"""Writes a JSON array of rows; a row that is there already is left as it is.

Materialized, because `json_each` makes the text of a row anew for every column that is taken from it.
"""

ROWS = f"SELECT seq, checksum, currency, {', '.join(COLUMNS)} FROM journal"
"""Whole rows, as `is_sound` takes them."""

_CHANGES = f"{ROWS} WHERE {RARE} AND kind = 'change' AND seq > ? ORDER BY seq"

_REPRICINGS = f"{ROWS} WHERE {RARE} AND kind = 'price' AND seq > ? ORDER BY seq"
_ANSWERS = (
    "SELECT tenant, route, completion_tokens FROM journal WHERE seq > (SELECT max(seq) FROM journal) - ?"
    " AND kind = 'settle' AND source = 'live' AND NOT estimated AND completion_tokens > 0 AND route != '' ORDER BY seq"
)

_encode = msgspec.json.encode
_change = msgspec.json.Decoder(Change)
_repricing = msgspec.json.Decoder(Repricing)


def row_of(
    id: str, kind: str, at: float, entry: Entry, *, attempt: int = 0, scopes: str = "[]", detail: str | None = None
) -> bytes:
    """A row as JSON, with its checksum."""
    usage = entry.usage
    if detail is None and (usage.rare is not None or entry.shared):
        rare = {} if usage.rare is None else msgspec.to_builtins(usage.rare)
        detail = _encode({**rare, "shared": entry.shared} if entry.shared else rare).decode()
    return sealed(
        (
            id,
            kind,
            attempt,
            int(at * MICRO),
            entry.tenant,
            entry.key,
            entry.user,
            entry.feature,
            entry.route,
            entry.model,
            entry.deployment,
            entry.source,
            entry.amount,
            entry.billed,
            entry.saved,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            int(usage.estimated),
            scopes,
            entry.prices,
            detail,
        )
    )


def sealed(values: Sequence[Value]) -> bytes:
    """The values of COLUMNS as a JSON array, with their checksum behind them."""
    text = encoded(values)
    return b"%b,%d]" % (text[:-1], zlib.crc32(text))


def change_row(change: Change, at: float) -> bytes:
    """The row of a change, under its tenant if it has one."""
    tenant = tenant_of(change.allowance.account) or ""
    return row_of(change.id, "change", at, Entry(tenant=tenant, source=""), detail=_encode(change).decode())


def price_row(repricing: Repricing, at: float) -> bytes:
    """The row of a change of a price."""
    entry = Entry(tenant="", model=f"{repricing.provider}/{repricing.model}", source="")
    return row_of(repricing.id, "price", at, entry, detail=_encode(repricing).decode())


def alert_row(alert: Alert, at: float) -> bytes:
    """The row of a threshold that was passed; the running sums learn from it what has been told."""
    entry = Entry(tenant=tenant_of(alert.account) or "", source="")
    place = alert.account, alert.window
    detail = _encode(alert).decode()
    return row_of(
        " ".join(place), "alert", at, entry, attempt=alert.percent, scopes=_encode([place]).decode(), detail=detail
    )


def seed_rows(place: Place, spent: int, at: float) -> list[bytes]:
    """The rows that say what had been spent on a place before it was counted; several if no column holds so much."""
    scopes = _encode([place]).decode()
    parts = [LARGEST] * (spent // LARGEST) + [spent % LARGEST]
    return [
        row_of(" ".join(place), "seed", at, _seed(place, part), attempt=number, scopes=scopes)
        for number, part in enumerate(parts)
    ]


def _seed(place: Place, spent: int) -> Entry:
    if place[1].startswith(TOKENS):
        return Entry(tenant="", usage=Usage(prompt_tokens=spent))
    return Entry(tenant="", amount=spent)


def open_journal(path: str | Path) -> Journal:
    """A journal to read; the file is made when there is none. Blocks. Raises Conflict as `migrate` does."""
    connection = connect(path)
    try:
        migrate(connection, SCHEMA)
    finally:
        connection.close()
    return Journal(path)


class Journal:
    """Reads a journal, also while a server writes it, and writes changes to it."""

    def __init__(self, path: str | Path, *, now: Callable[[], float] = time.time) -> None:
        """Opens the file on first use; `now` is in unix seconds."""
        self._database = Database(path)
        self._now = now
        self._reading = Reading()

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sum settled rows by group, ordered by group. Raises InvalidRequest for a group there is not."""
        check_groups(query)
        sql, parameters = _usage_sql(query)
        rows = await self._database.query(sql, parameters)
        return [_usage_row(query.group_by, row) for row in rows if row[len(query.group_by)] is not None]

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent on a scope by the rows written so far, and what dispatched calls hold."""
        return await self._database.call(lambda connection: self._reading.balance(connection, (account, window)))

    async def changes(self, after: int = 0) -> tuple[int, list[Change]]:
        """All changes behind the row `after`, oldest first, and the last one's row. Raises Conflict when one is damaged."""
        place, details = await self._said(_CHANGES, after)
        return place, [_change.decode(detail) for detail in details]

    async def change(self, change: Change) -> None:
        """Write a change, for a server to learn of."""
        await self._database.query(INSERT, ((b"[%b]" % change_row(change, self._now())).decode(),))

    async def repricings(self, after: int = 0) -> tuple[int, list[Repricing]]:
        """All changes of prices behind the row `after`, and the last one's row. Raises Conflict when one is damaged."""
        place, details = await self._said(_REPRICINGS, after)
        return place, [_repricing.decode(detail) for detail in details]

    async def reprice(self, repricing: Repricing) -> None:
        """Write a change of a price, for a server to learn of."""
        await self._database.query(INSERT, ((b"[%b]" % price_row(repricing, self._now())).decode(),))

    async def _said(self, sql: str, after: int) -> tuple[int, list[str]]:
        """The details of the rows behind the row `after`, and the last one's row."""

        def read(connection: sqlite3.Connection) -> tuple[int, list[str]]:
            place, details = after, []
            for row in connection.execute(sql, (after,)):
                if not is_sound(row):
                    raise damaged_rows(1, row[0])
                place = row[0]
                details.append(row[-1])
            return place, details

        return await self._database.call(read)

    async def answers(self, most: int) -> list[tuple[str, str, int]]:
        """Tenant, route and output tokens of answers among the newest `most` rows, oldest first."""
        return await self._database.query(_ANSWERS, (most,))

    async def lost(self) -> int:
        """Nano-USD that were settled at their holds because nobody saw the end of the call."""
        return whole(*(await self._database.query(LOST))[0])

    async def spent_before(self, match: Match, place: Place) -> int:
        """What the calls of an account have spent in a window, as far as they did not count on this place."""
        return await self._database.call(lambda connection: spent_before(connection, match, place))

    async def fold(self, *, oldest: float) -> None:
        """Bring the running sums up to date."""
        await self._database.call(lambda connection: fold(connection, oldest=oldest))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


class Verified(msgspec.Struct, frozen=True):
    """What reading rows found: how many there are, how many `damaged` or `missing`, and the first such row."""

    rows: int
    damaged: int = 0
    missing: int = 0
    first: int | None = None

    @property
    def sound(self) -> bool:
        """True when all rows are there as they were written."""
        return not (self.damaged or self.missing)


def verify(connection: sqlite3.Connection, after: int = 0) -> Verified:
    """Read every row behind the row `after`: are its values those of its checksum, and is no number left out?"""
    try:
        return _verified(connection, after)
    except sqlite3.OperationalError:
        # Damage may have made text that is none any more. Such rows can be read too, only not as fast.
        with lenient(connection):
            return _verified(connection, after)


def _verified(connection: sqlite3.Connection, after: int) -> Verified:
    walk = Walk(after + 1)
    for row in connection.execute(f"{ROWS} WHERE seq > ? ORDER BY seq", (after,)):
        walk.see(row)
    return Verified(walk.rows, walk.damaged, walk.missing, walk.first)


class Walk:
    """A reading of rows in the order of their numbers: is each as it was written, and is none left out? `first`: where that is not so."""

    def __init__(self, expected: int) -> None:
        """`expected` is the number of the first row."""
        self.rows = self.damaged = self.missing = 0
        self.first: int | None = None
        self.expected = expected

    def see(self, row: Sequence[Any]) -> None:
        """The next row."""
        self.rows += 1
        sound = is_sound(row)
        if not sound or row[0] != self.expected:
            self.damaged += not sound
            self.missing += abs(row[0] - self.expected)
            self.first = self.first or min(row[0], self.expected)
        self.expected = row[0] + 1


def is_sound(row: Sequence[Any]) -> bool:
    """Whether a row's values are those that were written."""
    return bool(zlib.crc32(encoded(row[3:])) == row[1] and row[2] == "USD")


def damaged_rows(count: int, first: int) -> Conflict:
    """The journal cannot be believed."""
    return Conflict(
        f"The ledger is damaged: {count} of its rows, the first of them row {first}, are missing or not as they were written. See"
        " `headgate doctor`, and restore the file from a backup."
    )


def _usage_sql(query: UsageQuery) -> tuple[str, dict[str, Any]]:
    """The names in `group_by` have been checked; everything else is bound."""
    day = f"strftime('%Y-%m-%d', at / {MICRO}, 'unixepoch')"
    groups = [day if name == "day" else f"coalesce({name}, '')" for name in query.group_by]
    bounds = {"tenant": "tenant = :tenant", "since": "at >= :since", "until": "at < :until"}
    parameters = {name: value for name in bounds if (value := getattr(query, name)) is not None}
    for name in parameters.keys() & {"since", "until"}:
        parameters[name] = micros(parameters[name])
    conditions = ["kind IN ('charge', 'settle', 'lost', 'note')", *(bounds[name] for name in parameters)]
    order = ", ".join(str(index + 1) for index in range(len(groups)))
    money = ", ".join(map(halves, ("amount", "billed", "saved", SHARED)))
    sums = f"sum(kind != 'charge'), sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens), {money}"
    sql = f"SELECT {', '.join([*groups, sums])} FROM journal WHERE {' AND '.join(conditions)}"
    return (f"{sql} GROUP BY {order} ORDER BY {order}" if groups else sql), parameters


def _usage_row(names: tuple[str, ...], row: tuple[Any, ...]) -> UsageRow:
    requests, prompt, completion, cached, *pairs = row[len(names) :]
    money = [whole(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]
    return usage_row(names, row, (requests, prompt, completion, cached, *money))
