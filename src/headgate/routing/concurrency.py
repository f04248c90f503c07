"""Gate: how many attempts may be at a deployment at the same time.

The limit is found out round by round (AIMD, as TCP and Netflix' concurrency-limits do). A round is some attempts: when the provider
pushed back in more than a fifth of them, or took several times as long as it usually does, the limit falls by a tenth below what was
inside; when it did not, and the limit was used, it grows by one. A failure now and then lowers nothing, for it says nothing of load,
nor do failures while few are inside.
A server of our own whose memory for prompts fills up lowers the limit further (`bound`).

Invariant: the limit stays between its bounds, and no more attempts are inside than it said when the last of them came in. Who finds
the gate full waits in a short line, first come first served, or goes elsewhere; who stops waiting leaves no place taken.
"""

from __future__ import annotations

import asyncio
from collections import deque

LEAST = 8.0
MOST = 10_000
ROUND = 40
PUSHED = 0.2
FALL = 0.9
SLOW = 3.0
"""So many times slower than usual is a sign of overload."""
MEMORY = 0.2
"""How much one round counts in the usual time."""
LINE = 0.25
"""Those who may wait, as a share of the limit; at least one."""


class Gate:
    """One deployment's. Use it in one event loop."""

    def __init__(self, most: int = MOST) -> None:
        """`most`: attempts at the same time that the limit never exceeds; it is what the limit begins with."""
        self._most = float(most)
        self._least = min(LEAST, self._most)
        self._limit = self._most
        self._line: deque[asyncio.Future[None]] = deque()
        self._bound: int | None = None
        self._usual = 0.0
        self.inside = 0
        self._peak = self._answers = self._pushed = 0
        self._seconds = 0.0

    @property
    def limit(self) -> int:
        """Attempts that may be inside now; at least one."""
        found = int(self._limit)
        return found if self._bound is None else max(1, min(found, self._bound))

    def bind(self, bound: int | None) -> None:
        """A server says how much it can hold: the most that may be inside, whatever was found out. None: it says nothing."""
        self._bound = bound
        self._admit()

    def enter(self) -> bool:
        """Come in if there is room and nobody waits. Whoever came in must `leave`."""
        if self._line or self.inside >= self.limit:
            return False
        self._come_in()
        return True

    async def wait(self, patience: float) -> bool:
        """Come in after at most `patience` seconds in line; False when there is no place."""
        if patience <= 0 or len(self._line) >= max(1, int(self.limit * LINE)):
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            async with asyncio.timeout(patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()
            elif turn in self._line:
                self._line.remove(turn)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def leave(self) -> None:
        """Go out; those in line come in as far as there is room."""
        self.inside -= 1
        self._admit()

    def answered(self, seconds: float) -> None:
        """An answer began after so many seconds."""
        self._seconds += seconds
        self._answers += 1
        self._count()

    def pushed_back(self) -> None:
        """The provider throttled us, failed or fell silent."""
        self._pushed += 1
        self._count()

    def _come_in(self) -> None:
        self.inside += 1
        self._peak = max(self._peak, self.inside)

    def _admit(self) -> None:
        while self._line and self.inside < self.limit:
            turn = self._line.popleft()
            if not turn.done():
                self._come_in()
                turn.set_result(None)

    def _begin(self) -> None:
        self._peak = self.inside
        self._answers = self._pushed = 0
        self._seconds = 0.0

    def _count(self) -> None:
        ended = self._answers + self._pushed
        if ended < ROUND:
            return
        mean = self._seconds / self._answers if self._answers else 0.0
        slow = self._usual > 0 and mean > SLOW * self._usual
        if self._peak > self._least and (self._pushed > PUSHED * ended or slow):
            self._limit = max(self._least, min(self._limit, self._peak) * FALL)
        elif self._peak >= int(self._limit):
            self._limit = min(self._most, self._limit + 1)
        if mean:
            self._usual = mean if not self._usual else self._usual + MEMORY * (mean - self._usual)
        self._begin()
        self._admit()
