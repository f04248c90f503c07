"""The sections of a configuration: what may be written, what it means, and what it is when it is not written.

The invariant: a section that exists is sound in itself. Whether the names in it are defined elsewhere is config.py's to check.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainSerializer, model_validator

from headgate.budget.pricing import checked_price
from headgate.config_cache import RouteCacheConfig
from headgate.config_routing import RuleConfig, StickConfig, Ways, twice
from headgate.config_tenants import CoalesceMode, Region
from headgate.config_units import Duration, OffWord, Section, Size, Usd, problem
from headgate.model.errors import InvalidRequest
from headgate.model.money import KINDS, Price
from headgate.model.money import Tier as PriceTier

Tier = Literal["low", "medium", "high"]
Task = Literal["chat", "reasoning", "code", "vision"]
Capability = Literal["tools", "vision", "json"]
Capabilities = Annotated[frozenset[Capability], PlainSerializer(sorted, when_used="json")]
DeciderName = Literal["rules", "features", "knn", "classifier"]
Names = Annotated[tuple[str | tuple[str, ...], ...], Field(min_length=1)]
"""Names, best first; a list among them is a pool, whose members stand for each other."""

_TIERS = ("low", "medium", "high")


class LimitsConfig(Section):
    """What one request may weigh."""

    body: Size = Field(default=4 * 1024 * 1024, description="Largest request body.", gt=0)
    messages: int = Field(default=512, description="Most messages in a chat request.", gt=0)
    tools: int = Field(default=128, description="Most tools in a chat request.", gt=0)
    depth: int = Field(default=64, description="Deepest nesting of the JSON.", gt=0, le=512)


class ServerConfig(Section):
    """Where the gateway listens and what it accepts. `headgate serve --host --port` win over it."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all.", min_length=1)
    port: int = Field(default=8000, description="Port to listen on; 0 takes a free one.", ge=0, le=65_535)
    budget_status: Literal[402, 429] = Field(
        default=402, description="HTTP status of an exhausted budget; 429 for clients that know nothing else."
    )
    slow_reader: Duration = Field(
        default=30.0,
        description="How long a client may leave what waits for it unread (64 KB, of which it is to take half) before it loses its"
        " connection.",
        gt=0,
    )
    limits: LimitsConfig = Field(default=LimitsConfig(), description="Bounds of one request.")


class RatesConfig(Section):
    """USD for a million tokens of each kind. A kind without a price of its own costs what it is a part of."""

    input: Usd = Field(description="Prompt tokens.")
    output: Usd = Field(description="Completion tokens.")
    cached_input: Usd | None = Field(default=None, description="Prompt tokens read from the provider's cache.")
    cache_write: Usd | None = Field(default=None, description="Prompt tokens written to the provider's cache.")
    cache_write_hour: Usd | None = Field(default=None, description="Those of them that are kept for an hour.")
    reasoning: Usd | None = Field(default=None, description="Completion tokens that are thoughts.")
    audio_input: Usd | None = Field(default=None, description="Sound in the prompt.")
    audio_cached: Usd | None = Field(default=None, description="Sound read from the provider's cache.")
    audio_output: Usd | None = Field(default=None, description="Sound in the answer.")
    image_input: Usd | None = Field(default=None, description="Images and documents in the prompt.")
    image_cached: Usd | None = Field(default=None, description="Images read from the provider's cache.")
    image_output: Usd | None = Field(default=None, description="Images in the answer.")
    video_input: Usd | None = Field(default=None, description="Video in the prompt.")
    video_output: Usd | None = Field(default=None, description="Video in the answer.")
    citation: Usd | None = Field(default=None, description="Completion tokens that are citations.")

    def rates(self) -> dict[str, Any]:
        """Each kind's price in nano-USD for a million tokens."""
        return {kind: getattr(self, kind) for kind in KINDS}


class TierConfig(RatesConfig):
    """What all tokens of a call cost when its prompt is long."""

    above: int = Field(description="Prompts with more tokens than this.", gt=0)


class PriceConfig(RatesConfig):
    """What calls cost."""

    call: Usd = Field(default=0, description="USD for each call, whatever its size.")
    search: Usd = Field(default=0, description="USD for each search of the web.")
    searches: int = Field(
        default=0, description="Searches to hold for a call that searches without having been asked to.", ge=0
    )
    tiers: tuple[TierConfig, ...] = Field(default=(), description="Other prices for long prompts.")

    @model_validator(mode="after")
    def _chargeable(self) -> Self:
        try:
            checked_price(self.price())
        except InvalidRequest as error:
            raise problem((error.param or "",), error.message) from None
        return self

    def price(self) -> Price:
        """The same as a value of the ledger."""
        tiers = tuple(PriceTier(above=tier.above, **tier.rates()) for tier in self.tiers)
        return Price(**self.rates(), call=self.call, search=self.search, searches=self.searches, tiers=tiers)


