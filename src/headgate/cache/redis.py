"""The store that processes share: entries and their vectors in Redis, found by all of them and invalidated for all of them at once.

Nothing lies in this process, so what one process invalidates is found by none any more. A lookup is one round trip: the exact entry, or what is
near it, with the answers. A server that knows no vectors (`redis_vectors.py`) keeps exact entries; what is found by its meaning lies in
each process then, and goes from there when another invalidates it.

The cache fails open: while Redis cannot be relied on (`storage/footing.py`) a store in this process stands in for it, also for one that
is full and only does not store. It is empty when it begins and is emptied when Redis is back, for nobody could tell it of what was
invalidated elsewhere. An invalidation does not fail open: whoever asks for one must know that it did not happen.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import heapq
import logging
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self

from headgate.cache.cache import Candidate, Entry, Search, Selection, Vector
from headgate.cache.kept import LARGEST
from headgate.cache.memory import BYTES_PER_TENANT, BYTES_TOTAL, ENTRIES_PER_TENANT, MemoryStore
from headgate.cache.redis_estates import KIND, Estates, body, told
from headgate.cache.redis_rows import Row, number_of, row
from headgate.cache.redis_shelf import RedisShelf
from headgate.cache.redis_vectors import Vectors
from headgate.model.errors import Overloaded
from headgate.model.tenancy import Key, Namespace
from headgate.storage.news import News
from headgate.storage.redis import Redis

log = logging.getLogger(__name__)

_TOGETHER = 256
"""Tenants that are asked about at a time."""
_NOTED = 600.0
"""Seconds by which a tenant is noted for longer than it needs, so that it is noted seldom."""


class RedisStore:
    """A CacheStore in Redis. Its `size` and `weight` are as they were when this process last spoke of the tenant, or when `refresh` did."""

    def __init__(
        self,
        redis: Redis,
        news: News,
        *,
        entries_per_tenant: int = ENTRIES_PER_TENANT,
        bytes_per_tenant: int = BYTES_PER_TENANT,
        bytes_total: int = BYTES_TOTAL,
        stale_for: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`news` is how processes hear of each other's invalidations. Bounds as those of MemoryStore, `bytes_total` for what lies in this
        process alone: all that lies in Redis is bounded by its `maxmemory`. `clock`, unix seconds, stands in for the server's."""
        self._redis = redis
        self._news = news
        self._estates = Estates()
        self._shelf = RedisShelf(redis, self._estates, entries=entries_per_tenant, weight=bytes_per_tenant, clock=clock)
        self._bytes = bytes_per_tenant
        self._stale_for = stale_for
        self._now = clock or time.time
        self._memory: Callable[[], MemoryStore] = functools.partial(
            MemoryStore,
            entries_per_tenant=entries_per_tenant,
            bytes_per_tenant=bytes_per_tenant,
            bytes_total=bytes_total,
            stale_for=stale_for,
            now=self._now,
        )
        self._beside = self._memory()
        self._stands_in = False
        self._compares: bool | None = None
        self._noted: dict[str, float] = {}
        self._behind: set[asyncio.Future[Any]] = set()
        news.on(KIND, self._heard)
        news.on_begun(self._begun)

    @classmethod
    async def open(cls, redis: Redis, news: News, **bounds: Any) -> Self:
        """A store over this connection, `bounds` as above. Says in the log where nothing can be found by its meaning in Redis. Never raises:
        a server that does not answer now is asked what it can do when it does."""
        store = cls(redis, news, **bounds)
        with contextlib.suppress(Overloaded):
            await store._vectors()
        return store

    async def _vectors(self) -> Vectors | None:
        """How vectors lie in Redis; None where they lie in this process."""
        vectors = await self._shelf.vectors()
        if self._compares is None:
            self._compares = vectors is not None
            if not self._compares:
                log.warning(
                    "this Redis has no vector sets (Redis 8 has): it keeps exact answers, and what is found by its meaning stays in"
                    " this process"
                )
        return vectors

    # What is told by others.

    @property
    def compares(self) -> bool:
        """Whether vectors lie in Redis; False until that is known."""
        return bool(self._compares)

    def watch(self, on_invalidated: Callable[[str], None]) -> None:
        """Have somebody told of every tenant of which something was invalidated, here or in another process."""
        self._estates.on_invalidated = on_invalidated

    def _heard(self, message: bytes) -> None:
        selection, number = told(message)
        self._estates.hear(selection.tenant, number)
        if self._compares is False or self._stands_in:
            self._go(self._beside.invalidate(selection))

    def _begun(self) -> None:
        """What was said before was not heard, and is asked for."""
        self._estates.begun += 1
        self._go(self._caught_up())

    async def _caught_up(self) -> None:
        if self._compares is False or self._stands_in:
            await self._emptied()
        await self._swept(list(self._estates.all()))

    async def refresh(self) -> None:
        """Let go of what is too old, of all tenants, and learn how they stand. To be called about once a minute. Raises Overloaded."""
        tenants = await self._shelf.tenants(self._now())
        self._estates.keep(tenants)
        await self._swept(tenants)

    async def _swept(self, tenants: Sequence[str]) -> None:
        for start in range(0, len(tenants), _TOGETHER):
            await asyncio.gather(*(self._shelf.sweep(one) for one in tenants[start : start + _TOGETHER]))

    # Finding.

    def peek(self, key: Key, *, stale: float = 0.0) -> Entry | None:  # noqa: ARG002
        """Nothing: no answer lies in this process."""
        return None

    async def get(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        """The exact entry."""
        found = await self.look(key, None, stale=stale)
        return found if isinstance(found, Entry) else None

    async def nearest(self, namespace: Namespace, partition: bytes, vector: Vector, count: int) -> Sequence[Candidate]:
        """The nearest live entries of the partition; none for a vector that could not be compared."""
        found = await self.look(Key(namespace, b""), Search(partition, vector, count), exact=False)
        return () if isinstance(found, Entry) else found

    async def look(
        self, key: Key, search: Search | None, *, exact: bool = True, stale: float = 0.0
    ) -> Entry | Sequence[Candidate]:
        """The exact entry, or what is near, in one round trip. Raises Overloaded while it is not known whether Redis is to be relied on;
        after that what lies in this process is looked at."""
        search = search if search is not None and _comparable(search.vector) else None
        try:
            compares = await self._vectors() is not None
            found = await self._shelf.look(key, search if compares else None, exact=exact, stale=stale)
            await self._back()
        except Overloaded as error:
            return await self._instead(error).look(key, search, exact=exact, stale=stale)
        if isinstance(found, Entry) or found or (compares and not self._stands_in):
            return found
        return await self._beside.look(key, search, exact=exact and self._stands_in, stale=stale)

    def used(self, key: Key) -> None:
        """Count a use of an entry that was found by its meaning, behind the caller's back."""
        self._beside.used(key)
        self._keep(self._shelf.use(key))

    async def find(self, tenant: str, id: str) -> Entry | None:
        """The live entry with this id. Raises Overloaded."""
        heads = await self._shelf.called(tenant, id)
        now = self._now()
        live = (one for one in await self._shelf.entries(tenant, [name for name, _ in heads]) if one.expires > now)
        return next(live, None)

    async def selected(self, selection: Selection, *, skip: int = 0, count: int = 100) -> Sequence[Entry]:
        """The selected entries, newest first; those that go while it is looked for them are left out. Raises Overloaded."""
        newest: dict[float, bytes] = {}
        async for heads in self._shelf.heads(selection):
            newest.update((number_of(head), name) for name, head in heads)
            newest = dict(heapq.nlargest(skip + count, newest.items()))
        names = [name for _, name in sorted(newest.items(), reverse=True)[skip:]]
        return await self._shelf.entries(selection.tenant, names)

    # Coming and going.

    def epoch(self, tenant: str) -> int:
        """The number of the tenant's last invalidation that this process has heard of."""
        return self._estates.of(tenant).number

    async def put(self, entry: Entry, *, epoch: int) -> bool:
        """Keep the entry for all processes. Raises Overloaded as `look`; after that it is kept in this one."""
        tenant = entry.key.namespace.tenant
        beside, local = self._beside, self._beside.epoch(tenant)
        try:
            vectors = await self._vectors()
            laid = self._row(entry, vectors)
            if laid is None or not await self._shelf.put(tenant, entry, laid, self._estates.since(tenant, epoch)):
                return False
            await self._back()
        except Overloaded as error:
            instead = self._instead(error)
            return self.epoch(tenant) == epoch and await instead.put(entry, epoch=instead.epoch(tenant))
        self._note(tenant, entry.expires + self._stale_for)
        if vectors is not None or (entry.vector is None and beside.peek(entry.key) is None):
            return True
        if await beside.put(entry, epoch=local):
            return True
        await self._removed(Selection(tenant=tenant, entry=entry.id), math.inf)
        return False

    def _row(self, entry: Entry, vectors: Vectors | None) -> Row | None:
        """The entry as it is laid down; None for one that cannot be kept."""
        try:
            heavier = None if vectors is None else vectors.heavier
            laid = row(entry, heavier=heavier, stale_for=self._stale_for, now=self._now())
        except ValueError:
            return None
        return None if LARGEST * laid.weight > self._bytes else laid

    def _note(self, tenant: str, until: float) -> None:
        """Have the tenant swept until then, by whatever process is still there."""
        if until > self._noted.get(tenant, 0.0):
            self._noted[tenant] = until + _NOTED
            self._go(self._shelf.note(tenant, until + _NOTED))

    async def invalidate(self, selection: Selection) -> int:
        """Remove the selected entries for all processes, and refuse those still on their way. Raises Overloaded when it was not done, or
        not all of it."""
        return await asyncio.shield(asyncio.create_task(self._invalidated(selection)))

    async def _invalidated(self, selection: Selection) -> int:
        await self._beside.invalidate(selection)
        try:
            number, newest = await self._shelf.begin(selection)
        except UnicodeEncodeError:
            return 0
        self._news.tell(KIND, body(selection, number))
        return await self._removed(selection, newest)

    async def _removed(self, selection: Selection, newest: float) -> int:
        """Let go of the selected entries up to a number."""
        removed = 0
        async for heads in self._shelf.heads(selection):
            removed += await self._shelf.remove(
                selection.tenant, [(name, head) for name, head in heads if number_of(head) <= newest]
            )
        return removed

    # While Redis cannot be relied on.

    def _instead(self, error: Overloaded) -> MemoryStore:
        """What stands in for Redis. Raises the error while it is not known that it has to."""
        if not any(self._redis.faults.values()):
            raise error
        self._stands_in = True
        return self._beside

    async def _back(self) -> None:
        """Redis has answered: nothing stands in for it any more, unless there is still something that it does not do."""
        if self._stands_in and not any(self._redis.faults.values()):
            self._stands_in = False
            await self._emptied()

    async def _emptied(self) -> None:
        beside, self._beside = self._beside, self._memory()
        await beside.close()

    def _go(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something that nobody waits for."""
        self._keep(asyncio.get_running_loop().create_task(_quietly(work)))

    def _keep(self, work: asyncio.Future[Any]) -> None:
        self._behind.add(work)
        work.add_done_callback(self._behind.discard)

    async def settled(self) -> None:
        """Wait until nothing is under way that nobody waits for."""
        while self._behind:
            await asyncio.wait(self._behind)

    # What is told of it.

    def evictions(self) -> int:
        """How many entries have made room for those of this process since it began."""
        return self._shelf.evictions + self._beside.evictions()

    def size(self, tenant: str | None = None) -> int:
        """How many entries there are in Redis, as last told."""
        known = self._estates
        return sum(one.size for one in known.all().values()) if tenant is None else known.of(tenant).size

    def weight(self, tenant: str | None = None) -> int:
        """Bytes that they take in Redis, about, as last told."""
        known = self._estates
        return sum(one.weight for one in known.all().values()) if tenant is None else known.of(tenant).weight

    async def close(self) -> None:
        """End what is under way. Entries stay in Redis; the connection is not closed."""
        await self.settled()
        await self._beside.close()


async def _quietly(work: Coroutine[Any, Any, Any]) -> None:
    """What nobody waits for may fail: Redis says so itself."""
    with contextlib.suppress(Overloaded):
        await work


def _comparable(vector: Vector) -> bool:
    """Whether a vector of the question's points anywhere."""
    return vector.ndim == 1 and 0.0 < float(vector @ vector) < math.inf
