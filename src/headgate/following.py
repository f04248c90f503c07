"""Following: what a flight does while another one is answering a question that means the same.

It gets that one's answer, in parts if somebody reads it in parts. As long as nobody was given any of it the flight can still answer by
itself, and does so when the other fails, takes too long, or ends with an answer that is for nobody else.

Invariant: what concerns the other flight's caller (its budget, its time, its leaving) decides nothing here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from headgate.cache.cache import Candidate, Entry, Hit, Judged, Miss
from headgate.cache.tiers import Cache
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

    def enter(self, flight: Flight, call: Call, epoch: int) -> Sought | None:
        """Let others find this flight, and see who was there before; None where it is not compared. End it with `leave`.

        Before the cache is asked: an answer that is stored meanwhile is found there, or its flight is among those seen here. `epoch`:
        who comes after an invalidation follows nobody who began before it.
        """
        key, question = call.key, call.question
        if question is None or question.vector is None or call.treated.semantic != "on":
            return None
        asking = self.twins.enter(flight, question, (key.namespace, question.partition, epoch))
        return Sought(asking, key, self.twins.near(asking, FAR))

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
        self.twins.decide(asking, leads=found is None)
        return found

    async def _found(self, sought: Sought, looked: Miss, treated: Treatment) -> Twin | None:
        asking = sought.asking
        near = {one.flight.id: (cosine, one) for cosine, one in sought.near if self._flights.takes(one.flight)}
        if not near:
            return None
        candidates = [Candidate(_entry(one, sought.key), cosine) for cosine, one in near.values()]
        fit: Sequence[Judged] = await self._cache.twins(
            sought.key.namespace, asking.question, candidates, looked.candidates, treated
        )
        for one in fit:
            other = near[one.entry.id][1]
            # It may be comparing itself yet; shielded, for it is not ours to cancel.
            if await asyncio.shield(other.leads) and self._flights.takes(other.flight):
                return Twin(other, sought.key, one.judgement)
        return None

    async def followed(self, flight: Flight, twin: Twin, patience: float) -> Completion | None:
        """The other flight's answer; None where this one has to answer by itself, after it has waited its turn.

        `patience`: seconds to the first part of it. Raises what the other failed of where somebody was given a part already.
        """
        leader, began = twin.asking.flight, self._clock()
        leader.followers += 1
        leader.twins += 1
        leader.join(stream=flight.streamed)
        try:
            completion = await self._read(flight, twin, patience)
        finally:
            leader.leave()
            flight.trail.waited += self._clock() - began
        if completion is None and (leader.error is not None or leader.completion is not None):
            await self._flights.starts.turn()  # all who followed it start over now
        return completion

    async def _read(self, flight: Flight, twin: Twin, patience: float) -> Completion | None:
        leader = twin.asking.flight
        if not await leader.heard(patience) or not leader.begun or leader.trail.personal:
            return None
        pouring = _Pouring(flight, twin)
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
        self._leader = twin.asking.flight
        self._position = 0

    def pour(self) -> None:
        """Give what there is to those who read in parts. From then on there is no way back."""
        if not self._flight.streamed:
            return
        for event in self._leader.events_from(self._position):
            self._note(self._flight.trail)
            self._position += 1
            self._flight.publish(event)

    def whole(self) -> Completion | None:
        """The answer at its end; None where it is not for this flight. Raises what the leader failed of after the first part."""
        leader, completion = self._leader, self._leader.completion
        if completion is not None and (self._position or for_others(completion)):
            self._note(self._flight.trail)
            return completion
        if self._position and leader.error is not None:
            raise leader.error.with_traceback(None)
        return None

    def _note(self, trail: Trail) -> None:
        """What is known of the answer now."""
        theirs, judgement = self._leader.trail, self._twin.judgement
        trail.source, trail.confidence, trail.prior = "coalesced-semantic", judgement.confidence, judgement.prior
        trail.model, trail.deployment, trail.limit = theirs.model, theirs.deployment, theirs.limit
        trail.entry, trail.partition = theirs.entry, self._twin.asking.question.partition
        trail.worth, trail.ceiling = theirs.worth, theirs.ceiling


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
