"""Callers who ask at the same time, some of them the same in other words, and a gateway in whose time nothing is slow."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from headgate.dispatch import Patience
from headgate.model.chat import ChatRequest, Delta, Event
from headgate.model.errors import GatewayError
from headgate.model.tenancy import Principal, Wishes
from headgate.providers.scripted import ScriptedProvider, Step
from headgate.reply import Reply
from tests.scenarios.house import CALLER, House, ask
from tests.virtual_time import clock

PARCEL = (
    "How do I send a parcel back?",
    "How can I send a parcel back?",
    "How does one send a parcel back?",
    "How would I send a parcel back?",
)
REFUND = (
    "How do I get a refund?",
    "How can I get my refund?",
    "How would I get the refund?",
    "How does one get a refund?",
)
"""Each is one question in several wordings."""


class Noting(ScriptedProvider):
    """Keeps the `times` at which it was called."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        super().__init__(*scripts)
        self.times: list[float] = []

    async def send(self, *asked: Any, **more: Any) -> Any:
        self.times.append(clock())
        async for event in super().send(*asked, **more):
            yield event


class Meanings:
    """An embedder that knows what a text is about: texts with one subject are near, all others far. Each takes its `seconds`."""

    identity = "meanings"
    dimensions = 16
    subjects = ("parcel", "refund", "invoice", "warranty")

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def fits(self, text: str) -> bool:
        return True

    async def embed(self, text: str) -> Any:
        await asyncio.sleep(self.seconds)
        digest = hashlib.blake2b(text.encode(), digest_size=self.dimensions).digest()
        vector = (np.frombuffer(digest, np.uint8).astype(np.float32) - 128) / 2_000
        vector[next(at for at, subject in enumerate(self.subjects) if subject in text)] = 1.0
        return vector / np.linalg.norm(vector)

    async def close(self) -> None:
        return None


class Crowd(House):
    """A house in virtual time that compares what is in flight; its one provider plays these scripts and is tried once for each call."""

    def __init__(self, *scripts: Sequence[Step], **more: Any) -> None:
        self.scripted = ScriptedProvider(*scripts)
        usual = {"embedder": Meanings(), "clock": clock, "patience": Patience(retries=0)}
        super().__init__(more.pop("providers", {"one": self.scripted}), **{**usual, **more})

    @property
    def asked(self) -> list[str]:
        """What the provider was asked, in order."""
        return [call.request.question or "" for call in self.scripted.calls]

    def come(
        self, text: str, by: Principal = CALLER, wishes: Wishes | None = None, *, slow: float = 0.0, **more: Any
    ) -> Reader:
        """Somebody asks, and reads what comes; `slow`: seconds that each event of a stream takes it."""
        return Reader(self, ask(text, **more), by, wishes or Wishes(), slow)

    async def at_rest(self) -> None:
        """Nothing is under way, and nothing was left behind."""
        await self.flown()
        gateway = self.gateway
        assert self.ledger.open_reservations() == 0
        assert gateway.flights.followers == 0
        assert not gateway.flights._joinable
        assert len(gateway._following.twins) == 0
        assert not gateway._following.twins._places
        assert self.scripted.open == 0


class Reader:
    """One caller: `reply` as soon as it is admitted, then `parts` and `end`: "whole" or the label of an error."""

    def __init__(self, house: Crowd, request: ChatRequest, by: Principal, wishes: Wishes, slow: float) -> None:
        self.reply: Reply | None = None
        self.events: list[Event] = []
        self.text = ""
        self.ends: list[str] = []
        self.error: GatewayError | None = None
        self.seconds = 0.0
        self._began = clock()
        self._house = house
        self._slow = slow
        self._ask = (by, request, wishes)
        self.task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            async with await self._house.gateway.chat(*self._ask) as self.reply:
                if self._ask[1].stream:
                    await self._streamed(self.reply)
                else:
                    self.text = (await self.reply.completion()).text
        except GatewayError as error:
            self.error = error
            self.ends.append(error.label)
        else:
            self.ends.append("whole")
        self.seconds = clock() - self._began

    async def _streamed(self, reply: Reply) -> None:
        async for event in reply.events():
            self.events.append(event)
            if isinstance(event, Delta):
                self.text += "".join(part["delta"].get("content") or "" for part in event.choices)
            await asyncio.sleep(self._slow)

    async def end(self) -> str:
        """Wait until it has come to its end, and say to which."""
        await self.task
        return self.ends[0]

    def leave(self) -> None:
        """Hang up."""
        self.task.cancel()

    @property
    def source(self) -> str:
        assert self.reply is not None
        return self.reply.source
