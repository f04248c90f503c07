"""Teller: tells a till of endings, after the journal has them.

A till that cannot be asked is told later; an ending that is told twice counts once. When more wait than are kept, the oldest are dropped, and
their owners are named in `missed`: what they have spent is then known to the journal alone, so they have to be filled anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from headgate.budget.passing import Passing
from headgate.budget.till import Ending, Till
from headgate.model.errors import Overloaded

TOGETHER = 256
"""Endings that are told at once."""
MOST = 20_000
RETRY = 0.25
"""Seconds between two tries."""


class Teller:
    """The queue in front of a till. All methods are called from one event loop."""

    def __init__(self, till: Till, *, retry: float = RETRY) -> None:
        self._till = till
        self._retry = retry
        self._queue: deque[Ending] = deque()
        self._open: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._passing = Passing()
        self.missed: set[str] = set()
        """Owners of endings that were not told."""

    def tell(self, endings: Iterable[Ending]) -> None:
        """Queue endings."""
        for ending in endings:
            self._queue.append(ending)
            self._passing.came()
            self._open[ending.owner] = self._open.get(ending.owner, 0) + 1
        while len(self._queue) > MOST:
            self.missed.add(self._taken().owner)
        if self._queue and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def waits_for(self, owners: Iterable[str]) -> bool:
        """Whether something is to be told of one of these."""
        return any(owner in self._open for owner in owners)

    async def told(self) -> None:
        """Return when all was told, or cannot be told now."""
        await self._passing.passed()

    async def close(self) -> None:
        """Tell what can be told. The rest is found in the journal, by whoever looks for reservations whose lease is over."""
        await self.told()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._queue:
            batch = [self._queue[at] for at in range(min(TOGETHER, len(self._queue)))]
            try:
                await self._till.end(batch)
            except Overloaded:
                self._passing.give_up()
                await asyncio.sleep(self._retry)
                continue
            for ending in batch:
                # More may have been dropped meanwhile.
                if self._queue and self._queue[0] is ending:
                    self._taken()
        self._task = None

    def _taken(self) -> Ending:
        ending = self._queue.popleft()
        self._passing.left()
        self._open[ending.owner] -= 1
        if not self._open[ending.owner]:
            del self._open[ending.owner]
        return ending
