"""Micro-batching of a blocking function: callers that arrive in one turn of the event loop, or while a batch runs, form the next one.

The one invariant: nothing waits beyond its turn while the worker is idle, and a batch holds only items of about one width, so a
caller with a short item never waits for long ones longer than one batch per other width. Widths take turns
(round robin, oldest first within a width). As many batches run at a time as the batcher has threads; what comes while several are
idle is shared out among them.
"""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")

_NARROWEST: Final = 16


class BatcherFull(Exception):
    """As many callers as the batcher holds are waiting already."""


class BatcherClosed(Exception):
    """The batcher was closed before the item was run."""


class MicroBatcher(Generic[T, R]):
    """Feeds one blocking function from many coroutines. One instance belongs to one event loop.

    `run` gets a batch and returns one result per item, in order; what it raises goes to every caller in that batch.
    `width` is an item's padded size: a batch has at most `max_items` items and, unless it is a single item, a total
    width of at most `max_width` after each item's width is rounded up to a power of two.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        *,
        width: Callable[[T], int],
        max_items: int = 32,
        max_width: int = 512,
        capacity: int = 4096,
        threads: int = 1,
    ) -> None:
        self._run = run
        self._width = width
        self._max_items = max_items
        self._max_width = max_width
        self._capacity = capacity
        self._lanes: dict[int, dict[asyncio.Future[R], T]] = {}
        self._callers = 0
        self._running: set[asyncio.Future[Sequence[R]]] = set()
        self._closed = False
        self._idle = threads
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="batch")

    async def submit(self, item: T) -> R:
        """The result for `item`. Raises BatcherFull, BatcherClosed, or what `run` raised.

        A caller that is cancelled while it waits takes its item with it.
        """
        if self._closed:
            raise BatcherClosed
        if self._callers >= self._capacity:
            raise BatcherFull
        lane = _rounded(self._width(item))
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._lanes.setdefault(lane, {})[result] = item
        if self._idle:
            # At the end of this turn of the loop: the candidates of one lookup are asked for together, and belong together.
            asyncio.get_running_loop().call_soon(self._start)
        self._callers += 1
        try:
            return await result
        finally:
            self._callers -= 1
            if lane in self._lanes:
                self._lanes[lane].pop(result, None)

    async def close(self) -> None:
        """Refuse new items, fail those that wait, and return when the running batches and the threads have ended."""
        self._closed = True
        for entries in self._lanes.values():
            for result in entries:
                _fail(result, BatcherClosed())
        self._lanes.clear()
        if self._running:
            await asyncio.wait(self._running)
        self._threads.shutdown()

    def _start(self) -> None:
        while self._idle:
            results, items = self._next_batch()
            if not items:
                return
            self._idle -= 1
            running = asyncio.get_running_loop().run_in_executor(self._threads, self._run_batch, items)
            self._running.add(running)
            running.add_done_callback(functools.partial(self._finish_batch, results))

    def _run_batch(self, items: Sequence[T]) -> Sequence[R]:
        values = self._run(items)
        if len(values) != len(items):
            reason = f"{len(values)} results for {len(items)} items"
            raise ValueError(reason)
        return values

    def _next_batch(self) -> tuple[list[asyncio.Future[R]], list[T]]:
        """Take the lane whose turn it is; what does not fit goes to the back of the turns."""
        while self._lanes:
            lane = next(iter(self._lanes))
            entries = self._lanes.pop(lane)
            share = -(-len(entries) // self._idle)
            most = max(1, min(self._max_items, self._max_width // lane, share))
            results = list(islice(entries, most))
            items = [entries.pop(result) for result in results]
            if entries:
                self._lanes[lane] = entries
            if items:
                return results, items
        return [], []

    def _finish_batch(self, results: list[asyncio.Future[R]], ended: asyncio.Future[Sequence[R]]) -> None:
        self._running.discard(ended)
        self._idle += 1
        error = ended.exception()
        if error is not None:
            for result in results:
                _fail(result, error)
        else:
            for result, value in zip(results, ended.result(), strict=True):
                if not result.done():
                    result.set_result(value)
        self._start()


def _rounded(width: int) -> int:
    return max(_NARROWEST, 1 << (width - 1).bit_length())


def _fail(result: asyncio.Future[R], error: BaseException) -> None:
    if not result.done():
        result.set_exception(error)
