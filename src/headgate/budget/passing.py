"""Passing: counts what goes into a queue and what has left it, for those who wait until what is in it now has left."""

from __future__ import annotations

import asyncio


class Passing:
    """The counts of one queue, first in, first out."""

    def __init__(self) -> None:
        self._came = 0
        self._left = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def came(self, number: int = 1) -> None:
        """So many came."""
        self._came += number

    def left(self, number: int = 1) -> None:
        """So many have left; who waited for them goes on."""
        self._left += number
        self._let_go(self._left)

    def give_up(self) -> None:
        """Those who wait go on, although what they wait for has not left: it cannot now."""
        self._let_go(self._came)

    async def passed(self) -> None:
        """Return when all that came before has left, or cannot now."""
        if self._left < self._came:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((self._came, waiter))
            await waiter

    def _let_go(self, reached: int) -> None:
        for target, waiter in self._waiting:
            if target <= reached and not waiter.done():
                waiter.set_result(None)
        self._waiting = [one for one in self._waiting if one[0] > reached]
