"""What belongs to one of several for as long as it says so."""

from __future__ import annotations

import asyncio

import pytest

from headgate.model.errors import Overloaded
from headgate.model.leases import held
from tests.virtual_time import clock, in_virtual_time


class Store:
    """Says whether the lease is still ours; None: it does not answer."""

    def __init__(self, *answers: bool | None) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []

    async def renew(self) -> bool:
        self.asked.append(clock())
        answer = self.answers.pop(0) if self.answers else True
        if answer is None:
            raise Overloaded("It does not answer.")
        return answer


@in_virtual_time
async def test_it_lasts_as_long_as_the_work_and_is_renewed_three_times_in_its_time() -> None:
    store = Store()
    async with held(store.renew, since=clock(), seconds=30.0):
        await asyncio.sleep(100)
    assert store.asked == [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]
    await asyncio.sleep(100)
    assert len(store.asked) == 9


@in_virtual_time
async def test_work_ends_at_once_when_the_lease_is_somebody_elses() -> None:
    with pytest.raises(TimeoutError):
        async with held(Store(True, False).renew, since=clock(), seconds=30.0):
            await asyncio.sleep(100)
    assert clock() == 20.0


@in_virtual_time
async def test_a_store_that_does_not_answer_is_asked_again_until_the_time_is_over() -> None:
    store = Store(True, *[None] * 100)
    with pytest.raises(TimeoutError):
        async with held(store.renew, since=clock(), seconds=30.0):
            await asyncio.sleep(100)
    assert clock() == 40.0, "30 s after it was renewed last"
    assert store.asked[:4] == [10.0, 20.0, 21.0, 22.0]


@in_virtual_time
async def test_a_store_that_answers_again_in_time_has_cost_nothing() -> None:
    async with held(Store(None, None, True).renew, since=clock(), seconds=30.0):
        await asyncio.sleep(39)


@in_virtual_time
async def test_the_time_counts_from_before_it_was_asked_for() -> None:
    await asyncio.sleep(25)
    with pytest.raises(TimeoutError):
        async with held(Store().renew, since=0.0, seconds=30.0):
            await asyncio.sleep(10)
    assert clock() == 30.0


@in_virtual_time
async def test_an_error_of_the_work_and_a_cancellation_are_what_they_are() -> None:
    with pytest.raises(ZeroDivisionError):
        async with held(Store().renew, since=clock(), seconds=30.0):
            raise ZeroDivisionError

    async def work() -> None:
        async with held(Store().renew, since=clock(), seconds=30.0):
            await asyncio.sleep(100)

    task = asyncio.create_task(work())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
