"""Till: where several processes hold money together, in front of the journal.

The journal is the truth; a till is what makes a hold on many scopes atomic and quick. It may forget anything at any time (a restart, a
failover to a replica that lags, an eviction, FLUSHALL) and says so: what it does not know it reports as `Unknown`, never as zero. Then it
is filled from the journal, under a new *epoch*. A hold is good for the epoch in which it was made: the journal takes no dispatch of an
earlier one, so nothing is sent on the strength of what was forgotten.

What a call counts on is divided by who owns it: a tenant and all beneath it, or an organisation. Each owner's counters lie together (in a
Redis cluster, under one hash tag) and have an epoch of their own.

Every row of the journal that spends has a number, and a till knows up to which number what it was filled with goes; so an ending that is told
to it once more, or after it was filled, counts once.

This file holds the values and the Protocol; `shared.py` is the ledger over a till.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from headgate.budget.book import checked
from headgate.budget.budget import Balance, Scope

Place = tuple[str, str]
"""An account and a window."""

WINDOW_KEPT = 7_200.0
"""Seconds that a window is kept after its end and after the leases in it."""
ENDED_KEPT = 3_600.0
"""Seconds for which it is known that a reservation has ended, so that a repeat is recognised."""


class Ask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A hold on the scopes of one owner. Amounts as in Hold; `epoch` is the one that is known of this owner, 0 where none is."""

    id: str
    owner: str
    scopes: tuple[Scope, ...]
    amount: int
    least: int
    tokens: int
    lease: float
    epoch: int


class Granted(msgspec.Struct, frozen=True, gc=False):
    """How much is held, in which epoch, and what is spent and held on each scope now, in the order of the scopes."""

    amount: int
    epoch: int
    balances: tuple[Balance, ...]


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Nothing is held. What is spent and held on each scope, by which the caller is told why."""

    balances: tuple[Balance, ...]


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """The till cannot tell. `windows`: of a known owner, those that are not filled; none: all of the owner's has to be filled anew."""

    windows: tuple[str, ...] = ()


class Gone(msgspec.Struct, frozen=True, gc=False):
    """The reservation has ended, or is not known (any more)."""


class Ending(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a reservation ends on the scopes of one owner. One that was released may cost something later: an ending with a number follows.

    number   of the row in the journal that says so; 0: it was released, and nothing is spent
    spent    by place: nano-USD, or tokens
    """

    id: str
    owner: str
    number: int
    spent: tuple[tuple[Place, int], ...] = ()


class Overdue(msgspec.Struct, frozen=True, gc=False):
    """A reservation whose lease is over, and what it holds."""

    id: str
    owner: str
    amount: int


class Filling(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the journal says of one owner: what a till begins (again) with.

    epoch    the new one; the owner's, when only windows are added
    anew     whether all is filled anew, or windows are added that were not filled in this epoch
    number   of the newest row that is in the sums
    windows  that are filled, those of `open` among them: all of their accounts that are not in `spent` have spent nothing
    spent    by place
    open     calls that were dispatched and have not ended, when everything is filled anew: their id, scopes, amount, tokens, lease
    """

    epoch: int
    anew: bool
    number: int
    windows: tuple[str, ...]
    spent: Mapping[Place, int]
    open: Sequence[tuple[str, tuple[Scope, ...], int, int, float]] = ()


class Till(Protocol):
    """Guarantees: every method takes effect whole or not at all (of several endings, each), is idempotent by reservation id, and no
    interleaving of calls, from any number of processes, makes spent + held exceed a cap by a hold; nothing that is not known counts as
    zero. Raises Overloaded when it cannot be asked now. Leases are counted by the till's own clock. A window is kept for two hours after its
    end, and after the leases that were held in it; from then on it counts as not filled."""

    async def hold(self, ask: Ask) -> Granted | Refused | Unknown:
        """Hold money on all of the scopes or on none, as `Book.reserve` reckons it. An id that is known changes nothing and is answered as it
        was; one that has ended, with what it asks for. Raises ValueError as `check` does."""
        ...

    async def extend(self, id: str, owner: str, lease: float, amount: int | None) -> Granted | Refused | Gone | Unknown:
        """Begin the lease anew and, where an amount is given, hold so much in all instead, more or less than before. `balances` are in the
        order of the hold's scopes. One that is refused keeps the lease that it has. Raises ValueError for what is no amount."""
        ...

    async def end(self, endings: Sequence[Ending]) -> None:
        """Give holds back and count what was spent, unless the till was filled with it already or was told before. What is not filled counts
        nothing: who fills it, tells the endings again whose numbers are above the filling's."""
        ...

    async def overdue(self, owner: str, limit: int) -> list[Overdue]:
        """Reservations whose lease is over, the oldest first."""
        ...

    async def owners(self, limit: int) -> list[str]:
        """Some of the owners for whom something is held, others each time, in time all of them."""
        ...

    async def fill(self, owner: str, filling: Filling) -> bool:
        """Begin with what the journal says; False, and nothing changes, when somebody else has done so under this or a later epoch, or
        when the epoch whose windows are filled is over. A window that is filled already stays as it is. An epoch is filled anew once:
        who does not hear what became of it, takes another."""
        ...

    async def balance(self, owner: str, place: Place) -> Balance | None:
        """What is spent and held; None when it is not known."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


def check(ask: Ask) -> None:
    """Raises ValueError for what is no amount, for a hold that needs more than it asks for, and for a scope that is named twice."""
    if checked(ask.least) > checked(ask.amount):
        raise ValueError("a hold needs more than it asks for")
    checked(ask.tokens)
    if len({(scope.account, scope.window) for scope in ask.scopes}) < len(ask.scopes):
        raise ValueError("a scope is named twice")


def check_filling(filling: Filling) -> None:
    """Raises ValueError when a call is open in a window that is not filled."""
    filled = set(filling.windows)
    if not all(scope.window in filled for _, scopes, *_ in filling.open for scope in scopes):
        raise ValueError("a call is open in a window that is not filled")


def owner_of(account: str) -> str:
    """Who an account's counters lie with: `t/` and the tenant, or `o/` and the organisation."""
    level, _, name = account.partition(":")
    return f"o/{name}" if level == "organisation" else f"t/{name.partition('/')[0]}"
