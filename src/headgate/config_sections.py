"""The sections of a configuration: what may be written, what it means, and what it is when it is not written.

The invariant: a section that exists is sound in itself. Whether the names in it are defined elsewhere is config.py's to check.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainSerializer, SecretStr, model_validator

from headgate.budget.pricing import checked_price
from headgate.config_cache import RouteCacheConfig
from headgate.config_units import Cap, Duration, OffWord, Section, Size, Usd, problem
from headgate.model.errors import InvalidRequest
from headgate.model.money import KINDS, Price
from headgate.model.money import Tier as PriceTier
from headgate.model.tenancy import Caps, Policy
from headgate.model.zones import zone_of
from headgate.providers.egress import origin_of

Tier = Literal["low", "medium", "high"]
Task = Literal["chat", "reasoning", "code", "vision"]
Capability = Literal["tools", "vision", "json"]
Capabilities = Annotated[frozenset[Capability], PlainSerializer(sorted, when_used="json")]
Names = Annotated[tuple[str, ...], Field(min_length=1)]

BASE_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com/v1"}


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


class StorageConfig(Section):
    """Where tenants, keys and the ledger are kept."""

    url: str = Field(
        default="sqlite:///headgate.db",
        description="`sqlite:///file` lies in the data directory, `sqlite:////file` is an absolute path.",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        scheme, found, path = self.url.partition(":///")
        if scheme.startswith("postgres"):
            raise problem(("url",), "PostgreSQL is not available in this version; use sqlite:///headgate.db")
        if scheme != "sqlite" or not found or path.endswith("/") or not path:
            raise problem(("url",), "must be a storage URL such as sqlite:///headgate.db")
        return self

    def path(self, directory: Path) -> Path:
        """The database file, given the data directory."""
        return directory / self.url.partition(":///")[2]


class TimeoutsConfig(Section):
    """How long one attempt at a provider may be silent."""

    connect: Duration = Field(default=5.0, description="Until the connection stands.", gt=0)
    first_byte: Duration = Field(default=60.0, description="Until the answer begins.", gt=0)
    idle: Duration = Field(default=60.0, description="Between two pieces of the answer.", gt=0)


class BatchConfig(Section):
    """How much of one tenant's calls for embeddings goes to a provider together."""

    items: int = Field(
        default=32,
        description="Most inputs of a call that several share; with 1 every call goes by itself.",
        ge=1,
        le=2_048,
    )
    tokens: int = Field(default=100_000, description="Most tokens of it, as estimated.", gt=0)
    delay: Duration = Field(
        default=0.002,
        description="How long an input waits for others at most while a call is under way; the first one never waits.",
        ge=0,
        le=1,
    )


