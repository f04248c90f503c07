"""Assembly: from a configuration to a running gateway. The only module that names concrete adapters.

Everything is opened here in one place and closed in the opposite order, so a reader can see what a process consists of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from headgate.billing.billing import Outbox
from headgate.budget.allowance import tenant_of
from headgate.budget.allowances import Allowances, Desk, folded
from headgate.budget.budget import Alert, Changes, DurableLedger, Statements, UsageQuery
from headgate.budget.estimate import measure
from headgate.budget.outputs import PRIOR
from headgate.budget.posted import JournalTail
from headgate.budget.prices import PriceTable
from headgate.budget.pricing import Pricing
from headgate.budget.reservation import Budget
from headgate.budget.sqlite import SqliteLedger
from headgate.budget.windows import kind_of
from headgate.cache.cache import Embedder
from headgate.cache.embedders import MiniLM
from headgate.cache.explanation import Explanation
from headgate.cache.learning import Learning
from headgate.cache.memory import MemoryStore
from headgate.cache.tiers import Cache
from headgate.config import Config
from headgate.dispatch import Dispatch
from headgate.fittings import (
    cache,
    embedder,
    embeds_for,
    fallbacks,
    flights,
    hedges,
    kv_caches,
    limits,
    log_sinks,
    patience,
    price_table,
    priced,
    priced_by,
    provider,
    reader,
    remote_embedder,
    route,
    sharing,
    static_table,
    verdict,
)
from headgate.fittings_billing import running_pumps
from headgate.fittings_checking import checking, grading, learnt
from headgate.fittings_health import StoreWatch
from headgate.fittings_jobs import working
from headgate.fittings_outcomes import outcomes
from headgate.fittings_routing import add_classifier, deciders, say_breaker, template, upstream_alarm
from headgate.fittings_stores import opened, opened_beside
from headgate.housekeeping import Housekeeping, KvWatch
from headgate.limits.limits import Limits
from headgate.model.chat import ChatRequest
from headgate.model.errors import Conflict
from headgate.model.one_word import Ask
from headgate.model.tenancy import CacheTerms, Principal, Wishes
from headgate.pipeline import Gateway
from headgate.routing import hearsay
from headgate.routing.breaker import Breakers
from headgate.routing.deciders import Deciders
from headgate.routing.explanation import Explanation as Routed
from headgate.routing.fleet import Fleet
from headgate.routing.outcomes import Outcome
from headgate.routing.outcomes_behind import OutcomesBehind
from headgate.routing.outcomes_keeping import Outcomes
from headgate.routing.retries import RetryBudget
from headgate.routing.routing import Routing
from headgate.storage.behind import Rows
from headgate.stores import Quick, Stores
from headgate.telemetry.metrics import PrometheusSink
from headgate.telemetry.telemetry import Telemetry
from headgate.tenants.tenants import Directory, Tenants
from headgate.worker import Worker

log = logging.getLogger(__name__)

ANSWERS = 20_000
"""Newest rows of the journal from which a new process learns how long answers are."""


class Books(msgspec.Struct, frozen=True):
    """The stores of a data directory, for reading and for managing tenants, also beside a running server."""

    tenants: Tenants
    statements: Statements
    changes: Changes
    allowances: Allowances
    desk: Desk
    deployments: tuple[str, ...]
    pricing: Pricing
    outbox: Outbox
    tail: JournalTail

    async def refresh(self) -> None:
        """Learn who may spend what, and what models cost, as it was changed up to now."""
        for allowance in folded((await self.changes.changes())[1], {}).values():
            self.allowances.put(allowance)
        await self.pricing.refresh()


class Engine(msgspec.Struct, frozen=True):
    """A running gateway and what a server needs beside it. `admin_key` is set when it was made just now."""

    gateway: Gateway
    tenants: Tenants
    metrics: PrometheusSink
    admin_key: str | None
    desk: Desk
    pricing: Pricing
    stores: Stores
    jobs: Worker
    now: Callable[[], float] = time.time

    @property
    def outbox(self) -> Outbox:
        """Where events for billing sinks wait."""
        return self.stores.durable.outbox

    async def faults(self) -> dict[str, str]:
        """What keeps each store from working, an empty text when nothing does."""
        return {
            "tenants": await _fault(self.tenants.list_tenants),
            "ledger": await _fault(self.gateway.budget.refresh),
            "jobs": await _fault(self.jobs.probe),
            **({} if self.stores.redis is None else {"redis": await _fault(self.stores.redis.probe)}),
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
    async with opened_beside(config, data) as stores:
        journal, allowances = stores.journal, Allowances(config.tenant_defaults.caps())
        served = config.answered_at("http://127.0.0.1") if config.simulated else config
        pricing = Pricing(price_table(served), journal, models=priced_by(served), providers=served.providers)
        books = Books(
            tenants=_tenants(config, stores.directory),
            statements=journal,
            changes=journal,
            allowances=allowances,
            desk=Desk(allowances, journal, journal),
            deployments=tuple(served.models),
            pricing=pricing,
            outbox=stores.outbox,
            tail=stores.tail,
        )
        await books.refresh()
        yield books


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


async def explained(config: Config, one: str, other: str, *, route: str | None = None) -> Explanation:
    """What a new gateway of this configuration thinks of the question `one` where `other` is in stock. Raises Conflict when it compares
    nothing by meaning, or does so by a provider's model, which only a running server may call."""
    if config.cache.semantic.remote is not None:
        raise Conflict("The configured embedder is a provider's; ask a running server at POST /admin/cache/explain.")
    reads = await reader(config)
    learning = Learning(error_rate=config.cache.semantic.max_error_rate)
    asked = cache(config, MemoryStore(), await embedder(config, reads), verdict(reads, learning))
    try:
        return await asked.explain(one, other, asked.treatment(route or "", CacheTerms(), Wishes()))
    finally:
        await asked.close()
        if reads is not None:
            await reads.close()


