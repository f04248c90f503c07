"""Who calls, and what they may do: tenants, their policy, and the partition of the cache that is theirs alone."""

from __future__ import annotations

from typing import Literal

import msgspec

Window = Literal["minute", "hour", "day", "week", "month", "total"]
WINDOWS: tuple[Window, ...] = ("hour", "day", "week", "month", "total")
"""The windows of budgets; `minute` is for rates of tokens."""
KeyRole = Literal["admin", "tenant_admin", "caller"]
Mode = Literal["on", "shadow", "off"]
"""Of the semantic tier: it serves, it only watches, it is not asked."""
Strategy = Literal["aggressive", "standard", "bypass"]
"""How bold the semantic tier is: twice the configured error rate, that rate, not asked at all."""
Coalescing = Literal["off", "exact", "semantic"]
"""What shares a call in flight: nothing, identical requests, or those that mean the same, too."""
Shares = Literal["leader", "split", "each"]
"""Who pays for a call that several share: who asked first, all of them in equal parts, or each of them all of it."""
REGION = "^[a-z0-9][a-z0-9-]{0,31}$"
"""What a region is called: a name of the operator's own, such as `eu` or `us-east`."""
DEFAULT_TENANT = "default"
OPERATOR = "operator"
"""Who pays, in the journal, for what no tenant asked for."""


class Caps(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Most that a tenant may spend in each calendar window when nothing else is said, in nano-USD; None is no cap."""

    hour: int | None = None
    day: int | None = None
    week: int | None = None
    month: int | None = None
    total: int | None = None


class CacheTerms(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a tenant's calls are treated by the semantic cache; None is as the route or the configuration says.

    mode            whether it serves, only watches, or is not asked
    max_error_rate  share of the tenant's answers from stock that may be wrong
    """

    mode: Mode | None = None
    max_error_rate: float | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a tenant may do and how its calls are treated.

    rpm            requests a minute
    tpm            tokens a minute; None is no limit
    concurrency    requests at the same time
    allowed_models public names it may ask for; None is all
    prefer         deployments that go first when a route offers them, in this order
    tier           the tier of `auto` that is used whatever the router thinks (`low`, `medium`, `high`); None lets it choose
    abandoned      when every reader has left a flight: `finish` it for the usage and the cache, or `cancel` it
    organisation   whose budgets its calls count against too, beside its own
    zone           IANA time zone of the calendar windows of its budgets
    hit_percent    what it pays for an answer from stock, in percent of what the call would have cost: 0 nothing, 100 all
    customer       its name at whoever bills it; None is its id
    cache          how the semantic cache treats its calls
    coalesce       which of its calls share one in flight, at most
    shares         who of its callers pays for a call that they share
    residency      regions in which its data may be worked on; None is all, and places of which none is known
    """

    rpm: int = 120
    tpm: int | None = None
    concurrency: int = 50
    allowed_models: tuple[str, ...] | None = None
    prefer: tuple[str, ...] = ()
    tier: Literal["low", "medium", "high"] | None = None
    abandoned: Literal["finish", "cancel"] = "finish"
    organisation: str | None = None
    zone: str = "UTC"
    hit_percent: int = 0
    customer: str | None = None
    cache: CacheTerms = CacheTerms()
    coalesce: Coalescing = "semantic"
    shares: Shares = "leader"
    residency: tuple[str, ...] | None = None

    def admits(self, region: str | None) -> bool:
        """Whether what works in `region` (None: nobody said where) may see this tenant's data."""
        return self.residency is None or region in self.residency


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A customer of the product that Headgate stands in."""

    id: str
    name: str
    policy: Policy
    created: float


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as it is stored: its keyed digest, never the key."""

    id: str
    tenant: str
    digest: str
    role: KeyRole = "caller"
    name: str | None = None
    user: str | None = None
    expires: float | None = None
    revoked: float | None = None
    created: float = 0.0


class Principal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An authenticated caller. `organisations`: the tenant's own and those above it, nearest first."""

    tenant: str
    organisations: tuple[str, ...] = ()
    policy: Policy = Policy()
    key: str = ""
    role: KeyRole = "caller"
    user: str | None = None


class Namespace(msgspec.Struct, frozen=True, gc=False):
    """A tenant's own partition of the cache and of the flights. No method of either takes anything less."""

    tenant: str
    name: str = ""


class Key(msgspec.Struct, frozen=True, gc=False):
    """Where an exact answer lies: the partition and the digest of the canonical request."""

    namespace: Namespace
    digest: bytes


class Wishes(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a caller asks of the gateway itself, beside the request: the `x-headgate-*` headers.

    min_confidence, max_error_rate, strategy and timeout may only make the gateway stricter; ttl is in seconds, and so is `stale`:
    how long past its time an exact answer may be. `patience`: seconds to wait for the first part of an answer that others have asked
    for; None is as usual. `coalesce_key`: only calls with the same one share one in flight. A repeated `idempotency_key` gets the first call's answer.
    """

    cache: Literal["default", "no-cache", "no-store", "only-if-cached", "exact"] = "default"
    ttl: float | None = None
    stale: float = 0.0
    strategy: Strategy | None = None
    tags: tuple[str, ...] = ()
    namespace: str = ""
    user: str | None = None
    feature: str | None = None
    min_confidence: float = 0.0
    max_error_rate: float | None = None
    coalesce: Coalescing = "semantic"
    coalesce_key: str = ""
    patience: float | None = None
    timeout: float | None = None
    idempotency_key: str | None = None
