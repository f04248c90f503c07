"""What every CacheStore must do. To check your own: subclass CacheStoreConformance and give it a `store` fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headgate.cache.cache import CacheStore, Entry
from headgate.cache.memory import MemoryStore
from headgate.cache.sqlite import SqliteStore
from headgate.model.chat import Completion
from headgate.model.money import Usage
from headgate.model.tenancy import Key, Namespace

BOUND = 5
"""Entries of one tenant that the stores under test may hold."""

HOME = Namespace("acme")
ANSWER = msgspec.msgpack.encode(Completion(model="m", choices=[], usage=Usage(), reported={}))
PARTITION = b"p"


class Clock:
    def __init__(self) -> None:
        self.time = 1_000.0

    def __call__(self) -> float:
        return self.time


def vector(*numbers: float) -> Any:
    padded = np.array([*numbers, *[0.0] * (4 - len(numbers))], dtype=np.float32)
    return padded / np.linalg.norm(padded)


def entry(
    name: str, place: Namespace = HOME, *, near: Any = None, partition: bytes = PARTITION, expires: float = 2_000.0,
    semantic_until: float = 2_000.0, id: str | None = None,
) -> Entry:  # fmt: skip
    """An entry under `name`; it can be found by meaning when it has a vector."""
    return Entry(
        id=id or name,
        key=key(name, place),
        answer=ANSWER,
        stored=1_000.0,
        expires=expires,
        worth=7,
        deployment="small",
        tags=("a", "b"),
        partition=None if near is None else partition,
        text=None if near is None else f"question {name}",
        vector=None if near is None else near.tobytes(),
        semantic_until=semantic_until,
    )


def key(name: str, place: Namespace = HOME) -> Key:
    return Key(place, name.encode().ljust(32, b"\0"))


async def found(
    store: CacheStore, near: Any, place: Namespace = HOME, partition: bytes = PARTITION, count: int = 9
) -> list[str]:
    return [candidate.entry.id for candidate in await store.nearest(place, partition, near, count)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


class CacheStoreConformance:
    """The guarantees in the docstring of CacheStore, each as a test. The store holds `BOUND` entries of a tenant."""

    async def test_what_is_put_is_found_as_it_was(self, store: CacheStore) -> None:
        kept = entry("one", near=vector(1))
        await store.put(kept)
        assert store.peek(kept.key) == await store.get(kept.key) == kept
        (candidate,) = await store.nearest(HOME, PARTITION, vector(1), 3)
        assert candidate.entry == kept
        assert candidate.similarity == pytest.approx(1.0, abs=1e-6)
        assert store.size() == 1
        assert store.weight() == kept.weight > 0

    async def test_what_is_replaced_weighs_nothing_any_more(self, store: CacheStore) -> None:
        await store.put(entry("one", near=vector(1)))
        await store.put(entry("one"))
        assert store.weight() == entry("one").weight

    async def test_nothing_is_found_before_it_is_put(self, store: CacheStore) -> None:
        assert store.peek(key("one")) is None
        assert await store.get(key("one")) is None
        assert await found(store, vector(1)) == []
        assert store.size() == 0

    async def test_an_entry_is_found_under_its_own_namespace_only(self, store: CacheStore) -> None:
        """Another tenant, another namespace of the tenant, and names that only look equal when glued together."""
        places = [HOME, Namespace("acme", "b"), Namespace("acm", "e"), Namespace("", "acme"), Namespace("beta")]
        for place in places:
            await store.put(entry("one", place, near=vector(1), id=f"{place.tenant}/{place.name}"))
        for place in places:
            mine = f"{place.tenant}/{place.name}"
            held = await store.get(key("one", place))
            assert held is not None
            assert held.id == mine
            assert await found(store, vector(1), place) == [mine]
        assert await store.get(key("one", Namespace("gamma"))) is None
        assert await found(store, vector(1), Namespace("gamma")) == []

    async def test_a_question_is_compared_within_its_partition_only(self, store: CacheStore) -> None:
        await store.put(entry("one", near=vector(1)))
        await store.put(entry("two", near=vector(1), partition=b"q"))
        assert await found(store, vector(1)) == ["one"]
        assert await found(store, vector(1), partition=b"q") == ["two"]
        assert await found(store, vector(1), partition=b"r") == []

    async def test_the_nearest_come_first_and_no_more_than_asked_for(self, store: CacheStore) -> None:
        for name, near in (
            ("far", vector(0, 1)),
            ("near", vector(1, 0.1)),
            ("same", vector(1)),
            ("opposite", vector(-1)),
        ):
            await store.put(entry(name, near=near))
        assert await found(store, vector(1)) == ["same", "near", "far", "opposite"]
        assert await found(store, vector(1), count=2) == ["same", "near"]
        similar = [candidate.similarity for candidate in await store.nearest(HOME, PARTITION, vector(1), 9)]
        assert similar == pytest.approx([1.0, 0.995, 0.0, -1.0], abs=1e-3)

    async def test_an_entry_without_a_vector_is_found_exactly_alone(self, store: CacheStore) -> None:
        await store.put(entry("one"))
        assert store.peek(key("one")) is not None
        assert await found(store, vector(1)) == []

    async def test_an_expired_entry_is_never_found(self, store: CacheStore, clock: Clock) -> None:
        await store.put(entry("one", near=vector(1), expires=1_010.0))
        clock.time = 1_009.9
        assert await store.get(key("one")) is not None
        clock.time = 1_010.0
        assert store.peek(key("one")) is None
        assert await store.get(key("one")) is None
        assert await found(store, vector(1)) == []
        assert store.size() == 0

    async def test_an_entry_too_old_for_its_meaning_is_still_found_exactly(
        self, store: CacheStore, clock: Clock
    ) -> None:
        await store.put(entry("one", near=vector(1), semantic_until=1_010.0))
        clock.time = 1_010.0
        assert await found(store, vector(1)) == []
        held = await store.get(key("one"))
        assert held is not None
        assert held.id == "one"
        clock.time = 2_000.0
        assert await store.get(key("one")) is None

    async def test_the_time_of_the_whole_bounds_the_time_of_the_meaning(self, store: CacheStore, clock: Clock) -> None:
        await store.put(entry("one", near=vector(1), expires=1_005.0, semantic_until=1_010.0))
        clock.time = 1_005.0
        assert await found(store, vector(1)) == []

    async def test_expired_entries_hide_no_live_one(self, store: CacheStore, clock: Clock) -> None:
        for number in range(4):
            await store.put(entry(f"old {number}", near=vector(1), semantic_until=1_010.0))
        await store.put(entry("live", near=vector(1, 1)))
        clock.time = 1_010.0
        assert await found(store, vector(1), count=1) == ["live"]

    async def test_a_replaced_entry_takes_its_vector_along(self, store: CacheStore) -> None:
        await store.put(entry("one", near=vector(1), id="old"))
        await store.put(entry("one", near=vector(0, 1), id="new"))
        held = await store.get(key("one"))
        assert held is not None
        assert held.id == "new"
        assert await found(store, vector(1)) == ["new"]
        await store.put(entry("one", id="plain"))
        assert await found(store, vector(1)) == []
        assert store.size() == 1

    async def test_a_replacement_has_its_own_times(self, store: CacheStore, clock: Clock) -> None:
        """The end of the old one must not end the new one."""
        await store.put(entry("one", near=vector(1), expires=1_010.0, id="old"))
        await store.put(entry("one", near=vector(1), id="new"))
        clock.time = 1_010.0
        assert await found(store, vector(1)) == ["new"]
        held = await store.get(key("one"))
        assert held is not None
        assert held.id == "new"

    async def test_a_tenant_at_its_bound_loses_its_own_oldest_and_nobody_elses(self, store: CacheStore) -> None:
        await store.put(entry("other", Namespace("beta"), near=vector(1)))
        for number in range(BOUND + 3):
            await store.put(entry(str(number), near=vector(1)))
        assert [await store.get(key(str(number))) is not None for number in range(BOUND + 3)] == [False] * 3 + [
            True
        ] * BOUND
        assert len(await found(store, vector(1), count=50)) == BOUND
        assert await store.get(key("other", Namespace("beta"))) is not None
        assert await found(store, vector(1), Namespace("beta")) == ["other"]
        assert store.size() == BOUND + 1

    async def test_all_namespaces_of_a_tenant_share_its_bound(self, store: CacheStore) -> None:
        for number in range(BOUND + 1):
            await store.put(entry("one", Namespace("acme", str(number))))
        assert store.size() == BOUND

    async def test_an_entry_that_is_asked_for_stays(self, store: CacheStore) -> None:
        for number in range(BOUND):
            await store.put(entry(str(number)))
        assert store.peek(key("0")) is not None
        await store.put(entry("more"))
        assert store.peek(key("0")) is not None
        assert store.peek(key("1")) is None


class TestMemoryStore(CacheStoreConformance):
    @pytest.fixture
    async def store(self, clock: Clock) -> AsyncIterator[CacheStore]:
        store = MemoryStore(per_tenant=BOUND, now=clock)
        yield store
        await store.close()
        assert store.size() == 0


class TestSqliteStore(CacheStoreConformance):
    @pytest.fixture
    async def store(self, clock: Clock, tmp_path: Path) -> AsyncIterator[CacheStore]:
        store = await SqliteStore.open(tmp_path / "cache.db", per_tenant=BOUND, now=clock)
        yield store
        await store.close()
