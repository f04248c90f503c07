"""Housekeeping: what has to be done now and then while the gateway runs."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import msgspec

from headgate.budget.budget import DurableLedger, Entry, Statements
from headgate.budget.pace import Pace, dearer_now
from headgate.budget.posted import JournalTail
from headgate.budget.pricing import Pricing
from headgate.budget.windows import window_id
from headgate.cache.cache import SharedStore
from headgate.model.errors import Overloaded
from headgate.pipeline import Gateway
from headgate.providers.kv_cache import ANY_MODEL, KvCache
from headgate.routing.fleet import Fleet
from headgate.telemetry.metrics import PrometheusSink
from headgate.tenants.tenants import Tenants
from headgate.worker import Worker

log = logging.getLogger(__name__)

HOUSEKEEPING = 2.0
"""Seconds between two rounds: tending reservations, and learning of budgets and prices that other processes have changed."""
KV_SECONDS = 1.0
"""Seconds between two looks at how full a server's memory for prompts is, and how long one may take."""
ROUNDS_PER_COUNT = 8
"""Rounds after which the gauges that take a query are read anew."""
ROUNDS_PER_SWEEP = 30
"""Rounds after which jobs are forgotten whose time is over."""
ROUNDS_PER_PACE = 1_800
FIRST_PACE = 30
"""Rounds, an hour's, between two looks at whether tasks become dearer, and until the first one."""
TENANTS_AT_ONCE = 64
"""Tenants whose budgets are read before calls may go on."""
BREAKER_STATES = {"closed": 0.0, "half_open": 1.0, "open": 2.0}


