"""Link: the gateway's end of a worker in which LiteLLM runs. Starts the process when it is first needed, and again when it has died.

Invariant: who waits for words of a worker that is gone is told so, and an order that nobody waits for any more is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

from headgate.model.chat import Json
from headgate.providers.litellm_worker import FLAGS, Failure, Order, Word, framed, frames

COMMAND = (sys.executable, "-m", "headgate.providers.litellm_worker")
ENDING = 2.0
"""Seconds that a worker has to end by itself."""
GONE = Failure("WorkerGone", "the worker has ended")

Words = asyncio.Queue[Word]
"""What is said of one order. As long as its answer may be: the provider is asked for so many tokens and no more."""


class Link:
    """One worker process."""

    def __init__(self, command: Sequence[str] = COMMAND, env: Mapping[str, str] | None = None) -> None:
        """`env` is the worker's environment beside its flags: by default this process's without Headgate's own secrets."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("HEADGATE_")}
        self._command = command
        self._env = {**(mine if env is None else env), **FLAGS}
        self._ids = itertools.count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._waiting: dict[int, Words] = {}

    @property
    def pid(self) -> int | None:
        """The worker's, while it runs."""
        return None if self._process is None else self._process.pid

    async def ready(self) -> None:
        """Wait until there is a worker that takes orders. Raises OSError when none can be started."""
        if self._listening is not None:
            return
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
        # Whoever can wait no longer leaves it to start for the others.
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        await self._stopped()
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, env=self._env)
        words = frames(self._process.stdout)
        first = await anext(words, None)
        word = None if first is None else msgspec.json.decode(first, type=Word)
        if word is None or word.error is not None:
            reason = "it ended" if word is None or word.error is None else word.error.message
            await self._stopped()
            raise OSError(f"LiteLLM cannot be started: {reason}")
        self._listening = asyncio.create_task(self._listen(words))

    async def _listen(self, words: AsyncIterator[bytes]) -> None:
        async for body in words:
            word = msgspec.json.decode(body, type=Word)
            waiting = self._waiting.get(word.id)
            if waiting is not None:
                waiting.put_nowait(word)
        self._listening = None
        for id, waiting in self._waiting.items():
            waiting.put_nowait(Word(id, error=GONE))

    @asynccontextmanager
    async def order(self, do: Literal["chat", "embed"], arguments: Json) -> AsyncIterator[Words]:
        """Have something done; leaving gives it up where it is not done. Raises OSError where there is no worker."""
        await self.ready()
        id, words = next(self._ids), Words()
        self._waiting[id] = words
        try:
            self._write(Order(id, do, arguments))
            yield words
        finally:
            del self._waiting[id]
            with contextlib.suppress(OSError):
                self._write(Order(id, "cancel"))

    def _write(self, order: Order) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            raise OSError(GONE.message)
        process.stdin.write(framed(order))

    async def close(self) -> None:
        """End the worker, and what it does."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._stopped()

    async def _stopped(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(ENDING):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._listening is not None:
            await self._listening
