"""Reservations: the bracket around every call that may cost something, and the service that opens it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

import msgspec

from headgate.budget.allowance import Allowance, level_of
from headgate.budget.allowances import Allowances, Which, folded
from headgate.budget.budget import Entry, Hold, Ledger, Match, Scope
from headgate.budget.outputs import Outputs
from headgate.budget.terms import Scoping, Terms, scope_of
from headgate.budget.windows import TOKENS, window_bounds, window_id
from headgate.model import failpoints
from headgate.model.clearance import Clearance
from headgate.model.errors import Overloaded
from headgate.model.money import Usage
from headgate.model.record import CallRecord
from headgate.model.tenancy import OPERATOR, Principal, Wishes

LATE = 3_600.0
"""Seconds that a process may take to learn of a change. A window that began later has been counted from its beginning."""


class Census(Protocol):
    """What budgets need to know of tenants."""

    async def zone(self, tenant: str) -> str:
        """The time zone of a tenant's windows; UTC for one there is not."""
        ...

    async def members(self, organisation: str) -> tuple[str, ...]:
        """The ids of the tenants that belong to an organisation, or to one beneath it."""
        ...


class Nobody:
    """A census without tenants: all windows are in UTC, and organisations are empty."""

    async def zone(self, tenant: str) -> str:  # noqa: ARG002 - as in Census
        """See Census."""
        return "UTC"

    async def members(self, organisation: str) -> tuple[str, ...]:  # noqa: ARG002 - as in Census
        """See Census."""
        return ()


