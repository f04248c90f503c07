"""Whatever comes in whatever order - answers, invalidations, time, restarts, kills - the stores agree with a dictionary.

Above all: an answer that was asked for before an invalidation that includes it is never found after it, not even after the
process was killed.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from headgate.cache.cache import CacheStore, Entry, Selection
from headgate.cache.memory import MemoryStore
from headgate.cache.sqlite import SqliteStore
from headgate.model.tenancy import Namespace
from tests.conformance.test_cache_store import Clock, entry, key, unseen, vector

PLACES = [Namespace("acme"), Namespace("acme", "b"), Namespace("beta")]
TENANTS = ["acme", "beta"]
NAMES = ["one", "two", "three"]
STALE_FOR = 20.0

TAGS = st.lists(st.sampled_from("abc"), max_size=2).map(tuple)
ANSWERS = st.fixed_dictionaries({
    "tags": TAGS,
    "user": st.sampled_from([None, "ann", "bob"]),
    "near": st.one_of(st.none(), st.integers(0, 5).map(lambda number: vector(1, number))),
    "partition": st.sampled_from([b"p", b"q"]),
    "topic": st.sampled_from([None, b"what it was about"]),
    "expires": st.integers(1, 200),
    "semantic_until": st.integers(0, 200),
})  # fmt: skip
SELECTIONS = st.one_of(
    st.builds(Selection, tenant=st.sampled_from(TENANTS), tags=TAGS),
    st.builds(Selection, tenant=st.sampled_from(TENANTS), user=st.sampled_from(["ann", "bob"])),
    st.builds(Selection, tenant=st.sampled_from(TENANTS), namespace=st.sampled_from(["", "b"])),
    st.builds(Selection, tenant=st.sampled_from(TENANTS), entry=st.integers(1, 20).map(str)),
)

Result = TypeVar("Result")


class Cache(RuleBasedStateMachine):
    """One store and the dictionary that it should be like. `self.held` has what may be found by which key."""

    asked = Bundle("asked")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.held: dict[Any, Entry] = {}
        self.past: list[Entry] = []
        """All that was ever stored and not invalidated; a kill may bring back what had been replaced a moment ago."""
        self.made = 0
        self.said: list[tuple[int, Selection]] = []
        """All invalidations of this process, with the epoch that each one ended."""
        self.store: CacheStore = self.run(self.opened())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    async def opened(self) -> CacheStore:
        return MemoryStore(stale_for=STALE_FOR, now=self.clock)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()

    @rule(target=asked, name=st.sampled_from(NAMES), place=st.sampled_from(PLACES))
    def ask(self, name: str, place: Namespace) -> Any:
        return self.store, key(name, place), self.store.epoch(place.tenant)

    @rule(asking=asked, fields=ANSWERS)
    def answer(self, asking: Any, fields: dict[str, Any]) -> None:
        """To the same question it may come more than once, and to some never."""
        store, where, epoch = asking
        if store is not self.store:
            return
        self.made += 1
        times = {one: self.clock.time + fields[one] for one in ("expires", "semantic_until")}
        made = entry("", where.namespace, id=str(self.made), **{**fields, **times, "key": where})
        since = [selection for before, selection in self.said if before >= epoch]
        wanted = not any(selection.includes(made) for selection in since)
        assert self.run(self.store.put(made, epoch=epoch)) == wanted
        if wanted:
            self.held[made.key] = made
            self.past.append(made)

    @rule(name=st.sampled_from(NAMES), place=st.sampled_from(PLACES), fields=ANSWERS)
    def ask_and_answer(self, name: str, place: Namespace, fields: dict[str, Any]) -> None:
        self.answer(self.ask(name, place), fields)

    @rule(selection=SELECTIONS)
    def invalidate(self, selection: Selection) -> None:
        self.said.append((self.store.epoch(selection.tenant), selection))
        chosen = [held for held in self.held.values() if selection.includes(held)]
        assert self.run(self.store.invalidate(selection)) <= len(chosen)
        self.past = [one for one in self.past if not selection.includes(one)]
        for held in chosen:
            assert self.store.peek(held.key, stale=1_000.0) is None
            del self.held[held.key]

    @rule(seconds=st.sampled_from([0.5, 1.0, 30.0, 90.0]))
    def wait(self, seconds: float) -> None:
        self.clock.time += seconds

    @rule(name=st.sampled_from(NAMES), place=st.sampled_from(PLACES), stale=st.sampled_from([0.0, 5.0, 100.0]))
    def look(self, name: str, place: Namespace, stale: float) -> None:
        held = self.held.get(key(name, place))
        late = None if held is None else self.clock.time - held.expires
        there = late is not None and (late < 0 or late < min(stale, STALE_FOR))
        assert self.store.peek(key(name, place), stale=stale) == (unseen(held) if there and held is not None else None)

    @invariant()
    def every_live_entry_is_found_by_id_and_by_meaning(self) -> None:
        now = self.clock.time
        for place in PLACES:
            for partition in (b"p", b"q"):
                near = self.run(self.store.nearest(place, partition, vector(1), 50))
                mine = [
                    held for held in self.held.values()
                    if held.key.namespace == place and held.partition == partition
                    and min(held.expires, held.semantic_until) > now
                ]  # fmt: skip
                assert {one.entry.id for one in near} == {held.id for held in mine}
                assert np.all(np.diff([one.similarity for one in near]) <= 0)
        for held in self.held.values():
            found = self.run(self.store.find(held.key.namespace.tenant, held.id))
            assert found == (unseen(held) if held.expires > now else None)

    @invariant()
    def sizes_count_all_that_lives_and_nothing_that_is_long_dead(self) -> None:
        for tenant in TENANTS:
            mine = [held for held in self.held.values() if held.key.namespace.tenant == tenant]
            assert sum(held.expires > self.clock.time for held in mine) <= self.store.size(tenant) <= len(mine)
            assert (self.store.weight(tenant) > 0) == (self.store.size(tenant) > 0)
        assert self.store.size() == sum(self.store.size(tenant) for tenant in TENANTS)


class Durable(Cache):
    """The same with a file, which may be closed and opened, or copied as it would be found after a kill."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runs = 0
        super().__init__()

    @property
    def path(self) -> Path:
        return Path(self.folder.name) / f"{self.runs}.db"

    async def opened(self) -> CacheStore:
        return await SqliteStore.open(self.path, stale_for=STALE_FOR, now=self.clock)

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()

    @rule()
    def write(self) -> None:
        """Everything so far, as it would be a moment later."""
        self.run(self.store.invalidate(Selection(tenant="nobody")))

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self._begin_again()

    @rule(turns=st.integers(0, 3))
    def kill(self, turns: int) -> None:
        """What is in the file now is all that is left; what was on its way may be."""
        for _ in range(turns):
            self.run(asyncio.sleep(0))
        old, before = self.store, self.path
        self.runs += 1
        if before.exists():
            with closing(sqlite3.connect(before)) as source, closing(sqlite3.connect(self.path)) as copy:
                source.backup(copy)
        self.run(old.close())
        self._begin_again()
        left = {one: self.store.peek(one, stale=1_000.0) for one in {past.key for past in self.past}}
        self.held = {past.key: past for past in self.past if left[past.key] == unseen(past)}
        assert self.store.size() == len(self.held)

    def _begin_again(self) -> None:
        self.store = self.run(self.opened())
        self.said.clear()
        self.held = {one: held for one, held in self.held.items() if held.expires + STALE_FOR > self.clock.time}


TestInMemory = Cache.TestCase
TestInMemory.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestInAFile = Durable.TestCase
TestInAFile.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
