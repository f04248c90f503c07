"""A herd that starts over does so one after the other: how many in any stretch of time, and that everybody has its turn."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.coalesce.starts import MOST, SPREAD, Starts
from tests.virtual_time import clock, in_virtual_time, run


async def started(starts: Starts, arrivals: list[float]) -> list[float]:
    """When each got its turn, of callers who come at these seconds; in order."""
    begun: list[float] = []

    async def start(at: float) -> None:
        await asyncio.sleep(at)
        await starts.turn()
        begun.append(clock())

    await asyncio.gather(*(start(at) for at in arrivals))
    return begun


def most_within(times: list[float], seconds: float) -> int:
    """The most that lie in any stretch of so many seconds, its end not included. A nanosecond is nobody's."""
    return max(sum(first <= other < first + seconds - 1e-9 for other in times) for first in times)


@in_virtual_time
async def test_one_caller_waits_a_moment_of_its_own_and_no_longer() -> None:
    waits = []
    starts = Starts(chance=random.Random(1))
    for _ in range(100):
        before = clock()
        await starts.turn()
        waits.append(clock() - before)
    assert SPREAD <= min(waits) < max(waits) <= 2 * SPREAD
    assert len(set(waits)) > 90


@in_virtual_time
async def test_of_a_thousand_at_once_no_more_than_are_allowed_start_together_and_all_do() -> None:
    begun = await started(Starts(chance=random.Random(2)), [0.0] * 1_000)
    assert len(begun) == 1_000
    assert most_within(begun, SPREAD) <= MOST
    assert len(set(begun)) > 990
    assert max(begun) <= 2 * SPREAD * (1_000 / MOST + 1)


@in_virtual_time
async def test_who_leaves_while_waiting_keeps_nobody_from_a_turn() -> None:
    starts = Starts(most=2, chance=random.Random(3))
    tasks = [asyncio.create_task(starts.turn()) for _ in range(10)]
    await asyncio.sleep(SPREAD / 2)
    for task in tasks[:8]:
        task.cancel()
    await asyncio.gather(*tasks[8:])
    assert clock() <= 3 * SPREAD
    assert await started(starts, [0.0, 0.0])


@settings(max_examples=100, deadline=None)
@given(
    arrivals=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=40),
    most=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_however_they_come_the_bound_holds(arrivals: list[float], most: int, seed: int) -> None:
    starts = Starts(most=most, spread=0.5, chance=random.Random(seed))
    begun = run(started(starts, arrivals))
    assert len(begun) == len(arrivals)
    assert most_within(begun, 0.5) <= most


@pytest.mark.parametrize("most", [1, 7])
@in_virtual_time
async def test_a_turn_is_no_lock_nobody_waits_for_anothers_call_to_end(most: int) -> None:
    starts = Starts(most=most, chance=random.Random(4))
    ended = asyncio.Event()

    async def call() -> None:
        await starts.turn()
        await ended.wait()

    calls = [asyncio.create_task(call()) for _ in range(most)]
    await asyncio.sleep(10.0)
    assert not any(one.done() for one in calls)
    assert len(await started(starts, [0.0] * most)) == most
    ended.set()
    await asyncio.gather(*calls)
