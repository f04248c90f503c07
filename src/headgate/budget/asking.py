"""Asking: a till is asked for money by several owners at once, and filled from the journal where it knows nothing.

Invariant: an answer counts only under the newest epoch that is known of its owner; nothing is granted on what a till may have forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from headgate.budget.budget import Scope
from headgate.budget.postings import SharedJournal
from headgate.budget.till import Ask, Ending, Gone, Granted, Refused, Till, Unknown
from headgate.model.errors import Overloaded

TRIES = 50
"""Times that one call asks a till which has to be filled first."""
WAIT = 0.05
"""Seconds to wait for somebody else to fill it."""

Told = Granted | Refused | Gone


class Asking:
    """A till with its journal behind it."""

    def __init__(self, till: Till, journal: SharedJournal, replayed: Callable[[], Awaitable[None]]) -> None:
        """`replayed` returns when nothing that this process knows of is missing in the journal."""
        self._till = till
        self._journal = journal
        self._replayed = replayed
        self._epochs: dict[str, int] = {}
        self._filling: dict[str, asyncio.Future[None]] = {}
        self.doubted = False
        """Whether the till could not be asked since somebody set this back: leases may be over that their owners wanted to renew."""

    def learn(self, owner: str, epoch: int) -> None:
        """An owner's epoch is this or a later one."""
        if epoch > self._epochs.get(owner, 0):
            self._epochs[owner] = epoch

    def doubt(self) -> None:
        """The till could not be asked to renew a lease."""
        self.doubted = True

    def is_over(self, owner: str, epoch: int) -> bool:
        """Whether a later epoch is known."""
        return epoch < self._epochs.get(owner, 0)

    async def hold(
        self, id: str, parts: Mapping[str, tuple[Scope, ...]], *, amount: int, least: int, tokens: int, lease: float
    ) -> dict[str, Told]:
        """What each owner's part of a hold is answered. Raises Overloaded when till or journal cannot be asked now."""

        def asked(owner: str) -> Awaitable[Granted | Refused | Unknown]:
            return self._till.hold(
                Ask(
                    id=id,
                    owner=owner,
                    scopes=parts[owner],
                    amount=amount,
                    least=least,
                    tokens=tokens,
                    lease=lease,
                    epoch=self._epochs.get(owner, 0),
                )
            )

        windows = {owner: tuple(dict.fromkeys(scope.window for scope in part)) for owner, part in parts.items()}
        return await self._answers(windows, asked)

    async def extend(
        self, id: str, parts: Mapping[str, tuple[Scope, ...]], lease: float, amount: int | None
    ) -> dict[str, Told]:
        """What each owner's part of an extension is answered."""
        windows = {owner: tuple(dict.fromkeys(scope.window for scope in part)) for owner, part in parts.items()}
        return await self._answers(windows, lambda owner: self._till.extend(id, owner, lease, amount))

    async def fill(self, owner: str, windows: Sequence[str] = (), *, anew: bool = True) -> bool:
        """Fill an owner from the journal, all `anew` or only these windows; one at a time. False when somebody else is about to."""
        under_way = self._filling.get(owner)
        if under_way is not None:
            await asyncio.shield(under_way)
            return True
        done = self._filling[owner] = asyncio.get_running_loop().create_future()
        try:
            return await self._fill(owner, windows, anew)
        finally:
            del self._filling[owner]
            done.set_result(None)

    async def _answers(
        self, windows: Mapping[str, tuple[str, ...]], ask: Callable[[str], Awaitable[Told | Unknown]]
    ) -> dict[str, Told]:
        """Ask all owners at the same time, and those again that had to be filled first."""
        told: dict[str, Told] = {}
        asked = list(windows)
        for _ in range(TRIES):
            answers = [await ask(asked[0])] if len(asked) == 1 else await asyncio.gather(*map(ask, asked))
            unknown = {}
            for owner, answer in zip(asked, answers, strict=True):
                if isinstance(answer, Unknown):
                    unknown[owner] = answer.windows
                elif isinstance(answer, Granted) and self.is_over(owner, answer.epoch):
                    unknown[owner] = ()
                else:
                    told[owner] = answer
                    if isinstance(answer, Granted):
                        self.learn(owner, answer.epoch)
            if not unknown:
                return told
            asked = list(unknown)
            for owner, missing in unknown.items():
                added = bool(missing) and await self.fill(owner, missing, anew=False)
                if not added and not await self.fill(owner, windows[owner]):
                    await asyncio.sleep(WAIT)
        raise Overloaded("The budget's counters are being rebuilt.", retry_after=1.0)

    async def _fill(self, owner: str, windows: Sequence[str], anew: bool) -> bool:
        if anew:
            await self._replayed()
            begun = await self._journal.begin(owner, self._epochs.get(owner, 0), windows)
            if begun is None:
                return False
            filling = begun
        else:
            filling = await self._journal.sums(owner, windows)
        self.learn(owner, filling.epoch)
        filled = await self._till.fill(owner, filling)
        if filled:
            # Who ended between the sums and the filling told a till that did not know what to do with it.
            missed: list[Ending] = await self._journal.ended_since(owner, filling.number)
            await self._till.end(missed)
        return filled or anew
