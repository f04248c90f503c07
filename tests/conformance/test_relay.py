"""What every Relay must do. An adapter joins by adding its harness to `HARNESSES`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headgate.coalesce.memory import Board, MemoryRelay
from headgate.coalesce.redis import RedisRelay
from headgate.coalesce.relay import LEASE, TTL, Log, Relay
from headgate.storage.redis import Redis
from tests.servers.redis import PATIENT

PATIENCE = 10.0


class MemoryHarness:
    """The reference, with a clock that only the test moves."""

    subscribes = False

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._now = 1_000.0
        self._board = Board(lambda: self._now)

    def replica(self, name: str) -> Relay:
        """What one replica sees."""
        return MemoryRelay(self._board, name)

    async def silence(self, log: Log) -> None:
        """Nothing is heard of the log's leader for longer than it may be silent."""
        self._now += TTL + 0.001

    async def lapse(self, log: Log) -> None:
        """Nothing is heard of the log's followers for longer than they may be silent."""
        self._now += LEASE + 0.001

    async def close(self) -> None:
        return None


class RedisHarness:
    """One server; time passes by shortening what is left of it."""

    subscribes = True
    cluster = False

    def __init__(self, request: pytest.FixtureRequest) -> None:
        server = request.getfixturevalue("redis_cluster" if self.cluster else "redis_server")
        self._url, self._prefix = server.url, request.getfixturevalue("redis_prefix")
        self._opened: list[Redis] = []
        self._redis = self._open()

    def _open(self) -> Redis:
        redis = Redis(self._url, cluster=self.cluster, prefix=self._prefix, timeout=PATIENT)
        self._opened.append(redis)
        return redis

    def replica(self, name: str) -> Relay:
        return RedisRelay(self._open(), name)

    async def silence(self, log: Log) -> None:
        key = self._redis.key(f"t/{log.tenant}", "flight", log.place)
        for one in (key, f"{key}:{log.name}"):
            await self._redis.do("DEL", one)

    async def lapse(self, log: Log) -> None:
        key = self._redis.key(f"t/{log.tenant}", "flight", log.place, log.name, "readers")
        for reader in await self._redis.do("ZRANGE", key, 0, -1):
            await self._redis.do("ZADD", key, 1, reader)

    async def close(self) -> None:
        for redis in self._opened:
            await redis.close()


class ClusterHarness(RedisHarness):
    """Three masters."""

    cluster = True


HARNESSES = [MemoryHarness, RedisHarness, ClusterHarness]


class Two:
    """Two replicas and what they were woken for."""

    def __init__(self, harness: Any) -> None:
        self.harness = harness
        self.one: Relay = harness.replica("one")
        self.two: Relay = harness.replica("two")

    async def both(self, tenant: str = "acme", place: str = "p") -> tuple[Log, Log]:
        """The log that the first leads and the second follows."""
        return await self.one.join(tenant, place), await self.two.join(tenant, place)


@pytest.fixture(params=HARNESSES, ids=lambda harness: harness.__name__)
async def replicas(request: pytest.FixtureRequest) -> AsyncIterator[Two]:
    harness = request.param(request)
    two = Two(harness)
    yield two
    await two.one.close()
    await two.two.close()
    await harness.close()


async def woken(replicas: Two, relay: Relay, place: str = "p") -> asyncio.Event:
    """An event that happens when the relay wakes who hears of this place. Where it has a subscription that has begun."""
    heard = asyncio.Event()
    relay.hear(place, heard.set)
    await relay.join("nobody", place)
    if replicas.harness.subscribes:  # the beginning wakes, too
        await asyncio.wait_for(heard.wait(), PATIENCE)
    heard.clear()
    return heard


async def test_who_asks_first_leads_and_the_others_follow_its_log(replicas: Two) -> None:
    ours, theirs = await replicas.both()
    assert (ours.leads, theirs.leads) == (True, False)
    assert theirs.name == ours.name


async def test_each_place_and_each_tenant_has_its_own_leader(replicas: Two) -> None:
    await replicas.both()
    assert (await replicas.two.join("acme", "q")).leads
    assert (await replicas.two.join("bolt", "p")).leads


async def test_of_any_number_who_ask_at_once_one_leads(replicas: Two) -> None:
    found = await asyncio.gather(*(relay.join("acme", "p") for relay in (replicas.one, replicas.two) * 20))
    assert sum(log.leads for log in found) == 1
    assert len({log.name for log in found}) == 1


async def test_pages_are_read_in_their_order_each_once_from_wherever_the_reader_is(replicas: Two) -> None:
    ours, theirs = await replicas.both()
    pages = [b"one", b"", b"\x00three", "viér".encode()]
    for number, page in enumerate(pages, 1):
        assert await replicas.one.tell(ours, number, page, joinable=True) == 1
    for after in range(len(pages) + 1):
        assert await replicas.two.read(theirs, after) == pages[after:]


async def test_a_page_that_is_told_again_is_written_once(replicas: Two) -> None:
    ours, theirs = await replicas.both()
    for number, page in [(1, b"one"), (1, b"one"), (2, b"two"), (1, b"one"), (2, b"two")]:
        await replicas.one.tell(ours, number, page, joinable=True)
    assert await replicas.two.read(theirs, 0) == [b"one", b"two"]


