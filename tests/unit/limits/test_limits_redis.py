"""Rates and places that several processes share, and what each of them does while Redis is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from headgate.limits.limits import Limits, Taken
from headgate.limits.memory import MemoryCounters
from headgate.limits.redis import RedisCounters
from headgate.model.errors import RateLimited
from headgate.model.tenancy import Policy, Principal
from headgate.storage.redis import Redis
from tests.servers.redis import PATIENT, RedisServer
from tests.waiting import until

CALLER = Principal(tenant="acme", policy=Policy(rpm=1_000, concurrency=2))


class Replicas:
    """Several processes' counters before one server, each with a connection of its own."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def one(
        self, url: str, *, every: float = 3_600.0, lease: float = 30.0, timeout: float = PATIENT
    ) -> RedisCounters:
        redis = Redis(url, timeout=timeout)
        self._stack.push_async_callback(redis.close)
        return await self._stack.enter_async_context(RedisCounters(redis, every=every, lease=lease))


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        yield Replicas(stack)


async def take(counters: RedisCounters, *, places: int = 1_000, limit: int = 1_000) -> Taken:
    return await counters.take("acme", places=places, limit=limit, per_seconds=60)


async def test_two_processes_share_one_rate(redis_url, replicas) -> None:
    doors = [await replicas.one(redis_url) for _ in range(2)]
    taken = await asyncio.gather(*(take(doors[number % 2], limit=10) for number in range(40)))
    assert sum(one.allowed for one in taken) == 10


async def test_two_processes_share_one_set_of_places(redis_url, replicas) -> None:
    doors = [Limits(await replicas.one(redis_url)) for _ in range(2)]
    permits = [await door.admit(CALLER) for door in doors]
    for door in doors:
        with pytest.raises(RateLimited, match="same time: the limit is 2"):
            await door.admit(CALLER)
    permits[0].release()
    await until(lambda: admitted(doors[1]))
    assert (doors[0].running("acme"), doors[1].running("acme")) == (0, 2)


async def admitted(door: Limits) -> bool:
    try:
        await door.admit(CALLER)
    except RateLimited:
        return False
    return True


async def test_the_places_of_a_process_that_died_are_free_after_their_lease(redis_url, replicas) -> None:
    dead, alive = await replicas.one(redis_url, lease=0.2), await replicas.one(redis_url)
    assert (await take(dead, places=1)).allowed
    assert (await take(alive, places=1)).busy

    async def free() -> bool:
        return (await take(alive, places=1)).allowed

    await until(free)


async def test_the_places_of_running_calls_outlive_their_lease(redis_server, redis_url, replicas) -> None:
    mine, other = await replicas.one(redis_url, lease=0.5, every=0.05), await replicas.one(redis_url)
    await take(mine, places=1)
    first = float(redis_server.command("ZRANGE", "headgate:{t/acme}:places", 0, -1, "WITHSCORES").splitlines()[1])

    async def renewed() -> bool:
        ends = redis_server.command("ZRANGE", "headgate:{t/acme}:places", 0, -1, "WITHSCORES").splitlines()
        return float(ends[1]) > first + 1_000_000

    await until(renewed)
    assert (await take(other, places=1)).busy


async def test_a_round_renews_all_places_of_a_tenant_with_one_command(redis_url, replicas) -> None:
    counters = await replicas.one(redis_url)
    redis = Redis(redis_url, timeout=PATIENT)
    for _ in range(50):
        await take(counters)
    before = await evaluations(redis)
    await counters.renew()
    assert await evaluations(redis) == before + 1
    await redis.close()


async def evaluations(redis: Redis) -> int:
    """How many scripts the server has run."""
    stats = (await redis.do("INFO", "commandstats")).decode().splitlines()
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in stats if line.startswith("cmdstat_eval"))


async def test_a_process_that_ends_in_order_gives_its_places_back_at_once(redis_url) -> None:
    redis = Redis(redis_url, timeout=PATIENT)
    async with RedisCounters(redis) as counters:
        await asyncio.gather(*(take(counters) for _ in range(5)))
        assert await redis.do("ZCARD", "headgate:{t/acme}:places") == 5
    assert await redis.do("EXISTS", "headgate:{t/acme}:places") == 0
    await redis.close()


async def test_a_caller_that_goes_away_while_redis_is_asked_leaves_no_place_behind(redis_url, replicas) -> None:
    counters, redis = await replicas.one(redis_url), Redis(redis_url, timeout=PATIENT)
    for _ in range(20):
        waiting = asyncio.ensure_future(take(counters))
        await asyncio.sleep(0)
        waiting.cancel()
    assert counters.running("acme") == 0

    async def none_left() -> bool:
        return await redis.do("EXISTS", "headgate:{t/acme}:places") == 0

    await until(none_left)
    await redis.close()


