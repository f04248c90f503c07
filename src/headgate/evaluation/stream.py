"""Streams: requests in the order of time through one cache, as a gateway would have put them to it.

Each request is looked up; on a miss the model is asked, which says what the request deserves, and that is stored. What is learnt is
learnt by the rules of `checking`: a miss with a candidate that was near is a label for free, and of the hits by meaning some are
checked, which costs a call and stores the question's own answer. Only two things are played: the clock, which is that of the file,
and the model, which answers at once, so that a label is known before the next request comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b

import msgspec

from headgate.bench import Bench
from headgate.cache.cache import Entry, Hit, Judged, Miss, Question
from headgate.cache.fingerprint import bypass_reason, fingerprint
from headgate.cache.judge import Case
from headgate.cache.keeping import Asked
from headgate.cache.labels import Label, Scope
from headgate.cache.treatment import Treatment
from headgate.checking import NEAR, instructive
from headgate.evaluation.evaluation import Course, Outcome, Request, Source, stated
from headgate.evaluation.model import completion
from headgate.model.tenancy import CacheTerms, Key, Namespace, Wishes


class Clock:
    """The time of a file: that of its latest request so far, 0 before the first."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self._now

    def reach(self, at: float) -> None:
        """Let it be `at`, unless it is later already."""
        self._now = max(self._now, at)


class _Step(msgspec.Struct, frozen=True, kw_only=True):
    """One request on its way: where its answer lies, how it is treated, and its question, if it can be compared."""

    request: Request
    key: Key
    treated: Treatment
    question: Question | None


