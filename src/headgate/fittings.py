"""Fittings: each part of a gateway as its section of the configuration describes it. Used by assembly alone."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headgate.budget.estimate import measure_input
from headgate.budget.prices import PriceTable
from headgate.budget.reservation import Budget
from headgate.cache.cache import CacheStore, Embedder
from headgate.cache.embedders import MiniLM, RemoteEmbedder
from headgate.cache.learning import Learning
from headgate.cache.local import load as load_local
from headgate.cache.reading import EmbedderUnavailable, Reader
from headgate.cache.tiers import PATIENCE, Cache
from headgate.cache.treatment import CachePolicy, RoutePolicy
from headgate.cache.verdict import CalibratedVerdict, Verdict
from headgate.coalesce.coalesce import Flight, Flights
from headgate.coalesce.patience import Patience as FirstPart
from headgate.coalesce.sharing import Sharing
from headgate.coalesce.trail import Trail
from headgate.config import Config, ModelConfig, ProviderConfig, RouteConfig
from headgate.config_cache import LocalEmbedderConfig
from headgate.config_sections import flat
from headgate.dispatch import Dispatch, Patience
from headgate.model.deployment import Deployment
from headgate.model.ids import Ids
from headgate.model.tenancy import Policy
from headgate.providers.anthropic import Anthropic
from headgate.providers.batched import Batched
from headgate.providers.endpoint import Endpoint
from headgate.providers.http import Timeouts
from headgate.providers.kv_cache import KvCache
from headgate.providers.lanes import Bounds
from headgate.providers.litellm import LiteLLM
from headgate.providers.openai import OpenAI
from headgate.providers.provider import Provider
from headgate.routing.fleet import Limits
from headgate.routing.plan import embedding_plan
from headgate.routing.retries import RetryBudget
from headgate.routing.routing import Route
from headgate.telemetry.log import LogSink
from headgate.telemetry.telemetry import Sink

if TYPE_CHECKING:
    from headgate.cache.static import FirstStage, StaticEmbedder

log = logging.getLogger(__name__)

PROVIDERS: Mapping[str, Callable[[Endpoint], Provider]] = {"openai": OpenAI, "anthropic": Anthropic}
EMBEDDING_SECONDS = 2.0
"""How long a provider may take to embed a question. It is not waited for as long as the built-in model, which is only busy when it is late."""
HEDGE_SECONDS = 60.0
"""Time over which the share of calls that were made twice is reckoned."""


def price_table(config: Config) -> PriceTable:
    """The table that ships with this package, and what a configuration says instead."""
    return PriceTable.load(
        overrides={path: price.price() for path, price in config.prices.items()},
        models={name: model.price.price() for name, model in config.models.items() if model.price is not None},
    )


def priced(config: Config, prices: PriceTable) -> dict[str, Deployment]:
    """All models of a configuration, at their present prices."""
    return {
        name: deployment(name, model, prices, config.providers[model.provider].region)
        for name, model in config.models.items()
    }


def priced_by(config: Config) -> dict[str, tuple[str, str]]:
    """The provider and its name of every model, by public name: what its price is looked up by."""
    return {name: (model.provider, model.model or name) for name, model in config.models.items()}


def deployment(name: str, model: ModelConfig, prices: PriceTable, region: str | None) -> Deployment:
    """A model that can be called, with its price, and its window as configured, else as listed; `region` is its provider's."""
    upstream = model.model or name
    listed = prices.listing(model.provider, upstream, name)
    window = model.context_window
    if listed is not None and listed.context_window is not None and "context_window" not in model.model_fields_set:
        window = listed.context_window
    return Deployment(
        name=name,
        provider=model.provider,
        model=upstream,
        price=None if listed is None else listed.price,
        prices="" if listed is None else prices.digest,
        context_window=window,
        max_output=model.max_output,
        capabilities=frozenset(model.capabilities),
        region=model.region or region,
    )


def route(name: str, route: RouteConfig) -> Route:
    """A public name; one list of models serves all tiers."""
    tasks = {task: flat(names) for task, names in route.tasks.items()}
    if route.tiers is not None:
        tiers = {tier: flat(names) for tier, names in route.tiers.items()}
        return Route(
            name,
            tiers,
            tasks,
            route.default_tier,
            route.deciders,
            pools=route.pools(),
            explore=route.explore,
            ceiling=route.ceiling,
            stick=route.stick.idle,
            overflow=route.overflow,
            condenser=route.condenser,
        )
    models = flat(route.models or ())
    return Route(
        name,
        {"low": models, "medium": models, "high": models},
        tasks,
        pools=route.pools(),
        stick=route.stick.idle,
        overflow=route.overflow,
        condenser=route.condenser,
    )


