"""Holding: the reservations of this process, held in a till and marked in the journal before their calls leave.

A hold is good for the epoch in which it was made. When the journal says that this one is over, because the till forgot and was filled anew or a
scope began to be counted, the hold is made again in the new one; the caller notices only when there is no room any more.

Invariant: nothing is sent whose hold is not in a till of the epoch in force, unless no budget limits it, or the journal cannot be asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from msgspec.structs import replace

from headgate.budget.asking import Asking, Told
from headgate.budget.book import lost_entry
from headgate.budget.budget import Balance, Hold, Scope
from headgate.budget.poster import Poster
from headgate.budget.postings import Posting, SharedJournal, Written, by_owner
from headgate.budget.room import refusal
from headgate.budget.thresholds import Thresholds
from headgate.budget.till import Gone, Granted, Refused, owner_of
from headgate.model.errors import GatewayError, Overloaded

TRIES = 5
"""Times that a hold is made again whose epoch is over."""


class Kept:
    """A reservation of this process that has not ended.

    parts   its scopes by owner; `epochs`: in which these are held, of those that are
    sent    done when its hold is in the journal; none before it is dispatched
    """

    __slots__ = ("amount", "capped", "epochs", "hold", "lease", "parts", "sent")

    def __init__(self, hold: Hold, amount: int, epochs: dict[str, int]) -> None:
        self.hold = hold
        self.amount = amount
        self.epochs = epochs
        self.lease = hold.lease
        self.parts = by_owner(hold.scopes)
        self.capped = is_capped(hold.scopes)
        self.sent: asyncio.Future[None] | None = None

    def add(self, scope: Scope) -> None:
        """Count it on a further scope; on that one's owner it is to be held anew."""
        self.hold = replace(self.hold, scopes=(*self.hold.scopes, scope))
        self.parts = by_owner(self.hold.scopes)
        self.epochs.pop(owner_of(scope.account), None)


