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

from headgate.budget.reservation import Reservation
from headgate.coalesce.trail import Trail
from headgate.model import failpoints
from headgate.model.chat import ChatRequest, Completion, Event, Json
from headgate.model.clearance import Clearance
from headgate.model.errors import (
    AllFailed,
    BudgetExceeded,
    FailedAttempt,
    Interrupted,
    RateLimited,
    Rejected,
    Throttled,
    UpstreamError,
    UpstreamTimeout,
)
from headgate.model.money import Usage
from headgate.model.record import Attempt
from headgate.model.tally import BYTES_PER_TOKEN, Tally
from headgate.providers.provider import Provider
from headgate.providers.usage import normalised
from headgate.routing.breaker import Breakers
from headgate.routing.retries import RetryBudget
from headgate.routing.routing import Plan, Step

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
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: random.Random | None = None,
    ) -> None:
        """`providers` by name as deployments say it; `now`, unix seconds, chooses between prices by the time of the day; `chance`
        draws the jitter."""
        self.providers = providers
        self.breakers = breakers
        self.retry_budget = retry_budget
        self.patience = patience or Patience()
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
        course = _Course(self, plan, reservation, trail)
        while True:
            step = course.next_step()
            clearance = await course.cleared(step)
            if clearance is None:
                continue
            attempt = _Attempt(course, step, clearance)
            try:
                await self._attempt(attempt, request, publish)
                return attempt.tally.completion(trail.model or "")
            except UpstreamError as error:
                if attempt.tally.started:
                    raise Interrupted(f"The answer broke off: {error.message}") from error
                await course.after(error, step)

    async def _attempt(self, attempt: _Attempt, request: ChatRequest, publish: Publish) -> None:
        """One try. However it ends, what it cost is charged."""
        deployment, tally, clearance = attempt.step.deployment, attempt.tally, attempt.clearance
        provider = self.providers[deployment.provider]
        try:
            async with aclosing(
                provider.send(deployment, request, clearance, timeout=attempt.course.remaining())
            ) as events:
                async for event in events:
                    if not tally.started:
                        attempt.first_token()
                    tally.add(event)
                    publish(event)
                    failpoints.passed("mid_stream")
            failpoints.passed("after_answer")
        except UpstreamError as error:
            attempt.failed(error)
            raise
        except BaseException:
            attempt.ended("cancelled", attempt.seen())
            raise
        attempt.ended("ok", tally.usage())

    async def embed(self, plan: Plan, body: Json, reservation: Reservation, trail: Trail) -> Json:
        """Carry out an embeddings plan. Raises AllFailed or the provider's own refusal."""
        course = _Course(self, plan, reservation, trail)
        while True:
            step = course.next_step()
            clearance = await course.cleared(step)
            if clearance is None:
                continue
            attempt = _Attempt(course, step, clearance)
            provider = self.providers[step.deployment.provider]
            try:
                answer = await provider.embed(step.deployment, body, clearance, timeout=course.remaining())
            except UpstreamError as error:
                attempt.failed(error)
                await course.after(error, step)
            except BaseException:
                attempt.ended("cancelled", None if clearance.waiting else attempt.seen())
                raise
            else:
                failpoints.passed("after_answer")
                attempt.first_token()
                attempt.ended("ok", normalised(answer.get("usage")) or attempt.seen())
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

    async def cleared(self, step: Step) -> Clearance | None:
        """The right to try a step; None when the budget does not cover it, beside what earlier attempts have cost.

        Raises BudgetExceeded or RateLimited for the first step, Overloaded when the ledger cannot be written.
        """
        try:
            return await self.reservation.cleared(step.ceiling, step.limit)
        except (BudgetExceeded, RateLimited) as error:
            if not (self.trail.attempts or self._failures):
                raise
            self._drop(step, error.label, error.status)
            return None

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
        share = self.dispatch.chance.random() if error.jitter is None else error.jitter
        jitter = share * patience.backoff * 2.0**self._retries
        wait = max(error.retry_after or 0.0, jitter)
        if wait > min(patience.longest_wait, self.remaining()) or not self.dispatch.retry_budget.withdraw():
            return None
        return wait

    def _drop(self, step: Step, error: str, status: int) -> None:
        self._steps.remove(step)
        self._retries = 0
        self._failures.append(FailedAttempt(step.deployment.name, error, status))


class _Attempt:
    """One attempt's answer so far, its clock and its bill."""

    def __init__(self, course: _Course, step: Step, clearance: Clearance) -> None:
        self.course = course
        self.step = step
        self.clearance = clearance
        self.tally = Tally(course.plan.prompt_tokens, self._most)
        self._started = course.dispatch.clock()
        self._first: float | None = None

    @property
    def _most(self) -> int:
        """Output tokens that were asked for."""
        return self.step.limit * self.course.plan.choices

    def first_token(self) -> None:
        """The first part of the answer is here."""
        self._first = self.course.dispatch.clock() - self._started
        trail, deployment = self.course.trail, self.step.deployment
        trail.waited += self._first
        trail.deployment = deployment.name
        trail.model = deployment.model
        trail.limit = self.step.limit if self.step.shrunk else None
        trail.ceiling = self.course.reservation.granted

    def seen(self, received: int = 0) -> Usage:
        """What an attempt has used at least that nobody will tell the end of, as an estimate: its prompt and what was made.
        What the provider itself has counted before is not undercut.

        `received`: bytes that came of an answer of which no part could be read.
        """
        made = min(-(-received // BYTES_PER_TOKEN), self._most)
        counted = Usage(prompt_tokens=self.course.plan.prompt_tokens, completion_tokens=made, estimated=True)
        if self.tally.started:
            counted = self.tally.usage()
        told = self.clearance.told
        if told is None:
            return counted
        return msgspec.structs.replace(
            told,
            prompt_tokens=told.prompt_tokens or counted.prompt_tokens,
            completion_tokens=max(told.completion_tokens, counted.completion_tokens),
            estimated=True,
        )

    def failed(self, error: UpstreamError) -> None:
        """The attempt broke. It cost nothing if the provider refused it, or if it never left."""
        self._observed(failed=error.blames, retry_after=error.retry_after)
        used = self.seen(error.received) if error.sent or self.tally.started else None
        self._note(error.label, used)

    def ended(self, outcome: str, usage: Usage | None) -> None:
        """The attempt is over, with an answer (`ok`) or because nobody wants it any more (`cancelled`); without `usage` it never left."""
        if outcome == "ok":
            self._observed(failed=False)
        self._note(outcome, usage)

    def _observed(self, *, failed: bool, retry_after: float | None = None) -> None:
        """One call is told to the breaker once, however many attempts went together in it."""
        if not self.clearance.echo:
            self.course.dispatch.breakers.observe(self.step.deployment.name, failed=failed, retry_after=retry_after)

    def _note(self, outcome: str, used: Usage | None) -> None:
        deployment, trail = self.step.deployment, self.course.trail
        seconds = self.course.dispatch.clock() - self._started
        if self._first is None:
            trail.waited += seconds
        cost = (
            0 if deployment.price is None or used is None else deployment.price.charge(used, self.course.dispatch.now())
        )
        trail.cost += cost
        trail.attempts.append(
            Attempt(
                deployment=deployment.name,
                outcome=outcome,
                seconds=seconds,
                first_token=self._first,
                cost=cost,
                usage=used or Usage(),
                priced=deployment.price is not None,
            )
        )
        if used is not None:
            self.course.reservation.charge(
                deployment=deployment.name,
                model=deployment.model,
                amount=cost,
                usage=used,
                prices=deployment.prices,
            )
