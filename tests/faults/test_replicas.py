"""Whole replicas on real stores: what is the same with many as with one, and what happens in the middle of traffic when something breaks.

The replicas are shared by the tests of this file, so each leaves them as it found them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from headgate.demo.replay import Outcome
from tests.faults.replicas import CAP, PATIENCE, Fleet, Program, Tenant
from tests.faults.scene import Balanced, Scene
from tests.servers.forwarder import Forwarder
from tests.servers.postgres import PostgresServer
from tests.servers.redis import SLOTS, RedisCluster, RedisServer

Say = Callable[[str, float], None]


class Stage:
    """Four replicas, and the stores that they share: Redis behind a virtual IP."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.redis = stack.enter_context(RedisServer())
        self.postgres = stack.enter_context(PostgresServer())
        self.address = stack.enter_context(Forwarder(self.redis.port))
        url = f"redis://127.0.0.1:{self.address.port}"
        self.fleet = stack.enter_context(Fleet(folder, url, self.postgres, 4))
        self.killed: Scene | None = None
        self.killed_at = 0.0

    def lagging(self) -> RedisServer:
        """A replica of Redis that gets nothing from now on, and takes over when it is told to."""
        replica = self._stack.enter_context(RedisServer(replicaof=self.redis))
        replica.command("REPLICAOF", "NO", "ONE")
        return replica


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        yield Stage(tmp_path_factory.mktemp("fleet"), stack)


@pytest.fixture
def fleet(stage: Stage) -> Fleet:
    return stage.fleet


@pytest.fixture
def say(record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]) -> Say:
    """Tells a time: in the report of the run, and on the screen."""

    def tell(what: str, seconds: float) -> None:
        record_property(what, round(seconds, 2))
        with capsys.disabled():
            sys.stdout.write(f"\n  {what}: {seconds:.2f} s")

    return tell


@contextlib.asynccontextmanager
async def balanced(fleet: Fleet, tenant: Tenant) -> AsyncIterator[Balanced]:
    caller = Balanced(fleet, tenant)
    yield caller
    await caller.close()


