"""Overflow: what becomes of a prompt that is too long for a model.

A prompt is too long for a model from four fifths of its window on: sizes are estimates, and the answer needs room. The route's list says
what is then done, in this order: let a `larger` model of the route go first, `prune` the oldest turns, `condense` them, or `refuse`. A
prompt that still fits is sent whole where the list has nothing better. The same list holds for each model that would be fallen back to.

Invariant: what is sent to a model fits its window by the best estimate there is, and a conversation that was shortened says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.routing.pruning import cut, without
from headgate.routing.route import Overflow, Route, Shortened

SHARE = 0.8
"""Of a window: what a prompt may take of it before something is done about it."""
ANSWER_ROOM = 256
"""Tokens that a window must have left for an answer, unless fewer are asked for."""


class Size(Protocol):
    """Tokens of a prompt: the probable number, and one it cannot exceed."""

    @property
    def likely(self) -> int:
        """The probable number."""
        ...

    @property
    def most(self) -> int:
        """One that it cannot exceed."""
        ...


Measure = Callable[[ChatRequest], Size]


class Prompt(msgspec.Struct, frozen=True):
    """A request with its size, and with what measures shorter ones; without `measure` nothing is shortened."""

    request: ChatRequest
    likely: int
    most: int
    measure: Measure | None = None


class Fit(msgspec.Struct, frozen=True):
    """How a prompt goes to a deployment.

    limit      output tokens that may be asked for; 0 when the prompt does not fit
    short      whether the caller wanted more of them
    demoted    whether a larger model is to be asked first
    shortened  what is sent in the place of the whole prompt
    """

    deployment: Deployment
    limit: int
    short: bool
    demoted: bool = False
    shortened: Shortened | None = None


def fits(candidates: Iterable[Deployment], prompt: Prompt, route: Route | None) -> list[Fit]:
    """How a prompt goes to each deployment, in their order. None at all where the route would rather refuse the call than let another
    than the first have it."""
    ways: tuple[Overflow, ...] = ("larger",) if route is None else route.overflow
    refuses = "refuse" in ways
    every = list(candidates)
    ample = [_ample(one, prompt.request, prompt.likely) for one in every]
    demoted = "larger" in ways and any(ample)
    found = []
    for one, enough in zip(every, ample, strict=True):
        fit = _whole(one, prompt) if enough else _overlong(one, prompt, ways, route, demoted=demoted)
        if not enough and refuses and fit.shortened is None:
            fit = msgspec.structs.replace(fit, limit=0)
        found.append(fit)
    return [] if found and refuses and not (found[0].limit or demoted) else found


def comfortable(one: Deployment, measure: Measure) -> Callable[[ChatRequest], bool]:
    """What tells whether a request leaves a deployment's window a fifth, and room for its answer."""
    return lambda request: _ample(one, request, measure(request).likely)


def shorter(one: Deployment, request: ChatRequest, shortened: Shortened, *, demoted: bool = False) -> Fit:
    """How a short form of a request goes to a deployment whose window it fits."""
    limit, short = _room(one, request, shortened.likely, shortened.most)
    return Fit(one, limit, short, demoted, shortened)


def _overlong(
    one: Deployment, prompt: Prompt, ways: tuple[Overflow, ...], route: Route | None, *, demoted: bool
) -> Fit:
    """The same for a prompt that takes too much of the window: shortened, where the route wants that and it can be."""
    shortens = next((way for way in ways if way in ("prune", "condense")), None)
    shortened = None if shortens is None or prompt.measure is None else _pruned(one, prompt.request, prompt.measure)
    if shortens is None or shortened is None:
        return msgspec.structs.replace(_whole(one, prompt), demoted=demoted)
    if shortens == "condense" and route is not None:
        shortened = msgspec.structs.replace(shortened, condenser=route.condenser)
    demoted = demoted and ways.index("larger") < ways.index(shortens)
    return shorter(one, prompt.request, shortened, demoted=demoted)


def _pruned(one: Deployment, request: ChatRequest, measure: Measure) -> Shortened | None:
    enough = comfortable(one, measure)
    gone = cut(request.messages, lambda places: enough(without(request, places)))
    if gone is None:
        return None
    places = [at for unit in gone for at in unit]
    left = without(request, places)
    size = measure(left)
    return Shortened(left, size.likely, size.most, f"pruned:{len(places)}")


def _whole(one: Deployment, prompt: Prompt) -> Fit:
    limit, short = _room(one, prompt.request, prompt.likely, prompt.most)
    return Fit(one, limit, short)


def _ample(one: Deployment, request: ChatRequest, likely: int) -> bool:
    left = one.context_window - likely
    return likely <= SHARE * one.context_window and left >= _least_answer(one, request)


def _least_answer(one: Deployment, request: ChatRequest) -> int:
    return min(request.max_output or one.max_output, one.max_output, ANSWER_ROOM)


def _room(one: Deployment, request: ChatRequest, likely: int, most: int) -> tuple[int, bool]:
    """Output tokens that may be asked for (0: the prompt does not fit), and whether the caller wanted more."""
    wanted = min(request.max_output or one.max_output, one.max_output)
    if one.context_window - most >= wanted:
        return wanted, False
    room = one.context_window - likely
    if room < min(wanted, ANSWER_ROOM):
        return 0, True
    return min(wanted, room), request.max_output is not None and room < wanted
