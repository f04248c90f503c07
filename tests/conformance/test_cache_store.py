"""What every CacheStore must do. To check your own: subclass CacheStoreConformance and give it a `store` fixture."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headgate.cache.cache import CacheStore, Entry, Search, Selection
from headgate.cache.epochs import REMEMBERED
from headgate.cache.kept import LARGEST
from headgate.cache.memory import MemoryStore
from headgate.cache.quantise import quantised
from headgate.cache.redis import RedisStore
from headgate.cache.redis_vectors import IN_INDEX, known
from headgate.cache.sqlite import SqliteStore
from headgate.model.chat import Completion
from headgate.model.money import Usage
from headgate.model.tenancy import Key, Namespace
from headgate.storage.news import News
from headgate.storage.redis import Redis
from tests.servers.redis import PATIENT, RedisCluster, RedisServer

BOUND = 5
"""Entries of one tenant that the stores under test may hold."""
BYTES = 1 << 20
"""And bytes."""
STALE_FOR = 50.0
"""Seconds for which they keep what has expired."""

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
    semantic_until: float = 2_000.0, id: str | None = None, **more: Any,
) -> Entry:  # fmt: skip
    """An entry under `name`; it can be found by meaning when it has a vector."""
    fields: dict[str, Any] = {
        "id": id or name,
        "key": key(name, place),
        "answer": ANSWER,
        "stored": 1_000.0,
        "expires": expires,
        "worth": 7,
        "deployment": "small",
        "model": "fast",
        "user": "ann",
        "tags": ("a", "b"),
        "partition": None if near is None else partition,
        "text": None if near is None else f"question {name}",
        "vector": None if near is None else quantised(near),
        "semantic_until": semantic_until,
    }
    return Entry(**{**fields, **more})


def unseen(entry: Entry) -> Entry:
    """As stores hand it out."""
    return msgspec.structs.replace(entry, vector=None)


async def put(store: CacheStore, entry: Entry) -> None:
    assert await store.put(entry, epoch=store.epoch(entry.key.namespace.tenant))


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

    async def tidy(self, store: CacheStore) -> None:
        """What a store does behind its callers' backs is done, also what has to be asked for once a minute."""

    async def test_what_is_put_is_found_as_it_was(self, store: CacheStore) -> None:
        kept = entry("one", near=vector(1))
        await put(store, kept)
        assert await store.get(kept.key) == unseen(kept)
        assert await store.find("acme", "one") == unseen(kept)
        (candidate,) = await store.nearest(HOME, PARTITION, vector(1), 3)
        assert candidate.entry == unseen(kept)
        assert candidate.similarity == pytest.approx(1.0, abs=1e-6)
        assert store.size() == 1
        assert store.weight() > len(kept.answer)

    async def test_what_is_replaced_weighs_nothing_any_more(self, store: CacheStore) -> None:
        await put(store, entry("plain"))
        alone = store.weight()
        await put(store, entry("one", near=vector(1)))
        assert store.weight() > 2 * alone
        await put(store, entry("one"))
        assert store.weight() == pytest.approx(2 * alone, abs=10)

    async def test_sizes_are_told_of_each_tenant(self, store: CacheStore) -> None:
        await put(store, entry("one", near=vector(1)))
        await put(store, entry("two", Namespace("acme", "b")))
        await put(store, entry("one", Namespace("beta")))
        assert [store.size(tenant) for tenant in (None, "acme", "beta", "gamma")] == [3, 2, 1, 0]
        assert store.weight() == store.weight("acme") + store.weight("beta")
        assert store.weight("gamma") == 0
        await store.invalidate(Selection(tenant="acme"))
        assert store.weight("acme") == 0
        assert store.weight() == store.weight("beta") > 0

    async def test_what_lies_in_the_process_is_what_is_found_anyway(self, store: CacheStore) -> None:
        await put(store, entry("one"))
        assert store.peek(key("one")) in {None, unseen(entry("one"))}
        await store.invalidate(Selection(tenant="acme"))
        assert store.peek(key("one")) is None

    async def test_one_look_finds_the_exact_entry_or_else_what_is_near(self, store: CacheStore) -> None:
        await put(store, entry("one", near=vector(1)))
        await put(store, entry("two", near=vector(1, 1), expires=1_010.0))
        search = Search(PARTITION, vector(1), 9)

        async def seen(name: str, search: Search | None, **how: Any) -> Any:
            looked = await store.look(key(name), search, **how)
            return looked.id if isinstance(looked, Entry) else [one.entry.id for one in looked]

        assert await seen("two", search) == "two"
        assert await seen("two", search, exact=False) == ["one", "two"]
        assert await seen("other", search) == ["one", "two"]
        assert await seen("other", None) == []
        assert await seen("one", None, exact=False) == []

    async def test_nothing_is_found_before_it_is_put(self, store: CacheStore) -> None:
        assert await store.get(key("one")) is None
        assert await found(store, vector(1)) == []
        assert store.size() == 0

    async def test_an_entry_is_found_under_its_own_namespace_only(self, store: CacheStore) -> None:
        """Another tenant, another namespace of the tenant, and names that only look equal when glued together."""
        places = [HOME, Namespace("acme", "b"), Namespace("acm", "e"), Namespace("", "acme"), Namespace("beta")]
        for place in places:
            await put(store, entry("one", place, near=vector(1), id=f"{place.tenant}/{place.name}"))
        for place in places:
            mine = f"{place.tenant}/{place.name}"
            held = await store.get(key("one", place))
            assert held is not None
            assert held.id == mine
            assert await found(store, vector(1), place) == [mine]
        assert await store.get(key("one", Namespace("gamma"))) is None
        assert await found(store, vector(1), Namespace("gamma")) == []

    async def test_a_question_is_compared_within_its_partition_only(self, store: CacheStore) -> None:
        await put(store, entry("one", near=vector(1)))
        await put(store, entry("two", near=vector(1), partition=b"q"))
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
            await put(store, entry(name, near=near))
        assert await found(store, vector(1)) == ["same", "near", "far", "opposite"]
        assert await found(store, vector(1), count=2) == ["same", "near"]
        similar = [candidate.similarity for candidate in await store.nearest(HOME, PARTITION, vector(1), 9)]
        assert similar == pytest.approx([1.0, 0.995, 0.0, -1.0], abs=1e-3)

    async def test_an_entry_without_a_vector_is_found_exactly_alone(self, store: CacheStore) -> None:
        await put(store, entry("one"))
        assert await store.get(key("one")) is not None
        assert await found(store, vector(1)) == []

    async def test_an_expired_entry_is_never_found(self, store: CacheStore, clock: Clock) -> None:
        await put(store, entry("one", near=vector(1), expires=1_010.0))
        clock.time = 1_009.9
        assert await store.get(key("one")) is not None
        clock.time = 1_010.0
        assert await store.get(key("one")) is None
        assert await found(store, vector(1)) == []

    async def test_expired_entries_leave_the_memory_within_a_minute(self, store: CacheStore, clock: Clock) -> None:
        for number in range(BOUND):
            await put(store, entry(str(number), near=vector(1), expires=1_010.0 + number))
        clock.time = 1_010.0 + BOUND + STALE_FOR + 60.0
        await put(store, entry("other", Namespace("beta"), expires=9_000.0))
        await self.tidy(store)
        assert store.size() == 1
        assert store.weight("acme") == 0

    async def test_an_entry_too_old_for_its_meaning_is_still_found_exactly(
        self, store: CacheStore, clock: Clock
    ) -> None:
        await put(store, entry("one", near=vector(1), semantic_until=1_010.0))
        clock.time = 1_010.0
        assert await found(store, vector(1)) == []
        held = await store.get(key("one"))
        assert held is not None
        assert held.id == "one"
        clock.time = 2_000.0
        assert await store.get(key("one")) is None

    async def test_the_time_of_the_whole_bounds_the_time_of_the_meaning(self, store: CacheStore, clock: Clock) -> None:
        await put(store, entry("one", near=vector(1), expires=1_005.0, semantic_until=1_010.0))
        clock.time = 1_005.0
        assert await found(store, vector(1)) == []

    async def test_expired_entries_hide_no_live_one(self, store: CacheStore, clock: Clock) -> None:
        for number in range(4):
            await put(store, entry(f"old {number}", near=vector(1), semantic_until=1_010.0))
        await put(store, entry("live", near=vector(1, 1)))
        clock.time = 1_010.0
        assert await found(store, vector(1), count=1) == ["live"]

    async def test_a_replaced_entry_takes_its_vector_along(self, store: CacheStore) -> None:
        await put(store, entry("one", near=vector(1), id="old"))
        await put(store, entry("one", near=vector(0, 1), id="new"))
        held = await store.get(key("one"))
        assert held is not None
        assert held.id == "new"
        assert await found(store, vector(1)) == ["new"]
        await put(store, entry("one", id="plain"))
        assert await found(store, vector(1)) == []
        assert store.size() == 1

    async def test_a_replacement_has_its_own_times(self, store: CacheStore, clock: Clock) -> None:
        """The end of the old one must not end the new one."""
        await put(store, entry("one", near=vector(1), expires=1_010.0, id="old"))
        await put(store, entry("one", near=vector(1), id="new"))
        clock.time = 1_010.0
        assert await found(store, vector(1)) == ["new"]
        held = await store.get(key("one"))
        assert held is not None
        assert held.id == "new"

    async def test_a_tenant_at_its_bound_loses_its_own_oldest_and_nobody_elses(self, store: CacheStore) -> None:
        await put(store, entry("other", Namespace("beta"), near=vector(1)))
        for number in range(BOUND + 3):
            await put(store, entry(str(number), near=vector(1)))
        assert [await store.get(key(str(number))) is not None for number in range(BOUND + 3)] == [False] * 3 + [
            True
        ] * BOUND
        assert len(await found(store, vector(1), count=50)) == BOUND
        assert await store.get(key("other", Namespace("beta"))) is not None
        assert await found(store, vector(1), Namespace("beta")) == ["other"]
        assert store.size() == BOUND + 1

    async def test_all_namespaces_of_a_tenant_share_its_bound(self, store: CacheStore) -> None:
        for number in range(BOUND + 1):
            await put(store, entry("one", Namespace("acme", str(number))))
        assert store.size() == BOUND

    async def test_an_entry_that_is_asked_for_stays(self, store: CacheStore) -> None:
        for number in range(BOUND):
            await put(store, entry(str(number)))
        assert await store.get(key("0")) is not None
        await put(store, entry("more"))
        assert await store.get(key("0")) is not None
        assert await store.get(key("1")) is None

    async def test_an_answer_that_is_used_for_its_meaning_stays_too(self, store: CacheStore) -> None:
        for number in range(BOUND):
            await put(store, entry(str(number), near=vector(1, number)))
        (candidate,) = await store.nearest(HOME, PARTITION, vector(1), 1)
        store.used(candidate.entry.key)
        await self.tidy(store)
        await put(store, entry("more"))
        assert await store.get(candidate.entry.key) is not None

    async def test_the_dearest_for_its_size_stays(self, store: CacheStore) -> None:
        """Twice the money keeps a thing, twice the size does not."""
        await put(store, entry("dear", worth=20_000))
        await put(store, entry("cheap", worth=10))
        await put(store, entry("large", worth=20_000, answer=ANSWER * 300))
        for number in range(BOUND - 3):
            await put(store, entry(str(number), worth=10_000))
        await put(store, entry("one", worth=10_000))
        assert await store.get(key("cheap")) is None
        await put(store, entry("two", worth=10_000))
        assert await store.get(key("large")) is None
        assert await store.get(key("dear")) is not None

    async def test_what_was_once_dear_does_not_stay_for_ever(self, store: CacheStore) -> None:
        await put(store, entry("dear", worth=10_000))
        for number in range(500):
            await put(store, entry(str(number), worth=1_000))
        assert await store.get(key("dear")) is None

    async def test_a_stale_entry_is_found_by_its_key_when_that_will_do(self, store: CacheStore, clock: Clock) -> None:
        kept = entry("one", near=vector(1), expires=1_010.0)
        await put(store, kept)
        clock.time = 1_015.0
        assert await store.get(kept.key) is None
        assert await store.get(kept.key, stale=5.0) is None
        assert await store.get(kept.key, stale=5.1) == await store.get(kept.key, stale=60.0) == unseen(kept)
        assert await found(store, vector(1)) == []
        assert await store.find("acme", "one") is None
        clock.time = 1_010.0 + STALE_FOR
        assert await store.get(kept.key, stale=1_000.0) is None
        assert store.size() == 0

    async def test_being_found_lengthens_no_life(self, store: CacheStore, clock: Clock) -> None:
        await put(store, entry("one", near=vector(1), expires=1_010.0))
        for second in range(10):
            clock.time = 1_000.0 + second
            assert await store.get(key("one")) is not None
            assert await found(store, vector(1)) == ["one"]
        clock.time = 1_010.0
        assert await store.get(key("one")) is None

    async def test_an_entry_is_found_by_its_id_in_its_tenant_only(self, store: CacheStore) -> None:
        ids = ["one", "00ff00ff00ff", "00FF00ff", "0f0", "é", ""]
        for number, id in enumerate(ids[:BOUND]):
            await put(store, entry(str(number), id=id))
        for number, id in enumerate(ids[:BOUND]):
            held = await store.find("acme", id)
            assert held is not None
            assert (held.id, held.key) == (id, key(str(number)))
            assert await store.find("beta", id) is None
        assert await store.find("acme", "other") is None
        assert await store.find("acme", "\ud800") is None

    @pytest.mark.parametrize(
        ("selection", "left"),
        [
            (Selection(tenant="acme"), ["beta"]),
            (Selection(tenant="acme", tags=("news", "other")), ["plain", "user", "model", "space", "beta"]),
            (Selection(tenant="acme", tags=("news",)), ["plain", "user", "model", "space", "beta"]),
            (Selection(tenant="acme", user="bob"), ["plain", "tag", "model", "space", "beta"]),
            (Selection(tenant="acme", model="slow"), ["plain", "tag", "user", "space", "beta"]),
            (Selection(tenant="acme", namespace="b"), ["plain", "tag", "user", "model", "beta"]),
            (Selection(tenant="acme", entry="plain"), ["tag", "user", "model", "space", "beta"]),
            (Selection(tenant="acme", tags=("news",), user="bob"), ["plain", "tag", "user", "model", "space", "beta"]),
            (Selection(tenant="acme", entry="beta"), ["plain", "tag", "user", "model", "space", "beta"]),
            (Selection(tenant="acme", user="\ud800"), ["plain", "tag", "user", "model", "space", "beta"]),
            (Selection(tenant="gamma"), ["plain", "tag", "user", "model", "space", "beta"]),
        ],
    )
    async def test_what_is_selected_is_removed_and_nothing_else(
        self, store: CacheStore, selection: Selection, left: list[str]
    ) -> None:
        entries = [
            entry("plain", near=vector(1)),
            entry("tag", near=vector(1), tags=("old", "news")),
            entry("user", near=vector(1), user="bob"),
            entry("model", near=vector(1), model="slow"),
            entry("space", Namespace("acme", "b"), near=vector(1)),
            entry("beta", Namespace("beta"), near=vector(1), tags=("news",), user="bob", model="slow"),
        ]
        for one in entries:
            await put(store, one)
        assert await store.invalidate(selection) == len(entries) - len(left)
        for one in entries:
            stays = one.id in left
            assert (await store.get(one.key) is not None) == stays
            assert (await store.find(one.key.namespace.tenant, one.id) is not None) == stays
            assert (one.id in await found(store, vector(1), one.key.namespace)) == stays
        assert store.size() == len(left)

    async def test_what_is_selected_is_shown_newest_first_and_in_parts(self, store: CacheStore) -> None:
        for name in ("a", "b", "c"):
            await put(store, entry(name, tags=("news",), near=vector(1)))
        await put(store, entry("other"))
        await put(store, entry("beta", Namespace("beta"), tags=("news",)))

        async def shown(**part: int) -> list[str]:
            return [one.id for one in await store.selected(Selection(tenant="acme", tags=("news",)), **part)]

        assert await shown() == ["c", "b", "a"]
        assert await shown(skip=1, count=1) == ["b"]
        assert await shown(skip=3) == []
        assert [one.id for one in await store.selected(Selection(tenant="acme"), count=1)] == ["other"]
        assert await store.selected(Selection(tenant="gamma")) == []

    async def test_who_makes_room_is_counted(self, store: CacheStore) -> None:
        for number in range(BOUND + 2):
            await put(store, entry(str(number)))
        await store.invalidate(Selection(tenant="acme"))
        assert store.evictions() == 2

    async def test_an_answer_asked_for_before_its_invalidation_is_not_stored_after_it(self, store: CacheStore) -> None:
        before = store.epoch("acme")
        await store.invalidate(Selection(tenant="acme", tags=("a",)))
        assert store.epoch("acme") > before
        assert not await store.put(entry("one"), epoch=before)
        assert await store.put(entry("two", tags=("b",)), epoch=before)
        assert await store.put(entry("one", Namespace("beta")), epoch=store.epoch("beta"))
        assert await store.get(key("one")) is None
        assert await store.put(entry("one"), epoch=store.epoch("acme"))
        assert await store.get(key("one")) is not None

    async def test_an_invalidation_is_remembered_behind_later_ones(self, store: CacheStore) -> None:
        before = store.epoch("acme")
        await store.invalidate(Selection(tenant="acme", tags=("a",)))
        for _ in range(REMEMBERED // 2):
            await store.invalidate(Selection(tenant="acme", tags=("other",)))
        assert not await store.put(entry("one"), epoch=before)
        assert await store.put(entry("one", tags=("b",)), epoch=before)

    async def test_an_answer_from_too_long_ago_is_not_stored(self, store: CacheStore) -> None:
        """Nobody remembers what was invalidated since."""
        before = store.epoch("acme")
        for _ in range(REMEMBERED + 1):
            await store.invalidate(Selection(tenant="acme", tags=("other",)))
        assert not await store.put(entry("one"), epoch=before)
        assert await store.put(entry("one"), epoch=store.epoch("acme"))

    async def test_an_answer_that_was_refused_leaves_the_one_before_it(self, store: CacheStore) -> None:
        before = store.epoch("acme")
        await put(store, entry("one", id="old", tags=("b",)))
        await store.invalidate(Selection(tenant="acme", tags=("a",)))
        assert not await store.put(entry("one", id="new"), epoch=before)
        held = await store.get(key("one"))
        assert held is not None
        assert held.id == "old"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"vector": bytes(4)},
            {"vector": bytes([1, 2, 3])},
            {"vector": b""},
            {"expires": float("nan")},
            {"expires": float("inf")},
            {"expires": 1_000.0 - STALE_FOR},
            {"id": "x" * 128},
            {"id": "\ud800"},
            {"text": "\ud800"},
            {"key": Key(HOME, b"short")},
        ],
    )
    async def test_what_cannot_be_kept_is_refused_and_changes_nothing(
        self, store: CacheStore, wrong: dict[str, Any]
    ) -> None:
        """A vector without a direction or of another size, times that are none, ids and texts that no encoding has."""
        await put(store, entry("first", near=vector(1)))
        assert not await store.put(entry("one", near=vector(1), **wrong), epoch=0)
        assert store.size() == 1
        assert await store.get(key("one")) is None
        assert await found(store, vector(1)) == ["first"]

    async def test_an_entry_that_is_too_large_is_not_kept(self, store: CacheStore) -> None:
        await put(store, entry("small"))
        assert not await store.put(entry("one", answer=b"x" * (BYTES // LARGEST)), epoch=0)
        assert await store.put(entry("one", answer=b"x" * (BYTES // LARGEST - 1_000)), epoch=0)
        assert await store.get(key("small")) is not None

    async def test_a_question_of_another_size_or_without_a_direction_finds_nothing(self, store: CacheStore) -> None:
        await put(store, entry("one", near=vector(1)))
        for wrong in (np.ones(3), np.full(4, np.nan), np.full(4, np.inf), np.ones((2, 4))):
            assert await found(store, wrong.astype(np.float32)) == []

    async def test_odd_text_comes_back_as_it_was(self, store: CacheStore) -> None:
        place = Namespace("ac\0me\ud800", "'; DROP TABLE entries; \U0001f600")
        odd = entry("one", place, near=vector(1), text="\0\x1b[31m\u202e\U0001f600" * 100, user="", tags=("", "\0"))
        await put(store, odd)
        assert await store.get(odd.key) == unseen(odd)
        assert await found(store, vector(1), place) == ["one"]


class TestMemoryStore(CacheStoreConformance):
    @pytest.fixture
    async def store(self, clock: Clock) -> AsyncIterator[CacheStore]:
        store = MemoryStore(entries_per_tenant=BOUND, bytes_per_tenant=BYTES, stale_for=STALE_FOR, now=clock)
        yield store
        await store.close()


class TestSqliteStore(CacheStoreConformance):
    @pytest.fixture
    async def store(self, clock: Clock, tmp_path: Path) -> AsyncIterator[CacheStore]:
        store = await SqliteStore.open(
            tmp_path / "cache.db", entries_per_tenant=BOUND, bytes_per_tenant=BYTES, stale_for=STALE_FOR, now=clock
        )
        yield store
        await store.close()


class RedisConformance(CacheStoreConformance):
    """The same over a Redis; `redis` is a fixture of each subclass."""

    @pytest.fixture
    async def store(self, clock: Clock, redis: Redis) -> AsyncIterator[CacheStore]:
        store = await RedisStore.open(
            redis, News(redis), entries_per_tenant=BOUND, bytes_per_tenant=BYTES, stale_for=STALE_FOR, clock=clock
        )
        yield store
        await store.close()

    async def tidy(self, store: CacheStore) -> None:
        assert isinstance(store, RedisStore)
        await store.settled()
        await store.refresh()


class TestRedisStore(RedisConformance):
    @pytest.fixture
    async def redis(self, redis_url: str) -> AsyncIterator[Redis]:
        redis = Redis(redis_url, timeout=PATIENT)
        yield redis
        await redis.close()


class TestRedisStoreInACluster(RedisConformance):
    @pytest.fixture
    async def redis(self, redis_cluster: RedisCluster, redis_prefix: str) -> AsyncIterator[Redis]:
        redis = Redis(redis_cluster.url, cluster=True, prefix=redis_prefix, timeout=PATIENT)
        yield redis
        await redis.close()


class TestRedisStoreWithoutVectorSets(RedisConformance):
    """Exact entries lie in Redis, those that are found by their meaning in the process."""

    @pytest.fixture
    async def redis(self, redis7_server: RedisServer, redis_prefix: str) -> AsyncIterator[Redis]:
        redis = Redis(redis7_server.url, prefix=redis_prefix, timeout=PATIENT)
        yield redis
        await redis.close()


SEARCH_URL = os.environ.get("HEADGATE_TEST_REDIS_SEARCH_URL", "")

if SEARCH_URL:

    class TestRedisStoreWithAnIndex(RedisConformance):
        """Vectors lie in an index of RediSearch, on a server that has it and no vector sets."""

        @pytest.fixture
        async def redis(self, redis_prefix: str) -> AsyncIterator[Redis]:
            redis = Redis(SEARCH_URL, prefix=redis_prefix)
            assert await known(redis) is IN_INDEX
            yield redis
            await redis.close()
