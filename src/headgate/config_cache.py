"""The sections of a configuration that the cache is described with, for all calls and for those to one route.

The invariant: a section that exists is sound in itself. Whether the names in it are defined elsewhere is config.py's to check.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from headgate.config_units import Duration, OffWord, Section, ShadowSwitch, Size, Switch, Usd, problem

HIGHEST_ERROR_RATE = 0.5
"""Whoever accepts more wrong answers than right ones does not want a cache."""

Strategy = Literal["aggressive", "standard", "bypass"]
Conversation = Literal["digest", "context"]


class ExactConfig(Section):
    """Answers to the same request."""

    ttl: Duration = Field(default=86_400.0, description="How long an answer is kept.", gt=0)
    mode: Switch = Field(default="on", description="`on` or `off`.")
    stale: Duration = Field(
        default=3_600.0,
        description="How long after its time an answer is still there for callers who send `x-headgate-cache-stale`.",
        ge=0,
    )


class EmbedderConfig(Section):
    """An embedding model of a provider, reached through OpenAI's `/embeddings`."""

    provider: str = Field(description="A name under `providers`.")
    model: str = Field(description="The provider's name for the model.", min_length=1)
    dimensions: int = Field(description="Numbers in each of its vectors.", gt=0, le=8192)


class LocalEmbedderConfig(Section):
    """An embedding model that a library runs in this process. It is loaded at the start, which waits for it."""

    kind: Literal["sentence-transformers", "fastembed"] = Field(
        description="The library, installed with `pip install 'headgate[sentence-transformers]'` or `'headgate[fastembed]'`."
    )
    model: str = Field(description="The library's name for the model.", min_length=1)
    revision: str | None = Field(
        default=None, description="Which version of it; sentence-transformers alone knows several.", min_length=1
    )
    path: str | None = Field(
        default=None, description="A folder with the model; without it the library may fetch the model.", min_length=1
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.kind == "fastembed" and self.revision is not None:
            raise problem(("revision",), "fastembed knows one version of each model; leave it out")
        return self


def _form(value: object) -> str:
    if isinstance(value, str) or value is None:
        return "[name]"
    local = "kind" in value if isinstance(value, dict) else isinstance(value, LocalEmbedderConfig)
    return "[local]" if local else "[section]"


AnyEmbedder = Annotated[
    Annotated[Literal["minilm"], Tag("[name]")]
    | Annotated[EmbedderConfig, Tag("[section]")]
    | Annotated[LocalEmbedderConfig, Tag("[local]")],
    Discriminator(_form),
]


class ChecksConfig(Section):
    """Checks in the shadow: now and then a question is asked anew although its answer is in stock, and both are compared. Nobody waits
    for them; what they cost is in the journal under the operator's own name."""

    share: float = Field(
        default=0.0195,
        description="Most checks, as a share of the requests that could be answered by meaning, 0 to 0.02; 0 checks none.",
        ge=0,
        le=0.02,
    )
    budget: Usd = Field(default=10**9, description="Most that checks may cost in a day (UTC), in USD.")
    judge: str = Field(
        default="embedding",
        description="What tells whether two answers say the same: `exact` (to the letter), `embedding` (their meaning, in this process)"
        " or a name under `models`, which is asked.",
        min_length=1,
    )


class SemanticConfig(Section):
    """Answers to a question that means the same."""

    max_error_rate: float = Field(
        default=0.01,
        description="Share of the answers from the cache that may be wrong, 0 to 0.5.",
        ge=0,
        le=HIGHEST_ERROR_RATE,
    )
    ttl: Duration = Field(default=3_600.0, description="How long an answer is found by meaning.", gt=0)
    embedder: AnyEmbedder = Field(
        default="minilm",
        description="What turns questions into vectors: `minilm`, built in, a provider's model, or one of a library's.",
    )
    first_stage: Annotated[Literal["static", "off"], OffWord] = Field(
        default="off",
        description="`static` looks first with a table of word vectors, and spares the model where nothing is near; `off` always asks"
        " the model.",
    )
    mode: ShadowSwitch = Field(
        default="on",
        description="`on`, `shadow` (watch and record, serve nothing) or `off`; a route and a tenant may say otherwise, except that"
        " `off` here is off for all.",
    )
    conversation: Conversation = Field(
        default="digest",
        description="What a question is compared with that has turns before it: those after the same turns (`digest`), or, where it stands"
        " alone, also those of conversations about nearly the same (`context`).",
    )
    checks: ChecksConfig = Field(default=ChecksConfig(), description="How it learns whether it is right.")

    @property
    def remote(self) -> EmbedderConfig | None:
        """The embedder where it is a provider's."""
        return self.embedder if isinstance(self.embedder, EmbedderConfig) else None

    @property
    def lacking(self) -> str | None:
        """The extra that is not installed, where the embedder needs one. Nothing of it is loaded."""
        if not isinstance(self.embedder, LocalEmbedderConfig) or find_spec(self.embedder.kind.replace("-", "_")):
            return None
        return self.embedder.kind


class CacheConfig(Section):
    """What has been answered already. Every entry belongs to one tenant."""

    exact: ExactConfig = Field(default=ExactConfig(), description="The exact tier.")
    semantic: SemanticConfig = Field(default=SemanticConfig(), description="The semantic tier.")
    refusals: Duration = Field(
        default=30.0,
        description="How long a provider's refusal of a request (too long, against its rules) is given to whoever repeats it; 0 asks"
        " again each time.",
        ge=0,
    )
    bytes: Size = Field(default=1 << 30, description="Most memory that all entries take together.", gt=0)
    bytes_per_tenant: Size = Field(
        default=256 << 20,
        description="Most memory that the entries of one tenant take; the one goes that has saved least for its size.",
        gt=0,
    )
    entries_per_tenant: int = Field(default=100_000, description="Most entries of one tenant.", gt=0)


class RouteCacheConfig(Section):
    """How the cache treats the calls to one route. What is not said is as under `cache`; where a tenant's policy says something too,
    the stricter counts."""

    exact_ttl: Duration | None = Field(
        default=None, description="How long an answer is found by the same request.", gt=0
    )
    ttl: Duration | None = Field(default=None, description="How long an answer is found by meaning.", gt=0)
    mode: ShadowSwitch | None = Field(default=None, description="The semantic tier: `on`, `shadow` or `off`.")
    max_error_rate: float | None = Field(
        default=None,
        description="Share of the answers from the cache that may be wrong, 0 to 0.5.",
        ge=0,
        le=HIGHEST_ERROR_RATE,
    )
    conversation: Conversation | None = Field(
        default=None, description="What a question with turns before it is compared with: `digest` or `context`."
    )
    strategy: Strategy = Field(
        default="standard",
        description="`aggressive` takes twice the error rate (up to 0.05, or what is configured), `standard` that rate, `bypass` serves"
        " nothing by meaning.",
    )
