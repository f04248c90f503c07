"""Book: the arithmetic of every ledger that counts in this process.

One state machine for each reservation, and no other way to move money:

    held        -> dispatched | settled | released       overdue: released, for nothing has left
    dispatched  -> settled                               overdue: lost, counted as spent at the hold; never released
    released    -> settled                               the answer came late: it cost what it cost

Invariant: on every scope, `spent` is the sum of what was settled or lost and `held` the sum of what is open; a reservation
never makes their sum exceed the cap. A transition that repeats changes nothing, also after its reservation has ended.

The vocabulary is TigerBeetle's two-phase transfers (https://docs.tigerbeetle.com/develop/two-phase-transfers), except that a
settlement may exceed its hold: the provider has been paid, so it must be recorded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from headgate.budget.allowance import personal
from headgate.budget.budget import Alert, Balance, Entry, Hold, Match, Scope
from headgate.budget.counters import Counter, Counters
from headgate.budget.room import refusal, room, share
from headgate.model.errors import Overloaded
from headgate.model.money import LARGEST, Usage

State = Literal["held", "dispatched", "settled", "released", "lost"]


class Held:
    """A reservation that has not ended. `amount`: nano-USD held in all."""

    __slots__ = ("amount", "counters", "deadline", "dispatched", "hold", "lease")

    def __init__(self, hold: Hold, counters: tuple[Counter, ...], amount: int, deadline: float) -> None:
        self.hold = hold
        self.counters = counters
        self.amount = amount
        self.lease = hold.lease
        self.deadline = deadline
        self.dispatched = False


class Ended(msgspec.Struct, frozen=True):
    """How a reservation ended: the hold it had, what was held, and what its rule bills beyond the cost."""

    hold: Hold
    amount: int
    surcharge: int = 0


class Book:
    """Balances and open reservations. Not a ledger: it is synchronous and keeps no journal."""

    def __init__(self, *, now: Callable[[], float], remember: int = 32_768, keep: float = 86_400.0) -> None:
        """`now` is in unix seconds.

        remember  ended reservations whose ids are still known, so that a repeat is recognised
        keep      seconds that a calendar window's balance is kept after the window was seen to be over
        """
        self._now = now
        self._remember = remember
        self._keep = keep
        self.counters = Counters()
        self._open: dict[str, Held] = {}
        # A plain dict looks past every removed entry to find its first one; this one keeps its ends.
        self._ended: OrderedDict[str, tuple[State, tuple[Scope, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def reserve(self, hold: Hold) -> int:
        """Hold money everywhere or nowhere; how much is held. An id that is known already changes nothing.

        Raises BudgetExceeded, RateLimited, and ValueError for what is no amount and for a scope that is named twice.
        """
        amount, least = checked(hold.amount), checked(hold.least)
        known = self._open.get(hold.id)
        if known is not None or hold.id in self._ended:
            return amount if known is None else known.amount
        if least > amount:
            raise ValueError("a hold needs more than it asks for")
        checked(hold.tokens)
        counters = self.counters.of_all(hold.scopes)
        most = room(hold.scopes, counters, least, hold.tokens)
        if most is None:
            raise refusal(hold.scopes, counters, least, hold.tokens, self._now())
        granted = share(amount, least, most)
        for scope, counter in zip(hold.scopes, counters, strict=True):
            counter.held += hold.tokens if scope.tokens else granted
        self._open[hold.id] = Held(hold, counters, granted, self._now() + hold.lease)
        return granted

    def dispatch(self, id: str) -> Held | None:
        """The reservation whose call may cost something from now on; None when that was known already.

        Raises Overloaded when the reservation has ended or was never known: then the call must not be made.
        """
        held = self._open.get(id)
        if held is None:
            raise _gone()
        if held.dispatched:
            return None
        held.dispatched = True
        return held

    def extend(self, id: str, lease: float, amount: int | None = None) -> Held | None:
        """Begin the lease anew and hold `amount` in all; the reservation when more is held than before, else None.

        Raises as `reserve`, and Overloaded when the reservation is gone.
        """
        held = self._open.get(id)
        if held is None:
            raise _gone()
        more = 0 if amount is None else checked(amount) - held.amount
        if more > 0:
            if room(held.hold.scopes, held.counters, more, 0) is None:
                raise refusal(held.hold.scopes, held.counters, more, 0, self._now())
            for scope, counter in zip(held.hold.scopes, held.counters, strict=True):
                if not scope.tokens:
                    counter.held += more
            held.amount += more
        held.lease = lease
        held.deadline = self._now() + lease
        return held if more > 0 else None

    def held(self, id: str) -> int:
        """Nano-USD that an open reservation holds; 0 for any other."""
        held = self._open.get(id)
        return 0 if held is None else held.amount

    def settle(self, id: str, bill: Sequence[Entry]) -> Ended | None:
        """Turn the hold into what the entries say was spent; None when it was settled before or was never known.

        A settlement that comes after a release adds what was spent and releases nothing twice. Raises ValueError for what is
        no bill; then nothing has changed.
        """
        if not bill:
            raise ValueError("a bill has at least one entry")
        for entry in bill:
            checked_entry(entry)
        held = self._open.pop(id, None)
        if held is not None:
            surcharge = self._end(held, "settled", bill)
            return Ended(held.hold, held.amount, surcharge)
        state, scopes = self._ended.get(id, ("settled", ()))
        if state != "released":
            return None
        self._ended[id] = ("settled", scopes)
        surcharge = self._spend(scopes, self.counters.of_all(scopes), bill)
        nobody = Hold(id=id, scopes=scopes, amount=0, least=0, lease=0.0, entry=bill[0])
        return Ended(nobody, 0, surcharge)

    def note(self, id: str, entry: Entry) -> Ended | None:
        """As `settle`, of an answer from stock. It may have had no reservation; then it gets none later."""
        ended = self.settle(id, (entry,))
        if ended is None and id not in self._ended:
            self.remember(id, "settled", ())
        return ended

    def release(self, id: str) -> None:
        """Give this hold back, unless the reservation has been dispatched or has ended already."""
        held = self._open.get(id)
        if held is not None and not held.dispatched:
            del self._open[id]
            self._end(held, "released", ())

    def expire(self) -> list[Ended]:
        """End what is overdue and forget the balances of windows that ended long ago. Those that were lost: the hold is spent."""
        now = self._now()
        lost = []
        for held in self._open.values():
            if held.deadline - now > held.lease:
                # The clock has gone back; a lease lasts no longer for that.
                held.deadline = now + held.lease
        for held in [held for held in self._open.values() if held.deadline <= now]:
            del self._open[held.hold.id]
            if held.dispatched:
                self._end(held, "lost", (lost_entry(held.hold, held.amount),))
                lost.append(Ended(held.hold, held.amount))
            else:
                self._end(held, "released", ())
        windows = {scope.window for held in self._open.values() for scope in held.hold.scopes}
        self.counters.prune(now, self._keep, windows)
        return lost

    def adopt(self, scope: Scope, match: Match) -> list[Held]:
        """Count open reservations on a scope that was not counted when they began; those that were dispatched already."""
        counter = self.counters.of(scope)
        adopted = []
        for held in self._open.values():
            if matches(match, held.hold.entry) and not any(same(scope, other) for other in held.hold.scopes):
                held.hold = msgspec.structs.replace(held.hold, scopes=(*held.hold.scopes, scope))
                held.counters = (*held.counters, counter)
                counter.held += held.hold.tokens if scope.tokens else held.amount
                if held.dispatched:
                    adopted.append(held)
        return adopted

    def balance(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope."""
        counter = self.counters.find(account, window)
        return Balance() if counter is None else Balance(counter.spent, counter.held)

    def alerts(self) -> list[Alert]:
        """The thresholds passed since this was asked last."""
        return self.counters.take_alerts()

    def remember(self, id: str, state: State, scopes: tuple[Scope, ...]) -> None:
        """Know a reservation that has ended, here or before this process began."""
        self._ended[id] = (state, scopes)
        if len(self._ended) > self._remember:
            self._ended.popitem(last=False)

    def _end(self, held: Held, state: State, bill: Sequence[Entry]) -> int:
        for scope, counter in zip(held.hold.scopes, held.counters, strict=True):
            counter.held -= held.hold.tokens if scope.tokens else held.amount
        self.remember(held.hold.id, state, held.hold.scopes)
        return self._spend(held.hold.scopes, held.counters, bill) if bill else 0

    def _spend(self, scopes: tuple[Scope, ...], counters: tuple[Counter, ...], bill: Sequence[Entry]) -> int:
        """Count a bill everywhere; what the dearest overage adds to it."""
        amount = counted(bill[0]) if len(bill) == 1 else sum(map(counted, bill))
        divided = any(entry.shared for entry in bill)
        surcharge = 0
        for scope, counter in zip(scopes, counters, strict=True):
            spent = amount
            if divided or scope.tokens or scope.deployment is not None:
                spent = part_of(scope, bill)
            counter.spent += spent
            if counter.spent >= counter.alarm:
                self.counters.passed(scope, counter)
            allowance = scope.allowance
            if allowance is not None and allowance.rule == "overage":
                limit = allowance.limit(scope.window)
                beyond = 0 if limit is None else min(spent, counter.spent - limit)
                surcharge = max(surcharge, beyond * (allowance.percent - 100) // 100)
        return surcharge


def checked(amount: int) -> int:
    """The amount. Raises ValueError unless it is an integer from 0 to 2**63 - 1."""
    if type(amount) is not int or not 0 <= amount <= LARGEST:
        raise ValueError(f"{amount!r} is not an amount: nano-USD from 0 to {LARGEST}")
    return amount


def checked_entry(entry: Entry) -> None:
    """Raises ValueError unless every amount and number of tokens of an entry is one that a journal can keep."""
    usage = entry.usage
    money = (entry.amount, entry.billed, entry.saved, entry.shared)
    for amount in (*money, usage.prompt_tokens, usage.completion_tokens):
        if type(amount) is not int or not 0 <= amount <= LARGEST:
            checked(amount)
    if entry.shared > (entry.amount if entry.source == "live" else entry.billed):
        raise ValueError("more is shared than there is")


def counted(entry: Entry, *, alone: bool = False) -> int:
    """What an entry weighs on a budget: what a provider is owed, or what an answer from stock is billed at.

    What several share weighs in full with the call that was made, on all that they have in common; on budgets of some callers `alone`
    each weighs its own part.
    """
    if entry.source == "live":
        return entry.amount - entry.shared if alone else entry.amount
    return entry.billed if alone else entry.billed - entry.shared


def part_of(scope: Scope, bill: Sequence[Entry]) -> int:
    """What of a bill counts on this scope. An entry without a deployment, of a call whose end nobody saw, counts everywhere."""
    mine = [entry for entry in bill if scope.deployment is None or entry.deployment in ("", scope.deployment)]
    if scope.tokens:
        return sum(entry.usage.total_tokens for entry in mine if entry.source == "live")
    alone = personal(scope.account)
    return sum(counted(entry, alone=alone) for entry in mine)


def matches(match: Match, entry: Entry) -> bool:
    """Whether a call is one of those an account pays for. What it will cost by deployment is not known before its end."""
    if entry.tenant not in match.tenants:
        return False
    return match.field in (None, "deployment") or getattr(entry, match.field or "") == match.value


def lost_entry(hold: Hold, amount: int) -> Entry:
    """The row of a call whose end nobody saw: what was held counts as spent."""
    usage = Usage(prompt_tokens=hold.tokens, estimated=True)
    return msgspec.structs.replace(hold.entry, amount=amount, billed=amount, usage=usage)


def same(one: Scope, other: Scope) -> bool:
    """Whether the two count in one place."""
    return one.account == other.account and one.window == other.window


def _gone() -> Overloaded:
    return Overloaded("The call's reservation ended before the call was sent.", retry_after=1.0)
