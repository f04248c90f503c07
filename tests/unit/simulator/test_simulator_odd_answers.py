"""Faults of the simulator in what an answer says and how it is written, seen byte by byte."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from headgate.simulator.simulator import Simulator

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"


@pytest.mark.parametrize(
    ("fault", "path", "status", "type"),
    [
        ("403", CHAT, 403, "invalid_request_error"),
        ("403", MESSAGES, 403, "permission_error"),
        ("404", MESSAGES, 404, "not_found_error"),
        ("413", CHAT, 413, "invalid_request_error"),
        ("502", CHAT, 502, "server_error"),
        ("503", MESSAGES, 503, "api_error"),
        ("no-money", MESSAGES, 400, "invalid_request_error"),
    ],
)
async def test_further_faults_of_status_bill_nothing(
    connect: Any, ask: Any, *, fault: str, path: str, status: int, type: str
) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(path, ask(max_tokens=9), x_sim_fault=fault)
        got, _, body = await wire.answer()
        assert (got, json.loads(body)["error"]["type"]) == (status, type)
        assert running.stats().prompt_tokens == 0


async def test_an_empty_account_is_told_in_the_vendors_own_words(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        for path, said in (
            (CHAT, b"insufficient_quota"),
            ("/v1/embeddings", b"insufficient_quota"),
            (MESSAGES, b"credit balance"),
        ):
            asked = {"model": "any", "input": "Hi"} if path.endswith("embeddings") else ask(max_tokens=9)
            wire.post(path, asked, x_sim_fault="no-money")
            assert said in (await wire.answer())[2]


async def test_quota_says_that_no_request_is_left(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(), x_sim_fault="quota:12")
        status, headers, _ = await wire.answer()
    assert status == 200
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"] == "12s"


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize(("fault", "billed"), [("error-event", False), ("error-event:3", True)])
async def test_an_error_event_ends_the_stream_and_before_all_content_nothing_is_billed(
    connect: Any, ask: Any, *, path: str, fault: str, billed: bool
) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(path, ask(stream=True, max_tokens=50), x_sim_fault=fault)
        _, _, body = await wire.answer()
        assert b"overloaded_error" in body.rstrip().rpartition(b"data: ")[2]
        assert (running.stats().prompt_tokens > 0) == billed


async def test_an_odd_stream_holds_the_same_events(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(stream=True), x_sim_fault="odd-sse")
        _, _, body = await wire.answer()
    assert body.startswith(b"\xef\xbb\xbf: a comment\r\n")
    assert b"\n" not in body.replace(b"\r\n", b"")
    assert not body.endswith(b"\r\n\r\n")


async def test_a_compressed_answer_is_whole(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(), x_sim_fault="gzip")
        _, headers, body = await wire.answer()
    assert headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(body))["choices"]


async def test_a_line_without_end_goes_on_for_as_long_as_was_asked(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(stream=True), x_sim_fault="endless-line:0.125")
        await wire.head()
        read = 0
        while read < 128 * 1024:
            read += len(await wire.reader.read(65_536))
    received, _ = await wire.rest()
    assert b"\n\n" not in received


async def test_a_trickle_waits_between_its_chunks_and_ends(connect: Any, ask: Any) -> None:
    async with Simulator().serve() as running:
        wire = await connect(running)
        wire.post(CHAT, ask(stream=True, max_tokens=2), x_sim_fault="trickle:0.001")
        _, _, body = await wire.answer()
    assert b"[DONE]" in body
