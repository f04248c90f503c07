"""The callers of the budget race: what they ask, how they behave when they are refused, and what they note.

Each asks one question after the other on a connection of its own until it is refused for good. None asks the same twice, so no
cache helps. Five kinds take turns: chats that say nothing of `max_tokens` or say little, streamed and not, and coding agents that
send a long prompt, allow tens of thousands of output tokens and use some hundreds. What the simulator will answer is known beforehand, for it is
deterministic: how long a call that was refused would have been, too.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from benchmarks.race_setting import PRICE, Group
from headgate.model.errors import GatewayError
from headgate.model.money import Usage
from headgate.providers.egress import origin_of
from headgate.providers.http import Answer, Http
from headgate.providers.sse import SseParser
from headgate.simulator.answers import Quirks, compose
from headgate.simulator.openai_wire import OpenAIChat

TIMEOUT = 60.0
MOST_RETRIES = 30
"""How often a caller that is to come back does so before it gives up."""

Outcome = Literal["served", "exceeded", "gave up", "failed", "unfinished"]

_reader = OpenAIChat()
_sound = Quirks()


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A way to call. `context`: bytes of prompt before the question; `long`: answers of some hundred tokens instead of seventy."""

    stream: bool
    max_tokens: int | None = None
    context: int = 0
    long: bool = False


KINDS = (
    Kind(stream=True),
    Kind(stream=False, max_tokens=64),
    Kind(stream=True, max_tokens=32_000, context=1_500, long=True),
    Kind(stream=False, max_tokens=1_000),
    Kind(stream=False, max_tokens=64_000, context=1_500, long=True),
)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A body to send and what is known of it. `answer`: tokens that the whole answer has; `prompt`, `most_prompt`: tokens of
    the prompt as the simulator bills it, and the bound that a caller can work out: a token for each byte, 8 for a message."""

    body: bytes
    prompt: int
    most_prompt: int
    answer: int
    max_tokens: int | None

    @property
    def cost(self) -> int:
        """Nano-USD that it costs when it is answered whole."""
        return PRICE.charge(Usage(prompt_tokens=self.prompt, completion_tokens=self.answer))

    def need(self, expected: int) -> int:
        """Nano-USD without which nobody can make this call safely who expects answers of at most so many tokens."""
        tokens = expected if self.max_tokens is None else min(expected, self.max_tokens)
        return PRICE.ceiling(self.most_prompt, tokens)


class Call(msgspec.Struct, kw_only=True):
    """What became of a question. Times are seconds on one clock: the last sending, and the end of the answer.

    cost   nano-USD of the usage that the answer reported
    held   how often it was told to come back
    short  the answer was cut off before its length or the caller's own limit was reached
    """

    group: str
    question: Question
    sent: float = 0.0
    ended: float = 0.0
    outcome: Outcome = "unfinished"
    cost: int = 0
    held: int = 0
    short: bool = False
    said: str = ""


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP answer, read to its end."""

    status: int
    code: str = ""
    text: str = ""
    retry_after: float | None = None
    usage: Usage | None = None


