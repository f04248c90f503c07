"""Whole schedules of callers, twins among them, through the gateway: who comes when, who leaves, what fails, what is slow.

Hypothesis draws a schedule; it is played in virtual time, to its end, and then everything is counted. Each part of an answer says which
call to the provider it was made by, and each call who it was made for, so that what a caller got can be told from its text.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.budget.outputs import ENOUGH
from headgate.cache.cache import Candidate, Entry, Selection
from headgate.cache.memory import MemoryStore
from headgate.coalesce.coalesce import Flight
from headgate.coalesce.starts import Starts
from headgate.dispatch import Patience
from headgate.model.tenancy import Coalescing, Key, Namespace, Policy, Principal, Shares, Wishes
from tests.chaos import times
from tests.crowds import PARCEL, REFUND, Crowd, Meanings, Reader
from tests.played import Play, Player
from tests.virtual_time import clock, run

QUESTIONS = {text: subject for subject, texts in enumerate((PARCEL, REFUND)) for text in texts}
TENANTS = ("acme", "bolt")
POOR, THRIFTY = "poor", "thrifty"
"""Users of each tenant whose budget covers no call, and no long answer."""


class Part(msgspec.Struct, frozen=True):
    """Somebody calls at second `at`, and hangs up after `stays` where that is given; a slow reader takes a while for each event."""

    at: float
    text: str
    tenant: str
    user: str | None
    stream: bool
    abandoned: Literal["finish", "cancel"]
    coalesce: Coalescing
    cache: Literal["default", "no-cache", "exact", "only-if-cached"]
    patience: float | None
    timeout: float | None
    stays: float | None
    slow: float


class Schedule(msgspec.Struct, frozen=True):
    """Everything that happens, and how long embedder and store take."""

    callers: list[Part]
    plays: list[Play]
    invalidated: list[float]
    shares: Shares
    embedding: float
    storing: float
    closes: float | None


class SlowStore(MemoryStore):
    """A store that takes its time before it looks and before it keeps."""

    def __init__(self, seconds: float) -> None:
        super().__init__(now=clock)
        self._seconds = seconds

    async def get(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        await asyncio.sleep(self._seconds)
        return await super().get(key, stale=stale)

    async def nearest(self, namespace: Namespace, partition: bytes, vector: Any, count: int) -> Any:
        found: list[Candidate] = list(await super().nearest(namespace, partition, vector, count))
        await asyncio.sleep(self._seconds)
        return found

    async def put(self, entry: Entry, *, epoch: int) -> bool:
        await asyncio.sleep(self._seconds)
        return await super().put(entry, epoch=epoch)


moments = st.sampled_from([0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 8.0, 14.5, 16.0])
"""Few, so that much happens in the same one; some late ones, when flights have become old."""
plays = st.builds(
    Play,
    first=st.sampled_from([0.0, 0.5, 1.0, 1.0, 4.0, 30.0]),
    gap=st.sampled_from([0.0, 0.5]),
    parts=st.integers(1, 4),
    end=st.sampled_from(
        [*["stop"] * 6, "length", "content_filter", "tool_calls", "down", "down", "no", "cut", "silence"]
    ),
)
callers = st.builds(
    Part,
    at=moments,
    text=st.sampled_from([*PARCEL[:3], *PARCEL[:2], REFUND[0]]),
    tenant=st.sampled_from(["acme", "acme", "acme", "bolt"]),
    user=st.sampled_from([*[None] * 10, POOR, THRIFTY]),
    stream=st.booleans(),
    abandoned=st.sampled_from(["finish", "cancel"]),
    coalesce=st.sampled_from([*["semantic"] * 8, "exact", "off"]),
    cache=st.sampled_from([*["default"] * 12, "no-cache", "exact", "only-if-cached"]),
    patience=st.sampled_from([*[None] * 6, 0.5, 0.0]),
    timeout=st.sampled_from([*[None] * 9, 1.0]),
    stays=st.sampled_from([*[None] * 9, 0.0, 0.5, 1.5, 4.0]),
    slow=st.sampled_from([0.0, 0.0, 0.7]),
)
schedules = st.builds(
    Schedule,
    callers=st.lists(callers, min_size=3, max_size=12),
    plays=st.lists(plays, min_size=1, max_size=6),
    invalidated=st.lists(moments, max_size=2),
    shares=st.sampled_from(["leader", "leader", "split", "each"]),
    embedding=st.sampled_from([0.0, 0.5]),
    storing=st.sampled_from([0.0, 0.5]),
    closes=st.sampled_from([*[None] * 9, 1.0, 3.5]),
)


class Stage:
    """A gateway on which a schedule is played, and what is looked at when it is over."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.player = Player(schedule.plays)
        self.flights: dict[str, Flight] = {}
        self.readers: list[tuple[Part, Reader]] = []
        self.house = Crowd(
            providers={"one": self.player},
            embedder=Meanings(schedule.embedding),
            store=SlowStore(schedule.storing),
            patience=Patience(total=40.0, retries=0),
            follower_patience=2.0,
            drain=3.0,
            grace=1.0,
            flights={
                "starts": Starts(most=2),
                "oldest": 15.0,
                "longest": 200,
                "max_followers": 4,
                "ended": self._ended,
            },
        )

    def _ended(self, flight: Flight) -> None:
        self.flights[flight.id] = flight

    async def play(self) -> None:
        for tenant in TENANTS:
            await self.house.allow(f"user:{tenant}/{POOR}", 0)
            await self.house.allow(f"user:{tenant}/{THRIFTY}", 100_000)
            for _ in range(ENOUGH):
                self.house.gateway.budget.outputs.observe(tenant, "auto", 10, limit=100)
        schedule = self.schedule
        others = [self._come(part) for part in schedule.callers]
        others += [self._invalidate(at) for at in schedule.invalidated]
        if schedule.closes is not None:
            others.append(self._close(schedule.closes))
        await asyncio.gather(*others)
        await self.house.at_rest()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def _come(self, part: Part) -> None:
        await asyncio.sleep(part.at)
        policy = Policy(abandoned=part.abandoned, shares=self.schedule.shares, rpm=10_000, concurrency=10_000)
        by = Principal(tenant=part.tenant, policy=policy)
        wishes = Wishes(
            cache=part.cache, coalesce=part.coalesce, patience=part.patience, timeout=part.timeout, user=part.user
        )
        reader = self.house.come(
            part.text, by, wishes, slow=part.slow, stream=part.stream, metadata={"tenant": part.tenant}
        )
        self.readers.append((part, reader))
        if part.stays is not None:
            asyncio.get_running_loop().call_later(part.stays, reader.leave)
        await asyncio.gather(reader.task, return_exceptions=True)

    async def _invalidate(self, at: float) -> None:
        await asyncio.sleep(at)
        await self.house.gateway.cache.invalidate(Selection(tenant="acme"))

    async def _close(self, at: float) -> None:
        await asyncio.sleep(at)
        await self.house.gateway.flights.drain(1.0)

    async def checked(self) -> None:
        for part, reader in self.readers:
            self._every_reader_that_stays_comes_to_one_end(part, reader)
            self._what_it_read_is_one_answer_to_its_own_question(part, reader)
            self._it_shares_no_more_than_it_wants_to(part, reader)
        for flight in self.flights.values():
            self._a_flight_is_over(flight)
            self._no_answer_goes_from_hand_to_hand(flight)
        await self._every_call_is_settled_once()

    def _every_reader_that_stays_comes_to_one_end(self, part: Part, reader: Reader) -> None:
        left = reader.task.cancelled()
        assert len(reader.ends) == (0 if left else 1)
        assert left <= (part.stays is not None)
        assert reader.task.cancelled() or reader.task.exception() is None

    def _what_it_read_is_one_answer_to_its_own_question(self, part: Part, reader: Reader) -> None:
        """In its order, nothing twice, nothing left out; and whole where it ended so."""
        said = [tuple(map(int, piece.split("."))) for piece in reader.text.split()]
        if not said:
            assert reader.ends != ["whole"]
            return
        number = said[0][0]
        made = self.player.made[number]
        assert said == [(number, place) for place in range(len(said))]
        assert (made.tenant, QUESTIONS[made.text]) == (part.tenant, QUESTIONS[part.text])
        if reader.ends == ["whole"]:
            assert len(said) == made.play.parts
            assert made.play.end not in ("cut", "silence")

    def _it_shares_no_more_than_it_wants_to(self, part: Part, reader: Reader) -> None:
        if reader.reply is None or not reader.text:
            return
        source = reader.source
        assert part.coalesce == "semantic" or source != "coalesced-semantic"
        assert part.coalesce != "off" or source != "coalesced"
        assert part.cache == "default" or source != "coalesced-semantic"
        assert part.cache not in ("no-cache", "exact") or source != "semantic"
        if source in ("live", "coalesced"):
            assert self.player.made[int(reader.text.partition(".")[0])].text == part.text

    def _a_flight_is_over(self, flight: Flight) -> None:
        assert flight.ended
        assert flight.readers == 0
        assert all(news.done() for news in flight._waiting)
        assert flight._drained is None or flight._drained.cancelled() or flight.doomed
        assert not flight._afterwards

    def _no_answer_goes_from_hand_to_hand(self, flight: Flight) -> None:
        """Who got the answer of another got it from one that has bought it, and has bought none itself. What was given to those who mean
        the same was fit for them, unless they had begun to read it."""
        if flight.trail.source != "coalesced-semantic":
            return
        assert flight.trail.attempts == []
        assert flight.trail.cost == 0
        if flight.completion is None:
            return
        leader = self.flights[flight.trail.entry or ""]
        assert leader is not flight
        assert leader.trail.source == "live"
        assert leader.trail.attempts[-1].outcome == "ok"
        assert leader.twins > 0
        assert leader.completion is flight.completion
        if not flight.streamed:
            assert flight.completion.choices[0]["finish_reason"] == "stop"

    async def _every_call_is_settled_once(self) -> None:
        house, flights = self.house, self.flights.values()
        assert self.player.open == 0
        assert sum(len(flight.trail.attempts) for flight in flights) == len(self.player.made)
        assert sum(flight.trail.cost for flight in flights) == await house.settled()
        for tenant in TENANTS:
            assert house.ledger.peek(f"tenant:{tenant}", "total").held == 0
        rows = {row.group["source"]: row.requests for row in await house.journal("source")}
        assert rows.get("live", 0) == sum(bool(flight.trail.attempts) for flight in flights)
        assert len(house.notes.records) == len(self.readers)
        assert sum(record.cost for record in house.notes.records) <= await house.settled()


async def played(schedule: Schedule) -> None:
    stage = Stage(schedule)
    await stage.play()
    await stage.checked()


@settings(max_examples=times(300, 10_000), deadline=None)
@given(schedule=schedules)
def test_whatever_happens_everyone_gets_one_end_and_every_answer_is_paid_once(schedule: Schedule) -> None:
    run(played(schedule))