class Budget:
    """Opens reservations for calls, and keeps those that are open alive."""

    def __init__(
        self,
        ledger: Ledger,
        allowances: Allowances | None = None,
        *,
        census: Census | None = None,
        lease: float = 60.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`lease`: seconds after which a reservation that nobody tends counts as lost; `now` is the store's clock, unix seconds."""
        self.ledger = ledger
        self.allowances = allowances or Allowances()
        self.outputs = Outputs()
        self._census = census or Nobody()
        self._lease = lease
        self._now = now
        self._scoping = Scoping(self.allowances, now=now)
        self._open: set[str] = set()
        self._read = 0
        self._learnt: dict[Which, Allowance] = {}
        self._reading = asyncio.Lock()

    def terms(self, caller: Principal, wishes: Wishes) -> Terms:
        """What applies to a call of this caller, now."""
        return self._scoping.terms(caller, wishes)

    async def degraded(self, terms: Terms) -> bool:
        """Whether a budget that would rather be answered cheaply than not at all is used up."""
        for scope in terms.degrading:
            balance = await self.ledger.balance(scope.account, scope.window)
            limit = None if scope.allowance is None else scope.allowance.limit(scope.window)
            if limit is not None and balance.spent + balance.held >= limit:
                return True
        return False

    def reserve(
        self,
        id: str,
        caller: Principal,
        wishes: Wishes,
        *,
        route: str,
        ceiling: int,
        least: int | None = None,
        tokens: int = 0,
        deployments: Iterable[str] = (),
        tiered: bool = False,
    ) -> Reservation:
        """A bracket that holds money while it is open, on the scopes of this moment; enter it at once. Entering raises
        BudgetExceeded or RateLimited.

        ceiling      nano-USD that the call may cost as it was asked for
        least        nano-USD with which it can still be made; by default all of it
        tokens       that it is likely to use
        deployments  it may go to
        tiered       whether the route had a cheaper tier to fall back to
        """
        entry = _entry(caller, wishes, route)
        hold = Hold(
            id=id,
            scopes=self.terms(caller, wishes).scopes_of(deployments, tiered=tiered),
            amount=ceiling,
            least=ceiling if least is None else min(least, ceiling),
            tokens=tokens,
            lease=self._lease,
            entry=entry,
        )
        return Reservation(self.ledger, hold, self._open)

    def for_operator(self, id: str, *, feature: str, ceiling: int) -> Reservation:
        """A bracket for a call that the gateway makes for itself: no tenant pays, and no cap limits it."""
        entry = Entry(tenant=OPERATOR, feature=feature)
        hold = Hold(id=id, scopes=(), amount=ceiling, least=ceiling, lease=self._lease, entry=entry)
        return Reservation(self.ledger, hold, self._open)

    def note(self, record: CallRecord, *, billed: int = 0) -> None:
        """Write down a call that cost nothing because its answer was at hand, what that saved, and what it is billed at."""
        self.ledger.note(record.id, self._noted(record, billed))

    def share(self, record: CallRecord, part: int) -> None:
        """Write down a call whose answer another was bought for, and the part of its price that the caller owes. All that the two have
        in common has counted the whole price already."""
        self.ledger.note(_of_share(record.id), msgspec.structs.replace(self._noted(record, part), shared=part))

    def _noted(self, record: CallRecord, billed: int) -> Entry:
        return Entry(
            tenant=record.tenant,
            key=record.key,
            user=record.user,
            feature=record.feature,
            route=record.route,
            model=record.model or "",
            deployment=record.deployment or "",
            source=record.source,
            billed=billed,
            saved=record.saved,
            usage=record.usage,
        )

    async def tend(self) -> None:
        """Begin the lease of every open reservation anew, then end what nobody tends. Call it more often than leases end."""
        for id in tuple(self._open):
            if id in self._open:
                try:
                    await self.ledger.extend(id, self._lease)
                except Overloaded:
                    # It has ended, while this waited or because its time was over: there is nothing left to keep.
                    self._open.discard(id)
        await self.ledger.expire()

    async def refresh(self) -> None:
        """Let changes of allowances apply that were written since the last time, here or by another process."""
        async with self._reading:
            place, changes = await self.ledger.changes(self._read)
            news = folded(changes, self._learnt)
            for which, allowance in news.items():
                if which not in self._learnt:
                    await self._count(allowance)
                self.allowances.put(allowance)
            # All at once: what fails halfway is read again from where it began.
            self._learnt.update(news)
            self._read = place

    async def _count(self, allowance: Allowance) -> None:
        """Count an account from now on, before it is limited: nothing slips through between."""
        account, window, unit = allowance.account, allowance.window, allowance.unit
        if level_of(account) == "tenant" and unit == "usd":
            return  # these have always been counted
        scope, match = await self._begun(allowance)
        begun = (window_bounds(scope.window) or (0.0, 0.0))[0]
        if begun <= allowance.created + LATE:
            if self.allowances.find(account, window, unit) is None:
                self.allowances.put(msgspec.structs.replace(allowance, cap=None))
            await self.ledger.count(scope, match)

    async def _begun(self, allowance: Allowance) -> tuple[Scope, Match]:
        """The scope of an allowance at present, and the calls that count on it."""
        level = level_of(allowance.account)
        name = allowance.account.partition(":")[2]
        if level == "organisation":
            return scope_of(_uncapped(allowance), self._now(), "UTC"), Match(await self._census.members(name))
        tenant, _, part = name.partition("/")
        scope = scope_of(_uncapped(allowance), self._now(), await self._census.zone(tenant))
        if level == "tenant":
            return scope, Match((tenant,))
        if level == "model":
            return msgspec.structs.replace(scope, deployment=part), Match((tenant,), "deployment", part)
        return scope, Match((tenant,), level, part)

    def fee(
        self, id: str, caller: Principal, wishes: Wishes, *, route: str, most: int, tiered: bool = False
    ) -> Reservation:
        """A bracket for what a tenant pays for an answer that nobody is asked for, and which takes no tokens; `note` ends it."""
        return self.reserve(id, caller, wishes, route=route, ceiling=most, tiered=tiered)

    def part(
        self, id: str, caller: Principal, wishes: Wishes, *, route: str, most: int, tiered: bool = False
    ) -> Reservation:
        """A bracket for a part of the price of another's call, on what only this caller has; `share` ends it."""
        entry = _entry(caller, wishes, route)
        scopes = self.terms(caller, wishes).alone_of(tiered=tiered)
        hold = Hold(id=_of_share(id), scopes=scopes, amount=most, least=most, lease=self._lease, entry=entry)
        return Reservation(self.ledger, hold, self._open)

    def tokens(self, tenant: str) -> tuple[int, float]:
        """Tokens of this minute that a tenant has taken, those held by calls in flight included, and seconds to its end."""
        now = self._now()
        found = self.ledger.peek(f"tenant:{tenant}", TOKENS + window_id("minute", now))
        return found.spent + found.held, 60.0 - now % 60.0


def _entry(caller: Principal, wishes: Wishes, route: str) -> Entry:
    """Who pays for a call."""
    user = wishes.user or caller.user
    return Entry(tenant=caller.tenant, key=caller.key, user=user, feature=wishes.feature, route=route)


def _of_share(id: str) -> str:
    """What the row of a part is called. A call of its own, which a follower may have to make yet, is called as the caller's."""
    return f"{id}-share"


def _uncapped(allowance: Allowance) -> Allowance:
    return msgspec.structs.replace(allowance, cap=None, suspended=False)


class Reservation:
    """The right to call a provider: only `cleared` gives out the clearance without which no call can be made.

    Leaving the bracket settles exactly what was charged, or releases the hold when nothing left the house.
    """

    def __init__(self, ledger: Ledger, hold: Hold, tended: set[str]) -> None:
        """`tended`: the ids of open reservations, whose leases are kept alive."""
        self._ledger = ledger
        self._hold = hold
        self._tended = tended
        self._left = False
        self._marked = False
        self._bill: list[Entry] = []
        self._charged = 0
        self.granted = 0
        self.saved = 0
        """What routing saved, nano-USD: set before the bracket ends."""
        self.shared = 0
        """What others owe of it, nano-USD: set before the bracket ends, at most what was charged."""

    async def __aenter__(self) -> Self:
        self.granted = await self._ledger.reserve(self._hold)
        self._tended.add(self._hold.id)
        failpoints.passed("after_reserve")
        return self

    async def cleared(self, ceiling: int, limit: int) -> Clearance:
        """Durable: bytes are about to leave for an attempt that costs at most `ceiling` nano-USD with `limit` output tokens.

        What earlier attempts have cost is spent, so a further one needs more money held. Raises BudgetExceeded when there
        is not enough of it, and Overloaded when the ledger cannot be written: then the attempt must not be made.
        """
        self._left = True
        if not self._marked:
            await self._ledger.dispatched(self._hold.id)
            self._marked = True
            failpoints.passed("after_dispatched")
        await self.more(self._charged + ceiling)
        return Clearance(self._hold.id, limit, self._hold.entry.tenant)

    async def more(self, amount: int) -> None:
        """Hold so many nano-USD in all, if that is more than is held. Raises as `Ledger.extend`."""
        if amount > self.granted:
            await self._ledger.extend(self._hold.id, self._hold.lease, amount)
            self.granted = amount

    def charge(self, *, deployment: str, model: str, amount: int, usage: Usage, prices: str = "") -> None:
        """Add what an attempt cost: a row of its own in the journal."""
        self._charged += amount
        self._bill.append(
            msgspec.structs.replace(
                self._hold.entry,
                deployment=deployment,
                model=model,
                amount=amount,
                billed=amount,
                usage=usage,
                prices=prices,
            )
        )

    def drop(self) -> None:
        """Give the hold back unless it has ended otherwise: nothing left the house."""
        self._tended.discard(self._hold.id)
        self._ledger.release(self._hold.id)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tended.discard(self._hold.id)
        if not self._left:
            self._ledger.release(self._hold.id)
            return
        bill = self._bill or [self._hold.entry]
        if self.saved:
            bill = [*bill[:-1], msgspec.structs.replace(bill[-1], saved=self.saved)]
        if self.shared:
            bill = _divided(bill, self.shared)
        failpoints.passed("before_settle")
        self._ledger.settle(self._hold.id, bill)


def _divided(bill: list[Entry], shared: int) -> list[Entry]:
    """The bill of a call of which others owe so much, taken from its last attempts first: theirs was the answer."""
    divided = []
    for entry in reversed(bill):
        part = min(shared, entry.amount)
        shared -= part
        divided.append(msgspec.structs.replace(entry, shared=part))
    return divided[::-1]
