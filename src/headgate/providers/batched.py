"""Batched: a Provider that asks for the embeddings of several callers in one call.

They share a call when they differ in nothing but their inputs: one deployment, one tenant who pays, all other fields of the body. When
a call goes is said in `lanes.py`, how its answer is taken apart in `shares.py`.

The invariant: whatever becomes of the others, each caller gets the vectors of its own inputs in its own order and its own share of
the usage, or an error of its own. Who goes alone is passed through untouched.
"""

from __future__ import annotations

import copy
import random
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from typing import Any

import msgspec

from headgate.model.chat import ChatRequest, Event, Json
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Malformed, Rejected, UpstreamError
from headgate.providers.lanes import Bounds, Caller, Lane
from headgate.providers.provider import Provider
from headgate.providers.shares import split_usage, taken_apart
from headgate.providers.usage import normalised

NOT_FOUND = 404
"""The one refusal that is about the deployment and not about anybody's inputs."""

_encode = msgspec.json.Encoder(order="deterministic").encode


class Batched:
    """The same provider, with calls for embeddings put together. Belongs to one event loop."""

    def __init__(
        self,
        provider: Provider,
        bounds: Bounds,
        *,
        weigh: Callable[[Any], int],
        tell: Callable[[str, int, int], None] = lambda _deployment, _items, _callers: None,
        chance: random.Random | None = None,
    ) -> None:
        """`weigh` estimates the tokens of an `input`; `tell` hears of each call for embeddings: its deployment, its inputs and its
        callers; `chance` draws when those ask again whose call has failed."""
        self._provider = provider
        self._bounds = bounds
        self._weigh = weigh
        self._tell = tell
        self._chance = chance or random.Random()
        self._lanes: dict[Hashable, Lane] = {}

    def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        """See Provider."""
        return self._provider.send(deployment, request, clearance, timeout=timeout)

    async def embed(self, deployment: Deployment, body: Json, clearance: Clearance, *, timeout: float) -> Json:
        """See Provider. As long as the inputs wait for others `clearance.waiting` is set."""
        given = body.get("input")
        caller = Caller(body, items_of(given), self._weigh(given), clearance, timeout)
        if clearance.tenant and self._meets_others(caller):
            answer = await self._lane(deployment, caller).carried(caller)
            if answer is not None:
                return answer
        return await self._ask(deployment, body, clearance, caller)

    def _meets_others(self, caller: Caller) -> bool:
        """Whether there is room for others beside it. A list among the other fields may say something of each input: then it goes alone."""
        return (
            0 < len(caller.items) < self._bounds.items
            and caller.tokens < self._bounds.tokens
            and not any(isinstance(value, list) for name, value in caller.body.items() if name != "input")
        )

    def _lane(self, deployment: Deployment, caller: Caller) -> Lane:
        fields = {name: value for name, value in caller.body.items() if name not in ("input", "model")}
        kind = type(caller.items[0])
        key = deployment.name, deployment.model, caller.clearance.tenant, kind, _encode(fields)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(
                deployment.provider,
                self._bounds,
                lambda callers: self._carry(deployment, callers),
                lambda: self._forget(key),
            )
        return lane

    def _forget(self, key: Hashable) -> None:
        del self._lanes[key]

    async def _ask(self, deployment: Deployment, body: Json, clearance: Clearance, *callers: Caller) -> Json:
        items = sum(max(1, len(caller.items)) for caller in callers)
        self._tell(deployment.name, items, len(callers))
        seconds = max(caller.remaining() for caller in callers)
        return await self._provider.embed(deployment, body, clearance, timeout=seconds)

    async def _carry(self, deployment: Deployment, callers: Sequence[Caller]) -> None:
        """One call for all of them."""
        first = callers[0]
        alone = len(callers) == 1
        body = first.body if alone else {**first.body, "input": [item for caller in callers for item in caller.items]}
        # What the provider says that it used is not the first caller's.
        clearance = first.clearance if alone else copy.copy(first.clearance)
        try:
            answer = await self._ask(deployment, body, clearance, *callers)
            answers = [answer] if alone else _each(answer, callers, clearance, deployment.provider)
        except UpstreamError as error:
            self._failed(error, callers, clearance)
            return
        _name_speaker(callers)
        for caller, own in zip(callers, answers, strict=True):
            caller.gets(own)

    def _failed(self, error: UpstreamError, callers: Sequence[Caller], clearance: Clearance) -> None:
        """A refusal may be about one caller's inputs, so each asks by itself. Anything else befalls them all."""
        if len(callers) == 1:
            callers[0].gets(error)
            return
        if isinstance(error, Rejected) and error.status != NOT_FOUND:
            for caller in callers:
                caller.gets(None)
            return
        _name_speaker(callers)
        if clearance.told is not None:
            used = split_usage(clearance.told, [caller.tokens for caller in callers])
            for caller, share in zip(callers, used, strict=True):
                caller.clearance.told = share
        jitter = self._chance.random()
        for caller in callers:
            own = copy.copy(error)  # it will carry the id of its caller's request
            own.jitter = jitter
            caller.gets(own)

    async def close(self) -> None:
        """See Provider. Calls for embeddings that are under way are given up."""
        for lane in list(self._lanes.values()):
            await lane.close()
        await self._provider.close()


def items_of(given: Any) -> list[Any]:
    """The inputs of an embeddings call, each a text or a list of tokens; none when they cannot be told apart."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        return []
    if given and all(type(one) is int for one in given):
        return [given]
    kinds = {type(one) for one in given}
    return given if kinds in ({str}, {list}) else []


def _each(answer: Json, callers: Sequence[Caller], clearance: Clearance, name: str) -> list[Json]:
    """Everybody's part of an answer. Raises Malformed when it does not hold one vector for each input."""
    sizes, weights = [len(caller.items) for caller in callers], [caller.tokens for caller in callers]
    answers = taken_apart(answer, sizes, weights)
    if answers is None:
        clearance.told = normalised(answer.get("usage"))
        odd = Malformed(f"{name} did not send one embedding for each input.")
        odd.sent = True
        raise odd
    return answers


def _name_speaker(callers: Sequence[Caller]) -> None:
    """One of those who still wait tells the breaker how the call ended."""
    waiting = [caller for caller in callers if not caller.outcome.done()]
    for caller in waiting[1:]:
        caller.clearance.echo = True
