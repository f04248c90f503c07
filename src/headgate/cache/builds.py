"""Builds: what one thread does for all indexes, one after the other, while the event loop goes on searching what there was.

Invariant: a build reads what stands still, and only the event loop puts its graph in place; so an index needs no lock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.cache.index import Index

log = logging.getLogger(__name__)


class Builds:
    """A queue of indexes that want a build, and the thread that works on it."""

    def __init__(self) -> None:
        """The thread starts with the first build."""
        self._waiting: deque[Index] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def want(self, index: Index) -> None:
        """Have a build made for this index, soon. Where no event loop runs, with the first call where one does."""
        if not any(one is index for one in self._waiting):
            self._waiting.append(index)
        self.start()

    def start(self) -> None:
        """Begin with what waits."""
        if self._waiting and self._task is None and not self._closing:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            self._task = loop.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting and not self._closing:
            index = self._waiting.popleft()
            if index.wants_build:
                await self._build(index)
        self._task = None

    async def _build(self, index: Index) -> None:
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="index")
        build, begun, graph = index.begin(), time.monotonic(), None
        try:
            graph = await asyncio.get_running_loop().run_in_executor(self._thread, build.run, lambda: not self._closing)
            if graph is not None:
                log.info("an index of %d vectors was built in %.1f s", len(graph), time.monotonic() - begun)
        except Exception:
            index.gave_up = True
            log.exception("an index could not be built, and is searched as it is")
        finally:
            index.finish(build, graph)

    async def settled(self) -> None:
        """Wait until no build is left to do."""
        while self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Begin no more, and end the one under way without its graph."""
        self._closing = True
        await self.settled()
        if self._thread is not None:
            self._thread.shutdown()
