"""Sticking: a conversation keeps its tier or goes upward, and keeps its deployment while that is well.

A reader notices when answers become worse in the middle of a conversation, and a provider keeps what it has read of one for some
minutes at a fraction of the price, which is lost with every move. The invariant: from one answered turn to the next, as long as less than
the route's idle time lies between them, the tier of a conversation does not fall, unless a budget or a person says so.

Nobody tells conversations apart for us: a turn belongs to the same as another when it has the same tenant, user, instructions, first
question and first answer. At its first turn the answer is not there yet, so that one only passes on what it had to the second.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import msgspec

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.money import Usage
from headgate.model.tenancy import Policy
from headgate.routing.route import TIERS, Conversation, Decision, Kept, Route

MOST = 50_000
"""Conversations that are remembered, of all tenants; the one goes that has been silent for longest."""
AT_HAND = 300.0
"""Seconds for which a provider is believed to have at hand what it has read: the shortest that the large ones promise."""
LEAST_CACHED = 1_024
"""Tokens of the shortest prompt that a provider keeps without being asked to."""


class Sticking:
    """What is remembered of conversations."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._conversations: OrderedDict[bytes, tuple[float, Kept]] = OrderedDict()

    def held(
        self, decision: Decision, route: Route, request: ChatRequest, *, tenant: str, user: str | None
    ) -> Decision:
        """A decision as the conversation lets it be, with what that has kept. Nothing changes by asking."""
        if route.stick <= 0:
            return decision
        conversation = conversation_of(request, tenant, user, route.name)
        kept = None
        if conversation.own is not None:
            kept = self._kept(conversation.own, route.stick) or self._kept(conversation.opening, route.stick)
        decision = msgspec.structs.replace(decision, conversation=conversation, kept=kept)
        if kept is None or TIERS.index(kept.tier) <= TIERS.index(decision.tier):
            return decision
        reason = f"sticks:{kept.tier}"
        return msgspec.structs.replace(
            decision, tier=kept.tier, reason=reason, reasons=(*decision.reasons, reason), propensity=1.0
        )

    def answered(self, decision: Decision, route: Route, deployment: Deployment, usage: Usage) -> None:
        """A turn was answered by a deployment that used so much."""
        conversation = decision.conversation
        if conversation is None:
            return
        place = conversation.own or conversation.opening
        before = self._kept(place, route.stick)
        tier = decision.tier if before is None else max(decision.tier, before.tier, key=TIERS.index)
        self._conversations[place] = self._clock(), Kept(tier, deployment.name, _cached(deployment, usage))
        self._conversations.move_to_end(place)
        if len(self._conversations) > self._most:
            self._conversations.popitem(last=False)

    def _kept(self, place: bytes, idle: float) -> Kept | None:
        at, kept = self._conversations.get(place, (float("-inf"), None))
        silent = self._clock() - at
        if kept is None or silent >= idle:
            return None
        return kept if silent < AT_HAND else msgspec.structs.replace(kept, cached=0)


def conversation_of(request: ChatRequest, tenant: str, user: str | None, route: str) -> Conversation:
    """Which conversation a request is a turn of."""
    said = blake2b(msgspec.json.encode([tenant, user, route]), digest_size=16)
    opening = None
    for message in request.messages:
        if opening is not None and message.role != "assistant":
            continue
        said.update(msgspec.json.encode([message.role, message.content]))
        if opening is not None:
            return Conversation(opening, said.digest())
        if message.role == "user":
            opening = said.digest()
    return Conversation(opening or said.digest(), None)


def stayed(
    candidates: Sequence[Deployment],
    route: Route,
    decision: Decision,
    policy: Policy,
    *,
    ranks: Mapping[str, int],
    likely: int,
    expected: int,
) -> tuple[Deployment, ...]:
    """The candidates with the conversation's own deployment first, where that is well, as good as the one whose turn it would be, and no
    dearer now that it has `cached` tokens at hand. `likely` and `expected` are tokens of prompt and answer."""
    kept = decision.kept
    well = [one for one in candidates if not ranks[one.name]]
    mine = next((one for one in well if kept is not None and one.name == kept.deployment), None)
    if kept is None or mine is None or well[0] is mine or not _peers(well[0], mine, route, decision, policy):
        return tuple(candidates)
    stays = _cost(mine, likely, expected, kept.cached)
    moves = _cost(well[0], likely, expected, 0)
    if stays is not None and moves is not None and moves < stays:
        return tuple(candidates)
    return (mine, *(one for one in candidates if one is not mine))


def _peers(first: Deployment, mine: Deployment, route: Route, decision: Decision, policy: Policy) -> bool:
    """Whether one may stand for the other: both are the tenant's preferred, both of the task's chain, or both good enough."""
    enough = [name for tier in TIERS[TIERS.index(decision.tier) :] for name in route.tiers.get(tier, ())]
    for group in (policy.prefer, route.tasks.get(decision.task, ()), enough):
        if first.name in group:
            return mine.name in group
    return False


def _cost(one: Deployment, prompt: int, completion: int, cached: int) -> int | None:
    """Nano-USD of the next turn; None where no price is known."""
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=min(cached, prompt))
    return None if one.price is None else one.price.charge(usage)


def _cached(deployment: Deployment, usage: Usage) -> int:
    """Tokens that a provider has at hand after a call: what it counted as such, else the prompt where such tokens have a price."""
    counted = usage.cached_tokens + usage.cache_write_tokens
    if counted or deployment.price is None or deployment.price.cached_input is None:
        return counted
    return usage.prompt_tokens if usage.prompt_tokens >= LEAST_CACHED else 0