async def routed(config: Config, request: ChatRequest, caller: Principal, *, user: str | None = None) -> Routed:
    """What a new gateway of this configuration would do with a request, without asking any model. Raises what planning raises."""
    served = config.answered_at("http://127.0.0.1") if config.simulated else config
    deployments = priced(served, price_table(served))
    routes = {name: route(name, one) for name, one in served.routes.items()}
    asked = Routing(deployments, routes, fleet=Fleet(), fallbacks=fallbacks(served), deciders=deciders(served))
    size = measure(request)
    return await asked.explain(request, caller, user=user, likely=size.likely, most=size.most, expected=PRIOR)


async def routing_outcomes(config: Config, data: Path) -> list[Outcome]:
    """What came of the calls of routes with tiers, oldest first; also beside running servers. Raises OSError or GatewayError."""
    data.mkdir(parents=True, exist_ok=True)
    async with opened_beside(config, data) as stores:
        kept = await OutcomesBehind.open(stores.outcomes)
        try:
            return kept.past()
        finally:
            await kept.close()


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
        prices, words = price_table(config), template(config)
        deployments = priced(config, prices)
        routes = {name: route(name, one) for name, one in config.routes.items()}
        metrics = PrometheusSink(routes=routes, deployments=deployments)
        telemetry = Telemetry([metrics, *log_sinks(config, data)])
        providers = {name: provider(name, one, metrics.embeddings_call) for name, one in config.providers.items()}
        loading = asyncio.create_task(reader(config))
        stores = await stack.enter_async_context(opened(config, data, _alarm(metrics)))
        durable, quick = stores.durable, stores.quick
        ledger, tenants = durable.ledger, _tenants(config, durable.directory)
        budget = Budget(ledger, Allowances(config.tenant_defaults.caps()), census=tenants)
        admin_key = await tenants.ensure_admin()
        lessons = await learnt(config, durable.labels)
        fleet = Fleet(Breakers(on_change=say_breaker), limits(config), on_alarm=upstream_alarm(metrics))
        dispatch = Dispatch(providers, fleet, RetryBudget(), patience(config), hedges=hedges(config))
        asked = deciders(config)
        routing = Routing(deployments, routes, fleet=fleet, fallbacks=fallbacks(config), deciders=asked)
        add_classifier(asked, config, words, routing=routing, budget=budget, dispatch=dispatch, tell=metrics.classifier)
        reads = await loading
        stack.push_async_callback(_let_go, reads)
        compares = await embedder(config, reads) or remote_embedder(config, dispatch, budget, prices)
        tiers = await _tiers(config, quick, reads, compares, lessons.learning)
        grades = grading(config, routing, budget, dispatch)
        gateway = Gateway(
            limits=Limits(quick.counters),
            cache=tiers,
            flights=flights(config, metrics.flight),
            routing=routing,
            budget=budget,
            dispatch=dispatch,
            telemetry=telemetry,
            checking=checking(
                config,
                lessons,
                reader=reads,
                cache=tiers,
                routing=routing,
                budget=budget,
                dispatch=dispatch,
                tell=metrics.shadow_check,
            ),
            outcomes=await _outcomes(config, durable.outcomes, routing, asked, compares, ask=grades),
            sharing=sharing(config),
            relay=quick.relay,
            refuse_unpriced=config.budget.unpriced == "refuse",
        )
        await stack.enter_async_context(gateway)
        await budget.refresh()
        pricing = _pricing(config, prices, ledger, routing)
        await pricing.refresh()
        budget.outputs.recall(await ledger.answers(ANSWERS))
        desk = Desk(budget.allowances, ledger, ledger)
        jobs = await stack.enter_async_context(working(config, durable.jobs, gateway, tenants, metrics))
        engine = Engine(gateway, tenants, metrics, admin_key, desk, pricing, stores, jobs)
        await _attended(stack, config, data, engine)
        yield engine


