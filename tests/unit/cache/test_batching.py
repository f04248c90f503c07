"""The micro-batcher, driven by functions that the test holds up and lets go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.batching import BatcherClosed, BatcherFull, MicroBatcher


class Recorder:
    """Doubles numbers, remembers its batches, and waits for the gate before each."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.threads: set[int] = set()
        if is_open:
            self.gate.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.threads.add(threading.get_ident())
        self.batches.append(list(items))
        assert self.gate.wait(10)
        if 13 in items:
            reason = "thirteen"
            raise ValueError(reason)
        return [item * 2 for item in items]


@asynccontextmanager
async def batcher_of(run: Recorder, **limits: int) -> AsyncIterator[MicroBatcher[int, int]]:
    batcher = MicroBatcher(run, width=lambda item: item, **limits)
    try:
        yield batcher
    finally:
        run.gate.set()
        await batcher.close()


async def started(first: int, *items: int, on: MicroBatcher[int, int]) -> list[asyncio.Task[int]]:
    """Tasks that have submitted by the time this returns, the first one a turn of the loop ahead of the others."""
    tasks = [asyncio.create_task(on.submit(first))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(on.submit(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def test_with_several_threads_what_comes_at_once_is_shared_out_among_those_that_are_idle() -> None:
    run = Recorder(is_open=False)
    async with batcher_of(run, threads=2) as batcher:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3, 4, 5)]
        while len(run.batches) < 2:
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(batcher.submit(item)) for item in (6, 7)]
        await asyncio.sleep(0)
        run.gate.set()
        assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10, 12, 14]
    assert sorted(run.batches)[:2] == [[1, 2, 3], [4, 5]]
    assert sorted(item for batch in run.batches[2:] for item in batch) == [6, 7]


async def test_a_lone_item_runs_at_once_off_the_event_loop() -> None:
    run = Recorder()
    async with batcher_of(run) as batcher:
        assert await batcher.submit(4) == 8
    assert run.batches == [[4]]
    assert threading.get_ident() not in run.threads


async def test_items_that_arrive_while_a_batch_runs_form_the_next_one() -> None:
    run = Recorder(is_open=False)
    async with batcher_of(run) as batcher:
        tasks = await started(1, 2, 3, 4, on=batcher)
        run.gate.set()
        assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert run.batches == [[1], [2, 3, 4]]
    assert len(run.threads) == 1


async def test_items_of_one_turn_of_the_loop_form_one_batch() -> None:
    run = Recorder()
    async with batcher_of(run) as batcher:
        assert await asyncio.gather(*map(batcher.submit, (1, 2, 3))) == [2, 4, 6]
    assert run.batches == [[1, 2, 3]]


async def test_a_batch_has_at_most_the_set_number_of_items() -> None:
    run = Recorder(is_open=False)
    async with batcher_of(run, max_items=2) as batcher:
        tasks = await started(1, 2, 3, 4, 5, on=batcher)
        run.gate.set()
        await asyncio.gather(*tasks)
    assert run.batches == [[1], [2, 3], [4, 5]]


async def test_wide_items_make_smaller_batches() -> None:
    """Widths count rounded up to a power of two: three of 128 fit into 400, four do not."""
    run = Recorder(is_open=False)
    async with batcher_of(run, max_width=400) as batcher:
        tasks = await started(1, 100, 101, 102, 103, on=batcher)
        run.gate.set()
        await asyncio.gather(*tasks)
    assert run.batches == [[1], [100, 101, 102], [103]]


async def test_an_item_wider_than_any_batch_runs_alone() -> None:
    run = Recorder()
    async with batcher_of(run, max_width=64) as batcher:
        assert await batcher.submit(1000) == 2000


async def test_a_narrow_item_waits_for_one_batch_of_wide_ones_not_for_all() -> None:
    run = Recorder(is_open=False)
    async with batcher_of(run, max_width=256) as batcher:
        tasks = await started(100, 101, 102, 103, 104, 105, 7, on=batcher)
        run.gate.set()
        await asyncio.gather(*tasks)
    assert run.batches == [[100], [101, 102], [7], [103, 104], [105]]


