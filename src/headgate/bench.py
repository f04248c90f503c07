"""Bench: the cache by itself, in memory, with what it learns by and what its answers cost, for those who measure it.

The same parts as in a gateway of this configuration; what differs is that nothing is kept, no provider is asked, and the clock is the
caller's. `assembly` opens everything else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from headgate.cache.cache import Embedder
from headgate.cache.checks import Checks, Ration
from headgate.cache.judge import ExactJudge, Judge, Judges, MeaningJudge
from headgate.cache.learning import Learning
from headgate.cache.memory import MemoryStore
from headgate.cache.reading import Reader
from headgate.cache.tiers import Cache
from headgate.config import Config
from headgate.fittings import cache, embedder, price_table, priced_by, reader, static_table, verdict
from headgate.model.errors import Conflict
from headgate.model.money import Price

if TYPE_CHECKING:
    from headgate.cache.static import StaticEmbedder

PATIENCE = 60.0
"""Seconds that a vector may take: who measures would rather wait than count a slow machine as a miss."""


VENDORS = ("openai", "anthropic", "google", "mistral", "deepseek", "x-ai")
"""Whose price lists are looked into, in this order, for a model of which only the name is known."""


class Models(msgspec.Struct, frozen=True):
    """What reads questions for the verdict, and what turns them into vectors; both None where the semantic tier is off. `static`: the word
    vectors of the first stage, where there is one."""

    reads: Reader | None
    compares: Embedder | None
    static: StaticEmbedder | None = None


class Bench(msgspec.Struct, frozen=True):
    """A cache, and what it learns by: `learning` is None where nothing is learnt. `judge` compares texts of answers, and asks nobody."""

    cache: Cache
    learning: Learning | None
    checks: Checks
    judge: Judge


@asynccontextmanager
async def open_models(config: Config) -> AsyncIterator[Models]:
    """The models of this process that a configuration names. Raises Conflict where the embedder is a provider's, or one cannot be
    loaded."""
    if config.cache.semantic.mode == "off":
        yield Models(None, None)
        return
    if config.cache.semantic.remote is not None:
        raise Conflict("The configured embedder is a provider's; only one of this process can be measured.")
    reads = await reader(config)
    compares = await embedder(config, reads)
    try:
        if reads is None or compares is None:
            raise Conflict("A model of the semantic cache cannot be loaded, so there is nothing to measure.")
        yield Models(reads, compares, await static_table(config))
    finally:
        for model in (reads, compares):
            if model is not None:
                await model.close()


def bench(config: Config, models: Models, *, now: Callable[[], float], seed: str = "", learns: bool = True) -> Bench:
    """An empty cache as configured; the models may be shared by several. `now` is the clock of everything, and `seed` draws what is
    checked. Raises Conflict where the shipped prior cannot be used."""
    asked = config.cache.semantic
    store = MemoryStore(
        entries_per_tenant=config.cache.entries_per_tenant,
        bytes_per_tenant=config.cache.bytes_per_tenant,
        bytes_total=config.cache.bytes,
        now=now,
    )
    learning = Learning(error_rate=asked.max_error_rate)
    judges = verdict(models.reads, learning)
    if judges is None and models.reads is not None:
        raise Conflict("The prior of the semantic cache cannot be used, so there is nothing to measure.")
    ration = Ration(share=asked.checks.share, money=asked.checks.budget)
    by_meaning = [MeaningJudge(models.compares)] if models.compares and asked.checks.judge != "exact" else []
    return Bench(
        cache=cache(
            config,
            store,
            models.compares,
            judges,
            reads=models.reads,
            static=models.static,
            now=now,
            patience=PATIENCE,
        ),
        learning=learning if learns else None,
        checks=Checks(ration, seed=seed, now=now),
        judge=Judges([ExactJudge(), *by_meaning]),
    )


def prices_of(config: Config) -> Callable[[str], Price | None]:
    """What a model costs, by its public name, as `provider/model`, or by a vendor's name for it; None when nobody knows."""
    served = config.answered_at("http://127.0.0.1") if config.simulated else config
    table, named = price_table(served), priced_by(served)

    def find(model: str) -> Price | None:
        if model in named:
            return table.find(*named[model], model)
        provider, found, name = model.partition("/")
        places = [(provider, name)] if found else [(vendor, model) for vendor in VENDORS]
        return next((price for place in places if (price := table.find(*place)) is not None), None)

    return find
