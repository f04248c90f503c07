"""The section of a configuration that describes a provider.

The invariant: a section that exists is sound in itself. What it needs that may not be installed is told when it is used.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from headgate.config_tenants import Region
from headgate.config_units import Duration, Section, problem
from headgate.providers.egress import origin_of

BASE_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com/v1"}


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
    """A server that speaks OpenAI's or Anthropic's wire format, or what LiteLLM speaks to."""

    kind: Literal["openai", "anthropic", "litellm"] = Field(
        description="Wire format; or `litellm` for all that this library knows, installed with `pip install 'headgate[litellm]'`."
    )
    base_url: str = Field(
        default="",
        description="Where its API is, up to what every path begins with."
        f" Default: {BASE_URLS['openai']} or {BASE_URLS['anthropic']}, by kind; what LiteLLM knows of each model.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="Its API key; take it from the environment: ${OPENAI_API_KEY}."
    )
    headers: dict[str, SecretStr] = Field(default={}, description="Further headers of every request to it.")
    allow_private: bool = Field(default=False, description="Allow addresses of this machine and of private networks.")
    options: dict[str, SecretStr] = Field(
        default={}, description="With `litellm`: further arguments of each of its calls, such as `aws_region_name`."
    )
    region: Region | None = Field(default=None, description="Where it works on what it is sent, such as `eu`.")
    timeouts: TimeoutsConfig = Field(default=TimeoutsConfig(), description="How long it may be silent.")
    embeddings: BatchConfig = Field(default=BatchConfig(), description="Which calls for embeddings share one.")
    kv_metrics: bool = Field(
        default=False,
        description="A vLLM of your own: read its `/metrics` every second, and give it fewer calls at a time the fuller its memory for"
        " prompts (KV cache) is.",
    )

    @model_validator(mode="before")
    @classmethod
    def _address(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("base_url") and value.get("kind") in BASE_URLS:
            return {**value, "base_url": BASE_URLS[value["kind"]]}
        return value

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        tail = self.kind == "litellm"
        for name in ("kv_metrics",) if tail else ("options",):
            if getattr(self, name):
                raise problem((name,), f"means nothing to the kind {self.kind}")
        if tail and not self.base_url:
            return self
        try:
            origin_of(self.base_url, allow_private=self.allow_private)
        except ValueError as error:
            raise problem(("base_url",), str(error)) from None
        return self