def fallbacks(config: Config) -> dict[str, tuple[str, ...]]:
    """The models that stand in for others, by these."""
    return {name: model.fallbacks for name, model in config.models.items() if model.fallbacks}


def provider(name: str, one: ProviderConfig, tell: Callable[[str, int, int], None]) -> Provider:
    """The adapter of a provider's kind, which puts calls for embeddings together; `tell` hears of each of these, as `Batched` says. Raises
    ValueError where it cannot be used."""
    bounds = Bounds(items=one.embeddings.items, tokens=one.embeddings.tokens, delay=one.embeddings.delay)
    return Batched(_adapter(name, one), bounds, weigh=lambda given: measure_input(given).likely, tell=tell)


def _adapter(name: str, one: ProviderConfig) -> Provider:
    if one.kind == "litellm":
        return LiteLLM(endpoint(name, one), options={key: it.get_secret_value() for key, it in one.options.items()})
    return PROVIDERS[one.kind](endpoint(name, one))


def endpoint(name: str, one: ProviderConfig) -> Endpoint:
    """Where a provider is and how it is spoken to."""
    return Endpoint(
        name=name,
        base_url=one.base_url,
        api_key=None if one.api_key is None else one.api_key.get_secret_value(),
        headers={header: value.get_secret_value() for header, value in one.headers.items()},
        allow_private=one.allow_private,
        timeouts=Timeouts(connect=one.timeouts.connect, first_byte=one.timeouts.first_byte, idle=one.timeouts.idle),
    )


def patience(config: Config) -> Patience:
    """How long and how often calls are tried."""
    asked = config.dispatch
    return Patience(
        total=asked.total,
        attempts=asked.attempts,
        retries=asked.retries,
        backoff=asked.backoff,
        longest_wait=asked.longest_wait,
        line=asked.line,
    )


def limits(config: Config) -> dict[str, Limits]:
    """How much each model is given."""
    return {
        name: Limits(weight=one.weight, rpm=one.rpm, tpm=one.tpm, concurrency=one.concurrency)
        for name, one in config.models.items()
    }


def hedges(config: Config) -> dict[str, RetryBudget]:
    """Which routes may make calls twice, and how many of them."""
    return {
        name: RetryBudget(share=one.hedge, reserve_per_second=0.0, seconds=HEDGE_SECONDS)
        for name, one in config.routes.items()
        if one.hedge
    }


def kv_caches(config: Config) -> dict[KvCache, dict[str, str]]:
    """The servers whose memory for prompts is watched, each with its models: public names by the server's own."""
    return {
        KvCache(endpoint(name, one)): {
            public: model.model or public for public, model in config.models.items() if model.provider == name
        }
        for name, one in config.providers.items()
        if one.kv_metrics
    }


def flights(config: Config, tell: Callable[..., None]) -> Flights:
    """Calls in flight, and who may join them; `tell` hears of each that is over, as `PrometheusSink.flight` says."""
    said = config.coalesce

    def ended(flight: Flight) -> None:
        tell(
            exact=flight.followers - flight.twins,
            semantic=flight.twins,
            abandoned=flight.left,
            failed=bool(flight.followers) and flight.error is not None and not (flight.begun or flight.left),
            alone=flight.alone,
        )

    return Flights(
        max_followers=said.max_followers,
        drain=said.drain,
        oldest=said.oldest,
        longest=said.longest,
        patience=FirstPart(said.patience),
        ended=ended,
    )


def sharing(config: Config) -> Sharing:
    """Which calls share one in flight."""
    routes = {name: one.coalesce for name, one in config.routes.items() if one.coalesce is not None}
    return Sharing(config.coalesce.mode, routes)


def cache(
    config: Config,
    store: CacheStore,
    compares: Embedder | None,
    judges: Verdict | None,
    *,
    reads: Reader | None = None,
    static: StaticEmbedder | None = None,
    now: Callable[[], float] = time.time,
    patience: float = PATIENCE,
) -> Cache:
    """Both tiers over a store; `compares` turns questions into vectors and `judges` says what may be served: without one of them
    nothing is served by meaning. `reads` tells what conversations are about, `static` is for the first stage. `now` is the store's clock,
    `patience` how long a vector is waited for, in seconds."""
    return Cache(
        store,
        compares,
        judges,
        cache_policy(config),
        routes=route_policies(config),
        reader=reads,
        stage=None if static is None else first_stage(static),
        sees=embeds_for(config),
        now=now,
        patience=patience,
    )


def embeds_for(config: Config) -> Callable[[Policy], bool]:
    """Whether the embedder may see what a tenant of a policy asks: one in this process always, a provider's where that works."""
    remote = config.cache.semantic.remote
    if remote is None:
        return lambda _: True
    region = config.providers[remote.provider].region
    return lambda policy: policy.admits(region)


