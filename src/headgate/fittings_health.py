"""Fittings of health: which of the stores that processes share are well, and how that is shown. Used by assembly alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from headgate.model.errors import Conflict, GatewayError, Overloaded
from headgate.storage import footing
from headgate.telemetry.metrics import PrometheusSink

if TYPE_CHECKING:
    from headgate.storage.postgres import Postgres
    from headgate.storage.redis import Redis

EVERY = 15.0
"""Seconds between two looks at how much memory Redis uses."""
KEEPS = "noeviction"
"""The only policy with which Redis forgets nothing by itself: the `volatile-*` ones evict keys that end, as holds and places do."""
FULL_COVERAGE = "cluster-require-full-coverage"
"""What should be off: with it on, one node that is gone stops all tenants instead of its own."""


class StoreWatch:
    """Shows how the shared stores are. As a context manager it asks Redis for its memory now and then."""

    def __init__(
        self,
        metrics: PrometheusSink,
        *,
        redis: Redis | None = None,
        postgres: Postgres | None = None,
        every: float = EVERY,
    ) -> None:
        """`every`: seconds between two looks."""
        self._redis = redis
        self._postgres = postgres
        self._every = every
        self._memory: dict[tuple[str, ...], float] = {}
        self._looking: asyncio.Task[None] | None = None
        metrics.gauge("headgate_store_up", self.up, ("store",))
        if redis is not None:
            metrics.gauge("headgate_redis_memory_bytes", lambda: self._memory, ("server",))
            metrics.total("headgate_redis_round_trips_total", lambda: redis.round_trips)

    async def __aenter__(self) -> Self:
        if self._redis is not None:
            self._looking = asyncio.create_task(self._look_always(self._redis))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    def up(self) -> dict[tuple[str, ...], float]:
        """1 for each store that works, 0 for one that does not; nobody is asked."""
        shown: dict[tuple[str, ...], float] = {}
        if self._redis is not None:
            shown = {(server,): float(not fault) for server, fault in self._redis.faults.items()}
        if self._postgres is not None:
            shown[("PostgreSQL",)] = float(not self._postgres.footing.fault)
        return shown

    async def _look_always(self, redis: Redis) -> None:
        while True:
            with contextlib.suppress(GatewayError):
                told = await redis.each("INFO", "memory")
                self._memory = {(server,): float(info(text).get("used_memory", 0)) for server, text in told.items()}
            await asyncio.sleep(self._every)


class Seen(msgspec.Struct, frozen=True):
    """What a Redis server says of itself. `whole`: of a node of a cluster, whether it serves nobody as soon as one node is missing; None where
    it is none, or does not tell."""

    server: str
    version: str
    policy: str
    whole: bool | None = None


@contextlib.contextmanager
def first_contact(*settings: str) -> Iterator[None]:
    """For what is asked of a store first, which `settings` describe. Raises Conflict, with what to do, where it does not answer: whoever
    starts is told that, so the log need not say it, too."""
    log = logging.getLogger(footing.__name__)
    log.addFilter(_unsaid)
    try:
        yield
    except Overloaded as error:
        if any(setting in error.message for setting in settings):
            raise Conflict(error.message) from None
        right = " and ".join(f"`{setting}`" for setting in settings)
        raise Conflict(f"{error.message} Look whether it runs, and at {right}.") from None
    finally:
        log.removeFilter(_unsaid)


def _unsaid(_: logging.LogRecord) -> bool:
    return False


async def check_cluster(redis: Redis, *, cluster: bool) -> None:
    """Raises Conflict unless each server is a node of a cluster, or none is, as `redis.cluster` says."""
    for server, text in (await redis.each("INFO", "cluster")).items():
        if (info(text).get("cluster_enabled") == "1") is not cluster:
            kind = "no node of a cluster" if cluster else "a node of a cluster"
            raise Conflict(f"{server} is {kind}: set `redis.cluster` to {str(not cluster).lower()}.")


async def seen(redis: Redis) -> list[Seen]:
    """What each server says of itself. Raises Overloaded."""
    told = {server: info(text) for server, text in (await redis.each("INFO")).items()}
    whole: dict[str, bool] = {}
    if any(one.get("cluster_enabled") == "1" for one in told.values()):
        with contextlib.suppress(Exception):  # hosted servers forbid it, each in words of its own
            asked = await redis.each("CONFIG", "GET", FULL_COVERAGE)
            whole = {server: said.get(FULL_COVERAGE.encode()) == b"yes" for server, said in asked.items()}
    return [
        Seen(server, one.get("redis_version", "unknown"), one.get("maxmemory_policy", "not told"), whole.get(server))
        for server, one in told.items()
    ]


async def check_policy(redis: Redis) -> None:
    """Raises Conflict unless every server keeps what it was given: its `maxmemory-policy`, as `INFO` tells it (which hosted
    servers allow where they forbid `CONFIG`), is `noeviction`. For a Redis that budgets are counted in, unless `redis.evictable` is set."""
    for server, text in (await redis.each("INFO", "memory")).items():
        policy = info(text).get("maxmemory_policy")
        if policy != KEEPS:
            raise Conflict(
                f"{server} may evict what budgets are counted with: its maxmemory-policy is {policy or 'not told'}. Set it to {KEEPS}, or"
                " allow it with `redis: {evictable: true}`: what is lost is then rebuilt from the journal, and calls wait for that."
            )


def info(text: bytes) -> dict[str, str]:
    """What `INFO` tells, by name."""
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, found, value in lines if found}
