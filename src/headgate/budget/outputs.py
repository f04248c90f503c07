"""Outputs: how long answers are, so that little money need be held when little is left.

For each tenant and route a histogram over token counts whose buckets grow by a fifth, with the longest answer of each, so the
99th percentile is never told too low, at most a fifth too high, and never higher than an answer that was seen. Old answers fade:
at a thousand, all counts are halved. Until a tenant has had enough answers of its own, those of all tenants on the route speak for
it, and before those a prior.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable

ENOUGH = 50
FADE = 1_000
AGAIN = 16
POOLED = 8
"""Of a tenant that has answers enough of its own, one of so many speaks for the others too."""
PRIOR = 1_024
"""Tokens that an answer is expected to need at most before any has been seen."""

_EDGES = tuple(1.2**bucket for bucket in range(95))
"""The most tokens of each bucket, up to some thirty million; the last one has no end."""
_BUCKETS = len(_EDGES) + 1


class _Histogram:
    __slots__ = ("counts", "longest", "told", "total", "untold")

    def __init__(self) -> None:
        self.counts = array("d", bytes(8 * _BUCKETS))
        self.longest = array("q", bytes(8 * _BUCKETS))
        self.total = 0.0
        self.told = 0
        self.untold = 0

    def add(self, bucket: int, tokens: int) -> None:
        self.counts[bucket] += 1
        self.longest[bucket] = max(self.longest[bucket], tokens)
        self.total += 1
        self.untold -= 1
        if self.total >= FADE:
            # No whole numbers: to halve those would forget the rare long answers, which are what is asked for.
            self.counts = array("d", [count / 2 for count in self.counts])
            self.total = sum(self.counts)

    def usual(self) -> int:
        """Tokens that 99 of 100 answers do not exceed; worked out anew after every `AGAIN` answers."""
        if self.untold <= 0:
            self.told, self.untold = self._quantile(0.99), AGAIN
        return self.told

    def _quantile(self, share: float) -> int:
        """The longest answer in the bucket in which this share is reached."""
        needed = share * self.total
        seen = 0.0
        for bucket, count in enumerate(self.counts):
            seen += count
            if seen >= needed:
                return self.longest[bucket]
        return max(self.longest)


class Outputs:
    """Answers seen so far, for at most `most` pairs of tenant and route; those not seen for longest go first."""

    def __init__(self, *, most: int = 10_000) -> None:
        self._most = most
        self._turn = 0
        self._seen: OrderedDict[tuple[str, str], _Histogram] = OrderedDict()

    def observe(self, tenant: str, route: str, tokens: int, *, limit: int) -> None:
        """An answer's tokens. One that filled its `limit` may have wanted to go on, and is taken for a quarter longer."""
        longest = tokens + (tokens + 3) // 4 if tokens >= limit else tokens
        bucket = bisect_left(_EDGES, longest)
        own = self._of(tenant, route)
        own.add(bucket, longest)
        self._turn += 1
        if own.total <= ENOUGH or self._turn % POOLED == 0:
            self._of("", route).add(bucket, longest)

    def _of(self, tenant: str, route: str) -> _Histogram:
        place = (tenant, route)
        histogram = self._seen.get(place)
        if histogram is None:
            histogram = self._seen[place] = _Histogram()
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)
        else:
            self._seen.move_to_end(place)
        return histogram

    def recall(self, answers: Iterable[tuple[str, str, int]]) -> None:
        """Learn from answers of a former process: tenant, route and tokens of each, oldest first."""
        for tenant, route, tokens in answers:
            self.observe(tenant, route, tokens, limit=tokens + 1)

    def expected(self, tenant: str, route: str) -> int:
        """Tokens that 99 of 100 answers do not exceed."""
        for place in ((tenant, route), ("", route)):
            histogram = self._seen.get(place)
            if histogram is not None and histogram.total >= ENOUGH:
                return histogram.usual()
        return PRIOR
