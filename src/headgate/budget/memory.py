"""MemoryLedger: the reference implementation. Exact, but nothing outlives the process."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import groupby

import msgspec

from headgate.budget.book import Book, checked
from headgate.budget.budget import Balance, Entry, Hold, UsageQuery, UsageRow
from headgate.model.errors import InvalidRequest

GROUPS = ("tenant", "key", "user", "feature", "route", "model", "deployment", "source", "day")
"""What usage may be grouped by."""


class MemoryLedger:
    """A ledger in this process's memory."""

    def __init__(self, *, now: Callable[[], float] = time.time, rows: int = 100_000) -> None:
        """`now` is in unix seconds; `usage` sums the newest `rows` rows."""
        self._now = now
        self._book = Book(now=now)
        self._rows: deque[tuple[float, Entry]] = deque(maxlen=rows)
        self._noted: OrderedDict[str, None] = OrderedDict()

    async def reserve(self, hold: Hold) -> None:
        """Hold the amount on all scopes or on none."""
        self._book.reserve(hold)

    async def dispatched(self, id: str) -> None:
        """Remember that the call may have cost something. As durable as anything here: as long as the process."""
        self._book.dispatch(id)

    def settle(self, id: str, entry: Entry) -> None:
        """Replace the hold by what was spent."""
        if self._book.settle(id, entry.amount) is not None:
            self._rows.append((self._now(), entry))

    def release(self, id: str) -> None:
        """Give the hold back."""
        self._book.release(id)

    def note(self, id: str, entry: Entry) -> None:
        """Write a row that held nothing."""
        checked(entry.amount)
        if id in self._noted:
            return
        self._noted[id] = None
        if len(self._noted) > (self._rows.maxlen or 0):
            self._noted.popitem(last=False)
        self._rows.append((self._now(), entry))

    async def expire(self) -> int:
        """End reservations whose lease is over."""
        overdue = self._book.expire()
        self._rows.extend((self._now(), lost_entry(end.hold)) for end in overdue if end.lost)
        return len(overdue)

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope."""
        return self._book.balance(account, window)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sum settled rows by group, ordered by group."""
        check_groups(query)
        chosen = [(_group(at, entry, query.group_by), entry) for at, entry in self._rows if _wanted(at, entry, query)]
        chosen.sort(key=lambda pair: pair[0])
        return [
            _summed(query.group_by, group, [entry for _, entry in pairs])
            for group, pairs in groupby(chosen, key=lambda pair: pair[0])
        ]

    def open_reservations(self) -> int:
        """How many reservations are neither settled nor released."""
        return len(self._book)

    async def close(self) -> None:
        """Nothing to let go of."""


def lost_entry(hold: Hold) -> Entry:
    """The row of a call whose end nobody saw: what was held counts as spent."""
    return msgspec.structs.replace(hold.entry, amount=hold.amount)


def check_groups(query: UsageQuery) -> None:
    """Raises InvalidRequest unless usage can be grouped as asked."""
    for name in query.group_by:
        if name not in GROUPS:
            raise InvalidRequest(f"Usage cannot be grouped by {name!r}, only by {', '.join(GROUPS)}.", param="group_by")


def _wanted(at: float, entry: Entry, query: UsageQuery) -> bool:
    return (
        (query.tenant is None or entry.tenant == query.tenant)
        and (query.since is None or at >= query.since)
        and (query.until is None or at < query.until)
    )


def _group(at: float, entry: Entry, names: tuple[str, ...]) -> tuple[str, ...]:
    day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
    return tuple(day if name == "day" else getattr(entry, name) or "" for name in names)


def _summed(names: tuple[str, ...], group: tuple[str, ...], entries: list[Entry]) -> UsageRow:
    return UsageRow(
        group=dict(zip(names, group, strict=True)),
        requests=len(entries),
        prompt_tokens=sum(entry.usage.prompt_tokens for entry in entries),
        completion_tokens=sum(entry.usage.completion_tokens for entry in entries),
        cached_tokens=sum(entry.usage.cached_tokens for entry in entries),
        cost=sum(entry.amount for entry in entries),
        saved=sum(entry.saved for entry in entries),
    )
