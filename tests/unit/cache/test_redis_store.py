"""What several processes may rely on that share a RedisStore: here each is a store with a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.cache.cache import Entry, Search, Selection
from headgate.cache.eviction import priority
from headgate.cache.redis import RedisStore
from headgate.cache.redis_rows import row
from headgate.cache.redis_shelf import PORTION
from headgate.cache.redis_vectors import IN_SETS
from headgate.model.tenancy import Namespace
from headgate.storage.news import News
from headgate.storage.redis import Redis
from tests.conformance.test_cache_store import ANSWER, HOME, PARTITION, Clock, entry, found, key, put, unseen, vector
from tests.servers.redis import PATIENT, RedisServer

Process = Callable[..., Awaitable[RedisStore]]
OWN = "headgate:{t/acme}:cache"


@asynccontextmanager
async def processes(url: str, prefix: str = "headgate") -> AsyncIterator[Process]:
    """Makes processes; with `news=True` one that hears the others."""
    async with AsyncExitStack() as stack:

        async def process(*, news: bool = False, **bounds: Any) -> RedisStore:
            redis = Redis(url, prefix=prefix, timeout=PATIENT)
            stack.push_async_callback(redis.close)
            told = News(redis)
            store = await RedisStore.open(redis, told, **{"clock": Clock(), **bounds})
            stack.push_async_callback(store.close)
            stack.push_async_callback(told.close)
            if news:
                begun = asyncio.Event()
                told.on_begun(begun.set)
                listening = asyncio.create_task(told.run())
                stack.push_async_callback(ended, listening)
                async with asyncio.timeout(10):
                    await begun.wait()
            return store

        yield process


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def until(holds: Callable[[], bool]) -> None:
    """News take a moment."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


@pytest.fixture
async def process(redis_url: str) -> AsyncIterator[Process]:
    async with processes(redis_url) as made:
        yield made


class TestSeveralProcesses:
    async def test_what_one_stores_another_finds(self, process: Process) -> None:
        one, other = await process(), await process()
        await put(one, entry("one", near=vector(1)))
        assert await other.get(key("one")) == unseen(entry("one", near=vector(1)))
        assert await found(other, vector(1)) == ["one"]

    async def test_what_one_invalidates_no_other_finds(self, process: Process) -> None:
        one, other = await process(), await process()
        await put(one, entry("one", near=vector(1)))
        assert await other.get(key("one")) is not None
        assert await one.invalidate(Selection(tenant="acme")) == 1
        assert await other.get(key("one")) is None
        assert await found(other, vector(1)) == []

    async def test_an_answer_asked_for_before_an_invalidation_elsewhere_is_not_stored(self, process: Process) -> None:
        """Also by a process that has not heard of it."""
        one, other = await process(), await process()
        before = one.epoch("acme")
        await other.invalidate(Selection(tenant="acme", tags=("a",)))
        assert one.epoch("acme") == before
        assert not await one.put(entry("one"), epoch=before)
        assert await one.put(entry("two", tags=("b",)), epoch=before)
        assert await one.put(entry("one"), epoch=one.epoch("acme"))

    async def test_an_invalidation_is_heard_by_all(self, process: Process) -> None:
        """So that who comes after it joins no flight that began before."""
        one, other = await process(), await process(news=True)
        told: list[str] = []
        other.watch(told.append)
        await one.invalidate(Selection(tenant="acme", tags=("a",)))
        await until(lambda: other.epoch("acme") == one.epoch("acme"))
        assert one.epoch("acme") > 0
        assert told == ["acme"]

    async def test_who_looks_learns_of_invalidations_too(self, process: Process) -> None:
        one, other = await process(), await process()
        await one.invalidate(Selection(tenant="acme"))
        await other.get(key("one"))
        assert other.epoch("acme") == one.epoch("acme") > 0

    async def test_who_begins_to_listen_asks_what_it_has_missed(self, process: Process) -> None:
        one, other = await process(), await process()
        await other.get(key("one"))
        await one.invalidate(Selection(tenant="acme"))
        other._begun()
        await other.settled()
        assert other.epoch("acme") == one.epoch("acme")

    async def test_sizes_are_known_of_tenants_that_others_fill(self, process: Process) -> None:
        one, other = await process(), await process()
        await put(one, entry("one", near=vector(1)))
        await put(one, entry("one", Namespace("beta")))
        await one.settled()
        assert other.size() == 0
        await other.refresh()
        assert (other.size(), other.size("acme"), other.size("beta")) == (2, 1, 1)
        assert other.weight() == one.weight()

    async def test_news_that_cannot_be_read_are_passed_over(self, process: Process, redis_url: str) -> None:
        one = await process(news=True)
        redis = Redis(redis_url, timeout=PATIENT)
        stranger = News(redis)
        stranger.tell("invalidated", b"\xff")
        await stranger.close()
        await redis.close()
        other = await process()
        await other.invalidate(Selection(tenant="acme"))
        await until(lambda: one.epoch("acme") > 0)


