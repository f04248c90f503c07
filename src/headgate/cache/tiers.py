"""The two tiers: an exact one that never waits, and a semantic one that serves what the verdict is sure enough of.

Whatever breaks in here costs a hit, never an answer: every error is caught, counted and, when a part of the cache stops working or works
again, said in the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from headgate.cache.cache import CacheStore, Candidate, Embedder, Entry, Hit, Judged, Miss, Question, Search, Selection
from headgate.cache.comparison import Comparison
from headgate.cache.conversation import VERSION as CONVERSATION
from headgate.cache.conversation import topic
from headgate.cache.courtesy import VERSION as COURTESY
from headgate.cache.enclosed import refers
from headgate.cache.explanation import Explanation, explained
from headgate.cache.fingerprint import comparable, partition, scope
from headgate.cache.guards.guards import VERSION
from headgate.cache.health import Health
from headgate.cache.keeping import Asked, entry
from headgate.cache.labels import Scope
from headgate.cache.reading import Reader
from headgate.cache.refused import Refusals
from headgate.cache.resemblance import Resemblance
from headgate.cache.treatment import CachePolicy, RoutePolicy, Treatment, treatment
from headgate.cache.verdict import Verdict
from headgate.model.chat import ChatRequest, Completion
from headgate.model.errors import Conflict
from headgate.model.tenancy import CacheTerms, Key, Namespace, Policy, Strategy, Wishes

if TYPE_CHECKING:
    from headgate.cache.static import FirstStage

PATIENCE = 5.0
"""Seconds that a vector may take; then the request goes on without it. In a burst it waits in line, as a follower may wait as long for
the first part of another's answer; an endpoint that hangs has a shorter limit of its own."""

CANDIDATES = 8
"""How many of the nearest entries are looked at: the nearest may be a look-alike and the next a true rewording, and what else lies
near tells something of each."""

ACROSS = 32
"""How many are looked at across conversations, for most of them may be about something else."""

IN_FLIGHT = 0.5
"""Of the accepted error rate, what is left for answers that are still under way."""

UNKNOWN_EPOCH = -1
"""What is known of an epoch when the store cannot tell it: an answer asked for then is not kept."""

PARTS = ("peek", "epoch", "lookup", "keep", "embedder", "verdict")
"""What can break by itself: one part that works says nothing of the others."""


