"""Starts: those whose flight has failed them start over one after the other, not as a herd.

Each waits a random moment, and of all together no more than `most` start within any `spread` seconds. What is spread out are the
starts, not the calls: nobody waits for another's call to end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

MOST = 32
SPREAD = 0.05


class Starts:
    """The turns of one process."""

    def __init__(
        self,
        *,
        most: int = MOST,
        spread: float = SPREAD,
        chance: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """At most `most` turns are given in `spread` seconds; `chance` draws each caller's own delay, of once to twice `spread`."""
        self._turns = asyncio.Semaphore(most)
        self._spread = spread
        self._chance = chance or random.Random()
        self._sleep = sleep

    async def turn(self) -> None:
        """Wait for a turn. No place is given twice within `spread` seconds, which is what bounds the starts."""
        async with self._turns:
            await self._sleep(self._chance.uniform(self._spread, 2 * self._spread))
