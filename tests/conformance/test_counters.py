"""What every Counters must do. An adapter joins by adding its harness to `HARNESSES`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from headgate.limits.limits import Counters, Taken
from headgate.limits.memory import MemoryCounters
from headgate.limits.redis import RedisCounters
from headgate.storage.redis import Redis
from tests.servers.redis import PATIENT


class MemoryHarness:
    """The reference, with a clock that only the test moves."""

    def __init__(self) -> None:
        self._now = 10**15
        self.counters: Counters = MemoryCounters(clock=lambda: self._now)

    @classmethod
    async def open(cls, request: pytest.FixtureRequest, stack: AsyncExitStack) -> MemoryHarness:
        return cls()

    async def advance(self, seconds: float) -> None:
        """Let time pass; whole microseconds, rounded up as a sleeper would."""
        self._now += -int(-seconds * 1e6 // 1)


class RedisHarness(MemoryHarness):
    """One server, asked with the same clock."""

    server, cluster = "redis_server", False

    @classmethod
    async def open(cls, request: pytest.FixtureRequest, stack: AsyncExitStack) -> MemoryHarness:
        server, prefix = request.getfixturevalue(cls.server), request.getfixturevalue("redis_prefix")
        harness = cls()
        redis = Redis(server.url, cluster=cls.cluster, prefix=prefix, timeout=PATIENT)
        stack.push_async_callback(redis.close)
        harness.counters = await stack.enter_async_context(RedisCounters(redis, clock=lambda: harness._now))
        return harness


class Redis7Harness(RedisHarness):
    """A server without vector sets."""

    server = "redis7_server"


class ClusterHarness(RedisHarness):
    """Three masters."""

    server, cluster = "redis_cluster", True


class LonelyHarness(RedisHarness):
    """A Redis that is away: what stands in for it is the same, for one process."""

    @classmethod
    async def open(cls, request: pytest.FixtureRequest, stack: AsyncExitStack) -> MemoryHarness:
        harness = cls()
        redis = Redis("redis://127.0.0.1:1")
        stack.push_async_callback(redis.close)
        harness.counters = await stack.enter_async_context(RedisCounters(redis, clock=lambda: harness._now))
        return harness


HARNESSES = [MemoryHarness, RedisHarness, Redis7Harness, ClusterHarness, LonelyHarness]


@pytest.fixture(params=HARNESSES, ids=lambda harness: harness.__name__)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[MemoryHarness]:
    async with AsyncExitStack() as stack:
        yield await request.param.open(request, stack)


async def take(harness, key: str, limit: int, cost: int = 1, places: int = 10_000) -> Taken:
    return await harness.counters.take(key, places=places, limit=limit, per_seconds=60, cost=cost)


async def test_the_whole_limit_fits_at_once_and_not_one_more(harness) -> None:
    taken = [await take(harness, "a", 7) for _ in range(8)]
    assert [one.allowed for one in taken] == [True] * 7 + [False]
    assert [one.remaining for one in taken] == [6, 5, 4, 3, 2, 1, 0, 0]


async def test_waiting_retry_after_is_enough_and_less_is_not(harness) -> None:
    for _ in range(120):
        await take(harness, "a", 120)
    refused = await take(harness, "a", 120)
    assert refused.retry_after == pytest.approx(0.5, abs=0.05)
    await harness.advance(refused.retry_after * 0.9)
    assert not (await take(harness, "a", 120)).allowed
    await harness.advance(refused.retry_after * 0.1)
    assert (await take(harness, "a", 120)).allowed
    assert not (await take(harness, "a", 120)).allowed


async def test_after_reset_the_whole_limit_fits_again(harness) -> None:
    for _ in range(3):
        last = await take(harness, "a", 3)
    assert last.reset == pytest.approx(60, abs=0.1)
    await harness.advance(last.reset)
    assert [(await take(harness, "a", 3)).allowed for _ in range(4)] == [True, True, True, False]


async def test_keys_do_not_touch_each_other(harness) -> None:
    assert (await take(harness, "a", 1, places=1)).allowed
    assert (await take(harness, "b", 1, places=1)).allowed
    assert not (await take(harness, "a", 1)).allowed


async def test_a_refused_take_changes_nothing(harness) -> None:
    await take(harness, "a", 1)
    waits = [(await take(harness, "a", 1)).retry_after for _ in range(5)]
    assert waits[0] == pytest.approx(waits[-1], abs=0.1)


async def test_a_cost_takes_so_many_at_once_or_none(harness) -> None:
    assert (await take(harness, "a", 10, cost=8)).remaining == 2
    assert not (await take(harness, "a", 10, cost=3)).allowed
    assert (await take(harness, "a", 10, cost=2)).allowed


async def test_a_cost_above_the_limit_is_never_allowed(harness) -> None:
    refused = await take(harness, "a", 10, cost=11)
    assert not refused.allowed
    assert (await take(harness, "a", 10, cost=10)).allowed


async def test_a_limit_of_nothing_allows_nothing(harness) -> None:
    refused = await take(harness, "a", 0)
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert refused.retry_after > 0


async def test_a_changed_limit_counts_from_the_next_take(harness) -> None:
    for _ in range(10):
        await take(harness, "a", 10)
    assert not (await take(harness, "a", 5)).allowed
    await harness.advance(60)
    assert [(await take(harness, "a", 5)).allowed for _ in range(6)] == [True] * 5 + [False]


async def test_takes_at_the_same_time_never_pass_the_limit_together(harness) -> None:
    taken = await asyncio.gather(*(take(harness, "a", 50) for _ in range(200)))
    assert sum(one.allowed for one in taken) == 50


async def test_a_clock_that_is_set_back_takes_nothing_from_anybody(harness) -> None:
    await take(harness, "a", 60)
    await harness.advance(-7 * 86_400)
    assert (await take(harness, "a", 60, cost=0)).reset <= 60
    await harness.advance(60)
    assert (await take(harness, "a", 60, cost=60)).allowed


async def test_a_place_is_free_again_when_it_is_left(harness) -> None:
    first, second = [await take(harness, "a", 100, places=2) for _ in range(2)]
    refused = await take(harness, "a", 100, places=2)
    assert (refused.allowed, refused.busy) == (False, True)
    harness.counters.leave("a", first.place)
    assert (await take(harness, "a", 100, places=2)).allowed
    assert second.place != first.place


async def test_leaving_twice_frees_one_place(harness) -> None:
    first, _second = [await take(harness, "a", 100, places=2) for _ in range(2)]
    harness.counters.leave("a", first.place)
    harness.counters.leave("a", first.place)
    harness.counters.leave("a", "nobody's")
    assert [(await take(harness, "a", 100, places=2)).allowed for _ in range(2)] == [True, False]


async def test_who_is_refused_a_place_takes_nothing_of_the_rate(harness) -> None:
    first = await take(harness, "a", 3, places=1)
    for _ in range(5):
        assert (await take(harness, "a", 3, places=1)).remaining == 2
    harness.counters.leave("a", first.place)
    assert (await take(harness, "a", 3, places=1)).remaining == 1


async def test_who_is_refused_by_the_rate_takes_no_place(harness) -> None:
    assert (await take(harness, "a", 1, places=2)).allowed
    for _ in range(5):
        refused = await take(harness, "a", 1, places=2)
        assert (refused.allowed, refused.busy, refused.place) == (False, False, "")
    await harness.advance(60)
    assert (await take(harness, "a", 1, places=2)).allowed
    assert harness.counters.running("a") == 2


async def test_no_places_admit_nobody(harness) -> None:
    assert (await take(harness, "a", 10, places=0)).busy
    assert harness.counters.running("a") == 0


async def test_takes_at_the_same_time_never_share_a_place(harness) -> None:
    taken = await asyncio.gather(*(take(harness, "a", 1_000, places=7) for _ in range(50)))
    assert sum(one.allowed for one in taken) == 7
    assert len({one.place for one in taken if one.allowed}) == 7
    assert harness.counters.running("a") == 7


async def test_who_leaves_while_it_waits_has_no_place(harness) -> None:
    waiting = asyncio.ensure_future(take(harness, "a", 100, places=1))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(10):
        while (taken := await take(harness, "a", 100, places=1)).busy:
            if not waiting.cancelled():
                harness.counters.leave("a", waiting.result().place)
    assert taken.allowed
