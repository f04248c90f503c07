"""A provider that plays the calls of a schedule, for properties that are played in virtual time.

Each part of an answer says which call it was made by, so that what a caller got can be told from its text.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from typing import Literal

import msgspec

from headgate.model.chat import ChatRequest, Delta, Done, Event, Json
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Rejected, Unavailable, UpstreamTimeout
from headgate.model.money import Usage
from headgate.model.tally import as_reported

End = Literal["stop", "length", "content_filter", "tool_calls", "down", "no", "cut", "silence"]


class Play(msgspec.Struct, frozen=True):
    """How one call to the provider goes: so many parts, after `first` seconds and `gap` between two, and an end."""

    first: float
    gap: float
    parts: int
    end: End


class Made(msgspec.Struct, frozen=True):
    """A call that the provider got; `tenant` is the one that its request names, if any."""

    tenant: str
    text: str
    play: Play


class Player:
    """A provider that plays what it is given, one play for each call, and notes for whom."""

    def __init__(self, plays: list[Play]) -> None:
        self._plays = itertools.cycle(plays)
        self.made: list[Made] = []
        self.open = 0

    async def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        play, number = next(self._plays), len(self.made)
        self.made.append(Made(request.body.get("metadata", {}).get("tenant", ""), request.question or "", play))
        self.open += 1
        try:
            async with asyncio.timeout(timeout):
                await asyncio.sleep(play.first)
                if play.end in ("down", "no"):
                    raise Unavailable("down") if play.end == "down" else Rejected("no")
                for event in self._events(number, play, stream=bool(request.stream)):
                    yield event
                    await asyncio.sleep(play.gap)
                if play.end == "cut":
                    raise Unavailable("cut off")
                if play.end == "silence":
                    await asyncio.Event().wait()
        except TimeoutError:
            raise UpstreamTimeout("too late") from None
        finally:
            self.open -= 1

    @staticmethod
    def _events(number: int, play: Play, *, stream: bool) -> list[Event]:
        parts = [f"{number}.{part} " for part in range(play.parts)]
        finish = None if play.end in ("cut", "silence") else play.end
        if not stream:
            if finish is None:
                return []
            message = {"role": "assistant", "content": "".join(parts)}
            events: list[Event] = [Delta([{"index": 0, "delta": message, "finish_reason": finish}])]
        else:
            events = [Delta([{"index": 0, "delta": {"content": part}, "finish_reason": None}]) for part in parts]
            if finish is not None:
                events.append(Delta([{"index": 0, "delta": {}, "finish_reason": finish}]))
        if finish is not None:
            used = Usage(prompt_tokens=10, completion_tokens=play.parts)
            events.append(Done("played-1", used, as_reported(used)))
        return events

    async def embed(self, deployment: Deployment, body: Json, clearance: Clearance, *, timeout: float) -> Json:
        raise Rejected("no embeddings here")

    async def close(self) -> None:
        return None
