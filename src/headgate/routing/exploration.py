"""Exploration: a small share of the questions goes to another tier by chance, so that there is something to learn from.

Invariant: the draw depends on the call's id and the seed alone, so the same state decides the same, and the propensity that is logged is
the probability with which it was made. What a person has said (a tenant's tier, a budget, a rule) is never overruled by chance, and
chance chooses nothing above the route's ceiling or that the tenant may not use.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from headgate.model.tenancy import Policy
from headgate.routing.route import TIERS, Decision, Route, Tier

_WHOLE = 1 << 64


def candidates(route: Route, policy: Policy) -> dict[Tier, tuple[str, ...]]:
    """The tiers that a guess may choose for such a tenant, the lowest first, each with the deployments that stand for it. One that leads
    to the same as a lower tier is not another."""
    allowed, found = policy.allowed_models, dict[Tier, tuple[str, ...]]()
    for tier in TIERS[: TIERS.index(route.ceiling) + 1]:
        every = route.tiers.get(tier, ())
        names = every if allowed is None or route.name in allowed else tuple(one for one in every if one in allowed)
        if names and names not in found.values():
            found[tier] = names
    return found


def explored(decision: Decision, id: str, route: Route, policy: Policy, *, seed: str = "") -> Decision:
    """The decision on the call `id`, or by chance one for another tier; either with its propensity."""
    if not route.explore or decision.frugal or decision.decider == "rules":
        return decision
    own, tiers = route.tiers.get(decision.tier), candidates(route, policy)
    others = [tier for tier in tiers if tier != decision.tier and route.tiers[tier] != own]
    if not others:
        return decision
    drawn = int.from_bytes(blake2b(f"{seed}\0{id}".encode(), digest_size=8).digest(), "big")
    # The lower part of the range explores; where in it the draw lies chooses the tier.
    place = int(drawn * len(others) / (route.explore * _WHOLE))
    if place >= len(others):
        return msgspec.structs.replace(decision, propensity=1 - route.explore)
    return msgspec.structs.replace(
        decision,
        tier=others[place],
        reason="explored",
        propensity=route.explore / len(others),
        reasons=(*decision.reasons, f"explored: {others[place]} instead of {decision.tier}"),
    )
