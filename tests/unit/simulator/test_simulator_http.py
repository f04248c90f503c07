"""The simulator on a socket: HTTP, billing, control."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from headgate.simulator.simulator import Simulator

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"


def events(body: bytes) -> list[Any]:
    """The JSON values of an event stream."""
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def streamed_text(body: bytes) -> str:
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events(body) if event["choices"])


async def test_an_answer_is_billed_as_it_says(connect: Any, ask: Any) -> None:
    async with Simulator(clock=lambda: 7.0).serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask())
        status, headers, body = await wire.answer()
        stats = running.stats()
    answer = json.loads(body)
    assert (status, headers["content-type"], answer["created"]) == (200, "application/json", 7)
    assert answer["usage"]["prompt_tokens"] == stats.prompt_tokens == stats.by_model["any"].prompt_tokens == 10
    assert answer["usage"]["completion_tokens"] == stats.completion_tokens
    assert (stats.calls, stats.streams, stats.errors) == (1, 0, 0)


async def test_a_stream_is_the_same_answer_at_the_same_price(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask())
        *_, whole = await wire.answer()
        one = running.stats()
        wire.post("/chat/completions", ask(stream=True, stream_options={"include_usage": True}))
        *_, body = await wire.answer()
        both = running.stats()
    assert streamed_text(body) == json.loads(whole)["choices"][0]["message"]["content"]
    assert body.endswith(b"data: [DONE]\n\n")
    assert events(body)[-1]["usage"] == json.loads(whole)["usage"]
    assert both.completion_tokens == 2 * one.completion_tokens
    assert (both.calls, both.streams) == (2, 1)


async def test_pipelined_requests_are_answered_in_order(connect: Any, ask: Any) -> None:
    async with Simulator(latency_s=0.001).serve() as running:
        wire = await connect(running)
        for number in range(40):
            wire.post(CHAT, ask(f"Question {number}", stream=number % 2 == 0))
        for number in range(40):
            *_, body = await wire.answer()
            text = streamed_text(body) if number % 2 == 0 else json.loads(body)["choices"][0]["message"]["content"]
            assert f"You asked: Question {number} " in text


async def test_many_pipelined_streams_in_one_packet_are_all_answered(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        for number in range(400):
            wire.post(CHAT, ask(f"Q{number}", stream=True, max_tokens=7))
        for _ in range(400):
            status, _, _ = await wire.answer()
            assert status == 200


@pytest.mark.parametrize(
    ("raw", "start"),
    [
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400 "),
        (b"POST /v1/messages HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", b""),
        (b"GET /v1/models HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /elsewhere HTTP/1.1\r\nconnection: close\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"GET /v1/messages HTTP/1.1\r\nconnection: close\r\n\r\n", b"HTTP/1.1 405 "),
    ],
)
async def test_odd_requests_are_answered_and_hung_up(connect: Any, raw: bytes, start: bytes) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.writer.write(raw)
        if not start:
            wire.writer.write(b"{")
            start = b"HTTP/1.1 413 "
        received, _ = await wire.rest()
    assert received.startswith(start)
    assert b"connection: close" in received


async def test_a_stream_to_an_http_1_0_client_is_not_chunked(connect: Any, ask: Any) -> None:
    body = json.dumps(ask(stream=True)).encode()
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.writer.write(b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        received, _ = await wire.rest()
    assert b"transfer-encoding" not in received
    assert received.endswith(b"data: [DONE]\n\n")


async def test_a_request_in_tiny_pieces_is_understood(connect: Any, ask: Any) -> None:
    body = json.dumps(ask()).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    async with Simulator().serve() as running:
        wire = await connect(running)
        for byte in head:
            wire.writer.write(bytes([byte]))
            await wire.writer.drain()
            await asyncio.sleep(0)
        assert (await wire.head())[0] == 100
        wire.writer.write(body)
        assert (await wire.answer())[0] == 200


@pytest.mark.parametrize(
    ("path", "body"), [(CHAT, b"{"), (MESSAGES, b'{"model": 5}'), ("/v1/embeddings", b"[]"), (CHAT, b"\xff")]
)
async def test_a_bad_body_is_an_error_in_the_vendors_shape(connect: Any, path: str, body: bytes) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(path, body)
        status, _, answer = await wire.answer()
        stats = running.stats()
    assert status == 400
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"
    assert (stats.calls, stats.errors, stats.prompt_tokens, stats.by_model) == (1, 1, 0, {})


async def test_a_paced_stream_that_is_left_is_billed_in_part(connect: Any, ask: Any) -> None:
    async with Simulator(tokens_per_s=10).serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(stream=True))
        await wire.head()
        for _ in range(3):
            size = int(await wire.reader.readline(), 16)
            await wire.reader.readexactly(size + 2)
        await wire.close()
        other = await connect(running)
        other.writer.write(b"GET /_sim/stats HTTP/1.1\r\n\r\n")
        *_, body = await other.answer()
    stats = json.loads(body)
    assert stats["prompt_tokens"] == 10
    assert 2 <= stats["completion_tokens"] < 40
    assert set(stats) == {"calls", "streams", "errors", "prompt_tokens", "completion_tokens", "by_model"}


async def test_an_answer_not_yet_given_is_not_billed(connect: Any, ask: Any) -> None:
    async with Simulator(latency_s=3600).serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask())
        await wire.close()
        other = await connect(running)
        other.writer.write(b"GET /_sim/stats HTTP/1.1\r\n\r\n")
        await other.answer()
    assert running.stats().prompt_tokens == 0


async def test_control_by_http_sets_the_script_and_resets(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)

        async def statuses(count: int) -> list[int]:
            found = []
            for _ in range(count):
                wire.post(CHAT, ask())
                found.append((await wire.answer())[0])
            return found

        wire.post("/_sim/script", [{"fault": 529, "calls": {"to": 1}}])
        assert json.loads((await wire.answer())[2]) == {"rules": 1}
        assert await statuses(2) == [529, 200]
        wire.post("/_sim/reset", b"")
        assert json.loads((await wire.answer())[2])["calls"] == 0
        assert await statuses(2) == [529, 200]
        wire.post("/_sim/script", [{"fault": 529, "calls": {"to": "soon"}}])
        status, _, body = await wire.answer()
        assert status == 400
        assert "$[0].calls.to" in json.loads(body)["error"]["message"]
        wire.post("/_sim/script", [])
        await wire.answer()
        assert await statuses(1) == [200]


async def test_only_the_messages_wire_reads_and_writes_a_prompt_cache(connect: Any) -> None:
    system = [{"type": "text", "text": "You are a patient agent. " * 20, "cache_control": {"type": "ephemeral"}}]
    body = {"model": "c", "max_tokens": 9, "system": system, "messages": [{"role": "user", "content": "Hi"}]}
    async with Simulator().serve() as running:
        wire = await connect(running)
        found = []
        for _ in range(2):
            wire.post(MESSAGES, body)
            usage = json.loads((await wire.answer())[2])["usage"]
            names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
            found.append([usage[name] for name in names])
        stats = running.stats()
    assert found == [[4, 128, 0], [4, 0, 128]]
    assert stats.prompt_tokens == 2 * 132


async def test_an_unusable_schema_is_a_bad_request(connect: Any, ask: Callable[..., dict[str, Any]]) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": 5}}}]
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(tools=tools))
        status, _, body = await wire.answer()
    assert status == 400
    assert "schema" in json.loads(body)["error"]["message"]
