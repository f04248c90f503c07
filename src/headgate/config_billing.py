"""The sections `billing` and `alerts`: where what tenants owe is told, and who is warned.

The invariant: a sink that exists has every key that its kind needs and none that it does not know.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from headgate.config_units import Duration, Section, problem
from headgate.providers.egress import origin_of

Kind = Literal["stripe", "openmeter", "lago", "csv", "jsonl", "webhook"]

_HTTP = ("url", "allow_private", "timeout")
_METER = (*_HTTP, "api_key", "event", "value", "remembers")
_TAKES: dict[str, tuple[str, ...]] = {
    "stripe": _METER,
    "openmeter": (*_METER, "source"),
    "lago": _METER,
    "csv": ("file",),
    "jsonl": ("file",),
    "webhook": (*_HTTP, "secret"),
}
_NEEDS: dict[str, tuple[str, ...]] = {
    "stripe": ("api_key", "event"),
    "openmeter": ("url", "event"),
    "lago": ("api_key", "event"),
    "webhook": ("url",),
}


def check_url(url: str, *, allow_private: bool) -> None:
    """Raises the problem of an address that nothing may be posted to."""
    try:
        origin_of(url.partition("?")[0], allow_private=allow_private)
    except ValueError as error:
        raise problem(("url",), str(error)) from None
    if not url.isascii() or not url.isprintable() or " " in url:
        raise problem(("url",), "must be plain ASCII without spaces")


class SinkConfig(Section):
    """One place that is told what tenants owe: a row of the journal is an event there. Renaming it begins anew."""

    kind: Kind = Field(description="What it speaks.")
    url: str = Field(
        default="",
        description="Where it is: of a webhook the whole address, else what its API's paths begin with."
        " Default: https://api.stripe.com or https://api.getlago.com, by kind.",
    )
    api_key: SecretStr | None = Field(default=None, description="Its API key; take it from the environment.")
    event: str = Field(
        default="", description="What it calls these events: Stripe's `event_name`, OpenMeter's `type`, Lago's `code`."
    )
    value: Literal["nano_usd", "usd", "tokens"] | None = Field(
        default=None,
        description="What an event counts: what the tenant owes in whole nano-USD or in USD, or the tokens of calls that were made."
        " Default: `nano_usd` for Stripe, else `usd`.",
    )
    source: str = Field(default="headgate", description="OpenMeter's `source`.", min_length=1)
    remembers: Duration | None = Field(
        default=None,
        description="How long it recognises an event that it has had; later than this nothing is sent again unasked."
        " Default: 24h for Stripe, else without end.",
        gt=0,
    )
    secret: SecretStr | None = Field(default=None, description="What a webhook's bodies are signed with.")
    file: str = Field(default="", description="A file in the data directory. Default: the sink's name and kind.")
    since: date | None = Field(default=None, description="Rows before this day (UTC) are not sent. Default: all are.")
    allow_private: bool = Field(default=False, description="Allow addresses of this machine and of private networks.")
    timeout: Duration = Field(default=10.0, description="A whole delivery.", gt=0)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        known = ("kind", "since", *_TAKES[self.kind])
        for name in sorted(self.model_fields_set):
            if name not in known:
                raise problem((name,), f"a sink of kind {self.kind} has no {name}; it has {', '.join(sorted(known))}")
        for name in _NEEDS.get(self.kind, ()):
            if not getattr(self, name):
                raise problem((name,), f"a sink of kind {self.kind} needs it")
        if self.url:
            check_url(self.url, allow_private=self.allow_private)
        return self


class AlertsConfig(Section):
    """Who is warned: thresholds of budgets, and tasks that become dearer."""

    url: str = Field(description="Where each alert is posted.", min_length=1)
    secret: SecretStr | None = Field(
        default=None, description="What they are signed with, in the header `Headgate-Signature`."
    )
    allow_private: bool = Field(default=False, description="Allow addresses of this machine and of private networks.")

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        check_url(self.url, allow_private=self.allow_private)
        return self

    def sink(self) -> SinkConfig:
        """The same as a sink."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        return SinkConfig(kind="webhook", **given)
