"""The part of a configuration that is about choosing models: a route's rules, and the parts that all routes share.

The invariant: a pattern that is read here can be run on any text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from headgate.config_units import Duration, Section, problem
from headgate.model.tenancy import Strategy
from headgate.routing.deciders import SURE
from headgate.routing.patterns import LONGEST, compiled
from headgate.routing.route import Overflow, Task, Tier

NAME = "[A-Za-z0-9_-]{1,40}"


def _pattern(value: object) -> re.Pattern[str]:
    if isinstance(value, re.Pattern):
        return value
    return compiled(str(value))


def _written(value: object) -> object:
    """YAML reads a bare `true` as a truth value; callers send it as one, and rules compare texts."""
    return str(value).lower() if isinstance(value, bool) else value


def _named(value: str) -> str:
    if re.fullmatch(NAME, value) is None:
        raise ValueError("a rule's name is up to 40 letters, digits, - and _")
    return value


Pattern = Annotated[
    re.Pattern[str],
    BeforeValidator(_pattern),
    PlainSerializer(lambda pattern: pattern.pattern, when_used="json"),
    WithJsonSchema({"type": "string", "maxLength": LONGEST, "format": "regex"}),
]
"""A regular expression that cannot take for ever."""


def _ways(value: tuple[Overflow, ...]) -> tuple[Overflow, ...]:
    if not value or len(set(value)) < len(value):
        raise ValueError("overflow names at least one way, and none twice")
    if "refuse" in value[:-1] or ("prune" in value and "condense" in value[value.index("prune") :]):
        raise ValueError("nothing comes after `refuse`, and no `condense` after `prune`: they leave nothing to do")
    return value


Ways = Annotated[tuple[Overflow, ...], AfterValidator(_ways)]
"""What is done about a prompt that is too long, in order."""


class WhenConfig(Section):
    """What a question must be like; all that is said must hold."""

    metadata: dict[str, Annotated[str, BeforeValidator(_written)]] = Field(
        default={}, description="Keys of the request's own `metadata`, with their values."
    )
    tenant: str | None = Field(default=None, description="The tenant's id.", min_length=1)
    user: str | None = Field(default=None, description="The end user.", min_length=1)
    matches: Pattern | None = Field(
        default=None,
        description="A regular expression that is found in the first 1,000 characters of the user's last turn; case does not count.",
    )
    over_tokens: int | None = Field(
        default=None, description="All turns together are longer than this, at four characters a token.", ge=0
    )
    under_tokens: int | None = Field(default=None, description="They are shorter than this.", gt=0)
    task: Task | None = Field(default=None, description="What kind of question it seems to be.")
    has: Literal["tools", "vision", "json"] | None = Field(
        default=None, description="What the request needs: functions, images, or an answer in JSON."
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.model_fields_set:
            raise problem((), "says nothing; a rule that fits every question is the route's default_tier")
        if None not in (self.over_tokens, self.under_tokens) and (self.over_tokens or 0) + 1 >= (
            self.under_tokens or 0
        ):
            raise problem(("under_tokens",), "leaves no length between over_tokens and itself")
        return self


class RuleConfig(Section):
    """Where questions go that are like this."""

    name: Annotated[str, AfterValidator(_named)] = Field(description="Told as the reason: `rule:NAME`.")
    when: WhenConfig = Field(description="What a question must be like.")
    tier: Tier = Field(description="Where it then goes.")
    strategy: Strategy | None = Field(
        default=None, description="How bold the semantic cache may be with it at most. Default: as it is set."
    )


class StickConfig(Section):
    """Conversations keep their tier, or go upward, and keep their model while that is well."""

    idle: Duration = Field(
        default=3_600.0,
        description="For how long after its last answered turn a conversation is remembered; 0 is not at all.",
        ge=0,
    )


class ClassifierConfig(Section):
    """A small language model that labels the questions of which the cheaper deciders are unsure."""

    model: str = Field(description="A name under `models`: a small, fast one.")
    timeout: Duration = Field(
        default=1.5, description="How long it may think; a later answer is not waited for.", gt=0, le=30
    )
    concurrency: int = Field(
        default=16, description="Questions at a time; those beyond are decided without it.", gt=0, le=1_000
    )
    ttl: Duration = Field(default=3_600.0, description="How long its labels are remembered.", gt=0)
    paid_by: Literal["operator", "tenant"] = Field(
        default="operator", description="Whose its calls are in the journal, as the feature `router`."
    )
    template: Path | None = Field(
        default=None, description="A file with instructions in place of those that ship with Headgate."
    )


class GraderConfig(Section):
    """A language model that says of some answers whether they were good: something for `knn` to learn from."""

    model: str = Field(description="A name under `models`.")
    share: float = Field(
        default=0.01,
        description="Of the answers of routes with tiers, how many it is asked about. The operator pays, as the feature `router-judge`.",
        gt=0,
        le=1,
    )


class RoutingConfig(Section):
    """What all routes share that choose between tiers."""

    sure: float = Field(
        default=SURE,
        description="The confidence of a decider, 0 to 1, from which on no dearer one is asked.",
        ge=0,
        le=1,
    )
    classifier: ClassifierConfig | None = Field(
        default=None, description="The decider `classifier`. Default: there is none."
    )
    grader: GraderConfig | None = Field(default=None, description="Who grades answers. Default: nobody does.")

    def names(self) -> Iterator[tuple[str, str]]:
        """The models that are asked, each with the section that names it."""
        if self.classifier is not None:
            yield "classifier", self.classifier.model
        if self.grader is not None:
            yield "grader", self.grader.model


def twice(names: tuple[str, ...]) -> int | None:
    """Where a name stands that has come before; None when all are different."""
    return next((index for index, name in enumerate(names) if name in names[:index]), None)
