"""The values of routing: what is offered, what was decided, what will be tried."""

from __future__ import annotations

from typing import Literal

import msgspec

from headgate.model.deployment import Deployment

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
    router abstained. `reason` is short and has few values: `pinned`, `tenant_tier`, `untiered`, `unsure:foreign`, or the
    features that counted most, as `length+code`.
    """

    task: Task
    tier: Tier
    confidence: float
    reason: str


class Step(msgspec.Struct, frozen=True, gc=False):
    """One deployment to try. `limit`: output tokens a choice that may be asked of it."""

    deployment: Deployment
    limit: int


class Plan(msgspec.Struct, frozen=True, gc=False):
    """Which deployments to try, in order, and the most that the dearest of them may cost.

    `ceiling` is nano-USD; `prompt_tokens` the likely size of the prompt, for an answer whose provider reports no usage.
    """

    route: str
    steps: tuple[Step, ...]
    ceiling: int
    reason: str
    confidence: float
    prompt_tokens: int
