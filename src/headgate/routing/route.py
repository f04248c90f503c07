"""The values of routing: what is offered, what was decided, what will be tried."""

from __future__ import annotations

from typing import Literal

import msgspec

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.money import ANYTHING, Extent, Price, Usage
from headgate.model.tenancy import Strategy
from headgate.routing.features import Features

Tier = Literal["low", "medium", "high"]
Task = Literal["chat", "reasoning", "code", "vision"]
Intent = Literal["retrieval", "chat", "analysis", "error"]
"""What a caller wants: a fact looked up, talk, something thought through, something mended."""
DeciderName = Literal["rules", "features", "knn", "classifier"]
Overflow = Literal["larger", "prune", "condense", "refuse"]
"""What is done about a prompt that is too long for a model: see overflow.py."""
TIERS: tuple[Tier, ...] = ("low", "medium", "high")


class Route(msgspec.Struct, frozen=True):
    """A public model name that leads to deployments.

    tiers  deployment names for each tier, best first; a route without tiers has the same list in all three
    tasks  deployment names that go before the tier's when a question is of that kind; a kind left out has no list of its own
    default_tier  where a question goes that the router cannot judge
    deciders  who is asked what a question deserves, in this order: the cheapest first
    pools    deployments that stand for each other, as a group each: which of a group goes first is up to the fleet
    explore  share of the questions that go to another tier by chance, so that there is something to learn from
    ceiling  the highest tier that a guess may choose; a rule, a tenant's policy and a fallback may go above it
    stick    seconds without a call after which a conversation is forgotten; 0: conversations do not stick
    overflow  what is done about a prompt that is too long for a model, in this order
    condenser  what writes the summary of turns that are condensed: a route or a deployment, by its public name
    """

    name: str
    tiers: dict[Tier, tuple[str, ...]]
    tasks: dict[Task, tuple[str, ...]] = {}
    default_tier: Tier = "medium"
    deciders: tuple[DeciderName, ...] = ("rules", "features")
    explore: float = 0.0
    pools: tuple[tuple[str, ...], ...] = ()
    ceiling: Tier = "high"
    stick: float = 0.0
    overflow: tuple[Overflow, ...] = ("larger",)
    condenser: str | None = None

    @property
    def tiered(self) -> bool:
        """True when it matters what the question is like."""
        return bool(self.tasks) or len({self.tiers.get(tier, ()) for tier in TIERS}) > 1


class Kept(msgspec.Struct, frozen=True, gc=False):
    """What a conversation keeps of its last answered turn.

    tier        the highest that any of its turns has had
    deployment  that answered the last one
    cached      tokens of its prompt that the deployment's provider is likely to have at hand still
    """

    tier: Tier
    deployment: str
    cached: int = 0


class Conversation(msgspec.Struct, frozen=True, gc=False):
    """Which conversation a request is a turn of, as digests.

    opening  of who asks, and of what was said up to the first question: all that is known of a conversation at its first turn
    own      with the first answer, too; None at the first turn
    """

    opening: bytes
    own: bytes | None


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What kind of question it is and how good a model it deserves.

    confidence  (0..1) probability of the tier under the model of who has decided; 1 when a person chose, 0 when all abstained
    reason      short and of few values: `pinned`, `tenant_tier`, `untiered`, `budget_degraded`, `unsure:foreign`, `rule:gold`,
                `sticks:high`, or the features that counted most, as `length+code`
    frugal      no dearer tier may be fallen back to
    intent      what the caller wants
    complexity  from 0, a look-up, to 1
    strategy    how bold the semantic cache may be at most; None is as it is set
    decider     who has decided; None where there was nothing to decide
    reasons     what each decider that was asked has said, in their order, as `features:medium 0.62 length+code`
    propensity  probability with which this tier was chosen among those that could have been: below 1 where chance had a say
    conversation  which one it is a turn of, on a route where conversations stick
    kept        what that has kept so far
    """

    task: Task
    tier: Tier
    confidence: float
    reason: str
    frugal: bool = False
    intent: Intent = "chat"
    complexity: float = 0.5
    strategy: Strategy | None = None
    decider: DeciderName | None = None
    reasons: tuple[str, ...] = ()
    propensity: float = 1.0
    seen: Features | None = None
    conversation: Conversation | None = None
    kept: Kept | None = None


class Shortened(msgspec.Struct, frozen=True):
    """A request without some of its turns, so that it fits a window.

    likely, most  its size in tokens, as of the whole prompt
    how           in a word, as callers are told: `pruned:12`, `condensed:8`
    condenser     what is to write a summary of what is missing, before it is sent; None where none is wanted
    """

    request: ChatRequest
    likely: int
    most: int
    how: str
    condenser: str | None = None


class Step(msgspec.Struct, frozen=True, gc=False):
    """One deployment to try.

    limit    output tokens a choice that may be asked of it
    ceiling  nano-USD that it then may cost
    shrunk   whether the budget left room for fewer tokens than the caller allowed
    shortened  what it is sent in the place of a prompt that is too long for it
    larger   whether it takes the place of one that the prompt is too long for
    """

    deployment: Deployment
    limit: int
    ceiling: int = 0
    shrunk: bool = False
    shortened: Shortened | None = None
    larger: bool = False

    def sends(self, request: ChatRequest) -> ChatRequest:
        """What it is sent of a request."""
        return request if self.shortened is None else self.shortened.request

    @property
    def overflow(self) -> str | None:
        """What was done about a prompt that was too long, as callers are told; None where nothing was."""
        if self.shortened is not None:
            return self.shortened.how
        return "larger" if self.larger else None


class Plan(msgspec.Struct, frozen=True, gc=False):
    """Which deployments to try, in order, and what they may cost.

    ceiling        nano-USD that the dearest step may cost
    least          nano-USD with which the first can be tried with room for an answer of the usual length
    most           tokens that the whole prompt cannot exceed
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
        most = self.most if step.shortened is None else step.shortened.most
        afforded = price.affords(granted, most, self.extent) // max(1, self.choices)
        limit = min(step.limit, max(afforded, expected))
        ceiling = price.ceiling(most, limit * self.choices, self.extent)
        return msgspec.structs.replace(step, limit=limit, ceiling=ceiling, shrunk=limit < step.limit)

    def likely(self, step: Step) -> int:
        """The likely size of what a step's deployment is sent, in tokens."""
        return self.prompt_tokens if step.shortened is None else step.shortened.likely

    def limit_of(self, deployment: str | None) -> int:
        """Output tokens that a choice of this deployment may have; 0 for one that is not planned."""
        for step in self.steps:
            if step.deployment.name == deployment:
                return step.limit
        return 0
