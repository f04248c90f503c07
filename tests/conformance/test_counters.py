"""What every Counters must do. An adapter joins by adding its harness to `HARNESSES`."""

from __future__ import annotations

import asyncio

import pytest

from headgate.limits.limits import Counters
from headgate.limits.memory import MemoryCounters


class MemoryHarness:
    """The reference, with a clock that only the test moves."""

    def __init__(self) -> None:
        self._now = 10**15
        self.counters: Counters = MemoryCounters(clock=lambda: self._now)

    async def advance(self, seconds: float) -> None:
        """Let time pass; whole nanoseconds, rounded up as a sleeper would."""
        self._now += -int(-seconds * 1e9 // 1)


HARNESSES = [MemoryHarness]


@pytest.fixture(params=HARNESSES, ids=lambda harness: harness.__name__)
def harness(request):
    return request.param()


async def test_the_whole_limit_fits_at_once_and_not_one_more(harness) -> None:
    taken = [await harness.counters.take("a", 7, 60) for _ in range(8)]
    assert [one.allowed for one in taken] == [True] * 7 + [False]
    assert [one.remaining for one in taken] == [6, 5, 4, 3, 2, 1, 0, 0]


async def test_waiting_retry_after_is_enough_and_less_is_not(harness) -> None:
    for _ in range(120):
        await harness.counters.take("a", 120, 60)
    refused = await harness.counters.take("a", 120, 60)
    assert refused.retry_after == pytest.approx(0.5, abs=0.05)
    await harness.advance(refused.retry_after * 0.9)
    assert not (await harness.counters.take("a", 120, 60)).allowed
    await harness.advance(refused.retry_after * 0.1)
    assert (await harness.counters.take("a", 120, 60)).allowed
    assert not (await harness.counters.take("a", 120, 60)).allowed


async def test_after_reset_the_whole_limit_fits_again(harness) -> None:
    for _ in range(3):
        last = await harness.counters.take("a", 3, 60)
    assert last.reset == pytest.approx(60, abs=0.1)
    await harness.advance(last.reset)
    assert [(await harness.counters.take("a", 3, 60)).allowed for _ in range(4)] == [True, True, True, False]


async def test_keys_do_not_touch_each_other(harness) -> None:
    assert (await harness.counters.take("a", 1, 60)).allowed
    assert (await harness.counters.take("b", 1, 60)).allowed
    assert not (await harness.counters.take("a", 1, 60)).allowed


async def test_a_refused_take_changes_nothing(harness) -> None:
    await harness.counters.take("a", 1, 60)
    waits = [(await harness.counters.take("a", 1, 60)).retry_after for _ in range(5)]
    assert waits[0] == pytest.approx(waits[-1], abs=0.1)


async def test_a_cost_takes_so_many_at_once_or_none(harness) -> None:
    assert (await harness.counters.take("a", 10, 60, cost=8)).remaining == 2
    assert not (await harness.counters.take("a", 10, 60, cost=3)).allowed
    assert (await harness.counters.take("a", 10, 60, cost=2)).allowed


async def test_a_cost_above_the_limit_is_never_allowed(harness) -> None:
    refused = await harness.counters.take("a", 10, 60, cost=11)
    assert not refused.allowed
    assert (await harness.counters.take("a", 10, 60, cost=10)).allowed


async def test_a_limit_of_nothing_allows_nothing(harness) -> None:
    refused = await harness.counters.take("a", 0, 60)
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert refused.retry_after > 0


async def test_a_changed_limit_counts_from_the_next_take(harness) -> None:
    for _ in range(10):
        await harness.counters.take("a", 10, 60)
    assert not (await harness.counters.take("a", 5, 60)).allowed
    await harness.advance(60)
    assert [(await harness.counters.take("a", 5, 60)).allowed for _ in range(6)] == [True] * 5 + [False]


async def test_takes_at_the_same_time_never_pass_the_limit_together(harness) -> None:
    taken = await asyncio.gather(*(harness.counters.take("a", 50, 60) for _ in range(200)))
    assert sum(one.allowed for one in taken) == 50
