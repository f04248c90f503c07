"""Tab: what one answer costs that several of a tenant read while it is being made, in equal parts.

They count whose part is settled at the moment when the answer is whole and its price known: who reads it then, and who has left with
some of it. Who comes later finds an answer that is there already. Readers of a flight that follows this one count like its own.

Invariant: all parts and the leader's remainder come to the price, and nobody's part is more than that reader has on hold for it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from headgate.budget.reservation import Reservation
from headgate.coalesce.trail import Trail
from headgate.model.chat import Completion
from headgate.model.errors import GatewayError
from headgate.model.record import Source

log = logging.getLogger(__name__)

Write = Callable[[int, Source, Trail, Completion], None]
Takes = Callable[[Completion], bool]


class Share:
    """One reader's part in the price."""

    def __init__(self, write: Write, hold: Callable[[int], Awaitable[Reservation]] | None) -> None:
        """`write` puts down what is owed, in nano-USD, and raises GatewayError where it cannot; `hold` holds that on budgets of this
        reader alone, None where there are none.

        leads   whether the flight is this reader's own, so that it owes a part only where the flight follows another
        alike   whether the reader has the same budgets of its own as the leader
        owes    its part, once that is known
        """
        self.leads = False
        self.alike = False
        self.owes: int | None = None
        self._write = write
        self._hold = hold
        self._held: Reservation | None = None

    @property
    def bears(self) -> int | None:
        """Nano-USD that it may owe at most; None: whatever its part is."""
        if self._hold is None:
            return None
        return 0 if self._held is None else self._held.granted

    @property
    def holds(self) -> bool:
        """Whether there is anything to `drop`."""
        return self._held is not None

    async def bear(self, most: int) -> bool:
        """Have so much on hold; whether anything had to be done for that. Raises BudgetExceeded."""
        if self._hold is None or (self._held is not None and self._held.granted >= most):
            return False
        if self._held is None:
            self._held = await self._hold(most)
        else:
            await self._held.more(most)
        return True

    def settle(self, amount: int, source: Source, trail: Trail, completion: Completion) -> int:
        """Owe this much, or what is on hold; how much it came to. Nothing where it cannot be written down: then the leader pays it."""
        part = amount if self.bears is None else min(amount, self.bears)
        try:
            self._write(part, source, trail, completion)
        except GatewayError as error:
            log.warning("a part of a shared call could not be written down, and is its leader's: %s", error.message)
            return 0
        self.owes = part
        return part

    def drop(self) -> None:
        """Give back what is held and not owed."""
        if self._held is not None:
            self._held.drop()
            self._held = None


class Tab:
    """Who shares in the price of a flight's answer, as far as its tenant wants that."""

    def __init__(self) -> None:
        """A flight's, while nobody reads it.

        elsewhere  whether the answer is paid for in another process: nobody here owes a part of it
        settled    whether the price is known, and everybody's part
        """
        self.elsewhere = False
        self.settled = False
        self._followed: Tab | None = None
        self._shares: dict[Share, None] = {}
        self._guests: dict[Tab, Takes] = {}

    @property
    def follows(self) -> bool:
        """Whether the flight gets its answer from another, on whose tab its readers are, too."""
        return self._followed is not None

    @property
    def away(self) -> bool:
        """Whether the answer, whoever gives it to the flight, is paid for in another process."""
        return self.elsewhere or (self._followed is not None and self._followed.away)

    def add(self, share: Share) -> None:
        """One reader more."""
        self._shares[share] = None

    def remove(self, share: Share) -> None:
        """It was given nothing, and owes nothing that is not settled yet."""
        self._shares.pop(share, None)

    def follow(self, other: Tab, takes: Takes) -> None:
        """The readers get the other flight's answer, if it is one that this flight `takes`."""
        self._followed = other
        other._guests[self] = takes

    def part(self, other: Tab) -> None:
        """They get it no more. Where that flight has not come to an end, who leads this one will pay for an answer of its own."""
        self._followed = None
        other._guests.pop(self, None)
        if not self.settled:
            for share in self._shares:
                if share.leads:
                    share.drop()

    def settle(self, trail: Trail, completion: Completion) -> int:
        """The answer is whole and has cost `trail.cost`: nano-USD of it that the others owe now, so that they are not its leader's."""
        self.settled = True
        owing: dict[Share, Source] = {
            share: "coalesced" for share in self._owing() if not share.leads and (share.alike or not trail.personal)
        }
        for guest, takes in self._guests.items():
            if takes(completion):
                guest.settled = True
                owing.update(dict.fromkeys(guest._owing(), "coalesced-semantic"))  # noqa: SLF001 - one tab on another
        part = trail.cost // (1 + len(owing))
        return sum(share.settle(part, source, trail, completion) for share, source in owing.items())

    def _owing(self) -> list[Share]:
        """Those that can owe a part, and do not yet."""
        return [share for share in self._shares if share.owes is None and share.bears != 0]
