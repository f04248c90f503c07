"""Requests that were submitted, where several processes work on one store; each here is a worker with a gateway of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headgate.jobs.jobs import Job, Outcome, Waiting
from headgate.jobs.lanes import Bounds, Lanes
from headgate.jobs.memory import MemoryJobs
from headgate.model.errors import Overloaded, RateLimited
from headgate.providers.scripted import answer
from headgate.worker import LOOK
from tests.scenarios.test_what_was_submitted import Office, text
from tests.virtual_time import after, clock, in_virtual_time

LEASE = 30.0


class Shared(MemoryJobs):
    """A store of several."""

    def __init__(self) -> None:
        super().__init__(lease=LEASE, clock=clock)


class Line:
    """One process' way to the store, which may be cut."""

    lease: float | None = LEASE

    def __init__(self, store: Shared) -> None:
        self.store = store
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        async def method(*given: Any) -> Any:
            if self.cut:
                raise Overloaded("It does not answer.", retry_after=1.0)
            return await getattr(self.store, name)(*given)

        return method


def office(store: Any, *scripts: Any, **more: Any) -> Office:
    return Office(*scripts, store=store, **more)


@in_virtual_time
async def test_what_one_takes_in_another_answers_and_both_know() -> None:
    store = Shared()
    async with office(store, begins=False) as door, office(store, [after(5.0), *answer("Done.")]) as worker:
        job = await door.submit()
        news = door.worker.news(job.tenant, job.id)
        assert (await door.worker.find(job.tenant, job.id)).state == "queued"
        await news
        assert await door.state(job) == "in_flight"
        assert clock() <= 2 * LOOK
        assert text(await door.ended(job)) == "Done."
        assert clock() <= 5.0 + LOOK
        assert (len(door.provider.calls), len(worker.provider.calls)) == (0, 1)
        assert door.worker.counts() == worker.worker.counts() == {}


@in_virtual_time
async def test_many_are_shared_out_and_none_is_answered_twice() -> None:
    store = Shared()
    scripts = [[after(3.0), *answer("Hello.")] for _ in range(40)]
    lanes = [Lanes(Bounds(at_work=4)) for _ in range(2)]
    async with office(store, *scripts, lanes=lanes[0]) as one, office(store, *scripts, lanes=lanes[1]) as other:
        jobs = [await (one, other)[number % 2].submit(f"Question {number}?", f"id-{number}") for number in range(20)]
        for job in jobs:
            await one.ended(job)
        calls = len(one.provider.calls), len(other.provider.calls)
        assert sum(calls) == 20
        assert min(calls) >= 4


@in_virtual_time
async def test_what_a_dead_process_had_in_flight_another_begins_when_the_lease_is_over_and_no_earlier() -> None:
    store = Shared()
    line = Line(store)
    dead = office(line, [asyncio.Event()])
    async with dead:
        job = await dead.submit()
        await asyncio.sleep(15)
        assert await dead.state(job) == "in_flight"
        line.cut = True  # as if it were killed: nothing reaches the store any more
    async with office(store, answer("From the living.")) as living:
        outcome = await living.ended(job)
        assert text(outcome) == "From the living."
        assert 10.0 + LEASE <= clock() <= 10.0 + LEASE + 2 * LOOK
        found = await store.find(job.tenant, job.id)
        assert found is not None
        assert (found.starts, found.turn) == (2, 2)


@in_virtual_time
async def test_a_job_that_takes_longer_than_a_lease_stays_with_who_has_it() -> None:
    store = Shared()
    async with office(store, [after(200.0), *answer("At last.")]) as one, office(store) as other:
        outcome = await other.ended(await one.submit())
        assert text(outcome) == "At last."
        assert other.provider.calls == []


@in_virtual_time
async def test_who_is_cut_off_stops_before_another_begins() -> None:
    store = Shared()
    line = Line(store)
    async with office(line, [asyncio.Event()]) as lost:
        job = await lost.submit()
        await asyncio.sleep(1)
        line.cut = True
        await asyncio.sleep(LEASE - 0.999)
        assert lost.worker.counts() == {}, "it has let go of it"
        async with office(store, answer("From the other.")) as other:
            assert text(await other.ended(job)) == "From the other."
        line.cut = False
        await asyncio.sleep(2 * LOOK)
        assert text(await lost.ended(job)) == "From the other."


class Late(Shared):
    """The first end that is written waits until another process has begun the job."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bool] = []

    async def end(self, job: Job, outcome: Outcome, at: float, telling: float | None) -> bool:
        if job.turn == 1:
            await asyncio.sleep(LEASE + 5)
        taken = await super().end(job, outcome, at, telling)
        self.taken.append(taken)
        return taken


@in_virtual_time
async def test_an_end_that_comes_after_another_has_begun_changes_nothing_and_is_not_counted() -> None:
    store = Late()
    async with office(store, answer("Too late.")) as slow:
        job = await slow.submit()
        await asyncio.sleep(0.5)
        async with office(store, [after(60.0), *answer("In time.")], lanes=Lanes(Bounds(at_work=1))) as other:
            await asyncio.sleep(LEASE + 10)
            assert (store.taken, slow.waits) == ([False], [])
            assert await other.state(job) == "in_flight"
            assert text(await slow.ended(job)) == "In time."
    assert store.taken == [False, True]


@in_virtual_time
async def test_a_stopping_process_renews_what_it_still_works_on() -> None:
    store = Shared()
    async with office(store) as other:
        async with office(store, [after(60.0), *answer("Finished.")]) as stopping:
            job = await stopping.submit()
            await asyncio.sleep(0.5)
            stopping.running.cancel()
            await stopping.worker.close(100)
        assert text(await other.ended(job)) == "Finished."
        assert other.provider.calls == []


@in_virtual_time
async def test_what_waits_anywhere_counts_for_everybodys_bounds() -> None:
    store = Shared()
    bounds = Bounds(at_work=1, open_of_a_tenant=3)
    waits = [[asyncio.Event()]]
    async with (
        office(store, begins=False, lanes=Lanes(bounds)) as door,
        office(store, begins=False, lanes=Lanes(bounds)) as other,
    ):
        for number in range(3):
            await door.submit(f"Question {number}?", f"id-{number}")
        await asyncio.sleep(LOOK)
        with pytest.raises(RateLimited):
            await other.submit("One too many?", "more")
        assert other.worker.counts() == {("acme", "queued"): 3.0, ("acme", "in_flight"): 0.0}
        async with office(store, *waits, lanes=Lanes(bounds)):
            await asyncio.sleep(2 * LOOK)
            await other.submit("Now there is room?", "more")


@in_virtual_time
async def test_a_look_that_fails_does_not_end_the_next() -> None:
    store = Broken()
    async with office(store, begins=False) as door:
        job = await door.submit()
        store.broken = [Overloaded("It does not answer."), ZeroDivisionError()]
        await asyncio.sleep(5 * LOOK)
        async with office(store, answer("Hello.")):
            assert text(await door.ended(job)) == "Hello."


class Broken(Shared):
    """Fails as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[Exception] = []

    async def reopen(self) -> list[Waiting]:
        if self.broken:
            raise self.broken.pop()
        return await super().reopen()
