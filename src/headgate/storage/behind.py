"""Behind: rows in a file of their own that are written soon, while whoever adds them goes on.

What was added in the last moments before a crash may be missing. A file that is broken, or was written by a newer version, is set aside and
begun anew. So it is for what can be learnt again and no answer depends on.

Invariant: adding never waits and never raises; what is too much for a slow disk is lost, and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from headgate.model.errors import Conflict, Overloaded
from headgate.storage.sqlite import Database, migrate, set_aside, transaction

log = logging.getLogger(__name__)

LINGER = 0.25
"""Seconds that a row may lie before it is written, so that several share a commit."""
WAITING = 10_000
"""Rows of a table that may wait for a slow disk; further ones are lost."""
BOUND_EVERY = 1_000
"""Rows after which the oldest are removed."""

Row = tuple[object, ...]


class Table(msgspec.Struct, frozen=True):
    """A table whose rows have a growing `place`: its columns as SQL lists them, how many of the newest rows are kept, and what else
    the statement says that writes one."""

    name: str
    columns: str
    most: int
    otherwise: str = ""

    @property
    def keep(self) -> str:
        """Writes a row."""
        marks = ", ".join("?" * len(self.columns.split(",")))
        return f"INSERT INTO {self.name} ({self.columns}) VALUES ({marks}) {self.otherwise}"

    @property
    def newest(self) -> str:
        """Reads the newest rows, the last one first."""
        return f"SELECT {self.columns} FROM {self.name} ORDER BY place DESC LIMIT {self.most}"

    @property
    def bound(self) -> str:
        """Removes all rows but the newest."""
        return f"DELETE FROM {self.name} WHERE place <= (SELECT max(place) FROM {self.name}) - {self.most}"


class Behind:
    """The tables of one file. `what` they hold is named in the log."""

    def __init__(self, path: Path, what: str, schema: tuple[str, ...], tables: Sequence[Table]) -> None:
        """`path` is a file of their own. Call `open` before use."""
        self.lost = 0
        self._database = Database(path)
        self._what = what
        self._schema = schema
        self._tables = tables
        self._waiting: dict[str, list[Row]] = {table.name: [] for table in tables}
        self._past: dict[str, list[Row]] = {}
        self._since = 0
        self._writing: asyncio.Task[None] | None = None
        self._prepared = False
        self._failing = False
        self._closing = asyncio.Event()

    @classmethod
    async def open(cls, path: Path, what: str, schema: tuple[str, ...], tables: Sequence[Table]) -> Behind:
        """Open the file. Never raises for what is wrong with it: that is said in the log."""
        behind = cls(path, what, schema, tables)
        try:
            behind._past = await behind._database.call(behind._read)
        except Overloaded as error:
            log.warning("%s cannot be read: %s", what, error.message)
        except (sqlite3.DatabaseError, Conflict) as error:
            await asyncio.to_thread(behind._database.close)
            log.warning("%s cannot be read (%s); the file is set aside and begun anew", what, error)
            await asyncio.to_thread(set_aside, path)
            return cls(path, what, schema, tables)
        return behind

    def past(self, table: str) -> list[Row]:
        """The rows that a table held when the file was opened, oldest first. Ask once."""
        return self._past.pop(table, [])

    def add(self, table: str, row: Row) -> None:
        """Write one row soon."""
        waiting = self._waiting[table]
        if len(waiting) < WAITING:
            waiting.append(row)
        else:
            self.lost += 1
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_soon())

    async def close(self) -> None:
        """Write what waits and let go of the file."""
        self._closing.set()
        while self._writing is not None:
            await self._writing
        await asyncio.to_thread(self._database.close)

    async def _write_soon(self) -> None:
        while any(self._waiting.values()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), LINGER)
            await self._write()
        self._writing = None

    async def _write(self) -> None:
        rows, self._waiting = self._waiting, {table.name: [] for table in self._tables}
        count = sum(map(len, rows.values()))
        self._since += count
        bound = self._since >= BOUND_EVERY
        if bound:
            self._since = 0
        try:
            await self._database.call(lambda connection: self._save(connection, rows, bound=bound))
        except Exception as error:
            self.lost += count
            if not self._failing:
                log.warning("%s cannot be written and will be gone after a restart: %s", self._what, error)
            self._failing = True
        else:
            self._failing = False

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if not self._prepared:
            migrate(connection, [self._schema])
            self._prepared = True

    def _save(self, connection: sqlite3.Connection, rows: dict[str, list[Row]], *, bound: bool) -> None:
        self._prepare(connection)
        with transaction(connection):
            for table in self._tables:
                connection.executemany(table.keep, rows[table.name])
                if bound:
                    connection.execute(table.bound)

    def _read(self, connection: sqlite3.Connection) -> dict[str, list[Row]]:
        self._prepare(connection)
        return {table.name: connection.execute(table.newest).fetchall()[::-1] for table in self._tables}
