"""Budget: can they afford it? Hold the most a call may cost, then settle what it did cost.

The model is payments: authorise, capture, void. A call's ceiling is held on every scope that applies to it before the first byte
leaves, and the provider's output limit equals what was held, so what is spent never exceeds a cap. One reservation settles
exactly once, whatever is cancelled meanwhile: a settlement is handed to the ledger without waiting.

This file holds the values and the Protocol. Who may spend what is in `allowances.py`, what applies to one call in `terms.py`,
the bracket around a call in `reservation.py`, and the arithmetic that all ledgers share in `book.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from headgate.budget.allowance import Allowance
from headgate.model.money import Price, Usage


class Scope(msgspec.Struct, frozen=True, gc=False):
    """One counter that a call is held against: an account in one of its windows.

    cap         the most that settled and held may come to; None: only counted; -1: suspended
    allowance   whose alerts and rule apply; None when nobody set one
    deployment  set when only what this deployment costs is counted
    tokens      tokens are counted, not money
    """

    account: str
    window: str
    cap: int | None = None
    allowance: Allowance | None = None
    deployment: str | None = None
    tokens: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One row of the journal: who pays for what. Money is nano-USD.

    amount   what the provider is owed
    billed   what the tenant is to pay; the ledger works it out for a call, `note` takes it as it is
    saved    what the call would have cost beyond `amount`, had it not been answered from stock, shared or routed
    shared   of a call that was made: what others of the tenant owe of it, who read it too; of a note: the same, as one of these
    prices   digest of the price table that the amount was reckoned with
    """

    tenant: str
    key: str = ""
    user: str | None = None
    feature: str | None = None
    route: str = ""
    model: str = ""
    deployment: str = ""
    source: str = "live"
    amount: int = 0
    billed: int = 0
    saved: int = 0
    shared: int = 0
    usage: Usage = Usage()
    prices: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request to hold money on every scope, or on none.

    amount   nano-USD that the call may cost as it was asked for
    least    nano-USD with which it can still be made, if there is no room for more; never more than `amount`
    tokens   held on scopes that count tokens
    lease    seconds after which nobody is believed to be making the call any more
    """

    id: str
    scopes: tuple[Scope, ...]
    amount: int
    least: int
    lease: float
    entry: Entry
    tokens: int = 0


class Balance(msgspec.Struct, frozen=True, gc=False):
    """What is spent and what is held on one scope, in nano-USD or tokens."""

    spent: int = 0
    held: int = 0


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which journal rows to sum. Times are unix seconds, `until` exclusive; group_by names Entry fields or `day`."""

    tenant: str | None = None
    since: float | None = None
    until: float | None = None
    group_by: tuple[str, ...] = ()


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One group of the journal, summed. `requests` counts calls, not attempts; `shared` as in Entry."""

    group: dict[str, str]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost: int
    billed: int
    saved: int
    shared: int = 0


Action = Literal["set", "top-up", "suspend", "resume"]


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody changed what an account may spend. `by` names the key or command, `at` is unix seconds.

    allowance  as its author took it to be after the change; `allowances.folded` says what several come to
    amount     what was topped up
    """

    id: str
    at: float = 0.0
    action: Action
    allowance: Allowance
    by: str = ""
    amount: int = 0


class Repricing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody changed what a model of a provider costs from now on; None: again what configuration and table say."""

    id: str
    provider: str
    model: str
    price: Price | None = None
    by: str = ""


class Match(msgspec.Struct, frozen=True):
    """The calls that an account pays for: those of `tenants`, and if `field` is set, those whose entry has `value` there."""

    tenants: tuple[str, ...]
    field: Literal["user", "key", "feature", "deployment"] | None = None
    value: str = ""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An account has spent `percent` of its cap in a window. Told once; amounts are nano-USD or tokens."""

    account: str
    window: str
    percent: int
    spent: int
    cap: int


class Statements(Protocol):
    """What the journal says, for reading."""

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope."""
        ...

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sum settled rows by group, ordered by group. Raises InvalidRequest for a group there is not."""
        ...


class Changes(Protocol):
    """The part of the journal that says who may spend what. Other processes may write to it."""

    async def change(self, change: Change) -> None:
        """Durable: write a change. One with a known id is left as it was."""
        ...

    async def changes(self, after: int = 0) -> tuple[int, list[Change]]:
        """All changes behind the place `after`, oldest first, and the place behind them."""
        ...


class Repricings(Protocol):
    """The part of the journal that says which prices were changed. Other processes may write to it."""

    async def reprice(self, repricing: Repricing) -> None:
        """Durable: write a change of a price. One with a known id is left as it was."""
        ...

    async def repricings(self, after: int = 0) -> tuple[int, list[Repricing]]:
        """All changes of prices behind the place `after`, oldest first, and the place behind them."""
        ...


class Ledger(Statements, Changes, Repricings, Protocol):
    """Where money is counted. Every method is idempotent by reservation id.

    Guarantees: no interleaving of calls makes spent + held exceed a cap by a reservation; a settlement is never refused,
    even when it exceeds its hold; when a method that says *durable* returns, a killed process does not lose it.
    """

    async def reserve(self, hold: Hold) -> int:
        """Hold money on all scopes or on none; how much, from `hold.least` to `hold.amount`.

        Raises BudgetExceeded, saying whether what is spent or what is held refuses, and RateLimited where a minute's tokens do;
        ValueError for what is no amount.
        """
        ...

    async def dispatched(self, id: str) -> None:
        """Durable: the call may from now on have cost something. An expired lease will be settled at the hold.

        Raises Overloaded when the reservation has ended, or when this cannot be written: then the call must not be made.
        """
        ...

    async def extend(self, id: str, lease: float, amount: int | None = None) -> None:
        """Begin the lease anew, and hold `amount` in all when that is more than is held now.

        More money is durable when the call was dispatched. Raises as `reserve` does, and Overloaded when the reservation is gone.
        """
        ...

    def settle(self, id: str, bill: Sequence[Entry]) -> None:
        """Replace the hold by what was spent: one entry for each attempt that cost something, at least one. A second
        settlement of the same id changes nothing. Raises ValueError for what is no bill, having changed nothing.

        This and the next two never wait: what must not be lost to a cancellation leaves no moment for one.
        """
        ...

    def release(self, id: str) -> None:
        """Give the hold back: the call provably never left."""
        ...

    def note(self, id: str, entry: Entry) -> None:
        """Write a row about an answer that no provider was asked for, and what it saved. What it is billed at is counted on the
        scopes of the reservation of this id, if there is one; as far as it is `shared`, on those alone that are not its tenant's."""
        ...

    async def expire(self) -> int:
        """End reservations whose lease is over: settled at the hold when dispatched, else released. How many."""
        ...

    async def count(self, scope: Scope, match: Match) -> None:
        """Count a scope from now on that was not counted before: what its calls have spent in its window so far, and those
        that are open. Counting it again changes nothing."""
        ...

    def peek(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope that is counted at present, without waiting; nothing for any other."""
        ...

    def open_reservations(self) -> int:
        """How many reservations are neither settled nor released."""
        ...

    async def close(self) -> None:
        """Make everything durable and let go of the store."""
        ...


class DurableLedger(Ledger, Protocol):
    """A ledger that outlives its process."""

    @property
    def lag(self) -> float:
        """Seconds that the oldest row has waited for the journal."""
        ...

    async def answers(self, most: int) -> list[tuple[str, str, int]]:
        """Tenant, route and output tokens of answers among the newest `most` rows, oldest first."""
        ...

    async def lost(self) -> int:
        """Nano-USD that were settled at their holds because nobody saw the end of the call."""
        ...
