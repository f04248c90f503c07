"""The durable store: everything is served from memory, and written behind to a file of its own.

The file may be deleted at any time: it holds nothing but answers that can be bought again. What was stored in the last moments
before a crash may be missing; what is there is whole, for an entry and its vector are one row. What was invalidated is gone from the file
when `invalidate` returns. A disk that is full or may not be written costs nothing but what a restart would have found.

Graphs of large partitions are written beside the file when the store is closed. After a crash the last ones that were are used,
and the entries that came since are searched one by one until there is a graph of them too.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from headgate.cache import rows, warm
from headgate.cache.cache import Candidate, Entry, Search, Selection, Vector
from headgate.cache.kept import Scribe
from headgate.cache.memory import BYTES_PER_TENANT, BYTES_TOTAL, ENTRIES_PER_TENANT, MemoryStore
from headgate.cache.writing import Batch, Writing
from headgate.model.errors import Conflict, Overloaded
from headgate.model.tenancy import Key, Namespace
from headgate.storage.sqlite import Database, migrate, set_aside, transaction

log = logging.getLogger(__name__)


class SqliteStore:
    """A CacheStore that is warm again after a restart."""

    def __init__(self, path: Path, memory: Callable[[Scribe], MemoryStore]) -> None:
        """`path` is the cache's own file, `memory` makes what is in front of it. `open` makes a store that is warm."""
        self._path = path
        self._database = Database(path)
        self._writing = Writing(self._commit)
        self._memory = memory(self._writing)
        self._prepared = False

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        entries_per_tenant: int = ENTRIES_PER_TENANT,
        bytes_per_tenant: int = BYTES_PER_TENANT,
        bytes_total: int = BYTES_TOTAL,
        stale_for: float = 0.0,
        now: Callable[[], float] = time.time,
    ) -> SqliteStore:
        """Open the file at `path` and warm the memory, whose bounds are those of MemoryStore. Never raises for what is wrong with the file.

        One that is broken, or was written by a newer version, is set aside and begun anew; one that cannot be opened now is begun
        anew with the first write that can be done. Both are said in the log.
        """

        def memory(scribe: Scribe) -> MemoryStore:
            return MemoryStore(
                entries_per_tenant=entries_per_tenant,
                bytes_per_tenant=bytes_per_tenant,
                bytes_total=bytes_total,
                stale_for=stale_for,
                now=now,
                scribe=scribe,
            )

        store = cls(path, memory)
        try:
            await store._database.call(store._fill)
        except Overloaded as error:
            log.warning("stored answers cannot be read: %s", error.message)
            await store.close()
            store = cls(path, memory)
            # What nobody has read, nobody could invalidate.
            store._writing.wipe()
        except (sqlite3.DatabaseError, Conflict) as error:
            await asyncio.to_thread(store._database.close)
            log.warning("stored answers cannot be read (%s); the file is set aside and begun anew", error)
            await asyncio.to_thread(set_aside, path)
            store = cls(path, memory)
        store._start()
        return store

    def _fill(self, connection: sqlite3.Connection) -> None:
        """In the database's thread, before anybody else knows the store."""
        begun = time.monotonic()
        self._prepare(connection)
        shelf = self._memory.shelf
        for number in warm.fill(connection, self._path, shelf):
            self._writing.gone(number)
        warm.remove_graphs(connection, self._path)
        if shelf.size(None):
            log.info("%d stored answers were read in %.1f s", shelf.size(None), time.monotonic() - begun)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self._prepared:
            return
        if 0 < connection.execute("PRAGMA user_version").fetchone()[0] < len(rows.SCHEMA):
            log.warning("answers that an earlier version of this program has stored are removed")
        migrate(connection, rows.SCHEMA)
        with transaction(connection):
            generation, removed = rows.begin(connection)
        if removed:
            log.warning("%d stored answers were written by another version of this program; they are removed", removed)
        self._memory.shelf.number = max(self._memory.shelf.number, generation * rows.NUMBERS)
        self._prepared = True

    def _start(self) -> None:
        self._memory.builds.start()
        self._writing.start()

    def peek(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        """The exact entry."""
        return self._memory.peek(key, stale=stale)

    async def get(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        """As `peek`: everything that lies in the file lies in memory."""
        return self._memory.peek(key, stale=stale)

    async def nearest(self, namespace: Namespace, partition: bytes, vector: Vector, count: int) -> Sequence[Candidate]:
        """The nearest live entries of the partition."""
        return await self._memory.nearest(namespace, partition, vector, count)

    async def look(
        self, key: Key, search: Search | None, *, exact: bool = True, stale: float = 0.0
    ) -> Entry | Sequence[Candidate]:
        """The exact entry, or what is near."""
        return await self._memory.look(key, search, exact=exact, stale=stale)

    def used(self, key: Key) -> None:
        """Count a use of an entry that was found by its meaning."""
        self._memory.used(key)

    async def find(self, tenant: str, id: str) -> Entry | None:
        """The live entry with this id."""
        return await self._memory.find(tenant, id)

    def epoch(self, tenant: str) -> int:
        """How many invalidations the tenant has had in this process: no call outlives it."""
        return self._memory.epoch(tenant)

    async def put(self, entry: Entry, *, epoch: int) -> bool:
        """Keep the entry at once, and write it soon."""
        kept = await self._memory.put(entry, epoch=epoch)
        self._writing.start()
        return kept

    async def invalidate(self, selection: Selection) -> int:
        """Remove the selected entries, also from the file: they are gone from there too when this returns, whatever happens to the
        process. Raises Overloaded when the file cannot be written now; they are gone from memory then, and from the file when it
        can."""
        return await asyncio.shield(asyncio.create_task(self._invalidate(selection)))

    async def _invalidate(self, selection: Selection) -> int:
        removed = await self._memory.invalidate(selection)
        await self._writing.flush()
        return removed

    async def _commit(self, batch: Batch) -> None:
        await self._database.call(lambda connection: self._save(connection, batch))

    def _save(self, connection: sqlite3.Connection, batch: Batch) -> None:
        self._prepare(connection)
        with transaction(connection):
            rows.write(connection, batch.kept, batch.gone, wipe=batch.wipe)

    async def selected(self, selection: Selection, *, skip: int = 0, count: int = 100) -> Sequence[Entry]:
        """The selected entries, newest first."""
        return await self._memory.selected(selection, skip=skip, count=count)

    def evictions(self) -> int:
        """How many entries have made room for others."""
        return self._memory.evictions()

    def size(self, tenant: str | None = None) -> int:
        """How many entries there are."""
        return self._memory.size(tenant)

    def weight(self, tenant: str | None = None) -> int:
        """Bytes that the entries take in memory."""
        return self._memory.weight(tenant)

    async def settled(self) -> None:
        """Wait until every large index is built."""
        await self._memory.builds.settled()

    async def close(self) -> None:
        """Write what waits, and the graphs, and let go of the file."""
        await self._memory.close()
        await self._writing.close()
        try:
            if self._prepared:
                await self._database.call(self._keep_graphs)
        except Exception as error:
            log.warning("indexes could not be written and will be built anew: %s", error)
        await asyncio.to_thread(self._database.close)

    def _keep_graphs(self, connection: sqlite3.Connection) -> None:
        try:
            with transaction(connection):
                warm.keep_graphs(connection, self._path, self._memory.shelf)
        finally:
            warm.remove_graphs(connection, self._path)
