"""Replay: sends the trace over HTTP in its own time and notes what each client saw."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal

import msgspec

from headgate.demo.trace import TraceRequest
from headgate.model.chat import Json
from headgate.model.errors import GatewayError
from headgate.model.money import NANO_PER_USD
from headgate.providers.egress import origin_of
from headgate.providers.http import Answer, Http
from headgate.providers.sse import SseParser

TIMEOUT = 60.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one client saw. `seconds` to the last byte; `status` 0 when there was no HTTP answer; money in nano-USD; `shortened`
    when a budget near its end has cut the answer short, and said so."""

    request: TraceRequest
    status: int
    seconds: float
    content: str = ""
    source: str = ""
    error: str = ""
    cost: int = 0
    saved: int = 0
    broken: bool = False
    shortened: bool = False


def body_of(request: TraceRequest, model: str | None = None) -> Json:
    """The HTTP body of a request of the trace."""
    body: Json = {
        "model": model or request.model,
        "messages": [{"role": "system", "content": request.system}, {"role": "user", "content": request.text}],
    }
    if request.stream:
        body["stream"] = True
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    return body


class Client:
    """A tenant's application: one API key, one base URL."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = Http(
            origin_of(f"{url}/v1", allow_private=True), name="client", headers=headers, allow_private=True
        )

    async def send(self, request: TraceRequest, model: str | None = None) -> Outcome:
        """Ask, read the answer to its end, and say what was seen. Never raises for what a server did."""
        began = time.monotonic()
        try:
            answer = await self._http.post(
                "/chat/completions", msgspec.json.encode(body_of(request, model)), timeout=TIMEOUT
            )
            try:
                seen = await (_streamed(answer) if request.stream and answer.status == 200 else _whole(answer))
            finally:
                answer.close()
        except GatewayError as error:
            return Outcome(request=request, status=0, seconds=time.monotonic() - began, error=error.message)
        return Outcome(request=request, seconds=time.monotonic() - began, **seen)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.close()


async def _whole(answer: Answer) -> Json:
    head = _head(answer)
    body = msgspec.json.decode(await answer.whole())
    if answer.status != 200:
        return {**head, "error": body["error"].get("code") or body["error"]["type"]}
    (choice,) = body["choices"]
    return {**head, "content": choice["message"]["content"], "shortened": _shortened(answer, choice)}


async def _streamed(answer: Answer) -> Json:
    head = _head(answer)
    parser, ended, comment = SseParser(), False, b""
    pieces: list[str] = []
    shortened = False
    while part := await answer.read():
        comment = part if b": headgate" in part else comment
        for event in parser.feed(part):
            if event.data == b"[DONE]":
                ended = True
                continue
            chunk = msgspec.json.decode(event.data)
            if "error" in chunk:
                return {**head, "error": chunk["error"]["code"], "broken": True}
            for choice in chunk["choices"]:
                pieces.append(choice["delta"].get("content") or "")
                shortened = shortened or _shortened(answer, choice)
    said = {"content": "".join(pieces), "broken": not ended, "shortened": shortened}
    return {**head, **_closing_words(comment), **said}


def _shortened(answer: Answer, choice: Json) -> bool:
    return choice.get("finish_reason") == "length" and answer.header("x-headgate-output-limit") is not None


def _head(answer: Answer) -> Json:
    return {
        "status": answer.status,
        "source": answer.header("x-headgate-source") or "",
        "cost": _nano(answer.header("x-headgate-cost-usd")),
        "saved": _nano(answer.header("x-headgate-saved-usd")),
    }


def _closing_words(part: bytes) -> Json:
    """Cost and saving of a stream, which are told in its last comment line."""
    words = dict(word.split(b"=", 1) for word in part.partition(b": headgate")[2].split() if b"=" in word)
    return {
        "cost": _nano(words.get(b"cost-usd", b"0").decode()),
        "saved": _nano(words.get(b"saved-usd", b"0").decode()),
    }


def _nano(usd: str | None) -> int:
    return int(Decimal(usd or "0") * NANO_PER_USD)


async def replay(
    trace: Sequence[TraceRequest],
    clients: Mapping[str, Client],
    *,
    done: Callable[[], None],
    events: Sequence[tuple[float, Callable[[], Awaitable[object]]]] = (),
) -> list[Outcome]:
    """Send every request at its time; `events` are (seconds, what to do then); `done` is called after each answer."""
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.1

    async def at(moment: float, work: Callable[[], Awaitable[object]]) -> None:
        await asyncio.sleep(start + moment - loop.time())
        await work()

    async def one(request: TraceRequest) -> Outcome:
        await asyncio.sleep(start + request.t - loop.time())
        outcome = await clients[request.tenant].send(request)
        done()
        return outcome

    happening = [asyncio.create_task(at(moment, work)) for moment, work in events]
    outcomes = await asyncio.gather(*(one(request) for request in trace))
    await asyncio.gather(*happening)
    return outcomes


async def straight(
    trace: Sequence[TraceRequest], url: str, model: str, *, concurrency: int, done: Callable[[], None]
) -> list[Outcome]:
    """The same trace without a gateway, as fast as `concurrency` allows: what it costs, and what the right answers are."""
    client, room = Client(url, ""), asyncio.Semaphore(concurrency)

    async def one(request: TraceRequest) -> Outcome:
        async with room:
            outcome = await client.send(request, model)
        done()
        return outcome

    try:
        return await asyncio.gather(*(one(request) for request in trace))
    finally:
        await client.close()
