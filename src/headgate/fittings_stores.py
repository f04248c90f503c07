"""Fittings of stores: where a process keeps things and whom it shares them with, as the configuration describes it. Used by assembly and by
commands that look at stores beside running servers.

Invariant: what a store needs that is not configured is never imported.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headgate.billing.sqlite import SqliteOutbox
from headgate.budget.budget import Alert
from headgate.budget.journal import open_journal
from headgate.budget.sqlite import SqliteLedger
from headgate.budget.tail import Tail
from headgate.cache import labels_behind
from headgate.cache.cache import CacheStore
from headgate.cache.memory import MemoryStore
from headgate.cache.sqlite import SqliteStore
from headgate.config import Config
from headgate.config_storage import RedisConfig
from headgate.fittings_health import Seen
from headgate.jobs.sqlite import SqliteJobs
from headgate.limits.memory import MemoryCounters
from headgate.model.errors import Conflict
from headgate.routing import outcomes_behind
from headgate.storage.behind_sqlite import SqliteRows
from headgate.storage.sqlite import Claim
from headgate.stores import Beside, Durable, Quick, Stores, beside_of
from headgate.tenants.sqlite import SqliteDirectory

if TYPE_CHECKING:
    from headgate.fittings_postgres import Proven
    from headgate.storage.postgres import Step

log = logging.getLogger(__name__)


@asynccontextmanager
async def opened(config: Config, data: Path, on_alert: Callable[[Alert], None]) -> AsyncIterator[Stores]:
    """Open what a serving process needs. Raises Conflict when another process serves from `data`, or a shared store does not answer or is
    not fit for it; OSError when `data` cannot be written."""
    postgres = redis = till = quick = None
    async with AsyncExitStack() as stack:
        if config.storage.postgres is not None:
            with _library("storage.url", "postgres"):
                from headgate import fittings_postgres
            postgres = await fittings_postgres.connected(stack, config)
        if config.redis is not None:
            with _library("redis", "redis"):
                from headgate import fittings_redis
            redis = await fittings_redis.connected(stack, config.redis, counts_money=postgres is not None)
            quick, till = await fittings_redis.quick(stack, redis, **_bounds(config)), fittings_redis.till(redis)
        if postgres is None:
            durable = await _files(stack, config, data, on_alert)
        else:
            make = partial(fittings_postgres.durable, till=till, on_alert=on_alert)
            durable = await asyncio.to_thread(make, config, data, postgres)
        yield Stores(durable, quick or await _in_process(stack, config, data), postgres, redis)


@asynccontextmanager
async def opened_beside(config: Config, data: Path) -> AsyncIterator[Beside]:
    """Open what can be read and managed beside a running server. Raises OSError or GatewayError."""
    async with AsyncExitStack() as stack:
        if config.storage.postgres is not None:
            with _library("storage.url", "postgres"):
                from headgate import fittings_postgres
            yield fittings_postgres.beside(await fittings_postgres.connected(stack, config))
            return
        path = config.storage.path(data)
        journal = await asyncio.to_thread(open_journal, path)
        stack.callback(journal.close)
        directory, outbox, tail = _kept(stack, path)
        yield Beside(directory, journal, tail, outbox, _outcomes(path))


@asynccontextmanager
async def open_stock(config: Config, data: Path) -> AsyncIterator[CacheStore | None]:
    """The stored answers: in Redis those that all processes share, otherwise those of a data directory; None while a server keeps that one.
    Raises Conflict when Redis does not answer."""
    if config.redis is not None:
        with _library("redis", "redis"):
            from headgate import fittings_redis
        async with fittings_redis.stock(config.redis, **_bounds(config)) as shared:
            yield shared
        return
    try:
        claim = Claim(config.storage.path(data))
    except Conflict:
        yield None
        return
    try:
        store = await _stock(config, data)
        try:
            yield store
        finally:
            await store.close()
    finally:
        claim.release()


async def proven(config: Config) -> Proven:
    """The server of the journal that processes share, and whether it is right: all of it is read. Raises GatewayError when it cannot be."""
    with _library("storage.url", "postgres"):
        from headgate import fittings_postgres
    return await fittings_postgres.proven(config)


async def looked_at(said: RedisConfig) -> tuple[bool, list[Seen]]:
    """Whether a Redis finds answers by their meaning, and what each of its servers says of itself. Raises GatewayError."""
    with _library("redis", "redis"):
        from headgate import fittings_redis
    return await fittings_redis.looked_at(said)


def schemas() -> dict[str, Sequence[Step]]:
    """The steps of all rooms that keep something in PostgreSQL."""
    with _library("storage.url", "postgres"):
        from headgate import fittings_postgres
    return fittings_postgres.SCHEMAS


@contextmanager
def _library(setting: str, extra: str) -> Iterator[None]:
    """Inside, what brings a library of its own is imported. Raises Conflict where that one is not installed."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith("headgate"):
            raise
        raise Conflict(
            f"`{setting}` needs a library that is not here ({error}): pip install 'headgate[{extra}]'."
        ) from None


async def _files(stack: AsyncExitStack, config: Config, data: Path, on_alert: Callable[[Alert], None]) -> Durable:
    """Everything in files of a data directory, from which one process serves."""
    path = config.storage.path(data)
    ledger = await asyncio.to_thread(SqliteLedger, path, on_alert=on_alert)
    directory, outbox, tail = _kept(stack, path)
    jobs = SqliteJobs(beside_of(path, "jobs"))
    stack.push_async_callback(jobs.close)
    return Durable(
        directory=directory,
        ledger=ledger,
        tail=tail,
        outbox=outbox,
        jobs=jobs,
        labels=SqliteRows(beside_of(path, "labels"), labels_behind.TABLES),
        outcomes=_outcomes(path),
    )


def _kept(stack: AsyncExitStack, path: Path) -> tuple[SqliteDirectory, SqliteOutbox, Tail]:
    """What lies beside a ledger and may be used beside a running server."""
    directory, outbox, tail = (
        SqliteDirectory(beside_of(path, "tenants")),
        SqliteOutbox(beside_of(path, "billing")),
        Tail(path),
    )
    stack.push_async_callback(directory.close)
    stack.callback(tail.close)
    stack.push_async_callback(outbox.close)
    return directory, outbox, tail


def _outcomes(path: Path) -> SqliteRows:
    return SqliteRows(beside_of(path, "routing"), outcomes_behind.TABLES)


async def _in_process(stack: AsyncExitStack, config: Config, data: Path) -> Quick:
    """What is counted and cached in this process alone. With a ledger in files whoever has that has the stock beside it, too; otherwise the
    first process of a data directory."""
    if config.storage.postgres is not None:
        try:
            claim = Claim(config.storage.path(data))
        except Conflict:
            log.warning("another process stores its answers in %s; this one keeps its own in memory alone", data)
            return Quick(MemoryCounters(), MemoryStore(**_bounds(config)))
        stack.callback(claim.release)
    return Quick(MemoryCounters(), await _stock(config, data))


async def _stock(config: Config, data: Path) -> SqliteStore:
    """The stored answers of a data directory."""
    return await SqliteStore.open(beside_of(config.storage.path(data), "cache"), **_bounds(config))


def _bounds(config: Config) -> dict[str, Any]:
    """Of the stock, as every store has them."""
    asked = config.cache
    return {
        "entries_per_tenant": asked.entries_per_tenant,
        "bytes_per_tenant": asked.bytes_per_tenant,
        "bytes_total": asked.bytes,
        "stale_for": asked.exact.stale,
    }