class TestRoundTrips:
    async def test_a_hit_and_a_lookup_take_one_each(self, process: Process) -> None:
        store = await process()
        await put(store, entry("one", near=vector(1)))
        search = Search(PARTITION, vector(1), 8)
        for name in ("one", "other"):
            await store.look(key(name), search)
            before = store._redis.round_trips
            await store.look(key(name), search)
            assert store._redis.round_trips == before + 1


class TestSimilarity:
    async def test_it_is_that_of_the_whole_vectors_but_for_what_rounding_takes(self, process: Process) -> None:
        drawn = np.random.default_rng(1).standard_normal((200, 384)).astype(np.float32)
        drawn[1:] = drawn[0] + drawn[1:] * np.linspace(0.01, 1.5, 199, dtype=np.float32)[:, None]
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        store = await process()
        for number in range(1, 200):
            await put(store, entry(str(number), near=drawn[number]))
        near = await store.nearest(HOME, PARTITION, drawn[0], 50)
        assert len(near) == 50
        for one in near:
            assert one.similarity == pytest.approx(float(drawn[0] @ drawn[int(one.entry.id)]), abs=0.002)


class TestWhatRedisLoses:
    async def test_what_was_in_flight_when_all_was_lost_is_not_stored(
        self, process: Process, redis_server: RedisServer
    ) -> None:
        """Nobody knows any more what was invalidated since it was asked for."""
        one, other = await process(), await process()
        for store in (one, other):
            await store.get(key("one"))
        before = one.epoch("acme")
        await other.invalidate(Selection(tenant="acme", tags=("a",)))
        redis_server.command("FLUSHALL")
        assert not await one.put(entry("one"), epoch=before)
        assert await one.put(entry("one"), epoch=one.epoch("acme"))
        assert await other.get(key("one")) is not None
        assert other.epoch("acme") == one.epoch("acme") > before

    async def test_a_stranger_that_was_cut_off_stores_nothing_it_asked_for_before(
        self, process: Process, redis_server: RedisServer
    ) -> None:
        one, other = await process(), await process()
        one._begun()
        before = one.epoch("acme")
        await other.invalidate(Selection(tenant="acme"))
        redis_server.command("FLUSHALL")
        one._begun()
        await one.settled()
        assert not await one.put(entry("one"), epoch=before)
        assert await one.put(entry("one"), epoch=one.epoch("acme"))

    async def test_late_news_of_a_memory_that_is_gone_keep_nobody_from_storing(
        self, process: Process, redis_server: RedisServer
    ) -> None:
        one, other = await process(), await process()
        await other.invalidate(Selection(tenant="acme"))
        number = other.epoch("acme")
        redis_server.command("FLUSHALL")
        await one.get(key("one"))
        one._estates.hear("acme", number)
        assert not await one.put(entry("one"), epoch=number)
        assert await one.put(entry("one"), epoch=one.epoch("acme"))

    @pytest.mark.parametrize("lost", ["heads", "ranks", "ends", ""])
    async def test_a_part_that_was_evicted_takes_the_rest_along(
        self, process: Process, redis_server: RedisServer, lost: str
    ) -> None:
        store = await process()
        for name in ("one", "two"):
            await put(store, entry(name, near=vector(1)))
        redis_server.command("DEL", f"{OWN}:{lost}" if lost else OWN)
        assert await store.get(key("one")) is None
        assert await found(store, vector(1)) == []
        assert (store.size(), store.weight()) == (0, 0)
        await put(store, entry("three", near=vector(1)))
        assert await found(store, vector(1)) == ["three"]
        assert store.size() == 1

    async def test_an_answer_that_was_evicted_is_found_by_nobody(
        self, process: Process, redis_server: RedisServer
    ) -> None:
        store = await process()
        for name, near in (("one", vector(1)), ("two", vector(1)), ("three", vector(1, 1))):
            await put(store, entry(name, near=near))
        await evict(redis_server, entry("one", near=vector(1)))
        assert await store.get(key("one")) is None
        assert store.size() == 2
        await evict(redis_server, entry("two", near=vector(1)))
        assert await found(store, vector(1), count=1) == ["three"]
        assert store.size() == 1

    async def test_vectors_that_were_evicted_leave_exact_answers(
        self, process: Process, redis_server: RedisServer
    ) -> None:
        store = await process()
        await put(store, entry("one", near=vector(1)))
        await redis_do(redis_server, "DEL", *await redis_do(redis_server, "KEYS", f"{OWN}:near:*"))
        assert await found(store, vector(1)) == []
        assert await store.get(key("one")) is not None
        assert await store.invalidate(Selection(tenant="acme")) == 1

    async def test_a_vector_without_an_entry_is_never_found_and_goes(
        self, process: Process, redis_server: RedisServer
    ) -> None:
        store = await process()
        await put(store, entry("one", near=vector(1, 1)))
        (place,) = await redis_do(redis_server, "KEYS", f"{OWN}:near:*")
        await redis_do(redis_server, "VADD", place, "FP32", vector(1).tobytes(), "nobody", "Q8")
        assert await found(store, vector(1), count=1) == ["one"]
        assert await redis_do(redis_server, "VCARD", place) == 1


