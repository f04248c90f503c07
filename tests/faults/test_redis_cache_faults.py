"""The cache when its Redis dies, hangs, forgets or is full: it costs hits, never an answer, and nothing that was invalidated comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from headgate.cache.cache import Miss, Selection
from headgate.cache.redis import RedisStore
from headgate.cache.tiers import Cache
from headgate.cache.treatment import CachePolicy, Treatment
from headgate.model.errors import Overloaded
from headgate.storage.news import News
from headgate.storage.redis import Redis
from tests.conformance.test_cache_store import PARTITION, entry, found, key, vector
from tests.servers.redis import RedisServer

FAR = 4_000_000_000.0
"""Unix seconds: the server's own clock is used here."""
LONG = 30.0
"""Seconds after which a test gives up waiting."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    redis = Redis(server.url, timeout=0.2)
    yield redis
    await redis.close()


@pytest.fixture
async def store(redis: Redis) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(redis, News(redis))
    yield store
    await store.close()


async def put(store: RedisStore, name: str) -> bool:
    one = entry(name, near=vector(1), expires=FAR, semantic_until=FAR)
    return await store.put(one, epoch=store.epoch("acme"))


async def until_it_stands_in(store: RedisStore) -> None:
    """Some calls are refused before it is plain that Redis is not to be relied on."""
    async with asyncio.timeout(LONG):
        while True:
            try:
                await store.get(key("other"))
            except Overloaded:
                continue
            return


async def until_redis_is_back(store: RedisStore, redis: Redis) -> None:
    async with asyncio.timeout(LONG):
        while any(redis.faults.values()):
            await store.get(key("other"))
            await asyncio.sleep(0.01)


class TestRedisDies:
    async def test_answers_are_kept_in_the_process_meanwhile(self, store: RedisStore, server: RedisServer) -> None:
        assert await put(store, "before")
        server.kill()
        await until_it_stands_in(store)
        assert await store.get(key("before")) is None
        assert await put(store, "meanwhile")
        assert await store.get(key("meanwhile")) is not None
        assert await found(store, vector(1), partition=PARTITION) == ["meanwhile"]
        store.used(key("meanwhile"))

    async def test_what_was_kept_meanwhile_is_forgotten_when_it_is_back(
        self, store: RedisStore, redis: Redis, server: RedisServer
    ) -> None:
        """Nobody could tell this process of what was invalidated elsewhere."""
        server.kill()
        await until_it_stands_in(store)
        assert await put(store, "meanwhile")
        server.restart()
        await until_redis_is_back(store, redis)
        assert await store.get(key("meanwhile")) is None
        assert await put(store, "after")
        server.kill()
        await until_it_stands_in(store)
        assert await store.get(key("meanwhile")) is None

    async def test_what_was_asked_for_before_it_lost_its_memory_is_not_stored(
        self, store: RedisStore, redis: Redis, server: RedisServer
    ) -> None:
        await store.get(key("one"))
        before = store.epoch("acme")
        server.kill()
        server.restart()
        await until_redis_is_back(store, redis)
        assert not await store.put(entry("one", expires=FAR), epoch=before)
        assert await put(store, "one")

    async def test_an_invalidation_says_that_it_was_not_done(self, store: RedisStore, server: RedisServer) -> None:
        """It is done to what lies in the process all the same."""
        server.kill()
        await until_it_stands_in(store)
        assert await put(store, "meanwhile")
        with pytest.raises(Overloaded):
            await store.invalidate(Selection(tenant="acme"))
        assert await store.get(key("meanwhile")) is None

    async def test_a_store_can_be_opened_before_its_redis(self, redis: Redis, server: RedisServer) -> None:
        server.kill()
        store = await RedisStore.open(redis, News(redis))
        await until_it_stands_in(store)
        server.restart()
        await until_redis_is_back(store, redis)
        assert await put(store, "one")
        assert await found(store, vector(1)) == ["one"]
        await store.close()

    async def test_lookups_are_misses_and_are_counted(self, store: RedisStore, server: RedisServer) -> None:
        cache = Cache(store, None, None, CachePolicy())
        server.kill()
        assert await cache.lookup(key("one"), None, Treatment()) == Miss()
        assert cache.health["lookup"].failures == 1


class TestRedisHangs:
    async def test_nobody_waits_for_long(self, store: RedisStore, redis: Redis, server: RedisServer) -> None:
        assert await put(store, "one")
        server.stop_the_world()
        try:
            with pytest.raises(Overloaded):
                async with asyncio.timeout(LONG):
                    await store.get(key("one"))
            await until_it_stands_in(store)
            trips, began = redis.round_trips, time.monotonic()
            assert await put(store, "meanwhile")
            assert await store.get(key("meanwhile")) is not None
            assert redis.round_trips <= trips + 1 + (time.monotonic() - began) / 0.2
        finally:
            server.go_on()
        await until_redis_is_back(store, redis)
        assert await store.get(key("one")) is not None
        assert await store.get(key("meanwhile")) is None


class TestRedisIsFull:
    async def test_what_it_has_is_still_found_and_what_comes_is_kept_in_the_process(
        self, store: RedisStore, server: RedisServer
    ) -> None:
        assert await put(store, "one")
        server.command("CONFIG", "SET", "maxmemory", "1")
        assert await put(store, "two")
        assert await store.get(key("one")) is not None
        assert await store.get(key("two")) is not None
        assert await found(store, vector(1)) == ["one"]

    async def test_answers_are_stored_again_when_there_is_room(
        self, store: RedisStore, redis: Redis, server: RedisServer
    ) -> None:
        assert await put(store, "one")
        server.command("CONFIG", "SET", "maxmemory", "1")
        assert await put(store, "two")
        server.command("CONFIG", "SET", "maxmemory", "0")
        await until_redis_is_back(store, redis)
        assert await store.get(key("two")) is None
        assert await put(store, "two")
        assert sorted(await found(store, vector(1))) == ["one", "two"]

    async def test_an_invalidation_still_removes(self, store: RedisStore, server: RedisServer) -> None:
        """It can write down nothing, and says so; what is there goes from the process."""
        assert await put(store, "one")
        server.command("CONFIG", "SET", "maxmemory", "1")
        assert await put(store, "two")
        with pytest.raises(Overloaded):
            await store.invalidate(Selection(tenant="acme"))
        assert await store.get(key("two")) is None
