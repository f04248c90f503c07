"""The durable store: everything is served from memory, and written behind to a file of its own.

The file may be deleted at any time: it holds nothing but answers that can be bought again. What was stored in the last moments
before a crash may be missing; what is there is whole, for an entry and its vector are one row.
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
from headgate.model.tenancy import Key, Namespace
from headgate.storage.sqlite import Database, connect, migrate

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
        self._closing = asyncio.Event()

    @classmethod
    async def open(
        cls, path: Path, *, per_tenant: int = ENTRIES_PER_TENANT, now: Callable[[], float] = time.time
    ) -> SqliteStore:
        """Open the file and warm the memory. A file that cannot be read is set aside and begun anew, said in the log."""
        try:
            await asyncio.to_thread(_prepare, path)
        except sqlite3.DatabaseError as error:
            await asyncio.to_thread(_set_aside, path, error)
            await asyncio.to_thread(_prepare, path)
        store = cls(path, per_tenant=per_tenant, now=now)
        await store._warm()
        return store

    async def _warm(self) -> None:
        rows = await self._database.query("SELECT entry FROM entries WHERE expires > ? ORDER BY expires", [self._now()])
        decode = msgspec.json.Decoder(Entry).decode
        for (text,) in rows:
            try:
                self._memory.keep(decode(text))
            except msgspec.DecodeError as error:
                log.warning("a stored answer cannot be read and is skipped: %s", error)

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
        except Exception:
            log.exception("%d answers could not be written; they stay in memory", len(entries))

    def _save(self, connection: sqlite3.Connection, entries: list[Entry], *, purge: bool) -> None:
        if entries:
            connection.execute(_PUT, [msgspec.json.encode([_row(entry) for entry in entries]).decode()])
        if purge:
            connection.execute("DELETE FROM entries WHERE expires <= ?", [self._now()])
            connection.execute(_BOUND, [self._per_tenant])

    def size(self) -> int:
        """How many entries there are."""
        return self._memory.size()

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


def _prepare(path: Path) -> None:
    connection = connect(path)
    try:
        migrate(connection, [_SCHEMA])
    finally:
        connection.close()


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_suffix(".broken")
    log.warning("the cache file cannot be read (%s); it is moved to %s and begun anew", error, aside)
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
