"""Whole schedules of callers on several replicas: who comes where and when, who leaves, what fails, which wires are cut and for how long.

Hypothesis draws a schedule; it is played in virtual time, to its end, and then everything is counted. Each part of an answer says which
call to a provider it was made by, so that what a caller got can be told from its text.
"""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.cache import Entry
from headgate.cache.memory import MemoryStore
from headgate.coalesce.coalesce import Flight
from headgate.coalesce.memory import Board, MemoryRelay
from headgate.coalesce.starts import Starts
from headgate.dispatch import Patience
from headgate.model.tenancy import Key, Policy, Principal, Shares, Wishes
from tests.chaos import times
from tests.crowds import PARCEL, REFUND, Crowd, Reader
from tests.played import Play, Player
from tests.replicas import Wire
from tests.virtual_time import clock, run

QUESTIONS = (PARCEL[0], REFUND[0])
FOR_EVER = 10_000.0


class Part(msgspec.Struct, frozen=True):
    """Somebody asks a replica at second `at`, and hangs up after `stays` where that is given."""

    at: float
    replica: int
    text: str
    stream: bool
    abandoned: Literal["finish", "cancel"]
    cache: Literal["default", "no-cache"]
    patience: float | None
    stays: float | None


class Cut(msgspec.Struct, frozen=True):
    """Nothing comes through to or from a replica for a while."""

    at: float
    replica: int
    seconds: float


class Schedule(msgspec.Struct, frozen=True):
    """Everything that happens, and how long network and store take."""

    replicas: int
    callers: list[Part]
    plays: list[Play]
    cuts: list[Cut]
    way: float
    storing: float
    shares: Shares
    closes: float | None


