"""Writing behind: what comes and goes in memory reaches the file a moment later, several of them in one commit.

Invariant: what is gone from memory is never written after it went, and is removed from the file before `flush` returns. An entry that
the disk has no room for is kept in memory only; a removal is tried again until it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from headgate.cache.kept import Kept
from headgate.model.errors import Overloaded

log = logging.getLogger(__name__)

LINGER = 0.05
"""Seconds that an entry may lie before it is written, so that several share a commit."""
WAITING = 10_000
"""Entries that may wait for a slow disk; further ones live in memory only."""
GONE = 1_000_000
"""Removals that may wait; with more, it is quicker to remove everything."""


class Batch(msgspec.Struct, frozen=True, gc=False):
    """What is written together. `wipe`: everything that is there is removed first."""

    kept: list[Kept]
    gone: list[int]
    wipe: bool


class Writing:
    """A Scribe that collects what it is told, and has it committed."""

    def __init__(self, commit: Callable[[Batch], Awaitable[None]], *, linger: float = LINGER) -> None:
        """`commit` writes all of a batch or nothing, and raises what went wrong."""
        self._commit = commit
        self._linger = linger
        self._kept: dict[int, Kept] = {}
        self._gone: set[int] = set()
        self._wipe = False
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._failure: str | None = None

    def kept(self, kept: Kept) -> None:
        """An entry is to be written."""
        if len(self._kept) < WAITING:
            self._kept[kept.number] = kept

    def gone(self, number: int) -> None:
        """An entry is not to be in the file."""
        if self._kept.pop(number, None) is None and not self._wipe:
            self._gone.add(number)
            if len(self._gone) > GONE:
                self.wipe()

    def wipe(self) -> None:
        """Nothing is to be in the file but what will be kept from now on."""
        self._wipe = True
        self._gone.clear()

    def start(self) -> None:
        """Write soon what waits."""
        if self._task is None and self._waits:
            self._task = asyncio.get_running_loop().create_task(self._work())

    @property
    def _waits(self) -> bool:
        return bool(self._kept or self._gone or self._wipe)

    async def _work(self) -> None:
        try:
            while self._waits:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), self._linger)
                await self._write()
                if self._failure is not None:
                    break
        finally:
            self._task = None

    async def _write(self) -> None:
        async with self._one_at_a_time:
            if not self._waits:
                return
            batch = Batch(list(self._kept.values()), list(self._gone), self._wipe)
            self._kept, self._gone, self._wipe = {}, set(), False
            try:
                await self._commit(batch)
            except Exception as error:
                self._fail(batch, error)
            else:
                self._failure = None

    def _fail(self, batch: Batch, error: Exception) -> None:
        if self._failure is None:
            log.warning("answers are kept in memory only, for they cannot be written: %s", error)
        self._failure = str(error) or type(error).__name__
        if batch.wipe:
            self.wipe()
        elif not self._wipe:
            self._gone.update(batch.gone)

    async def flush(self) -> None:
        """Return when everything so far is in the file. Raises Overloaded when it cannot be written now."""
        await self._write()
        if self._failure is not None:
            raise Overloaded(f"The cache's file cannot be written: {self._failure}.", retry_after=1.0)

    async def close(self) -> None:
        """Write what waits, if that can be done."""
        self._hurry.set()
        if self._task is not None:
            await asyncio.shield(self._task)
        await self._write()
