"""Limits: may they call now?

Two questions at the door: how many calls of this tenant are running, and how many came in the last minute. Both are counted by
`Counters`, in this process or in a store that several processes share.

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
    retry_after  until the same take would be allowed by the rate; 0 when it was
    place        what was taken among those that run; empty when nothing was
    busy         whether it was refused because too many run
    """

    allowed: bool
    remaining: int
    reset: float
    retry_after: float
    place: str = ""
    busy: bool = False


class Counters(Protocol):
    """Where rates are counted, and the places of those that run.

    Guarantees: takes of one key are atomic, also between processes that share the counters; a refused take changes
    nothing, neither the rate nor the places; waiting `retry_after` and trying alone succeeds; keys that are back to full and have no
    places take no room; the places of a process that has died are free again after a minute at most.
    """

    async def take(self, key: str, *, places: int, limit: int, per_seconds: float, cost: int = 1) -> Taken:
        """Take one of `places`, and `cost` of `limit` for `per_seconds`: both or nothing. A cost above the limit is never allowed."""
        ...

    def leave(self, key: str, place: str) -> None:
        """Give a place back, soon; never waits and never raises. Doing so again changes nothing."""
        ...

    def running(self, key: str) -> int:
        """How many places this process has."""
        ...


class RateState(msgspec.Struct, frozen=True, gc=False):
    """What the `x-ratelimit-*-requests` headers say."""

    limit: int
    remaining: int
    reset_seconds: float


class Permit:
    """The right to be served, held until the answer has been read. Release it exactly when that ends."""

    __slots__ = ("_counters", "_place", "_tenant", "rate")

    def __init__(self, counters: Counters, tenant: str, place: str, rate: RateState) -> None:
        self._counters = counters
        self._tenant = tenant
        self._place = place
        self.rate = rate

    def release(self) -> None:
        """Give the place back. Doing so again changes nothing."""
        self._counters.leave(self._tenant, self._place)


class Limits:
    """Admits callers."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    async def admit(self, caller: Principal) -> Permit:
        """A permit, or RateLimited with the seconds to wait."""
        tenant, policy = caller.tenant, caller.policy
        taken = await self._counters.take(tenant, places=policy.concurrency, limit=policy.rpm, per_seconds=MINUTE)
        if taken.allowed:
            return Permit(self._counters, tenant, taken.place, RateState(policy.rpm, taken.remaining, taken.reset))
        if taken.busy:
            raise RateLimited(
                f"Too many requests at the same time: the limit is {policy.concurrency}.", retry_after=BUSY_RETRY
            )
        raise RateLimited(
            f"Too many requests: the limit is {policy.rpm} a minute.",
            retry_after=taken.retry_after,
            limit=policy.rpm,
            reset=taken.reset,
        )

    def running(self, tenant: str) -> int:
        """How many calls of a tenant hold a permit in this process."""
        return self._counters.running(tenant)