async def redis_do(server: RedisServer, *words: Any) -> Any:
    redis = Redis(server.url)
    try:
        return await redis.do(*words)
    finally:
        await redis.close()


async def evict(server: RedisServer, one: Entry) -> None:
    """What Redis does to an answer when it lacks memory."""
    laid = row(one, heavier=IN_SETS.heavier, stale_for=0.0, now=0.0)
    assert await redis_do(server, "DEL", f"{OWN}:body:".encode() + laid.name) == 1


class TestKeeping:
    async def test_nothing_of_a_tenant_stays_for_ever(self, process: Process, redis_server: RedisServer) -> None:
        """Not even of one that nobody ever asks for again."""
        store = await process()
        await put(store, entry("one", near=vector(1)))
        await store.get(key("one"))
        await store.invalidate(Selection(tenant="acme", tags=("other",)))
        keys = await redis_do(redis_server, "KEYS", f"{OWN}*")
        assert len(keys) == 9
        assert all([await redis_do(redis_server, "PTTL", one) > 0 for one in keys])

    async def test_when_all_has_gone_little_is_left(self, process: Process, redis_server: RedisServer) -> None:
        clock = Clock()
        store = await process(clock=clock)
        for number in range(200):
            await put(store, entry(str(number), near=vector(1, number), expires=1_010.0))
        await store.settled()
        clock.time = 1_010.0
        await store.refresh()
        assert (store.size(), store.weight()) == (0, 0)
        assert await redis_do(redis_server, "KEYS", f"{OWN}*") == [OWN.encode()]
        clock.time = 5_000.0
        await store.refresh()
        assert await redis_do(redis_server, "EXISTS", "headgate:{cache}:tenants") == 0

    async def test_a_large_one_that_many_have_to_go_for_is_kept(self, process: Process) -> None:
        """More than go in one call."""
        store = await process(bytes_per_tenant=800_000)
        for start in range(0, 1_200, 100):
            await asyncio.gather(*(put(store, entry(str(start + number), answer=b"")) for number in range(100)))
        gone = store.evictions()
        assert gone > 0
        await put(store, entry("dear", answer=b"x" * 45_000, worth=1_000_000))
        assert await store.get(key("dear")) is not None
        assert store.weight() <= 800_000
        assert store.evictions() > gone + 50

    async def test_priorities_are_those_of_the_store_in_process(
        self, process: Process, redis_server: RedisServer
    ) -> None:
        store = await process()
        one = entry("one", near=vector(1), worth=5_000)
        await put(store, one)
        laid = row(one, heavier=IN_SETS.heavier, stale_for=0.0, now=0.0)
        for uses in (1, 2, 3):
            ((_, score),) = await redis_do(redis_server, "ZRANGE", f"{OWN}:ranks", 0, -1, "WITHSCORES")
            assert score == pytest.approx(priority(0.0, uses, one.worth, laid.weight))
            await store.get(one.key)

    async def test_many_are_invalidated_and_shown_in_portions(self, process: Process) -> None:
        store = await process()
        many = 2 * PORTION + 50
        for number in range(many):
            await put(store, entry(str(number), tags=("even",) if number % 2 == 0 else ("odd",)))
        shown = await store.selected(Selection(tenant="acme", tags=("even",)), skip=3, count=4)
        assert [one.id for one in shown] == [str(many - 2 * number) for number in (4, 5, 6, 7)]
        assert await store.invalidate(Selection(tenant="acme", tags=("even",))) == many // 2
        assert store.size() == many // 2
        assert await store.get(key("1")) is not None

    async def test_what_replaced_an_invalidated_entry_meanwhile_stays(self, process: Process) -> None:
        store = await process()
        await put(store, entry("one", id="old"))
        old = await store._shelf.called("acme", "old")
        await put(store, entry("one", id="new"))
        assert await store._shelf.remove("acme", old) == 0
        held = await store.get(key("one"))
        assert held is not None
        assert held.id == "new"

    async def test_an_answer_of_megabytes_comes_back_whole(self, process: Process) -> None:
        store = await process()
        await put(store, entry("one", answer=ANSWER * 50_000))
        held = await store.get(key("one"))
        assert held is not None
        assert held.answer == ANSWER * 50_000


