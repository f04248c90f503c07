"""Budget: can they afford it? Hold the most a call may cost, then settle what it did cost.

The model is payments: authorise, capture, void. A call's ceiling is held on every window of its tenant before the first byte
leaves, and the provider's output limit equals what was held, so what is spent never exceeds a cap. One reservation settles
exactly once, whatever is cancelled meanwhile: a settlement is handed to the ledger without waiting.

Windows are calendar windows in UTC whose id is part of the scope, so nothing is ever reset; a call belongs to the windows
in which it was reserved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

import msgspec

from headgate.model.money import Usage
from headgate.model.record import CallRecord
from headgate.model.tenancy import WINDOWS, Caps, Principal, Window, Wishes

_SHAPES = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m", "total": ""}


class Scope(msgspec.Struct, frozen=True, gc=False):
    """One counter that a call is held against: an account, one of its windows, and its cap (None: only counted)."""

    account: str
    window: str
    cap: int | None = None


class Hold(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request to hold `amount` nano-USD on every scope, or on none. `lease` is in seconds."""

    id: str
    scopes: tuple[Scope, ...]
    amount: int
    lease: float
    entry: Entry


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One row of the journal: who pays for what. Money is nano-USD; `saved` is what the call would have cost."""

    tenant: str
    key: str = ""
    user: str | None = None
    feature: str | None = None
    route: str = ""
    model: str = ""
    deployment: str = ""
    source: str = "live"
    amount: int = 0
    saved: int = 0
    usage: Usage = Usage()


class Balance(msgspec.Struct, frozen=True, gc=False):
    """What is spent and what is held on one scope, in nano-USD."""

    spent: int = 0
    held: int = 0


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which journal rows to sum. Times are unix seconds, `until` exclusive; group_by names Entry fields or `day`."""

    tenant: str | None = None
    since: float | None = None
    until: float | None = None
    group_by: tuple[str, ...] = ()


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One group of the journal, summed. `requests` counts calls, not attempts."""

    group: dict[str, str]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost: int
    saved: int


class Statements(Protocol):
    """What the journal says, for reading."""

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope."""
        ...

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sum settled rows by group, ordered by group. Raises InvalidRequest for a group there is not."""
        ...


class Ledger(Statements, Protocol):
    """Where money is counted. Every method is idempotent by reservation id.

    Guarantees: no interleaving of calls makes spent + held exceed a cap by a reservation; a settlement is never refused,
    even when it exceeds its hold; when a method that says *durable* returns, a killed process does not lose it.
    """

    async def reserve(self, hold: Hold) -> None:
        """Hold the amount on all scopes or on none. Raises BudgetExceeded, saying whether spent or held money refuses."""
        ...

    async def dispatched(self, id: str) -> None:
        """Durable: the call may from now on have cost something. An expired lease will be settled at the hold."""
        ...

    def settle(self, id: str, entry: Entry) -> None:
        """Replace the hold by what was spent, `entry.amount`. A second settlement of the same id changes nothing.

        This and the next two never wait: what must not be lost to a cancellation leaves no moment for one.
        """
        ...

    def release(self, id: str) -> None:
        """Give the hold back: the call provably never left."""
        ...

    def note(self, id: str, entry: Entry) -> None:
        """Write a row that held nothing: an answer that cost nothing, and what it saved."""
        ...

    async def expire(self) -> int:
        """End reservations whose lease is over: settled at the hold when dispatched, else released. How many."""
        ...

    def open_reservations(self) -> int:
        """How many reservations are neither settled nor released."""
        ...

    async def close(self) -> None:
        """Make everything durable and let go of the store."""
        ...


def window_id(window: Window, at: float) -> str:
    """The id of the calendar window (UTC) that holds the unix time `at`, such as `hour:2026-11-20T17`."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{window}:{moment.strftime(_SHAPES[window])}".rstrip(":")


