"""RetryBudget: may this failure be tried again, or would retrying make an outage worse?

A maximum of attempts for each call multiplies the load just when a provider is down. A budget bounds retries as a share
of all calls instead: while few fail, all of them may be retried; while all fail, the extra load stays at the share.
Source of the idea: Finagle's RetryBudget (a fifth of the requests in the last ten seconds, and a small reserve a second
so that quiet clients may retry at all) and Envoy's `retry_budget`, which takes the same default share.

The invariant: within any window, retries <= share x calls + reserve.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from headgate.routing.window import SlidingPair


class RetryBudget:
    """Counts first attempts and retries of the last seconds. One is shared by all calls."""

    def __init__(
        self,
        *,
        share: float = 0.2,
        reserve_per_second: float = 1.0,
        seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`share` of the calls in the last `seconds` may be retried, and `reserve_per_second` besides."""
        self._share = share
        self._reserve = reserve_per_second * seconds
        self._counts = SlidingPair(seconds)
        self._clock = clock

    def deposit(self) -> None:
        """Call it on every first attempt."""
        self._counts.add(self._clock(), 1, 0)

    def withdraw(self) -> bool:
        """Call it before a retry: True means that it is allowed, and counted."""
        now = self._clock()
        self._counts.forget(now)
        # The small addend keeps 0.2 x 5 from falling short of one retry by a rounding error.
        if self._counts.second + 1 > self._share * self._counts.first + self._reserve + 1e-9:
            return False
        self._counts.add(now, 0, 1)
        return True
