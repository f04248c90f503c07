"""What a provider has counted before its answer breaks is noted on the clearance, so that no attempt is charged less."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.model.chat import ChatRequest
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Malformed, UpstreamError
from headgate.model.money import Usage
from headgate.providers.anthropic import Anthropic
from headgate.providers.endpoint import Endpoint
from headgate.providers.openai import OpenAI
from tests.unit.providers.rawserver import Visit, raw_server

DEPLOYMENT = Deployment(name="small", provider="acme", model="small-2026")
REPORTED = {"prompt_tokens": 300, "completion_tokens": 2, "total_tokens": 302}
USED = Usage(prompt_tokens=300, completion_tokens=2)
PIECE = {"model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
START = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 300, "output_tokens": 2}}}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}}


def events(*bodies: Any) -> bytes:
    return "".join(f"data: {body if isinstance(body, str) else json.dumps(body)}\n\n" for body in bodies).encode()


async def told(kind: type[OpenAI | Anthropic], answer: bytes, *, stream: bool, leave: bool = False) -> Usage | None:
    """What is noted when an answer breaks, or when its reader leaves after the first event."""

    async def serve(visit: Visit) -> None:
        await visit.request()
        media = "text/event-stream" if stream else "application/json"
        await visit.answer(answer, headers=f"content-type: {media}\r\n")

    clearance = Clearance("reserved", 9)
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    async with raw_server(serve) as server:
        provider = kind(Endpoint(name="acme", base_url=server.url, allow_private=True))
        sent = provider.send(DEPLOYMENT, ChatRequest.parse(body), clearance, timeout=5)
        try:
            if leave:
                await anext(sent)
            else:
                with pytest.raises(UpstreamError):
                    [event async for event in sent]
        finally:
            await sent.aclose()
            await provider.close()
    return clearance.told


@pytest.mark.parametrize(
    ("kind", "bodies"),
    [
        (OpenAI, ({**PIECE, "usage": REPORTED},)),
        (OpenAI, (PIECE, "{", PIECE, {"model": "m", "choices": [], "usage": REPORTED}, "[DONE]")),
        (OpenAI, (PIECE, {"choices": [1]}, {"x_groq": {"usage": REPORTED}})),
        (Anthropic, (START, BLOCK)),
        (Anthropic, (START, BLOCK, "{", {"type": "message_stop"})),
        (Anthropic, ({"type": "content_block_delta"}, START)),
    ],
)
async def test_a_stream_that_breaks_has_often_been_counted(
    kind: type[OpenAI | Anthropic], bodies: tuple[Any, ...]
) -> None:
    assert await told(kind, events(*bodies), stream=True) == USED


@pytest.mark.parametrize(
    ("kind", "bodies"),
    [(OpenAI, (PIECE, PIECE, {"model": "m", "choices": [], "usage": REPORTED})), (Anthropic, (START, BLOCK, BLOCK))],
)
async def test_who_leaves_in_the_middle_takes_what_has_come_into_account(
    kind: type[OpenAI | Anthropic], bodies: tuple[Any, ...]
) -> None:
    assert await told(kind, events(*bodies), stream=True, leave=True) == USED


@pytest.mark.parametrize(
    ("kind", "usage"), [(OpenAI, REPORTED), (Anthropic, {"input_tokens": 300, "output_tokens": 2})]
)
async def test_a_whole_answer_that_cannot_be_read_has_its_count_all_the_same(
    kind: type[OpenAI | Anthropic], usage: Any
) -> None:
    assert await told(kind, json.dumps({"content": 1, "usage": usage}).encode(), stream=False) == USED


async def test_so_have_embeddings_that_cannot_be_read() -> None:
    async def serve(visit: Visit) -> None:
        await visit.request()
        await visit.answer(json.dumps({"usage": {"prompt_tokens": 300, "total_tokens": 300}}).encode())

    clearance = Clearance("reserved", 0)
    async with raw_server(serve) as server:
        provider = OpenAI(Endpoint(name="acme", base_url=server.url, allow_private=True))
        with pytest.raises(Malformed):
            await provider.embed(DEPLOYMENT, {"input": "a"}, clearance, timeout=5)
        await provider.close()
    assert clearance.told == Usage(prompt_tokens=300)


async def test_nothing_is_noted_where_nothing_was_said() -> None:
    assert await told(OpenAI, events(PIECE), stream=True) is None
    assert await told(Anthropic, events(BLOCK), stream=True) is None
