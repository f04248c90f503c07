"""SqliteLedger: the arithmetic of Book, with every hold and every settlement written to an append-only journal in one SQLite file.

Balances live in memory and are rebuilt from the journal when the file is opened; one process at a time may keep a ledger.
A call waits for the disk once: `dispatched` waits until the row of its hold is committed, and shares that commit with every
other call. Settlements are written with the next batch; a process killed before that finds the hold when it comes back and
counts the call at what was held for it. A reservation that was not dispatched lives in memory only: nothing has left, so when
it is given back, or its process dies, nothing happened.

Invariant: nothing is dispatched that the journal does not know. When the file cannot be written, `reserve` and `dispatched`
raise Overloaded, and what was already under way is kept in memory and written when the disk allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from headgate.budget.book import Book, Place, checked, places_of
from headgate.budget.budget import Balance, Entry, Hold, UsageQuery, UsageRow
from headgate.budget.journal import INSERT, SCHEMA, Journal, end_open, ended, fold
from headgate.budget.memory import lost_entry
from headgate.storage.commits import Commits, Value
from headgate.storage.sqlite import Checkpoints, Claim, connect, migrate, transaction

KEEP = 86_400.0
"""Seconds that a window's balance is kept after the window has ended."""

FOLD_EVERY = 50_000
"""Journal rows after which the running sums are brought up to date, so that opening stays quick after a kill."""


class SqliteLedger:
    """A ledger in one file. Opening it ends whatever a former process left open."""

    def __init__(self, path: str | Path, *, now: Callable[[], float] = time.time) -> None:
        """Open or create the file; `now` is in unix seconds.

        Blocks while it reads the journal's newest part. Raises Conflict when another process keeps this ledger.
        """
        self._now = now
        self._claim = Claim(path)
        try:
            connection = connect(path)
            migrate(connection, SCHEMA)
            with transaction(connection):
                self.recovered = end_open(connection, now())
            self._book = Book(now=now, keep=KEEP)
            for place, spent in fold(connection, oldest=now() - KEEP).items():
                self._book.load(place, spent)
            for id, state, places in ended(connection):
                self._book.remember(id, state, places)
        except BaseException:
            self._claim.release()
            raise
        self._commits = Commits(connection, INSERT, Checkpoints(path))
        self._journal = Journal(path)
        self._unfolded = 0

    @property
    def lag(self) -> float:
        """Seconds that the oldest row has waited for the disk."""
        return self._commits.lag

    async def reserve(self, hold: Hold) -> None:
        """Hold the amount on all scopes or on none. Raises BudgetExceeded, or Overloaded when the journal is stuck."""
        self._commits.admit()
        self._book.reserve(hold)

    async def dispatched(self, id: str) -> None:
        """Durable: commit that the call may cost something. Raises Overloaded: then it must not be made."""
        self._commits.admit()
        hold = self._book.dispatch(id)
        if hold is not None:
            self._write(id, "hold", lost_entry(hold), places_of(hold))
        await self._commits.durable()

    def settle(self, id: str, entry: Entry) -> None:
        """Replace the hold by what was spent."""
        places = self._book.settle(id, entry.amount)
        if places is not None:
            self._write(id, "settle", entry, places)

    def release(self, id: str) -> None:
        """Give the hold back."""
        self._book.release(id)

    def note(self, id: str, entry: Entry) -> None:
        """Write a row that held nothing. Raises Overloaded when the journal is stuck."""
        checked(entry.amount)
        checked(entry.saved)
        self._commits.admit()
        self._write(id, "note", entry, ())

    async def expire(self) -> int:
        """End reservations whose lease is over, and now and then bring the running sums up to date."""
        overdue = self._book.expire()
        for end in overdue:
            if end.lost:
                self._write(end.hold.id, "lost", lost_entry(end.hold), places_of(end.hold))
        if self._unfolded >= FOLD_EVERY:
            self._unfolded = 0
            await self._journal.fold(oldest=self._now() - KEEP)
        return len(overdue)

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope."""
        return self._book.balance(account, window)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sum settled rows by group, ordered by group; everything written before this call is in it."""
        await self._commits.durable()
        return await self._journal.usage(query)

    async def lost(self) -> int:
        """Nano-USD that were settled at their holds because nobody saw the end of the call."""
        await self._commits.durable()
        return await self._journal.lost()

    def open_reservations(self) -> int:
        """How many reservations are neither settled nor released."""
        return len(self._book)

    async def close(self) -> None:
        """Write everything and let go of the file. Raises Overloaded when something could not be written."""
        try:
            await self._commits.close()
            await self._journal.fold(oldest=self._now() - KEEP)
        finally:
            self._journal.close()
            self._claim.release()

    def _write(self, id: str, kind: str, entry: Entry, places: tuple[Place, ...]) -> None:
        usage = entry.usage
        row: tuple[Value, ...] = (
            id,
            kind,
            self._now(),
            entry.tenant,
            entry.key,
            entry.user,
            entry.feature,
            entry.route,
            entry.model,
            entry.deployment,
            entry.source,
            entry.amount,
            entry.saved,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            usage.estimated,
            places,
        )
        self._commits.append(row)
        self._unfolded += 1
