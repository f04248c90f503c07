"""The sections of a configuration that say what a new tenant gets.

The invariant: a section that exists is sound in itself.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from headgate.config_units import Cap, OffWord, Section, problem
from headgate.model.tenancy import REGION, Caps, Policy, Shares
from headgate.model.zones import zone_of

Region = Annotated[str, StringConstraints(pattern=REGION)]
"""A name of the operator's own for where data is worked on."""

CoalesceMode = Annotated[Literal["semantic", "exact", "off"], OffWord]


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
    residency: Annotated[tuple[Region, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="Regions whose models may see what it sends. Default: all models, whatever their region.",
    )
    abandoned: Literal["finish", "cancel"] = Field(
        default="finish",
        description="When everyone who waited has left: `finish` the call and keep its answer, or `cancel` it.",
    )

    coalesce: CoalesceMode = Field(
        default="semantic",
        description="Which of its calls share one in flight, where that is stricter than `coalesce.mode`.",
    )
    shares: Shares = Field(
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
            residency=self.residency,
            abandoned=self.abandoned,
            coalesce=self.coalesce,
            shares=self.shares,
        )