class Caller:
    """One client program: one connection, one call at a time."""

    def __init__(self, url: str, key: str, group: Group, number: int, *, race: str, latest: float) -> None:
        """`number` decides its kind and, with the name of the race, its questions; none is begun after `latest`, on the monotonic
        clock."""
        self._http = Http(
            origin_of(url, allow_private=True),
            name="gateway",
            headers={"authorization": f"Bearer {key}", **group.headers},
            allow_private=True,
        )
        self._group = group
        self._kind = KINDS[number % len(KINDS)]
        self._name = f"{race}-{number:05d}"
        self._chance = random.Random(number)
        self._latest = latest

    async def run(self) -> list[Call]:
        """Ask until refused; every call in order."""
        calls: list[Call] = []
        try:
            for turn in itertools.count():
                calls.append(await self._call(turn))
                if calls[-1].outcome != "served":
                    return calls
        finally:
            await self._http.close()
        return calls

    async def _call(self, turn: int) -> Call:
        question = ask(self._group.name, self._kind, f"{self._name}-{turn:05d}", self._chance)
        call = Call(group=self._group.name, question=question)
        while time.monotonic() < self._latest:
            call.sent = time.monotonic()
            heard = await self._heard(question.body)
            call.ended = time.monotonic()
            call.outcome, wait = judged(heard)
            call.said = heard.text
            if call.outcome == "served" and heard.usage is not None:
                call.cost = PRICE.charge(heard.usage)
                wanted = min(question.answer, question.max_tokens or question.answer)
                call.short = heard.usage.completion_tokens < wanted
            if call.outcome != "gave up":
                return call
            call.held += 1
            if call.held > MOST_RETRIES:
                return call
            await asyncio.sleep(wait)
        call.outcome = "unfinished"
        return call

    async def _heard(self, body: bytes) -> _Heard:
        try:
            answer = await self._http.post("/chat/completions", body, timeout=TIMEOUT)
            try:
                if answer.status == 200 and self._kind.stream:
                    return await _stream(answer)
                return await _whole(answer)
            finally:
                answer.close()
        except (GatewayError, msgspec.DecodeError) as error:
            return _Heard(status=0, text=str(error))


def ask(model: str, kind: Kind, number: str, chance: random.Random) -> Question:
    """A question that nobody else asks."""
    context = ("def settle(account, entry): return account.less(entry)\n" * (kind.context // 54 + 1))[: kind.context]
    text = f"{context}Reference {number}: how do I change what the order says, now that it has been paid for?"
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if kind.max_tokens is not None:
        body["max_tokens"] = kind.max_tokens
    if kind.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if kind.long:
        least = 4 * min(1_500, round(chance.lognormvariate(5.5, 0.5)))
        schema = {"type": "object", "properties": {"patch": {"type": "string", "minLength": least}}}
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "edit", "schema": schema}}
    written = msgspec.json.encode(body)
    understood = _reader.read(written)
    shape = len(msgspec.json.encode(body["response_format"])) if kind.long else 0
    return Question(
        body=written,
        prompt=understood.prompt_tokens,
        most_prompt=len(text.encode()) + 8 + shape,
        answer=sum(answer.tokens for answer in compose(understood, _sound)),
        max_tokens=kind.max_tokens,
    )


def judged(heard: _Heard) -> tuple[Outcome, float]:
    """What an answer means to an SDK: done, come back after so many seconds (`gave up`, should it never), or refused for good."""
    if heard.status == 200:
        return ("served", 0.0) if heard.usage is not None else ("failed", 0.0)
    spent = heard.code != "budget_held" and "budget" in f"{heard.code} {heard.text}".lower()
    if heard.code == "budget_exceeded" or (spent and heard.retry_after is None):
        return "exceeded", 0.0
    if heard.code == "budget_held" or heard.status in (429, 503):
        return "gave up", heard.retry_after or 1.0
    return "failed", 0.0


async def _whole(answer: Answer) -> _Heard:
    head = answer.header("retry-after")
    body = msgspec.json.decode(await answer.whole())
    if answer.status == 200:
        return _Heard(status=200, usage=_usage(body))
    error = body.get("error", body)
    told: Mapping[str, Any] = error if isinstance(error, dict) else {}
    return _Heard(
        status=answer.status,
        code=str(told.get("code") or told.get("type") or ""),
        text=str(told.get("message") or body)[:300],
        retry_after=None if head is None else float(head),
    )


async def _stream(answer: Answer) -> _Heard:
    parser, usage, ended = SseParser(), None, False
    while part := await answer.read():
        for event in parser.feed(part):
            if event.data == b"[DONE]":
                ended = True
                continue
            chunk = msgspec.json.decode(event.data)
            if "error" in chunk:
                return _Heard(status=0, text=str(chunk["error"])[:300])
            usage = _usage(chunk) or usage
    return _Heard(status=200 if ended else 0, usage=usage, text="" if ended else "the stream broke off")


def _usage(body: Mapping[str, Any]) -> Usage | None:
    told = body.get("usage")
    if not told:
        return None
    return Usage(prompt_tokens=told["prompt_tokens"], completion_tokens=told["completion_tokens"])
