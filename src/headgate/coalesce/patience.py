"""Patience: how long a follower waits for the first part of an answer before it starts over.

A stream shows at once that it lives; an answer that comes whole does so at its end, and a long one must not look like a dead one. So
the wait for whole answers follows what those of the route take: the smoothed mean and four smoothed deviations, as TCP reckons when
a packet is lost (RFC 6298).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

LEAST = 5.0
ROUTES = 10_000

_GAIN: Final = 1 / 8
_GAIN_OF_DEVIATION: Final = 1 / 4
_DEVIATIONS: Final = 4.0


class Patience:
    """What answers took, by route."""

    def __init__(self, least: float = LEAST) -> None:
        """`least`: seconds that everyone waits."""
        self.least = least
        self._seen: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def observe(self, route: str, seconds: float) -> None:
        """A whole answer of this route has taken so long."""
        seen = self._seen.get(route)
        if seen is None:
            self._seen[route] = seconds, seconds / 2
            if len(self._seen) > ROUTES:
                self._seen.popitem(last=False)
            return
        mean, deviation = seen
        deviation += _GAIN_OF_DEVIATION * (abs(seconds - mean) - deviation)
        self._seen[route] = mean + _GAIN * (seconds - mean), deviation

    def of(self, route: str, *, stream: bool) -> float:
        """Seconds that a follower waits for the first part of an answer of this route."""
        if stream or route not in self._seen:
            return self.least
        mean, deviation = self._seen[route]
        return max(self.least, mean + _DEVIATIONS * deviation)
