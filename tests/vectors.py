"""A provider of embeddings without a network: its vectors tell whose input they are of, and a test decides when and how each call ends."""

from __future__ import annotations

import asyncio
import base64
import struct
import zlib
from collections.abc import AsyncGenerator
from typing import Any

from headgate.model.chat import ChatRequest, Event, Json
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Rejected, UpstreamError

BAD = "\N{PILE OF POO}"
"""An input that is refused, and all that it comes with."""


def vector(given: Any, body: Json) -> Any:
    """The one vector of this input, asked for in this way."""
    numbers = [
        float(zlib.crc32(repr(given).encode()) >> shift & 0xFF) for shift in range(0, 8 * body.get("dimensions", 2), 8)
    ]
    if body.get("encoding_format") != "base64":
        return numbers
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def listed(given: Any) -> list[Any]:
    """The inputs one by one."""
    return [given] if isinstance(given, str) or isinstance(given[0], int) else given


def tokens(given: Any) -> int:
    """What the provider counts for an `input`: each word, or each token."""
    return sum(len(one.split()) if isinstance(one, str) else len(one) for one in listed(given))


class Asked:
    """One call that came, and how it is to end."""

    def __init__(self, deployment: Deployment, body: Json, clearance: Clearance, timeout: float) -> None:
        self.deployment = deployment
        self.body = body
        self.clearance = clearance
        self.timeout = timeout
        self.end: asyncio.Future[UpstreamError | Json | None] = asyncio.get_running_loop().create_future()

    @property
    def inputs(self) -> list[Any]:
        return listed(self.body["input"])

    def answer(self) -> Json:
        """In OpenAI's shape, the last row first: the order is in the index."""
        rows = [
            {"object": "embedding", "index": index, "embedding": vector(one, self.body)}
            for index, one in enumerate(self.inputs)
        ]
        used = tokens(self.body["input"])
        usage = {"prompt_tokens": used, "total_tokens": used}
        return {"object": "list", "data": rows[::-1], "model": self.deployment.model, "usage": usage}


class Vectors:
    """A Provider. `held`: each call waits until the test ends it; else it is answered in the next turn."""

    def __init__(self, *, held: bool = False, fails: tuple[UpstreamError, ...] = ()) -> None:
        """`fails`: how the first calls end."""
        self.held = held
        self.asked: list[Asked] = []
        self.open = 0
        self.closed = False
        self._fails = list(fails)

    async def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        raise Rejected("It only embeds.", status=404)
        yield

    async def embed(self, deployment: Deployment, body: Json, clearance: Clearance, *, timeout: float) -> Json:
        call = Asked(deployment, body, clearance, timeout)
        self.asked.append(call)
        if not self.held:
            call.end.set_result(self._fails.pop(0) if self._fails else None)
        self.open += 1
        try:
            end = await call.end
            await asyncio.sleep(0)
        finally:
            self.open -= 1
        if isinstance(end, UpstreamError):
            raise end
        if BAD in call.inputs:
            raise Rejected("This input is bad.")
        return call.answer() if end is None else end

    async def close(self) -> None:
        self.closed = True
