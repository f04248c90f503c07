"""The label log in memory: the reference, and what a process without a disk learns from."""

from __future__ import annotations

from collections import deque

from headgate.cache.labels import Label, Served

MOST = 20_000


class MemoryLabels:
    """A LabelLog that lasts as long as it is held: give it to the next run to have it remember."""

    def __init__(self, *, most: int = MOST) -> None:
        """`most`: how many labels, and how many answers, are kept."""
        self._labels: deque[Label] = deque(maxlen=most)
        self._answers: deque[Served] = deque(maxlen=most)

    def label(self, label: Label) -> None:
        """Keep one label."""
        self._labels.append(label)

    def served(self, served: Served) -> None:
        """Keep one answer that was found by meaning."""
        if served.scope is not None:
            self._answers.append(served)

    def past(self) -> tuple[list[Label], list[Served]]:
        """All that is kept, oldest first."""
        return list(self._labels), list(self._answers)

    async def others(self) -> tuple[list[Label], list[Served]]:
        """There are none."""
        return [], []

    async def close(self) -> None:
        """Nothing is held open."""
