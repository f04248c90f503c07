"""Checking: finds out whether answers from stock were right, and lets the cache learn from it. Behind everybody's back.

Three things teach. A *check* of an answer that was served by meaning: the question is asked anew at the operator's expense, by the
caller's own rules, and what comes is kept as the question's own answer, so that its repetitions are surely right from then on. A
*miss* with a candidate that was near: the answer was bought anyway, and is compared with the candidate's. And what users say.

Invariant: nothing here delays a request or fails it; what is too much is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from hashlib import blake2b
from typing import Literal

import msgspec

from headgate.budget.estimate import measure
from headgate.budget.reservation import Budget
from headgate.cache.cache import Entry, Hit, Judged, Miss, Question, Selection
from headgate.cache.checks import Checks
from headgate.cache.health import Health
from headgate.cache.judge import Case, Judge
from headgate.cache.keeping import Asked
from headgate.cache.labels import Label, LabelLog, Origin, Scope, Served
from headgate.cache.learning import Learning
from headgate.cache.recent import Recent
from headgate.cache.tiers import Cache
from headgate.cache.treatment import Treatment
from headgate.coalesce.trail import Trail
from headgate.dispatch import Dispatch
from headgate.model.chat import ChatRequest, Completion
from headgate.model.tenancy import Key
from headgate.reply import Ticket
from headgate.routing.routing import Decision, Routing

Outcome = Literal["right", "wrong", "unknown", "failed", "dropped"]
"""Of a check: what the judge said, that it could not tell, that there was no answer, that too many were under way."""

NEAR = 0.2
"""The probability from which on a candidate that was not served is compared with the answer that was bought."""
COMPARED = 3
"""Candidates of one miss that are compared with it, the most probable first, until one has the same answer."""
CHECKS = 8
COMPARISONS = 16
"""Most of each that are under way at once."""
PARTITIONS = 20_000
FEATURE = "cache-check"


class Call(msgspec.Struct, frozen=True):
    """One call: what its flight knew when it looked into the cache. `question` is None where nothing could be compared."""

    ticket: Ticket
    request: ChatRequest
    decision: Decision
    key: Key
    question: Question | None
    treated: Treatment


class _Matter(msgspec.Struct, frozen=True):
    """A call with a question, and what it learns with."""

    call: Call
    question: Question
    scope: Scope


class Heard(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What became of a word on an answer: whether the answer is `known`, whether an entry was `withdrawn`, whether the verdict has
    `learned` from it."""

    known: bool
    withdrawn: bool
    learned: bool


