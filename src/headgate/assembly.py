"""Assembly: from a configuration to a running gateway. The only module that names concrete adapters.

Everything is opened here in one place and closed in the opposite order, so a reader can see what a process consists of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from headgate.budget.budget import Balance, Budget, Statements, UsageQuery, balances
from headgate.budget.journal import open_journal
from headgate.budget.prices import PriceTable
from headgate.budget.sqlite import SqliteLedger
from headgate.cache.cache import Cache, CachePolicy, Embedder
from headgate.cache.embedders import EmbedderUnavailable, MiniLM, RemoteEmbedder
from headgate.cache.sqlite import SqliteStore
from headgate.cache.verdict import FixedVerdict, threshold_for
from headgate.coalesce import Flights
from headgate.config import Config, ModelConfig, ProviderConfig, RouteConfig
from headgate.dispatch import Dispatch, Patience
from headgate.limits.limits import Limits
from headgate.limits.memory import MemoryCounters
from headgate.model.deployment import Deployment
from headgate.model.tenancy import WINDOWS
from headgate.pipeline import Gateway
from headgate.providers.anthropic import Anthropic
from headgate.providers.endpoint import Endpoint
from headgate.providers.http import Timeouts
from headgate.providers.openai import OpenAI
from headgate.providers.provider import Provider
from headgate.routing.breaker import Breakers
from headgate.routing.retries import RetryBudget
from headgate.routing.routing import Route, Routing
from headgate.telemetry.log import LogSink
from headgate.telemetry.metrics import PrometheusSink
from headgate.telemetry.telemetry import Sink, Telemetry
from headgate.tenants.sqlite import SqliteDirectory
from headgate.tenants.tenants import Tenants

log = logging.getLogger(__name__)

PROVIDERS: Mapping[str, Callable[[Endpoint], Provider]] = {"openai": OpenAI, "anthropic": Anthropic}
HOUSEKEEPING = 15.0
"""Seconds between two rounds: ending overdue reservations, and the gauges that take a query."""
BREAKER_STATES = {"closed": 0.0, "half_open": 1.0, "open": 2.0}
EMBEDDING_SECONDS = 5.0


class Books(msgspec.Struct, frozen=True):
    """The stores of a data directory, for reading and for managing tenants, also beside a running server."""

    tenants: Tenants
    statements: Statements

    async def balances(self, tenant: str) -> dict[str, Balance]:
        """A tenant's balances in the present windows, by window name."""
        return await balances(self.statements, tenant, time.time())


class Engine(msgspec.Struct, frozen=True):
    """A running gateway and what a server needs beside it. `admin_key` is set when it was made just now."""

    gateway: Gateway
    tenants: Tenants
    metrics: PrometheusSink
    admin_key: str | None
    now: Callable[[], float] = time.time

    async def faults(self) -> dict[str, str]:
        """What keeps each store from working, an empty text when nothing does."""
        return {
            "tenants": await _fault(self.tenants.list_tenants),
            "ledger": await _fault(self.gateway.budget.ledger.expire),
        }


async def _fault(check: Callable[[], Awaitable[object]]) -> str:
    try:
        await check()
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


@asynccontextmanager
async def open_books(config: Config, data: Path) -> AsyncIterator[Books]:
    """Open the stores without claiming the right to serve from them. Raises OSError or GatewayError."""
    data.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        journal = await asyncio.to_thread(open_journal, config.storage.path(data))
        stack.callback(journal.close)
        tenants = _tenants(config, data)
        stack.push_async_callback(tenants.close)
        yield Books(tenants, journal)


async def read_ledger(path: Path) -> tuple[int, int]:
    """What a ledger that nobody serves from has billed, and how much of it are holds of calls whose end nobody saw; nano-USD.

    Opening it ends the reservations that a killed process left. Raises Conflict while a server keeps it.
    """
    ledger = await asyncio.to_thread(SqliteLedger, path)
    try:
        billed = sum(row.cost for row in await ledger.usage(UsageQuery()))
        return billed, await ledger.lost()
    finally:
        await ledger.close()