async def _attended(stack: AsyncExitStack, config: Config, data: Path, engine: Engine) -> None:
    """Begin what goes on beside the calls of an engine until the stack is left."""
    tenants, metrics, stores = engine.tenants, engine.metrics, engine.stores
    ledger, tail, fleet = stores.durable.ledger, stores.durable.tail, engine.gateway.dispatch.fleet
    pumps = running_pumps(config, data, tail=tail, outbox=engine.outbox, tenants=tenants, metrics=metrics)
    await stack.enter_async_context(pumps)
    rounds = Housekeeping(
        engine.gateway,
        tenants,
        metrics,
        ledger,
        tail,
        pricing=engine.pricing,
        jobs=engine.jobs,
        shared=stores.quick.shared,
    ).run()
    stack.push_async_callback(_stopped, asyncio.create_task(rounds))
    await stack.enter_async_context(KvWatch(kv_caches(config), fleet, metrics))
    await stack.enter_async_context(StoreWatch(metrics, redis=stores.redis, postgres=stores.postgres))
    news = stores.quick.news
    if news is not None:
        news.on(hearsay.KIND, hearsay.shared(fleet.breakers, config.models, partial(news.tell, hearsay.KIND)))
        stack.push_async_callback(_stopped, asyncio.create_task(news.run()))


async def _tiers(
    config: Config, quick: Quick, reads: MiniLM | None, compares: Embedder | None, learning: Learning
) -> Cache:
    """The cache, with its files read off the event loop."""
    judges = await asyncio.to_thread(verdict, reads, learning)
    # The first stage tells what is near to nothing that this process has seen; others' answers it knows nothing of.
    alone = quick.shared is None or not quick.shared.compares
    static = await static_table(config) if alone else None
    tiers = cache(config, quick.entries, compares, judges, reads=reads, static=static)
    if quick.shared is not None:
        quick.shared.watch(tiers.refusals.forget)
    return tiers


async def _outcomes(
    config: Config, rows: Rows, routing: Routing, asked: Deciders, embeds: Embedder | None, *, ask: Ask | None
) -> Outcomes | None:
    sees = embeds_for(config)
    return await outcomes(config, rows, routing=routing, deciders=asked, embeds=embeds, sees=sees, ask=ask)


def _pricing(config: Config, prices: PriceTable, ledger: DurableLedger, routing: Routing) -> Pricing:
    """What models cost; a change of it changes what routing reckons with."""
    return Pricing(
        prices,
        ledger,
        models=priced_by(config),
        providers=config.providers,
        on_change=lambda: routing.reprice(priced(config, prices)),
    )


async def _let_go(reads: MiniLM | None) -> None:
    if reads is not None:
        await reads.close()


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _tenants(config: Config, directory: Directory) -> Tenants:
    return Tenants(
        directory,
        defaults=config.tenant_defaults.policy(),
        pepper=os.environ.get("HEADGATE_SECRET"),
        admin_key=os.environ.get("HEADGATE_ADMIN_KEY"),
    )


def _alarm(metrics: PrometheusSink) -> Callable[[Alert], None]:
    def tell(alert: Alert) -> None:
        log.warning("%s has spent %d %% of its budget for %s", alert.account, alert.percent, alert.window)
        metrics.budget_alert(tenant_of(alert.account), kind_of(alert.window), alert.percent)

    return tell
