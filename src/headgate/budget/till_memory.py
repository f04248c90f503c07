"""MemoryTill: the reference implementation of a till, in this process. What several ledgers hold through one object, they hold together.

Invariant: what is held on a place is the sum of its open reservations; a reservation's windows are filled.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import msgspec

from headgate.budget.book import checked
from headgate.budget.budget import Balance, Scope
from headgate.budget.room import room, share
from headgate.budget.till import (
    ENDED_KEPT,
    WINDOW_KEPT,
    Ask,
    Ending,
    Filling,
    Gone,
    Granted,
    Overdue,
    Place,
    Refused,
    Unknown,
    check,
    check_filling,
)
from headgate.budget.windows import window_end


class MemoryTill:
    """A till in this process's memory."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` is in unix seconds."""
        self._clock = clock
        # The order is the one in which `owners` names them.
        self._owners: OrderedDict[str, _Owner] = OrderedDict()

    def forget(self, owner: str | None = None) -> None:
        """Lose all of an owner, or of every owner, as a store does that is flushed."""
        if owner is None:
            self._owners.clear()
        else:
            self._owners.pop(owner, None)

    async def hold(self, ask: Ask) -> Granted | Refused | Unknown:
        """Hold money on all of the scopes or on none."""
        check(ask)
        owner = self._owners.get(ask.owner)
        if owner is None:
            return Unknown()
        now = self._clock()
        missing = owner.missing((scope.window for scope in ask.scopes), now)
        if missing:
            return Unknown(missing)
        balances = owner.balances(ask.scopes)
        known = owner.open.get(ask.id)
        if known is not None or owner.has_ended(ask.id, now):
            return Granted(ask.amount if known is None else known.amount, owner.epoch, balances)
        most = room(ask.scopes, balances, ask.least, ask.tokens)
        if most is None:
            return Refused(balances)
        amount = share(ask.amount, ask.least, most)
        owner.begin(ask.id, _Held(ask.scopes, amount, ask.tokens, now + ask.lease))
        return Granted(amount, owner.epoch, owner.balances(ask.scopes))

    async def extend(self, id: str, owner: str, lease: float, amount: int | None) -> Granted | Refused | Gone | Unknown:
        """Begin the lease anew, and hold another amount."""
        wanted = None if amount is None else checked(amount)
        of, now = self._owners.get(owner), self._clock()
        if of is None:
            return Unknown()
        held = of.open.get(id)
        if held is None or of.missing((scope.window for scope in held.scopes), now):
            return Gone()
        more = 0 if wanted is None else wanted - held.amount
        balances = of.balances(held.scopes)
        if more > 0 and room(held.scopes, balances, more, 0) is None:
            return Refused(balances)
        of.weigh(held, -1)
        held.amount += more
        held.deadline = now + lease
        of.weigh(held)
        return Granted(held.amount, of.epoch, of.balances(held.scopes))

    async def end(self, endings: Sequence[Ending]) -> None:
        """Give holds back and count what was spent."""
        now = self._clock()
        for ending in endings:
            owner = self._owners.get(ending.owner)
            if owner is not None:
                owner.end(ending, now)

    async def overdue(self, owner: str, limit: int) -> list[Overdue]:
        """Reservations whose lease is over, the oldest first."""
        of, now = self._owners.get(owner), self._clock()
        if of is None:
            return []
        late = sorted((held.deadline, id) for id, held in of.open.items() if held.deadline <= now)
        return [Overdue(id, owner, of.open[id].amount) for _, id in late[:limit]]

    async def owners(self, limit: int) -> list[str]:
        """Some of the owners for whom something is held; those named now are the last to be named again."""
        named = [name for name, owner in self._owners.items() if owner.open][:limit]
        for name in named:
            self._owners.move_to_end(name)
        return named

    async def fill(self, owner: str, filling: Filling) -> bool:
        """Begin with what the journal says."""
        check_filling(filling)
        known = self._owners.get(owner)
        if filling.anew:
            if known is not None and known.epoch >= filling.epoch:
                return False
            known = self._owners[owner] = _Owner(filling.epoch)
        elif known is None or known.epoch != filling.epoch:
            return False
        now = self._clock()
        known.fill(filling, now)
        for id, scopes, amount, tokens, lease in filling.open if filling.anew else ():
            known.begin(id, _Held(scopes, amount, tokens, now + lease))
        return True

    async def balance(self, owner: str, place: Place) -> Balance | None:
        """What is spent and held."""
        of, (account, window) = self._owners.get(owner), place
        if of is None or of.missing((window,), self._clock()):
            return None
        return of.windows[window].balance(account)

    async def close(self) -> None:
        """Nothing is to be let go of: what is held stays, for others."""


