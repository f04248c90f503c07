"""The durable outcome log: a file of its own, written behind.

What came in the last moments before a crash may be missing. A file that is broken, or was written by a newer version, is set aside and
begun anew: it is learnt again from new calls, and no answer depends on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from pathlib import Path

import msgspec

from headgate.model.errors import Conflict, Overloaded
from headgate.routing.outcomes import Outcome
from headgate.storage.sqlite import Database, migrate, set_aside, transaction

log = logging.getLogger(__name__)

ROWS = 50_000
"""Newest rows that are kept."""
LINGER = 0.25
"""Seconds that a row may lie before it is written, so that several share a commit."""
WAITING = 10_000
"""Rows that may wait for a slow disk; further ones are lost."""
BOUND_EVERY = 1_000
"""Rows after which the oldest are removed."""

_SCHEMA = (
    """CREATE TABLE outcomes (
        place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at REAL NOT NULL, tenant TEXT NOT NULL, route TEXT NOT NULL,
        candidates TEXT NOT NULL, tier TEXT NOT NULL, propensity REAL NOT NULL, decider TEXT, task TEXT NOT NULL,
        version INTEGER NOT NULL, features TEXT NOT NULL, vector BLOB NOT NULL, deployment TEXT, cost INTEGER NOT NULL,
        latency REAL NOT NULL, outcome REAL, origin TEXT
    )""",
)
_COLUMNS = Outcome.__struct_fields__
_NAMES = ", ".join(_COLUMNS)
_NESTED = ("candidates", "features")
_KEEP = (
    f"INSERT INTO outcomes ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name != "id")
)

Row = tuple[object, ...]


class SqliteOutcomes:
    """An OutcomeLog in a file."""

    def __init__(self, path: Path) -> None:
        """`path` is the log's own file. Call `open` before use."""
        self.lost = 0
        self._database = Database(path)
        self._waiting: list[Outcome] = []
        self._past: list[Outcome] = []
        self._since = 0
        self._writing: asyncio.Task[None] | None = None
        self._prepared = False
        self._failing = False
        self._closing = asyncio.Event()

    @classmethod
    async def open(cls, path: Path) -> SqliteOutcomes:
        """Open the file. Never raises for what is wrong with it: that is said in the log."""
        outcomes = cls(path)
        try:
            outcomes._past = await outcomes._database.call(outcomes._read)
        except Overloaded as error:
            log.warning("the outcomes of routing cannot be read: %s", error.message)
        except (sqlite3.DatabaseError, Conflict) as error:
            await asyncio.to_thread(outcomes._database.close)
            log.warning("the outcomes of routing cannot be read (%s); the file is set aside and begun anew", error)
            await asyncio.to_thread(set_aside, path)
            return cls(path)
        return outcomes

    def keep(self, outcome: Outcome) -> None:
        """See OutcomeLog."""
        if len(self._waiting) >= WAITING:
            self.lost += 1
            return
        self._waiting.append(outcome)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_soon())

    def past(self) -> list[Outcome]:
        """What the file held when it was opened, oldest first. Ask once."""
        past, self._past = self._past, []
        return past

    async def close(self) -> None:
        """Write what waits and let go of the file."""
        self._closing.set()
        while self._writing is not None:
            await self._writing
        await asyncio.to_thread(self._database.close)

    async def _write_soon(self) -> None:
        while self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), LINGER)
            await self._write()
        self._writing = None

    async def _write(self) -> None:
        outcomes, self._waiting = self._waiting, []
        self._since += len(outcomes)
        bound = self._since >= BOUND_EVERY
        if bound:
            self._since = 0
        try:
            await self._database.call(lambda connection: self._save(connection, outcomes, bound=bound))
        except Exception as error:
            self.lost += len(outcomes)
            if not self._failing:
                log.warning("the outcomes of routing are kept in memory only, for they cannot be written: %s", error)
            self._failing = True
        else:
            self._failing = False

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if not self._prepared:
            migrate(connection, [_SCHEMA])
            self._prepared = True

    def _save(self, connection: sqlite3.Connection, outcomes: list[Outcome], *, bound: bool) -> None:
        self._prepare(connection)
        with transaction(connection):
            connection.executemany(_KEEP, [_row(one) for one in outcomes])
            if bound:
                connection.execute("DELETE FROM outcomes WHERE place <= (SELECT max(place) FROM outcomes) - ?", [ROWS])

    def _read(self, connection: sqlite3.Connection) -> list[Outcome]:
        self._prepare(connection)
        newest = f"SELECT {_NAMES} FROM outcomes ORDER BY place DESC LIMIT ?"
        rows = connection.execute(newest, [ROWS]).fetchall()[::-1]
        return [outcome for row in rows for outcome in _outcome(row)]


def _row(outcome: Outcome) -> Row:
    return tuple(
        msgspec.json.encode(value).decode() if name in _NESTED else value
        for name, value in msgspec.structs.asdict(outcome).items()
    )


def _outcome(row: Row) -> list[Outcome]:
    """The outcome of a row, or none if it is not one."""
    fields = dict(zip(_COLUMNS, row, strict=True))
    with contextlib.suppress(msgspec.DecodeError, TypeError):
        nested = {name: msgspec.json.decode(str(fields[name])) for name in _NESTED}
        return [msgspec.convert({**fields, **nested}, Outcome)]
    return []