class Checking:
    """Watches what is served, and has some of it checked."""

    def __init__(
        self,
        *,
        learning: Learning,
        checks: Checks,
        judge: Judge,
        quick: Judge,
        cache: Cache,
        routing: Routing,
        budget: Budget,
        dispatch: Dispatch,
        labels: LabelLog,
        recent: Recent | None = None,
        tell: Callable[[Outcome], None] = lambda _: None,
        now: Callable[[], float],
        new_id: Callable[[], str],
        refuse_unpriced: bool = True,
    ) -> None:
        """`judge` compares answers that were paid for, `quick` those that were bought anyway: it should cost nothing. `tell` counts
        the outcome of each check; `now` is unix seconds. `refuse_unpriced`: no model without a price is asked."""
        self.learning = learning
        self.health = Health("checks")
        self._checks = checks
        self._judge = judge
        self._quick = quick
        self._cache = cache
        self._routing = routing
        self._budget = budget
        self._dispatch = dispatch
        self._labels = labels
        self._recent = recent or Recent()
        self._tell = tell
        self._now = now
        self._new_id = new_id
        self._refuse_unpriced = refuse_unpriced
        self._scopes: dict[tuple[str, str, bytes], Scope] = {}
        self._checking: set[asyncio.Task[None]] = set()
        self._comparing: set[asyncio.Task[None]] = set()
        self._closed = False

    def watch(self, call: Call, looked: Hit | Miss, completion: Completion, *, own: str = "") -> None:
        """The cache has `looked` for an answer to a call, and the caller has one now: `own` is the entry that it was kept as. Perhaps
        there is something to learn. Never raises."""
        try:
            self._watch(call, looked, completion, own)
        except Exception as error:
            self.health.failed(error)

    def _watch(self, call: Call, looked: Hit | Miss, completion: Completion, own: str) -> None:
        question = call.question
        if question is None:
            return
        matter = _Matter(call, question, Scope(call.key.namespace, question.scope))
        self._place(matter)
        if isinstance(looked, Miss):
            self._checks.asked(matter.scope)
            self._missed(matter, looked, completion, own)
        elif looked.tier == "semantic":
            self._hit(matter, looked)

    def _hit(self, matter: _Matter, hit: Hit) -> None:
        """Have an answer checked that was served by meaning, if it is worth that."""
        digest = blake2b(matter.question.text.encode(errors="surrogatepass"), digest_size=16).digest()
        reason = self._checks.chosen(
            matter.call.ticket.id,
            matter.scope,
            digest,
            hit.entry.id,
            confidence=hit.confidence,
            bar=self.learning.last_bar(matter.scope),
        )
        if reason is None or self._closed:
            return
        if len(self._checking) >= CHECKS:
            self._tell("dropped")
            return
        self._start(self._checking, self._check(matter, hit, uniform=reason == "chance"))

    def _missed(self, matter: _Matter, miss: Miss, completion: Completion, own: str) -> None:
        """An answer was bought, for what was near was not served. It tells whether that would have been right."""
        near = instructive(miss)
        if near and not self._closed and len(self._comparing) < COMPARISONS:
            self._start(self._comparing, self._compare(matter, near, completion, own, shadow=miss.shadow))

    def given(self, ticket: Ticket, trail: Trail) -> None:
        """A caller has got an answer. One that was not made for it is counted, and remembered for what may be said of it. Never
        raises."""
        try:
            self._given(ticket, trail)
        except Exception as error:
            self.health.failed(error)

    def _given(self, ticket: Ticket, trail: Trail) -> None:
        if trail.entry is None:
            return
        tenant, id = ticket.caller.tenant, ticket.id
        scope = None
        if trail.partition is not None:
            scope = self._scopes.get((tenant, ticket.wishes.namespace, trail.partition))
        if trail.source == "live":
            if id != trail.entry:
                self._recent.keep(Served(id=id, tenant=tenant, entry=trail.entry, tier="shared"))
            return
        by_meaning = trail.source in ("semantic", "coalesced-semantic")
        tier: Literal["exact", "semantic"] = "semantic" if by_meaning else "exact"
        if scope is not None:
            self._checks.asked(scope)
            self.learning.served(scope, tier)
        served = Served(
            id=id,
            tenant=tenant,
            entry=trail.entry,
            tier=tier,
            scope=scope if by_meaning else None,
            confidence=1.0 if trail.prior is None else trail.prior,
        )
        self._recent.keep(served)
        if served.scope is not None:
            self._labels.served(served)

    async def feedback(self, tenant: str, id: str, *, correct: bool) -> Heard:
        """What a user says of the answer to the tenant's request `id`. A wrong one is withdrawn at once; of each answer that was
        served by meaning, the first word teaches. Raises what the store raises."""
        served = self._recent.find(tenant, id)
        # What was made for a request is kept under the request's id.
        entry = id if served is None else served.entry
        known = served is not None or await self._cache.entries.find(tenant, entry) is not None
        if known and served is None:
            # Remembered from now on, so that saying it again is understood when the entry is gone.
            self._recent.keep(Served(id=id, tenant=tenant, entry=entry, tier="exact"))
        withdrawn = not correct and await self._cache.invalidate(Selection(tenant=tenant, entry=entry)) > 0
        learned = served is not None and served.scope is not None
        if served is not None and served.scope is not None:
            self._recent.keep(msgspec.structs.replace(served, scope=None))
            self._learn(served.scope, entry, served.confidence, correct, "feedback", served=True)
        return Heard(known=known, withdrawn=withdrawn, learned=learned)

    async def hear(self) -> None:
        """Take in what other replicas have learnt of late, and what they have served. Never raises."""
        labels, answers = await self._labels.others()
        self.learning.recall(labels)
        self._recent.recall(answers)

    async def idle(self) -> None:
        """Wait until nothing is being checked."""
        while tasks := self._checking | self._comparing:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Give up what is under way, and make what was learnt durable. What an interrupted check has cost is settled."""
        self._closed = True
        for task in self._checking | self._comparing:
            task.cancel()
        await self.idle()
        await self._labels.close()

    def _place(self, matter: _Matter) -> None:
        """Remember which scope a partition belongs to: exact answers tell only the partition that they lie in."""
        space = matter.scope.namespace
        place = space.tenant, space.name, matter.question.partition
        if place not in self._scopes:
            self._scopes[place] = matter.scope
            if len(self._scopes) > PARTITIONS:
                del self._scopes[next(iter(self._scopes))]

    def _start(self, tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(work))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _run(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            self.health.failed(error)
        else:
            self.health.worked()

    async def _check(self, matter: _Matter, hit: Hit, *, uniform: bool) -> None:
        outcome: Outcome = "failed"
        try:
            own, completion = await self._bought(matter)
            right = await _same(self._judge, matter, hit.entry, completion)
            outcome = "unknown" if right is None else "right" if right else "wrong"
            if right is not None:
                prior = hit.judgement.prior if hit.judgement is not None else hit.confidence
                self._learn(matter.scope, hit.entry.id, prior, right, "check", served=True, uniform=uniform, own=own)
        finally:
            self._tell(outcome)

    async def _bought(self, matter: _Matter) -> tuple[str, Completion]:
        """The question's own answer, and the entry that it is kept as: as for the caller, who may not know of it, but paid by the operator."""
        call, request = matter.call, matter.call.request
        ticket, size = call.ticket, measure(request)
        caller, wishes = ticket.caller, ticket.wishes
        epoch = self._cache.epoch(caller.tenant)
        plan = self._routing.plan(
            call.decision,
            caller.policy,
            request,
            likely=size.likely,
            most=size.most,
            priced=self._refuse_unpriced,
            expected=self._budget.outputs.expected(caller.tenant, ticket.route),
        )
        id, trail = self._new_id(), Trail()
        try:
            async with self._budget.for_operator(id, feature=FEATURE, ceiling=plan.ceiling) as reservation:
                completion = await self._dispatch.send(plan, request, reservation, trail, lambda _: None)
        finally:
            self._checks.paid(trail.cost)
        asked = Asked(
            id=id,
            epoch=epoch,
            worth=trail.cost,
            deployment=trail.deployment or "",
            model=ticket.route,
            user=wishes.user or caller.user,
            tags=wishes.tags,
        )
        await self._cache.store(call.key, matter.question, completion, call.treated, asked)
        return id, completion

    async def _compare(
        self, matter: _Matter, near: Sequence[Judged], completion: Completion, own: str, *, shadow: bool
    ) -> None:
        for one in near:
            right = await _same(self._quick, matter, one.entry, completion)
            if right is None:
                continue
            # Of a tier that only watches, all that it would have served is compared: nothing is more uniform than all.
            uniform = shadow and one is near[0]
            prior = one.judgement.prior
            self._learn(matter.scope, one.entry.id, prior, right, "miss", served=False, uniform=uniform, own=own)
            if right:
                return

    def _learn(
        self,
        scope: Scope,
        entry: str,
        prior: float,
        right: bool,
        origin: Origin,
        *,
        served: bool,
        uniform: bool = False,
        own: str = "",
    ) -> None:
        label = Label(
            scope=scope,
            entry=entry,
            confidence=prior,
            right=right,
            origin=origin,
            served=served,
            at=self._now(),
            uniform=uniform,
            own=own,
        )
        self.learning.learn(label)
        self._labels.label(label)


def instructive(miss: Miss) -> list[Judged]:
    """The candidates of a miss from which something is learnt when its answer is known, the most probable first."""
    if miss.near is None or miss.judgement is None:
        return []
    judged = [Judged(miss.near, miss.judgement), *miss.others]
    near = [one for one in judged if one.judgement.read and one.judgement.confidence >= NEAR]
    return sorted(near, key=lambda one: -one.judgement.confidence)[:COMPARED]


async def _same(judge: Judge, matter: _Matter, entry: Entry, completion: Completion) -> bool | None:
    """Whether the stored answer says what the bought one does. Of one that was cut off, or is no text, nothing is said."""
    stored = entry.completion
    if not (completion.complete and stored.text and completion.text):
        return None
    policy = matter.call.ticket.caller.policy
    return await judge.same(Case(question=matter.question.text, one=stored.text, other=completion.text, policy=policy))