@asynccontextmanager
async def open_gateway(config: Config | None = None, data: Path | None = None) -> AsyncIterator[Gateway]:
    """Open the engine in this process, for `reply = await gateway.chat(caller, request)`.

    Without a configuration, providers come from OPENAI_API_KEY and ANTHROPIC_API_KEY. Raises what `open_engine` does.
    """
    chosen = Config.default(os.environ) if config is None else config
    async with open_engine(chosen, data or Path("headgate-data")) as engine:
        yield engine.gateway


@asynccontextmanager
async def open_engine(config: Config, data: Path) -> AsyncIterator[Engine]:
    """Open everything that a configuration names; leaving closes it again.

    Raises ValueError when a provider or a route cannot be used, Conflict when another process serves from `data`, OSError when
    the directory cannot be written.
    """
    data.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        prices = PriceTable.load(overrides={path: price.price() for path, price in config.prices.items()})
        deployments = {name: _deployment(name, model, prices) for name, model in config.models.items()}
        routes = {name: _route(name, route) for name, route in config.routes.items()}
        metrics = PrometheusSink(routes=routes, deployments=deployments)
        telemetry = Telemetry([metrics, *_log_sinks(config, data)])
        providers = {name: _provider(name, one) for name, one in config.providers.items()}
        embedder_loading = asyncio.create_task(_embedder(config, providers))
        ledger = await asyncio.to_thread(SqliteLedger, config.storage.path(data))
        tenants = _tenants(config, data)
        stack.push_async_callback(tenants.close)
        admin_key = await tenants.ensure_admin()
        store = await SqliteStore.open(_beside(config, data, "cache"), per_tenant=config.cache.entries_per_tenant)
        breakers = Breakers(on_change=_say_breaker)
        gateway = Gateway(
            limits=Limits(MemoryCounters()),
            cache=Cache(
                store,
                await embedder_loading,
                FixedVerdict(threshold_for(config.cache.semantic.max_error_rate)),
                CachePolicy(
                    exact=config.cache.exact.mode == "on",
                    exact_ttl=config.cache.exact.ttl,
                    semantic_ttl=config.cache.semantic.ttl,
                    semantic=config.cache.semantic.mode,
                ),
            ),
            flights=Flights(max_followers=config.coalesce.max_followers),
            routing=Routing(
                deployments,
                routes,
                breakers=breakers,
                fallbacks={name: model.fallbacks for name, model in config.models.items() if model.fallbacks},
            ),
            budget=Budget(ledger, lease=config.dispatch.total + 300.0),
            dispatch=Dispatch(providers, breakers, RetryBudget(), _patience(config)),
            telemetry=telemetry,
            coalesce=config.coalesce.mode != "off",
            patience=config.coalesce.patience,
        )
        await stack.enter_async_context(gateway)
        engine = Engine(gateway, tenants, metrics, admin_key)
        housekeeping = asyncio.create_task(_Housekeeping(engine, ledger).run())
        stack.push_async_callback(_stopped, housekeeping)
        yield engine


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _beside(config: Config, data: Path, what: str) -> Path:
    """A file beside the ledger's: what has another life than the money lies in another file."""
    path = config.storage.path(data)
    return path.with_name(f"{path.stem}-{what}{path.suffix}")


def _tenants(config: Config, data: Path) -> Tenants:
    return Tenants(
        SqliteDirectory(_beside(config, data, "tenants")),
        defaults=config.tenant_defaults.policy(),
        pepper=os.environ.get("HEADGATE_SECRET"),
        admin_key=os.environ.get("HEADGATE_ADMIN_KEY"),
    )


def _deployment(name: str, model: ModelConfig, prices: PriceTable) -> Deployment:
    upstream = model.model or name
    listed = prices.listing(model.provider, upstream)
    window = model.context_window
    if listed is not None and listed.context_window is not None and "context_window" not in model.model_fields_set:
        window = listed.context_window
    price = (None if listed is None else listed.price) if model.price is None else model.price.price()
    return Deployment(
        name=name,
        provider=model.provider,
        model=upstream,
        price=price,
        context_window=window,
        max_output=model.max_output,
        capabilities=frozenset(model.capabilities),
    )


def _route(name: str, route: RouteConfig) -> Route:
    if route.tiers is not None:
        return Route(name, dict(route.tiers), dict(route.tasks), route.default_tier)
    models = route.models or ()
    return Route(name, {"low": models, "medium": models, "high": models}, dict(route.tasks))