class ProviderConfig(Section):
    """A server that speaks OpenAI's or Anthropic's wire format."""

    kind: Literal["openai", "anthropic"] = Field(description="Wire format.")
    base_url: str = Field(
        default="",
        description="Where its API is, up to what every path begins with."
        f" Default: {BASE_URLS['openai']} or {BASE_URLS['anthropic']}, by kind.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="Its API key; take it from the environment: ${OPENAI_API_KEY}."
    )
    headers: dict[str, SecretStr] = Field(default={}, description="Further headers of every request to it.")
    allow_private: bool = Field(default=False, description="Allow addresses of this machine and of private networks.")
    timeouts: TimeoutsConfig = Field(default=TimeoutsConfig(), description="How long it may be silent.")
    embeddings: BatchConfig = Field(default=BatchConfig(), description="Which calls for embeddings share one.")

    @model_validator(mode="before")
    @classmethod
    def _address(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("base_url") and value.get("kind") in BASE_URLS:
            return {**value, "base_url": BASE_URLS[value["kind"]]}
        return value

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        try:
            origin_of(self.base_url, allow_private=self.allow_private)
        except ValueError as error:
            raise problem(("base_url",), str(error)) from None
        return self


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
    fallbacks: tuple[str, ...] = Field(
        default=(), description="Names under `models` to try in its place when it fails and was asked for by name."
    )


CoalesceMode = Annotated[Literal["semantic", "exact", "off"], OffWord]


class RouteConfig(Section):
    """A public model name that leads to models: one list, or one for each tier of difficulty."""

    models: Names | None = Field(default=None, description="Names under `models`, best first. Either this or `tiers`.")
    tiers: dict[Tier, Names] | None = Field(default=None, description="Such a list for each of low, medium and high.")
    tasks: dict[Task, Names] = Field(
        default={}, description="Models that go first for chat, reasoning, code or vision."
    )
    default_tier: Tier = Field(default="medium", description="The tier of a question that the router cannot judge.")
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
        if self.models and "default_tier" in self.model_fields_set:
            raise problem(("default_tier",), "needs tiers, and this route has none")
        return self

    def names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Every model this route names, with where it does."""
        for index, name in enumerate(self.models or ()):
            yield ("models", index), name
        for key, lists in (("tiers", self.tiers or {}), ("tasks", self.tasks)):
            for kind, names in lists.items():
                for index, name in enumerate(names):
                    yield (key, kind, index), name


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
    retries: int = Field(
        default=1, description="Further tries at the same model, within a budget shared by all calls.", ge=0, le=10
    )
    backoff: Duration = Field(default=0.25, description="Longest wait before the first retry; doubles with each.", gt=0)
    longest_wait: Duration = Field(
        default=5.0, description="A provider that asks for a longer wait is not waited for.", gt=0
    )


class CapsConfig(Section):
    """Most that a tenant may spend in each calendar window (UTC), in USD; `none` is no cap."""

    hour: Cap = Field(default=10 * 10**9, description="In an hour.")
    day: Cap = Field(default=None, description="In a day.")
    week: Cap = Field(default=None, description="In a week, from Monday on.")
    month: Cap = Field(default=None, description="In a month.")
    total: Cap = Field(default=None, description="Ever.")


class TenantDefaults(Section):
    """What a new tenant gets when nothing else is said."""

    budget: CapsConfig = Field(default=CapsConfig(), description="Caps in USD.")
    rpm: int = Field(default=120, description="Requests a minute.", gt=0)
    tpm: int | None = Field(default=None, description="Tokens a minute. Default: no limit.", gt=0)
    zone: str = Field(default="UTC", description="Time zone of its calendar windows, such as Europe/Berlin.")
    hit_percent: int = Field(
        default=0,
        description="What it pays for an answer from the cache or of a shared call, in percent of what the call would have cost.",
        ge=0,
        le=1_000,
    )
    concurrency: int = Field(default=50, description="Requests at the same time.", gt=0)
    allowed_models: tuple[str, ...] | None = Field(
        default=None, description="Models and routes it may use. Default: all."
    )
    abandoned: Literal["finish", "cancel"] = Field(
        default="finish",
        description="When everyone who waited has left: `finish` the call and keep its answer, or `cancel` it.",
    )
    coalesce: CoalesceMode = Field(
        default="semantic",
        description="Which of its calls share one in flight, where that is stricter than `coalesce.mode`.",
    )
    shares: Literal["leader", "split", "each"] = Field(
        default="leader",
        description="Who pays for a call that several of its callers share: the `leader`, who asked first; all of them, in equal parts"
        " (`split`); or `each` of them all of it.",
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        try:
            zone_of(self.zone)
        except ValueError as error:
            raise problem(("zone",), str(error)) from None
        return self

    def caps(self) -> Caps:
        """The budgets of a tenant for which nothing else was said."""
        return Caps(**{window: getattr(self.budget, window) for window in Caps.__struct_fields__})

    def policy(self) -> Policy:
        """The same as the policy of a tenant."""
        return Policy(
            rpm=self.rpm,
            tpm=self.tpm,
            concurrency=self.concurrency,
            zone=self.zone,
            hit_percent=self.hit_percent,
            allowed_models=self.allowed_models,
            abandoned=self.abandoned,
            coalesce=self.coalesce,
            shares=self.shares,
        )


class TelemetryConfig(Section):
    """Where the record of each call goes."""

    log: Annotated[str, OffWord] = Field(
        default="stderr", description="`stderr`, `off`, or the path of a file in the data directory.", min_length=1
    )
