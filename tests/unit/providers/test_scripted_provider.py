"""The provider for tests, tested."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headgate.model.chat import ChatRequest, Delta, Done
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Malformed, Throttled, UpstreamTimeout
from headgate.model.money import Usage
from headgate.providers.scripted import ScriptedProvider, answer

DEPLOYMENT = Deployment(name="s", provider="scripted", model="s-1")
CLEARED = Clearance("reserved", 9)


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": "Hi"}], **fields})


async def play(provider: ScriptedProvider, *, stream: bool = True, timeout: float = 5.0) -> list[Any]:
    return [event async for event in provider.send(DEPLOYMENT, request(stream=stream), CLEARED, timeout=timeout)]


async def test_a_stream_gives_the_pieces_and_a_whole_answer_gives_them_at_once() -> None:
    provider = ScriptedProvider(answer("Hel", "lo", usage=Usage(prompt_tokens=3, completion_tokens=2)))
    streamed, at_once = await play(provider), await play(provider, stream=False)
    assert [type(event) for event in streamed] == [Delta, Delta, Delta, Done]
    assert [type(event) for event in at_once] == [Delta, Done]
    assert at_once[0].choices[0]["delta"]["content"] == "Hello"
    assert at_once[0].choices[0]["finish_reason"] == "stop"
    assert streamed[-1] == at_once[-1]
    assert [call.limit for call in provider.calls] == [9, 9]


async def test_scripts_are_played_in_order_and_the_last_one_stays() -> None:
    provider = ScriptedProvider([Throttled("later", retry_after=1)], answer("Hi"))
    with pytest.raises(Throttled):
        await play(provider)
    assert await play(provider) == await play(provider)


async def test_a_gate_holds_the_stream_open_until_it_is_set() -> None:
    gate, events = asyncio.Event(), answer("a", "b")
    provider = ScriptedProvider([events[0], gate, *events[1:]])
    stream = provider.send(DEPLOYMENT, request(stream=True), CLEARED, timeout=5)
    assert await anext(stream) == events[0]
    assert provider.open == 1
    gate.set()
    assert [event async for event in stream] == list(events[1:])
    assert provider.open == 0


async def test_a_gate_that_stays_closed_runs_out_of_time() -> None:
    provider = ScriptedProvider([asyncio.Event(), *answer("a")])
    with pytest.raises(UpstreamTimeout):
        await play(provider, timeout=0.01)
    assert provider.open == 0


async def test_a_script_without_an_end_is_an_answer_that_broke_off() -> None:
    provider = ScriptedProvider(answer("a")[:1])
    with pytest.raises(Malformed):
        await play(provider)


async def test_embeddings_are_what_the_script_says() -> None:
    assert await ScriptedProvider(embeddings={"data": []}).embed(DEPLOYMENT, {"input": "a"}, CLEARED, timeout=5) == {
        "data": []
    }
    provider = ScriptedProvider(embeddings=Throttled("later"))
    with pytest.raises(Throttled):
        await provider.embed(DEPLOYMENT, {"input": "a"}, CLEARED, timeout=5)
    assert provider.embedded == [{"input": "a", "model": "s-1"}]
