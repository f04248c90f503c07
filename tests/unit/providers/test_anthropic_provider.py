"""Anthropic over HTTP: paths, headers and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.model.chat import ChatRequest, Delta
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Rejected, Unavailable
from headgate.providers.anthropic import Anthropic
from headgate.providers.endpoint import Endpoint
from tests.unit.providers.rawserver import Visit, raw_server

DEPLOYMENT = Deployment(name="c", provider="acme", model="claude-x")
CLEARED = Clearance("reserved", 9)
ANSWER = {
    "type": "message",
    "model": "claude-x-1",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 1},
}


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": "Hi"}], **fields})


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_a_request_goes_to_the_messages_path_with_key_and_version(suffix: str) -> None:
    async def serve(visit: Visit) -> None:
        await visit.request()
        await visit.answer(json.dumps(ANSWER).encode(), headers="content-type: application/json\r\n")

    async with raw_server(serve) as server:
        endpoint = Endpoint(
            name="acme",
            base_url=server.url + suffix,
            api_key="k-1",
            allow_private=True,
            headers={"anthropic-beta": "x"},
        )
        provider = Anthropic(endpoint)
        delta, done = [event async for event in provider.send(DEPLOYMENT, request(), CLEARED, timeout=5)]
        await provider.close()
        head, _, body = server.visits[0].requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/messages HTTP/1.1"
    assert {b"x-api-key: k-1", b"anthropic-version: 2023-06-01", b"anthropic-beta: x"} < set(lines)
    assert json.loads(body)["max_tokens"] == 9
    part = {"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    assert delta == Delta([part])
    assert (done.model, done.usage.total_tokens) == ("claude-x-1", 4)


async def test_an_overload_inside_the_stream_comes_before_any_delta() -> None:
    start = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}}
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    stream = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in (start, error))

    async def serve(visit: Visit) -> None:
        await visit.request()
        await visit.answer(stream.encode(), headers="content-type: text/event-stream\r\n")

    async with raw_server(serve) as server:
        provider = Anthropic(Endpoint(name="acme", base_url=server.url, allow_private=True))
        with pytest.raises(Unavailable, match="acme answered 529: Overloaded"):
            await anext(provider.send(DEPLOYMENT, request(stream=True), CLEARED, timeout=5))
        await provider.close()


async def test_it_offers_no_embeddings() -> None:
    provider = Anthropic(Endpoint(name="acme", base_url="https://api.anthropic.com"))
    with pytest.raises(Rejected, match="acme does not offer embeddings") as caught:
        await provider.embed(DEPLOYMENT, {"input": "a"}, CLEARED, timeout=5)
    assert caught.value.status == 404
    await provider.close()
