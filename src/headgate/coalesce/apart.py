"""Apart: which requests are not shared for a while, because sharing them has proven useless.

Whoever joins a flight waits for it. Where its answer then could not be given to others (it was cut off, or made for one budget alone),
they have waited for nothing; so the next ones who ask the same do not wait, each makes its own call. The idea is the
"hit-for-miss" of web caches.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

KEEP = 120.0
MOST = 10_000


class Apart:
    """Keys, each for `keep` seconds, at most the newest `most` of them."""

    def __init__(self, *, keep: float = KEEP, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic, in seconds."""
        self._keep = keep
        self._most = most
        self._clock = clock
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def keep(self, key: Hashable) -> None:
        """Let those who ask this not share a flight from now on."""
        self._until[key] = self._clock() + self._keep
        self._until.move_to_end(key)
        if len(self._until) > self._most:
            self._until.popitem(last=False)

    def __contains__(self, key: Hashable) -> bool:
        until = self._until.get(key)
        if until is None:
            return False
        if until > self._clock():
            return True
        del self._until[key]
        return False