class Trial:
    """One cache on its way through a stream."""

    def __init__(self, bench: Bench, clock: Clock, *, timer: Callable[[], float] = time.perf_counter) -> None:
        """`clock` is the one that the bench's cache goes by; `timer` measures lookups, seconds."""
        self._bench = bench
        self._clock = clock
        self._timer = timer
        self._outcomes: list[Outcome] = []
        self._repeatable: dict[Key, float] = {}
        self._answered: dict[tuple[str, str], float] = {}
        self._scopes: dict[tuple[Namespace, bytes], Scope] = {}
        self._estimated = False

    async def ask(self, request: Request) -> None:
        """Put one request to the cache, and let it learn."""
        self._clock.reach(request.at)
        cache, namespace = self._bench.cache, Namespace(request.tenant)
        treated = cache.treatment(request.chat.model, CacheTerms(), Wishes())
        self._estimated = self._estimated or not request.answer.label
        key = fingerprint(namespace, request.chat)
        eligible = bypass_reason(request.chat) is None
        repeat, known = self._seen(request, key, treated, eligible=eligible)
        began = self._timer()
        question, found = await self._look(request, key, treated) if eligible else (None, Miss())
        seconds = self._timer() - began
        step = _Step(request=request, key=key, treated=treated, question=question)
        near = found.entry if isinstance(found, Hit) else found.near
        same = None if near is None else await self._same(request, near, found)
        source: Source = "model"
        checked = False
        if isinstance(found, Hit):
            source, checked = found.tier, await self._served(step, found, same)
        elif eligible:
            await self._store(step)
            await self._missed(step, found, same)
        confidence = stated(found)
        self._outcomes.append(
            Outcome(
                request=request,
                source=source,
                right=True if source == "model" else same,
                repeat=repeat,
                known=known,
                judged=None if confidence is None or same is None else (confidence, same),
                checked=checked,
                seconds=seconds,
                near=near.text if near is not None and source == "semantic" else None,
            )
        )

    def end(self) -> Course:
        """What became of all requests."""
        peeked = (self._bench.cache.peek(key) for key in self._repeatable)
        kept = [hit.entry for hit in peeked if hit is not None]
        said = sum(len(entry.answer) + len((entry.text or "").encode()) for entry in kept)
        return Course(
            outcomes=self._outcomes,
            entries=len(kept),
            weight=max(self._bench.cache.weight() - said, 0),
            estimated=self._estimated,
        )

    def _seen(self, request: Request, key: Key, treated: Treatment, *, eligible: bool) -> tuple[bool, bool | None]:
        """Whether exact match alone, and whether a perfect cache, would have an answer; this one is in both from now on."""
        at = self._clock()
        repeat = eligible and at - self._repeatable.get(key, float("-inf")) < treated.exact_ttl
        if eligible and not repeat:
            self._repeatable[key] = at
        if not request.answer.label:
            return repeat, None
        place = request.tenant, request.answer.text
        lives = max(treated.exact_ttl, treated.semantic_ttl)
        known = eligible and at - self._answered.get(place, float("-inf")) < lives
        if eligible and not known:
            self._answered[place] = at
        return repeat, known

    async def _look(self, request: Request, key: Key, treated: Treatment) -> tuple[Question | None, Hit | Miss]:
        """As the pipeline does: what lies in this process first, and only then the model that reads."""
        hit = self._bench.cache.peek(key)
        if hit is not None:
            return None, hit
        question = await self._bench.cache.question(request.chat, treated, key)
        return question, await self._bench.cache.lookup(key, question, treated)

    async def _same(self, request: Request, entry: Entry, found: Hit | Miss) -> bool | None:
        """Whether the entry's answer is the one that the request deserves. Texts of candidates that are far are not compared: that
        would cost more than it tells."""
        stored = entry.completion.text
        if request.answer.label:
            return stored == request.answer.text
        if isinstance(found, Miss) and (_confidence(found) or 0.0) < NEAR:
            return None
        return await self._bench.judge.same(
            Case(question=request.chat.question or "", one=stored, other=request.answer.text)
        )

    async def _store(self, step: _Step) -> None:
        cache, request = self._bench.cache, step.request
        epoch = cache.epoch(request.tenant)
        asked = Asked(id=self._id(), epoch=epoch, worth=request.cost or 0, model=request.chat.model)
        await cache.store(step.key, step.question, completion(request.answer.text), step.treated, asked)

    async def _served(self, step: _Step, hit: Hit, same: bool | None) -> bool:
        """Learn from a hit. Returns whether it was checked."""
        learning, checks, key = self._bench.learning, self._bench.checks, step.key
        if learning is None:
            return False
        if step.question is None or hit.tier == "exact":
            scope, reason = self._scopes.get((key.namespace, hit.entry.partition or b"")), None
        else:
            scope = self._scope(key, step.question)
            digest = blake2b(step.question.text.encode(), digest_size=16).digest()
            bar = learning.last_bar(scope)
            reason = checks.chosen(self._id(), scope, digest, hit.entry.id, confidence=hit.confidence, bar=bar)
            if reason is not None:
                checks.paid(step.request.cost or 0)
                await self._store(step)
                if hit.judgement is not None:
                    judged = Judged(hit.entry, hit.judgement)
                    self._learn(scope, judged, same, served=True, uniform=reason == "chance")
        if scope is not None:
            checks.asked(scope)
            learning.served(scope, hit.tier)
        return reason is not None

    async def _missed(self, step: _Step, miss: Miss, same: bool | None) -> None:
        """Learn from a miss whose answer was bought."""
        if self._bench.learning is None or step.question is None:
            return
        scope = self._scope(step.key, step.question)
        self._bench.checks.asked(scope)
        near = instructive(miss)
        for one in near:
            right = same if one.entry is miss.near else await self._same(step.request, one.entry, miss)
            self._learn(scope, one, right, served=False, uniform=miss.shadow and one is near[0])
            if right:
                return

    def _learn(self, scope: Scope, one: Judged, right: bool | None, *, served: bool, uniform: bool) -> None:
        learning = self._bench.learning
        if learning is None or right is None:
            return
        label = Label(
            scope=scope,
            entry=one.entry.id,
            confidence=one.judgement.prior,
            right=right,
            origin="check" if served else "miss",
            served=served,
            at=self._clock(),
            uniform=uniform,
            own=self._id(),
        )
        learning.learn(label)

    def _scope(self, key: Key, question: Question) -> Scope:
        """What a question learns with, remembered for the exact answers of its partition, which tell only that."""
        place = key.namespace, question.partition
        return self._scopes.setdefault(place, Scope(key.namespace, question.scope))

    def _id(self) -> str:
        """The present request's."""
        return f"request-{len(self._outcomes)}"


def _confidence(found: Hit | Miss) -> float | None:
    """Of the candidate that was judged; None where none was."""
    return None if found.judgement is None else found.judgement.confidence