class Housekeeping:
    """What has to be done now and then while the gateway runs."""

    def __init__(
        self,
        gateway: Gateway,
        tenants: Tenants,
        metrics: PrometheusSink,
        ledger: DurableLedger,
        tail: JournalTail,
        *,
        pricing: Pricing,
        jobs: Worker,
        shared: SharedStore | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`tail` takes the alerts that are found here; `shared` is the store of entries, where replicas share it. `now` is the store's clock,
        unix seconds."""
        self._gateway = gateway
        self._tenants = tenants
        self._ledger = ledger
        self._tail = tail
        self._pricing = pricing
        self._jobs = jobs
        self._shared = shared
        self._metrics = metrics
        self._now = now
        self._lag = 0.0
        self._used: dict[tuple[str, ...], float] = {}
        metrics.gauge("headgate_cache_entries", gateway.cache.size)
        metrics.gauge("headgate_cache_bytes", gateway.cache.weight)
        metrics.gauge("headgate_cache_drift", self._drifts, ("state",))
        metrics.gauge("headgate_cache_hit_accuracy", self._accuracy, ())
        metrics.total("headgate_cache_failures_total", gateway.cache.failures, ("part",))
        metrics.total("headgate_cache_evictions_total", gateway.cache.entries.evictions)
        metrics.total("headgate_cache_invalidated_total", lambda: gateway.cache.invalidated)
        kept = gateway.outcomes
        metrics.total("headgate_routing_outcomes_lost_total", lambda: 0 if kept is None else kept.lost)
        metrics.gauge("headgate_reservations_open", ledger.open_reservations)
        metrics.gauge("headgate_ledger_lag_seconds", lambda: ledger.lag)
        metrics.gauge("headgate_jobs", jobs.counts, ("tenant_lane", "state"))
        metrics.gauge("headgate_flight_followers", lambda: gateway.flights.followers)
        metrics.gauge("headgate_event_loop_lag_seconds", lambda: self._lag)
        metrics.gauge("headgate_breaker_state", self._breakers, ("deployment",))
        metrics.gauge("headgate_upstream_errors_ratio", lambda: self._of_each("errors"), ("deployment",))
        metrics.gauge("headgate_upstream_inflight", lambda: self._of_each("inside"), ("deployment",))
        metrics.gauge("headgate_upstream_limit", lambda: self._of_each("limit"), ("deployment",))
        metrics.gauge("headgate_budget_used_ratio", lambda: self._used, ("tenant", "window"))

    def _breakers(self) -> dict[tuple[str, ...], float]:
        health = self._gateway.routing.health()
        return {(name,): BREAKER_STATES[one["state"]] for name, one in health.items()}

    def _of_each(self, name: str) -> dict[tuple[str, ...], float]:
        return {(deployment,): float(one[name]) for deployment, one in self._gateway.routing.health().items()}

    def _drifts(self) -> dict[tuple[str, ...], float]:
        return {(state,): float(number) for state, number in self._gateway.checking.learning.drifts().items()}

    def _accuracy(self) -> dict[tuple[str, ...], float]:
        """Without a single check there is nothing to show."""
        right, checked = self._gateway.checking.learning.accuracy()
        return {(): right / checked} if checked else {}

    async def run(self) -> None:
        """Round after round, until cancelled. A round that fails is told and does not end the next."""
        loop = asyncio.get_running_loop()
        budget = self._gateway.budget
        for turn in itertools.count():
            try:
                await budget.tend()
                await budget.refresh()
                await self._pricing.refresh()
                await self._hear()
                if turn % ROUNDS_PER_COUNT == 0:
                    self._used = await self._budgets()
                if turn % ROUNDS_PER_PACE == FIRST_PACE:
                    await self._pace()
                if turn % ROUNDS_PER_SWEEP == 0:
                    await self._sweep()
            except Overloaded:
                log.debug("housekeeping waits for a store")  # the store itself has been told of, once
            except Exception:
                log.exception("housekeeping failed; it is tried again")
            due = loop.time() + HOUSEKEEPING
            await asyncio.sleep(HOUSEKEEPING)
            self._lag = max(0.0, loop.time() - due)

    async def _sweep(self) -> None:
        """Forget what is too old."""
        await self._jobs.sweep()
        if self._shared is not None:
            with suppress(Overloaded):
                await self._shared.refresh()

    async def _hear(self) -> None:
        """Learn what other replicas have learnt."""
        await self._gateway.checking.hear()
        if self._gateway.outcomes is not None:
            await self._gateway.outcomes.hear()

    async def _pace(self) -> None:
        """Tell of tasks that became dearer."""
        for pace in await newly_dearer(self._ledger, self._tail, self._now()):
            task = f"{pace.route} {pace.feature}".strip()
            log.warning("a call of %s to %s costs %d %% more than it did", pace.tenant, task, pace.percent)
            self._metrics.spend_rate_alert(pace.tenant)

    async def _budgets(self) -> dict[tuple[str, ...], float]:
        """What share of its caps each tenant has spent or holds, for those that have."""
        used: dict[tuple[str, ...], float] = {}
        budget, now = self._gateway.budget, self._now()
        for number, tenant in enumerate(await self._tenants.list_tenants()):
            if number % TENANTS_AT_ONCE == 0:
                await asyncio.sleep(0)
            for allowance in budget.allowances.of_tenant(tenant.id):
                window = window_id(allowance.window, now, tenant.policy.zone)
                limit = allowance.limit(window) if allowance.unit == "usd" else None
                if limit:
                    found = self._ledger.peek(allowance.account, window)
                    used[tenant.id, allowance.window] = (found.spent + found.held) / limit
        return used


class KvWatch:
    """Reads how full the memory for prompts of own servers is, every second, and has the fleet give them fewer calls the fuller it is.

    It does so while it is open.
    """

    def __init__(self, caches: Mapping[KvCache, Mapping[str, str]], fleet: Fleet, metrics: PrometheusSink) -> None:
        """`caches`: each server's with its deployments, and what the server itself calls their models."""
        self._caches = dict(caches)
        self._fleet = fleet
        self._shares: dict[tuple[str, ...], float] = {}
        self._task: asyncio.Task[None] | None = None
        metrics.gauge("headgate_upstream_kv_cache_ratio", lambda: self._shares, ("deployment",))

    async def __aenter__(self) -> Self:
        if self._caches:
            self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for cache in self._caches:
            await cache.close()

    async def _run(self) -> None:
        while True:
            await asyncio.gather(*(self.look(cache) for cache in self._caches))
            await asyncio.sleep(KV_SECONDS)

    async def look(self, cache: KvCache) -> None:
        """Read one server's once. Where it does not say how full it is, nothing is known, and nothing limits its calls."""
        shares = await cache.read(timeout=KV_SECONDS)
        for name, model in self._caches[cache].items():
            share = shares.get(model, shares.get(ANY_MODEL))
            self._fleet.filled(name, share)
            if share is None:
                self._shares.pop((name,), None)
            else:
                self._shares[name,] = share


async def newly_dearer(statements: Statements, tail: JournalTail, now: float) -> list[Pace]:
    """The tasks that became dearer and of which the journal holds no alert of this day (UTC); now it does."""
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    told = []
    for pace in await dearer_now(statements, now):
        entry = Entry(tenant=pace.tenant, feature=pace.feature or None, route=pace.route, source="pace")
        id = f"pace {pace.tenant} {pace.feature} {pace.route} {day}"
        if await tail.tell(id, now, entry, msgspec.json.encode(pace).decode()):
            told.append(pace)
    return told