class SlowStore(MemoryStore):
    """A store that all replicas use, and that takes its time before it looks and before it keeps."""

    def __init__(self, seconds: float) -> None:
        super().__init__(now=clock)
        self._seconds = seconds

    def peek(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        return None if self._seconds else super().peek(key, stale=stale)

    async def get(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        found = super().peek(key, stale=stale)
        await asyncio.sleep(self._seconds)
        return found

    async def put(self, entry: Entry, *, epoch: int) -> bool:
        await asyncio.sleep(self._seconds)
        return await super().put(entry, epoch=epoch)


moments = st.sampled_from([0.0, 0.0, 0.0, 0.02, 0.5, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 8.0, 14.5, 16.0])
"""Few, so that much happens in the same one; some late ones, when flights have become old."""
plays = st.builds(
    Play,
    first=st.sampled_from([0.0, 0.5, 1.0, 1.0, 4.0, 30.0]),
    gap=st.sampled_from([0.0, 0.02, 0.5]),
    parts=st.integers(1, 5),
    end=st.sampled_from([*["stop"] * 6, "length", "down", "down", "no", "cut", "silence"]),
)
callers = st.builds(
    Part,
    at=moments,
    replica=st.integers(0, 3),
    text=st.sampled_from([QUESTIONS[0], QUESTIONS[0], QUESTIONS[1]]),
    stream=st.booleans(),
    abandoned=st.sampled_from(["finish", "cancel"]),
    cache=st.sampled_from([*["default"] * 6, "no-cache"]),
    patience=st.sampled_from([*[None] * 6, 0.5, 0.0, 20.0]),
    stays=st.sampled_from([*[None] * 6, 0.0, 0.005, 0.5, 1.5, 4.0]),
)
cuts = st.builds(Cut, at=moments, replica=st.integers(0, 3), seconds=st.sampled_from([0.01, 0.5, 3.0, 11.0, FOR_EVER]))
schedules = st.builds(
    Schedule,
    replicas=st.integers(2, 4),
    callers=st.lists(callers, min_size=3, max_size=12),
    plays=st.lists(plays, min_size=1, max_size=6),
    cuts=st.lists(cuts, max_size=3),
    way=st.sampled_from([0.0, 0.001, 0.01, 0.3]),
    storing=st.sampled_from([0.0, 0.5]),
    shares=st.sampled_from(["leader", "leader", "split", "each"]),
    closes=st.sampled_from([*[None] * 9, 1.0, 3.5]),
)


class Stage:
    """The replicas on which a schedule is played, and what is looked at when it is over."""

    def __init__(self, schedule: Schedule, **flights: int) -> None:
        """`flights`: what is different of the bounds on who joins, which are narrow otherwise."""
        self.schedule = schedule
        self.player = Player(schedule.plays)
        self.board = Board(clock)
        self.flights: list[Flight] = []
        self.readers: list[tuple[Part, Reader]] = []
        store = SlowStore(schedule.storing)
        names = [f"replica-{number}" for number in range(schedule.replicas)]
        self.wires = [Wire(MemoryRelay(self.board, name), schedule.way) for name in names]
        self.houses = [
            Crowd(
                providers={"one": self.player},
                embedder=None,
                store=store,
                relay=wire,
                patience=Patience(total=40.0, retries=0),
                follower_patience=2.0,
                drain=3.0,
                grace=1.0,
                flights={
                    "starts": Starts(most=2),
                    "oldest": 15.0,
                    "longest": 300,
                    "max_followers": 4,
                    "ended": self.flights.append,
                    **flights,
                },
            )
            for wire in self.wires
        ]

    async def play(self) -> None:
        schedule = self.schedule
        others = [self._come(part) for part in schedule.callers]
        others += [self._cut(cut) for cut in schedule.cuts]
        if schedule.closes is not None:
            others.append(self._close(schedule.closes))
        await asyncio.gather(*others)
        for house in self.houses:
            await house.at_rest()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def _come(self, part: Part) -> None:
        await asyncio.sleep(part.at)
        policy = Policy(abandoned=part.abandoned, shares=self.schedule.shares, rpm=10_000, concurrency=10_000)
        wishes = Wishes(cache=part.cache, patience=part.patience)
        house = self.houses[part.replica % len(self.houses)]
        reader = house.come(part.text, Principal(tenant="acme", policy=policy), wishes, stream=part.stream)
        self.readers.append((part, reader))
        if part.stays is not None:
            asyncio.get_running_loop().call_later(part.stays, reader.leave)
        await asyncio.gather(reader.task, return_exceptions=True)

    async def _cut(self, cut: Cut) -> None:
        await asyncio.sleep(cut.at)
        wire = self.wires[cut.replica % len(self.wires)]
        wire.cut = True
        if cut.seconds < FOR_EVER:
            await asyncio.sleep(cut.seconds)
            wire.cut = False

    async def _close(self, at: float) -> None:
        """The first of them ends in good order."""
        await asyncio.sleep(at)
        await self.houses[0].gateway.flights.drain(1.0)
        await self.houses[0].gateway.relaying.close()

    async def checked(self) -> None:
        for part, reader in self.readers:
            self._every_reader_that_stays_comes_to_one_end(part, reader)
            self._what_it_read_is_one_answer_to_its_own_question(part, reader)
        for flight in self.flights:
            assert flight.ended
            assert flight.readers == 0
        assert all(not places for places in self.board.listeners.values())
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
        assert made.text == part.text
        if reader.ends == ["whole"]:
            assert len(said) == made.play.parts
            assert made.play.end in ("stop", "length")

    async def _every_call_is_settled_once(self) -> None:
        assert self.player.open == 0
        attempts = sum(len(flight.trail.attempts) for flight in self.flights)
        assert attempts == len(self.player.made)
        settled = [await house.settled() for house in self.houses]
        assert sum(flight.trail.cost for flight in self.flights) == sum(settled)
        records = [record for house in self.houses for record in house.notes.records]
        assert len(records) == len(self.readers)
        assert sum(record.cost for record in records) <= sum(settled)


async def played(schedule: Schedule) -> None:
    stage = Stage(schedule)
    await stage.play()
    await stage.checked()


@settings(max_examples=times(300, 10_000), deadline=None)
@given(schedule=schedules)
def test_whatever_happens_everyone_gets_one_end_and_nobody_is_left_behind(schedule: Schedule) -> None:
    run(played(schedule))


calm = st.builds(
    Schedule,
    replicas=st.integers(2, 4),
    callers=st.lists(
        st.builds(
            Part,
            at=moments,
            replica=st.integers(0, 3),
            text=st.just(QUESTIONS[0]),
            stream=st.booleans(),
            abandoned=st.just("finish"),
            cache=st.just("default"),
            patience=st.none(),
            stays=st.sampled_from([None, None, 0.5]),
        ),
        min_size=2,
        max_size=8,
    ),
    plays=st.lists(
        st.builds(
            Play,
            first=st.sampled_from([0.0, 0.3, 0.5]),
            gap=st.sampled_from([0.0, 0.02, 0.2]),
            parts=st.integers(1, 5),
            end=st.just("stop"),
        ),
        min_size=1,
        max_size=1,
    ),
    cuts=st.just([]),
    way=st.sampled_from([0.0, 0.001, 0.01]),
    storing=st.sampled_from([0.0, 0.5]),
    shares=st.sampled_from(["leader", "split", "each"]),
    closes=st.none(),
)


@settings(max_examples=times(200, 5_000), deadline=None)
@given(schedule=calm)
def test_where_nothing_breaks_a_question_is_asked_once(schedule: Schedule) -> None:
    async def asked() -> None:
        stage = Stage(schedule, max_followers=100, longest=10_000)
        await stage.play()
        await stage.checked()
        ends = [reader.ends for part, reader in stage.readers if part.stays is None]
        assert ends == [["whole"]] * len(ends)
        assert len(stage.player.made) == 1

    run(asked())