class _Held(msgspec.Struct):
    """A reservation that has not ended. `deadline`: unix seconds."""

    scopes: tuple[Scope, ...]
    amount: int
    tokens: int
    deadline: float


class _Ended(msgspec.Struct):
    """One that has. `counted`: windows in which it was, so that it is counted once in each."""

    until: float
    counted: set[str]


class _Window(msgspec.Struct):
    """All accounts of a window, filled with the rows up to `number`; kept until the unix time `until`."""

    number: int
    until: float
    spent: dict[str, int]
    held: dict[str, int]

    def balance(self, account: str) -> Balance:
        return Balance(self.spent.get(account, 0), self.held.get(account, 0))


class _Owner:
    """All that is known of one owner, in one epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.windows: dict[str, _Window] = {}
        self.open: dict[str, _Held] = {}
        self._ended: OrderedDict[str, _Ended] = OrderedDict()

    def missing(self, windows: Iterable[str], now: float) -> tuple[str, ...]:
        """Those that are not filled (any more)."""
        return tuple(
            window
            for window in dict.fromkeys(windows)
            if window not in self.windows or self.windows[window].until <= now
        )

    def balances(self, scopes: tuple[Scope, ...]) -> tuple[Balance, ...]:
        return tuple(self.windows[scope.window].balance(scope.account) for scope in scopes)

    def has_ended(self, id: str, now: float) -> bool:
        ended = self._ended.get(id)
        return ended is not None and ended.until > now

    def fill(self, filling: Filling, now: float) -> None:
        """Add windows, and drop those that are over."""
        for over in self.missing(tuple(self.windows), now):
            del self.windows[over]
        for window in filling.windows:
            if window not in self.windows:
                until = max(window_end(window) or float("inf"), now) + WINDOW_KEPT
                spent = {account: amount for (account, of), amount in filling.spent.items() if of == window}
                self.windows[window] = _Window(filling.number, until, spent, {})

    def begin(self, id: str, held: _Held) -> None:
        self.open[id] = held
        self._ended.pop(id, None)
        self.weigh(held)

    def weigh(self, held: _Held, sign: int = 1) -> None:
        """Count a reservation, or take it off again."""
        for scope in held.scopes:
            window = self.windows.get(scope.window)
            if window is None:
                continue
            amount = held.tokens if scope.tokens else held.amount
            window.held[scope.account] = window.held.get(scope.account, 0) + sign * amount
            window.until = max(window.until, held.deadline + WINDOW_KEPT)

    def end(self, ending: Ending, now: float) -> None:
        held = self.open.pop(ending.id, None)
        if held is not None:
            self.weigh(held, -1)
        ended = self._ended.pop(ending.id, None)
        counted = set() if ended is None or ended.until <= now else ended.counted
        before = frozenset(counted)
        for (account, name), amount in ending.spent:
            window = self.windows.get(name)
            if window is not None and ending.number > window.number and name not in before:
                window.spent[account] = window.spent.get(account, 0) + amount
                counted.add(name)
        self._ended[ending.id] = _Ended(now + ENDED_KEPT, counted)
        while self._ended and next(iter(self._ended.values())).until <= now:
            self._ended.popitem(last=False)
