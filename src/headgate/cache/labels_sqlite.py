"""The durable log of labels: a file of its own, written behind.

What was learnt in the last moments before a crash may be missing. A file that is broken, or was written by a newer version, is set
aside and begun anew: what it taught is learnt again from new labels. Nothing in it was written by a caller but ids and namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from pathlib import Path

import msgspec

from headgate.cache.labels import Label, Served
from headgate.model.errors import Conflict, Overloaded
from headgate.storage.sqlite import Database, migrate, set_aside, transaction

log = logging.getLogger(__name__)

LABELS = 20_000
ANSWERS = 20_000
"""Newest rows that are kept of each."""
LINGER = 0.25
"""Seconds that a row may lie before it is written, so that several share a commit."""
WAITING = 10_000
"""Rows that may wait for a slow disk; further ones are lost."""
BOUND_EVERY = 1_000
"""Rows after which the oldest are removed."""

_SCHEMA = (
    """CREATE TABLE labels (
        place INTEGER PRIMARY KEY, tenant TEXT NOT NULL, namespace TEXT NOT NULL, scope BLOB NOT NULL, entry TEXT NOT NULL,
        confidence REAL NOT NULL, correct INTEGER NOT NULL, origin TEXT NOT NULL, served INTEGER NOT NULL,
        uniform INTEGER NOT NULL, at REAL NOT NULL, own TEXT NOT NULL
    )""",
    """CREATE TABLE answers (
        place INTEGER PRIMARY KEY, id TEXT NOT NULL, tenant TEXT NOT NULL, namespace TEXT NOT NULL, scope BLOB NOT NULL,
        entry TEXT NOT NULL, confidence REAL NOT NULL
    )""",
)
_LABEL = """tenant, namespace, scope, entry, confidence, correct, origin, served, uniform, at, own"""
_ANSWER = """id, tenant, namespace, scope, entry, confidence"""

Row = tuple[object, ...]


class SqliteLabels:
    """A LabelLog in a file."""

    def __init__(self, path: Path) -> None:
        """`path` is the log's own file. Call `open` before use."""
        self._database = Database(path)
        self._waiting: dict[str, list[Row]] = {"labels": [], "answers": []}
        self._past: tuple[list[Label], list[Served]] = [], []
        self._since = 0
        self._writing: asyncio.Task[None] | None = None
        self._prepared = False
        self._failing = False
        self._closing = asyncio.Event()

    @classmethod
    async def open(cls, path: Path) -> SqliteLabels:
        """Open the file. Never raises for what is wrong with it: that is said in the log."""
        labels = cls(path)
        try:
            labels._past = await labels._database.call(labels._read)
        except Overloaded as error:
            log.warning("what was learnt cannot be read: %s", error.message)
        except (sqlite3.DatabaseError, Conflict) as error:
            await asyncio.to_thread(labels._database.close)
            log.warning("what was learnt cannot be read (%s); the file is set aside and begun anew", error)
            await asyncio.to_thread(set_aside, path)
            return cls(path)
        return labels

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if not self._prepared:
            migrate(connection, [_SCHEMA])
            self._prepared = True

    def label(self, label: Label) -> None:
        """Write one label soon."""
        space = label.scope.namespace
        row = (
            *(space.tenant, space.name, label.scope.digest, label.entry, label.confidence, label.right, label.origin),
            *(label.served, label.uniform, label.at, label.own),
        )
        self._add("labels", row)

    def served(self, served: Served) -> None:
        """Write one answer that was found by meaning soon. Others are not written: there are many, and feedback that comes after
        a restart can still name their entries."""
        scope = served.scope
        if scope is None:
            return
        row = (served.id, served.tenant, scope.namespace.name, scope.digest, served.entry, served.confidence)
        self._add("answers", row)

    def _add(self, table: str, row: Row) -> None:
        waiting = self._waiting[table]
        if len(waiting) < WAITING:
            waiting.append(row)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_soon())

    async def _write_soon(self) -> None:
        while any(self._waiting.values()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), LINGER)
            await self._write()
        self._writing = None

    async def _write(self) -> None:
        rows, self._waiting = self._waiting, {"labels": [], "answers": []}
        self._since += sum(map(len, rows.values()))
        bound = self._since >= BOUND_EVERY
        if bound:
            self._since = 0
        try:
            await self._database.call(lambda connection: self._save(connection, rows, bound=bound))
        except Exception as error:
            if not self._failing:
                log.warning("what is learnt is kept in memory only, for it cannot be written: %s", error)
            self._failing = True
        else:
            self._failing = False

    def _save(self, connection: sqlite3.Connection, rows: dict[str, list[Row]], *, bound: bool) -> None:
        self._prepare(connection)
        with transaction(connection):
            for table, names, most in (("labels", _LABEL, LABELS), ("answers", _ANSWER, ANSWERS)):
                marks = ", ".join("?" * len(names.split(",")))
                connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows[table])
                if bound:
                    connection.execute(
                        f"DELETE FROM {table} WHERE place <= (SELECT max(place) FROM {table}) - ?", [most]
                    )

    def past(self) -> tuple[list[Label], list[Served]]:
        """What the file held when it was opened, each oldest first. Ask once."""
        past, self._past = self._past, ([], [])
        return past

    def _read(self, connection: sqlite3.Connection) -> tuple[list[Label], list[Served]]:
        self._prepare(connection)
        labels = _newest(connection, "labels", _LABEL, LABELS)
        answers = _newest(connection, "answers", _ANSWER, ANSWERS)
        return [label for row in labels for label in _label(row)], [one for row in answers for one in _served(row)]

    async def close(self) -> None:
        """Write what waits and let go of the file."""
        self._closing.set()
        while self._writing is not None:
            await self._writing
        await asyncio.to_thread(self._database.close)


def _newest(connection: sqlite3.Connection, table: str, names: str, most: int) -> list[Row]:
    """The newest rows, oldest first."""
    return connection.execute(f"SELECT {names} FROM {table} ORDER BY place DESC LIMIT ?", [most]).fetchall()[::-1]


def _label(row: Row) -> list[Label]:
    """The label of a row, or none if it is not one."""
    tenant, namespace, scope, entry, confidence, correct, origin, served, uniform, at, own = row
    with contextlib.suppress(msgspec.ValidationError):
        fields = {
            "entry": entry,
            "confidence": confidence,
            "right": bool(correct),
            "origin": origin,
            "at": at,
            "own": own,
        }
        where = {"namespace": {"tenant": tenant, "name": namespace}, "digest": scope}
        return [msgspec.convert({**fields, "scope": where, "served": bool(served), "uniform": bool(uniform)}, Label)]
    return []


def _served(row: Row) -> list[Served]:
    """The served answer of a row, or none if it is not one."""
    id, tenant, namespace, scope, entry, confidence = row
    with contextlib.suppress(msgspec.ValidationError):
        fields = {"id": id, "tenant": tenant, "entry": entry, "tier": "semantic", "confidence": confidence}
        where = {"namespace": {"tenant": tenant, "name": namespace}, "digest": scope}
        return [msgspec.convert({**fields, "scope": where}, Served)]
    return []