async def test_a_cancelled_caller_takes_its_item_with_it() -> None:
    run = Recorder(is_open=False)
    async with batcher_of(run) as batcher:
        first, second, third = await started(1, 2, 3, on=batcher)
        second.cancel()
        await asyncio.sleep(0)
        run.gate.set()
        assert await asyncio.gather(first, third) == [2, 6]
        assert second.cancelled()
    assert run.batches == [[1], [3]]


async def test_a_caller_cancelled_while_its_batch_runs_does_not_disturb_the_others() -> None:
    run = Recorder(is_open=False)
    async with batcher_of(run) as batcher:
        (first,) = await started(1, on=batcher)
        first.cancel()
        second, third = await started(2, 3, on=batcher)
        run.gate.set()
        assert await asyncio.gather(second, third) == [4, 6]
    assert first.cancelled()


async def test_callers_beyond_the_capacity_are_refused_and_make_room_when_they_leave() -> None:
    run = Recorder(is_open=False)
    async with batcher_of(run, capacity=2) as batcher:
        first, second = await started(1, 2, on=batcher)
        with pytest.raises(BatcherFull):
            await batcher.submit(3)
        second.cancel()
        await asyncio.sleep(0)
        (fourth,) = await started(4, on=batcher)
        run.gate.set()
        assert await asyncio.gather(first, fourth) == [2, 8]


async def test_a_failing_batch_fails_its_callers_only() -> None:
    run = Recorder(is_open=False)
    async with batcher_of(run) as batcher:
        first, bad, along = await started(1, 13, 2, on=batcher)
        run.gate.set()
        assert await first == 2
        for task in (bad, along):
            with pytest.raises(ValueError, match="thirteen"):
                await task
        assert await batcher.submit(5) == 10


async def test_too_few_results_fail_the_batch_and_not_the_batcher() -> None:
    """A function that breaks its promise must not leave callers waiting for ever."""
    answers: list[list[int]] = [[], [6]]
    batcher: MicroBatcher[int, int] = MicroBatcher(lambda _items: answers.pop(0), width=lambda item: item)
    with pytest.raises(ValueError, match="results"):
        await batcher.submit(1)
    assert await batcher.submit(3) == 6
    await batcher.close()


async def test_closing_fails_those_that_wait_and_lets_the_running_batch_end() -> None:
    run = Recorder(is_open=False)
    batcher = MicroBatcher(run, width=lambda item: item)
    first, second = await started(1, 2, on=batcher)
    closing = asyncio.create_task(batcher.close())
    with pytest.raises(BatcherClosed):
        await second
    run.gate.set()
    await closing
    assert await first == 2
    with pytest.raises(BatcherClosed):
        await batcher.submit(3)
    await batcher.close()


@given(st.lists(st.tuples(st.integers(1, 200), st.booleans(), st.integers(0, 2)), max_size=40), st.integers(1, 3))
def test_every_caller_gets_its_own_result_whatever_the_interleaving(
    plan: list[tuple[int, bool, int]], threads: int
) -> None:
    """Items of any width, callers that leave, and pauses between arrivals."""

    async def play() -> None:
        run = Recorder()
        batcher = MicroBatcher(run, width=lambda item: item, max_items=3, max_width=256, threads=threads)
        tasks = []
        for item, leaves, pauses in plan:
            tasks.append((item * 100, asyncio.create_task(batcher.submit(item * 100))))
            for _ in range(pauses):
                await asyncio.sleep(0)
            if leaves:
                tasks[-1][1].cancel()
        results = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
        for (item, _), result in zip(tasks, results, strict=True):
            assert result == item * 2 or isinstance(result, asyncio.CancelledError)
        await batcher.close()
        assert all(len(batch) <= 3 for batch in run.batches)

    asyncio.run(play())
