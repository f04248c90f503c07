"""Planning: from the deployments that a route offers to the few that will be tried, in order.

The invariant: every step can do what the request asks, fits its window and has its cost under the plan's ceiling, so
dispatch may go from one to the next without another thought about capability or money.

Two sizes of the prompt are known: `most` bytes-for-tokens, which is never too small and is what money is held against,
and `likely`, the estimate. A window is checked with `most` first; when that does not fit, with `likely`: for
English text `most` is some four times the truth and would refuse three quarters of every window. If the estimate was too
small, the provider refuses the call and the next step is tried; the money held still covers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.errors import ContextTooLong, InvalidRequest, Unpriced
from headgate.model.tenancy import Caps, Policy
from headgate.routing.features import has_image
from headgate.routing.route import TIERS, Decision, Route, Step, Tier

MOST_STEPS = 3
"""The first deployment and two fallbacks."""
ANSWER_ROOM = 256
"""Tokens that a window must have left for an answer, unless fewer are asked for."""

_PARAMS = {"tools": "tools", "vision": "messages", "json": "response_format"}


def offered(route: Route, decision: Decision, policy: Policy) -> tuple[str, ...]:
    """All deployments of a route, best first: the tenant's preferred, the task's chain, the tier's list, higher, lower.

    A tier that the tenant pinned leaves the task's chain out.
    """
    chain = () if policy.tier is not None else route.tasks.get(decision.task, ())
    ordered = dict.fromkeys(
        (*chain, *(name for tier in _tiers_from(decision.tier) for name in route.tiers.get(tier, ())))
    )
    preferred = [name for name in policy.prefer if name in ordered]
    return tuple(dict.fromkeys((*preferred, *ordered)))


def steps(
    candidates: Iterable[Deployment],
    request: ChatRequest,
    caps: Caps,
    *,
    likely: int,
    most: int,
    shunned: Callable[[str], int],
) -> tuple[Step, ...]:
    """The deployments to try, at most three, healthy ones first.

    `shunned` ranks a deployment's health, 0 is healthy. Raises InvalidRequest naming a capability that is missing,
    Unpriced when a capped tenant could only use models without a price, ContextTooLong with the numbers.
    """
    able = _able(tuple(candidates), request)
    affordable = _priced(able, caps)
    fitting = []
    for one in affordable:
        limit, short = _room(one, request, likely, most)
        if limit > 0:
            fitting.append((shunned(one.name), short, Step(one, limit)))
    if not fitting:
        raise _too_long(affordable, request, likely)
    fitting.sort(key=lambda entry: entry[:2])
    return tuple(step for _, _, step in fitting[:MOST_STEPS])


def embedding_step(one: Deployment, caps: Caps) -> Step:
    """The one deployment of an embeddings call. Raises Unpriced. A text that is too long the provider refuses itself."""
    (one,) = _priced((one,), caps)
    return Step(one, 0)


def ceiling(planned: tuple[Step, ...], *, most: int, choices: int) -> int:
    """Nano-USD that the dearest step may cost; a deployment without a price is counted as free."""
    dearest = 0
    for step in planned:
        price = step.deployment.price
        if price is not None:
            dearest = max(dearest, price.ceiling(most, step.limit * choices))
    return dearest


def needs(request: ChatRequest) -> tuple[str, ...]:
    """The capabilities that a request asks for, of `tools`, `vision`, `json`."""
    found = []
    if request.tools or request.body.get("functions"):
        found.append("tools")
    if has_image(request):
        found.append("vision")
    if request.response_format is not None and request.response_format.type.startswith("json"):
        found.append("json")
    return tuple(found)


def _tiers_from(tier: Tier) -> tuple[Tier, ...]:
    """The tier, then the higher ones, then the lower ones from the top: quality is given up last."""
    at = TIERS.index(tier)
    return (*TIERS[at:], *reversed(TIERS[:at]))


def _able(candidates: tuple[Deployment, ...], request: ChatRequest) -> tuple[Deployment, ...]:
    wanted = needs(request)
    if not wanted:
        return candidates
    able = tuple(one for one in candidates if one.capabilities.issuperset(wanted))
    if able:
        return able
    missing = [name for name in wanted if not any(name in one.capabilities for one in candidates)] or list(wanted)
    names = ", ".join(f"`{one.name}`" for one in candidates)
    raise InvalidRequest(
        f"No model that may be used here supports {' and '.join(missing)}: {names}.", param=_PARAMS[missing[0]]
    )


def _priced(able: tuple[Deployment, ...], caps: Caps) -> tuple[Deployment, ...]:
    if (caps.hour, caps.day, caps.month, caps.total) == (None, None, None, None):
        return able
    priced = tuple(one for one in able if one.price is not None)
    if not priced:
        names = ", ".join(f"`{one.name}`" for one in able)
        raise Unpriced(f"No price is known for {names}, so its cost cannot be held against the budget.", param="model")
    return priced


def _room(one: Deployment, request: ChatRequest, likely: int, most: int) -> tuple[int, bool]:
    """Output tokens that may be asked for (0: the prompt does not fit), and whether the caller wanted more."""
    wanted = min(request.max_output or one.max_output, one.max_output)
    if one.context_window - most >= wanted:
        return wanted, False
    room = one.context_window - likely
    if room < min(wanted, ANSWER_ROOM):
        return 0, True
    return min(wanted, room), request.max_output is not None and room < wanted


def _too_long(candidates: tuple[Deployment, ...], request: ChatRequest, likely: int) -> ContextTooLong:
    largest = max(candidates, key=lambda one: one.context_window)
    answer = min(request.max_output or largest.max_output, largest.max_output, ANSWER_ROOM)
    return ContextTooLong(
        f"The prompt is about {likely} tokens and its answer needs at least {answer}; the largest model that may be used,"
        f" `{largest.name}`, takes {largest.context_window} together.",
        param="messages",
    )
