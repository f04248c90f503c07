"""Limits: may they call now?

Two questions at the door: how many calls of this tenant are running, and how many came in the last minute. Concurrency is
counted in this process; the rate is counted by `Counters`, which several processes may share.

The rate is a leaky bucket whose burst is the whole minute's limit: a tenant with 120 requests a minute may send 120 at
once, and then two each second. A call refused for concurrency takes nothing from the rate. `Policy.rpm` and
`Policy.concurrency` are numbers and always apply; 0 admits nothing, and there is no unlimited: give a large number.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from headgate.model.errors import RateLimited
from headgate.model.tenancy import Principal

MINUTE = 60.0
BUSY_RETRY = 1.0
"""Seconds to wait when too many calls run: nobody knows when the first of them ends."""


class Taken(msgspec.Struct, frozen=True, gc=False):
    """The outcome of one take. Times are seconds.

    remaining    how many more could be taken right now
    reset        until all of the limit can be taken again
    retry_after  until the same take would be allowed; 0 when it was
    """

    allowed: bool
    remaining: int
    reset: float
    retry_after: float


class Counters(Protocol):
    """Where rates are counted.

    Guarantees: takes of one key are atomic, also between processes that share the counters; a refused take changes
    nothing; waiting `retry_after` and trying alone succeeds; keys that are back to full take no room.
    """

    async def take(self, key: str, limit: int, per_seconds: float, cost: int = 1) -> Taken:
        """Take `cost` of `limit` for `per_seconds`. A cost above the limit is never allowed."""
        ...


class RateState(msgspec.Struct, frozen=True, gc=False):
    """What the `x-ratelimit-*-requests` headers say."""

    limit: int
    remaining: int
    reset_seconds: float


class Permit:
    """The right to be served, held until the answer has been read. Release it exactly when that ends."""

    __slots__ = ("_limits", "_tenant", "rate")

    def __init__(self, limits: Limits, tenant: str, rate: RateState) -> None:
        self._limits: Limits | None = limits
        self._tenant = tenant
        self.rate = rate

    def release(self) -> None:
        """Give the place back. Doing so again changes nothing."""
        limits, self._limits = self._limits, None
        if limits is not None:
            limits._leave(self._tenant)  # noqa: SLF001 - a permit is the other half of Limits


class Limits:
    """Admits callers."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._running: dict[str, int] = {}

    async def admit(self, caller: Principal) -> Permit:
        """A permit, or RateLimited with the seconds to wait."""
        tenant, policy = caller.tenant, caller.policy
        running = self._running.get(tenant, 0)
        if running >= policy.concurrency:
            raise RateLimited(
                f"Too many requests at the same time: the limit is {policy.concurrency}.", retry_after=BUSY_RETRY
            )
        # The place is taken before the await, so callers that arrive meanwhile cannot pass the limit together.
        self._running[tenant] = running + 1
        try:
            taken = await self._counters.take(tenant, policy.rpm, MINUTE)
        except BaseException:
            self._leave(tenant)
            raise
        if not taken.allowed:
            self._leave(tenant)
            raise RateLimited(
                f"Too many requests: the limit is {policy.rpm} a minute.",
                retry_after=taken.retry_after,
                limit=policy.rpm,
                reset=taken.reset,
            )
        return Permit(self, tenant, RateState(policy.rpm, taken.remaining, taken.reset))

    def running(self, tenant: str) -> int:
        """How many calls of a tenant hold a permit."""
        return self._running.get(tenant, 0)

    def _leave(self, tenant: str) -> None:
        left = self._running[tenant] - 1
        if left:
            self._running[tenant] = left
        else:
            del self._running[tenant]
