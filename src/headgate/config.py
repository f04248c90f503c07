"""Config: what people write. Values and their checks only; assembly turns it into a gateway.

The invariant: a Config that exists is whole. Every name it refers to is defined in it, every unit is read, every key is known.
Files are read by config_file.py; here a Config comes from plain values (`Config.model_validate`) or from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import Field, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from headgate.config_billing import AlertsConfig, SinkConfig
from headgate.config_cache import CacheConfig, ChecksConfig
from headgate.config_inference import InferenceConfig
from headgate.config_providers import ProviderConfig
from headgate.config_routing import RoutingConfig
from headgate.config_sections import (
    BudgetConfig,
    CoalesceConfig,
    DispatchConfig,
    ModelConfig,
    PriceConfig,
    RouteConfig,
    ServerConfig,
    TelemetryConfig,
)
from headgate.config_storage import RedisConfig, StorageConfig
from headgate.config_tenants import TenantDefaults
from headgate.config_units import Section, problem

__all__ = [
    "AlertsConfig", "BudgetConfig", "CacheConfig", "CoalesceConfig", "Config", "DispatchConfig", "ModelConfig", "PriceConfig",
    "ProviderConfig", "RedisConfig", "RouteConfig", "ServerConfig", "SinkConfig", "StorageConfig", "TelemetryConfig", "TenantDefaults", "providers_of",
]  # fmt: skip


class Config(Section):
    """The whole configuration. No providers means the built-in simulated one."""

    server: ServerConfig = Field(default=ServerConfig(), description="Where the gateway listens and what it accepts.")
    storage: StorageConfig = Field(default=StorageConfig(), description="Where tenants, keys and the ledger are kept.")
    redis: RedisConfig | None = Field(
        default=None, description="What several processes count, cache and coalesce with. Default: each by itself."
    )
    providers: dict[str, ProviderConfig] = Field(default={}, description="Servers that answer, by a name of your own.")
    models: dict[str, ModelConfig] = Field(default={}, description="Models that can be called, by their public name.")
    routes: dict[str, RouteConfig] = Field(default={}, description="Public model names that choose between models.")
    routing: RoutingConfig = Field(default=RoutingConfig(), description="What all routes share that choose.")
    prices: dict[str, PriceConfig] = Field(
        default={}, description="Prices that replace the built-in ones, by `provider/model`."
    )
    budget: BudgetConfig = Field(default=BudgetConfig(), description="What budgets do when a price is unknown.")
    cache: CacheConfig = Field(default=CacheConfig(), description="What has been answered already.")
    coalesce: CoalesceConfig = Field(default=CoalesceConfig(), description="Whether requests in flight share a call.")
    dispatch: DispatchConfig = Field(default=DispatchConfig(), description="How long and how often a call is tried.")
    inference: InferenceConfig = Field(
        default=InferenceConfig(), description="What is submitted and answered in its own time."
    )
    tenant_defaults: TenantDefaults = Field(default=TenantDefaults(), description="What a new tenant gets.")
    billing: dict[str, SinkConfig] = Field(
        default={}, description="Who is told what tenants owe, by a name of your own."
    )
    alerts: AlertsConfig | None = Field(
        default=None, description="Who is warned. Default: the log and the metrics alone."
    )
    telemetry: TelemetryConfig = Field(default=TelemetryConfig(), description="Where the record of each call goes.")

    @model_validator(mode="after")
    def _defined(self) -> Self:
        """Every name that is referred to exists."""
        for path, name, known, what in self._references():
            if name not in known:
                raise problem(path, f"there is no {what} '{name}'", name=name, known=sorted(known))
        for name in self.providers:
            if "/" in name:
                raise problem(("providers", name), "a provider's name must not hold a slash")
        for name, route in self.routes.items():
            if self.cache.semantic.mode == "off" and route.cache.mode in ("on", "shadow"):
                text = "cache.semantic.mode is off for all; turn it on there, and off where it is not wanted"
                raise problem(("routes", name, "cache", "mode"), text)
            if "classifier" in route.deciders and self.routing.classifier is None:
                raise problem(
                    ("routes", name, "deciders"), "there is no classifier; say which model under routing.classifier"
                )
        for name in self.billing:
            if not re.fullmatch("[A-Za-z0-9_-]{1,64}", name) or name == "alerts":
                raise problem(("billing", name), "a sink's name is letters, digits, - and _, and not `alerts`")
        return self

    @model_validator(mode="after")
    def _shared(self) -> Self:
        """What other processes are to do can be shared with them."""
        if self.inference.workers == "elsewhere" and self.storage.postgres is None:
            raise problem(("inference", "workers"), "workers elsewhere share a PostgreSQL; say which under storage.url")
        return self

    def _references(self) -> Iterator[tuple[tuple[str | int, ...], str, Mapping[str, object], str]]:
        """Every name that this configuration refers to: where, the name, what defines it, and what it is."""
        for model, one in self.models.items():
            yield ("models", model, "provider"), one.provider, self.providers, "provider"
            for index, name in enumerate(one.fallbacks):
                yield ("models", model, "fallbacks", index), name, self.models, "model"
        for route, leads in self.routes.items():
            for path, name in leads.names():
                yield ("routes", route, *path), name, self.models, "model"
            if leads.condenser is not None:
                yield ("routes", route, "condenser"), leads.condenser, self.models, "model"
        embedder = self.cache.semantic.remote
        if embedder is not None:
            yield ("cache", "semantic", "embedder", "provider"), embedder.provider, self.providers, "provider"
        judge = self.cache.semantic.checks.judge
        if judge not in ("exact", "embedding"):
            yield ("cache", "semantic", "checks", "judge"), judge, self.models, "model"
        for section, name in self.routing.names():
            yield ("routing", section, "model"), name, self.models, "model"
        for priced in self.prices:
            yield ("prices", priced), priced.partition("/")[0], self.providers, "provider"

    @property
    def simulated(self) -> bool:
        """True when no provider is configured, so the built-in simulated one answers."""
        return not self.providers

    @classmethod
    def default(cls, env: Mapping[str, str]) -> Config:
        """The configuration without a file: a provider for each API key in the environment."""
        return cls.model_validate(providers_of(env))

    def answered_at(self, url: str) -> Config:
        """The same with a simulated provider at `url`, two models of it at made-up prices, and the route `auto`.

        What it answers to two wordings of a question has nothing in common, so nothing is learnt from comparing answers.
        """
        untaught = ChecksConfig(share=0.0, judge="exact")
        semantic = self.cache.semantic.model_copy(update={"checks": untaught})
        return Config.model_validate(
            {
                **{name: getattr(self, name) for name in self.model_fields_set},
                "cache": self.cache.model_copy(update={"semantic": semantic}),
                "providers": {"simulated": {"kind": "openai", "base_url": f"{url}/v1", "allow_private": True}},
                "models": SIMULATED,
                "routes": {"auto": {"tiers": {"low": ["sim-small"], "medium": ["sim-small"], "high": ["sim-large"]}}},
            }
        )

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON schema of the file, for editors."""
        return cls.model_json_schema(schema_generator=_Schema)


