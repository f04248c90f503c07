"""Ids: time-ordered, unguessable, and cheap enough for every request."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

RANDOM_BYTES = 10
POOL = 200 * RANDOM_BYTES


class Ids:
    """Makes ids. Random bytes are drawn from the system many at a time: a call to it costs more than all the rest."""

    def __init__(self, *, now: Callable[[], int] = time.time_ns, random: Callable[[int], bytes] = os.urandom) -> None:
        """`now` is unix nanoseconds; `random` gives so many random bytes."""
        self._now = now
        self._random = random
        self._pool = b""

    def __call__(self) -> str:
        """48 bits of unix milliseconds and 80 random bits, in hexadecimal, so ids sort by time (as UUIDv7 does)."""
        if not self._pool:
            self._pool = self._random(POOL)
        drawn, self._pool = self._pool[:RANDOM_BYTES], self._pool[RANDOM_BYTES:]
        return f"{self._now() // 1_000_000:012x}{drawn.hex()}"
