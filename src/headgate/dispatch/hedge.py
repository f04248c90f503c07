"""Hedge: a second deployment is asked when the first is slower than it nearly always is, and whichever begins first answers.

After Dean and Barroso, "The Tail at Scale" (2013): a second request after the 95th percentile cuts the tail at a few percent of load.
The second attempt is paid for like any other; whoever loses is cancelled and charged what it is known to have made.

Invariant: only one attempt publishes, and when `race` is over no attempt is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from headgate.dispatch.attempt import Attempt
from headgate.model.errors import UpstreamError


class Outrun(Exception):
    """Another attempt's answer began first."""


class Race:
    """Attempts at one answer: the first to begin it wins."""

    def __init__(self) -> None:
        self.won: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()

    def won_by(self, attempt: Attempt) -> bool:
        """Whether this attempt has begun first; it has if no other did before."""
        if not self.won.done():
            self.won.set_result(attempt)
        return self.won.result() is attempt

    def lost_by(self, attempt: Attempt) -> bool:
        """Whether another one has begun first."""
        return self.won.done() and self.won.result() is not attempt


Run = Callable[[Attempt, Race], Awaitable[None]]


async def race(first: Attempt, run: Run, delay: float) -> Attempt:
    """Carry out `first` by `run`, and after `delay` seconds without a part of the answer another attempt beside it.

    Returns the attempt that has answered. When it broke off, or all failed, raises what ended it; of those that failed before `first`
    the course is told.
    """
    field = Race()
    runs: dict[asyncio.Future[None], Attempt] = {asyncio.ensure_future(run(first, field)): first}
    timer = asyncio.ensure_future(first.course.dispatch.sleep(delay))
    try:
        await _any(*runs, timer, field.won)
        if timer.done() and not field.won.done() and not next(iter(runs)).done():
            second = await first.course.beside(first)
            if second is not None:
                runs[asyncio.ensure_future(run(second, field))] = second
        await _decided(field, set(runs))
        for task, attempt in runs.items():
            if field.lost_by(attempt):
                task.cancel()
        return await _outcome(field, runs, first)
    finally:
        timer.cancel()
        for task in runs:
            task.cancel()
        await asyncio.gather(timer, *runs, return_exceptions=True)


async def _decided(field: Race, running: set[asyncio.Future[None]]) -> None:
    """Wait until one has begun to answer, or all have failed."""
    while running and not field.won.done():
        await _any(*running, field.won)
        running = {task for task in running if not task.done()}


async def _any(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _outcome(field: Race, runs: dict[asyncio.Future[None], Attempt], first: Attempt) -> Attempt:
    if field.won.done():
        winner = field.won.result()
        await next(task for task, attempt in runs.items() if attempt is winner)
        return winner
    for task, attempt in runs.items():
        error = task.exception()
        if attempt is not first and isinstance(error, UpstreamError):
            first.course.drop(attempt.step, error.label, error.status, error.retry_after)
    await next(iter(runs))
    raise AssertionError("an attempt ends with an answer or an error")