class _Schema(GenerateJsonSchema):
    """Shows defaults as they would be written: `24h`, not 86400.0."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """The schema of a field that has a default."""
        found = super().default_schema(schema)
        inner: Any = schema["schema"]
        while "serialization" not in inner and "schema" in inner:
            inner = inner["schema"]
        written = inner.get("serialization", {}).get("function")
        if written is not None and schema.get("default") is not None:
            found["default"] = written(schema["default"])
        return found


_ABLE = {"provider": "simulated", "capabilities": ["tools", "vision", "json"]}
SIMULATED: dict[str, Any] = {
    "sim-small": {**_ABLE, "model": "simulated-small", "price": {"input": "0.15", "output": "0.60"}},
    "sim-large": {**_ABLE, "model": "simulated-large", "price": {"input": "2.50", "output": "10.00"}},
    "sim-embedding": {**_ABLE, "model": "simulated-embedding", "price": {"input": "0.02", "output": "0"}},
}
"""Models of the simulated provider, as they would be written in a file."""


def providers_of(env: Mapping[str, str]) -> dict[str, Any]:
    """`providers`, `models` and `routes` for each API key in the environment, as they would be written in a file."""
    found = [
        (kind, key, low, high)
        for kind, key, low, high in (
            ("openai", "OPENAI_API_KEY", "gpt-4o-mini", "gpt-4o"),
            ("anthropic", "ANTHROPIC_API_KEY", "claude-haiku-4-5", "claude-sonnet-4-5"),
        )
        if env.get(key)
    ]
    if not found:
        return {}
    able = {"capabilities": ["tools", "vision", "json"], "max_output": 8_192}
    window = {"openai": 128_000, "anthropic": 200_000}
    low, high = [small for _, _, small, _ in found], [large for _, _, _, large in found]
    return {
        "providers": {kind: {"kind": kind, "api_key": env[key]} for kind, key, _, _ in found},
        "models": {
            name: {"provider": kind, "context_window": window[kind], **able}
            for kind, _, small, large in found
            for name in (small, large)
        },
        "routes": {"auto": {"tiers": {"low": low, "medium": low, "high": high}}},
    }
