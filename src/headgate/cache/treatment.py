"""Treatment: how one call is treated by the cache, resolved once from all who have a say in it.

The configuration says it for everybody; what a route and what a tenant's policy say replaces that, and where both speak the stricter
counts. The caller's wishes can only make it stricter still. How sure the router is of a question, and how bold a route's strategy is,
change the *error rate* that is accepted, never a similarity: what a similarity is worth is the verdict's to know.

Invariant: no wish lets an answer through that without the wish would not have been served by meaning.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headgate.model.tenancy import CacheTerms, Mode, Strategy, Wishes

SURE = 0.8
"""A router that is at least this sure of a question changes nothing."""

ABSTAINED = 0.5
"""The share of the error rate that is left where the router knows nothing at all: its doubt is about the question's difficulty, which
is a reason to look twice at an answer and none to throw it away."""

BOLDEST = 0.05
"""The error rate that an aggressive strategy does not go beyond, unless a higher one is configured."""

Conversation = Literal["digest", "context"]

_MODES: tuple[Mode, ...] = ("off", "shadow", "on")
_STRATEGIES: tuple[Strategy, ...] = ("bypass", "standard", "aggressive")


class CachePolicy(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the configuration says for every call. Times in seconds.

    exact         whether the exact tier serves
    exact_ttl     how long an answer is found by the same request
    semantic      whether the semantic tier serves, only watches, or is off: then no route and no tenant can turn it on
    semantic_ttl  how long an answer is found by meaning
    conversation  whether a question is compared only after the same earlier turns (`digest`), or across conversations, too (`context`)
    error_rate    share of the answers from stock that may be wrong
    stale         how long after its time an answer is still there for callers who take it stale
    refusals      how long a provider's refusal of a request is given to those who repeat it; 0 is never
    """

    exact: bool = True
    exact_ttl: float = 86_400.0
    semantic: Mode = "on"
    semantic_ttl: float = 3_600.0
    conversation: Conversation = "digest"
    error_rate: float = 0.01
    stale: float = 3_600.0
    refusals: float = 30.0


class RoutePolicy(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a route says instead; None is as configured for all. `strategy` as in `Treatment`'s resolution below."""

    exact_ttl: float | None = None
    semantic: Mode | None = None
    semantic_ttl: float | None = None
    conversation: Conversation | None = None
    error_rate: float | None = None
    strategy: Strategy = "standard"


class Treatment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one call is treated. Times in seconds.

    exact           whether an exact answer may be served, and this one be kept as one
    exact_ttl       how long its answer will be found by the same request
    semantic        whether answers may be served by meaning (`on`), are only looked for (`shadow`), or not even that (`off`)
    semantic_ttl    how long its answer will be found by meaning
    conversation    what it may be compared with: see `CachePolicy`
    error_rate      share of the answers from stock that may be wrong
    min_confidence  lowest probability with which an answer may be served by meaning, whatever the error rate allows
    stale           how many seconds past its time an exact answer may be
    """

    exact: bool = True
    exact_ttl: float = 86_400.0
    semantic: Mode = "on"
    semantic_ttl: float = 3_600.0
    conversation: Conversation = "digest"
    error_rate: float = 0.01
    min_confidence: float = 0.0
    stale: float = 0.0


_SILENT = RoutePolicy()


def treatment(
    policy: CachePolicy,
    route: RoutePolicy | None,
    tenant: CacheTerms,
    wishes: Wishes,
    confidence: float = 1.0,
    *,
    routed: Strategy | None = None,
) -> Treatment:
    """Resolve how a call is treated; `confidence` (0..1) is the router's, `routed` its strategy.

    The error rate is `r · s · u`: `r` the lowest of those that route and tenant say, else the configured one, and never above
    the caller's; `s` is 2 for the strategy `aggressive` (but `r · s` never exceeds 0.05, or `r` where that is more) and 1 for
    `standard`; `u` is `confidence / 0.8`, at most 1 and at least 0.5. With `bypass` the semantic tier is not asked. Of the
    route's, the router's and the caller's strategy the strictest counts.
    """
    route = route or _SILENT
    mode = _mode(policy, route, tenant)
    said = [one for one in (route.strategy, routed, wishes.strategy) if one is not None]
    strategy = min(said, key=_STRATEGIES.index)
    if wishes.cache == "exact" or strategy == "bypass":
        mode = "off"
    exact_ttl = policy.exact_ttl if route.exact_ttl is None else route.exact_ttl
    semantic_ttl = policy.semantic_ttl if route.semantic_ttl is None else route.semantic_ttl
    if wishes.ttl is not None:
        exact_ttl, semantic_ttl = wishes.ttl, min(semantic_ttl, wishes.ttl)
    return Treatment(
        exact=policy.exact,
        exact_ttl=exact_ttl,
        semantic=mode,
        semantic_ttl=semantic_ttl,
        conversation=route.conversation or policy.conversation,
        error_rate=_error_rate(policy, route, tenant, wishes, strategy) * _sureness(confidence),
        min_confidence=wishes.min_confidence,
        stale=min(wishes.stale, policy.stale),
    )


def _mode(policy: CachePolicy, route: RoutePolicy, tenant: CacheTerms) -> Mode:
    """`off` for all is off: then there is no model in this process that could compare anything."""
    if policy.semantic == "off":
        return "off"
    said = [mode for mode in (route.semantic, tenant.mode) if mode is not None]
    return min(said, key=_MODES.index) if said else policy.semantic


def _error_rate(
    policy: CachePolicy, route: RoutePolicy, tenant: CacheTerms, wishes: Wishes, strategy: Strategy
) -> float:
    said = [rate for rate in (route.error_rate, tenant.max_error_rate) if rate is not None]
    rate = min(said) if said else policy.error_rate
    if strategy == "aggressive":
        rate = min(2 * rate, max(BOLDEST, rate))
    return rate if wishes.max_error_rate is None else min(rate, wishes.max_error_rate)


def _sureness(confidence: float) -> float:
    return max(ABSTAINED, min(1.0, confidence / SURE))
