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

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from headgate.budget.book import Book, Held, lost_entry
from headgate.budget.budget import (
    Alert,
    Balance,
    Change,
    Entry,
    Hold,
    Match,
    Repricing,
    Scope,
    UsageQuery,
    UsageRow,
)
from headgate.budget.journal import INSERT, SCHEMA, Journal, alert_row, change_row, price_row, row_of, seed_rows
from headgate.budget.memory import billed
from headgate.budget.places import Places
from headgate.budget.recovery import recover
from headgate.storage.commits import Commits
from headgate.storage.sqlite import Checkpoints, Claim, connect, migrate

KEEP = 7_200.0
"""Seconds that a window's balance is kept after the window has ended."""

FOLD_EVERY = 20_000
"""Journal rows after which the running sums are brought up to date, so that opening stays quick after a kill: it reads, verifies
and adds up what came after them."""


class SqliteLedger:
    """A ledger in one file. Opening it ends whatever a former process left open."""

    def __init__(
        self,
        path: str | Path,
        *,
        now: Callable[[], float] = time.time,
        on_alert: Callable[[Alert], None] = lambda _: None,
    ) -> None:
        """Open or create the file; `now` is in unix seconds; `on_alert` is told each threshold that is passed.

        Blocks while it reads the journal's newest part. Raises Conflict when another process keeps this ledger, or when its
        file is damaged.
        """
        self._now = now
        self._on_alert = on_alert
        self._claim = Claim(path)
        with ExitStack() as undone:
            undone.callback(self._claim.release)
            connection = connect(path)
            undone.callback(connection.close)
            migrate(connection, SCHEMA)
            self._book = Book(now=now, keep=KEEP)
            self.recovered, self._counted = recover(connection, self._book, now(), oldest=now() - KEEP)
            undone.pop_all()
        self._commits = Commits(connection, INSERT, Checkpoints(path))
        self._journal = Journal(path, now=now)
        self._places = Places()
        self._counting = asyncio.Lock()
        self._unfolded = 0

    @property
    def lag(self) -> float:
        """Seconds that the oldest row has waited for the disk."""
        return self._commits.lag

    async def reserve(self, hold: Hold) -> int:
        """Hold money on all scopes or on none. Raises BudgetExceeded, or Overloaded when the journal is stuck."""
        self._commits.admit()
        return self._book.reserve(hold)

    async def dispatched(self, id: str) -> None:
        """Durable: commit that the call may cost something. Raises Overloaded: then it must not be made."""
        self._commits.admit()
        held = self._book.dispatch(id)
        if held is not None:
            scopes = self._places.text(held.hold.scopes)
            self._write(row_of(id, "hold", self._now(), lost_entry(held.hold, held.amount), scopes=scopes))
        await self._commits.durable()

    async def extend(self, id: str, lease: float, amount: int | None = None) -> None:
        """Begin the lease anew, and hold more; durable when the call was dispatched."""
        before = self._book.held(id)
        held = self._book.extend(id, lease, amount)
        if held is not None and held.dispatched:
            entry = msgspec.structs.replace(held.hold.entry, amount=held.amount - before)
            self._write(row_of(id, "extend", self._now(), entry, attempt=held.amount))
        if amount is not None:
            # Also when it is held already: who asked before may have been told that it could not be written.
            await self._commits.durable()

    def settle(self, id: str, bill: Sequence[Entry]) -> None:
        """Replace the hold by what was spent."""
        ended = self._book.settle(id, bill)
        if ended is None:
            return
        last = len(bill) - 1
        for attempt, entry in enumerate(bill):
            kind, surcharge = ("settle", ended.surcharge) if attempt == last else ("charge", 0)
            scopes = self._places.text(ended.hold.scopes, entry.deployment)
            row = row_of(id, kind, self._now(), billed(entry, surcharge), attempt=attempt, scopes=scopes)
            self._write(row)
        self._tell()

    def release(self, id: str) -> None:
        """Give the hold back."""
        self._book.release(id)

    def note(self, id: str, entry: Entry) -> None:
        """Write a row about an answer from stock. Raises Overloaded when the journal is stuck."""
        self._commits.admit()
        ended = self._book.note(id, entry)
        scopes = "[]" if ended is None else self._places.text(ended.hold.scopes, entry.deployment)
        self._write(row_of(id, "note", self._now(), entry, scopes=scopes))
        if ended is not None:
            self._tell()

    async def expire(self) -> int:
        """End reservations whose lease is over, and now and then bring the running sums up to date."""
        before = len(self._book)
        for end in self._book.expire():
            entry, scopes = lost_entry(end.hold, end.amount), self._places.text(end.hold.scopes)
            self._write(row_of(end.hold.id, "lost", self._now(), entry, scopes=scopes))
        self._tell()
        ended = before - len(self._book)
        if self._unfolded >= FOLD_EVERY:
            self._unfolded = 0
            await self._journal.fold(oldest=self._now() - KEEP)
        return ended

    async def count(self, scope: Scope, match: Match) -> None:
        """Count a scope from now on: the open reservations, and what the journal says of those that ended before."""
        place = (scope.account, scope.window)
        async with self._counting:
            if place in self._counted:
                return
            for held in self._book.adopt(scope, match):
                self._write_adopted(held)
            await self._commits.durable()
            spent = await self._journal.spent_before(match, place)
            self._counted.add(place)
            self._book.counters.of(scope).spent += spent
            for row in seed_rows(place, spent, self._now()):
                self._write(row)
            await self._commits.durable()

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope."""
        return self._book.balance(account, window)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sum settled rows by group, ordered by group; everything written before this call is in it."""
        await self._commits.durable()
        return await self._journal.usage(query)

    async def change(self, change: Change) -> None:
        """Durable: write a change."""
        self._commits.admit()
        self._write(change_row(change, self._now()))
        await self._commits.durable()

    async def changes(self, after: int = 0) -> tuple[int, list[Change]]:
        """All changes behind a row, those of other processes too."""
        return await self._journal.changes(after)

    async def reprice(self, repricing: Repricing) -> None:
        """Durable: write a change of a price."""
        self._commits.admit()
        self._write(price_row(repricing, self._now()))
        await self._commits.durable()

    async def repricings(self, after: int = 0) -> tuple[int, list[Repricing]]:
        """All changes of prices behind a row, those of other processes too."""
        return await self._journal.repricings(after)

    async def answers(self, most: int) -> list[tuple[str, str, int]]:
        """Tenant, route and output tokens of answers among the newest `most` rows, oldest first."""
        return await self._journal.answers(most)

    async def lost(self) -> int:
        """Nano-USD that were settled at their holds because nobody saw the end of the call."""
        await self._commits.durable()
        return await self._journal.lost()

    def peek(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope that is counted at present."""
        return self._book.balance(account, window)

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

    def _write(self, row: bytes) -> None:
        self._commits.append(row)
        self._unfolded += 1

    def _write_adopted(self, held: Held) -> None:
        scopes = self._places.text(held.hold.scopes)
        row = row_of(held.hold.id, "adopt", self._now(), held.hold.entry, attempt=len(held.hold.scopes), scopes=scopes)
        self._write(row)

    def _tell(self) -> None:
        """Write down each threshold that was passed, and tell it."""
        for alert in self._book.alerts():
            self._write(alert_row(alert, self._now()))
            self._on_alert(alert)
