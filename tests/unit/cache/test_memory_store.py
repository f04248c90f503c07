"""What goes on beside the calls: bounds of bytes, invalidations among other calls, builds in a thread, and very many entries."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
import pytest

from headgate.cache.cache import Selection
from headgate.cache.graph import Graph
from headgate.cache.index import FLOOD, SMALL
from headgate.cache.memory import MemoryStore
from headgate.model.tenancy import Namespace
from tests.conformance.test_cache_store import ANSWER, HOME, PARTITION, Clock, entry, found, key, put, vector

KIB = 1024


@pytest.fixture(autouse=True, scope="module")
def library() -> None:
    """Graphs are not made before their library is loaded."""
    Graph(4)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_tenant_keeps_to_its_bytes_whatever_comes(clock: Clock) -> None:
    store = MemoryStore(bytes_per_tenant=64 * KIB, now=clock)
    drawn = random.Random(1)
    await put(store, entry("other", Namespace("beta")))
    for number in range(1_000):
        await put(
            store, entry(str(number), near=vector(1, number), answer=ANSWER + drawn.randbytes(drawn.randrange(2_000)))
        )
        assert store.weight("acme") <= 64 * KIB
    assert store.weight("acme") > 56 * KIB
    assert store.peek(key("other", Namespace("beta"))) is not None


async def test_all_tenants_together_keep_to_their_bytes_at_the_heaviest_ones_cost(clock: Clock) -> None:
    store = MemoryStore(bytes_total=200 * KIB, now=clock)
    small = [Namespace(f"small {number}") for number in range(20)]
    for place in small:
        await put(store, entry("one", place, worth=0))
    for number in range(500):
        await put(store, entry(str(number), worth=10**9, answer=bytes(1_000)))
        assert store.weight() <= 200 * KIB
    assert store.weight("acme") > 150 * KIB
    assert all(store.peek(key("one", place)) is not None for place in small)


async def test_an_invalidation_spares_what_was_asked_for_after_it_began(clock: Clock) -> None:
    store = MemoryStore(now=clock)
    for number in range(5_000):
        await put(store, entry(f"old {number}"))
    before = store.epoch("acme")
    task = asyncio.create_task(store.invalidate(Selection(tenant="acme")))
    late, new, turns = 0, 0, 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
        late += await store.put(entry(f"late {turns}"), epoch=before)
        new += await store.put(entry(f"new {turns}"), epoch=store.epoch("acme"))
        # In the slot of an old one that its turn has not come to yet, if it has not.
        await put(store, entry(f"old {5_000 - turns}", id="again"))
    assert await task <= 5_000
    # The first turn only begins it: what came then was stored before.
    assert (turns > 2, new, late) == (True, turns, 0)
    assert store.size() == 2 * new
    left = [store.peek(key(f"old {number}")) for number in range(5_000)]
    assert {one.id for one in left if one is not None} == {"again"}


async def test_slots_of_what_was_invalidated_may_be_another_tenants_meanwhile(clock: Clock) -> None:
    store = MemoryStore(now=clock)
    for number in range(5_000):
        await put(store, entry(f"old {number}"))
    task = asyncio.create_task(store.invalidate(Selection(tenant="acme")))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
        for number in range(20):
            await put(store, entry(f"{turns} {number}", Namespace("beta")))
    assert store.size("beta") == 20 * turns
    assert store.size("acme") == 0


def near(number: int) -> Any:
    drawn = np.random.default_rng(number).standard_normal(16).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


async def test_most_of_a_large_partition_gone_a_thread_makes_a_smaller_graph(clock: Clock) -> None:
    store = MemoryStore(now=clock)
    count = 3 * SMALL
    for number in range(count):
        await put(store, entry(str(number), near=near(number), tags=("gone" if number % 4 else "stays",)))
    await store.invalidate(Selection(tenant="acme", tags=("gone",)))
    await store.builds.settled()
    (index,) = [one for one in store.shelf.indexes if one is not None]
    assert len(index) == count // 4
    assert not index.wants_build
    for number in range(0, count, 4):
        assert await found(store, near(number), count=1) == [str(number)]
    await store.close()


async def test_closing_ends_a_build_that_is_under_way(clock: Clock) -> None:
    store = MemoryStore(now=clock)
    store.shelf.reserve(FLOOD + 1)
    for number in range(FLOOD + 1):
        await put(store, entry(str(number), near=near(number)))
    store.shelf.settle()
    await asyncio.sleep(0)
    await store.close()
    assert await found(store, near(5), count=1) == ["5"]


async def test_what_is_too_old_does_not_hide_what_is_not_however_much_of_it_there_is(clock: Clock) -> None:
    store = MemoryStore(now=clock)
    for number in range(SMALL):
        await put(store, entry(f"old {number}", near=vector(1, 0.001 * number), semantic_until=1_001.0))
    await put(store, entry("live", near=vector(0.5, 1)))
    clock.time = 1_002.0
    assert await found(store, vector(1), count=1) == ["live"]


async def test_a_hundred_thousand_entries_come_and_go(clock: Clock) -> None:
    store = MemoryStore(entries_per_tenant=20_000, now=clock)
    for number in range(100_000):
        await store.put(entry(str(number), Namespace("acme", str(number % 7)), id=str(number)), epoch=0)
    assert store.size() == 20_000
    clock.time = 2_000.0 + 60.0
    for number in range(1_000):
        await store.put(entry(str(number), Namespace("beta"), expires=9_000.0), epoch=0)
    assert store.size("acme") == 0
    assert store.size() == 1_000
    assert len(store.shelf.places) == 1


async def test_partitions_of_one_question_each_leave_nothing_behind(clock: Clock) -> None:
    """As conversations make them."""
    store = MemoryStore(entries_per_tenant=1_000, now=clock)
    for number in range(5_000):
        await put(store, entry(str(number), near=vector(1), partition=str(number).encode()))
    assert len(store.shelf.places) == 1_000
    assert await found(store, vector(1), partition=b"4999") == ["4999"]
    assert await found(store, vector(1), HOME, PARTITION) == []
    await store.invalidate(Selection(tenant="acme"))
    assert len(store.shelf.places) == 0
    assert not any(store.shelf.indexes)
    assert store.weight() == 0
