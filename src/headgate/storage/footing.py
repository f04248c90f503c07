"""Footing: is a store to be relied on now? A breaker around each server that is not in this process.

Failures in a row open it; while it is open everybody is refused at once, instead of waiting for a server that does not answer. After a while
one is let through to see; what it meets decides. Nothing but what keeps the server from answering counts: who is told *no* has an answer.
A server that answers but does not do its work for now (it is full, it may not write) is asked on, for its no costs nobody any time.

Invariant: one line in the log for every change, and none between.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from headgate.model.errors import Overloaded

log = logging.getLogger(__name__)

FAILURES = 3
"""Failures in a row after which it is open."""
SHORTEST, LONGEST = 0.25, 2.0
"""Seconds for which it stays open the first time, and at most: twice as long with every look in vain."""
QUIET = 5.0
"""Seconds without a *not now* after which a server is taken to work again: what it still does must not look like an end of what it refuses."""
AGAIN = 1.0
"""Seconds after which who was refused may ask again."""


class Footing:
    """The state of one server."""

    def __init__(self, store: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`store` is what it is called in the log and towards callers; `clock` is monotonic, in seconds."""
        self._store = store
        self._clock = clock
        self._in_row = 0
        self._wait = SHORTEST
        self._until: float | None = None
        self._looking = False
        self._refused_at: float | None = None
        self.fault = ""
        """Why it cannot be relied on now; empty while it can."""

    @property
    def closed(self) -> bool:
        """Whether everybody is let through."""
        return self._until is None

    def admit(self) -> None:
        """Raises Overloaded while it is open, but for the one who is to look."""
        if self._until is None:
            return
        now = self._clock()
        if now < self._until:
            raise self.refusal(self.fault)
        # Who comes now looks; others wait for what that one meets, or for as long again.
        self._until = now + self._wait
        self._looking = True

    def held(self) -> None:
        """It has answered."""
        self._in_row = 0
        if self._until is not None:
            log.warning("%s answers again", self._store)
            self._until, self._wait, self._looking = None, SHORTEST, False
            self.fault, self._refused_at = "", None
        elif self._refused_at is not None and self._clock() >= self._refused_at + QUIET:
            log.warning("%s does its work again", self._store)
            self.fault, self._refused_at = "", None

    def slipped(self, reason: str) -> Overloaded:
        """It has not answered; what to tell who asked."""
        self._in_row += 1
        if self._until is not None:
            # Those who were under way when it opened have nothing new to tell.
            if self._looking:
                self._looking = False
                self._wait = min(LONGEST, 2 * self._wait)
                self._until = self._clock() + self._wait
        elif self._in_row >= FAILURES:
            self.fault = reason
            self._until = self._clock() + self._wait
            log.error("%s does not answer: %s", self._store, reason)
        return self.refusal(reason)

    def refused(self, reason: str) -> Overloaded:
        """It has answered: not now; what to tell who asked."""
        if self._refused_at is None and self._until is None:
            self.fault = reason
            log.error("%s does not do its work: %s", self._store, reason)
        self._refused_at = self._clock()
        return Overloaded(f"{self._store} does not do its work: {reason}.", retry_after=AGAIN)

    def refusal(self, reason: str) -> Overloaded:
        """What to tell who asks in vain; each is told by an error of its own."""
        return Overloaded(f"{self._store} does not answer: {reason}.", retry_after=AGAIN)
