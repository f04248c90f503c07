"""Course: where a call stands in its plan. Which deployment is next, what has failed, how much time and how many attempts are left.

Retries use exponential backoff with full jitter (Brooker, "Exponential Backoff and Jitter", AWS 2015) and draw on a retry budget
that all calls share, so an outage is not multiplied by its own retries.

The invariant: whatever fails, a call makes no more attempts than its patience allows, and none without a place and money held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headgate.budget.reservation import Reservation
from headgate.coalesce.trail import Trail
from headgate.dispatch.attempt import Attempt, Waiting
from headgate.model.errors import (
    AllFailed,
    BudgetExceeded,
    FailedAttempt,
    RateLimited,
    Rejected,
    Throttled,
    UpstreamError,
    UpstreamTimeout,
)
from headgate.routing.fleet import Refusal
from headgate.routing.routing import Plan, Step

if TYPE_CHECKING:
    from headgate.dispatch.dispatch import Dispatch


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often dispatch tries. Times in seconds.

    total        for a whole call, all attempts together
    attempts     of a call, at all deployments together
    retries      further tries at the same deployment
    backoff      the first retry waits up to this long, each later one up to twice as long
    longest_wait a provider that asks for more than this is not waited for
    line         a deployment that is busy is waited for so long before the next one is asked
    """

    total: float = 600.0
    attempts: int = 3
    retries: int = 1
    backoff: float = 0.25
    longest_wait: float = 5.0
    line: float = 1.0


