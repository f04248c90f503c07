"""Dispatch: carries out a plan. Deadline, retry, breaker and fallback until the first delta, then straight on.

After the first delta nothing is tried again: a spliced answer would be a wrong one. Attempts are the unit of cost: every one
that may have cost something is charged to the reservation, without which no call can be made.

Retries use exponential backoff with full jitter (Brooker, "Exponential Backoff and Jitter", AWS 2015) and draw on a shared
retry budget, so an outage is not multiplied by its own retries.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing

import msgspec

from headgate.budget.budget import Reservation
from headgate.coalesce import Trail
from headgate.model.chat import ChatRequest, Completion, Event, Json
from headgate.model.deployment import Deployment
from headgate.model.errors import (
    AllFailed,
    FailedAttempt,
    Interrupted,
    Rejected,
    Throttled,
    UpstreamError,
    UpstreamTimeout,
)
from headgate.model.money import Usage
from headgate.model.record import Attempt
from headgate.model.tally import Tally
from headgate.providers.provider import Provider
from headgate.routing.breaker import Breakers
from headgate.routing.retries import RetryBudget
from headgate.routing.routing import Plan, Step

MOST_TOKENS = 2**31
"""A provider that reports more has broken its usage, not answered a prompt."""

Publish = Callable[[Event], None]


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often dispatch tries. Times in seconds.

    total        for a whole call, all attempts together
    retries      further tries at the same deployment
    backoff      the first retry waits up to this long, each later one up to twice as long
    longest_wait a provider that asks for more than this is not waited for
    """

    total: float = 600.0
    retries: int = 1
    backoff: float = 0.25
    longest_wait: float = 5.0


class Dispatch:
    """Makes calls. Time, sleep and chance are injected."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        breakers: Breakers,
        retry_budget: RetryBudget,
        patience: Patience | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: random.Random | None = None,
    ) -> None:
        """`providers` by name as deployments say it; `chance` draws the jitter."""
        self.providers = providers
        self.breakers = breakers
        self.retry_budget = retry_budget
        self.patience = patience or Patience()
        self.clock = clock
        self.sleep = sleep
        self.chance = chance or random.Random()

    async def send(
        self, plan: Plan, request: ChatRequest, reservation: Reservation, trail: Trail, publish: Publish
    ) -> Completion:
        """Carry out a plan: every event of the answer goes to `publish` as it comes; the whole answer is returned.

        Raises AllFailed or Rejected before the first event, Interrupted after it.
        """
        course = _Course(self, plan, reservation, trail)
        while True:
            step = course.next_step()
            tally = Tally(plan.prompt_tokens)
            try:
                await self._attempt(course, step, request, tally, publish)
                return tally.completion(trail.model or "")
            except UpstreamError as error:
                if tally.started:
                    raise Interrupted(f"The answer broke off: {error.message}") from error
                await course.after(error, step)

    async def _attempt(self, course: _Course, step: Step, request: ChatRequest, tally: Tally, publish: Publish) -> None:
        """One try. However it ends, what it cost is charged."""
        await course.reservation.dispatched()
        attempt = _Attempt(course, step.deployment)
        provider = self.providers[step.deployment.provider]
        try:
            async with aclosing(
                provider.send(step.deployment, request, limit=step.limit, timeout=course.remaining())
            ) as events:
                async for event in events:
                    if not tally.started:
                        attempt.first_token()
                    tally.add(event)
                    publish(event)
        except UpstreamError as error:
            attempt.failed(error, tally.usage() if tally.started else None)
            raise
        except BaseException:
            attempt.ended("cancelled", tally.usage() if tally.started else attempt.unknown())
            raise
        attempt.ended("ok", tally.usage())

    async def embed(self, plan: Plan, body: Json, reservation: Reservation, trail: Trail) -> Json:
        """Carry out an embeddings plan. Raises AllFailed or the provider's own refusal."""
        course = _Course(self, plan, reservation, trail)
        while True:
            step = course.next_step()
            await reservation.dispatched()
            attempt = _Attempt(course, step.deployment)
            try:
                answer = await self.providers[step.deployment.provider].embed(
                    step.deployment, body, timeout=course.remaining()
                )
            except UpstreamError as error:
                attempt.failed(error)
                await course.after(error, step)
            else:
                attempt.first_token()
                attempt.ended("ok", _embedding_usage(answer) or attempt.unknown())
                return answer


