"""Counters in this process: the generic cell rate algorithm (GCRA), as ATM networks police cells (ITU-T I.371).

For each key one number is kept, the theoretical arrival time: when the bucket would be full again. A take moves it on by
`cost` intervals and is allowed if it then lies at most `limit` intervals ahead of now. All in whole microseconds, so
exactly `limit` takes fit at once, and `retry_after` is exact; that is as fine as a Lua script can count since 1970.

A clock that is set back takes nothing from anybody: what lies further ahead than a full burst is taken for a full burst.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping

import msgspec

from headgate.limits.limits import Taken

MICRO = 1_000_000


def microseconds() -> int:
    """A clock that nobody sets."""
    return time.monotonic_ns() // 1_000


class Rate(msgspec.Struct, frozen=True, gc=False):
    """A limit in microseconds: one of it comes back every `interval`, and `burst` is how long all of it takes."""

    interval: int
    burst: int

    @classmethod
    def of(cls, limit: int, per_seconds: float) -> Rate:
        """`limit`, at least 1, for so many seconds."""
        interval = round(per_seconds * MICRO) // limit or 1
        return cls(interval, interval * limit)


class MemoryCounters:
    """Atomic because it never awaits. Holds the rates of at most `most_keys` keys."""

    def __init__(
        self,
        *,
        most_keys: int = 100_000,
        clock: Callable[[], int] = microseconds,
        names: Iterator[str] | None = None,
    ) -> None:
        """`clock` is monotonic, in microseconds. `names` are what places are called, all different."""
        self._full_at: dict[str, int] = {}
        self._places: dict[str, set[str]] = {}
        self._most_keys = most_keys
        self._clock = clock
        self._names = names or map(str, itertools.count())

    def __len__(self) -> int:
        """How many keys' rates are held."""
        return len(self._full_at)

    @property
    def places(self) -> Mapping[str, Collection[str]]:
        """All places, by key."""
        return self._places

    async def take(self, key: str, *, places: int, limit: int, per_seconds: float, cost: int = 1) -> Taken:
        """As Counters says."""
        if limit < 1:
            return Taken(False, 0, 0.0, per_seconds)
        now, rate, busy = self._clock(), Rate.of(limit, per_seconds), self.running(key) >= places
        full_at = self._at(key, now, rate)
        after = full_at + cost * rate.interval
        over = after - now - rate.burst
        if busy or over > 0:
            remaining = max(0, (now + rate.burst - full_at) // rate.interval)
            return Taken(False, remaining, (full_at - now) / MICRO, max(0, over) / MICRO, busy=busy)
        place = next(self._names)
        self._put(key, place, after, now)
        return Taken(True, -over // rate.interval, (after - now) / MICRO, 0.0, place)

    def note(self, key: str, place: str, *, limit: int, per_seconds: float, cost: int = 1) -> None:
        """What was taken elsewhere under this name is taken here too, whether or not there is room."""
        now, rate = self._clock(), Rate.of(limit, per_seconds)
        self._put(key, place, self._at(key, now, rate) + cost * rate.interval, now)

    def leave(self, key: str, place: str) -> None:
        """As Counters says."""
        places = self._places.get(key)
        if places is not None:
            places.discard(place)
            if not places:
                del self._places[key]

    def running(self, key: str) -> int:
        """As Counters says."""
        return len(self._places.get(key, ()))

    def _at(self, key: str, now: int, rate: Rate) -> int:
        """When a key is full again: not before now, and not later than after a burst."""
        return min(max(now, self._full_at.get(key, now)), now + rate.burst)

    def _put(self, key: str, place: str, after: int, now: int) -> None:
        if key not in self._full_at:
            self._make_room(now)
        self._full_at[key] = after
        self._places.setdefault(key, set()).add(place)

    def _make_room(self, now: int) -> None:
        """Before a key is added, look at the two oldest: full ones go, others move to the end.

        Two looks for each addition find every idle key in time. If there is still no room, the oldest goes: its tenant gets
        a fresh burst, which is milder than refusing a stranger.
        """
        keys = self._full_at
        for key in [key for key, _ in zip(keys, range(2), strict=False)]:
            full_at = keys.pop(key)
            if full_at > now:
                keys[key] = full_at
        if len(keys) >= self._most_keys:
            del keys[next(iter(keys))]
