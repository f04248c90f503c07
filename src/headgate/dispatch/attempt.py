"""Attempt: one try at one deployment, its answer so far, its clock and its bill.

The invariant: however it ends, what it cost is charged once, its deployment's fleet is told what came of it, and its place is free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headgate.model.clearance import Clearance
from headgate.model.errors import UpstreamError
from headgate.model.money import Usage
from headgate.model.record import Attempt as Row
from headgate.model.tally import BYTES_PER_TOKEN, Tally
from headgate.routing.fleet import Place
from headgate.routing.routing import Step

if TYPE_CHECKING:
    from headgate.dispatch.course import Course


class Attempt:
    """One try; end it with `answered`, `failed` or `given_up`."""

    def __init__(self, course: Course, step: Step, clearance: Clearance, place: Place) -> None:
        """Made by `Course`, which has taken the place and cleared the money."""
        self.course = course
        self.step = step
        self.clearance = clearance
        self.place = place
        self.tally = Tally(course.plan.likely(step), self._most)
        self._clock = course.dispatch.clock
        self._started = self._clock()
        self._first: float | None = None
        course.waiting.begun(self._started)

    @property
    def _most(self) -> int:
        """Output tokens that were asked for."""
        return self.step.limit * self.course.plan.choices

    def first_part(self, *, stream: bool) -> None:
        """The first part of the answer is here."""
        now = self._clock()
        self._first = now - self._started
        trail, deployment = self.course.trail, self.step.deployment
        trail.waited += self.course.waiting.over(now)
        trail.deployment = deployment.name
        trail.model = deployment.model
        trail.limit = self.step.limit if self.step.shrunk else None
        trail.ceiling = self.course.reservation.granted
        trail.overflow, trail.shortened = self.step.overflow, self.step.shortened is not None
        self.place.told(self.clearance.quota)
        self.place.answered(self._first, stream=stream)

    def seen(self, received: int = 0) -> Usage:
        """What an attempt has used at least that nobody will tell the end of, as an estimate: its prompt and what was made.
        What the provider itself has counted before is not undercut.

        `received`: bytes that came of an answer of which no part could be read.
        """
        made = min(-(-received // BYTES_PER_TOKEN), self._most)
        counted = Usage(prompt_tokens=self.course.plan.likely(self.step), completion_tokens=made, estimated=True)
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

    def answered(self, usage: Usage) -> None:
        """The answer is whole. One call is told of once, however many attempts went together in it."""
        if not self.clearance.echo:
            self.place.succeeded(usage.total_tokens)
        self._note("ok", usage)

    def failed(self, error: UpstreamError) -> None:
        """The attempt broke. It cost nothing if the provider refused it, or if it never left."""
        if self._first is None:
            self.place.told(self.clearance.quota)
        if not self.clearance.echo:
            self.place.failed(error)
        self._note(error.label, self.seen(error.received) if error.sent or self.tally.started else None)

    def given_up(self, outcome: str, usage: Usage | None = None) -> None:
        """Nobody wants the answer any more: `cancelled`, or another one was there first (`outrun`). `usage`, when it is known; what
        waits for others has never left."""
        self._note(outcome, None if self.clearance.waiting else usage or self.seen())

    def _note(self, outcome: str, used: Usage | None) -> None:
        self.place.leave()
        course, deployment = self.course, self.step.deployment
        trail, now = course.trail, self._clock()
        if self._first is None:
            trail.waited += course.waiting.over(now)
        price = deployment.price
        cost = 0 if price is None or used is None else price.charge(used, course.dispatch.now())
        trail.cost += cost
        trail.attempts.append(
            Row(
                deployment=deployment.name,
                outcome=outcome,
                seconds=now - self._started,
                first_token=self._first,
                cost=cost,
                usage=used or Usage(),
                priced=price is not None,
            )
        )
        if used is not None:
            course.reservation.charge(
                deployment=deployment.name,
                model=deployment.model,
                amount=cost,
                usage=used,
                prices=deployment.prices,
            )


class Waiting:
    """How long a call has waited for providers, where several may be asked at once: no second is counted twice."""

    def __init__(self) -> None:
        self._open = 0
        self._since = 0.0

    def begun(self, now: float) -> None:
        """One more attempt waits for its first part."""
        if not self._open:
            self._since = now
        self._open += 1

    def over(self, now: float) -> float:
        """One of them waits no longer; returns the seconds that the call has waited and that were not yet counted."""
        self._open -= 1
        waited, self._since = now - self._since, now
        return waited