async def test_who_joins_late_reads_it_from_the_beginning(replicas: Two) -> None:
    ours = await replicas.one.join("acme", "p")
    await replicas.one.tell(ours, 1, b"one", joinable=True)
    assert await replicas.two.read(await replicas.two.join("acme", "p"), 0) == [b"one"]


async def test_the_leader_knows_how_many_follow(replicas: Two) -> None:
    ours = await replicas.one.join("acme", "p")
    assert await replicas.one.tell(ours, 0, None, joinable=True) == 0
    theirs = await replicas.two.join("acme", "p")
    assert await replicas.one.tell(ours, 0, None, joinable=True) == 1
    await replicas.two.leave(theirs)
    assert await replicas.one.tell(ours, 0, None, joinable=True) == 0
    await replicas.two.read(theirs, 0)
    assert await replicas.one.tell(ours, 0, None, joinable=True) == 1


async def test_a_follower_that_is_not_heard_of_is_not_counted(replicas: Two) -> None:
    ours, _ = await replicas.both()
    await replicas.harness.lapse(ours)
    assert await replicas.one.tell(ours, 0, None, joinable=True) == 0


async def test_a_log_that_is_not_joinable_is_read_on_and_joined_no_more(replicas: Two) -> None:
    ours, theirs = await replicas.both()
    await replicas.one.tell(ours, 1, b"one", joinable=False)
    assert (await replicas.two.join("acme", "p")).leads
    assert await replicas.two.read(theirs, 0) == [b"one"]
    assert await replicas.one.tell(ours, 2, b"two", joinable=False) == 1
    assert await replicas.two.read(theirs, 1) == [b"two"]


async def test_a_log_that_is_joinable_again_is_found_again_unless_another_leads_meanwhile(replicas: Two) -> None:
    ours = await replicas.one.join("acme", "p")
    for joinable in (False, True):
        await replicas.one.tell(ours, 0, None, joinable=joinable)
    assert (await replicas.two.join("acme", "p")).name == ours.name
    await replicas.one.tell(ours, 0, None, joinable=False)
    mine = await replicas.two.join("acme", "p")
    await replicas.one.tell(ours, 0, None, joinable=True)
    assert (await replicas.one.join("acme", "p")).name == mine.name


async def test_after_its_end_a_log_can_be_joined_for_a_moment_if_its_leader_wants_that(replicas: Two) -> None:
    ours = await replicas.one.join("acme", "p")
    await replicas.one.tell(ours, 1, b"all", joinable=True, last=True)
    theirs = await replicas.two.join("acme", "p")
    assert not theirs.leads
    assert await replicas.two.read(theirs, 0) == [b"all"]


async def test_when_nothing_is_heard_of_a_leader_its_log_is_gone_and_another_may_lead(replicas: Two) -> None:
    ours, theirs = await replicas.both()
    await replicas.one.tell(ours, 1, b"one", joinable=True)
    await replicas.harness.silence(ours)
    assert await replicas.two.read(theirs, 0) is None
    mine = await replicas.two.join("acme", "p")
    assert mine.leads
    assert mine.name != ours.name


async def test_a_leader_that_was_paused_for_too_long_writes_where_nobody_reads(replicas: Two) -> None:
    ours, _ = await replicas.both()
    await replicas.harness.silence(ours)
    mine = await replicas.two.join("acme", "p")
    assert await replicas.one.tell(ours, 1, b"late", joinable=False, last=True) is None
    follower = await replicas.one.join("acme", "p")
    assert (follower.leads, follower.name) == (False, mine.name)
    assert await replicas.one.read(follower, 0) == []


async def test_a_log_that_was_replaced_takes_nothing_from_the_one_that_leads_now(replicas: Two) -> None:
    ours, theirs = await replicas.both()
    await replicas.one.tell(ours, 0, None, joinable=False)
    mine = await replicas.two.join("acme", "p")
    await replicas.one.tell(ours, 1, b"end", joinable=False, last=True)
    assert (await replicas.one.join("acme", "p")).name == mine.name
    assert await replicas.two.read(theirs, 0) == [b"end"]


async def test_a_leader_is_woken_when_somebody_joins_and_when_it_leaves(replicas: Two) -> None:
    heard = await woken(replicas, replicas.one)
    _, theirs = await replicas.both()
    await asyncio.wait_for(heard.wait(), PATIENCE)
    heard.clear()
    await replicas.two.leave(theirs)
    await asyncio.wait_for(heard.wait(), PATIENCE)


async def test_a_follower_is_woken_for_every_page(replicas: Two) -> None:
    heard = await woken(replicas, replicas.two)
    ours, _ = await replicas.both()
    for number in (1, 2):
        await replicas.one.tell(ours, number, b"page", joinable=True)
        await asyncio.wait_for(heard.wait(), PATIENCE)
        heard.clear()


async def test_who_hears_no_more_is_not_woken(replicas: Two) -> None:
    heard, still = await woken(replicas, replicas.two), asyncio.Event()
    replicas.two.hear("p", still.set)
    replicas.two.unhear("p", heard.set)
    ours, _ = await replicas.both()
    await replicas.one.tell(ours, 1, b"page", joinable=True)
    await asyncio.wait_for(still.wait(), PATIENCE)
    assert not heard.is_set()
