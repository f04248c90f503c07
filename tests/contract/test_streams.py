"""Streams as bytes: what a proxy, a browser or a client without an SDK sees, and what happens when it goes away."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from typing import Any

import pytest

from tests.contract.house import House, Line, Tenant, eventually, parsed, written

CHAT = "/v1/chat/completions"


def question(text: str = "How do I export my invoices?", **more: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": text}], "stream": True, **more}


def events(house: House, tenant: Tenant, body: Any, **headers: str) -> list[str]:
    """The events of a stream, each without its empty line."""
    answer = house.request("POST", CHAT, body, key=tenant.key, headers=headers)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.body.endswith(b"\n\n")
    return answer.body.decode().removesuffix("\n\n").split("\n\n")


def chunks(found: list[str]) -> list[dict[str, Any]]:
    return [json.loads(one.removeprefix("data: ")) for one in found if one.startswith("data: {")]


def text_of(found: list[str]) -> str:
    return "".join(choice["delta"].get("content") or "" for one in chunks(found) for choice in one.get("choices", ()))


def test_a_stream_is_events_then_a_comment_then_done(house: House, tenant: Tenant) -> None:
    for source in ("live", "exact"):
        found = events(house, tenant, question())
        *parts, comment, done = found
        assert done == "data: [DONE]"
        assert comment.startswith(f": headgate source={source} ")
        assert "cost-usd=" in comment
        assert "saved-usd=" in comment
        assert all(part.startswith('data: {"id":"chatcmpl-') for part in parts)
        assert all("\n" not in part for part in parts)
        assert chunks(parts)[0]["choices"][0]["delta"]["role"] == "assistant"
        assert chunks(parts)[-1]["choices"][0]["finish_reason"] == "stop"
        assert "export" in text_of(parts)


def test_the_headers_of_a_stream_keep_proxies_from_holding_it_back(house: House, tenant: Tenant) -> None:
    answer = house.request("POST", CHAT, question(), key=tenant.key)
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers
    assert answer.headers["x-headgate-source"] == "live"
    assert "x-headgate-cost-usd" not in answer.headers
    assert answer.headers["x-request-id"] == chunks(answer.body.decode().split("\n\n"))[0]["id"].removeprefix(
        "chatcmpl-"
    )


def test_the_cost_in_the_comment_is_the_one_in_the_bill(house: House, tenant: Tenant) -> None:
    comment = events(house, tenant, question())[-2]
    cost = dict(word.split("=") for word in comment.split() if "=" in word)["cost-usd"]
    assert house.request("GET", "/v1/usage", key=tenant.key).json["total"]["cost_usd"] == cost


def test_usage_comes_when_it_is_asked_for_and_null_before(house: House, tenant: Tenant) -> None:
    parts = chunks(events(house, tenant, question(stream_options={"include_usage": True})))
    assert all(part["usage"] is None for part in parts[:-1])
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"]["total_tokens"] > 0
    assert all("usage" not in part for part in chunks(events(house, tenant, question())))


@pytest.mark.parametrize(
    ("model", "code"), [("broken-cut", "stream_interrupted"), ("broken-malformed-sse", "stream_interrupted")]
)
def test_an_answer_that_breaks_off_ends_in_an_error_and_no_done(
    house: House, tenant: Tenant, model: str, code: str
) -> None:
    found = events(house, tenant, question(model=model))
    assert json.loads(found[-1].removeprefix("data: "))["error"]["code"] == code
    assert "data: [DONE]" not in found
    assert text_of(found[:-1])
    again = events(house, tenant, question(model=model))
    assert text_of(again[:-1]), "it was not cached"
    assert "error" in again[-1]


@pytest.mark.parametrize("model", ["broken-500", "broken-400", "nowhere"])
def test_an_error_before_the_first_part_is_a_status_and_json(house: House, tenant: Tenant, model: str) -> None:
    answer = house.request("POST", CHAT, question(model=model), key=tenant.key)
    assert answer.status in (400, 404, 503)
    assert answer.error


def test_a_time_that_runs_out_in_a_stream_is_an_error_event(house: House) -> None:
    hasty = house.tenant(policy={"abandoned": "cancel"})
    found = events(house, hasty, question(model="broken-stall"), **{"x-headgate-timeout": "0.3"})
    assert json.loads(found[-1].removeprefix("data: "))["error"]["code"] == "upstream_timeout"
    eventually(lambda: house.metric("headgate_reservations_open") == 0)


def test_a_connection_serves_one_answer_after_the_other(house: House, tenant: Tenant) -> None:
    with house.connection() as line:
        for _ in range(3):
            assert line.ask("POST", CHAT, question(), key=tenant.key).body.endswith(b"data: [DONE]\n\n")
            assert line.ask("POST", CHAT, question(stream=False), key=tenant.key).status == 200
            assert line.ask("POST", CHAT, b"{", key=tenant.key).status == 400
            assert line.ask("GET", "/v1/models", key=tenant.key).status == 200
            assert line.ask("GET", "/v1/models", key="hg-wrong").status == 401
            assert line.ask("HEAD", "/v1/models", key=tenant.key).body == b""


def test_requests_sent_ahead_are_answered_in_order(house: House, tenant: Tenant) -> None:
    with house.connection() as line:
        for path in ("/v1/models/small", "/v1/models/large", "/v1/models/claude"):
            line.send("GET", path, key=tenant.key)
        received = b""
        while received.count(b'"object":"model"') < 3:
            received += line.line.recv(65_536)
    assert received.index(b'"small"') < received.index(b'"large"') < received.index(b'"claude"')


def test_the_end_of_the_connection_is_said(house: House, tenant: Tenant) -> None:
    with house.connection() as line:
        answer = line.ask("GET", "/v1/models", key=tenant.key, headers={"Connection": "close"})
        assert answer.headers["connection"] == "close"
        assert line.line.recv(1) == b""


def test_a_client_that_waits_for_a_word_is_told_to_go_on(house: House, tenant: Tenant) -> None:
    body = json.dumps(question(stream=False)).encode()
    with house.connection() as line:
        headers = {"Expect": "100-continue", "Content-Length": str(len(body))}
        line.send("POST", CHAT, b"", key=tenant.key, headers=headers)
        assert line.line.recv(1_000).startswith(b"HTTP/1.1 100")
        line.line.sendall(body)
        assert line.response().status == 200


def test_a_body_that_comes_byte_by_byte_is_read(house: House, tenant: Tenant) -> None:
    body = json.dumps(question(stream=False)).encode()
    with house.connection() as line:
        line.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.send("POST", CHAT, b"", key=tenant.key, headers={"Content-Length": str(len(body))})
        for place in range(len(body)):
            line.line.sendall(body[place : place + 1])
        assert line.response().status == 200


def test_a_body_of_four_mebibytes_is_taken(house: House, tenant: Tenant) -> None:
    body = json.dumps(question("", model="wide", stream=False)).encode()
    text = b"a " * ((2**22 - len(body)) // 2) + b"a" * ((2**22 - len(body)) % 2)
    body = body.replace(b'"content": ""', b'"content": "' + text + b'"')
    assert len(body) == 2**22
    assert house.request("POST", CHAT, body, key=tenant.key).status == 200


def hang_up(house: House, tenant: Tenant, body: Any, *, after: bytes) -> None:
    """Send a request and go away once `after` has come."""
    with house.connection() as line:
        line.send("POST", CHAT, body, key=tenant.key)
        received = b""
        while after not in received:
            received += line.line.recv(65_536)


def free(house: House, tenant: Tenant) -> bool:
    """Whether this tenant, which may have one request at a time, has none."""
    return house.request("POST", CHAT, question("Anyone?", stream=False), key=tenant.key).status == 200


def test_a_client_that_hangs_up_in_a_stream_gives_its_place_back(house: House) -> None:
    single = house.tenant(concurrency=1, policy={"abandoned": "cancel"})
    for _ in range(3):
        hang_up(house, single, question(model="broken-stall"), after=b'"content":')
        eventually(lambda: free(house, single))
    eventually(lambda: house.metric("headgate_reservations_open") == 0)
    rows = house.request("GET", "/v1/usage?group_by=model", key=single.key).json["data"]
    assert any(row["model"] == "sim-stall" and float(row["cost_usd"]) > 0 for row in rows), rows


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("abandoned", ["finish", "cancel"])
def test_what_everyone_has_left_is_finished_or_cancelled_as_the_tenant_wants(
    house: House, abandoned: str, stream: bool
) -> None:
    single = house.tenant(concurrency=1, policy={"abandoned": abandoned})
    body = question(f"Will {abandoned} be kept? {stream}", model="slow", stream=stream)
    with house.connection() as line:
        line.send("POST", CHAT, body, key=single.key)
        eventually(lambda: house.metric("headgate_reservations_open") == 1)
    eventually(lambda: free(house, single))
    eventually(lambda: house.metric("headgate_reservations_open") == 0)
    wish = {"x-headgate-cache": "only-if-cached"}

    def kept() -> int:
        return house.request("POST", CHAT, {**body, "stream": False}, key=single.key, headers=wish).status

    if abandoned == "finish":
        eventually(lambda: kept() == 200)
    else:
        assert kept() == 504


def test_a_slow_reader_holds_nobody_up_and_gets_all(house: House, tenant: Tenant) -> None:
    with house.connection() as line:
        line.send("POST", CHAT, question(model="broken-huge"), key=tenant.key)
        with line.response() as response:
            assert response.status == 200
            for number in range(20):
                other = question(f"Meanwhile, number {number}?", stream=False)
                assert house.request("POST", CHAT, other, key=tenant.key).status == 200
            whole = response.read()
    assert text_of(whole.decode().split("\n\n")).endswith("]")
    assert len(whole) > 8 * 2**20
    assert whole.endswith(b"data: [DONE]\n\n")


async def read(house: House, tenant: Tenant, body: Any) -> bytes:
    """A whole response, head and all, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(written(CHAT, json.dumps(body).encode(), tenant.key, b"Connection: close\r\n"))
    whole = await reader.read()
    writer.close()
    await writer.wait_closed()
    return whole