def _provider(name: str, one: ProviderConfig) -> Provider:
    endpoint = Endpoint(
        name=name,
        base_url=one.base_url,
        api_key=None if one.api_key is None else one.api_key.get_secret_value(),
        headers={header: value.get_secret_value() for header, value in one.headers.items()},
        allow_private=one.allow_private,
        timeouts=Timeouts(connect=one.timeouts.connect, first_byte=one.timeouts.first_byte, idle=one.timeouts.idle),
    )
    return PROVIDERS[one.kind](endpoint)


def _patience(config: Config) -> Patience:
    asked = config.dispatch
    return Patience(total=asked.total, retries=asked.retries, backoff=asked.backoff, longest_wait=asked.longest_wait)


async def _embedder(config: Config, providers: Mapping[str, Provider]) -> Embedder | None:
    """What turns questions into vectors. A model that cannot be loaded costs the semantic tier, never the start."""
    asked = config.cache.semantic
    if asked.mode == "off":
        return None
    if asked.embedder == "minilm":
        try:
            return await asyncio.to_thread(MiniLM.load)
        except EmbedderUnavailable as error:
            log.warning("the semantic cache is off: %s", error)
            return None
    remote = asked.embedder
    provider = providers[remote.provider]
    deployment = Deployment(name=remote.model, provider=remote.provider, model=remote.model)

    async def post(body: bytes) -> bytes:
        answer = await provider.embed(deployment, msgspec.json.decode(body), timeout=EMBEDDING_SECONDS)
        return msgspec.json.encode(answer)

    return RemoteEmbedder(post, model=f"{remote.provider}/{remote.model}", dimensions=remote.dimensions)


def _log_sinks(config: Config, data: Path) -> list[Sink]:
    where = config.telemetry.log
    if where == "off":
        return []
    return [LogSink(sys.stderr.buffer) if where == "stderr" else LogSink.to_file(data / where)]


def _say_breaker(name: str, before: str, after: str) -> None:
    log.warning("breaker of %s: %s -> %s", name, before, after)


class _Housekeeping:
    """What has to be done now and then while the gateway runs."""

    def __init__(self, engine: Engine, ledger: SqliteLedger) -> None:
        self._engine = engine
        self._ledger = ledger
        self._lag = 0.0
        self._used: dict[tuple[str, ...], float] = {}
        gateway, metrics = engine.gateway, engine.metrics
        metrics.gauge("headgate_cache_entries", gateway.cache.size)
        metrics.gauge("headgate_cache_bytes", gateway.cache.weight)
        metrics.gauge("headgate_reservations_open", ledger.open_reservations)
        metrics.gauge("headgate_ledger_lag_seconds", lambda: ledger.lag)
        metrics.gauge("headgate_flight_followers", lambda: gateway.flights.followers)
        metrics.gauge("headgate_event_loop_lag_seconds", lambda: self._lag)
        metrics.gauge("headgate_breaker_state", self._breakers, ("deployment",))
        metrics.gauge("headgate_budget_used_ratio", lambda: self._used, ("tenant", "window"))

    def _breakers(self) -> dict[tuple[str, ...], float]:
        health = self._engine.gateway.routing.health()
        return {(name,): BREAKER_STATES[one["state"]] for name, one in health.items()}

    async def run(self) -> None:
        """Round after round, until cancelled. A round that fails is told and does not end the next."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._ledger.expire()
                self._used = await self._budgets()
            except Exception:
                log.exception("housekeeping failed; it is tried again")
            due = loop.time() + HOUSEKEEPING
            await asyncio.sleep(HOUSEKEEPING)
            self._lag = max(0.0, loop.time() - due)

    async def _budgets(self) -> dict[tuple[str, ...], float]:
        used: dict[tuple[str, ...], float] = {}
        for tenant in await self._engine.tenants.list_tenants():
            standing = await balances(self._ledger, tenant.id, time.time())
            for window in WINDOWS:
                cap = getattr(tenant.policy.caps, window)
                if cap:
                    used[tenant.id, window] = (standing[window].spent + standing[window].held) / cap
        return used
