"""The durable store: everything is served from memory, and written behind to a file of its own.

The file may be deleted at any time: it holds nothing but answers that can be bought again. What was stored in the last moments
before a crash may be missing; what is there is whole, for an entry and its vector are one row. A disk that is full or may not be
written costs nothing but what a restart would have found.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from headgate.cache.cache import Candidate, Entry, Vector
from headgate.cache.memory import ENTRIES_PER_TENANT, MemoryStore
from headgate.model.errors import Conflict, Overloaded
from headgate.model.tenancy import Key, Namespace
from headgate.storage.sqlite import Database, migrate

log = logging.getLogger(__name__)

LINGER = 0.05
"""Seconds that an entry may lie before it is written, so that several share a commit."""
PURGE_EVERY = 600.0
WAITING = 10_000
"""Entries that may wait for a slow disk; further ones live in memory only."""

_SCHEMA = (
    """CREATE TABLE entries (
        tenant TEXT NOT NULL, namespace TEXT NOT NULL, digest TEXT NOT NULL,
        expires REAL NOT NULL, entry TEXT NOT NULL,
        PRIMARY KEY (tenant, namespace, digest)
    ) WITHOUT ROWID""",
    "CREATE INDEX entries_expires ON entries (expires)",
)
_PUT = """INSERT OR REPLACE INTO entries (tenant, namespace, digest, expires, entry)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?)"""
_BOUND = """DELETE FROM entries WHERE (tenant, namespace, digest) IN (
        SELECT tenant, namespace, digest FROM (
            SELECT tenant, namespace, digest, row_number() OVER (PARTITION BY tenant ORDER BY expires DESC) AS place FROM entries
        ) WHERE place > ?)"""


class SqliteStore:
    """A CacheStore that is warm again after a restart."""

    def __init__(
        self, path: Path, *, per_tenant: int = ENTRIES_PER_TENANT, now: Callable[[], float] = time.time
    ) -> None:
        """`path` is the cache's own file; the rest as MemoryStore. Call `open` before use."""
        self._memory = MemoryStore(per_tenant=per_tenant, now=now)
        self._database = Database(path)
        self._per_tenant = per_tenant
        self._now = now
        self._waiting: list[Entry] = []
        self._writing: asyncio.Task[None] | None = None
        self._purged = now()
        self._prepared = False
        self._failing = False
        self._closing = asyncio.Event()

    @classmethod
    async def open(
        cls, path: Path, *, per_tenant: int = ENTRIES_PER_TENANT, now: Callable[[], float] = time.time
    ) -> SqliteStore:
        """Open the file and warm the memory. Never raises for what is wrong with the file.

        One that is broken, or was written by a newer version, is set aside and begun anew; one that cannot be opened now is tried
        again with every write. Both are said in the log.
        """
        store = cls(path, per_tenant=per_tenant, now=now)
        try:
            await store._warm()
        except Overloaded as error:
            log.warning("stored answers cannot be read: %s", error.message)
        except (sqlite3.DatabaseError, Conflict) as error:
            await asyncio.to_thread(store._database.close)
            await asyncio.to_thread(_set_aside, path, error)
            return cls(path, per_tenant=per_tenant, now=now)
        return store

    async def _warm(self) -> None:
        rows = await self._database.call(self._stored)
        decode = msgspec.json.Decoder(Entry).decode
        skipped = 0
        for (text,) in rows:
            try:
                entry = decode(text)
                # Read once here: an answer in the form of another version must not be found and then fail.
                entry.completion  # noqa: B018
                self._memory.keep(entry)
            except msgspec.DecodeError:
                skipped += 1
        if skipped:
            log.warning("%d stored answers cannot be read and are skipped", skipped)

    def _stored(self, connection: sqlite3.Connection) -> list[tuple[str]]:
        self._prepare(connection)
        query = "SELECT entry FROM entries WHERE expires > ? ORDER BY expires"
        return connection.execute(query, [self._now()]).fetchall()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if not self._prepared:
            migrate(connection, [_SCHEMA])
            self._prepared = True

    def peek(self, key: Key) -> Entry | None:
        """The exact entry."""
        return self._memory.peek(key)

    async def get(self, key: Key) -> Entry | None:
        """As `peek`: everything that lies in the file lies in memory."""
        return self._memory.peek(key)

    async def nearest(self, namespace: Namespace, partition: bytes, vector: Vector, count: int) -> Sequence[Candidate]:
        """The nearest live entries of the partition."""
        return await self._memory.nearest(namespace, partition, vector, count)

    async def put(self, entry: Entry) -> None:
        """Keep the entry at once, and write it soon."""
        self._memory.keep(entry)
        if len(self._waiting) < WAITING:
            self._waiting.append(entry)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_soon())

    async def _write_soon(self) -> None:
        while self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), LINGER)
            await self._write()
        self._writing = None

    async def _write(self) -> None:
        entries, self._waiting = self._waiting, []
        purge = self._now() - self._purged > PURGE_EVERY
        if purge:
            self._purged = self._now()
        try:
            await self._database.call(lambda connection: self._save(connection, entries, purge=purge))
        except Exception as error:
            if not self._failing:
                log.warning("answers are kept in memory only, for they cannot be written: %s", error)
            self._failing = True
        else:
            self._failing = False

    def _save(self, connection: sqlite3.Connection, entries: list[Entry], *, purge: bool) -> None:
        self._prepare(connection)
        if purge:
            connection.execute("DELETE FROM entries WHERE expires <= ?", [self._now()])
            connection.execute(_BOUND, [self._per_tenant])
        connection.execute(_PUT, [msgspec.json.encode([_row(entry) for entry in entries]).decode()])

    def size(self) -> int:
        """How many entries there are."""
        return self._memory.size()

    def weight(self) -> int:
        """Bytes of all answers, texts and vectors."""
        return self._memory.weight()

    async def close(self) -> None:
        """Write what waits and let go of the file."""
        self._closing.set()
        while self._writing is not None:
            await self._writing
        await asyncio.to_thread(self._database.close)


def _row(entry: Entry) -> list[object]:
    key = entry.key
    text = msgspec.json.encode(entry).decode()
    return [key.namespace.tenant, key.namespace.name, key.digest.hex(), entry.expires, text]


def _set_aside(path: Path, error: Exception) -> None:
    """Move a file out of the way, or leave it when even that cannot be done."""
    aside = path.with_suffix(".broken")
    log.warning("the cache file cannot be read (%s); it is moved to %s and begun anew", error, aside)
    with contextlib.suppress(OSError):
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
