"""Following: what a flight does while another one is answering a question that means the same.

It gets that one's answer, in parts if somebody reads it in parts. As long as nobody was given any of it the flight can still answer by
itself, and does so when the other fails, takes too long, or ends with an answer that is for nobody else.

Invariant: what concerns the other flight's caller (its budget, its time, its leaving) decides nothing here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from headgate.cache.cache import Candidate, Entry, Hit, Miss
from headgate.cache.guards.guards import differences
from headgate.cache.tiers import CANDIDATES, Cache
from headgate.cache.treatment import Treatment
from headgate.cache.verdict import FAR, Judgement
from headgate.checking import Call
from headgate.coalesce.coalesce import Flight, Flights
from headgate.coalesce.trail import Trail
from headgate.coalesce.twins import Asking, Twins
from headgate.model.chat import Completion
from headgate.model.tenancy import Key

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

    def as_hit(self, completion: Completion) -> Hit:
        """Its answer as one from stock, for those who check these."""
        entry = _entry(self.asking, self.key, _encode(completion))
        return Hit(entry, "semantic", self.judgement.confidence, judgement=self.judgement)


class Following:
    """Finds twins and follows them."""

    def __init__(self, cache: Cache, flights: Flights, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic, in seconds."""
        self.twins = Twins()
        self._cache = cache
        self._flights = flights
        self._clock = clock

    def enter(self, flight: Flight, call: Call, epoch: int, *, follows: bool = True) -> Sought | None:
        """Let others find this flight, and see who was there before; None where it is not compared. End it with `leave`.

        Before the cache is asked: an answer that is stored meanwhile is found there, or its flight is among those seen here. `epoch`:
        who comes after an invalidation follows nobody who began before it. `follows`: False for one that is flown because another
        has failed its readers. It may be followed; but whom it would find is, as likely as not, that very one.
        """
        key, question = call.key, call.question
        if question is None or question.vector is None or call.treated.semantic != "on":
            return None
        place = key.namespace, question.partition, epoch, call.ticket.wishes.coalesce_key
        asking = self.twins.enter(flight, question, place)
        return Sought(asking, key, self.twins.near(asking, FAR) if follows else ())

    def leave(self, sought: Sought) -> None:
        """The flight is over, its answer in stock if it is kept."""
        self.twins.leave(sought.asking)

    async def twin(self, sought: Sought, looked: Miss, treated: Treatment) -> Twin | None:
        """Whom to follow, after the cache had nothing to serve; None where the flight has to answer by itself. Never raises."""
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

    async def followed(self, flight: Flight, twin: Twin, patience: float) -> Completion | None:
        """The other flight's answer; None where this one has to answer by itself, after it has waited its turn.

        `patience`: seconds to the first part of it. Raises what the other failed of where somebody was given a part already.
        """
        leader, began = twin.asking.flight, self._clock()
        leader.followers += 1
        leader.twins += 1
        leader.join(stream=flight.streamed)
        pouring = _Pouring(flight, twin)
        flight.tab.follow(leader.tab, pouring.takes)
        try:
            completion = await self._read(flight, pouring, patience)
        finally:
            flight.tab.part(leader.tab)
            leader.leave()
            flight.trail.waited += self._clock() - began
        if completion is None:
            flight.alone = True
            await self._flights.starts.turn()  # all who followed it start over now
        return completion

    async def _read(self, flight: Flight, pouring: _Pouring, patience: float) -> Completion | None:
        leader = pouring.leader
        if not await leader.heard(patience, pouring.price) or not _promising(leader):
            return None
        pouring.price()
        flight.tapped(pouring.pour)
        try:
            pouring.pour()
            while not leader.ended:
                await leader.news()
                pouring.pour()
        finally:
            flight.tapped(lambda: None)
        return pouring.whole()


class _Pouring:
    """From one flight into another: the parts of the answer, and how it was come by."""

    def __init__(self, flight: Flight, twin: Twin) -> None:
        self._flight = flight
        self._twin = twin
        self.leader = twin.asking.flight
        self._position = 0

    def takes(self, completion: Completion) -> bool:
        """Whether this answer of the other is the flight's, too."""
        return not self.leader.trail.own and (self._position > 0 or for_others(completion))

    def price(self) -> None:
        """Pass on what the answer will cost at most."""
        trail = self.leader.trail
        if trail.ceiling != self._flight.trail.ceiling and not trail.own:
            self._flight.price(trail.ceiling)

    def pour(self) -> None:
        """Give what there is to those who read in parts. From then on there is no way back."""
        if not self._flight.streamed:
            return
        for event in self.leader.events_from(self._position):
            self._note(self._flight.trail)
            self._position += 1
            self._flight.publish(event)

    def whole(self) -> Completion | None:
        """The answer at its end; None where it is not for this flight. Raises what the leader failed of after the first part."""
        leader, completion = self.leader, self.leader.completion
        if completion is not None and self.takes(completion):
            self._note(self._flight.trail)
            return completion
        if self._position and leader.error is not None:
            raise leader.error.with_traceback(None)
        return None

    def _note(self, trail: Trail) -> None:
        """What is known of the answer now."""
        theirs, judgement = self.leader.trail, self._twin.judgement
        trail.source, trail.confidence, trail.prior = "coalesced-semantic", judgement.confidence, judgement.prior
        trail.model, trail.deployment, trail.limit = theirs.model, theirs.deployment, theirs.limit
        trail.entry, trail.partition = theirs.entry, self._twin.asking.question.partition
        trail.worth, trail.ceiling = theirs.worth, theirs.ceiling


def _promising(leader: Flight) -> bool:
    """Whether a flight of which something is known now may have an answer for those who mean the same."""
    if leader.error is not None or leader.trail.own:
        return False
    return leader.completion is None or for_others(leader.completion)


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
