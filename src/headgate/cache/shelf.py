"""The shelf: all entries of this process, packed, with everything that finds them and decides which of them go.

Invariant: an entry is in all of its structures or in none: its slot, the registers of keys and ids, its tenant's quota and, while it
may be found by its meaning, the index of its partition. Nothing here waits; all of it belongs to one thread.

What is too old is never given out, and let go of within a minute, some at every call. A tenant's bounds are its own: only when all
tenants together pass theirs does the heaviest one lose what it can best do without.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from headgate.cache.cache import Candidate, Entry, Selection, Vector
from headgate.cache.ends import Ends
from headgate.cache.eviction import Quota, Ranking, priority
from headgate.cache.kept import LARGEST, Bounds, Kept, Make, Place, Scribe, weigh
from headgate.cache.packing import digest, ends, id_of, opened, packed, worth
from headgate.cache.register import Register
from headgate.cache.roster import Roster
from headgate.cache.slots import MOST_USES, Slots
from headgate.model.tenancy import Key, Namespace

if TYPE_CHECKING:
    from headgate.cache.index import Index

_CLEARED = 32
"""Entries that are looked at, for they may be too old, in one call."""
_SPARED = 32
"""Entries that are ranked anew, for they were used, before one goes."""
_EVICTED = 64
"""Entries of the heaviest tenant that go in one call when all tenants together are too heavy."""
_LIGHT = 0.98
"""Part of their bound to which all tenants are then brought."""


class Shelf:
    """Entries by key, by id and by meaning."""

    def __init__(
        self,
        bounds: Bounds,
        *,
        now: Callable[[], float] = time.time,
        scribe: Scribe | None = None,
        on_build: Callable[[Index], None] = lambda _: None,
    ) -> None:
        """`now` is the store's clock, unix seconds; `on_build` is told of an index that wants a build."""
        self.bounds = bounds
        self.now = now
        self.slots = Slots()
        self.places: Roster[Place] = Roster()
        self.makes: Roster[Make] = Roster()
        self.indexes: list[Index | None] = []
        """By number of the place."""
        self.weight = 0
        self.evictions = 0
        self.number = 0
        """Of the entry that came last."""
        self.filling = False
        """Whether very many entries come at once."""
        self._scribe = scribe
        self._on_build = on_build
        self._quotas: dict[str, Quota] = {}
        self._keys = Register(self._key_hash)
        self._ids = Register(self._id_hash)
        self._ends = Ends()
        self._size = 0

    def reserve(self, count: int) -> None:
        """Have room for very many entries, that come until `settle`. The shelf must be empty."""
        self._keys.reserve(count)
        self._ids.reserve(count)
        self.filling = True

    def settle(self) -> None:
        """They have come."""
        self.slots.release()
        self.filling = False

    # Finding.

    def find(self, key: Key, stale: float = 0.0) -> Entry | None:
        """The entry under this key; at most `stale` seconds past its time. It counts as a use of it."""
        slot = self._keys.find(hash(key), self._is(key.namespace, key.digest))
        if slot is None:
            return None
        expires, _ = ends(*self.slots.packs.find(slot))
        late = self.now() - expires
        if late < 0.0 or late < min(stale, self.bounds.stale_for):
            self._use(slot)
            return self.entry(slot)
        if late >= self.bounds.stale_for:
            self.drop(slot)
        return None

    def by_id(self, tenant: str, id: str) -> Entry | None:
        """The tenant's entry with this id, unless its time is over."""
        now = self.now()
        live = (slot for slot in self._called(tenant, id) if ends(*self.slots.packs.find(slot))[0] > now)
        slot = next(live, None)
        return None if slot is None else self.entry(slot)

    def nearest(self, namespace: Namespace, partition: bytes, vector: Vector, count: int) -> list[Candidate]:
        """The nearest entries of one partition that may be found by their meaning, nearest first."""
        self.clear()
        place = self.places.number(Place(namespace, partition))
        index = None if place is None else self.indexes[place]
        if index is None or vector.shape != (index.dimensions,) or not math.isfinite(float(vector @ vector)):
            return []
        now = self.now()
        while True:
            found = index.nearest(vector, count)
            old = [slot for slot, _ in found if ends(*self.slots.packs.find(slot))[1] <= now]
            if not old:
                return [Candidate(self.entry(slot), similarity) for slot, similarity in found]
            for slot in old:
                self._forget(slot)

    def entry(self, slot: int) -> Entry:
        """The entry of a slot that is taken, without its vector."""
        slots = self.slots
        place = self.places[slots.places[slot]]
        return opened(slots.packs.get(slot), place.namespace, place.partition, self.makes[slots.makes[slot]])

    def tenant(self, slot: int) -> str:
        """Whose entry it is."""
        return self.places[self.slots.places[slot]].namespace.tenant

    def selected(self, selection: Selection, before: int) -> Iterator[int | None]:
        """The slots of the tenant's entries that are selected and have numbers up to `before`; None for each that is not, so that
        the caller may rest in between and let entries come and go meanwhile."""
        quota = self._quotas.get(selection.tenant)
        if selection.entry is not None:
            slots = self._called(selection.tenant, selection.entry)
        else:
            slots = [] if quota is None else quota.ranking.slots()
        texts = (selection.user or "", selection.tags[0] if len(selection.tags) == 1 else "")
        needles = [text.encode(errors="surrogatepass") for text in texts]
        for slot in slots:
            pack = self.slots.packs.get(slot) if self.slots.packs.holds(slot) else b""
            # Whether it is still the same tenant's is asked again: another's entry may have come to lie there.
            apt = pack and self.slots.numbers[slot] <= before and all(needle in pack for needle in needles)
            yield slot if apt and selection.includes(self.entry(slot)) else None

    def size(self, tenant: str | None) -> int:
        """How many entries there are, of one tenant or of all."""
        if tenant is None:
            return self._size
        quota = self._quotas.get(tenant)
        return 0 if quota is None else len(quota.ranking)

    def weight_of(self, tenant: str | None) -> int:
        """Bytes that they take, of one tenant or of all."""
        if tenant is None:
            return self.weight
        quota = self._quotas.get(tenant)
        return 0 if quota is None else quota.weight

    # Coming.

    def keep(self, entry: Entry) -> bool:
        """Put the entry in the place of what lies under its key. False, and nothing is changed, for one that cannot be kept: it is
        too large, its time is over, or its vector is none or of another size than those it would be compared with."""
        self.clear()
        try:
            pack = packed(entry)
        except ValueError:
            return False
        place, make = Place(entry.key.namespace, entry.partition), Make(entry.deployment, entry.model)
        kept = Kept(self.number + 1, place, make, pack, entry.vector)
        if not self.put(kept):
            return False
        if self._scribe is not None:
            self._scribe.kept(kept)
        return True

    def put(self, kept: Kept, slot: int | None = None) -> bool:
        """As `keep`, for one that is written down already. `slot`: where its vector is in the index of its place already."""
        pack, place = kept.pack, kept.place
        expires, semantic_until = ends(pack)
        now = self.now()
        vector = kept.vector if place.partition is not None and semantic_until > now else None
        weight = weigh(len(pack), 0 if vector is None else len(vector))
        if not now < expires + self.bounds.stale_for < math.inf or LARGEST * weight > self.bounds.weight:
            return False
        if vector is not None and slot is None and not self._accepts(place, vector):
            return False
        key = hash(Key(place.namespace, digest(pack)))
        old = self._keys.find(key, self._is(place.namespace, digest(pack)))
        if old is not None:
            self.drop(old)
        quota = self._with_room(place.namespace.tenant, weight)
        within = slot is not None
        slot = self._write(kept, slot)
        self._keys.add(key, slot)
        self._ids.add(self._id_hash(slot), slot)
        self.slots.searchable[slot] = vector is not None
        if vector is not None and not within:
            self._add_vector(slot, vector)
        self._ends.add(slot, expires + self.bounds.stale_for if vector is None else semantic_until)
        self._size += 1
        self._weigh(quota, weight)
        self._rank(slot, quota)
        quota.ranking.add(slot)
        self._lighten()
        return self.slots.numbers[slot] == kept.number and self.slots.packs.holds(slot)

    def _accepts(self, place: Place, vector: bytes) -> bool:
        number = self.places.number(place)
        index = None if number is None else self.indexes[number]
        return any(vector) and (index is None or index.dimensions == len(vector))

    def _write(self, kept: Kept, slot: int | None) -> int:
        slots = self.slots
        slot = slots.take() if slot is None else slot
        slots.packs.put(slot, kept.pack)
        slots.numbers[slot] = kept.number
        self.number = max(self.number, kept.number)
        slots.places[slot] = place = self.places.take(kept.place)
        slots.makes[slot] = self.makes.take(kept.make)
        slots.uses[slot] = 1
        if place == len(self.indexes):
            self.indexes.append(None)
        return slot

    def _add_vector(self, slot: int, vector: bytes) -> None:
        from headgate.cache.index import Index

        place = self.slots.places[slot]
        index = self.indexes[place]
        if index is None:
            index = self.indexes[place] = Index(len(vector), self.slots.flat)
        (index.lay if self.filling else index.add)(slot, vector)
        if index.wants_build:
            self._on_build(index)

    def _with_room(self, tenant: str, weight: int) -> Quota:
        """The tenant's quota, with room for one more entry."""
        quota = self._quotas.get(tenant)
        while quota is not None and (
            len(quota.ranking) >= self.bounds.entries or quota.weight + weight > self.bounds.weight
        ):
            self._evict(quota)
            quota = self._quotas.get(tenant)
        if quota is None:
            slots = self.slots
            quota = self._quotas[tenant] = Quota(Ranking(slots.priorities, slots.numbers, slots.ranks))
        return quota

    def _lighten(self) -> None:
        """Bring the weight of all under their bound, and a little further, for the heaviest tenant is not found for nothing."""
        if self.weight > self.bounds.total:
            quota = max(self._quotas.values(), key=lambda one: one.weight)
            for _ in range(min(_EVICTED, len(quota.ranking))):
                self._evict(quota)
                if self.weight <= self.bounds.total * _LIGHT:
                    break

    # Going.

    def clear(self) -> None:
        """Let go of some of what is too old."""
        now = self.now()
        for _ in range(_CLEARED):
            slot = self._ends.due(now)
            if slot is None:
                break
            expires, _ = ends(*self.slots.packs.find(slot))
            if expires + self.bounds.stale_for <= now:
                self.drop(slot)
            else:
                self._forget(slot)

    def _evict(self, quota: Quota) -> None:
        """Drop the entry that is worth least, or nearly so where very many were used since they were looked at."""
        slots, ranking = self.slots, quota.ranking
        for _ in range(_SPARED):
            slot = ranking.first()
            if not slots.used[slot]:
                break
            self._rank(slot, quota)
            ranking.raised(slot)
        slot = ranking.first()
        quota.floor = slots.priorities[slot]
        self.evictions += 1
        self.drop(slot)

    def _rank(self, slot: int, quota: Quota) -> None:
        slots = self.slots
        cost = worth(*slots.packs.find(slot))
        slots.used[slot] = 0
        slots.priorities[slot] = priority(quota.floor, slots.uses[slot], cost, self._weight_at(slot))

    def drop(self, slot: int) -> None:
        """Let go of an entry."""
        slots = self.slots
        if slots.searchable[slot]:
            self._forget(slot)
        self._ends.remove(slot, self._end(slot))
        self._keys.remove(self._key_hash(slot), slot)
        self._ids.remove(self._id_hash(slot), slot)
        self._size -= 1
        tenant = self.tenant(slot)
        quota = self._quotas[tenant]
        quota.ranking.remove(slot)
        self._weigh(quota, -self._weight_at(slot))
        if not len(quota.ranking):
            del self._quotas[tenant]
        self.places.give(slots.places[slot])
        self.makes.give(slots.makes[slot])
        slots.give(slot)
        if self._scribe is not None:
            self._scribe.gone(slots.numbers[slot])

    def _forget(self, slot: int) -> None:
        """Let go of an entry's vector; it is still found by its key."""
        slots = self.slots
        place = slots.places[slot]
        index = self.indexes[place]
        if index is None:
            return
        heavier = self._weight_at(slot)
        self._ends.remove(slot, self._end(slot))
        slots.searchable[slot] = 0
        self._ends.add(slot, self._end(slot))
        self._weigh(self._quotas[self.tenant(slot)], self._weight_at(slot) - heavier)
        index.remove(slot)
        if not len(index):
            self.indexes[place] = None
        elif index.wants_build:
            self._on_build(index)

    # What is known of a slot.

    def _is(self, namespace: Namespace, digest: bytes) -> Callable[[int], bool]:
        """Whether a slot's entry lies under this key."""
        packs, of, places = self.slots.packs, self.slots.places, self.places

        def fits(slot: int) -> bool:
            sheet, start = packs.find(slot)
            return sheet.startswith(digest, start) and places[of[slot]].namespace == namespace

        return fits

    def _called(self, tenant: str, id: str) -> list[int]:
        wanted, slots = id.encode(errors="surrogatepass"), self.slots

        def fits(slot: int) -> bool:
            return id_of(*slots.packs.find(slot)) == wanted and self.tenant(slot) == tenant

        return self._ids.every(hash(wanted), fits)

    def _key_hash(self, slot: int) -> int:
        return hash(Key(self.places[self.slots.places[slot]].namespace, digest(*self.slots.packs.find(slot))))

    def _id_hash(self, slot: int) -> int:
        return hash(id_of(*self.slots.packs.find(slot)))

    def _end(self, slot: int) -> float:
        """When there is something to be done about it."""
        expires, semantic_until = ends(*self.slots.packs.find(slot))
        return semantic_until if self.slots.searchable[slot] else expires + self.bounds.stale_for

    def _weight_at(self, slot: int) -> int:
        slots = self.slots
        index = self.indexes[slots.places[slot]] if slots.searchable[slot] else None
        return weigh(slots.packs.size(slot), 0 if index is None else index.dimensions)

    def _weigh(self, quota: Quota, weight: int) -> None:
        quota.weight += weight
        self.weight += weight

    def _use(self, slot: int) -> None:
        """Count a use. What it changes in the ranking is worked out when the entry is the next to go."""
        slots = self.slots
        slots.used[slot] = 1
        if slots.uses[slot] < MOST_USES:
            slots.uses[slot] += 1