async def test_a_take_that_is_sent_twice_is_taken_once(redis_url) -> None:
    """A connection that breaks while its answer is on its way makes the client send the script again."""
    redis = Redis(redis_url, timeout=PATIENT)
    twice = [RedisCounters(redis, process="one", clock=lambda: 10**15) for _ in range(2)]
    first, again = [await take(counters, limit=10) for counters in twice]
    assert (first.remaining, again.remaining) == (9, 9)
    assert first.place == again.place
    await redis.close()


async def test_what_is_left_lies_in_keys_that_end(redis_server, redis_url, replicas) -> None:
    counters = await replicas.one(redis_url)
    await take(counters, limit=60)
    assert 0 < int(redis_server.command("PTTL", "headgate:{t/acme}:rate")) <= 2_100
    assert 0 < int(redis_server.command("PTTL", "headgate:{t/acme}:places")) <= 30_000


async def test_without_redis_each_process_admits_what_one_may(replicas, caplog) -> None:
    doors = [Limits(await replicas.one("redis://127.0.0.1:1")) for _ in range(2)]
    policy = Policy(rpm=5, concurrency=100)
    admitted = 0
    for door in doors:
        for _ in range(20):
            try:
                await door.admit(Principal(tenant="acme", policy=policy))
                admitted += 1
            except RateLimited:
                continue
    assert admitted == 10
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2, "one line for each process"


async def test_what_stands_in_knows_what_this_process_has_admitted(replicas) -> None:
    with RedisServer() as server:
        counters = await replicas.one(server.url)
        taken = [await take(counters, places=3, limit=10) for _ in range(2)]
        server.kill()
        alone = await take(counters, places=3, limit=10)
        assert (alone.allowed, alone.remaining) == (True, 7)
        assert (await take(counters, places=3, limit=10)).busy
        counters.leave("acme", taken[0].place)
        assert (await take(counters, places=3, limit=10)).allowed
        await asyncio.to_thread(server.restart)


async def test_a_redis_that_is_back_is_told_of_the_places_that_were_taken_without_it(replicas, caplog) -> None:
    with RedisServer() as server:
        mine, other = await replicas.one(server.url), await replicas.one(server.url)
        held = [await take(mine) for _ in range(2)]
        server.kill()
        held += [await take(mine) for _ in range(3)]
        assert all(one.allowed for one in held)
        await asyncio.to_thread(server.restart)

        async def told() -> bool:
            await take(mine, places=0)
            return (await take(other, places=5)).busy

        await until(told)
        said = [record.getMessage() for record in caplog.records if record.name == "headgate.storage.footing"]
        assert len(said) == len(set(said)) <= 4, "one line for each change"


async def test_a_redis_that_forgot_everything_learns_the_places_in_the_next_round(
    redis_server, redis_url, replicas
) -> None:
    mine, other = await replicas.one(redis_url, every=0.05), await replicas.one(redis_url)
    assert (await take(mine, places=1)).allowed
    redis_server.command("FLUSHALL")

    async def known_again() -> bool:
        return redis_server.command("ZCARD", "headgate:{t/acme}:places") == "1"

    await until(known_again)
    assert (await take(other, places=1)).busy


@pytest.mark.parametrize("limit", [1, 7, 60, 999, 600_000])
async def test_it_answers_as_the_counters_of_one_process_do(limit, redis_url) -> None:
    """The same moves, by the same clock: advance, take, leave, with costs and places that vary."""
    redis, now = Redis(redis_url, timeout=PATIENT), [1_700_000_000_000_000]
    here = MemoryCounters(clock=lambda: now[0])
    async with RedisCounters(redis, clock=lambda: now[0], lease=3_600) as there:
        held: list[tuple[str, str]] = []
        for step in range(300):
            now[0] += (step * 7_919_003) % (120_000_000 // limit + 1)
            places, cost = 1 + step % 9, 1 + step % 3
            one = await here.take("acme", places=places, limit=limit, per_seconds=60, cost=cost)
            other = await there.take("acme", places=places, limit=limit, per_seconds=60, cost=cost)
            assert told(one) == told(other)
            if one.allowed:
                held.append((one.place, other.place))
            if step % 2 and held:
                place, same = held.pop(step % len(held))
                here.leave("acme", place)
                there.leave("acme", same)
    await redis.close()


def told(taken: Taken) -> tuple[bool, int, float, float, bool]:
    return taken.allowed, taken.remaining, taken.reset, taken.retry_after, taken.busy
