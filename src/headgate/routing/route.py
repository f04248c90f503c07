"""The values of routing: what is offered, what was decided, what will be tried."""

from __future__ import annotations

from typing import Literal

import msgspec

from headgate.model.deployment import Deployment
from headgate.model.money import ANYTHING, Extent, Price, Usage

Tier = Literal["low", "medium", "high"]
Task = Literal["chat", "reasoning", "code", "vision"]
TIERS: tuple[Tier, ...] = ("low", "medium", "high")


class Route(msgspec.Struct, frozen=True):
    """A public model name that leads to deployments.

    tiers  deployment names for each tier, best first; a route without tiers has the same list in all three
    tasks  deployment names that go before the tier's when a question is of that kind; a kind left out has no list of its own
    default_tier  where a question goes that the router cannot judge
    """

    name: str
    tiers: dict[Tier, tuple[str, ...]]
    tasks: dict[Task, tuple[str, ...]] = {}
    default_tier: Tier = "medium"

    @property
    def tiered(self) -> bool:
        """True when it matters what the question is like."""
        return bool(self.tasks) or len({self.tiers.get(tier, ()) for tier in TIERS}) > 1


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What kind of question it is and how good a model it deserves.

    `confidence` (0..1) is the probability of the tier under the router's own model; 1 when a person chose, 0 when the
    router abstained. `reason` is short and has few values: `pinned`, `tenant_tier`, `untiered`, `budget_degraded`,
    `unsure:foreign`, or the features that counted most, as `length+code`. `frugal`: no dearer tier may be fallen back to.
    """

    task: Task
    tier: Tier
    confidence: float
    reason: str
    frugal: bool = False


class Step(msgspec.Struct, frozen=True, gc=False):
    """One deployment to try.

    limit    output tokens a choice that may be asked of it
    ceiling  nano-USD that it then may cost
    shrunk   whether the budget left room for fewer tokens than the caller allowed
    """

    deployment: Deployment
    limit: int
    ceiling: int = 0
    shrunk: bool = False


class Plan(msgspec.Struct, frozen=True, gc=False):
    """Which deployments to try, in order, and what they may cost.

    ceiling        nano-USD that the dearest step may cost
    least          nano-USD with which the first can be tried with room for an answer of the usual length
    most           tokens that the prompt cannot exceed
    prompt_tokens  its likely size, for an answer whose provider reports no usage
    choices        answers asked for
    reference      the price of what would have been called had nobody routed, None where that is the same or unknown
    extent         how far the call may go beyond text
    """

    route: str
    steps: tuple[Step, ...]
    ceiling: int
    reason: str
    confidence: float
    prompt_tokens: int
    most: int = 0
    least: int = 0
    choices: int = 1
    reference: Price | None = None
    extent: Extent = ANYTHING

    def within(self, granted: int, expected: int) -> Plan:
        """This plan with `granted` nano-USD on hold: steps ask for as many output tokens as that covers. One that could then give
        fewer than an answer is `expected` to need asks for so many, and is tried if more can be held when its turn comes."""
        if granted >= self.ceiling:
            return self
        steps = tuple([self._afforded(step, granted, expected) for step in self.steps])
        return msgspec.structs.replace(self, steps=steps, ceiling=max(step.ceiling for step in steps))

    def saved(self, usage: Usage, cost: int) -> int:
        """Nano-USD that routing saved on a call that used and cost this."""
        return 0 if self.reference is None else max(0, self.reference.charge(usage) - cost)

    def _afforded(self, step: Step, granted: int, expected: int) -> Step:
        price = step.deployment.price
        if price is None or step.ceiling <= granted:
            return step
        afforded = price.affords(granted, self.most, self.extent) // max(1, self.choices)
        limit = min(step.limit, max(afforded, expected))
        ceiling = price.ceiling(self.most, limit * self.choices, self.extent)
        return Step(step.deployment, limit, ceiling, shrunk=limit < step.limit)

    def limit_of(self, deployment: str | None) -> int:
        """Output tokens that a choice of this deployment may have; 0 for one that is not planned."""
        for step in self.steps:
            if step.deployment.name == deployment:
                return step.limit
        return 0
