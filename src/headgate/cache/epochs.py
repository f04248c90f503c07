"""Epochs: which invalidations came after an answer was asked for, so that it is not stored after them.

Invariant: an answer is refused when any invalidation since its epoch includes it, and to be safe when they are too long ago to
be remembered one by one.
"""

from __future__ import annotations

from collections import deque

from headgate.cache.cache import Entry, Selection

REMEMBERED = 64
"""Invalidations of a tenant that are kept. More than these while one answer is made, and it is not stored."""


class Epochs:
    """Every tenant's invalidations, counted; the last of them with what they included."""

    def __init__(self) -> None:
        self._tenants: dict[str, tuple[int, deque[Selection]]] = {}

    def now(self, tenant: str) -> int:
        """How many invalidations the tenant has had in this process."""
        known = self._tenants.get(tenant)
        return 0 if known is None else known[0]

    def add(self, selection: Selection) -> None:
        """A new epoch begins: what is selected was invalidated."""
        count, recent = self._tenants.get(selection.tenant) or (0, deque(maxlen=REMEMBERED))
        recent.append(selection)
        self._tenants[selection.tenant] = count + 1, recent

    def refuse(self, entry: Entry, epoch: int) -> bool:
        """Whether the entry was invalidated since then."""
        known = self._tenants.get(entry.key.namespace.tenant)
        if known is None:
            return False
        count, recent = known
        since = count - epoch
        if since > len(recent):
            return True
        return any(recent[-number].includes(entry) for number in range(1, since + 1))