class Holding:
    """What is done with a till and a journal for one reservation. Methods raise Overloaded as Ledger has it."""

    def __init__(
        self,
        asking: Asking,
        poster: Poster,
        journal: SharedJournal,
        thresholds: Thresholds,
        *,
        settled: Callable[[Iterable[str]], Awaitable[bool]],
        now: Callable[[], float],
    ) -> None:
        """`settled` returns when these owners' tills know of everything that has ended here; False when nothing was missing."""
        self._asking = asking
        self._poster = poster
        self._journal = journal
        self._thresholds = thresholds
        self._settled = settled
        self._now = now

    async def hold(self, hold: Hold) -> Kept:
        """Hold money on all scopes or on none, but for what the caller gives back: owners may have granted it when this raises."""
        parts = by_owner(hold.scopes)
        told = await self._asked(hold, parts)
        if _refused(told) and await self._settled(parts):
            # What has ended here frees money as soon as the journal and then the till know of it.
            told = await self._asked(hold, parts)
        granted = {owner: answer for owner, answer in told.items() if isinstance(answer, Granted)}
        if len(granted) < len(parts):
            raise self._refusal(hold, parts, told, None)
        least = min((answer.amount for answer in granted.values()), default=hold.amount)
        more = {owner: parts[owner] for owner, answer in granted.items() if answer.amount > least}
        if more:
            told = {**told, **await self._asking.extend(hold.id, more, hold.lease, least)}
        self._saw(parts, told)
        return Kept(hold, least, {owner: answer.epoch for owner, answer in granted.items()})

    async def send(self, kept: Kept) -> None:
        """Durable: mark it as dispatched. Held again where its epoch is over; Overloaded when there is no room for it any more."""
        hold = kept.hold
        for _ in range(TRIES):
            if kept.capped and kept.parts.keys() > kept.epochs.keys():
                await self.regain(kept)  # it counts on a further scope since it was held
            written = await self._poster.write(
                Posting(
                    act="hold",
                    id=hold.id,
                    at=self._now(),
                    scopes=kept.hold.scopes,
                    bill=(lost_entry(kept.hold, kept.amount),),
                    amount=kept.amount,
                    tokens=hold.tokens,
                    lease=kept.lease,
                    epochs=dict(kept.epochs) if kept.capped else {},
                    capped=kept.capped,
                )
            )
            if written.taken or written.state == "open":
                return
            if not written.fenced:
                break
            await self.regain(kept)
        raise gone()

    async def regain(self, kept: Kept) -> None:
        """Hold it again where it is not held in the epoch in force. Raises Overloaded when there is no room."""
        parts = {
            owner: part
            for owner, part in kept.parts.items()
            if owner not in kept.epochs or self._asking.is_over(owner, kept.epochs[owner])
        }
        told = await self._asked(kept.hold, parts, kept.amount)
        for owner, answer in told.items():
            if not isinstance(answer, Granted):
                raise Overloaded("Other calls hold what this one held before counters were rebuilt.", retry_after=1.0)
            kept.epochs[owner] = answer.epoch
        self._saw(parts, told)

    async def renew(self, kept: Kept) -> None:
        """Begin its lease anew, as soon as the till can be asked; Overloaded when it has ended."""
        try:
            told = await self._asking.extend(kept.hold.id, kept.parts, kept.lease, None)
        except Overloaded:
            self._asking.doubt()
            return
        await self._check(kept, told)

    async def more(self, kept: Kept, wanted: int) -> None:
        """Hold more; durable when it was dispatched. Raises as Ledger.extend."""
        before = kept.amount
        for _ in range(TRIES):
            granted = await self._granted_more(kept, wanted)
            if not granted:
                continue
            if kept.sent is None:
                kept.amount = wanted
                return
            written = await self._write_more(kept, wanted, wanted - before)
            if written.taken or (written.state == "open" and not written.fenced):
                kept.amount = wanted
                return
            if not written.fenced:
                break
        raise gone()

    async def _granted_more(self, kept: Kept, wanted: int) -> bool:
        """Whether the till holds so much now; False when that has to be tried again. Without a till, what no budget limits goes on."""
        id, parts, needed = kept.hold.id, kept.parts, wanted - kept.amount
        try:
            told = await self._asking.extend(id, parts, kept.lease, wanted)
            if _refused(told) and await self._settled(parts):
                told = await self._asking.extend(id, parts, kept.lease, wanted)
            if parts is not kept.parts or not await self._check(kept, told):
                return False  # it counts on a further scope meanwhile, or was unknown
            if _refused(told):
                back = {owner: parts[owner] for owner, answer in told.items() if isinstance(answer, Granted)}
                if back:
                    await self._asking.extend(id, back, kept.lease, kept.amount)
                raise self._refusal(kept.hold, parts, told, needed)
        except Overloaded:
            if kept.capped:
                raise
            return True
        self._saw(parts, told)
        return True

    async def _write_more(self, kept: Kept, wanted: int, more: int) -> Written:
        entry = replace(kept.hold.entry, amount=more)
        return await self._poster.write(
            Posting(
                act="extend",
                id=kept.hold.id,
                at=self._now(),
                bill=(entry,),
                amount=wanted,
                epochs=dict(kept.epochs) if kept.capped else {},
                capped=kept.capped,
            )
        )

    async def _check(self, kept: Kept, told: Mapping[str, Told]) -> bool:
        """Whether the till knew it everywhere. Where it did not: hold it again before it is dispatched; after that, see what the journal says
        and have the till filled. Raises Overloaded when it has ended."""
        kept.epochs.update({owner: answer.epoch for owner, answer in told.items() if isinstance(answer, Granted)})
        missing = [owner for owner, answer in told.items() if isinstance(answer, Gone)]
        if missing and kept.sent is None:
            for owner in missing:
                kept.epochs.pop(owner, None)
            await self.regain(kept)
            return False
        return not missing or await self._is_elsewhere(kept, missing)

    async def _is_elsewhere(self, kept: Kept, missing: Iterable[str]) -> bool:
        """Whether a dispatched call may go on whose hold these owners' tills do not know; False when they were filled with it."""
        call = (await self._journal.calls([kept.hold.id])).get(kept.hold.id)
        if call is not None and call.state != "open":
            raise gone()
        if not kept.capped:
            return True  # it was dispatched without a till, and what it costs is counted at its end
        if call is None:
            raise Overloaded("The call's hold waits for the journal.", retry_after=1.0)
        for owner in missing:
            await self._asking.fill(owner)
        return False

    def _asked(
        self, hold: Hold, parts: Mapping[str, tuple[Scope, ...]], amount: int | None = None
    ) -> Awaitable[dict[str, Told]]:
        """What the till says to a hold; to one of just this `amount`, if it is given."""
        return self._asking.hold(
            hold.id,
            parts,
            amount=hold.amount if amount is None else amount,
            least=hold.least if amount is None else amount,
            tokens=hold.tokens,
            lease=hold.lease,
        )

    def _refusal(
        self, hold: Hold, parts: Mapping[str, tuple[Scope, ...]], told: Mapping[str, Told], more: int | None
    ) -> GatewayError:
        """Why there is no room for a hold, or for so much more of it; what some owners granted just now is not what stands in its way."""
        self._saw(parts, told)
        needed, tokens = (hold.least, hold.tokens) if more is None else (more, 0)
        found: dict[tuple[str, str], Balance] = {}
        for owner, answer in told.items():
            balances = () if isinstance(answer, Gone) else answer.balances
            # There are more when the call was adopted by a scope of which only another process knows.
            for scope, balance in zip(parts[owner], balances, strict=False):
                mine = 0
                if isinstance(answer, Granted):
                    mine = tokens if scope.tokens else answer.amount if more is None else more
                found[scope.account, scope.window] = Balance(balance.spent, balance.held - mine)
        scopes = [scope for scope in hold.scopes if (scope.account, scope.window) in found]
        counted = [found[scope.account, scope.window] for scope in scopes]
        try:
            return refusal(scopes, counted, needed, tokens, self._now())
        except ValueError:  # a scope refuses of which this process has not learnt yet
            return Overloaded("Calls in flight hold what is left of a budget.", retry_after=1.0)

    def _saw(self, parts: Mapping[str, tuple[Scope, ...]], told: Mapping[str, Told]) -> None:
        for owner, answer in told.items():
            if not isinstance(answer, Gone):
                for scope, balance in zip(parts[owner], answer.balances, strict=False):
                    self._thresholds.saw(scope, balance)


def is_capped(scopes: Iterable[Scope]) -> bool:
    """Whether a budget limits what counts on these."""
    return any(scope.cap is not None for scope in scopes)


def gone() -> Overloaded:
    """What has ended cannot be dispatched or extended."""
    return Overloaded("The call's reservation ended before the call was sent.", retry_after=1.0)


def _refused(told: Mapping[str, Told]) -> bool:
    return any(isinstance(answer, Refused) for answer in told.values())
