"""Rows in a file of their own, which one process writes.

A file that is broken, or was written by a newer version, is set aside and begun anew.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from headgate.model.errors import Conflict
from headgate.storage.behind import Row, Table
from headgate.storage.sqlite import Database, migrate, set_aside, transaction

log = logging.getLogger(__name__)

_KINDS = {"text": "TEXT", "real": "REAL", "integer": "INTEGER", "blob": "BLOB"}


class SqliteRows:
    """As Rows says."""

    def __init__(self, path: Path, tables: Sequence[Table]) -> None:
        """`path` is a file of their own, opened on first use."""
        self._path = path
        self._database = Database(path)
        self._tables = tables
        self._prepared = False

    async def read(self) -> dict[str, list[Row]]:
        """See Rows. Nothing where the file is broken: it is begun anew then."""
        try:
            return await self._database.call(self._read)
        except (sqlite3.DatabaseError, Conflict) as error:
            await asyncio.to_thread(self._database.close)
            log.warning("%s cannot be read (%s); the file is set aside and begun anew", self._path.name, error)
            await asyncio.to_thread(set_aside, self._path)
            self._database = Database(self._path)
            return {}

    async def write(self, rows: Mapping[str, Sequence[Row]], *, bound: bool) -> None:
        """See Rows."""
        await self._database.call(lambda connection: self._save(connection, rows, bound=bound))

    async def others(self) -> dict[str, list[Row]]:
        """Nobody else writes to the file."""
        return {}

    async def close(self) -> None:
        """Let go of the file."""
        await asyncio.to_thread(self._database.close)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if not self._prepared:
            migrate(connection, [tuple(one.schema(_KINDS, "place INTEGER PRIMARY KEY") for one in self._tables)])
            self._prepared = True

    def _save(self, connection: sqlite3.Connection, rows: Mapping[str, Sequence[Row]], *, bound: bool) -> None:
        self._prepare(connection)
        with transaction(connection):
            for table in self._tables:
                connection.executemany(table.keep("?"), rows[table.name])
                if bound:
                    connection.execute(table.bound)

    def _read(self, connection: sqlite3.Connection) -> dict[str, list[Row]]:
        self._prepare(connection)
        return {table.name: connection.execute(table.newest).fetchall()[::-1] for table in self._tables}
