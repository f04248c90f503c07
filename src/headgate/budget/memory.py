"""MemoryLedger: the reference implementation. Exact, but nothing outlives the process."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import msgspec

from headgate.budget.book import Book, checked_entry, lost_entry, matches, part_of, same
from headgate.budget.budget import Alert, Balance, Change, Entry, Hold, Match, Repricing, Scope, UsageQuery, UsageRow
from headgate.budget.windows import window_bounds
from headgate.model.errors import InvalidRequest
from headgate.model.money import LARGEST

GROUPS = ("tenant", "key", "user", "feature", "route", "model", "deployment", "source", "day")
"""What usage may be grouped by."""


class MemoryLedger:
    """A ledger in this process's memory."""

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.time,
        rows: int = 100_000,
        on_alert: Callable[[Alert], None] = lambda _: None,
    ) -> None:
        """`now` is in unix seconds; `usage` sums the newest `rows` rows; `on_alert` is told each threshold that is passed."""
        self._now = now
        self._book = Book(now=now)
        self._rows: deque[Row] = deque(maxlen=rows)
        self._noted: OrderedDict[str, None] = OrderedDict()
        self._changes: dict[str, Change] = {}
        self._repricings: dict[str, Repricing] = {}
        self._counted: set[tuple[str, str]] = set()
        self._on_alert = on_alert

    async def reserve(self, hold: Hold) -> int:
        """Hold money on all scopes or on none."""
        return self._book.reserve(hold)

    async def dispatched(self, id: str) -> None:
        """Remember that the call may have cost something. As durable as anything here: as long as the process."""
        self._book.dispatch(id)

    async def extend(self, id: str, lease: float, amount: int | None = None) -> None:
        """Begin the lease anew, and hold more."""
        self._book.extend(id, lease, amount)

    def settle(self, id: str, bill: Sequence[Entry]) -> None:
        """Replace the hold by what was spent."""
        ended = self._book.settle(id, bill)
        if ended is not None:
            self._write(bill, ended.surcharge, ended.hold.scopes)

    def release(self, id: str) -> None:
        """Give the hold back."""
        self._book.release(id)

    def note(self, id: str, entry: Entry) -> None:
        """Write a row about an answer from stock."""
        checked_entry(entry)
        if id in self._noted:
            return
        self._noted[id] = None
        if len(self._noted) > (self._rows.maxlen or 0):
            self._noted.popitem(last=False)
        ended = self._book.note(id, entry)
        self._rows.append((self._now(), True, entry, () if ended is None else ended.hold.scopes))
        self._tell()

    async def expire(self) -> int:
        """End reservations whose lease is over."""
        before = len(self._book)
        for end in self._book.expire():
            self._write((lost_entry(end.hold, end.amount),), 0, end.hold.scopes)
        self._tell()
        return before - len(self._book)

    async def count(self, scope: Scope, match: Match) -> None:
        """Count a scope from now on: the open reservations, and what the rows since its window's beginning say."""
        place = (scope.account, scope.window)
        if place in self._counted:
            return
        self._counted.add(place)
        self._book.adopt(scope, match)
        since, until = window_bounds(scope.window) or (0.0, float("inf"))
        self._book.counters.of(scope).spent += sum(
            part_of(scope, (entry,))
            for at, _, entry, scopes in self._rows
            if since <= at < until and matches(match, entry) and _uncounted(scope, entry, scopes)
        )

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope."""
        return self._book.balance(account, window)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sum settled rows by group, ordered by group."""
        check_groups(query)
        chosen = [(_group(row, query.group_by), row) for row in self._rows if _wanted(row, query)]
        chosen.sort(key=lambda pair: pair[0])
        return [
            _summed(query.group_by, group, [row for _, row in pairs])
            for group, pairs in groupby(chosen, key=lambda pair: pair[0])
        ]

    async def change(self, change: Change) -> None:
        """Write a change."""
        self._changes.setdefault(change.id, change)

    async def changes(self, after: int = 0) -> tuple[int, list[Change]]:
        """All changes behind a place."""
        return len(self._changes), list(self._changes.values())[after:]

    async def reprice(self, repricing: Repricing) -> None:
        """Write a change of a price."""
        self._repricings.setdefault(repricing.id, repricing)

    async def repricings(self, after: int = 0) -> tuple[int, list[Repricing]]:
        """All changes of prices behind a place."""
        return len(self._repricings), list(self._repricings.values())[after:]

    def peek(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope."""
        return self._book.balance(account, window)

    def open_reservations(self) -> int:
        """How many reservations are neither settled nor released."""
        return len(self._book)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _write(self, bill: Sequence[Entry], surcharge: int, scopes: tuple[Scope, ...]) -> None:
        for entry, last in _with_bill(bill, surcharge):
            self._rows.append((self._now(), last, entry, scopes))
        self._tell()

    def _tell(self) -> None:
        for alert in self._book.alerts():
            self._on_alert(alert)


Row = tuple[float, bool, Entry, tuple[Scope, ...]]
"""When, whether it ends a call, what, and where it was counted."""


def _uncounted(scope: Scope, entry: Entry, scopes: tuple[Scope, ...]) -> bool:
    """Whether an entry has not been counted on a scope and should have been: not where only another deployment's cost counts, nor
    when it is an answer from stock of which nothing was held anywhere. Part of a price is owed whether it was held or not."""
    mine = scope.deployment is None or (entry.deployment == scope.deployment and entry.source == "live")
    owed = entry.source == "live" or bool(scopes) or entry.shared > 0
    return mine and owed and not any(same(scope, other) for other in scopes)


def _with_bill(bill: Sequence[Entry], surcharge: int) -> list[tuple[Entry, bool]]:
    """Each entry of a call with what the tenant is to pay, and whether it is the call's last."""
    last = len(bill) - 1
    return [(billed(entry, surcharge if at == last else 0), at == last) for at, entry in enumerate(bill)]


def billed(entry: Entry, surcharge: int) -> Entry:
    """The entry with what the tenant is to pay for a call: its cost less what others owe of it, and what a rule adds."""
    owed = min(entry.amount - entry.shared + surcharge, LARGEST)
    return entry if entry.billed == owed else msgspec.structs.replace(entry, billed=owed)


def check_groups(query: UsageQuery) -> None:
    """Raises InvalidRequest unless usage can be grouped as asked."""
    for name in query.group_by:
        if name not in GROUPS:
            raise InvalidRequest(f"Usage cannot be grouped by {name!r}, only by {', '.join(GROUPS)}.", param="group_by")


def _wanted(row: Row, query: UsageQuery) -> bool:
    at, _, entry, _ = row
    return (
        (query.tenant is None or entry.tenant == query.tenant)
        and (query.since is None or at >= query.since)
        and (query.until is None or at < query.until)
    )


def _group(row: Row, names: tuple[str, ...]) -> tuple[str, ...]:
    at, _, entry, _ = row
    day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
    return tuple(day if name == "day" else getattr(entry, name) or "" for name in names)


def _summed(names: tuple[str, ...], group: tuple[str, ...], rows: list[Row]) -> UsageRow:
    entries = [entry for _, _, entry, _ in rows]
    return UsageRow(
        group=dict(zip(names, group, strict=True)),
        requests=sum(last for _, last, _, _ in rows),
        prompt_tokens=sum(entry.usage.prompt_tokens for entry in entries),
        completion_tokens=sum(entry.usage.completion_tokens for entry in entries),
        cached_tokens=sum(entry.usage.cached_tokens for entry in entries),
        cost=sum(entry.amount for entry in entries),
        billed=sum(entry.billed for entry in entries),
        saved=sum(entry.saved for entry in entries),
        shared=sum(entry.shared for entry in entries),
    )


def usage_row(names: tuple[str, ...], group: Sequence[Any], sums: Iterable[int]) -> UsageRow:
    """A group, whose values begin with those of `names`, and its sums in the order that UsageRow lists them."""
    requests, prompt, completion, cached, cost, billed, saved, shared = sums
    return UsageRow(
        group=dict(zip(names, group, strict=False)),
        requests=requests,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cost=cost,
        billed=billed,
        saved=saved,
        shared=shared,
    )
