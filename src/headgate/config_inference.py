"""The section `inference`: what was submitted and is answered in its own time.

The invariant: a webhook that exists can be reached and has a secret that is one.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from headgate.config_billing import check_url
from headgate.config_units import Duration, Section, Size, problem
from headgate.jobs.jobs import KEEP
from headgate.jobs.lanes import AT_WORK, BYTES, OPEN, OPEN_OF_A_TENANT
from headgate.jobs.notices import secret_of


class NoticesConfig(Section):
    """Who is told when a submitted request has ended: one address of yours, for all tenants."""

    url: str = Field(description="Where each end is posted.", min_length=1)
    secret: SecretStr = Field(
        description="What it is signed with, as Standard Webhooks have it: `whsec_` and 24 to 64 bytes in base64."
    )
    allow_private: bool = Field(default=False, description="Allow addresses of this machine and of private networks.")
    timeout: Duration = Field(default=10.0, description="A whole delivery.", gt=0)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        check_url(self.url, allow_private=self.allow_private)
        try:
            secret_of(self.secret.get_secret_value())
        except ValueError as error:
            raise problem(("secret",), str(error)) from None
        return self


class InferenceConfig(Section):
    """Requests that are submitted at `/v2/inference/submit` and answered in their own time."""

    workers: Literal["here", "elsewhere"] = Field(
        default="here",
        description="Where they are answered: `here`, by `headgate serve` itself and by any `headgate worker`; `elsewhere`, by workers"
        " alone, which share the gateway's PostgreSQL.",
    )
    at_work: int = Field(default=AT_WORK, description="Most of them that one process answers at the same time.", gt=0)
    open: int = Field(
        default=OPEN, description="Most that may wait or be at work, of all tenants together; more are refused.", gt=0
    )
    open_of_a_tenant: int = Field(default=OPEN_OF_A_TENANT, description="The same of each tenant.", gt=0)
    bytes: Size = Field(default=BYTES, description="Most bytes of all requests that wait or are at work.", gt=0)
    patience: Duration = Field(
        default=1.5,
        description="How long such a request waits for the first part of another call's answer before it makes a call of its own.",
        gt=0,
    )
    keep: Duration = Field(
        default=KEEP, description="How long the answer can be fetched, and how long a request may wait at most.", gt=0
    )
    webhook: NoticesConfig | None = Field(
        default=None, description="Who is told when one has ended. Default: nobody; it can be asked for."
    )
