"""The outcome log in memory: the reference, and what a process without a disk learns from."""

from __future__ import annotations

from headgate.routing.outcomes import Outcome

MOST = 50_000


class MemoryOutcomes:
    """An OutcomeLog that lasts as long as it is held: give it to the next run to have it remember."""

    def __init__(self, *, most: int = MOST) -> None:
        """`most`: how many are kept."""
        self.lost = 0
        self._most = most
        self._kept: dict[str, Outcome] = {}

    def keep(self, outcome: Outcome) -> None:
        """See OutcomeLog."""
        self._kept[outcome.id] = outcome
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]

    def past(self) -> list[Outcome]:
        """All that is kept, oldest first."""
        return list(self._kept.values())

    async def others(self) -> list[Outcome]:
        """There are none."""
        return []

    async def close(self) -> None:
        """Nothing is held open."""
