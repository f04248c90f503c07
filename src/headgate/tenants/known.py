"""Known keys: what a directory said of keys, for as long as that is believed.

Invariant: a word of the directory is believed for two seconds, and for an hour while the directory cannot be asked again if it was a good one:
whoever was let in lately is not turned away because a store is down, nor kept waiting because it hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from headgate.model.errors import Overloaded
from headgate.model.tenancy import Principal

Value = TypeVar("Value")

FRESH_SECONDS = 2.0
"""How long an answer about a key is believed before the directory is asked again."""
STALE_SECONDS = 3_600.0
"""How long after that a good one is believed while the directory cannot be asked."""
PATIENCE_SECONDS = 0.5
"""How long a directory that is asked again may take before it counts as one that cannot be asked."""
MOST_KEYS = 10_000
"""Keys, and as many wrong ones, that are remembered: a client that repeats a wrong one does not reach the directory each time."""


class Known(msgspec.Struct, frozen=True):
    """Whose key it is, and when it expires: unix seconds."""

    principal: Principal
    expires: float | None


class KnownKeys:
    """Keys by their digests."""

    def __init__(
        self,
        find: Callable[[str], Awaitable[Known | None]],
        monotonic: Callable[[], float],
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """`find` asks the directory; None where there is no such key. `patience`: seconds that it is waited for where an older word is known."""
        self._find = find
        self._monotonic = monotonic
        self._patience = patience
        self._good: dict[str, tuple[Known, float]] = {}
        self._wrong: dict[str, float] = {}
        self._asking: dict[str, tuple[asyncio.Task[Known | None], float]] = {}

    async def of(self, digest: str) -> Known | None:
        """Whose it is; None where there is no such key. Raises Overloaded when that is not known and the directory cannot be asked.

        However many callers wait, the directory is asked once; one that is cancelled does not stop the others.
        """
        at = self._monotonic()
        known, until = self._good.get(digest, (None, 0.0))
        if known is not None and until > at:
            return known
        if self._wrong.get(digest, 0.0) > at:
            return None
        if digest not in self._asking:
            task = asyncio.create_task(self._look_up(digest, at))
            task.add_done_callback(lambda _: self._asking.pop(digest, None))
            self._asking[digest] = task, at
        task, since = self._asking[digest]
        if known is None or until + STALE_SECONDS <= at:
            return await asyncio.shield(task)
        # Who comes when it has been asked for long already does not wait at all.
        answered, _ = await asyncio.wait([task], timeout=max(0.0, since + self._patience - at))
        return task.result() if answered else known

    def forget(self) -> None:
        """Ask the directory again for all of them."""
        self._good.clear()
        self._wrong.clear()

    async def _look_up(self, digest: str, at: float) -> Known | None:
        try:
            known = await self._find(digest)
        except Overloaded:
            known, until = self._good.get(digest, (None, 0.0))
            if known is None or until + STALE_SECONDS <= at:
                raise
            return known
        if known is None:
            self._good.pop(digest, None)
            _keep(self._wrong, digest, at + FRESH_SECONDS)
        else:
            _keep(self._good, digest, (known, at + FRESH_SECONDS))
        return known


def _keep(book: dict[str, Value], digest: str, value: Value) -> None:
    if len(book) >= MOST_KEYS:
        book.pop(next(iter(book)))
    book[digest] = value
