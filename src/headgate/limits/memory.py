"""Counters in this process: the generic cell rate algorithm (GCRA), as ATM networks police cells (ITU-T I.371).

For each key one number is kept, the theoretical arrival time: when the bucket would be full again. A take moves it on by
`cost` intervals and is allowed if it then lies at most `limit` intervals ahead of now. All in whole nanoseconds, so
exactly `limit` takes fit at once, and `retry_after` is exact.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from headgate.limits.limits import Taken

_NANO = 1_000_000_000


class MemoryCounters:
    """Atomic because it never awaits. Holds at most `most_keys` keys."""

    def __init__(self, *, most_keys: int = 100_000, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """`clock` is monotonic, in nanoseconds."""
        self._full_at: dict[str, int] = {}
        self._most_keys = most_keys
        self._clock = clock

    def __len__(self) -> int:
        """How many keys are held."""
        return len(self._full_at)

    async def take(self, key: str, limit: int, per_seconds: float, cost: int = 1) -> Taken:
        """As Counters says."""
        now = self._clock()
        if limit < 1:
            return Taken(False, 0, 0.0, per_seconds)
        interval = round(per_seconds * _NANO) // limit or 1
        known = self._full_at.get(key)
        full_at = now if known is None or known < now else known
        after = full_at + cost * interval
        over = after - now - limit * interval
        if over > 0:
            return Taken(False, max(0, limit - -(-(full_at - now) // interval)), (full_at - now) / _NANO, over / _NANO)
        if known is None:
            self._make_room(now)
        self._full_at[key] = after
        return Taken(True, -over // interval, (after - now) / _NANO, 0.0)

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
