"""Deciders: who is asked what a question deserves, the cheapest first.

An opinion that is sure enough decides. One that is less sure stands until a dearer decider has another; who is out of its depth abstains,
and where all do the question goes to the route's default tier. Nothing goes to the cheap tier because nothing matched.

Invariants: a decider that fails or is late has abstained; routing costs a call its best model at worst, never its answer. No guess goes
above the route's ceiling; only what a person has said does, and a fallback.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

import msgspec

from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Policy, Strategy
from headgate.routing.features import Features
from headgate.routing.route import TIERS, DeciderName, Decision, Intent, Route, Task, Tier

log = logging.getLogger(__name__)

SURE = 0.8
"""The confidence from which on nobody else is asked."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a decider may look at: who asks, for which route, and what was seen of the request.

    id             the call's, from which all chance is drawn
    text           the user's last turn
    organisations  those that the tenant belongs to, and `key` the caller's: who pays for what a decider spends
    dry            nothing may be spent on it, and nothing learnt of it
    """

    id: str
    tenant: str
    user: str | None
    policy: Policy
    route: Route
    request: ChatRequest
    seen: Features
    text: str
    organisations: tuple[str, ...] = ()
    key: str = ""
    dry: bool = False


class Opinion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a decider thinks; None is no opinion on that point. Fields as of `Decision`.

    Without a tier it abstains, and `reason` says why, in a word.
    """

    tier: Tier | None
    reason: str
    confidence: float = 0.0
    task: Task | None = None
    intent: Intent | None = None
    complexity: float | None = None
    strategy: Strategy | None = None


class Decider(Protocol):
    """Guarantees: bounded in time; deterministic for a given state; raises nothing that the caller need know of."""

    async def opinion(self, asked: Asked) -> Opinion:
        """What the question deserves; an abstention where this decider is out of its depth."""
        ...


class Deciders:
    """All deciders of a gateway by name; routes say which of them they ask."""

    def __init__(self, deciders: Mapping[DeciderName, Decider], *, sure: float = SURE) -> None:
        """Names of a route that are missing here abstain."""
        self._deciders = dict(deciders)
        self._sure = sure

    def add(self, name: DeciderName, decider: Decider) -> None:
        """One more, for those that need what is built on routing."""
        self._deciders[name] = decider

    async def decide(self, asked: Asked, task: Task) -> Decision:
        """Ask the route's deciders in turn; `task` is what the question seems to be."""
        decision = Decision(task, asked.route.default_tier, 0.0, "unsure", seen=asked.seen)
        said = []
        for name in asked.route.deciders:
            opinion = await self._opinion(name, asked)
            said.append(_words(name, opinion))
            decision = _with(decision, name, opinion, asked.route.ceiling)
            if opinion.tier is not None and opinion.confidence >= self._sure:
                break
        return msgspec.structs.replace(decision, reasons=tuple(said))

    async def _opinion(self, name: DeciderName, asked: Asked) -> Opinion:
        decider = self._deciders.get(name)
        if decider is None:
            return Opinion(tier=None, reason="absent")
        try:
            return await decider.opinion(asked)
        except Exception as error:
            log.warning("the %s of routing failed and abstained: %s", name, error)
            return Opinion(tier=None, reason="failed")


def _words(name: DeciderName, opinion: Opinion) -> str:
    if opinion.tier is None:
        return f"{name}: abstains, {opinion.reason}"
    return f"{name}: {opinion.tier} {opinion.confidence:.2f}, {opinion.reason}"


def _with(before: Decision, name: DeciderName, opinion: Opinion, ceiling: Tier) -> Decision:
    """The decision as it is after one more opinion; what that says nothing of stays as it was."""
    if opinion.tier is None:
        return before if before.decider else msgspec.structs.replace(before, reason=f"unsure:{opinion.reason}")
    guess = min(opinion.tier, ceiling, key=TIERS.index)
    return msgspec.structs.replace(
        before,
        tier=opinion.tier if name == "rules" else guess,
        confidence=opinion.confidence,
        reason=opinion.reason,
        decider=name,
        task=opinion.task or before.task,
        intent=opinion.intent or before.intent,
        complexity=before.complexity if opinion.complexity is None else opinion.complexity,
        strategy=opinion.strategy or before.strategy,
    )
