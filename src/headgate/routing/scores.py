"""Scores: how a deployment has done lately, by how long it takes until its answers begin and by how often it fails.

Latency is a peak-sensitive moving average (Finagle's peak EWMA, `loadbalancer.PeakEwma`): a slower answer counts at once, a faster one
little by little, by the time that has passed and not by the number of calls. Failures are two sums that decay in the same way, and
their quotient is the share that fails.

Invariant: what is long past weighs nothing. A deployment that nobody calls is a deployment that nothing is known of.
"""

from __future__ import annotations

from collections import deque
from math import exp

TAU = 30.0
"""Seconds after which what was seen weighs a third."""
FEW = 20
"""Answers from which on it is known how long most of them take."""
SAMPLES = 128


class Score:
    """One deployment's. All times in seconds of one monotonic clock."""

    __slots__ = ("_at", "_bad", "_calls", "_firsts", "_latency")

    def __init__(self) -> None:
        self._at = 0.0
        self._latency = 0.0
        self._calls = 0.0
        self._bad = 0.0
        self._firsts: dict[bool, deque[float]] = {}

    def answered(self, seconds: float, now: float, *, stream: bool) -> None:
        """An answer began after so long: its first part when it streams, else all of it."""
        kept = self._aged(now)
        self._calls += 1
        self._latency = max(seconds, self._latency * kept + seconds * (1 - kept))
        self._firsts.setdefault(stream, deque(maxlen=SAMPLES)).append(seconds)

    def failed(self, now: float) -> None:
        """An attempt failed, and the deployment is to blame."""
        self._aged(now)
        self._calls += 1
        self._bad += 1

    def errors(self, now: float) -> float:
        """The share of attempts that fail, 0..1; the prior is one good call."""
        self._aged(now)
        return self._bad / (self._calls + 1)

    def calls(self, now: float) -> float:
        """Attempts of late, the older the less."""
        self._aged(now)
        return self._calls

    def latency(self, now: float) -> float:
        """How long it takes until answers begin; falls while nobody asks. 0: nothing is known."""
        return self._latency * exp(min(0.0, self._at - now) / TAU)

    def usual(self, *, stream: bool, share: float = 0.95) -> float | None:
        """The time within which this share of the last answers began; None while there are too few."""
        firsts = self._firsts.get(stream, ())
        return sorted(firsts)[int(share * (len(firsts) - 1))] if len(firsts) >= FEW else None

    def _aged(self, now: float) -> float:
        """Let what was seen decay up to now; returns what is left of it."""
        kept = exp(min(0.0, self._at - now) / TAU)
        self._at = max(self._at, now)
        self._calls *= kept
        self._bad *= kept
        return kept
