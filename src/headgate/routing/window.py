"""Pair counts over the last seconds, for the breaker and the retry budget.

Counted in slots of a thirtieth of the window, so memory and time are bounded whatever the traffic; a slot leaves as a
whole, so the window is exact to one slot. Needs a clock that does not go back.
"""

from __future__ import annotations

from collections import deque

SLOTS = 30


class SlidingPair:
    """Two counters, each over the last `seconds`."""

    __slots__ = ("_slot_seconds", "_slots", "first", "second")

    def __init__(self, seconds: float) -> None:
        self._slot_seconds = seconds / SLOTS
        self._slots: deque[list[int]] = deque()
        self.first = 0
        self.second = 0

    def add(self, now: float, first: int, second: int) -> None:
        """Count at `now`, after forgetting what is too old."""
        slot = self.forget(now)
        if not self._slots or self._slots[-1][0] != slot:
            self._slots.append([slot, 0, 0])
        newest = self._slots[-1]
        newest[1] += first
        newest[2] += second
        self.first += first
        self.second += second

    def forget(self, now: float) -> int:
        """Drop slots that have left the window; returns the present slot's number."""
        slot = int(now // self._slot_seconds)
        while self._slots and self._slots[0][0] <= slot - SLOTS:
            _, first, second = self._slots.popleft()
            self.first -= first
            self.second -= second
        return slot

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()
        self.first = self.second = 0