async def test_readers_of_one_answer_have_each_an_id_and_all_of_it(house: House, tenant: Tenant) -> None:
    body = question("What do we all want to know?", model="slow")
    answers = [parsed(one) for one in await asyncio.gather(*(read(house, tenant, body) for _ in range(20)))]
    sources = sorted(answer.headers["x-headgate-source"] for answer in answers)
    assert sources == ["coalesced"] * 19 + ["live"]
    seen, texts = set(), set()
    for answer in answers:
        assert answer.headers["transfer-encoding"] == "chunked"
        found = [line.decode() for line in answer.body.splitlines() if line.startswith(b"data: ")]
        parts = chunks(found)
        assert {one["id"] for one in parts} == {f"chatcmpl-{answer.headers['x-request-id']}"}
        assert all(one["object"] == "chat.completion.chunk" for one in parts)
        assert all(one["system_fingerprint"] for one in parts), "what a vendor says beside the answer is passed on"
        assert parts[-1]["choices"][0]["finish_reason"] == "stop"
        assert found[-1] == "data: [DONE]"
        seen.add(parts[0]["id"])
        texts.add(text_of(found))
    assert len(seen) == len(answers)
    assert len(texts) == 1


async def test_two_hundred_streams_at_once_all_end_well(house: House, tenant: Tenant) -> None:
    before = house.calls().calls
    bodies = [question(f"Number {number % 100}?") for number in range(200)]
    answers = await asyncio.gather(*(read(house, tenant, body) for body in bodies))
    assert all(b"data: [DONE]" in answer for answer in answers)
    assert house.calls().calls <= before + 100
    assert house.metric("headgate_reservations_open") == 0


def test_many_who_hang_up_at_any_moment_leave_nothing_behind(house: House) -> None:
    crowd = house.tenant(concurrency=8)
    chance = random.Random(7)
    body = json.dumps(question(stream_options={"include_usage": True})).encode()
    for number in range(80):
        sent = body.replace(b"invoices", b"invoices %d" % (number // 4))
        with house.connection() as line:
            line.send("POST", CHAT, sent, key=crowd.key, headers={"x-headgate-cache": "exact"})
            if chance.random() < 0.7:
                line.line.recv(chance.choice((1, 100, 1_000)))

    def all_free() -> bool:
        lines = [socket.create_connection(("127.0.0.1", house.port), timeout=10) for _ in range(8)]
        try:
            for number, line in enumerate(lines):
                Line(line).send("POST", CHAT, question(f"All {number}?", model="slow", stream=False), key=crowd.key)
            return [Line(line).response().status for line in lines] == [200] * 8
        finally:
            for line in lines:
                line.close()

    eventually(all_free)
    eventually(lambda: house.metric("headgate_reservations_open") == 0)
    assert house.metric("headgate_flight_followers") == 0
