"""Dispatch: carries out a plan. Deadline, retry, fallback and hedge until the first delta, then straight on.

What says nothing yet, such as the role that opens a stream, is held back until there is content: an error before it is still made good.
After the first delta nothing is tried again: a spliced answer would be a wrong one. Attempts are the unit of cost: every one
that may have cost something is charged to the reservation, without which no call can be made. What is known of the deployments
is the fleet's; which of them is next is the course's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing

from headgate.budget.reservation import Reservation
from headgate.coalesce.trail import Trail
from headgate.dispatch.attempt import Attempt
from headgate.dispatch.course import Course, Patience
from headgate.dispatch.hedge import Outrun, Race, race
from headgate.model import failpoints
from headgate.model.chat import ChatRequest, Completion, Delta, Event, Json
from headgate.model.errors import Interrupted, UpstreamError
from headgate.providers.provider import Provider
from headgate.providers.usage import normalised
from headgate.routing.fleet import Fleet
from headgate.routing.retries import RetryBudget
from headgate.routing.routing import Plan

Publish = Callable[[Event], None]


class Dispatch:
    """Makes calls. Time, sleep and chance are injected."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        fleet: Fleet,
        retry_budget: RetryBudget,
        patience: Patience | None = None,
        *,
        hedges: Mapping[str, RetryBudget] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: random.Random | None = None,
    ) -> None:
        """`providers` by name as deployments say it; `hedges` by route, how many of its calls may be made twice; `now`, unix seconds,
        chooses between prices by the time of the day; `chance` draws the jitter."""
        self.providers = providers
        self.fleet = fleet
        self.retry_budget = retry_budget
        self.patience = patience or Patience()
        self.hedges = dict(hedges or {})
        self.clock = clock
        self.now = now
        self.sleep = sleep
        self.chance = chance or random.Random()

    async def send(
        self, plan: Plan, request: ChatRequest, reservation: Reservation, trail: Trail, publish: Publish
    ) -> Completion:
        """Carry out a plan: every event of the answer goes to `publish` as it comes; the whole answer is returned.

        Raises AllFailed or Rejected before the first event, Interrupted after it.
        """
        course = Course(self, plan, reservation, trail)
        while True:
            attempt = await course.next()
            try:
                answered = await self._attempted(attempt, request, publish)
                return answered.tally.completion(trail.model or "")
            except UpstreamError as error:
                await course.after(error, attempt)

    async def _attempted(self, attempt: Attempt, request: ChatRequest, publish: Publish) -> Attempt:
        """The attempt that has answered: this one, or another beside it where the route's calls are hedged."""
        delay = None
        if attempt.course.hedges is not None:
            delay = self.fleet.usual(attempt.step.deployment.name, stream=bool(request.stream))
        if delay is None:
            await self._attempt(attempt, request, publish)
            return attempt
        return await race(attempt, lambda one, field: self._attempt(one, request, publish, field), delay)

    async def _attempt(
        self, attempt: Attempt, request: ChatRequest, publish: Publish, field: Race | None = None
    ) -> None:
        """One try. However it ends, what it cost is charged. Raises Interrupted when it broke off after its first part."""
        deployment, tally = attempt.step.deployment, attempt.tally
        provider, timeout = self.providers[deployment.provider], attempt.course.remaining()
        stream, held = bool(request.stream), list[Event]()
        try:
            sent = attempt.step.sends(request)
            async with aclosing(provider.send(deployment, sent, attempt.clearance, timeout=timeout)) as events:
                async for event in events:
                    if not tally.started:
                        held.append(event)
                        if _says_nothing(event):
                            continue
                        _begins(attempt, field, stream=stream)
                    for one in held or (event,):
                        tally.add(one)
                        publish(one)
                    held.clear()
                    failpoints.passed("mid_stream")
            failpoints.passed("after_answer")
        except UpstreamError as error:
            attempt.failed(error)
            if tally.started:
                raise Interrupted(f"The answer broke off: {error.message}") from error
            raise
        except BaseException:
            attempt.given_up("outrun" if field is not None and field.lost_by(attempt) else "cancelled")
            raise
        attempt.answered(tally.usage())

    async def embed(self, plan: Plan, body: Json, reservation: Reservation, trail: Trail) -> Json:
        """Carry out an embeddings plan. Raises AllFailed or the provider's own refusal."""
        course = Course(self, plan, reservation, trail)
        while True:
            attempt = await course.next()
            deployment = attempt.step.deployment
            provider, timeout = self.providers[deployment.provider], course.remaining()
            try:
                answer = await provider.embed(deployment, body, attempt.clearance, timeout=timeout)
            except UpstreamError as error:
                attempt.failed(error)
                await course.after(error, attempt)
            except BaseException:
                attempt.given_up("cancelled")
                raise
            else:
                failpoints.passed("after_answer")
                attempt.first_part(stream=False)
                attempt.answered(normalised(answer.get("usage")) or attempt.seen())
                return answer


def _says_nothing(event: Event) -> bool:
    """Whether it is only the frame of an answer: a role, empty content, no end."""
    if not isinstance(event, Delta):
        return False
    for choice in event.choices:
        delta = choice.get("delta") or {}
        if choice.get("finish_reason") is not None or any(value for name, value in delta.items() if name != "role"):
            return False
    return True


def _begins(attempt: Attempt, field: Race | None, *, stream: bool) -> None:
    """The first part is here. Raises Outrun when another attempt's came first."""
    if field is not None and not field.won_by(attempt):
        raise Outrun
    attempt.first_part(stream=stream)
