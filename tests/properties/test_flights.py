"""Flights under every interleaving: readers join and leave, the work publishes, lands, fails or is cut short, in any order.

The machine drives one event loop by hand. Each flight's work is a script that waits to be told what to do next, so that Hypothesis
chooses every switch; each reader notes the events it got. What must hold is written in `invariant` and `teardown`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.coalesce.apart import KEEP
from headgate.coalesce.coalesce import Flight, Flights
from headgate.limits.limits import Limits, Permit
from headgate.limits.memory import MemoryCounters
from headgate.model.chat import Completion, Delta, Done, Event
from headgate.model.errors import GatewayError, Interrupted, Overloaded
from headgate.model.money import Usage
from headgate.model.record import CallRecord
from headgate.model.tenancy import Policy, Principal, Wishes
from headgate.reply import Reply, Ticket
from tests.chaos import times

KEYS = ("one", "two")
MAX_FOLLOWERS = 3
OLDEST = 10.0
LONGEST = 150
TURNS = st.integers(0, 4)
CALLER = Principal(tenant="acme", policy=Policy(rpm=1_000_000, concurrency=1_000_000))
Abandoned = Literal["finish", "cancel"]


def completion(name: str) -> Completion:
    choice = {"index": 0, "message": {"role": "assistant", "content": name}, "finish_reason": "stop"}
    return Completion(model="m", choices=[choice], usage=Usage(), reported={})


class Work:
    """What one flight does: each step is put into its queue by the machine."""

    def __init__(self, key: str | None, abandoned: Abandoned, clock: Callable[[], float]) -> None:
        self.key = key
        self._clock = clock
        self.abandoned = abandoned
        self.steps: asyncio.Queue[Event | Completion | GatewayError | Exception | None] = asyncio.Queue()
        self.flight: Flight | None = None
        self.published: list[Event] = []
        self.began = clock()
        self.ended = 0.0
        self.taps = 0
        self.over = False
        self.cancelled = False

    def tap(self) -> None:
        self.taps += 1

    async def fly(self, flight: Flight) -> None:
        self.flight = flight
        try:
            while (step := await self.steps.get()) is not None:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Completion):
                    flight.land(step)
                else:
                    self.published.append(step)
                    flight.publish(step)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.over = True
            self.ended = self._clock()


class Reader:
    """One caller with a Reply, who takes some turns of the loop to digest each event."""

    def __init__(self, reply: Reply, flight: Flight, work: Work, loop: asyncio.AbstractEventLoop, *, slow: int) -> None:
        self.reply = reply
        self.flight = flight
        self.work = work
        self.got: list[Event] = []
        self.ends: list[str] = []
        self.left = False
        self._slow = slow
        self.task = loop.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for event in self.reply.events():
                assert not self.ends
                self.got.append(event)
                for _ in range(self._slow):
                    await asyncio.sleep(0)
        except GatewayError as error:
            self.ends.append(error.code or error.type)
        else:
            self.ends.append("whole")


def reply_to(flight: Flight, permit: Permit, records: list[CallRecord], *, leads: bool) -> Reply:
    ticket = Ticket(
        id=flight.id, at=0.0, started=0.0, caller=CALLER, wishes=Wishes(), route="auto", stream=True
    )  # fmt: skip
    return Reply(
        ticket, flight, leads=leads, permit=permit, closed=lambda record, *_: records.append(record), clock=lambda: 0.0
    )


class Machine(RuleBasedStateMachine):
    @initialize(drain=st.sampled_from([0.0, 60.0]))
    def begin(self, drain: float) -> None:
        self.loop = asyncio.new_event_loop()
        self.drained_at_once = drain == 0
        self.time = 0.0
        self.told: list[Flight] = []
        self.flights = Flights(
            max_followers=MAX_FOLLOWERS,
            drain=drain,
            oldest=OLDEST,
            longest=LONGEST,
            ended=self.told.append,
            clock=lambda: self.time,
        )
        self.limits = Limits(MemoryCounters())
        self.records: list[CallRecord] = []
        self.works: list[Work] = []
        self.readers: list[Reader] = []
        self.draining = False
        self.number = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @precondition(lambda self: sum(not reader.left for reader in self.readers) < 8)
    @rule(
        key=st.sampled_from([*KEYS, None]),
        abandoned=st.sampled_from(["finish", "cancel"]),
        slow=st.sampled_from([0, 1, 3, 12]),
        stream=st.booleans(),
    )
    def join(self, key: str | None, abandoned: Abandoned, slow: int, stream: bool) -> None:
        """Join or lead; whoever joins must find a flight that can still give it a whole answer, and soon."""
        self.number += 1
        if key in self.flights.apart:
            key = None
        work = Work(key, abandoned, lambda: self.time)

        async def join() -> tuple[Flight, bool, Work | None]:
            taken = self._taken(key)
            taps = stream and taken is not None and taken.flight is not None and not taken.flight.streamed
            before = 0 if taken is None else taken.taps
            flight, leads = self.flights.join(key, f"id-{self.number}", abandoned, work.fly, stream=stream)
            assert taken is None or taken.taps == before + taps, (
                "the first reader in parts, and no other, turns on the tap"
            )
            return flight, leads, taken

        try:
            flight, leads, taken = self.run(join())
        except Overloaded:
            assert self.draining
            return
        assert leads == (taken is None)
        assert flight.streamed or not stream
        if leads:
            assert not self.draining
            assert flight.streamed == stream
            work.flight = flight
            flight.tapped(work.tap)
            self.works.append(work)
        else:
            assert key is not None
            work = next(known for known in self.works if known.flight is flight)
            assert work is taken
            assert flight.error is None
            assert not work.cancelled
            assert flight.readers > 1 or flight.completion is not None or work.abandoned == "finish"
        reply = reply_to(flight, self.run(self.limits.admit(CALLER)), self.records, leads=leads)
        self.readers.append(Reader(reply, flight, work, self.loop, slow=slow))

    def _taken(self, key: str | None) -> Work | None:
        """The flight that the next one who asks for this has to join."""
        same = [work for work in self.works if key is not None and work.key == key]
        if not same or same[-1].over:
            return None
        work = same[-1]
        flight = work.flight
        assert flight is not None
        fresh = flight.size <= LONGEST and self.time - work.began <= OLDEST
        dying = flight.error is not None or flight.doomed or flight.followers >= MAX_FOLLOWERS
        return work if not dying and (fresh or flight.completion is not None) else None

    @rule(seconds=st.sampled_from([1.0, OLDEST, OLDEST + 1, KEEP]))
    def grow_old(self, seconds: float) -> None:
        self.time += seconds

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        staying = [reader for reader in self.readers if not reader.left]
        if staying:
            reader = data.draw(st.sampled_from(staying))
            reader.left = True
            self.run(self._leave(reader))

    async def _leave(self, reader: Reader) -> None:
        reader.task.cancel()
        reader.reply.close()

    def _flying(self) -> list[Work]:
        return [
            work for work in self.works if not work.over and work.flight is not None and work.flight.completion is None
        ]

    @rule(data=st.data(), count=st.integers(1, 3), turns=TURNS)
    def publish(self, data: st.DataObject, count: int, turns: int) -> None:
        """Tell one flight's work to publish; it does so when the loop next turns."""
        if flying := self._flying():
            work = data.draw(st.sampled_from(flying))
            for _ in range(count):
                self.number += 1
                work.steps.put_nowait(Delta([{"index": 0, "delta": {"content": f"part {self.number}"}}]))
            self.turn(turns)

    @rule(data=st.data(), published=st.booleans(), apart=st.booleans(), turns=TURNS)
    def land(self, data: st.DataObject, published: bool, apart: bool, turns: int) -> None:
        """The answer is whole: after its events, or all at once as from the cache; perhaps it is for nobody else."""
        if flying := self._flying():
            work = data.draw(st.sampled_from(flying))
            assert work.flight is not None
            work.flight.apart = apart
            if published:
                work.steps.put_nowait(Done("m"))
            work.steps.put_nowait(completion("whole"))
            self.turn(turns)

    @rule(data=st.data(), end=st.sampled_from([Interrupted("broke off"), ZeroDivisionError("a fault of ours"), None]))
    def end(self, data: st.DataObject, end: Exception | None) -> None:
        """The work fails, breaks or returns with nothing."""
        if flying := self._flying():
            data.draw(st.sampled_from(flying)).steps.put_nowait(end)

    @rule(data=st.data())
    def stored(self, data: st.DataObject) -> None:
        """The entry is in the cache: a landed flight's work returns, and only then it is forgotten."""
        landed = [
            work
            for work in self.works
            if not work.over and work.flight is not None and work.flight.completion is not None
        ]
        if landed:
            data.draw(st.sampled_from(landed)).steps.put_nowait(None)

    @rule(turns=TURNS)
    def turn(self, turns: int) -> None:
        """Let the loop turn, so that what is due happens."""
        for _ in range(turns):
            self.run(asyncio.sleep(0))

    @precondition(lambda self: len(self.works) > 3)
    @rule()
    def drain(self) -> None:
        """The gateway closes without grace."""
        self.draining = True
        self.run(self.flights.drain(0))

    @invariant()
    def no_key_leads_to_a_dead_flight(self) -> None:
        if not hasattr(self, "flights"):
            return
        for key, flight in self.flights._joinable.items():
            work = next(known for known in self.works if known.flight is flight)
            assert key == work.key
            assert flight.error is None
            assert not work.cancelled

    @invariant()
    def every_reader_has_a_prefix_of_what_was_published_and_at_most_one_end(self) -> None:
        for reader in getattr(self, "readers", []):
            said = reader.flight.events
            assert reader.got == said[: len(reader.got)]
            assert len(reader.ends) <= 1
            assert not reader.ends or reader.flight.ended

    @invariant()
    def what_was_for_nobody_else_is_not_shared_for_a_while(self) -> None:
        for key in KEYS if hasattr(self, "flights") else ():
            proven = [
                work.ended
                for work in self.works
                if work.key == key and work.over and work.flight is not None and work.flight.apart
            ]
            assert (key in self.flights.apart) == any(self.time - ended < KEEP for ended in proven)

    @invariant()
    def nobody_follows_more_than_are_allowed(self) -> None:
        for work in getattr(self, "works", []):
            assert work.flight is None or work.flight.followers <= MAX_FOLLOWERS

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.turn(10)
            for work in self.works:
                self._abandoned_flights_have_ended(work)
            for work in self.works:
                work.steps.put_nowait(None)
            self.run(asyncio.wait_for(self.flights.idle(), 5))
            self.turn(200)
            for reader in self.readers:
                reader.reply.close()
            assert len(self.records) == len(self.readers)
            assert not self.flights._tasks
            assert not self.flights._joinable
            assert self.flights.followers == 0
            assert self.flights.started == len(self.works)
            assert len(self.told) == len(set(self.told)) == len(self.works)
            assert all(news.done() for flight in self.told for news in flight._waiting)
            for reader in self.readers:
                assert reader.task.done()
                if not reader.left:
                    self._read_to_the_end(reader)
        finally:
            self.loop.close()

    def _abandoned_flights_have_ended(self, work: Work) -> None:
        flight = work.flight
        assert flight is not None
        given_up = work.abandoned == "cancel" or self.drained_at_once
        if flight.readers == 0 and given_up and flight.completion is None:
            assert work.over or not work.cancelled
            assert flight._task is not None
            assert flight._task.done()

    @staticmethod
    def _read_to_the_end(reader: Reader) -> None:
        flight = reader.flight
        assert reader.got == flight.events
        assert len(reader.ends) == 1
        assert reader.ends == ["whole"] if flight.completion is not None else reader.ends[0] != "whole"


TestFlights = Machine.TestCase
TestFlights.settings = settings(max_examples=times(200, 10_000), stateful_step_count=40, deadline=None)