def first_stage(static: StaticEmbedder) -> FirstStage:
    """What spares the model where nothing is near."""
    from headgate.cache.static import FirstStage  # late: numpy, which `static` has loaded by now

    return FirstStage(static)


async def static_table(config: Config) -> StaticEmbedder | None:
    """The word vectors of the first stage, where one is wanted. If they cannot be loaded, the model is always asked."""
    if config.cache.semantic.mode == "off" or config.cache.semantic.first_stage == "off":
        return None

    def load() -> StaticEmbedder:
        from headgate.cache.static import (
            StaticEmbedder,
        )  # late: numpy, which costs the start's first thread nothing here

        return StaticEmbedder.load()

    try:
        return await asyncio.to_thread(load)
    except EmbedderUnavailable as error:
        log.warning("the semantic cache has no first stage: %s", error)
        return None


def cache_policy(config: Config) -> CachePolicy:
    """What is said of the cache for every call."""
    asked = config.cache
    return CachePolicy(
        exact=asked.exact.mode == "on",
        exact_ttl=asked.exact.ttl,
        semantic=asked.semantic.mode,
        semantic_ttl=asked.semantic.ttl,
        conversation=asked.semantic.conversation,
        error_rate=asked.semantic.max_error_rate,
        stale=asked.exact.stale,
        refusals=asked.refusals,
    )


def route_policies(config: Config) -> dict[str, RoutePolicy]:
    """What each route says of the cache, by its name."""
    return {
        name: RoutePolicy(
            exact_ttl=one.cache.exact_ttl,
            semantic=one.cache.mode,
            semantic_ttl=one.cache.ttl,
            conversation=one.cache.conversation,
            error_rate=one.cache.max_error_rate,
            strategy=one.cache.strategy,
        )
        for name, one in config.routes.items()
    }


async def reader(config: Config) -> MiniLM | None:
    """The built-in model, which reads what the verdict judges. If it cannot be loaded, that costs the semantic tier, never the start."""
    if config.cache.semantic.mode == "off":
        return None
    try:
        return await asyncio.to_thread(MiniLM.load)
    except EmbedderUnavailable as error:
        log.warning("the semantic cache is off: %s", error)
        return None


def verdict(reads: Reader | None, learning: Learning) -> Verdict | None:
    """What judges by a reader, the shipped prior and what was learnt; None where there is no reader, or no prior that fits it. Reads
    files."""
    if reads is None:
        return None
    from headgate.cache.prior import Prior, PriorUnavailable  # late: numpy, which the reader has loaded by now

    try:
        return CalibratedVerdict(reads, Prior.load(), learning)
    except PriorUnavailable as error:
        log.warning("the semantic cache is off: %s", error)
        return None


async def embedder(config: Config, reads: MiniLM | None) -> Embedder | None:
    """The model in this process that turns questions into vectors: the built-in one, which `reads`, or a library's; None where it is a
    provider's, or cannot be loaded."""
    asked = config.cache.semantic
    if asked.mode == "off" or asked.remote is not None:
        return None
    if not isinstance(asked.embedder, LocalEmbedderConfig):
        return reads
    one = asked.embedder
    try:
        return await asyncio.to_thread(load_local, one.kind, one.model, revision=one.revision, path=one.path)
    except EmbedderUnavailable as error:
        log.warning("the semantic cache is off: %s", error)
        return None


def remote_embedder(config: Config, dispatch: Dispatch, budget: Budget, prices: PriceTable) -> Embedder | None:
    """A provider's model that does so. Its calls are in the journal under the operator's own name: no tenant asked for them."""
    remote, new_id = config.cache.semantic.remote, Ids()
    if config.cache.semantic.mode == "off" or remote is None:
        return None

    async def post(body: bytes) -> bytes:
        asked = msgspec.json.decode(body)
        price = prices.find(remote.provider, remote.model)
        deployment = Deployment(
            name=remote.model,
            provider=remote.provider,
            model=remote.model,
            price=price,
            prices="" if price is None else prices.digest,
        )
        size = measure_input(asked["input"])
        plan = embedding_plan("", deployment, likely=size.likely, most=size.most)
        bracket = budget.for_operator(new_id(), feature="cache", ceiling=plan.ceiling)
        async with asyncio.timeout(EMBEDDING_SECONDS), bracket as reservation:
            return msgspec.json.encode(await dispatch.embed(plan, asked, reservation, Trail()))

    return RemoteEmbedder(post, model=f"{remote.provider}/{remote.model}", dimensions=remote.dimensions)


def log_sinks(config: Config, data: Path) -> list[Sink]:
    """Where records are written, if anywhere."""
    where = config.telemetry.log
    if where == "off":
        return []
    return [LogSink(sys.stderr.buffer) if where == "stderr" else LogSink.to_file(data / where)]
