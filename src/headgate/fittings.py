"""Fittings: each part of a gateway as its section of the configuration describes it. Used by assembly alone."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from headgate.budget.estimate import measure_input
from headgate.budget.prices import PriceTable
from headgate.budget.reservation import Budget
from headgate.cache.cache import CachePolicy, Embedder
from headgate.cache.embedders import EmbedderUnavailable, MiniLM, RemoteEmbedder
from headgate.coalesce import Trail
from headgate.config import Config, ModelConfig, ProviderConfig, RouteConfig
from headgate.dispatch import Dispatch, Patience
from headgate.model.deployment import Deployment
from headgate.model.ids import Ids
from headgate.providers.anthropic import Anthropic
from headgate.providers.endpoint import Endpoint
from headgate.providers.http import Timeouts
from headgate.providers.openai import OpenAI
from headgate.providers.provider import Provider
from headgate.routing.plan import embedding_plan
from headgate.routing.routing import Route
from headgate.telemetry.log import LogSink
from headgate.telemetry.telemetry import Sink

log = logging.getLogger(__name__)

PROVIDERS: Mapping[str, Callable[[Endpoint], Provider]] = {"openai": OpenAI, "anthropic": Anthropic}
EMBEDDING_SECONDS = 5.0


def price_table(config: Config) -> PriceTable:
    """The table that ships with this package, and what a configuration says instead."""
    return PriceTable.load(
        overrides={path: price.price() for path, price in config.prices.items()},
        models={name: model.price.price() for name, model in config.models.items() if model.price is not None},
    )


def priced(config: Config, prices: PriceTable) -> dict[str, Deployment]:
    """All models of a configuration, at their present prices."""
    return {name: deployment(name, model, prices) for name, model in config.models.items()}


def priced_by(config: Config) -> dict[str, tuple[str, str]]:
    """The provider and its name of every model, by public name: what its price is looked up by."""
    return {name: (model.provider, model.model or name) for name, model in config.models.items()}


def deployment(name: str, model: ModelConfig, prices: PriceTable) -> Deployment:
    """A model that can be called, with its price, and its window as configured, else as listed."""
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
    )


def route(name: str, route: RouteConfig) -> Route:
    """A public name; one list of models serves all tiers."""
    if route.tiers is not None:
        return Route(name, dict(route.tiers), dict(route.tasks), route.default_tier)
    models = route.models or ()
    return Route(name, {"low": models, "medium": models, "high": models}, dict(route.tasks))


def provider(name: str, one: ProviderConfig) -> Provider:
    """The adapter of a provider's kind."""
    endpoint = Endpoint(
        name=name,
        base_url=one.base_url,
        api_key=None if one.api_key is None else one.api_key.get_secret_value(),
        headers={header: value.get_secret_value() for header, value in one.headers.items()},
        allow_private=one.allow_private,
        timeouts=Timeouts(connect=one.timeouts.connect, first_byte=one.timeouts.first_byte, idle=one.timeouts.idle),
    )
    return PROVIDERS[one.kind](endpoint)


def patience(config: Config) -> Patience:
    """How long and how often calls are tried."""
    asked = config.dispatch
    return Patience(total=asked.total, retries=asked.retries, backoff=asked.backoff, longest_wait=asked.longest_wait)


def cache_policy(config: Config) -> CachePolicy:
    """Which tiers of the cache answer, and for how long."""
    asked = config.cache
    return CachePolicy(
        exact=asked.exact.mode == "on",
        exact_ttl=asked.exact.ttl,
        semantic_ttl=asked.semantic.ttl,
        semantic=asked.semantic.mode,
    )


async def embedder(config: Config) -> Embedder | None:
    """The built-in model that turns questions into vectors. If it cannot be loaded, that costs the semantic tier, never the start."""
    asked = config.cache.semantic
    if asked.mode == "off" or asked.embedder != "minilm":
        return None
    try:
        return await asyncio.to_thread(MiniLM.load)
    except EmbedderUnavailable as error:
        log.warning("the semantic cache is off: %s", error)
        return None


def remote_embedder(config: Config, dispatch: Dispatch, budget: Budget, prices: PriceTable) -> Embedder | None:
    """A provider's model that does so. Its calls are in the journal under the operator's own name: no tenant asked for them."""
    asked, new_id = config.cache.semantic, Ids()
    if asked.mode == "off" or asked.embedder == "minilm":
        return None
    remote = asked.embedder

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