class BudgetConfig(Section):
    """What budgets do about models whose price nobody knows."""

    unpriced: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="A model without a price, asked for by a tenant whose money is limited: `refuse` the call, or `allow` it and"
        " count it as nothing (`headgate_unpriced_tokens_total` shows how much that was).",
    )


class ModelConfig(Section):
    """A model that can be called, under the name that callers use."""

    provider: str = Field(description="A name under `providers`.")
    model: str | None = Field(
        default=None, description="The provider's own name for it. Default: the name here.", min_length=1
    )
    context_window: int = Field(
        default=128_000,
        description="Tokens that prompt and answer may have together. Default: as listed with its price, else this.",
        gt=0,
    )
    max_output: int = Field(
        default=4_096, description="Most tokens of an answer, and what is asked for when the caller does not say.", gt=0
    )
    capabilities: Capabilities = Field(default=frozenset({"tools", "json"}), description="What it can do.")
    price: PriceConfig | None = Field(default=None, description="What it costs. Default: the built-in price table.")
    weight: float = Field(
        default=1.0, description="Its share of the calls where it is one of several in a pool.", gt=0, le=1_000
    )
    rpm: int | None = Field(
        default=None,
        description="Requests a minute that it is sent at most. Default: as its provider's answers say.",
        gt=0,
    )
    tpm: int | None = Field(
        default=None,
        description="Tokens a minute, counted as prompt and longest answer until the answer is there."
        " Default: as its provider's answers say.",
        gt=0,
    )
    concurrency: int = Field(
        default=10_000, description="Calls that it is sent at a time at most; how many it bears is found out.", gt=0
    )
    region: Region | None = Field(
        default=None, description="Where it works on what it is sent. Default: as its provider's `region` says."
    )
    fallbacks: tuple[str, ...] = Field(
        default=(), description="Names under `models` to try in its place when it fails and was asked for by name."
    )


