"""Following: what a flight does while another one is answering a question that means the same.

It gets that one's answer, in parts if somebody reads it in parts. As long as nobody was given any of it the flight can still answer by
itself, and does so when the other fails, takes too long, or ends with an answer that is for nobody else.

Invariant: what concerns the other flight's caller (its budget, its time, its leaving) decides nothing here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from headgate.cache.cache import Candidate, Entry, Hit, Miss
from headgate.cache.guards.guards import differences
from headgate.cache.tiers import CANDIDATES, Cache
from headgate.cache.treatment import Treatment
from headgate.cache.verdict import FAR, Judgement
from headgate.checking import Call
from headgate.coalesce.coalesce import Flight, Flights
from headgate.coalesce.pouring import Pouring
from headgate.coalesce.trail import Trail
from headgate.coalesce.twins import Asking, Twins
from headgate.model.chat import Completion
from headgate.model.tenancy import Key
from headgate.stock import Errand

log = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode


class Sought(msgspec.Struct, frozen=True):
    """A flight with a question in search of another that answers it: itself, and who is near of those that came before."""

    asking: Asking
    key: Key
    near: Sequence[tuple[float, Asking]]

    @property
    def flight(self) -> Flight:
        """The one that seeks."""
        return self.asking.flight


class Twin(msgspec.Struct, frozen=True):
    """A flight that answers the same question, and the verdict on that."""

    asking: Asking
    key: Key
    judgement: Judgement


class Followed(msgspec.Struct, frozen=True):
    """The answer of a twin."""

    completion: Completion
    twin: Twin

    @property
    def hit(self) -> Hit:
        """As one from stock, for those who check these."""
        entry, judgement = _entry(self.twin.asking, self.twin.key, _encode(self.completion)), self.twin.judgement
        return Hit(entry, "semantic", judgement.confidence, judgement=judgement)


class Following:
    """Finds twins and follows them."""

    def __init__(self, cache: Cache, flights: Flights, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic, in seconds."""
        self.twins = Twins()
        self._cache = cache
        self._flights = flights
        self._clock = clock

    @contextmanager
    def entered(self, flight: Flight, call: Call, errand: Errand) -> Iterator[Sought | None]:
        """Let others find this flight until it is over, its answer in stock if it is kept; and see who was there before. None where it is not
        compared.

        Before the cache is asked: an answer that is stored meanwhile is found there, or its flight is among those seen here. Who comes after
        an invalidation follows nobody who began before it. One that is flown because another has failed its readers may be followed; but
        whom it would find is, as likely as not, that very one.
        """
        key, question = call.key, call.question
        if question is None or question.vector is None or call.treated.semantic != "on" or not errand.compared(flight):
            yield None
            return
        place = key.namespace, question.partition, errand.epoch, call.ticket.wishes.coalesce_key
        asking = self.twins.enter(flight, question, place)
        try:
            yield Sought(asking, key, () if errand.over else self.twins.near(asking, FAR))
        finally:
            self.twins.leave(asking)

    async def followed(
        self, flight: Flight, sought: Sought | None, looked: Miss, treated: Treatment, patience: float
    ) -> Followed | None:
        """The answer of a flight that means the same, after the cache had nothing to serve. None where this one has to answer by itself;
        where it has followed in vain, after it has waited its turn.

        `patience`: seconds to the first part of it. Raises what the other failed of where somebody was given a part already.
        """
        twin = None if sought is None else await self._twin(sought, looked, treated)
        completion = None if twin is None else await self._read(flight, twin, patience)
        return None if twin is None or completion is None else Followed(completion, twin)

    async def _twin(self, sought: Sought, looked: Miss, treated: Treatment) -> Twin | None:
        """Whom to follow. Never raises."""
        asking = sought.asking
        try:
            found = await self._found(sought, looked, treated)
        except Exception:
            log.exception("questions in flight could not be compared")
            found = None
        self.twins.decide(asking, None if found is None else found.asking)
        return found

    async def _found(self, sought: Sought, looked: Miss, treated: Treatment) -> Twin | None:
        leading = [near for near in await self.twins.leading(sought.near) if self._flights.takes(near[1].flight)]
        if not leading:
            return None
        flying = {one.flight.id: one for _, one in leading[:CANDIDATES]}
        candidates = [Candidate(_entry(one, sought.key), cosine) for cosine, one in leading[:CANDIDATES]]
        key, question = sought.key, sought.asking.question
        fit = await self._cache.twins(
            key.namespace, question, candidates, looked.candidates, treated, id=sought.flight.id
        )
        for one in fit:
            other = flying[one.entry.id]
            if self._flights.takes(other.flight) and self._suits(sought.asking, other):
                return Twin(other, key, one.judgement)
        return None

    def _suits(self, asking: Asking, leader: Asking) -> bool:
        """Whether no guard tells a question from those that get the leader's answer already: one answer has to do for all of them."""
        company = self.twins.company(asking, leader, FAR)
        told_apart = (differences(asking.question.text, one.text) for one in company)
        return not any(one.severity == "veto" for found in told_apart for one in found)

    async def _read(self, flight: Flight, twin: Twin, patience: float) -> Completion | None:
        leader, began = twin.asking.flight, self._clock()
        leader.followers += 1
        leader.twins += 1
        leader.join(stream=flight.streamed)
        pouring = Pouring(flight, leader, fits=_fits, note=lambda: _note(flight.trail, twin))
        flight.tab.follow(leader.tab, pouring.takes)
        try:
            completion = await pouring.read(patience)
        finally:
            flight.tab.part(leader.tab)
            leader.leave()
            flight.trail.waited += self._clock() - began
        if completion is None:
            flight.alone = True
            await self._flights.starts.turn()  # all who followed it start over now
        return completion


def _note(trail: Trail, twin: Twin) -> None:
    """What is known of the answer now."""
    theirs, judgement = twin.asking.flight.trail, twin.judgement
    trail.source, trail.confidence, trail.prior = "coalesced-semantic", judgement.confidence, judgement.prior
    trail.model, trail.deployment, trail.limit = theirs.model, theirs.deployment, theirs.limit
    trail.entry, trail.partition = theirs.entry, twin.asking.question.partition
    trail.worth, trail.ceiling = theirs.worth, theirs.ceiling


def _fits(leader: Flight, completion: Completion | None) -> bool:
    """Whether a flight's answer is for those who mean the same, as far as is known of it."""
    return not leader.trail.own and (completion is None or for_others(completion))


def for_others(completion: Completion) -> bool:
    """Whether an answer may be given to who has asked the same in other words: it is whole, and neither calls a tool nor refuses."""
    return all(
        choice.get("finish_reason") == "stop"
        and not (choice.get("message") or {}).get("tool_calls")
        and not (choice.get("message") or {}).get("refusal")
        for choice in completion.choices
    )


def _entry(asking: Asking, key: Key, answer: bytes = b"") -> Entry:
    """A question in flight as one in stock."""
    question = asking.question
    topic = None if question.topic is None else question.topic.stored
    return Entry(id=asking.flight.id, key=key, answer=answer, stored=0.0, expires=0.0, text=question.text, topic=topic)