class TestWithoutVectorSets:
    @pytest.fixture
    async def process(self, redis7_server: RedisServer, redis_prefix: str) -> AsyncIterator[Process]:
        async with processes(redis7_server.url, redis_prefix) as made:
            yield made

    async def test_it_is_said_once_at_the_start(self, process: Process, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            store = await process()
            await put(store, entry("one", near=vector(1)))
        assert [one for one in caplog.messages if "no vector sets" in one] == caplog.messages

    async def test_exact_answers_are_shared_and_those_found_by_their_meaning_are_not(self, process: Process) -> None:
        one, other = await process(), await process()
        await put(one, entry("one", near=vector(1)))
        assert await other.get(key("one")) is not None
        assert await found(one, vector(1)) == ["one"]
        assert await found(other, vector(1)) == []

    async def test_what_another_invalidates_goes_from_here(self, process: Process) -> None:
        one, other = await process(news=True), await process()
        await put(one, entry("one", near=vector(1)))
        await put(one, entry("two", near=vector(1), tags=("b",)))
        await other.invalidate(Selection(tenant="acme", tags=("a",)))
        await until(lambda: one.epoch("acme") > 0)
        await one.settled()
        assert await found(one, vector(1)) == ["two"]

    async def test_who_was_cut_off_compares_with_nothing_older(self, process: Process) -> None:
        one = await process()
        await put(one, entry("one", near=vector(1)))
        one._begun()
        await one.settled()
        assert await found(one, vector(1)) == []
        assert await one.get(key("one")) is not None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 1), st.integers(0, 1)),
        st.tuples(st.just("store"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("invalidate"), st.integers(0, 1), st.integers(0, 1)),
        st.tuples(st.just("lose"), st.sampled_from([0, 1]), st.sampled_from([0, 1, 2])),
    ),
    min_size=4,
    max_size=25,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_answer_is_found_that_was_asked_for_before_its_invalidation(redis_server: RedisServer, steps: Any) -> None:
    """However two processes take turns, and whatever Redis loses in between."""
    redis_server.command("FLUSHALL")
    asyncio.run(played(redis_server, steps))


async def played(server: RedisServer, steps: list[tuple[str, int, int]]) -> None:
    async with processes(server.url) as process:
        stores = [await process(), await process()]
        asked: list[tuple[RedisStore, Entry, int]] = []
        over: set[str] = set()
        for number, (what, which, tag) in enumerate(steps):
            if what == "ask":
                store = stores[which]
                epoch = store.epoch("acme")
                await store.get(key(str(number)))
                asked.append((store, entry(str(number), tags=(str(tag),), near=vector(1, number)), epoch))
            elif what == "store" and asked:
                store, answer, epoch = asked.pop(which % len(asked))
                if await store.put(answer, epoch=epoch):
                    assert answer.id not in over
            elif what == "invalidate":
                await stores[which].invalidate(Selection(tenant="acme", tags=(str(tag),)))
                over |= {str(at) for at, step in enumerate(steps[:number]) if step[0] == "ask" and step[2] == tag}
            elif what == "lose":
                part = ["", ":heads", ":ranks"][tag]
                server.command(*(["FLUSHALL"] if which else ["DEL", OWN + part]))
            for store in stores:
                held = {one.id for one in await store.selected(Selection(tenant="acme"))}
                assert held.isdisjoint(over)
                assert set(await found(store, vector(1), count=50)) <= held