class Cache:
    """Both tiers over one store."""

    def __init__(
        self,
        store: CacheStore,
        embedder: Embedder | None,
        verdict: Verdict | None,
        policy: CachePolicy,
        *,
        routes: Mapping[str, RoutePolicy] | None = None,
        reader: Reader | None = None,
        stage: FirstStage | None = None,
        sees: Callable[[Policy], bool] = lambda _: True,
        now: Callable[[], float] = time.time,
        patience: float = PATIENCE,
    ) -> None:
        """`embedder` or `verdict` is None where the semantic tier is off; `routes`: what each route says instead of `policy`; `reader`
        tells what conversations are about: without it no question is compared across them; `stage` spares the embedder where nothing
        is near; `sees`: whether the embedder may see what a tenant of this policy asks; `now` is the store's clock, unix seconds; `patience` bounds the wait for a vector, in seconds."""
        self.entries = store
        self.policy = policy
        self._closes = embedder
        self._comparison: Comparison | None = None
        if embedder is not None and verdict is not None and policy.semantic != "off":
            self._comparison = Comparison(embedder, verdict, patience)
        self.routes = routes or {}
        self._reader = reader
        self._stage = stage
        self._sees = sees
        self._now = now
        self._patience = patience
        self._resemblance = Resemblance()
        self.refusals = Refusals(keep=policy.refusals, now=now)
        self.invalidated = 0
        self.health = {part: Health(part) for part in PARTS}

    def terms(self, policy: Policy) -> CacheTerms:
        """How a tenant's calls are to be treated: as its policy says, but compared with nothing where its data stays in regions that the
        embedder is not in."""
        return policy.cache if self._sees(policy) else msgspec.structs.replace(policy.cache, mode="off")

    def treatment(
        self,
        route: str,
        tenant: CacheTerms,
        wishes: Wishes,
        confidence: float = 1.0,
        strategy: Strategy | None = None,
    ) -> Treatment:
        """How a call of this tenant to this route is treated; `confidence` (0..1) and `strategy` are the router's."""
        return treatment(self.policy, self.routes.get(route), tenant, wishes, confidence, routed=strategy)

    def epoch(self, tenant: str) -> int:
        """The tenant's epoch, to be noted before an answer is asked for. Never raises."""
        try:
            epoch = self.entries.epoch(tenant)
        except Exception as error:
            self.health["epoch"].failed(error)
            return UNKNOWN_EPOCH
        self.health["epoch"].worked()
        return epoch

    def peek(self, key: Key, *, stale: float = 0.0) -> Hit | None:
        """An exact hit in this process, at most `stale` seconds past its time. Never waits, never raises."""
        if not self.policy.exact:
            return None
        try:
            entry = self.entries.peek(key, stale=min(stale, self.policy.stale))
        except Exception as error:
            self.health["peek"].failed(error)
            return None
        self.health["peek"].worked()
        return None if entry is None else self._exact(entry, stale)

    def _exact(self, entry: Entry, stale: float) -> Hit:
        return Hit(entry, "exact", stale=stale > 0 and entry.expires <= self._now())

    async def question(self, request: ChatRequest, treated: Treatment, key: Key | None = None) -> Question | None:
        """The request's question ready to compare, or None when the semantic tier has nothing to do with it. With the `key` that it will
        be looked up under, it may come without a vector, where nothing is near."""
        comparison, health = self._comparison, self.health["embedder"]
        if comparison is None or treated.semantic == "off":
            return None
        embedder = comparison.embedder
        reader = self._reader if treated.conversation == "context" else None
        try:
            text = comparable(request)
            if text is None or comparison.unfit(text):
                return None
            async with asyncio.timeout(self._patience):
                about = None if reader is None else await topic(reader, text, request)
            # What is compared by another model or other guards is compared with nothing older, and what another verdict has learnt
            # says nothing of this one.
            by = f"{embedder.identity} {COURTESY} {VERSION}"
            place = partition(by, request) if about is None else scope(f"{by} {CONVERSATION}", request)
            near = key is None or self._stage is None or self._stage.near((key.namespace, place), text)
            vector = await comparison.vector(text) if near else None
            found = Question(text, vector, place, scope(f"{by} {comparison.verdict.identity}", request), about)
        except Exception as error:
            health.failed(error)
            return None
        if near:
            health.worked()
        return found

    def why_not(self, request: ChatRequest, treated: Treatment) -> str | None:
        """Why the request's question is not compared by meaning, in a word; None where that goes without saying. `remote`: nor is its
        answer kept at all."""
        if refers(request):
            return "remote"
        comparison = self._comparison
        if comparison is None or treated.semantic == "off":
            return None
        try:
            text = comparable(request)
            return None if text is None else comparison.unfit(text) or "embedder"
        except Exception as error:
            self.health["embedder"].failed(error)
            return "embedder"

    async def lookup(self, key: Key, question: Question | None, treated: Treatment) -> Hit | Miss:
        """The best answer that may be served. Never raises."""
        search = None if question is None or treated.semantic == "off" else _search(question)
        found: Entry | Sequence[Candidate] = ()
        try:
            if treated.exact or search is not None:
                found = await self.entries.look(key, search, exact=treated.exact, stale=treated.stale)
        except Exception as error:
            self.health["lookup"].failed(error)
            return Miss()
        self.health["lookup"].worked()
        if isinstance(found, Entry):
            return self._exact(found, treated.stale)
        if question is None or search is None:
            return Miss()
        if not found:
            if self._stage is not None:
                self._stage.empty((key.namespace, question.partition))
            return Miss()
        # Across conversations, first what was asked in one about nearly the same.
        candidates = sorted(found, key=lambda one: question.meets(one.entry), reverse=True)
        return await self._similar(key.namespace, question, candidates, treated)

    async def _similar(
        self, namespace: Namespace, question: Question, candidates: Sequence[Candidate], treated: Treatment
    ) -> Hit | Miss:
        try:
            async with asyncio.timeout(self._patience):
                found = await self.judged(namespace, question, candidates, treated)
        except Exception as error:
            self.health["verdict"].failed(error)
            return Miss()
        self.health["verdict"].worked()
        return found

    async def judged(
        self, namespace: Namespace, question: Question, candidates: Sequence[Candidate], treated: Treatment
    ) -> Hit | Miss:
        """The verdict on candidates, nearest first: the most probable that may be served, or a miss with the judgement on the most
        probable. A tier that only watches serves nothing, and tells what it would have served."""
        if self._comparison is None:
            return Miss()
        place = Scope(namespace, question.scope)
        verdict, sparing = self._comparison.verdict, self._comparison.sparing
        named = self._resemblance.named(place, candidates)
        judgements = await verdict.judge(place, question.text, named, treated.error_rate, sparing)
        # What was asked about something else is evidence of where the others stand, and no more.
        both = zip(candidates, judgements, strict=True)
        judged = [Judged(one.entry, judgement) for one, judgement in both if question.meets(one.entry)]
        if not judged:
            return Miss()
        fit = [one for one in judged if one.judgement.serve and one.judgement.confidence >= treated.min_confidence]
        # Of equals the nearest: max takes the first.
        best = max(fit or judged, key=lambda one: one.judgement.confidence)
        if fit and treated.semantic == "on":
            self.entries.used(best.entry.key)
            return Hit(best.entry, "semantic", best.judgement.confidence, judgement=best.judgement)
        others = tuple(one for one in judged if one is not best and one.judgement.read)
        return Miss(best.judgement, best.entry, others, shadow=bool(fit), candidates=candidates)

    async def twins(
        self,
        namespace: Namespace,
        question: Question,
        flying: Sequence[Candidate],
        stored: Sequence[Candidate],
        treated: Treatment,
        *,
        id: str,
    ) -> list[Judged]:
        """Of questions in flight those whose answer may be given for this one, too: the most probable first. What is `stored` and near
        tells where they stand. The bar is higher than for an answer from stock, for there is none yet that could be checked: half the
        error rate, and no guard that knows what it speaks of may so much as doubt. Where none fits, the question will be answered under this `id`, and is remembered to resemble the most probable. Never raises."""
        if self._comparison is None:
            return []
        place, own = Scope(namespace, question.scope), {one.entry.id for one in flying}
        both = self._resemblance.named(place, sorted([*flying, *stored], key=lambda one: -one.similarity))
        try:
            async with asyncio.timeout(self._patience):
                judgements = await self._comparison.verdict.judge(
                    place, question.text, both, treated.error_rate * IN_FLIGHT, self._comparison.sparing
                )
        except Exception as error:
            self.health["verdict"].failed(error)
            return []
        judged = [
            Judged(one.entry, judgement)
            for one, judgement in zip(both, judgements, strict=True)
            if question.meets(one.entry)
        ]
        judged.sort(key=lambda one: -one.judgement.confidence)
        least = treated.min_confidence
        served = [one for one in judged if one.judgement.serve and one.judgement.confidence >= least]
        fit = [one for one in served if one.entry.id in own and not one.judgement.doubted]
        if not fit:
            self._resemblance.note(place, id, judged)
        return fit

    async def explain(self, one: str, other: str, treated: Treatment) -> Explanation:
        """What becomes of the question `one` where only `other` is stored, and nothing was learnt of either. Raises Conflict where
        nothing is compared by meaning, and what the embedder and the verdict raise."""
        if self._comparison is None:
            raise Conflict("The semantic cache is off, or its model could not be loaded.")
        return await explained(self._comparison, one, other, treated)

    async def store(
        self, key: Key, question: Question | None, completion: Completion, treated: Treatment, asked: Asked
    ) -> None:
        """Keep a complete answer. One that was cut by a limit or a filter is not kept, nor one that was asked for before an
        invalidation that includes it. Never raises."""
        if not completion.complete or asked.epoch == UNKNOWN_EPOCH:
            return
        if question is not None and question.vector is None:
            question = await self._embedded(question)
        if not (treated.exact or question is not None):
            return
        try:
            kept = await self.entries.put(
                entry(key, question, completion, treated, asked, now=self._now()), epoch=asked.epoch
            )
            if kept and question is not None and self._stage is not None:
                self._stage.add((key.namespace, question.partition), question.text)
        except Exception as error:
            self.health["keep"].failed(error)
        else:
            self.health["keep"].worked()

    async def _embedded(self, question: Question) -> Question | None:
        """The question with the vector that its lookup could do without; None where none can be made now."""
        if self._comparison is None:
            return None
        try:
            vector = await self._comparison.vector(question.text)
        except Exception as error:
            self.health["embedder"].failed(error)
            return None
        self.health["embedder"].worked()
        return msgspec.structs.replace(question, vector=vector)

    async def invalidate(self, selection: Selection) -> int:
        """Remove the selected entries, keep those still on their way from being stored, and forget the tenant's refusals.

        Returns how many were removed. Raises what the store raises: whoever invalidates must know that it did not happen.
        """
        self.refusals.forget(selection.tenant)
        removed = await self.entries.invalidate(selection)
        self.invalidated += removed
        return removed

    def size(self, tenant: str | None = None) -> int:
        """How many entries are stored, of one tenant or of all."""
        return self.entries.size(tenant)

    def weight(self, tenant: str | None = None) -> int:
        """Bytes that they take in memory."""
        return self.entries.weight(tenant)

    @property
    def compares(self) -> str | None:
        """What turns questions into vectors, by its identity; None where nothing is compared by meaning."""
        return None if self._comparison is None else self._comparison.embedder.identity

    def failures(self) -> dict[tuple[str, ...], float]:
        """How often each part did not work, by its name."""
        return {(part,): float(health.failures) for part, health in self.health.items()}

    async def close(self) -> None:
        """Let go of store and model. Never raises: the money's books have yet to be closed."""
        for part, closing in (("keep", self.entries), ("embedder", self._closes)):
            try:
                if closing is not None:
                    await closing.close()
            except Exception as error:
                self.health[part].failed(error)


def _search(question: Question) -> Search | None:
    """What to look for; None for a question of which the first stage has said that nothing is near it."""
    if question.vector is None:
        return None
    return Search(question.partition, question.vector, CANDIDATES if question.topic is None else ACROSS)
