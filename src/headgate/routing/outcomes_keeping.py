"""Keeping outcomes: a row for each call of a route with tiers when its answer is there, and what is said of it later.

Invariant: nothing here delays a call or fails it. The question is read (which the cache has mostly done by then) in a task of its own;
what is too much is dropped, and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from headgate.model.chat import ChatRequest
from headgate.model.record import CallRecord
from headgate.model.tenancy import Policy, Principal
from headgate.routing.difficulty import WEIGHTS
from headgate.routing.exploration import candidates
from headgate.routing.features import asked, features
from headgate.routing.grading import Grader
from headgate.routing.knn import CHARACTERS, Embed, Neighbours
from headgate.routing.outcomes import Origin, Outcome, OutcomeLog
from headgate.routing.route import Decision, Route

log = logging.getLogger(__name__)

VERSION = 1
"""Of the features, in the order of `difficulty.WEIGHTS`: counted up when any of them means something else."""
RECENT = 10_000
"""Calls that something may still be said of."""
WAITING = 64
"""Questions that are being read at a time."""
AGAIN = 300.0
"""Seconds in which the same user asks again who was not content."""
SAME = 0.8
"""Similarity of two questions from which on the second asks for nearly the same."""
OF_A_USER = 8
"""Questions of one user that the next one is compared with."""

_WEIGHT: dict[Origin | None, int] = {None: 0, "retry": 1, "error": 1, "judge": 2, "feedback": 3}
"""Whose word stands against whose."""


class _Open(msgspec.Struct):
    """An outcome of which more may be heard, and who asked."""

    outcome: Outcome
    user: str | None
    vector: Any = None


class Outcomes:
    """Writes outcomes down and lets the decider learn from them."""

    def __init__(
        self,
        outcomes: OutcomeLog,
        routes: Callable[[str], Route | None],
        *,
        embed: Embed | None = None,
        neighbours: Neighbours | None = None,
        sees: Callable[[Policy], bool] = lambda _: True,
        grader: Grader | None = None,
    ) -> None:
        """`routes` gives the route of a name if it has tiers; without `embed` there are no vectors, so retries are not noticed; `sees`:
        whether it may see what a tenant of this policy asks; `grader` says of some answers how good they are."""
        self.dropped = 0
        self._log = outcomes
        self._routes = routes
        self._embed = embed
        self._sees = sees
        self._neighbours = neighbours
        self._grader = grader
        self._recent: dict[tuple[str, str], _Open] = {}
        self._asked: dict[tuple[str, str, str], list[_Open]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def lost(self) -> int:
        """Outcomes that could not be kept."""
        return self.dropped + self._log.lost

    def bought(self, record: CallRecord, request: ChatRequest, decision: Decision, policy: Policy) -> None:
        """A call that was decided on and went to a provider has ended. Never raises, never waits."""
        try:
            route = self._routes(record.route)
            if route is None:
                return
            if len(self._tasks) >= WAITING:
                self.dropped += 1
                return
            task = asyncio.get_running_loop().create_task(
                self._keep(
                    _outcome(record, request, decision, route, policy),
                    record.user,
                    asked(request) if self._sees(policy) else "",
                )
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        except Exception as error:
            self._failed(error)

    def answered(self, caller: Principal, id: str, request: ChatRequest, answer: str) -> None:
        """There is an answer to a call that was decided on: perhaps it is graded. Never raises, never waits."""
        grader = self._grader
        if grader is None or len(self._tasks) >= WAITING or not grader.drawn(id) or self._routes(request.model) is None:
            return
        task = asyncio.get_running_loop().create_task(self._grade(grader, caller, id, asked(request), answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _grade(self, grader: Grader, caller: Principal, id: str, question: str, answer: str) -> None:
        try:
            worth = await grader.grade(question, answer, caller.policy)
        except Exception as error:
            log.debug("an answer was not graded: %s", error)
            return
        if worth is not None:
            self.heard(caller.tenant, id, worth, "judge")

    def heard(self, tenant: str, id: str, worth: float, origin: Origin = "feedback") -> bool:
        """What an answer was worth, 0 to 1, says somebody; whether that call is known here. What was said by someone who has read it
        stands against what was concluded, and what a user has said against all else. Never raises."""
        found = self._recent.get((tenant, id))
        if found is None:
            return False
        if _WEIGHT[origin] >= _WEIGHT[found.outcome.origin]:
            self._settle(found, worth, origin)
        return True

    def recall(self, past: Iterable[Outcome]) -> None:
        """Take in what earlier runs have kept. May run in a thread, before anything else is asked."""
        for outcome in past:
            if self._neighbours is not None:
                self._neighbours.learn(outcome)
            self._remember(_Open(outcome, None))

    async def hear(self) -> None:
        """Take in what other replicas have kept of late. Never raises."""
        self.recall(await self._log.others())

    async def idle(self) -> None:
        """Wait until every call that has ended is kept."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Keep what has ended, and let go of the log."""
        await self.idle()
        await self._log.close()

    async def _keep(self, outcome: Outcome, user: str | None, text: str) -> None:
        try:
            vector = await self._read(text)
            if vector is not None:
                from headgate.routing.knn_cells import quantised  # late: numpy, which the embedder has loaded by now

                outcome = msgspec.structs.replace(outcome, vector=quantised(vector))
            found = _Open(outcome, user, vector)
            self._remember(found)
            self._log.keep(outcome)
            self._again(found)
        except Exception as error:
            self._failed(error)

    async def _read(self, text: str) -> Any:
        """The vector of a question; None where nothing reads it now: a row without one is better than none."""
        if self._embed is None or not text:
            return None
        try:
            return await self._embed(text[:CHARACTERS])
        except Exception as error:
            log.debug("a question of routing was not read: %s", error)
            return None

    def _remember(self, found: _Open) -> None:
        self._recent[found.outcome.tenant, found.outcome.id] = found
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]

    def _again(self, found: _Open) -> None:
        """Does the same user ask nearly the same again? Then the earlier answer was none. Who has not done so in time was content."""
        if found.user is None or found.vector is None or found.outcome.origin == "error":
            return
        outcome = found.outcome
        place = outcome.tenant, outcome.route, found.user
        still = []
        for one in self._asked.pop(place, ()):
            if one.outcome.origin is not None:
                continue
            if outcome.at - one.outcome.at > AGAIN:
                self._settle(one, 1.0, "retry")
            elif float(one.vector @ found.vector) >= SAME:
                self._settle(one, 0.0, "retry")
            else:
                still.append(one)
        self._asked[place] = [*still, found][-OF_A_USER:]
        if len(self._asked) > RECENT:
            del self._asked[next(iter(self._asked))]

    def _settle(self, found: _Open, worth: float, origin: Origin) -> None:
        found.outcome = msgspec.structs.replace(found.outcome, outcome=worth, origin=origin)
        self._log.keep(found.outcome)
        if self._neighbours is not None:
            self._neighbours.learn(found.outcome)

    def _failed(self, error: Exception) -> None:
        self.dropped += 1
        log.warning("an outcome of routing is lost: %s", error)


def _outcome(record: CallRecord, request: ChatRequest, decision: Decision, route: Route, policy: Policy) -> Outcome:
    seen = decision.seen or features(request)
    # A conversation that sticks leaves nothing to chance.
    drawn = 1.0 if decision.reason.startswith("sticks") else decision.propensity
    return Outcome(
        id=record.id,
        at=record.at,
        tenant=record.tenant,
        route=route.name,
        candidates=candidates(route, policy),
        tier=decision.tier,
        propensity=drawn,
        decider=decision.decider,
        task=decision.task,
        version=VERSION,
        features=tuple(round(float(getattr(seen, name)), 4) for name in WEIGHTS),
        deployment=record.deployment,
        cost=record.cost,
        latency=record.duration,
        outcome=None if record.error is None else 0.0,
        origin=None if record.error is None else "error",
    )
