"""The reference store: entries in this process, bounded for each tenant, so that none can flush another's.

When a tenant is at its bound, its least recently served entry goes. Expired entries go when they are met and when room is made.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from headgate.cache.cache import Candidate, Entry, Vector
from headgate.model.tenancy import Key, Namespace

if TYPE_CHECKING:
    from headgate.cache.index import Index

ENTRIES_PER_TENANT = 50_000


class MemoryStore:
    """A CacheStore in process; everything is lost when it ends."""

    def __init__(self, *, per_tenant: int = ENTRIES_PER_TENANT, now: Callable[[], float] = time.time) -> None:
        """At most `per_tenant` entries of one tenant; `now` is the store's clock, unix seconds."""
        self._per_tenant = per_tenant
        self._now = now
        self._tenants: dict[str, _Shelf] = {}

    def peek(self, key: Key) -> Entry | None:
        """The exact entry, unless it has expired."""
        shelf = self._tenants.get(key.namespace.tenant)
        return None if shelf is None else shelf.find(key, self._now())

    async def get(self, key: Key) -> Entry | None:
        """As `peek`: everything lies in process."""
        return self.peek(key)

    async def nearest(self, namespace: Namespace, partition: bytes, vector: Vector, count: int) -> Sequence[Candidate]:
        """The nearest live entries of the partition."""
        shelf = self._tenants.get(namespace.tenant)
        return [] if shelf is None else shelf.nearest(namespace, partition, vector, count, self._now())

    async def put(self, entry: Entry) -> None:
        """Keep the entry, and let an old one go when the tenant is at its bound."""
        self.keep(entry)

    def keep(self, entry: Entry) -> None:
        """What `put` does, without waiting."""
        tenant = entry.key.namespace.tenant
        shelf = self._tenants.get(tenant)
        if shelf is None:
            shelf = self._tenants[tenant] = _Shelf(self._per_tenant)
        shelf.keep(entry)

    def size(self) -> int:
        """How many entries there are."""
        return sum(len(shelf) for shelf in self._tenants.values())

    async def close(self) -> None:
        """Forget everything."""
        self._tenants.clear()


class _Shelf:
    """One tenant's entries: by key in order of use, and by vector in one index for each partition."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._entries: OrderedDict[Key, tuple[int, Entry]] = OrderedDict()
        self._by_number: dict[int, Entry] = {}
        self._indexes: dict[tuple[Namespace, bytes], Index] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: Key, now: float) -> Entry | None:
        held = self._entries.get(key)
        if held is None:
            return None
        if held[1].expires <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return held[1]

    def keep(self, entry: Entry) -> None:
        self._drop(entry.key)
        while len(self._entries) >= self._bound:
            self._drop(next(iter(self._entries)))
        number = next(self._numbers)
        self._entries[entry.key] = number, entry
        if entry.vector is not None and entry.partition is not None:
            self._add_vector(number, entry, entry.vector, entry.partition)

    def _add_vector(self, number: int, entry: Entry, vector: bytes, partition: bytes) -> None:
        import numpy as np

        from headgate.cache.index import Index

        array = np.frombuffer(vector, dtype=np.float32)
        place = entry.key.namespace, partition
        index = self._indexes.get(place)
        if index is None:
            index = self._indexes[place] = Index(len(array))
        index.add(number, array)
        self._by_number[number] = entry

    def nearest(
        self, namespace: Namespace, partition: bytes, vector: Vector, count: int, now: float
    ) -> list[Candidate]:
        index = self._indexes.get((namespace, partition))
        while index is not None:
            found = [(self._by_number[number], near) for number, near in index.nearest(vector, count)]
            stale = [entry for entry, _ in found if min(entry.expires, entry.semantic_until) <= now]
            if not stale:
                return [Candidate(entry, near) for entry, near in found]
            for entry in stale:
                self._forget_vector(entry)
            index = self._indexes.get((namespace, partition))
        return []

    def _drop(self, key: Key) -> None:
        held = self._entries.get(key)
        if held is not None:
            self._forget_vector(held[1])
            del self._entries[key]

    def _forget_vector(self, entry: Entry) -> None:
        number, _ = self._entries[entry.key]
        if self._by_number.pop(number, None) is None or entry.partition is None:
            return
        place = entry.key.namespace, entry.partition
        index = self._indexes[place]
        index.remove(number)
        if not len(index):
            del self._indexes[place]
