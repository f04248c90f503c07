"""Fee: what one caller pays for an answer that was not bought for it alone.

Of an answer from stock it is a share of what the call would have cost, as the tenant's policy says. Of a call that others share in
flight it is the same, or all of it (`each`), or an equal part of its price (`split`, see tab.py).

Invariant: what can be owed is on hold before the caller is given anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from headgate.budget.reservation import Reservation
from headgate.coalesce.coalesce import Flight
from headgate.coalesce.tab import Share
from headgate.model.record import Source
from headgate.model.tenancy import Policy

_SHARED = frozenset({"coalesced", "coalesced-semantic"})


class Fee:
    """One caller's, from the join to the end."""

    def __init__(
        self, policy: Policy, hold: Callable[[int], Awaitable[Reservation]], share: Share | None, *, repeats: bool
    ) -> None:
        """`hold` holds what an answer from stock may cost this caller; `share` is its part where callers split the price; `repeats`: the
        call is one that was made before under the same idempotency key, and is paid once."""
        self._policy = policy
        self._hold = hold
        self._share = share
        self._repeats = repeats
        self._held: Reservation | None = None

    @property
    def held(self) -> bool:
        """Whether something is on hold, which ends with `drop`."""
        return self._held is not None or (self._share is not None and self._share.holds)

    @property
    def written(self) -> bool:
        """Whether the caller's row is in the journal already: its part of a price that was split."""
        return self._share is not None and self._share.owes is not None

    def join(self, flight: Flight, *, leads: bool, over: bool = False) -> None:
        """The caller reads this flight from now on; `over`: instead of another, together with those that have the same budgets. Who then leads pays for it."""
        if self._share is not None:
            self._share.leads, self._share.alike = leads, over
            flight.tab.add(self._share)
            if leads and over:
                self._share.drop()

    def leave(self, flight: Flight) -> None:
        """The caller was given nothing of this flight's answer, and goes."""
        if self._share is not None:
            flight.tab.remove(self._share)

    async def pledge(self, flight: Flight) -> bool:
        """Have a part of the price on hold as soon as it is known what that can be, at most half of it; whether this has changed anything,
        so that the flight may have, too. Raises BudgetExceeded."""
        share, trail = self._share, flight.trail
        if share is None or not trail.ceiling or flight.tab.away or (share.leads and not flight.tab.follows):
            return False
        if trail.personal and not share.alike:
            return False
        return await share.bear(trail.ceiling // 2)

    async def open(self, flight: Flight, source: Source) -> None:
        """Have on hold what the caller owes for what it is about to be given. Raises BudgetExceeded."""
        if source == "live" or self.written:
            return
        if self._share is not None:
            if not (flight.ended or flight.tab.away):
                await self.pledge(flight)
                return
            self._share.drop()
        most = self._of(flight.trail.worth if flight.completion is not None else flight.trail.ceiling, source)
        if self._pays(source):
            self._held = await self._hold(most)

    def due(self, flight: Flight, source: Source, *, given: bool) -> int:
        """Nano-USD that the caller pays, of a flight that has ended, for what it was `given`."""
        if self._share is not None and self._share.owes is not None:
            return self._share.owes
        if not given or flight.completion is None or source == "live":
            return 0
        return self._of(flight.trail.worth, source) if self._held is not None else 0

    def drop(self) -> None:
        """Give back what is not owed: the caller has gone."""
        for held in (self._held, self._share):
            if held is not None:
                held.drop()

    def _each(self, source: Source) -> bool:
        return self._policy.shares == "each" and source in _SHARED and not self._repeats

    def _pays(self, source: Source) -> bool:
        return self._each(source) or self._policy.hit_percent > 0

    def _of(self, amount: int, source: Source) -> int:
        return amount if self._each(source) else amount * self._policy.hit_percent // 100
