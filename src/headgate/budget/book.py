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
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

import msgspec

from headgate.budget.budget import Balance, Hold, window_end
from headgate.model.errors import BudgetExceeded, Overloaded
from headgate.model.money import LARGEST, to_usd

State = Literal["held", "dispatched", "settled", "released", "lost"]
Place = tuple[str, str]
"""An account and one of its windows."""

HELD_RETRY = 1.0
"""Seconds after which a caller may try again when only calls in flight stand in its way; most calls end within some."""


class Counter:
    """What is spent and held on one scope."""

    __slots__ = ("held", "spent")

    def __init__(self) -> None:
        self.spent = 0
        self.held = 0


class Held:
    """A reservation that has not ended."""

    __slots__ = ("counters", "deadline", "dispatched", "hold")

    def __init__(self, hold: Hold, counters: dict[Place, Counter], deadline: float) -> None:
        self.hold = hold
        self.counters = counters
        self.deadline = deadline
        self.dispatched = False


class Overdue(msgspec.Struct, frozen=True):
    """A reservation whose lease ran out: lost (counted as spent) when it was dispatched, else released."""

    hold: Hold
    lost: bool


class Book:
    """Balances and open reservations. Not a ledger: it is synchronous and keeps no journal."""

    def __init__(self, *, now: Callable[[], float], remember: int = 32_768, keep: float = 86_400.0) -> None:
        """`now` is in unix seconds.

        remember  ended reservations whose ids are still known, so that a repeat is recognised
        keep      seconds that a calendar window's balance is kept after the window's end
        """
        self._now = now
        self._remember = remember
        self._keep = keep
        self._counters: dict[Place, Counter] = {}
        self._open: dict[str, Held] = {}
        # A plain dict looks past every removed entry to find its first one; this one keeps its ends.
        self._ended: OrderedDict[str, tuple[State, tuple[Place, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def reserve(self, hold: Hold) -> bool:
        """Hold the amount everywhere or nowhere; False when this id is already known.

        Raises BudgetExceeded, and ValueError when the amount is no amount.
        """
        amount = checked(hold.amount)
        if hold.id in self._open or hold.id in self._ended:
            return False
        counters: dict[Place, Counter] = {}
        refused = None
        for scope in hold.scopes:
            place = (scope.account, scope.window)
            counter = self._counters.get(place)
            if counter is None:
                counter = Counter()
            counters[place] = counter
            cap = LARGEST if scope.cap is None else scope.cap
            if counter.spent + amount > cap:
                raise _spent(scope.window, cap, counter.spent, amount)
            if counter.spent + counter.held + amount > cap and refused is None:
                refused = _held(scope.window, cap, counter, amount)
        if refused is not None:
            raise refused
        if len(counters) != len(hold.scopes):
            raise ValueError("a hold names one scope twice")
        for counter in counters.values():
            counter.held += amount
        self._counters.update(counters)
        self._open[hold.id] = Held(hold, counters, self._now() + hold.lease)
        return True

    def dispatch(self, id: str) -> Hold | None:
        """The hold whose call may cost something from now on; None when that was known already.

        Raises Overloaded when the reservation is gone: then the call must not be made.
        """
        held = self._open.get(id)
        if held is None:
            if self._ended.get(id, ("released",))[0] == "released":
                raise Overloaded("The call's reservation ended before the call was sent.", retry_after=1.0)
            return None
        if held.dispatched:
            return None
        held.dispatched = True
        return held.hold

    def settle(self, id: str, amount: int) -> tuple[Place, ...] | None:
        """Turn the hold into `amount` spent, on these scopes; None when it was settled before or was never known.

        A settlement that comes after a release adds what was spent and releases nothing twice. Raises ValueError.
        """
        checked(amount)
        held = self._open.get(id)
        if held is not None:
            return self._end(held, "settled", amount)
        state, places = self._ended.get(id, ("settled", ()))
        if state != "released":
            return None
        for place in places:
            self._counters.setdefault(place, Counter()).spent += amount
        self._ended[id] = ("settled", places)
        return places

    def release(self, id: str) -> None:
        """Give this hold back, unless the reservation has been dispatched or has ended already."""
        held = self._open.get(id)
        if held is not None and not held.dispatched:
            self._end(held, "released", 0)

    def expire(self) -> list[Overdue]:
        """End what is overdue, and forget the balances of windows that ended long ago."""
        now = self._now()
        overdue = [held for held in self._open.values() if held.deadline <= now]
        for held in overdue:
            if held.dispatched:
                self._end(held, "lost", held.hold.amount)
            else:
                self._end(held, "released", 0)
        self._prune(now)
        return [Overdue(held.hold, held.dispatched) for held in overdue]

    def balance(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope."""
        counter = self._counters.get((account, window))
        return Balance() if counter is None else Balance(counter.spent, counter.held)

    def load(self, place: Place, spent: int) -> None:
        """Set what a scope had spent before this process began."""
        self._counters.setdefault(place, Counter()).spent = spent

    def remember(self, id: str, state: State, places: tuple[Place, ...]) -> None:
        """Know a reservation that ended before this process began."""
        self._ended[id] = (state, places)
        if len(self._ended) > self._remember:
            self._ended.popitem(last=False)

    def _end(self, held: Held, state: State, amount: int) -> tuple[Place, ...]:
        for counter in held.counters.values():
            counter.held -= held.hold.amount
            counter.spent += amount
        id, places = held.hold.id, tuple(held.counters)
        del self._open[id]
        self.remember(id, state, places)
        return places

    def _prune(self, now: float) -> None:
        oldest = now - self._keep
        over = {window for window in {window for _, window in self._counters} if not is_live(window, oldest)}
        for place in [place for place, counter in self._counters.items() if place[1] in over and not counter.held]:
            del self._counters[place]


def places_of(hold: Hold) -> tuple[Place, ...]:
    """Where a hold counts."""
    return tuple((scope.account, scope.window) for scope in hold.scopes)


def is_live(window: str, oldest: float) -> bool:
    """Whether a window ends after the unix time `oldest`."""
    end = window_end(window)
    return end is None or end > oldest


def checked(amount: int) -> int:
    """The amount. Raises ValueError unless it is an integer from 0 to 2**63 - 1."""
    if type(amount) is not int or not 0 <= amount <= LARGEST:
        raise ValueError(f"{amount!r} is not an amount: nano-USD from 0 to {LARGEST}")
    return amount


def _spent(window: str, cap: int, spent: int, amount: int) -> BudgetExceeded:
    if amount > cap:
        return BudgetExceeded(
            f"This call may cost {to_usd(amount)} USD, more than {_named(window, 'the')} of {to_usd(cap)} USD allows. Ask for fewer "
            "`max_tokens` or raise the budget."
        )
    return BudgetExceeded(
        f"{_named(window)} is spent: {to_usd(spent)} of {to_usd(cap)} USD, and this call may cost {to_usd(amount)} USD."
        f"{_until(window)}"
    )


def _held(window: str, cap: int, counter: Counter, amount: int) -> BudgetExceeded:
    return BudgetExceeded(
        f"{_named(window)} is held by calls in flight: {to_usd(counter.spent)} spent and {to_usd(counter.held)} held of "
        f"{to_usd(cap)} USD, and this call may cost {to_usd(amount)} USD. Try again when they have ended.",
        held=True,
        retry_after=HELD_RETRY,
    )


def _named(window: str, the: str = "The") -> str:
    return f"{the} budget of this {window.partition(':')[0]}" if window != "total" else f"{the} total budget"


def _until(window: str) -> str:
    end = window_end(window)
    return (
        ""
        if end is None
        else f" The {window.partition(':')[0]} ends at {datetime.fromtimestamp(end, UTC):%Y-%m-%dT%H:%M:%SZ}."
    )
