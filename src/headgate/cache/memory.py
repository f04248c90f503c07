"""The reference store: entries in this process, bounded for each tenant, so that none can flush another's.

When a tenant is at its bound, the entry goes that was stored or found by its key the longest ago. What has expired waits in a heap in
order of time, so that it is cleared away at the tenant's next call without a search: first the vector, when the entry is too old
to be found by meaning, then the entry itself.
"""

from __future__ import annotations

import heapq
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
_SLACK = 64
"""Times of entries that were replaced or let go may outnumber the others by so many before they are cleared away."""


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
        shelf.keep(entry, self._now())

    def size(self) -> int:
        """How many entries there are."""
        return sum(len(shelf) for shelf in self._tenants.values())

    def weight(self) -> int:
        """Bytes of all answers, texts and vectors."""
        return sum(shelf.weight for shelf in self._tenants.values())

    async def close(self) -> None:
        """Forget everything."""
        self._tenants.clear()


class _Shelf:
    """One tenant's entries: by key in order of use, by vector in one index for each partition, and by the time they end."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._entries: OrderedDict[Key, tuple[int, Entry]] = OrderedDict()
        self._by_number: dict[int, Entry] = {}
        self._indexes: dict[tuple[Namespace, bytes], Index] = {}
        self._ends: list[tuple[float, int, Key]] = []
        self._numbers = itertools.count()
        self.weight = 0

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

    def keep(self, entry: Entry, now: float) -> None:
        self._clear(now)
        self._drop(entry.key)
        while len(self._entries) >= self._bound:
            self._drop(next(iter(self._entries)))
        number = next(self._numbers)
        self._entries[entry.key] = number, entry
        self.weight += entry.weight
        end = entry.expires
        if entry.vector is not None and entry.partition is not None:
            self._add_vector(number, entry, entry.vector, entry.partition)
            end = min(end, entry.semantic_until)
        heapq.heappush(self._ends, (end, number, entry.key))
        if len(self._ends) > 2 * len(self._entries) + _SLACK:
            self._ends = [one for one in self._ends if self._is_live(one)]
            heapq.heapify(self._ends)

    def _is_live(self, end: tuple[float, int, Key]) -> bool:
        held = self._entries.get(end[2])
        return held is not None and held[0] == end[1]

    def _clear(self, now: float) -> None:
        """Let go of what has expired."""
        ends = self._ends
        while ends and ends[0][0] <= now:
            end = heapq.heappop(ends)
            if not self._is_live(end):
                continue
            _, number, key = end
            entry = self._entries[key][1]
            if entry.expires <= now:
                self._drop(key)
            else:
                self._forget_vector(entry)
                heapq.heappush(ends, (entry.expires, number, key))

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
        self._clear(now)
        index = self._indexes.get((namespace, partition))
        if index is None:
            return []
        return [Candidate(self._by_number[number], near) for number, near in index.nearest(vector, count)]

    def _drop(self, key: Key) -> None:
        held = self._entries.get(key)
        if held is not None:
            self._forget_vector(held[1])
            del self._entries[key]
            self.weight -= held[1].weight

    def _forget_vector(self, entry: Entry) -> None:
        number, _ = self._entries[entry.key]
        if self._by_number.pop(number, None) is None or entry.partition is None:
            return
        place = entry.key.namespace, entry.partition
        index = self._indexes[place]
        index.remove(number)
        if not len(index):
            del self._indexes[place]
