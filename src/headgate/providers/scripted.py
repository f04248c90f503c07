"""A provider without a network, for tests and demonstrations: it plays the script it is given.

The invariant is every provider's: it raises only UpstreamError and its last event is Done. A script that ends without either
is an answer that broke off, and raises Malformed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator

import msgspec

from headgate.model.chat import ChatRequest, Delta, Done, Event, Json
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Malformed, UpstreamError, UpstreamTimeout
from headgate.model.money import Usage
from headgate.model.tally import Tally, as_reported

Step = Event | UpstreamError | asyncio.Event
"""An event is given, an error is raised, an `asyncio.Event` is waited for."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider was asked."""

    deployment: Deployment
    request: ChatRequest
    limit: int
    timeout: float


def answer(
    *pieces: str, model: str = "scripted-1", usage: Usage | None = None, finish: str = "stop"
) -> tuple[Event, ...]:
    """The events of a text answer that comes in these pieces; by default ten prompt tokens and one for each piece."""
    used = Usage(prompt_tokens=10, completion_tokens=len(pieces)) if usage is None else usage
    deltas: list[Event] = [
        Delta([{"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}])
        for piece in pieces
    ]
    end = Delta([{"index": 0, "delta": {}, "finish_reason": finish}])
    return (*deltas, end, Done(model, used, as_reported(used)))


class ScriptedProvider:
    """Plays one script for each call, in order; the last one again for every further call."""

    def __init__(self, *scripts: Iterable[Step], embeddings: Json | UpstreamError | None = None) -> None:
        """Without scripts it answers `Hello.`; `embeddings` is the answer to `embed`, or the error it raises."""
        self._scripts = [tuple(script) for script in scripts] or [answer("Hello.")]
        self._embeddings = embeddings
        self.calls: list[Call] = []
        self.embedded: list[Json] = []
        self.open = 0
        self.closed = False

    async def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        """See Provider. `open` counts the answers that have begun and not ended."""
        script = self._scripts[min(len(self.calls), len(self._scripts) - 1)]
        self.calls.append(Call(deployment=deployment, request=request, limit=clearance.limit, timeout=timeout))
        end = asyncio.get_running_loop().time() + timeout
        self.open += 1
        try:
            for step in script if request.stream else _whole(script):
                if isinstance(step, asyncio.Event):
                    await _pass(step, end)
                elif isinstance(step, UpstreamError):
                    raise step
                else:
                    yield step
                    if isinstance(step, Done):
                        return
            raise Malformed("The script ended before the answer was complete.")
        finally:
            self.open -= 1

    async def embed(self, deployment: Deployment, body: Json, clearance: Clearance, *, timeout: float) -> Json:  # noqa: ARG002 - as in Provider
        """See Provider."""
        self.embedded.append({**body, "model": deployment.model})
        if isinstance(self._embeddings, UpstreamError):
            raise self._embeddings
        if self._embeddings is None:
            raise Malformed("The script holds no embeddings.")
        return self._embeddings

    async def close(self) -> None:
        """See Provider."""
        self.closed = True


def _whole(script: Iterable[Step]) -> Iterator[Step]:
    """The same script for a caller that does not stream: one delta, and nothing of an answer that breaks off."""
    tally = Tally(0)
    for step in script:
        if isinstance(step, Delta):
            tally.add(step)
        elif isinstance(step, Done):
            tally.add(step)
            yield tally.completion(step.model).events()[0]
            yield step
        else:
            yield step


async def _pass(gate: asyncio.Event, end: float) -> None:
    try:
        async with asyncio.timeout_at(end):
            await gate.wait()
    except TimeoutError:
        raise UpstreamTimeout("The total timeout ran out.") from None
