"""The worker: a process of its own in which LiteLLM runs, so that nothing of it is in the gateway's. Started by `Link`, ended with its input.

Both ways go frames: four bytes of length, then JSON. `Order` comes in, `Word` goes out; what LiteLLM prints goes to standard error.

Invariant: an order has one end, a `Word` with `end` or `error`, unless it was cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import warnings
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, Literal

import msgspec

from headgate.model.chat import Json

FLAGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else prices are fetched from GitHub when it is imported
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_MODE": "PRODUCTION",  # else it reads a file .env
    "LITELLM_TELEMETRY": "False",
    "DISABLE_AIOHTTP_TRUST_ENV": "True",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""What its environment says, so that it calls nobody but the providers it is told to call."""
DEEPEST = 8
"""Exceptions that are looked at from the last to the first."""
_LENGTH = 4


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be done: a call with these arguments of LiteLLM's, or the order of this id be given up."""

    id: int
    do: Literal["chat", "embed", "cancel"]
    arguments: Json = {}


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception of LiteLLM's: its class, what it says, and what the provider said, where that has answered at all."""

    kind: str
    message: str
    status: int | None = None
    headers: dict[str, str] = {}
    answered: bool = False


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of an order, piece by piece; of the order 0: that the worker is ready, or why it never will be."""

    id: int
    part: Json | None = None
    end: bool = False
    error: Failure | None = None


def framed(value: Order | Word) -> bytes:
    """A frame as it goes over the pipe."""
    body = msgspec.json.encode(value)
    return len(body).to_bytes(_LENGTH, "big") + body


async def frames(reader: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    """The bodies of frames, until the pipe ends; no pipe has ended."""
    while reader is not None:
        try:
            length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
            yield await reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return


class Worker:
    """Carries out orders, each as a task of its own."""

    def __init__(self, library: Any, writer: asyncio.StreamWriter) -> None:
        """`library` is LiteLLM's module."""
        self._library = library
        self._writer = writer
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Until there are no more orders. What is under way then is given up."""
        await self._say(Word(0, end=True))
        async for body in frames(reader):
            order = msgspec.json.decode(body, type=Order)
            if order.do == "cancel":
                task = self._tasks.get(order.id)
                if task is not None:
                    task.cancel()
                continue
            task = self._tasks[order.id] = asyncio.create_task(self._carried_out(order))
            task.add_done_callback(partial(self._forget, order.id))
        for task in self._tasks.values():
            task.cancel()

    async def _carried_out(self, order: Order) -> None:
        try:
            if order.do == "embed":
                await self._tell(order, await self._library.aembedding(**order.arguments))
            else:
                await self._chat(order)
        except Exception as error:
            await self._say(Word(order.id, error=failure(error)))
        else:
            await self._say(Word(order.id, end=True))

    def _forget(self, id: int, _: asyncio.Task[None]) -> None:
        del self._tasks[id]

    async def _chat(self, order: Order) -> None:
        answer = await self._library.acompletion(**order.arguments)
        if not order.arguments.get("stream"):
            return await self._tell(order, answer)
        async for chunk in answer:
            await self._tell(order, chunk)

    async def _tell(self, order: Order, said: Any) -> None:
        await self._say(Word(order.id, part=said.model_dump(mode="json", exclude_none=True)))

    async def _say(self, word: Word) -> None:
        self._writer.write(framed(word))
        await self._writer.drain()


def failure(error: Exception) -> Failure:
    """What is told of an exception. LiteLLM makes up answers of its own, without headers; a provider's has some."""
    status = getattr(error, "status_code", None)
    headers: Mapping[str, str] = {}
    cause: BaseException | None = error
    for _ in range(DEEPEST):
        headers = headers or getattr(getattr(cause, "response", None), "headers", None) or {}
        cause = None if cause is None else cause.__cause__ or cause.__context__
    return Failure(
        type(error).__name__,
        str(error),
        status if isinstance(status, int) else None,
        {str(name).lower(): str(value) for name, value in headers.items()},
        bool(headers),
    )


def main() -> None:
    """Serve the pipes that this process was started with."""
    wire = os.dup(1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    try:
        import litellm  # late, and here alone: seconds of imports, which the gateway is spared

        litellm.suppress_debug_info = True
        litellm.drop_params = False
        litellm.disable_token_counter = True  # else what no provider has told is made up, and looks told
        logging.disable(logging.CRITICAL)  # it may log what it was asked
    except Exception as error:
        os.write(wire, framed(Word(0, error=failure(error))))
        return
    asyncio.run(_serve(litellm, wire))


async def _serve(library: Any, wire: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop), os.fdopen(wire, "wb", buffering=0)
    )
    await Worker(library, asyncio.StreamWriter(transport, protocol, None, loop)).run(reader)


if __name__ == "__main__":
    main()