class RouteConfig(Section):
    """A public model name that leads to models: one list, or one for each tier of difficulty."""

    models: Names | None = Field(
        default=None,
        description="Names under `models`, best first. A list in the place of a name is a pool: its models stand for each other and"
        " share the calls by weight, latency and load. Either this or `tiers`.",
    )
    tiers: dict[Tier, Names] | None = Field(default=None, description="Such a list for each of low, medium and high.")
    tasks: dict[Task, Names] = Field(
        default={}, description="Models that go first for chat, reasoning, code or vision."
    )
    default_tier: Tier = Field(default="medium", description="The tier of a question that the router cannot judge.")
    deciders: tuple[DeciderName, ...] = Field(
        default=("rules", "features"),
        description="Who is asked which tier a question deserves, the cheapest first: `rules`, `features`, `knn`, `classifier`. The first"
        " that is sure decides.",
    )
    rules: tuple[RuleConfig, ...] = Field(
        default=(), description="What is known beforehand: the first rule that fits decides."
    )
    ceiling: Tier = Field(
        default="high",
        description="The highest tier that a guess may choose; rules, a tenant's own tier and fallbacks may go above it.",
    )
    explore: float = Field(
        default=0.01,
        description="Share of its questions that go to another tier by chance, so that what comes of them can be compared. Never where a"
        " person has chosen, nor above the ceiling. 0: none.",
        ge=0,
        le=0.2,
    )
    uplift: Path | None = Field(
        default=None,
        description="A file that `headgate route train` has written: what `knn` believes before a tenant's own outcomes count.",
    )
    stick: StickConfig = Field(default=StickConfig(), description="How conversations keep to a tier and to a model.")
    overflow: Ways = Field(
        default=("larger",),
        description="What is done about a prompt that takes more than 80 % of a model's window, in this order: `larger` lets a model go first"
        " that has more room, `prune` leaves out the oldest turns, `condense` puts a summary in their place (or prunes them), `refuse`"
        " is an error. What still fits is sent whole where nothing else is left.",
    )
    condenser: str | None = Field(
        default=None, description="The name under `models` that writes these summaries, at the caller's expense."
    )
    hedge: float = Field(
        default=0.0,
        description="Share of its calls, 0 to 1, that may be made twice: when an answer takes longer to begin than 95 % of the last ones,"
        " the next model is asked beside the first, whoever begins first answers, and both are paid. 0: never.",
        ge=0,
        le=1,
    )
    cache: RouteCacheConfig = Field(
        default=RouteCacheConfig(), description="How the cache treats its calls, where that differs from `cache`."
    )
    coalesce: CoalesceMode | None = Field(
        default=None, description="Which of its calls share one in flight, where that is stricter than `coalesce.mode`."
    )

    @model_validator(mode="after")
    def _either(self) -> Self:
        if bool(self.models) == bool(self.tiers):
            raise problem((), "needs either models or tiers")
        if (self.condenser is None) == ("condense" in self.overflow):
            raise problem(("condenser",), "is a model where overflow says condense, and nowhere else")
        for name in ("default_tier", "deciders", "rules", "ceiling", "explore", "uplift"):
            if self.models and name in self.model_fields_set:
                raise problem((name,), "needs tiers, and this route has none")
        if _TIERS.index(self.default_tier) > _TIERS.index(self.ceiling):
            raise problem(("ceiling",), "is below the default_tier")
        for name, names in (("deciders", self.deciders), ("rules", tuple(rule.name for rule in self.rules))):
            if (index := twice(names)) is not None:
                raise problem((name, index), f"'{names[index]}' comes twice")
        if self.rules and "rules" not in self.deciders:
            raise problem(("rules",), "are not asked; add rules to deciders")
        if self.uplift is not None and "knn" not in self.deciders:
            raise problem(("uplift",), "is what knn knows; add knn to deciders")
        return self

    def names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Every model this route names, with where it does."""
        for at, name in _each(self.models or ()):
            yield ("models", *at), name
        for key, lists in (("tiers", self.tiers or {}), ("tasks", self.tasks)):
            for kind, names in lists.items():
                for at, name in _each(names):
                    yield (key, kind, *at), name

    def pools(self) -> tuple[tuple[str, ...], ...]:
        """The models that stand for each other, wherever this route says so."""
        lists = (self.models or (), *(self.tiers or {}).values(), *self.tasks.values())
        return tuple(dict.fromkeys(entry for names in lists for entry in names if isinstance(entry, tuple)))


def flat(names: Names) -> tuple[str, ...]:
    """The names, those of pools among them."""
    return tuple(name for _, name in _each(names))


def _each(names: Names) -> Iterator[tuple[tuple[int, ...], str]]:
    for index, entry in enumerate(names):
        if isinstance(entry, str):
            yield (index,), entry
        else:
            yield from (((index, place), name) for place, name in enumerate(entry))


class CoalesceConfig(Section):
    """Whether requests in flight share one provider call."""

    mode: CoalesceMode = Field(
        default="semantic",
        description="`off` shares nothing, `exact` identical requests of one tenant, `semantic` also those that mean the same.",
    )
    max_followers: int = Field(
        default=1_000, description="Most requests that join one call; the next begins another.", ge=0
    )
    patience: Duration = Field(
        default=5.0,
        description="How long a caller waits for the first part of another's answer before it makes a call of its own. For answers "
        "that do not stream it is longer where those of the route usually take longer.",
        gt=0,
    )
    oldest: Duration = Field(default=60.0, description="The age of a call from which on nobody joins it.", gt=0)
    longest: Size = Field(default=1 << 20, description="The size of an answer from which on nobody joins it.", gt=0)
    drain: Duration = Field(
        default=30.0,
        description="How long a call goes on that everyone has left, under `abandoned: finish`; then it is cancelled.",
        ge=0,
    )


class DispatchConfig(Section):
    """How long and how often a call is tried."""

    total: Duration = Field(default=600.0, description="A whole call, all attempts together.", gt=0)
    attempts: int = Field(default=3, description="Tries of a call at most, at all models together.", ge=1, le=10)
    line: Duration = Field(
        default=1.0, description="How long a busy model is waited for before the next is asked.", ge=0
    )
    retries: int = Field(
        default=1, description="Further tries at the same model, within a budget shared by all calls.", ge=0, le=10
    )
    backoff: Duration = Field(default=0.25, description="Longest wait before the first retry; doubles with each.", gt=0)
    longest_wait: Duration = Field(
        default=5.0, description="A provider that asks for a longer wait is not waited for.", gt=0
    )


class TelemetryConfig(Section):
    """Where the record of each call goes."""

    log: Annotated[str, OffWord] = Field(
        default="stderr", description="`stderr`, `off`, or the path of a file in the data directory.", min_length=1
    )
