"""CallRecord: the one event that leaves for telemetry, once for every call a caller made."""

from __future__ import annotations

from typing import Literal

import msgspec

from headgate.model.money import Usage

Source = Literal["live", "exact", "semantic", "coalesced", "coalesced-semantic", "none"]
CacheOutcome = Literal["miss", "hit", "bypass", "shadow"]


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One try at one deployment. `outcome` is `ok` or the error's code; `cost` nano-USD; `seconds` to its end.

    `priced` is false when no price was known, so that the cost says nothing.
    """

    deployment: str
    outcome: str
    seconds: float
    first_token: float | None = None
    cost: int = 0
    usage: Usage = Usage()
    priced: bool = True


class CallRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What happened to one call. Holds no prompt, no answer and no secret.

    `overflow` is what was done about a prompt that was too long for a model: `larger`, `pruned:12`, `condensed:8`.
    `confidence` is that of an answer from stock (or of one that would have been, of a tier that only watches), `judged` that of one
    that was near and not served. All times are seconds; `overhead` is the time that the gateway itself added; money is nano-USD. Written as JSON, fields
    that say nothing beyond their default are left out.
    """

    id: str
    at: float
    tenant: str
    user: str | None = None
    feature: str | None = None
    key: str = ""
    route: str
    status: int
    error: str | None = None
    stream: bool = False
    source: Source = "none"
    cache: CacheOutcome = "bypass"
    cache_reason: str | None = None
    confidence: float | None = None
    judged: float | None = None
    model: str | None = None
    deployment: str | None = None
    route_reason: str | None = None
    route_confidence: float | None = None
    overflow: str | None = None
    attempts: tuple[Attempt, ...] = ()
    usage: Usage = Usage()
    cost: int = 0
    saved: int = 0
    duration: float = 0.0
    first_token: float | None = None
    overhead: float = 0.0
    lookup: float | None = None
