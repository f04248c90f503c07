"""The reference store: entries in this process, bounded for each tenant, so that none can flush another's.

Everything is on the `Shelf`, which never waits; here is what goes on while it is used: invalidations that let the event loop breathe, and
builds of large indexes in a thread.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Sequence

from headgate.cache.builds import Builds
from headgate.cache.cache import Candidate, Entry, Search, Selection, Vector
from headgate.cache.epochs import Epochs
from headgate.cache.kept import Bounds, Scribe
from headgate.cache.shelf import Shelf
from headgate.model.tenancy import Key, Namespace

ENTRIES_PER_TENANT = 100_000
BYTES_PER_TENANT = 256 * 1024 * 1024
BYTES_TOTAL = 1024 * 1024 * 1024
_BREATH = 0.002
"""Seconds that an invalidation works before others get their turn."""


class MemoryStore:
    """A CacheStore in process; everything is lost when it ends."""

    def __init__(
        self,
        *,
        entries_per_tenant: int = ENTRIES_PER_TENANT,
        bytes_per_tenant: int = BYTES_PER_TENANT,
        bytes_total: int = BYTES_TOTAL,
        stale_for: float = 0.0,
        now: Callable[[], float] = time.time,
        scribe: Scribe | None = None,
    ) -> None:
        """At most so many entries and bytes of one tenant, whichever bound it meets first, and bytes of all.

        Expired ones are kept for `stale_for` seconds; `now` is the store's clock, unix seconds; `scribe` is told of what comes and
        goes.
        """
        bounds = Bounds(entries=entries_per_tenant, weight=bytes_per_tenant, total=bytes_total, stale_for=stale_for)
        self.builds = Builds()
        self.shelf = Shelf(bounds, now=now, scribe=scribe, on_build=self.builds.want)
        self._epochs = Epochs()

    def peek(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        """The exact entry, unless it has expired."""
        return self.shelf.find(key, stale)

    async def get(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        """As `peek`: everything lies in process."""
        return self.shelf.find(key, stale)

    async def nearest(self, namespace: Namespace, partition: bytes, vector: Vector, count: int) -> Sequence[Candidate]:
        """The nearest live entries of the partition; none for a vector that could not be compared."""
        self.builds.start()
        return self.shelf.nearest(namespace, partition, vector, count)

    async def look(
        self, key: Key, search: Search | None, *, exact: bool = True, stale: float = 0.0
    ) -> Entry | Sequence[Candidate]:
        """The exact entry, or what is near."""
        found = self.shelf.find(key, stale) if exact else None
        if found is not None or search is None:
            return found or ()
        return await self.nearest(key.namespace, search.partition, search.vector, search.count)

    def used(self, key: Key) -> None:
        """As every look at it does."""
        self.shelf.find(key)

    async def find(self, tenant: str, id: str) -> Entry | None:
        """The live entry with this id."""
        return self.shelf.by_id(tenant, id)

    def epoch(self, tenant: str) -> int:
        """How many invalidations the tenant has had in this process."""
        return self._epochs.now(tenant)

    async def put(self, entry: Entry, *, epoch: int) -> bool:
        """Keep the entry, and let others of its tenant go when that is at its bound. False for one that was invalidated meanwhile, and
        for one that cannot be kept."""
        return not self._epochs.refuse(entry, epoch) and self.shelf.keep(entry)

    async def invalidate(self, selection: Selection) -> int:
        """Remove the selected entries, some in every turn of the loop. What was asked for before this call is not stored after it."""
        self._epochs.add(selection)
        removed = 0
        async for slot in self._chosen(selection):
            self.shelf.drop(slot)
            removed += 1
        return removed

    async def selected(self, selection: Selection, *, skip: int = 0, count: int = 100) -> Sequence[Entry]:
        """The selected entries, newest first; those that go while it is looked for them are left out."""
        slots = self.shelf.slots
        found = [(slots.numbers[slot], slot) async for slot in self._chosen(selection)]
        newest = heapq.nlargest(skip + count, found)[skip:]
        return [
            self.shelf.entry(slot)
            for number, slot in newest
            if slots.packs.holds(slot) and slots.numbers[slot] == number
        ]

    async def _chosen(self, selection: Selection) -> AsyncIterator[int]:
        """The slots of what is there now and selected, some in every turn of the loop."""
        until = time.monotonic() + _BREATH
        for slot in self.shelf.selected(selection, self.shelf.number):
            if slot is not None:
                yield slot
            if time.monotonic() > until:
                await asyncio.sleep(0)
                until = time.monotonic() + _BREATH

    def evictions(self) -> int:
        """How many entries have made room for others since the process began."""
        return self.shelf.evictions

    def size(self, tenant: str | None = None) -> int:
        """How many entries there are; what has expired is among them for up to a minute."""
        return self.shelf.size(tenant)

    def weight(self, tenant: str | None = None) -> int:
        """Bytes that the entries take."""
        return self.shelf.weight_of(tenant)

    async def close(self) -> None:
        """End what is under way. Nothing is kept."""
        await self.builds.close()
