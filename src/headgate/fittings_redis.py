"""Fittings of Redis: what must be quick, where several processes share it. Used by `fittings_stores` alone, and imported only where it is
configured, for it brings a library of its own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from headgate.budget.redis import RedisTill
from headgate.budget.till import Till
from headgate.cache.redis import RedisStore
from headgate.cache.redis_vectors import known
from headgate.coalesce.redis import RedisRelay
from headgate.config_storage import RedisConfig
from headgate.fittings_health import Seen, check_cluster, check_policy, first_contact, seen
from headgate.limits.redis import RedisCounters
from headgate.storage.news import News
from headgate.storage.redis import Redis
from headgate.stores import Quick


async def connected(stack: AsyncExitStack, said: RedisConfig, *, counts_money: bool) -> Redis:
    """The connections to it, until the stack is left. Raises Conflict when it does not answer, is not what `redis.cluster` says, or may
    evict what budgets are counted with."""
    connections = Redis(
        said.url.get_secret_value(), cluster=said.cluster, pool=said.pool, prefix=said.prefix, timeout=said.timeout
    )
    stack.push_async_callback(connections.close)
    with first_contact("redis.url", "redis.cluster"):
        await check_cluster(connections, cluster=said.cluster)
        if counts_money and not said.evictable:
            await check_policy(connections)
    return connections


async def quick(stack: AsyncExitStack, redis: Redis, **bounds: Any) -> Quick:
    """What is counted, cached and in flight; `bounds` of the stock, as RedisStore has them."""
    news = News(redis)
    stack.push_async_callback(news.close)
    entries = await RedisStore.open(redis, news, **bounds)
    return Quick(
        counters=await stack.enter_async_context(RedisCounters(redis)),
        entries=entries,
        shared=entries,
        relay=RedisRelay(redis, secrets.token_hex(8)),
        news=news,
    )


def till(redis: Redis) -> Till:
    """Where holds are counted, before the journal."""
    return RedisTill(redis)


@asynccontextmanager
async def stock(said: RedisConfig, **bounds: Any) -> AsyncIterator[RedisStore]:
    """The answers that processes share, beside those that run. What is invalidated here they hear of. Raises Conflict as `connected`."""
    async with AsyncExitStack() as stack:
        redis = await connected(stack, said, counts_money=False)
        news = News(redis)
        stack.push_async_callback(news.close)
        store = await RedisStore.open(redis, news, **bounds)
        stack.push_async_callback(store.close)
        await store.refresh()
        yield store


async def looked_at(said: RedisConfig) -> tuple[bool, list[Seen]]:
    """Whether it finds answers by their meaning, and what each of its servers says of itself. Raises Conflict as `connected`."""
    async with AsyncExitStack() as stack:
        redis = await connected(stack, said, counts_money=False)
        return await known(redis) is not None, await seen(redis)
