"""SharedLedger: the ledger of several processes, over a till that is quick and a journal that is true.

    reserve      asks the till, all owners of the call's scopes at the same time
    dispatched   waits until the journal has the hold, under the epochs in which the till granted it
    settle       is written behind; after the journal has it, the till is told

A process knows its own reservations. Those of others it learns of only when their lease is over: then it looks into the journal, where a call
that was dispatched and has no end is ended as lost, once, whoever looks first.

Invariant: what was dispatched is in the journal (or, while it cannot be asked, in this process's spool) before its call leaves, and was held in
a till that knew of everything that was dispatched before. So a till may forget whatever it likes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from msgspec.structs import replace

from headgate.budget.asking import Asking
from headgate.budget.book import State, checked, checked_entry, lost_entry, matches, same
from headgate.budget.budget import Alert, Balance, Change, Entry, Hold, Match, Repricing, Scope, UsageQuery, UsageRow
from headgate.budget.holding import Holding, Kept, gone, is_capped
from headgate.budget.overdue import Overdues
from headgate.budget.poster import Poster
from headgate.budget.postings import ENDINGS, Act, Posting, Report, SharedJournal, by_owner, endings_of, spent_of
from headgate.budget.spool import Spool
from headgate.budget.teller import Teller
from headgate.budget.thresholds import Thresholds
from headgate.budget.till import Till, owner_of
from headgate.model.errors import GatewayError, Overloaded

Value = TypeVar("Value")

REMEMBER = 32_768
"""Ended reservations whose ids are still known, so that a repeat is recognised."""
STEADY = 10.0
"""Seconds for which a till must have answered before leases are believed to be over: their owners may not have been able to renew them."""


class SharedLedger:
    """A ledger over a till and a journal, both of which others use too."""

    def __init__(
        self,
        till: Till,
        journal: SharedJournal,
        *,
        spool: Spool | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        on_alert: Callable[[Alert], None] = lambda _: None,
    ) -> None:
        """`spool` is this object's from now on; without one nothing is dispatched that a budget limits while the journal cannot be asked.
        `now` is in unix seconds; `on_alert` is told each threshold that is passed, in one of the processes."""
        self._till = till
        self._journal = journal
        self._now = now
        self._monotonic = monotonic
        self._open: dict[str, Kept] = {}
        self._ended: OrderedDict[str, tuple[State, tuple[Scope, ...]]] = OrderedDict()
        self._noted: OrderedDict[str, None] = OrderedDict()
        self._reserving: dict[str, asyncio.Future[None]] = {}
        self._other: OrderedDict[str, str] = OrderedDict()
        self._given_back = 0
        self._counting = asyncio.Lock()
        self._unsettled: Counter[str] = Counter()
        self._overrun: set[str] = set()
        self._unsteady = -STEADY
        self._poster = Poster(journal, spool, self._written, monotonic=monotonic)
        self._teller = Teller(till)
        self._asking = Asking(till, journal, self._poster.replayed)
        self._thresholds = Thresholds(self._poster.put, now, on_alert)
        self._holding = Holding(
            self._asking, self._poster, journal, self._thresholds, settled=self._settled_of, now=now
        )
        self._overdues = Overdues(till, journal, self._poster, self._teller, now=now, monotonic=monotonic)

    @property
    def lag(self) -> float:
        """Seconds that the oldest row has waited for the journal."""
        return self._poster.lag

    async def reserve(self, hold: Hold) -> int:
        """Hold money on all scopes or on none. Raises BudgetExceeded or RateLimited; and Overloaded when a budget limits the call and till
        or journal cannot be asked, or when too much waits for the journal."""
        amount, least = checked(hold.amount), checked(hold.least)
        while (under_way := self._reserving.get(hold.id)) is not None:
            await asyncio.shield(under_way)
        id = self._id(hold.id)
        if id in self._open or id in self._ended:
            return self._open[id].amount if id in self._open else amount
        if least > amount:
            raise ValueError("a hold needs more than it asks for")
        checked(hold.tokens)
        self._poster.admit(capped=is_capped(hold.scopes))
        done = self._reserving[hold.id] = asyncio.get_running_loop().create_future()
        try:
            kept = self._open[id] = await self._held(hold.id, hold if id == hold.id else replace(hold, id=id))
        finally:
            del self._reserving[hold.id]
            done.set_result(None)
        return kept.amount

    async def dispatched(self, id: str) -> None:
        """Durable: the journal has the hold, or the spool does. Raises Overloaded: then the call must not be made."""
        kept = self._kept(id)
        if kept.sent is not None:
            await asyncio.shield(kept.sent)
            return
        self._poster.admit(capped=kept.capped)
        sent = kept.sent = asyncio.get_running_loop().create_future()
        sent.add_done_callback(asyncio.Future.exception)  # whether anybody else waits for it or not
        try:
            await self._holding.send(kept)
        except BaseException as error:
            sent.set_exception(error if isinstance(error, GatewayError) else gone())
            kept.sent = None
            if isinstance(error, GatewayError):
                self._let_go(kept)
            raise
        sent.set_result(None)

    async def extend(self, id: str, lease: float, amount: int | None = None) -> None:
        """Begin the lease anew, and hold more; durable when the call was dispatched. A lease alone is begun anew as soon as the till can be
        asked."""
        kept = self._kept(id)
        wanted = kept.amount if amount is None else checked(amount)
        kept.lease = lease
        try:
            if wanted <= kept.amount:
                await self._holding.renew(kept)
            else:
                await self._holding.more(kept, wanted)
        except Overloaded:
            if kept.sent is None:
                self._let_go(kept)
            raise
        if amount is not None and kept.sent is not None:
            await asyncio.shield(kept.sent)

    def settle(self, id: str, bill: Sequence[Entry]) -> None:
        """Replace the hold by what was spent."""
        if not bill:
            raise ValueError("a bill has at least one entry")
        for entry in bill:
            checked_entry(entry)
        self._end("settle", self._id(id), tuple(bill))

    def release(self, id: str) -> None:
        """Give the hold back."""
        kept = self._open.get(self._id(id))
        if kept is not None and kept.sent is None:
            self._let_go(kept)

    def note(self, id: str, entry: Entry) -> None:
        """Write a row about an answer from stock."""
        checked_entry(entry)
        id = self._id(id)
        if id not in self._noted:
            _remember(self._noted, id, None)
            if not self._end("note", id, (entry,)):
                _remember(self._ended, id, self._ended.get(id, ("settled", ())))
                self._poster.put(Posting(act="note", id=id, at=self._now(), bill=(entry,)))

    async def expire(self) -> int:
        """End reservations whose lease is over, of this process and of others, and bring right what was missed while a store was away."""
        ended = 0
        self._poster.go_on()
        try:
            for owner in tuple(self._teller.missed):
                if await self._asking.fill(owner):
                    self._teller.missed.discard(owner)
            if self._is_steady():
                mine = dict.fromkeys(owner for kept in self._open.values() for owner in kept.parts)
                ended = await self._overdues.end(tuple(mine), self._lose)
        except Overloaded:
            self._asking.doubt()
        self._teller.missed.update(await self._overdues.look_around())
        self._thresholds.prune(self._now())
        if ended:
            await self._settled()
        return ended

    async def count(self, scope: Scope, match: Match) -> None:
        """Count a scope from now on: what the journal says its calls spent, and those that are open."""
        owner = owner_of(scope.account)
        async with self._counting:
            adopted = False
            for kept in self._open.values():
                if matches(match, kept.hold.entry) and not any(same(scope, other) for other in kept.hold.scopes):
                    kept.add(scope)
                    adopted = True
            await self._settled()
            epoch = await self._journal.count(scope, match, anew=adopted)
            if epoch is not None:
                self._asking.learn(owner, epoch)
                with suppress(Overloaded):
                    await self._asking.fill(owner)
                    waiting = [kept for kept in self._open.values() if owner in kept.parts and kept.sent is None]
                    # Who finds no room now looks once more before its call leaves.
                    await asyncio.gather(*map(self._holding.regain, waiting), return_exceptions=True)

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope; where the till does not know it, what the journal knows."""
        await self._settled()
        found = None
        with suppress(Overloaded):
            found = await self._till.balance(owner_of(account), (account, window))
        return await self._journal.balance(account, window) if found is None else found

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sum settled rows by group, ordered by group; everything that this process wrote before is in it."""
        await self._settled()
        await self._poster.flushed()  # alerts come of what was written
        return await self._journal.usage(query)

    async def change(self, change: Change) -> None:
        """Durable: write a change."""
        await self._journal.change(change)

    async def changes(self, after: int = 0) -> tuple[int, list[Change]]:
        """All changes behind a row, those of other processes too."""
        return await self._journal.changes(after)

    async def reprice(self, repricing: Repricing) -> None:
        """Durable: write a change of a price."""
        await self._journal.reprice(repricing)

    async def repricings(self, after: int = 0) -> tuple[int, list[Repricing]]:
        """All changes of prices behind a row, those of other processes too."""
        return await self._journal.repricings(after)

    async def answers(self, most: int) -> list[tuple[str, str, int]]:
        """Tenant, route and output tokens of answers among the newest `most` rows, oldest first."""
        return await self._journal.answers(most)

    async def lost(self) -> int:
        """Nano-USD that were settled at their holds because nobody saw the end of the call."""
        await self._settled()
        return await self._journal.lost()

    def peek(self, account: str, window: str) -> Balance:
        """What the till said last of a scope in this process."""
        return self._thresholds.peek(account, window)

    def open_reservations(self) -> int:
        """How many reservations of this process are neither settled nor released."""
        return len(self._open)

    async def close(self) -> None:
        """Write everything, or leave it in the spool. Raises Overloaded when something is in neither."""
        for id in tuple(self._open):
            self.release(id)
        try:
            await self._poster.close()
        finally:
            await self._teller.close()
            await self._till.close()

    def _id(self, id: str) -> str:
        """What a reservation is called here: not as one whose hold was given back, for a till knows that as ended."""
        return self._other.get(id, id)

    def _kept(self, id: str) -> Kept:
        kept = self._open.get(self._id(id))
        if kept is None:
            raise gone()
        return kept

    async def _held(self, asked: str, hold: Hold) -> Kept:
        """Hold it. Without a till or a journal, a call that no budget limits goes on."""
        owners = by_owner(hold.scopes)
        if not self._overrun.isdisjoint(owners):
            # What was spent beyond its hold is not known to the till yet.
            await self._settled()
            self._overrun.difference_update(owners)
        try:
            return await self._holding.hold(hold)
        except ValueError:
            raise
        except BaseException as error:
            if isinstance(error, Overloaded) and not is_capped(hold.scopes):
                return Kept(hold, hold.amount, {})  # who has granted it nonetheless is told of its end
            if len(owners) > 1 or not isinstance(error, GatewayError) or isinstance(error, Overloaded):
                # Some owners may have granted it. Who asks again for this id asks for another.
                self._teller.tell(endings_of(hold.id, 0, {}, tuple(owners)))
                self._given_back += 1
                _remember(self._other, asked, f"{asked}~{self._given_back}")
            raise

    def _let_go(self, kept: Kept) -> None:
        """It ends without having left."""
        if self._open.get(kept.hold.id) is kept:
            del self._open[kept.hold.id]
            _remember(self._ended, kept.hold.id, ("released", kept.hold.scopes))
            self._teller.tell(endings_of(kept.hold.id, 0, {}, tuple(kept.parts)))

    def _lose(self, id: str) -> bool:
        """End a reservation of this process whose lease is over; whether there was one."""
        kept = self._open.get(id)
        if kept is None:
            return False
        if kept.sent is None:
            self._let_go(kept)
        else:
            self._end("lost", id, (lost_entry(kept.hold, kept.amount),))
        return True

    def _end(self, act: Act, id: str, bill: tuple[Entry, ...]) -> bool:
        """Write behind how a reservation ended; False when it has ended before, or there was none."""
        kept = self._open.pop(id, None)
        state, scopes = self._ended.get(id, ("settled", ()))
        if kept is None and state != "released":
            return False
        scopes = scopes if kept is None else kept.hold.scopes
        _remember(self._ended, id, ("lost" if act == "lost" else "settled", scopes))
        posting = Posting(
            act=act, id=id, at=self._now(), scopes=scopes, bill=bill, amount=0 if kept is None else kept.amount
        )
        owners = by_owner(scopes)
        self._unsettled.update(list(owners))
        if kept is None or _exceeds(kept, posting):
            self._overrun.update(owners)
        self._poster.put(posting)
        return True

    def _written(self, postings: Sequence[Posting], report: Report) -> None:
        """A batch is in the journal: now the till may be told."""
        for owner, epoch in report.epochs.items():
            self._asking.learn(owner, epoch)
        for posting, written in zip(postings, report.written, strict=True):
            owners = by_owner(posting.scopes)
            if posting.act in ENDINGS:
                self._unsettled -= Counter(list(owners))
                # A settlement that is there already is this one, written again because nobody knew what had become of it.
                if written.taken or (written.state == "settled" and posting.act != "lost"):
                    self._teller.tell(endings_of(posting.id, written.number, spent_of(posting), tuple(owners)))
            elif posting.spooled and written.taken and written.state == "open":
                # A till that was filled meanwhile may not know it.
                self._teller.missed.update(owners)
        self._thresholds.written(postings, report)

    async def _settled(self) -> None:
        """Return when journal and till know what has ended here, or cannot be told now."""
        await self._poster.flushed()
        await self._teller.told()

    async def _settled_of(self, owners: Iterable[str]) -> bool:
        """The same for these owners; whether there was anything that the till did not know."""
        waits = any(self._unsettled[owner] for owner in owners) or self._teller.waits_for(owners)
        if waits:
            await self._settled()
        return waits

    def _is_steady(self) -> bool:
        """Whether the till has answered for long enough for those who hold something to have renewed their leases."""
        if self._asking.doubted:
            self._asking.doubted = False
            self._unsteady = self._monotonic()
        return self._monotonic() - self._unsteady >= STEADY


def _exceeds(kept: Kept, posting: Posting) -> bool:
    """Whether a call has spent more than it held on one of its scopes."""
    spent = spent_of(posting)
    return any(
        spent.get((scope.account, scope.window), 0) > (kept.hold.tokens if scope.tokens else kept.amount)
        for scope in posting.scopes
    )


def _remember(known: OrderedDict[str, Value], id: str, value: Value) -> None:
    known[id] = value
    if len(known) > REMEMBER:
        known.popitem(last=False)
