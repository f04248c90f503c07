"""What a process meets when a Redis that it shares with others is killed, hangs, is full or is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from redis.crc import key_slot

from headgate.model.errors import Overloaded
from headgate.storage.redis import Redis, script
from headgate.storage.redis_node import PIPELINES
from tests.servers.redis import RedisCluster, RedisRefused, RedisServer
from tests.waiting import is_refused_at_once, outcome, until_well

TIMEOUT = 0.25
APPEND = script("return redis.call('APPEND', KEYS[1], ARGV[1])")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    redis = Redis(server.url, timeout=TIMEOUT)
    yield redis
    await redis.close()


@pytest.fixture
async def patient(server: RedisServer) -> AsyncIterator[Redis]:
    """One that gives up only what is gone: a machine may be busy."""
    redis = Redis(server.url, timeout=10.0)
    yield redis
    await redis.close()


@pytest.fixture
def nodes() -> Iterator[RedisCluster]:
    """A cluster whose nodes serve what they have when another is away, as one for Headgate is to be configured."""
    with RedisCluster(3, cluster_require_full_coverage="no") as cluster:
        yield cluster


def changes(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "headgate.storage.footing"]


async def test_a_server_that_is_killed_refuses_at_once_and_is_found_again(server, redis, caplog) -> None:
    await redis.do("SET", "a", "1")
    await asyncio.to_thread(server.kill)
    for _ in range(3):
        assert isinstance(await outcome(redis.do("GET", "a")), Overloaded)
    assert await is_refused_at_once(lambda: redis.do("GET", "a"))
    assert redis.fault
    await asyncio.to_thread(server.restart)
    await until_well(lambda: redis.do("GET", "a"))
    assert redis.fault == ""
    told = changes(caplog)
    assert len(told) == 2
    assert told[0].startswith("Redis does not answer: ")
    assert told[1] == "Redis answers again"


async def test_a_server_that_hangs_keeps_nobody_waiting_longer_than_the_timeout(server, redis) -> None:
    await asyncio.gather(*(redis.do("GET", str(number)) for number in range(2_000)))
    await asyncio.to_thread(server.stop_the_world)
    before = redis.round_trips
    outcomes = await asyncio.gather(*(outcome(redis.do("GET", str(number))) for number in range(20_000)))
    assert all(isinstance(one, Overloaded) for one in outcomes)
    # Many times what pipelines carry at once: those in line were not sent in vain, one batch after the other.
    assert redis.round_trips <= before + PIPELINES
    assert await is_refused_at_once(lambda: redis.do("GET", "a"))
    server.go_on()
    await until_well(lambda: redis.do("GET", "a"))


async def test_a_server_that_hangs_when_it_is_connected_to_is_given_up_as_soon(server) -> None:
    redis = Redis(server.url, timeout=TIMEOUT)
    await asyncio.to_thread(server.stop_the_world)
    outcomes = await asyncio.gather(*(outcome(redis.do("GET", str(number))) for number in range(100)))
    assert redis.round_trips <= PIPELINES
    assert all(isinstance(one, Overloaded) for one in outcomes)
    await redis.close()
    server.go_on()


async def test_connections_that_are_cut_are_made_anew_and_nobody_is_refused(server, patient, caplog) -> None:
    for _ in range(20):
        await asyncio.gather(*(patient.do("GET", str(number)) for number in range(1_000)))
        server.command("CLIENT", "KILL", "TYPE", "normal")
        assert not any(
            isinstance(one, Overloaded)
            for one in await asyncio.gather(*(outcome(patient.do("GET", str(number))) for number in range(1_000)))
        )
    assert changes(caplog) == []


async def test_connections_that_are_cut_in_mid_traffic_are_made_anew_and_nobody_is_refused(
    server, patient, caplog
) -> None:
    outcomes: list[object] = []
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            outcomes.append(await outcome(patient.call(APPEND, ["a"], "x")))

    asking = [asyncio.ensure_future(ask()) for _ in range(20)]
    for _ in range(20):
        server.command("CLIENT", "KILL", "TYPE", "normal")
        # What is sent once more is not cut off a second time.
        enough = len(outcomes) + 2 * len(asking)
        while len(outcomes) < enough:
            await asyncio.sleep(0)
    over.set()
    await asyncio.gather(*asking)
    assert not any(isinstance(one, Overloaded) for one in outcomes)
    assert changes(caplog) == []


async def test_a_full_server_refuses_writes_as_not_now_and_still_reads(server, redis, caplog) -> None:
    await redis.do("SET", "a", "1")
    server.command("CONFIG", "SET", "maxmemory", 1)
    for _ in range(10):
        with pytest.raises(Overloaded, match="maxmemory"):
            await redis.do("SET", "a", "2")
        with pytest.raises(Overloaded, match="maxmemory"):
            await redis.call(APPEND, ["a"], "x")
        assert await redis.do("GET", "a") == b"1"
    assert redis.fault
    assert len(changes(caplog)) == 1
    server.command("CONFIG", "SET", "maxmemory", 0)
    assert await redis.do("SET", "a", "2") == b"OK"


async def test_a_master_that_was_made_a_replica_refuses_writes_and_is_connected_to_anew(server, redis) -> None:
    await redis.do("SET", "a", "1")
    with RedisServer() as promoted:
        server.command("REPLICAOF", "127.0.0.1", promoted.port)
        before = server.command("INFO", "stats").partition("total_connections_received:")[2].split()[0]
        with pytest.raises(Overloaded, match="read only"):
            await redis.do("SET", "a", "2")
        await outcome(redis.do("GET", "a"))
        after = server.command("INFO", "stats").partition("total_connections_received:")[2].split()[0]
        assert int(after) > int(before) + 1, "by its name somebody else may be reached by now"
        server.command("REPLICAOF", "NO", "ONE")
        await until_well(lambda: redis.do("SET", "a", "3"))


async def test_a_server_that_is_busy_with_a_script_is_not_now(server) -> None:
    redis = Redis(server.url, timeout=5.0)
    server.command("CONFIG", "SET", "busy-reply-threshold", 1)
    forever = asyncio.ensure_future(outcome(redis.wait_for("EVAL", "while true do end", 0, seconds=20)))
    async with asyncio.timeout(20):
        while not isinstance(await outcome(redis.do("GET", "a")), Overloaded):
            await asyncio.sleep(0.01)
    await asyncio.to_thread(server.command, "SCRIPT", "KILL")
    await asyncio.gather(forever, return_exceptions=True)
    await until_well(lambda: redis.do("GET", "a"))
    await redis.close()


async def test_closing_while_nothing_answers_ends(server) -> None:
    redis = Redis(server.url, timeout=TIMEOUT)
    await redis.do("PING")
    await asyncio.to_thread(server.stop_the_world)
    waiting = [asyncio.ensure_future(outcome(redis.do("GET", str(number)))) for number in range(50)]
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await redis.close()
    assert all(isinstance(one, Overloaded) for one in await asyncio.gather(*waiting))
    server.go_on()


class Listener:
    """What one hears, and how often its listening began."""

    def __init__(self, redis: Redis) -> None:
        self.heard: list[bytes] = []
        self.begun = 0
        self._task = asyncio.ensure_future(redis.listen("news", self.heard.append, self._begins))

    def _begins(self) -> None:
        self.begun += 1

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not is_so():
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_listening_begins_anew_when_its_connection_is_cut(server, redis) -> None:
    listener = Listener(redis)
    await listener.until(lambda: listener.begun == 1)
    server.command("CLIENT", "KILL", "TYPE", "pubsub")
    await listener.until(lambda: listener.begun == 2)
    await redis.publish("news", b"hello")
    await listener.until(lambda: listener.heard == [b"hello"])
    await listener.end()


async def test_listening_begins_anew_when_the_server_was_killed(server, redis) -> None:
    listener = Listener(redis)
    await listener.until(lambda: listener.begun == 1)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
    await listener.until(lambda: listener.begun == 2)
    await listener.end()


async def test_listening_to_a_server_that_hangs_begins_anew_when_it_goes_on(server) -> None:
    redis = Redis(server.url, timeout=0.05)
    listener = Listener(redis)
    await listener.until(lambda: listener.begun == 1)
    await asyncio.to_thread(server.stop_the_world)
    await asyncio.sleep(1.5)  # two silences: it is asked, and does not answer
    server.go_on()
    await listener.until(lambda: listener.begun >= 2)
    await listener.end()
    await redis.close()


def tenant_at(redis: Redis, cluster: RedisCluster, master: int) -> str:
    """A key of a tenant whose keys lie on one master."""
    first = master * -(-16_384 // 3)
    numbers = (redis.key(f"t/{number}", "k") for number in range(10_000))
    return next(key for key in numbers if first <= key_slot(key.encode()) < first + -(-16_384 // 3))


async def test_a_node_that_is_killed_or_hangs_is_no_matter_of_those_whose_keys_lie_elsewhere(nodes, caplog) -> None:
    redis = Redis(nodes.url, cluster=True, timeout=TIMEOUT)
    mine, others = tenant_at(redis, nodes, 2), [tenant_at(redis, nodes, master) for master in (0, 1)]
    for key in (mine, *others):
        await redis.do("SET", key, "1")
    for hurt, heal in (
        (nodes.nodes[2].stop_the_world, nodes.nodes[2].go_on),
        (nodes.nodes[2].kill, nodes.nodes[2].restart),
    ):
        await asyncio.to_thread(hurt)
        for _ in range(5):
            asked = [asyncio.ensure_future(outcome(redis.do("GET", key))) for key in (mine, *others)]
            await asyncio.wait(asked[1:])
            assert not asked[0].done() or isinstance(asked[0].result(), Overloaded)
            assert [one.result() for one in asked[1:]] == [b"1", b"1"]
            assert isinstance(await asked[0], Overloaded)
        assert redis.fault
        assert [name for name, fault in redis.faults.items() if fault] == [f"Redis 127.0.0.1:{nodes.nodes[2].port}"]
        await asyncio.to_thread(heal)
        await until_well(lambda: redis.do("SET", mine, "1"))
    await redis.close()
    assert {line.partition(": ")[0] for line in changes(caplog)} <= {
        f"Redis 127.0.0.1:{nodes.nodes[2].port} does not answer",
        f"Redis 127.0.0.1:{nodes.nodes[2].port} answers again",
        f"Redis 127.0.0.1:{nodes.nodes[2].port} does not do its work",
    }


async def test_a_slot_that_moves_is_followed_to_its_new_node(nodes) -> None:
    redis = Redis(nodes.url, cluster=True)
    key = tenant_at(redis, nodes, 0)
    slot, (source, target) = key_slot(key.encode()), nodes.nodes[:2]
    await redis.do("SET", key, "1")
    ids = [node.command("CLUSTER", "MYID") for node in (source, target)]
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    source.command("MIGRATE", "127.0.0.1", target.port, key, 0, 1_000)
    assert await redis.do("GET", key) == b"1", "the source sends on what it has handed over"
    assert await redis.call(APPEND, [key], "2") == 2
    assert await redis.do("GET", key) == b"12"
    for node in nodes.nodes:
        node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
    assert await redis.wait_for("OBJECT", "REFCOUNT", key, seconds=1) == 1, (
        "also of one that waits on a connection of its own"
    )
    assert await redis.do("GET", key) == b"12"
    before = redis.round_trips
    assert await redis.do("GET", key) == b"12"
    assert redis.round_trips <= before + 2, "it is asked for where it lies now"
    with pytest.raises(RedisRefused, match="MOVED"):
        source.command("GET", key)
    await redis.close()


async def test_a_replica_that_takes_over_is_found(caplog) -> None:
    with RedisCluster(3, replicas=1, cluster_node_timeout=500) as cluster:
        redis = Redis(cluster.url, cluster=True, timeout=TIMEOUT)
        key = tenant_at(redis, cluster, 0)
        await redis.do("SET", key, "1")
        # The node that the URL names is the one that goes.
        await asyncio.to_thread(cluster.nodes[0].kill)
        await until_well(lambda: redis.do("SET", key, "2"))
        assert await redis.do("GET", key) == b"2"
        heard = Listener(redis)
        await heard.until(lambda: heard.begun == 1)
        await heard.end()
        await redis.close()
