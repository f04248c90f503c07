"""Overdue: reservations whose lease is over, of this process and of processes that are gone, and what has to be looked after besides.

Only a till says that a lease is over. What then becomes of a reservation the journal decides, once: dispatched without an end, it is lost, which is
to say spent at its hold; never dispatched, it is marked as released first, so that a process that was merely slow cannot dispatch it any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from headgate.budget.book import lost_entry
from headgate.budget.budget import Hold
from headgate.budget.poster import Poster
from headgate.budget.postings import Call, Posting, SharedJournal, endings_of
from headgate.budget.teller import Teller
from headgate.budget.till import Ending, Overdue, Till
from headgate.budget.windows import kind_of
from headgate.model.errors import Overloaded

log = logging.getLogger(__name__)

OTHERS = 32
"""Owners that are looked at in a round besides those of this process."""
AT_ONCE = 200
"""Reservations of one owner that are ended in a round."""
EVERY = 300.0
"""Seconds between two looks at what nobody attends to and at what can be forgotten."""


class Overdues:
    """Looks for what is overdue."""

    def __init__(
        self,
        till: Till,
        journal: SharedJournal,
        poster: Poster,
        teller: Teller,
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._till = till
        self._journal = journal
        self._poster = poster
        self._teller = teller
        self._now = now
        self._monotonic = monotonic
        self._looked = monotonic() - EVERY

    async def end(self, owners: Sequence[str], lose: Callable[[str], bool]) -> int:
        """End what is overdue of these owners and of some others; how many. `lose` ends one that is this process's own, and says whether
        it was. Raises Overloaded when till or journal cannot be asked now."""
        looked = dict.fromkeys([*owners, *await self._till.owners(OTHERS)])
        found = await asyncio.gather(*(self._till.overdue(owner, AT_ONCE) for owner in looked))
        late: dict[str, list[Overdue]] = {}
        for one in (one for some in found for one in some):
            late.setdefault(one.id, []).append(one)
        others = [id for id in late if not lose(id)]
        ended = len(late) - len(others)
        if others:
            calls = await self._journal.calls(others)
            over = [id for id in others if id in calls and calls[id].state != "open"]
            for id in others:
                if id not in over:
                    ended += await self._end(calls.get(id), late[id])
            if over:
                self._tell_again(over, late, await self._journal.endings(over))
        return ended

    async def look_around(self) -> list[str]:
        """Now and then: forget what is over, and name the owners of calls that no till may know of. Never raises."""
        if self._monotonic() - self._looked < EVERY:
            return []
        self._looked = self._monotonic()
        with suppress(Overloaded):
            owners = await self._journal.unattended()
            try:
                await self._journal.sweep()
            except Exception:  # to divide the journal is no right that every user of a database has
                log.exception("the journal could not be swept; it is tried again")
            return owners
        return []

    async def _end(self, call: Call | None, late: Sequence[Overdue]) -> int:
        """End what another process began; 1 if it was this that ended it."""
        id = late[0].id
        if call is not None:
            hold = Hold(id=id, scopes=call.scopes, amount=0, least=0, tokens=call.tokens, lease=0.0, entry=call.entry)
            entry = lost_entry(hold, call.amount)
            # A rate of tokens begins anew when a process is gone.
            scopes = tuple(scope for scope in call.scopes if kind_of(scope.window) != "minute")
            posting = Posting(
                act="lost", id=id, at=self._now(), scopes=scopes, bill=(entry,), amount=call.amount, capped=True
            )
            return int((await self._poster.write(posting)).taken)
        written = await self._poster.write(Posting(act="release", id=id, at=self._now(), capped=True))
        if written.state == "released":
            self._teller.tell(endings_of(id, 0, {}, [one.owner for one in late]))
        return int(written.taken)

    def _tell_again(self, over: Sequence[str], late: dict[str, list[Overdue]], endings: Sequence[Ending]) -> None:
        """Tell the till of endings that it was not told of; of those that spent nothing nowhere, that they have ended."""
        told = {(ending.id, ending.owner) for ending in endings}
        self._teller.tell(endings)
        for id in over:
            for one in late[id]:
                if (id, one.owner) not in told:
                    self._teller.tell(endings_of(id, 0, {}, [one.owner]))
