"""Every fault of the simulator on a socket, seen byte by byte."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from headgate.simulator.script import read_rules
from headgate.simulator.simulator import Simulator

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"


def events_text(body: bytes) -> str:
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n") if line.startswith("data: {")]
    return "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)


@pytest.mark.parametrize(
    ("fault", "status", "openai", "anthropic"),
    [
        ("400", 400, "invalid_request_error", "invalid_request_error"),
        ("401", 401, "invalid_request_error", "authentication_error"),
        ("429:2", 429, "requests", "rate_limit_error"),
        ("500", 500, "server_error", "api_error"),
        ("529", 529, "server_error", "overloaded_error"),
        ("context-length", 400, "invalid_request_error", "invalid_request_error"),
        ("nonsense", 400, "invalid_request_error", "invalid_request_error"),
    ],
)
async def test_a_fault_of_status_has_the_vendors_shape_and_bills_nothing(
    connect: Any, ask: Any, *, fault: str, status: int, openai: str, anthropic: str
) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        for path, expected in ((CHAT, openai), (MESSAGES, anthropic)):
            wire.post(path, ask(max_tokens=9), x_sim_fault=fault)
            got, headers, body = await wire.answer()
            assert (got, json.loads(body)["error"]["type"]) == (status, expected)
            assert headers.get("retry-after") == ("2" if status == 429 else None)
        stats = running.stats()
    assert (stats.calls, stats.errors, stats.prompt_tokens, stats.completion_tokens) == (2, 2, 0, 0)


async def test_a_model_name_asks_for_a_fault(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask() | {"model": "sim-500"})
        assert (await wire.answer())[0] == 500


async def test_hang_answers_nothing_until_the_end(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        hanging, other = await connect(running), await connect(running)
        hanging.post(CHAT, ask(), x_sim_fault="hang")
        other.post(CHAT, ask())
        await other.answer()
        stats = running.stats()
    received, _ = await hanging.rest()
    assert received == b""
    assert (stats.calls, stats.errors) == (2, 1)


async def test_a_client_that_leaves_a_hanging_call_is_forgotten(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        hanging = await connect(running)
        hanging.post(CHAT, ask(), x_sim_fault="hang")
        await hanging.close()
        wire = await connect(running)
        wire.post(CHAT, ask())
        assert (await wire.answer())[0] == 200


async def test_stall_bills_what_was_generated(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(stream=True), x_sim_fault="stall:2")
        await wire.head()
        for _ in range(3):
            size = int(await wire.reader.readline(), 16)
            last = await wire.reader.readexactly(size + 2)
        stats = running.stats()
    received, _ = await wire.rest()
    assert received == b""
    assert json.loads(last[6:])["choices"][0]["delta"]["content"]
    assert stats.errors == 1
    assert stats.prompt_tokens == 10
    assert 2 <= stats.completion_tokens <= 10


@pytest.mark.parametrize(("path", "marker"), [(CHAT, b'"content":"'), (MESSAGES, b"content_block_delta\ndata")])
async def test_cut_resets_the_connection_after_some_chunks(connect: Any, ask: Any, path: str, marker: bytes) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(path, ask(stream=True, max_tokens=50), x_sim_fault="cut:3")
        received, was_reset = await wire.rest()
        stats = running.stats()
    assert was_reset
    assert received.count(marker) == 3 + (path == CHAT)  # OpenAI's first delta holds an empty content
    assert b"[DONE]" not in received
    assert 0 < stats.completion_tokens < 50


async def test_refuse_resets_without_a_byte(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(), x_sim_fault="refuse")
        assert await wire.rest() == (b"", True)
        assert running.stats().errors == 1


async def test_refuse_with_seconds_closes_the_listener_and_opens_it_again(connect: Any, ask: Any) -> None:
    async with Simulator(script=read_rules("[{fault: refuse:0.05, calls: {to: 1}}]")).serve() as running:
        bystander, wire = await connect(running), await connect(running)
        wire.post(CHAT, ask())
        assert await wire.rest() == (b"", True)
        assert await bystander.rest() == (b"", True)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.port)
        while True:
            try:
                again = await connect(running)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        again.post(CHAT, ask())
        assert (await again.answer())[0] == 200


async def test_a_simulator_can_stop_during_an_outage(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(), x_sim_fault="refuse:3600")
        assert await wire.rest() == (b"", True)


async def test_truncated_json_promises_more_than_it_sends(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(), x_sim_fault="truncated-json")
        _, headers = await wire.head()
        received, was_reset = await wire.rest()
        stats = running.stats()
    assert not was_reset
    assert 0 < len(received) < int(headers["content-length"])
    assert stats.completion_tokens > 0


async def test_a_truncated_stream_ends_inside_an_event(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(stream=True), x_sim_fault="truncated-json")
        received, was_reset = await wire.rest()
    assert not was_reset
    assert not received.endswith(b"0\r\n\r\n")
    assert not received.rstrip().endswith(b"}")


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_malformed_sse_sends_one_broken_event_and_goes_on(connect: Any, ask: Any, path: str) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(path, ask(stream=True, max_tokens=50), x_sim_fault="malformed-sse:1")
        *_, body = await wire.answer()
    broken = 0
    for line in body.decode().split("\n"):
        try:
            json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else None
        except ValueError:
            broken += 1
    assert broken == 1
    assert b"[DONE]" in body or b"message_stop" in body


async def test_split_utf8_cuts_inside_characters_and_loses_nothing(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(stream=True), x_sim_fault="split-utf8")
        await wire.head()
        chunks = await wire.chunks()
        stats = running.stats()
    inside = 0
    for chunk in chunks:
        try:
            chunk.decode()
        except UnicodeDecodeError:
            inside += 1
    assert inside > 10
    text = events_text(b"".join(chunks))
    assert "Çözüm" in text
    assert "🎉" in text
    assert stats.errors == 0
    assert stats.completion_tokens == -(-len(text.encode()) // 4)


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
async def test_no_usage_leaves_the_figures_out_but_bills(connect: Any, ask: Any, path: str, stream: bool) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(path, ask(max_tokens=30, stream=stream), x_sim_fault="no-usage")
        *_, body = await wire.answer()
        stats = running.stats()
    assert b"usage" not in body
    assert (stats.prompt_tokens, stats.completion_tokens, stats.errors) == (10, 30, 0)


async def test_a_huge_stream_respects_a_reader_that_does_not_read(connect: Any, ask: Any) -> None:
    """What the client does not take is not generated: billing stops where the socket is full."""
    async with Simulator().serve() as running:
        lazy, other = await connect(running), await connect(running)
        lazy.post(CHAT, ask(stream=True), x_sim_fault="huge:24")
        await lazy.head()
        other.post("/v1/embeddings", {"model": "e", "input": "text"})
        await other.answer()
        stats = running.stats()
        assert stats.completion_tokens < 24 * 1024 * 1024 // 4
        assert len(b"".join(await lazy.chunks())) > 24 * 1024 * 1024
        assert running.stats().completion_tokens >= 24 * 1024 * 1024 // 4


async def test_slow_first_byte_answers_in_full(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(), x_sim_fault="slow-first-byte:0.01")
        status, _, body = await wire.answer()
        assert (status, running.stats().errors) == (200, 0)
        assert json.loads(body)["choices"]
