"""Lanes: callers who wait to go to a provider together.

Who comes to an idle lane goes at the end of this turn of the event loop. Who comes while a call of the lane is under way gathers with
others, and they go when they are enough, when the lane is idle again, or after a short delay: nobody waits for another's answer.

The invariant: each caller goes at most once and gets exactly one outcome, unless it leaves first; no call outlives all its callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from headgate.model.chat import Json
from headgate.model.clearance import Clearance
from headgate.model.errors import Unavailable, UpstreamError, UpstreamTimeout


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much goes together: inputs, their estimated tokens, and the seconds that the first of them waits at most. With one input
    everybody goes alone."""

    items: int = 32
    tokens: int = 100_000
    delay: float = 0.002


class Caller:
    """One caller's inputs on their way. Create it in a running loop."""

    def __init__(self, body: Json, items: Sequence[Any], tokens: int, clearance: Clearance, timeout: float) -> None:
        """`items` are the inputs of `body`, `tokens` their estimate; `timeout` in seconds from now."""
        loop = asyncio.get_running_loop()
        self.body = body
        self.items = items
        self.tokens = max(1, tokens)
        self.clearance = clearance
        self.end = loop.time() + timeout
        self.outcome: asyncio.Future[Json | UpstreamError | None] = loop.create_future()

    def remaining(self) -> float:
        """Seconds that it still has."""
        return max(0.001, self.end - asyncio.get_running_loop().time())

    def gets(self, outcome: Json | UpstreamError | None) -> None:
        """Its answer, its error, or None: it has to ask by itself. Only the first outcome counts, and none after it has left."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class _Batch:
    """Callers who go together."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.items = 0
        self.tokens = 0
        self.due: asyncio.Handle | None = None
        self.task: asyncio.Task[None] | None = None


class Lane:
    """Callers who differ in nothing but their inputs."""

    def __init__(
        self,
        name: str,
        bounds: Bounds,
        carry: Callable[[Sequence[Caller]], Coroutine[Any, Any, None]],
        empty: Callable[[], None],
    ) -> None:
        """`name` is the provider's, for messages. `carry` makes one call for these callers and gives each its outcome; `empty` is told when nobody is left on the lane."""
        self._name = name
        self._bounds = bounds
        self._carry = carry
        self._empty = empty
        self._gathering = _Batch()
        self._under_way: set[_Batch] = set()

    async def carried(self, caller: Caller) -> Json | None:
        """What the caller gets; None when it has to ask by itself. Raises UpstreamError."""
        batch = self._joined(caller)
        try:
            async with asyncio.timeout_at(caller.end):
                outcome = await caller.outcome
        except TimeoutError:
            late = UpstreamTimeout(f"{self._name} gave no answer in time: the total timeout ran out.")
            late.sent = not caller.clearance.waiting
            raise late from None
        finally:
            self._left(batch, caller)
        if isinstance(outcome, UpstreamError):
            raise outcome
        return outcome

    def _joined(self, caller: Caller) -> _Batch:
        bounds, batch = self._bounds, self._gathering
        if batch.items + len(caller.items) > bounds.items or batch.tokens + caller.tokens > bounds.tokens:
            self.go()
            batch = self._gathering
        caller.clearance.waiting = True
        batch.callers.append(caller)
        batch.items += len(caller.items)
        batch.tokens += caller.tokens
        if batch.items >= bounds.items or batch.tokens >= bounds.tokens:
            self.go()
        elif batch.due is None:
            loop = asyncio.get_running_loop()
            batch.due = loop.call_later(bounds.delay, self.go) if self._under_way else loop.call_soon(self.go)
        return batch

    def _left(self, batch: _Batch, caller: Caller) -> None:
        """Who leaves before the batch goes takes its inputs with it; a call that everybody has left is given up."""
        if batch is self._gathering:
            batch.callers.remove(caller)
            batch.items -= len(caller.items)
            batch.tokens -= caller.tokens
            if not batch.callers:
                self.go()
        elif batch.task is not None and all(one.outcome.done() for one in batch.callers):
            batch.task.cancel()

    def go(self) -> None:
        """Send those who have gathered."""
        batch, self._gathering = self._gathering, _Batch()
        if batch.due is not None:
            batch.due.cancel()
        if batch.callers:
            for caller in batch.callers:
                caller.clearance.waiting = False
            self._under_way.add(batch)
            batch.task = asyncio.get_running_loop().create_task(self._carry(batch.callers))
            batch.task.add_done_callback(lambda _: self._landed(batch))
        elif not self._under_way:
            self._empty()

    def _landed(self, batch: _Batch) -> None:
        self._under_way.discard(batch)
        for caller in batch.callers:
            if not caller.outcome.done():
                # Of a task that is cancelled before its first step nothing runs: whoever still waits is told here.
                given_up = Unavailable(f"The call to {self._name} was given up.")
                given_up.sent = True
                caller.gets(given_up)
        if not self._under_way:
            self.go()

    async def close(self) -> None:
        """Give up what waits and what is under way."""
        self.go()
        tasks = [batch.task for batch in self._under_way if batch.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