async def at_once(caller: Balanced, replicas: Sequence[Program], text: str, times: int) -> list[Outcome]:
    """The same question so often at the same time, at one replica after the other, every other one as a stream."""
    spread = [(replicas[number % len(replicas)], number // len(replicas) % 2 == 1) for number in range(times)]
    return await asyncio.gather(*(caller.at(replica, text, stream=stream) for replica, stream in spread))


async def recovered(scene: Scene, say: Say, what: str) -> None:
    """Everybody is answered again. Then the capped tenant spends all it has left, which tells whether something was forgotten."""
    tenants = {"capped": scene.capped, "uncapped": scene.free}
    waits = [scene.until(scene.is_served(tenant, times=1)) for tenant in tenants.values()]
    for name, seconds in zip(tenants, await asyncio.gather(*waits), strict=True):
        say(f"{what}: until {name} calls are answered", seconds)
    say(f"{what}: until every replica is ready", await scene.until_ready())
    await scene.until_spent()
    say(f"{what}: the longest that an uncapped call took", scene.slowest())


async def killed(stage: Stage, say: Say) -> Scene:
    """A replica was killed in the middle of traffic and another has joined; once for all tests."""
    if stage.killed is not None:
        return stage.killed
    fleet = stage.fleet
    async with Scene(fleet) as scene, balanced(fleet, replace(scene.capped, route="doomed")) as caller:
        one = fleet.replicas[1]
        doomed = [asyncio.create_task(caller.at(one, f"What becomes of {number}?")) for number in range(4)]
        await scene.until(lambda: fleet.calls("doomed") == 4)
        one.kill()
        stage.killed_at = time.time()
        assert {outcome.status for outcome in await asyncio.gather(*doomed)} == {0}
        await scene.until(scene.is_served(scene.capped, scene.free, scene.other, times=20))
        fleet.bury(one)
        began = time.monotonic()
        await asyncio.to_thread(fleet.join)
        say("a cold replica is ready", time.monotonic() - began)
        await recovered(scene, say, "a replica killed")
    stage.killed = scene
    return scene


async def test_a_replica_is_killed_and_another_joins_in_the_middle_of_traffic(stage: Stage, say: Say) -> None:
    scene = await killed(stage, say)
    assert scene.refused() == []
    assert stage.fleet.billed(scene.capped.route, "doomed") <= CAP


@pytest.mark.parametrize("replicas", [2, 4])
async def test_the_same_question_at_several_replicas_at_the_same_time_makes_one_call(
    fleet: Fleet, replicas: int
) -> None:
    tenant = fleet.tenants()[1]
    async with balanced(fleet, tenant) as caller:
        outcomes = await at_once(caller, fleet.replicas[:replicas], "Where is my parcel?", 24)
    assert {(outcome.status, outcome.broken) for outcome in outcomes} == {(200, False)}
    assert len({outcome.content for outcome in outcomes}) == 1
    assert [outcome.source for outcome in outcomes].count("live") == 1
    assert fleet.calls(tenant.route) == 1


async def test_what_one_replica_answered_is_in_stock_for_all_also_by_its_meaning(fleet: Fleet) -> None:
    tenant = fleet.tenant("meant")
    first, *others = fleet.replicas
    async with balanced(fleet, tenant) as caller:
        bought = await caller.at(first, "How do I reset my password?")
        async with asyncio.timeout(PATIENCE):
            while (await caller.at(first, "How do I reset my password?")).source != "exact":
                await asyncio.sleep(0.01)  # it is stored behind
        same = [await caller.at(replica, "How do I reset my password?") for replica in others]
        meant = [await caller.at(replica, "How can I reset my password?") for replica in others]
    assert [outcome.source for outcome in (bought, *same, *meant)] == ["live"] + ["exact"] * 3 + ["semantic"] * 3
    assert {outcome.content for outcome in (*same, *meant)} == {bought.content}


async def test_what_one_replica_was_told_to_forget_is_in_stock_for_none(fleet: Fleet) -> None:
    tenant = fleet.tenants()[1]
    first, *others = fleet.replicas
    async with balanced(fleet, tenant) as caller:
        for number, replica in enumerate(others):
            text = f"Where is my parcel number {number}?"
            await caller.at(replica, text)
            first.ask("/v1/cache/invalidate", {"all": True}, key=tenant.key)
            assert (await caller.at(replica, text)).source == "live"


async def test_two_tenants_who_ask_the_same_share_nothing(fleet: Fleet) -> None:
    _, one, other = fleet.tenants()
    async with balanced(fleet, one) as first, balanced(fleet, other) as second:
        asked = (at_once(caller, fleet.replicas, "Where is my parcel?", 8) for caller in (first, second))
        for outcomes in await asyncio.gather(*asked):
            assert [outcome.source for outcome in outcomes].count("live") == 1
    assert fleet.calls(one.route) == 2


async def served(fleet: Fleet, tenant: Tenant, times: int) -> int:
    """How many of so many different questions, asked at once at all replicas, were answered."""
    async with balanced(fleet, tenant) as caller:
        asked = [caller.at(fleet.replicas[n % len(fleet.replicas)], f"What is {n} times {n}?") for n in range(times)]
        outcomes = await asyncio.gather(*asked)
    assert {outcome.status for outcome in outcomes} <= {200, 429}
    return sum(outcome.status == 200 for outcome in outcomes)


async def test_a_rate_is_the_tenants_whichever_replica_is_asked(fleet: Fleet) -> None:
    tenant = fleet.tenant("rates", rpm=6)
    assert 6 <= await served(fleet, tenant, 24) <= 7


async def test_tokens_a_minute_are_the_tenants_whichever_replica_is_asked(fleet: Fleet) -> None:
    tenant = fleet.tenant("rates", tpm=1_000)
    assert 1 <= await served(fleet, tenant, 40) <= 15


async def test_calls_at_the_same_time_are_the_tenants_whichever_replica_is_asked(fleet: Fleet) -> None:
    tenant = fleet.tenant("slow", concurrency=3)
    assert await served(fleet, tenant, 24) == 3


async def test_four_replicas_that_race_for_the_last_of_a_budget_overspend_nothing(fleet: Fleet) -> None:
    async with Scene(fleet) as scene:
        await scene.until_spent()
    await scene.audit()
    assert scene.refused() == []
    assert fleet.billed(scene.capped.route) > CAP * 0.95


async def test_postgresql_is_killed_and_comes_back(stage: Stage, say: Say) -> None:
    async with Scene(stage.fleet) as scene:
        stage.postgres.kill()
        # Until the journal is back, what has ended is still held: a budget is soon taken.
        await scene.until(scene.is_served(scene.capped, scene.free, scene.other, times=20))
        await scene.until_named("ledger")
        await scene.until(scene.is_served(scene.free, scene.other, times=20))
        await asyncio.to_thread(stage.postgres.restart)
        await recovered(scene, say, "PostgreSQL killed")
    await scene.audit()
    assert scene.refused() == []
    assert scene.changes("PostgreSQL") == ["down up"] * 4


async def test_postgresql_hangs(stage: Stage, say: Say) -> None:
    async with Scene(stage.fleet) as scene:
        with stage.postgres.frozen():
            await scene.until(scene.is_served(scene.capped, scene.free, scene.other))
            await scene.until_named("ledger")
            await scene.until(scene.is_served(scene.free, scene.other))
        await recovered(scene, say, "PostgreSQL stopped")
    await scene.audit()
    assert scene.refused() == []
    assert scene.changes("PostgreSQL") == ["down up"] * 4


async def test_redis_is_full(stage: Stage, say: Say) -> None:
    async with Scene(stage.fleet) as scene:
        stage.redis.command("CONFIG", "SET", "maxmemory", "1mb")
        await scene.until_named("redis")
        await scene.until(scene.is_served(scene.free, scene.other))
        stage.redis.command("CONFIG", "SET", "maxmemory", "0")
        await recovered(scene, say, "Redis full")
    await scene.audit()
    assert scene.refused() == []
    assert scene.changes("Redis") == ["down up"] * 4


async def test_all_connections_to_redis_are_cut(stage: Stage, say: Say) -> None:
    async with Scene(stage.fleet) as scene:
        for kind in ("normal", "pubsub"):
            stage.redis.command("CLIENT", "KILL", "TYPE", kind)
        await recovered(scene, say, "connections to Redis cut")
    await scene.audit()
    assert scene.refused() == []
    assert set(scene.changes("Redis")) <= {"", "down up"}


def took_over(replica: RedisServer) -> None:
    """Returns when a replica has taken over from its master."""
    replica.wait_until(lambda: "role:master" in replica.command("INFO", "replication"), "takes over")


async def test_a_cluster_loses_a_master_and_its_replica_takes_over(tmp_path: Path, stage: Stage, say: Say) -> None:
    with (
        RedisCluster(3, replicas=1, cluster_require_full_coverage=False) as cluster,
        Fleet(tmp_path, cluster.url, stage.postgres, 2, scenes=1, cluster=True) as fleet,
    ):
        async with Scene(fleet) as scene:
            place = int(cluster.nodes[0].command("CLUSTER", "KEYSLOT", f"{{t/{scene.capped.id}}}")) * 3 // SLOTS
            cluster.masters[place].kill()
            await scene.until_named("redis")
            await asyncio.to_thread(took_over, cluster.nodes[3 + place])
            await recovered(scene, say, "a cluster's master killed")
        await scene.audit()
        assert scene.refused() == []
        assert set(scene.changes("Redis")) <= {"", "down", "down up"}


async def test_what_a_killed_replica_held_is_settled_as_lost(stage: Stage, say: Say) -> None:
    scene = await killed(stage, say)
    lost = await scene.audit("doomed", lost=True)
    say("a replica killed: until what it held is settled", stage.fleet.lost_at(scene.capped) - stage.killed_at)
    assert lost > 0


async def test_redis_hangs(stage: Stage, say: Say) -> None:
    async with Scene(stage.fleet) as scene:
        with stage.redis.frozen():
            await scene.until_named("redis")
            await scene.until(scene.is_served(scene.free, scene.other))
        await recovered(scene, say, "Redis stopped")
    await scene.audit()
    assert scene.refused() == []
    assert scene.changes("Redis") == ["down up"] * 4


async def test_redis_is_flushed(stage: Stage, say: Say) -> None:
    async with Scene(stage.fleet) as scene:
        stage.redis.command("FLUSHALL")
        await recovered(scene, say, "Redis flushed")
    await scene.audit()
    assert scene.refused() == []
    assert scene.changes("Redis") == [""] * 4


async def test_redis_is_killed_and_comes_back_empty(stage: Stage, say: Say) -> None:
    async with Scene(stage.fleet) as scene:
        stage.redis.kill()
        await scene.until_named("redis")
        await scene.until(scene.is_served(scene.free, scene.other))
        await asyncio.to_thread(stage.redis.restart)
        await recovered(scene, say, "Redis killed")
    await scene.audit()
    assert scene.refused() == []
    assert scene.changes("Redis") == ["down up"] * 4


async def test_redis_fails_over_to_a_replica_that_lags(stage: Stage, say: Say) -> None:
    async with Scene(stage.fleet) as scene:
        lagging = await asyncio.to_thread(stage.lagging)
        await scene.until(scene.is_served(scene.capped, times=40))
        stage.redis.kill()
        stage.redis = lagging
        stage.address.point_to(lagging.port)
        await recovered(scene, say, "failover to a replica that lags")
    await scene.audit()
    assert scene.refused() == []
    assert set(scene.changes("Redis")) <= {"", "down up"}