class _Course:
    """Where a call stands in its plan: which step is next, what has failed, how much time is left."""

    def __init__(self, dispatch: Dispatch, plan: Plan, reservation: Reservation, trail: Trail) -> None:
        self.dispatch = dispatch
        self.reservation = reservation
        self.trail = trail
        self.plan = plan
        self._deadline = dispatch.clock() + dispatch.patience.total
        self._steps = list(plan.steps)
        self._refused: list[Step] = []
        self._retries = 0
        self._failures: list[FailedAttempt] = []
        self._retry_after: float | None = None
        dispatch.retry_budget.deposit()

    def remaining(self) -> float:
        """Seconds left of the call's total time."""
        return max(0.001, self._deadline - self.dispatch.clock())

    def next_step(self) -> Step:
        """The step to try now. Raises AllFailed when none is left or the time is over.

        When breakers refuse every step, the least bad one is tried all the same: a breaker that is wrong must not turn a
        provider's bad minute into an outage of ours.
        """
        breakers = self.dispatch.breakers
        while self._steps and self.dispatch.clock() < self._deadline:
            step = self._steps[0]
            if breakers.allow(step.deployment.name):
                return step
            self._refused.append(step)
            cooling = breakers.cooling(step.deployment.name)
            if cooling > 0:
                self._retry_after = min(cooling, self._retry_after or cooling)
                self._drop(step, "cooling_down", 429)
            else:
                self._drop(step, "breaker_open", 503)
        if self._refused and len(self._refused) == len(self._failures) == len(self.plan.steps):
            least_bad = breakers.least_bad(step.deployment.name for step in self._refused)
            for step in self._refused:
                if step.deployment.name == least_bad:
                    self._refused = []
                    self._steps.append(step)
                    return step
        raise AllFailed(tuple(self._failures), retry_after=self._retry_after or 1.0)

    async def after(self, error: UpstreamError, step: Step) -> None:
        """Choose between waiting for the same deployment, going to the next, and giving up (raises `error`)."""
        if not (error.fallback or error.retryable):
            raise error
        wait = self._wait_before_retry(error)
        if wait is not None:
            self._retries += 1
            await self.dispatch.sleep(wait)
            return
        self._drop(step, error.label, error.status)
        if error.retry_after is not None:
            self._retry_after = min(error.retry_after, self._retry_after or error.retry_after)
        if not self._steps and isinstance(error, Rejected):
            raise error

    def _wait_before_retry(self, error: UpstreamError) -> float | None:
        """Seconds to wait before the same deployment is tried again, or None when it should not be."""
        patience = self.dispatch.patience
        if not error.retryable or isinstance(error, UpstreamTimeout) or self._retries >= patience.retries:
            return None
        if isinstance(error, Throttled) and len(self._steps) > 1:
            return None
        jitter = self.dispatch.chance.uniform(0, patience.backoff * 2**self._retries)
        wait = max(error.retry_after or 0.0, jitter)
        if wait > min(patience.longest_wait, self.remaining()) or not self.dispatch.retry_budget.withdraw():
            return None
        return wait

    def _drop(self, step: Step, error: str, status: int) -> None:
        self._steps.remove(step)
        self._retries = 0
        self._failures.append(FailedAttempt(step.deployment.name, error, status))


class _Attempt:
    """One attempt's clock and bill."""

    def __init__(self, course: _Course, deployment: Deployment) -> None:
        self._course = course
        self._deployment = deployment
        self._started = course.dispatch.clock()
        self._first: float | None = None

    def first_token(self) -> None:
        """The first part of the answer is here."""
        self._first = self._course.dispatch.clock() - self._started
        trail = self._course.trail
        trail.waited += self._first
        trail.deployment = self._deployment.name
        trail.model = self._deployment.model

    def unknown(self) -> Usage:
        """What an attempt may have used whose outcome nobody will tell: its prompt, as an estimate."""
        return Usage(prompt_tokens=self._course.plan.prompt_tokens, estimated=True)

    def failed(self, error: UpstreamError, usage: Usage | None = None) -> None:
        """The attempt broke. Without a part of an answer it cost nothing, unless it fell silent or broke off once it was sent."""
        if usage is None:
            usage = self.unknown() if error.sent else Usage()
        breakers = self._course.dispatch.breakers
        breakers.observe(self._deployment.name, failed=error.blames, retry_after=error.retry_after)
        self._note(error.label, usage)

    def ended(self, outcome: str, usage: Usage) -> None:
        """The attempt is over, with an answer (`ok`) or because nobody wants it any more (`cancelled`)."""
        if outcome == "ok":
            self._course.dispatch.breakers.observe(self._deployment.name, failed=False)
        self._note(outcome, usage)

    def _note(self, outcome: str, usage: Usage) -> None:
        deployment, trail = self._deployment, self._course.trail
        seconds = self._course.dispatch.clock() - self._started
        if self._first is None:
            trail.waited += seconds
        cost = 0 if deployment.price is None else deployment.price.charge(usage)
        trail.cost += cost
        trail.attempts.append(
            Attempt(
                deployment=deployment.name,
                outcome=outcome,
                seconds=seconds,
                first_token=self._first,
                cost=cost,
                usage=usage,
            )
        )
        if usage.total_tokens:
            self._course.reservation.charge(
                deployment=deployment.name, model=deployment.model, amount=cost, usage=usage
            )


def _embedding_usage(answer: Json) -> Usage | None:
    """What the provider reports, when it is a number of tokens."""
    used = (answer.get("usage") or {}).get("prompt_tokens")
    return Usage(prompt_tokens=used) if isinstance(used, int) and 0 <= used < MOST_TOKENS else None
