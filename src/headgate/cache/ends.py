"""When which slot is to be looked at again: its vector has become too old to be found by, or the whole entry has.

Invariant: a slot that was added and not removed is given out once, within `WIDTH` seconds after its time. Slots of one minute are a
list that is linked through two arrays by slot: no order to keep, nothing left behind by what was removed, and eight bytes for each.
"""

from __future__ import annotations

import heapq
from array import array

WIDTH = 60.0
"""Seconds that share a page."""
_NONE = 0xFFFF_FFFF


class Ends:
    """Slots by the time at which they are due; times are unix seconds. Every call takes the same few steps."""

    def __init__(self) -> None:
        self._heads: dict[int, int] = {}
        """The first slot of every page there is, `_NONE` of an empty one."""
        self._order: list[int] = []
        self._next: array[int] = array("I")
        self._last: array[int] = array("I")

    def add(self, slot: int, when: float) -> None:
        """Have the slot given out after `when`."""
        while slot >= len(self._next):
            self._next.append(_NONE)
            self._last.append(_NONE)
        page = int(when // WIDTH)
        head = self._heads.get(page)
        if head is None:
            heapq.heappush(self._order, page)
            head = _NONE
        self._heads[page] = slot
        self._next[slot], self._last[slot] = head, _NONE
        if head != _NONE:
            self._last[head] = slot

    def remove(self, slot: int, when: float) -> None:
        """Forget a slot that was added with this time."""
        following, last = self._next[slot], self._last[slot]
        if following != _NONE:
            self._last[following] = last
        if last == _NONE:
            self._heads[int(when // WIDTH)] = following
        else:
            self._next[last] = following

    def due(self, now: float) -> int | None:
        """A slot whose time is over; it stays until it is removed."""
        while self._order and (self._order[0] + 1) * WIDTH <= now:
            head = self._heads[self._order[0]]
            if head != _NONE:
                return head
            del self._heads[heapq.heappop(self._order)]
        return None