def window_end(window: str) -> float | None:
    """When the calendar window of this id ends, unix seconds; None when it never does or the id is no such window."""
    kind, _, start = window.partition(":")
    try:
        moment = datetime.strptime(start, _SHAPES.get(kind) or "?").replace(tzinfo=UTC)
    except ValueError:
        return None
    if kind == "month":
        later = moment.replace(year=moment.year + moment.month // 12, month=moment.month % 12 + 1)
        return later.timestamp()
    return moment.timestamp() + (3_600.0 if kind == "hour" else 86_400.0)


def account_of(tenant: str) -> str:
    """The account that pays for a tenant's calls."""
    return f"tenant:{tenant}"


async def balances(statements: Statements, tenant: str, at: float) -> dict[str, Balance]:
    """A tenant's balances in the windows that hold the unix time `at`, by window name."""
    account = account_of(tenant)
    return {window: await statements.balance(account, window_id(window, at)) for window in WINDOWS}


class Budget:
    """Opens reservations for calls."""

    def __init__(self, ledger: Ledger, *, lease: float = 900.0, now: Callable[[], float] = time.time) -> None:
        """`lease` (seconds) must outlast the longest call; `now` is the store's clock, unix seconds."""
        self.ledger = ledger
        self._lease = lease
        self._now = now
        self._hour = -1
        self._scopes_known: dict[tuple[str, Caps], tuple[Scope, ...]] = {}

    def reserve(self, id: str, caller: Principal, wishes: Wishes, *, route: str, ceiling: int) -> Reservation:
        """A bracket that holds `ceiling` nano-USD while it is open. Entering raises BudgetExceeded."""
        user = wishes.user or caller.user
        entry = Entry(tenant=caller.tenant, key=caller.key, user=user, feature=wishes.feature, route=route)
        hold = Hold(id=id, scopes=self._scopes(caller), amount=ceiling, lease=self._lease, entry=entry)
        return Reservation(self.ledger, hold)

    def note(self, record: CallRecord) -> None:
        """Write down a call that cost nothing because its answer was at hand, and what that saved."""
        entry = Entry(
            tenant=record.tenant,
            key=record.key,
            user=record.user,
            feature=record.feature,
            route=record.route,
            model=record.model or "",
            deployment=record.deployment or "",
            source=record.source,
            saved=record.saved,
            usage=record.usage,
        )
        self.ledger.note(record.id, entry)

    def _scopes(self, caller: Principal) -> tuple[Scope, ...]:
        """All windows are counted, capped or not: a cap set later in the window then knows what was spent."""
        at = self._now()
        hour = int(at // 3600)
        if hour != self._hour:
            self._hour, self._scopes_known = hour, {}
        place = caller.tenant, caller.policy.caps
        scopes = self._scopes_known.get(place)
        if scopes is None:
            account, caps = account_of(caller.tenant), caller.policy.caps
            scopes = tuple(Scope(account, window_id(window, at), getattr(caps, window)) for window in WINDOWS)
            self._scopes_known[place] = scopes
        return scopes


class Reservation:
    """The right to call a provider: dispatch takes one as an argument, so no call can be made without it.

    Leaving the bracket settles exactly what was charged, or releases the hold when nothing left the house.
    """

    def __init__(self, ledger: Ledger, hold: Hold) -> None:
        self._ledger = ledger
        self._hold = hold
        self._left = False
        self._entry = hold.entry

    async def __aenter__(self) -> Self:
        await self._ledger.reserve(self._hold)
        return self

    async def dispatched(self) -> None:
        """Durable: say that bytes are about to leave. Call it before every attempt; only the first costs anything."""
        if not self._left:
            self._left = True
            await self._ledger.dispatched(self._hold.id)

    def charge(self, *, deployment: str, model: str, amount: int, usage: Usage) -> None:
        """Add what an attempt cost; the last charged attempt names the row."""
        self._entry = msgspec.structs.replace(
            self._entry,
            deployment=deployment,
            model=model,
            amount=self._entry.amount + amount,
            usage=self._entry.usage.plus(usage),
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._left:
            self._ledger.settle(self._hold.id, self._entry)
        else:
            self._ledger.release(self._hold.id)
