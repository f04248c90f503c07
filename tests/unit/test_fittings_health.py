"""What is shown of the stores that processes share, and with which of them nobody should start."""

from __future__ import annotations

import asyncio

import pytest

from headgate.fittings_health import StoreWatch, check_policy, info
from headgate.model.errors import Conflict, Overloaded
from headgate.storage.redis import Redis
from headgate.telemetry.metrics import PrometheusSink
from tests.servers.redis import RedisServer


async def shown(metrics: PrometheusSink, *lines: str) -> None:
    async with asyncio.timeout(20):
        while not all(line in metrics.render().decode() for line in lines):
            await asyncio.sleep(0.01)


async def test_a_redis_and_its_memory_are_shown() -> None:
    metrics = PrometheusSink(routes=(), deployments=())
    with RedisServer() as server:
        redis = Redis(server.url)
        async with StoreWatch(metrics, redis=redis, every=0.01):
            await shown(metrics, 'headgate_store_up{store="Redis"} 1.0', 'headgate_redis_memory_bytes{server="Redis"}')
            assert "headgate_redis_round_trips_total" in metrics.render().decode()
            await asyncio.to_thread(server.kill)
            await shown(metrics, 'headgate_store_up{store="Redis"} 0.0')
            await asyncio.to_thread(server.restart)
            await shown(metrics, 'headgate_store_up{store="Redis"} 1.0')
        await redis.close()


async def test_without_shared_stores_nothing_is_shown() -> None:
    metrics = PrometheusSink(routes=(), deployments=())
    async with StoreWatch(metrics):
        assert "headgate_store_up{" not in metrics.render().decode()


async def test_every_node_of_a_cluster_is_shown(redis_cluster, redis_prefix) -> None:
    metrics = PrometheusSink(routes=(), deployments=())
    redis = Redis(redis_cluster.url, cluster=True, prefix=redis_prefix)
    async with StoreWatch(metrics, redis=redis, every=0.01):
        ports = [node.port for node in redis_cluster.nodes]
        await shown(metrics, *(f'headgate_redis_memory_bytes{{server="Redis 127.0.0.1:{port}"}}' for port in ports))
        await shown(metrics, *(f'headgate_store_up{{store="Redis 127.0.0.1:{port}"}} 1.0' for port in ports))
    await redis.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"])
async def test_a_redis_that_may_evict_what_budgets_are_counted_with_is_refused(policy) -> None:
    with RedisServer(maxmemory="100mb", maxmemory_policy=policy) as server:
        redis = Redis(server.url)
        with pytest.raises(Conflict, match=rf"maxmemory-policy is {policy}.*evictable: true"):
            await check_policy(redis)
        await redis.close()


async def test_a_redis_that_evicts_nothing_is_taken_also_where_its_settings_may_not_be_read(
    redis_server, redis_url
) -> None:
    redis_server.command("ACL", "SETUSER", "hosted", "on", ">pass", "~*", "+@all", "-config")
    redis = Redis(redis_url.replace("redis://", "redis://hosted:pass@"))
    await check_policy(redis)
    await redis.close()
    redis_server.command("ACL", "DELUSER", "hosted")


async def test_a_redis_that_cannot_be_asked_is_not_taken_on_trust() -> None:
    redis = Redis("redis://127.0.0.1:1")
    with pytest.raises(Overloaded):
        await check_policy(redis)
    await redis.close()


def test_what_a_server_tells_is_read_by_name() -> None:
    assert info(b"# Memory\r\nused_memory:7\r\nmaxmemory_policy:noeviction\r\n") == {
        "used_memory": "7",
        "maxmemory_policy": "noeviction",
    }
