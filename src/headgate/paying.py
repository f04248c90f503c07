"""Paying: who pays for what was not bought for one caller alone, and the rows of the journal that say so.

A leader pays for its flight by the reservation around the provider's call. Everybody else has a fee, held before anything is given.

Invariant: a call has one row, whoever pays for it; of a flight whose price is split, all rows together bill the price.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from headgate.budget.reservation import Budget, Reservation
from headgate.coalesce.coalesce import Flight
from headgate.coalesce.fee import Fee
from headgate.coalesce.tab import Share
from headgate.coalesce.trail import Trail
from headgate.model.chat import Completion
from headgate.model.errors import GatewayError
from headgate.model.record import CallRecord, Source
from headgate.model.tenancy import Policy
from headgate.reply import Ticket, finished
from headgate.routing.routing import Routing

log = logging.getLogger(__name__)


class Paying:
    """The fees of one gateway's callers."""

    def __init__(self, budget: Budget, routing: Routing) -> None:
        self._budget = budget
        self._routing = routing

    def fee(self, ticket: Ticket, *, repeats: bool) -> Fee | None:
        """What this caller pays with; None where its tenant pays for nothing but the calls it makes. `repeats`: it asks again what it has
        asked under the same idempotency key."""
        policy = ticket.caller.policy
        if policy.shares == "leader" and not policy.hit_percent:
            return None
        share = self._share(ticket) if policy.shares == "split" and not repeats else None
        return Fee(policy, self._holding(self._budget.fee, ticket), share, repeats=repeats)

    def _share(self, ticket: Ticket) -> Share:
        def write(part: int, source: Source, trail: Trail, completion: Completion) -> None:
            usage, saved = completion.usage, trail.cost
            record = finished(ticket, trail, duration=0.0, source=source, cost=0, usage=usage, saved=saved)
            self._budget.share(record, part)

        alone = self._budget.terms(ticket.caller, ticket.wishes).alone
        return Share(write, self._holding(self._budget.part, ticket) if alone else None)

    def _holding(self, bracket: Callable[..., Reservation], ticket: Ticket) -> Callable[[int], Awaitable[Reservation]]:
        """What opens such a bracket for this caller, once it is known how much is held at most."""

        async def hold(most: int) -> Reservation:
            tiered = self._routing.tiered(ticket.route)
            opened = bracket(ticket.id, ticket.caller, ticket.wishes, route=ticket.route, most=most, tiered=tiered)
            return await opened.__aenter__()

        return hold

    def ask(self, flight: Flight, policy: Policy, reservation: Reservation) -> None:
        """What the flight can cost is on hold: those who share in it may hold their parts."""
        if policy.shares == "split":
            flight.price(reservation.granted)

    def settle(self, flight: Flight, policy: Policy, completion: Completion) -> int:
        """What the flight has cost is known: nano-USD of it that others than its leader owe."""
        return flight.tab.settle(flight.trail, completion) if policy.shares == "split" else 0

    def note(self, record: CallRecord, billed: int) -> None:
        """Write down a call that no provider was asked for, and what its caller pays; nothing of one that was given nothing."""
        if record.source in ("live", "none") or not (billed or record.status == 200):
            return
        try:
            self._budget.note(record, billed=billed)
        except GatewayError as error:
            log.warning("what call %s saved could not be written down: %s", record.id, error.message)
