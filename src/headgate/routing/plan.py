"""Planning: from the deployments that a route offers to the few that will be tried, in order.

The invariant: every step can do what the request asks, fits its window and has its cost under the plan's ceiling, so
dispatch may go from one to the next without another thought about capability or money.

Two sizes of the prompt are known: `most` bytes-for-tokens, which is never too small and is what money is held against,
and `likely`, the estimate. A window is checked with `most` first; when that does not fit, with `likely`: for
English text `most` is some four times the truth and would refuse three quarters of every window. If the estimate was too
small, the provider refuses the call and the next step is tried; the money held still covers it. What is done about a prompt that is
too long is overflow.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.errors import ContextTooLong, InvalidRequest, Unpriced
from headgate.model.money import Extent
from headgate.model.tenancy import Policy
from headgate.routing.extent import TEXT
from headgate.routing.features import has_image
from headgate.routing.overflow import ANSWER_ROOM, SHARE, Fit, Measure, Prompt, comfortable, fits, shorter
from headgate.routing.route import TIERS, Decision, Plan, Route, Shortened, Step, Tier

MOST_STEPS = 3
"""The first deployment and two fallbacks."""

_PARAMS = {"tools": "tools", "vision": "messages", "json": "response_format"}


def offered(route: Route, decision: Decision, policy: Policy) -> tuple[str, ...]:
    """All deployments of a route, best first: the tenant's preferred, the task's chain, the tier's list, higher, lower.

    A tier that the tenant pinned leaves the task's chain out, and so does a frugal decision, which stays in its tier.
    """
    chain = () if policy.tier is not None or decision.frugal else route.tasks.get(decision.task, ())
    tiers = (decision.tier,) if decision.frugal and route.tiers.get(decision.tier) else _tiers_from(decision.tier)
    ordered = dict.fromkeys((*chain, *(name for tier in tiers for name in route.tiers.get(tier, ()))))
    preferred = [name for name in policy.prefer if name in ordered]
    return tuple(dict.fromkeys((*preferred, *ordered)))


def steps(
    candidates: Iterable[Deployment],
    request: ChatRequest,
    *,
    priced: bool,
    likely: int,
    most: int,
    extent: Extent,
    shunned: Callable[[str], int],
    route: Route | None = None,
    measure: Measure | None = None,
) -> tuple[Step, ...]:
    """The deployments to try, at most three, healthy ones first.

    `priced`: only deployments with a price; `extent` is how far the request may go; `shunned` ranks a deployment's health, 0 is
    healthy; `route` says what is done about a prompt that is too long, and without a `measure` it is not shortened. Raises InvalidRequest naming a capability that is missing, Unpriced when no model that may be used has a price,
    ContextTooLong with the numbers.
    """
    able = _able(tuple(candidates), request)
    affordable = _priced(able) if priced else able
    ranked = sorted(affordable, key=lambda one: shunned(one.name))
    every = fits(ranked, Prompt(request, likely, most, measure), route)
    fitting = [fit for fit in every if fit.limit > 0]
    if not fitting:
        raise _too_long(affordable, request, likely, route)
    demoted = every[0].demoted
    fitting.sort(key=lambda fit: (shunned(fit.deployment.name), fit.demoted, fit.short))
    return tuple(_step(fit, request, most, extent, demoted=demoted) for fit in fitting[:MOST_STEPS])


def _step(fit: Fit, request: ChatRequest, most: int, extent: Extent, *, demoted: bool) -> Step:
    """`demoted`: the deployment that came first is not asked first, for the prompt is too long for it."""
    size = most if fit.shortened is None else fit.shortened.most
    ceiling = _ceiling(fit.deployment, size, fit.limit * request.choices, extent)
    larger = demoted and not fit.demoted
    return Step(fit.deployment, fit.limit, ceiling, shortened=fit.shortened, larger=larger)


def condensed(plan: Plan, request: ChatRequest, instead: Shortened, *, measure: Measure, expected: int) -> Plan:
    """The plan with another short form of its `request` in each step that is to have one, and whose window that fits."""

    def with_it(step: Step) -> Step:
        wanted = step.shortened is not None and step.shortened.condenser == instead.condenser
        if not (wanted and comfortable(step.deployment, measure)(instead.request)):
            return step
        fit = shorter(step.deployment, request, instead)
        return _step(fit, request, plan.most, plan.extent, demoted=step.larger)

    planned = tuple(map(with_it, plan.steps))
    return msgspec.structs.replace(
        plan,
        steps=planned,
        ceiling=max(step.ceiling for step in planned),
        least=least(planned, most=plan.most, choices=plan.choices, expected=expected, extent=plan.extent),
    )


def embedding_plan(route: str, one: Deployment, *, likely: int, most: int, priced: bool = False) -> Plan:
    """A plan of one deployment, for an embeddings call. Raises Unpriced. A text that is too long the provider refuses itself."""
    if priced:
        (one,) = _priced((one,))
    ceiling = _ceiling(one, most, 0, TEXT)
    return Plan(
        route=route,
        steps=(Step(one, 0, ceiling),),
        ceiling=ceiling,
        reason="pinned",
        confidence=1.0,
        prompt_tokens=likely,
        most=most,
        least=ceiling,
        choices=0,
        extent=TEXT,
    )


def least(planned: tuple[Step, ...], *, most: int, choices: int, expected: int, extent: Extent) -> int:
    """Nano-USD with which the first step can be tried, for an answer of at most `expected` tokens."""
    first = planned[0]
    if first.limit <= expected:
        return first.ceiling
    size = most if first.shortened is None else first.shortened.most
    return _ceiling(first.deployment, size, expected * choices, extent)


def _ceiling(one: Deployment, most: int, completion: int, extent: Extent) -> int:
    """A deployment without a price is counted as free."""
    return 0 if one.price is None else one.price.ceiling(most, completion, extent)


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


def _priced(able: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
    priced = tuple(one for one in able if one.price is not None)
    if not priced:
        names = ", ".join(f"`{one.name}`" for one in able)
        raise Unpriced(f"No price is known for {names}, so its cost cannot be held against the budget.", param="model")
    return priced


def _too_long(
    candidates: tuple[Deployment, ...], request: ChatRequest, likely: int, route: Route | None
) -> ContextTooLong:
    largest = max(candidates, key=lambda one: one.context_window)
    answer = min(request.max_output or largest.max_output, largest.max_output, ANSWER_ROOM)
    refuses = route is not None and "refuse" in route.overflow
    share = f", of which a prompt may take {SHARE:.0%} here" if refuses else ""
    return ContextTooLong(
        f"The prompt is about {likely} tokens and its answer needs at least {answer}; the largest model that may be used,"
        f" `{largest.name}`, takes {largest.context_window} together{share}.",
        param="messages",
    )