class Course:
    """One call's way through its plan."""

    def __init__(self, dispatch: Dispatch, plan: Plan, reservation: Reservation, trail: Trail) -> None:
        """Counts as one call in the budgets of retries and hedges."""
        self.dispatch = dispatch
        self.reservation = reservation
        self.trail = trail
        self.plan = plan
        self.waiting = Waiting()
        self._deadline = dispatch.clock() + dispatch.patience.total
        self._left = dispatch.patience.attempts
        self._steps = list(plan.steps)
        self._refused: list[tuple[Step, Refusal]] = []
        self._retries = 0
        self._failures: list[FailedAttempt] = []
        self._retry_after: float | None = None
        self.hedges = dispatch.hedges.get(plan.route)
        dispatch.retry_budget.deposit()
        if self.hedges is not None:
            self.hedges.deposit()

    def remaining(self) -> float:
        """Seconds left of the call's total time."""
        return max(0.001, self._deadline - self.dispatch.clock())

    async def next(self) -> Attempt:
        """The attempt to make now. Raises AllFailed when there is none, or the time is over; BudgetExceeded or RateLimited when the
        budget does not cover the first, Overloaded when the ledger cannot be written.

        When breakers refuse every deployment, the least bad one is tried all the same: a breaker that is wrong must not turn
        a provider's bad minute into an outage of ours. One that is to be left alone for a moment only is waited for when there is
        nobody else.
        """
        attempt = await self._in_order() or await self._least_bad()
        if attempt is None and await self._waited():
            attempt = await self._in_order()
        if attempt is None:
            raise AllFailed(tuple(self._failures), retry_after=self._retry_after or 1.0)
        return attempt

    async def _in_order(self) -> Attempt | None:
        while self._steps and self._left and self.dispatch.clock() < self._deadline:
            attempt = await self._begun(self._steps[0])
            if attempt is not None:
                return attempt
        return None

    async def _least_bad(self) -> Attempt | None:
        """The panic rule, where every step was refused and none has been tried."""
        if not len(self._refused) == len(self._failures) == len(self.plan.steps):
            return None
        shut = {step.deployment.name: step for step, refusal in self._refused if refusal.label == "breaker_open"}
        least_bad = self.dispatch.fleet.least_bad(shut)
        if least_bad is None:
            return None
        self._steps.append(shut[least_bad])
        return await self._begun(shut[least_bad], panic=True)

    async def _waited(self) -> bool:
        """Whether a deployment that was to be left alone may be asked now, after that time and, lest all who wait come at once,
        some more."""
        waiting = [(refusal.wait, index) for index, (_, refusal) in enumerate(self._refused) if refusal.wait > 0]
        if not waiting or not self._left:
            return False
        wait, index = min(waiting)
        wait += self.dispatch.chance.uniform(0, self.dispatch.patience.backoff)
        if wait > min(self.dispatch.patience.longest_wait, self.remaining()):
            return False
        step, refusal = self._refused.pop(index)
        self._failures.remove(FailedAttempt(step.deployment.name, refusal.label, refusal.status))
        await self.dispatch.sleep(wait)
        self._steps.append(step)
        return True

    async def beside(self, first: Attempt) -> Attempt | None:
        """An attempt at the next deployment while `first` is under way, where one is free, paid for and within the route's hedges."""
        step = next((one for one in self._steps if one is not first.step), None)
        if step is None or not self._left or self.hedges is None or not self.hedges.withdraw():
            return None
        place = await self.dispatch.fleet.enter(step.deployment.name, tokens=self._tokens(step), patience=0.0)
        if isinstance(place, Refusal):
            return None
        try:
            # Both may yet cost all that they may cost.
            clearance = await self.reservation.cleared(first.step.ceiling + step.ceiling, step.limit)
        except BaseException as error:
            place.not_sent()
            place.leave()
            if isinstance(error, BudgetExceeded | RateLimited):
                return None
            raise
        self._left -= 1
        return Attempt(self, step, clearance, place)

    async def after(self, error: UpstreamError, attempt: Attempt) -> None:
        """Choose between waiting for the same deployment, going to the next, and giving up (raises `error`)."""
        if not (error.fallback or error.retryable):
            raise error
        wait = self._wait_before_retry(error, attempt)
        if wait is not None:
            self._retries += 1
            await self.dispatch.sleep(wait)
            return
        self.drop(attempt.step, error.label, error.status, error.retry_after)
        if isinstance(error, Rejected) and not (self._steps and self._left):
            raise error

    def drop(self, step: Step, error: str, status: int, wait: float | None = None) -> None:
        """A deployment is out of this call. `wait`: seconds after which it may be worth asking again."""
        self._steps.remove(step)
        self._retries = 0
        self._failures.append(FailedAttempt(step.deployment.name, error, status))
        if wait:
            self._retry_after = min(wait, self._retry_after or wait)

    async def _begun(self, step: Step, *, panic: bool = False) -> Attempt | None:
        """An attempt at this step; None, and the step is dropped, when there is no place, or not the money, for it."""
        patience, fleet = min(self.dispatch.patience.line, self.remaining()), self.dispatch.fleet
        place = await fleet.enter(step.deployment.name, tokens=self._tokens(step), patience=patience, panic=panic)
        if isinstance(place, Refusal):
            self._refused.append((step, place))
            self.drop(step, place.label, place.status, place.wait)
            return None
        try:
            clearance = await self.reservation.cleared(step.ceiling, step.limit)
        except BaseException as error:
            place.not_sent()
            place.leave()
            if isinstance(error, BudgetExceeded | RateLimited) and (self.trail.attempts or self._failures):
                self.drop(step, error.label, error.status)
                return None
            raise
        self._left -= 1
        return Attempt(self, step, clearance, place)

    def _tokens(self, step: Step) -> int:
        """What an attempt counts as with a provider that limits tokens."""
        return self.plan.likely(step) + step.limit * self.plan.choices

    def _wait_before_retry(self, error: UpstreamError, attempt: Attempt) -> float | None:
        """Seconds to wait before the same deployment is tried again, or None when it should not be: another one that has not been
        asked is worth more than a second try, and one whose breaker is not closed is tried once."""
        patience, others = self.dispatch.patience, len(self._steps) - 1
        if not error.retryable or isinstance(error, UpstreamTimeout) or attempt.place.trial:
            return None
        if self._retries >= patience.retries or self._left <= others:
            return None
        if isinstance(error, Throttled) and others:
            return None
        share = self.dispatch.chance.random() if error.jitter is None else error.jitter
        jitter = share * patience.backoff * 2.0**self._retries
        wait = max(error.retry_after or 0.0, jitter)
        if wait > min(patience.longest_wait, self.remaining()) or not self.dispatch.retry_budget.withdraw():
            return None
        return wait
