"""Explanation: what routing would do with a request, and who said what about it. Nothing is spent, kept or changed by it."""

from __future__ import annotations

from typing import Any

import msgspec

from headgate.model.deployment import Deployment
from headgate.routing.route import Decision, Plan


class Candidate(msgspec.Struct, frozen=True):
    """A deployment that may answer.

    place   its place among those that would be tried, from 1; None for one that would not be
    health  as `/admin/health` shows it
    """

    deployment: Deployment
    place: int | None
    health: dict[str, Any]


class Explanation(msgspec.Struct, frozen=True):
    """A decision, and the deployments that it leads to: those that would be tried first, in their order.

    words  what each decider of the route says, by its name; one that need not be asked has said nothing
    """

    route: str
    decision: Decision
    words: dict[str, str]
    candidates: tuple[Candidate, ...]


NOT_ASKED = "not asked"


def words_of(names: tuple[str, ...], decision: Decision) -> dict[str, str]:
    """What each of the deciders says."""
    said = dict(one.partition(": ")[::2] for one in decision.reasons)
    return {name: said.get(name, NOT_ASKED) for name in names}


def candidates_of(
    offered: tuple[Deployment, ...], plan: Plan, health: dict[str, dict[str, Any]]
) -> tuple[Candidate, ...]:
    """All that may answer, those first that would be tried."""
    places = {step.deployment.name: place for place, step in enumerate(plan.steps, 1)}
    ordered = sorted(offered, key=lambda one: places.get(one.name, len(offered) + 1))
    return tuple(Candidate(one, places.get(one.name), health[one.name]) for one in ordered)
