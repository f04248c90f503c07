"""OpenAI's wire format: what is sent, and how answers of every server that speaks like it are read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.chat import ChatRequest, Delta, Done, Event
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Malformed, Refused, Throttled, Unavailable, UpstreamError
from headgate.model.money import Usage
from headgate.model.tally import Tally
from headgate.providers.endpoint import Endpoint, Upstream
from headgate.providers.openai import OpenAI, StreamReader, chat_body
from tests.unit.providers.rawserver import Visit, raw_server

DEPLOYMENT = Deployment(name="small", provider="acme", model="small-2026")
CLEARED = Clearance("reserved", 9)
MESSAGES = [{"role": "user", "content": "Hi"}]


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.parse({"model": "auto", "messages": MESSAGES, **fields})


@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        ({}, {"max_tokens": 9}),
        ({"max_tokens": 50}, {"max_tokens": 9}),
        ({"max_completion_tokens": 50}, {"max_completion_tokens": 9}),
        ({"max_completion_tokens": 50, "max_tokens": 3}, {"max_completion_tokens": 9}),
        ({"stream": False, "stream_options": {"include_usage": True}}, {"max_tokens": 9}),
        ({"stream": None}, {"max_tokens": 9}),
        ({"stream": True}, {"max_tokens": 9, "stream": True, "stream_options": {"include_usage": True}}),
        (
            {"stream": True, "stream_options": {"include_usage": False, "x": 1}},
            {"max_tokens": 9, "stream": True, "stream_options": {"include_usage": True, "x": 1}},
        ),
        ({"n": 2, "seed": 7, "x_vendor": {"a": 1}}, {"max_tokens": 9, "n": 2, "seed": 7, "x_vendor": {"a": 1}}),
    ],
)
def test_the_body_is_the_callers_with_model_limit_and_usage_set(asked: Any, changes: Any) -> None:
    sent = chat_body(DEPLOYMENT, request(**asked), limit=9, limit_field="max_tokens")
    assert sent == {"model": "small-2026", "messages": MESSAGES, **changes}


async def play(
    answer: bytes, *, stream: bool = False, kind: str = "", status: str = "200 OK", **asked: Any
) -> list[Event]:
    """What the provider makes of one answer."""
    kind = kind or ("text/event-stream" if stream else "application/json")

    async def serve(visit: Visit) -> None:
        await visit.request()
        await visit.answer(answer, status=status, headers=f"content-type: {kind}\r\n")

    async with raw_server(serve) as server:
        provider = OpenAI(
            Endpoint(name="acme", base_url=server.url + "/v1", api_key="k-1234567890", allow_private=True)
        )
        try:
            return [e async for e in provider.send(DEPLOYMENT, request(stream=stream, **asked), CLEARED, timeout=5)]
        finally:
            await provider.close()


def chunks(*bodies: Any, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(body)}\n\n" for body in bodies]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def chunk(delta: Any, finish: str | None = None, **rest: Any) -> Any:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "small-x", "choices": [choice], **rest}


WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "small-2026-01",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    "system_fingerprint": "fp",
    "service_tier": "default",
}


async def test_a_whole_answer_is_one_delta_and_done() -> None:
    delta, done = await play(json.dumps(WHOLE).encode())
    part = {"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    assert delta == Delta([part], {"system_fingerprint": "fp", "service_tier": "default"})
    assert done == Done("small-2026-01", Usage(prompt_tokens=3, completion_tokens=1), WHOLE["usage"])


async def test_a_stream_is_its_deltas_and_done_with_the_usage_of_the_last_chunk() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    stream = chunks(
        chunk({"role": "assistant", "content": ""}, system_fingerprint="fp", obfuscation="xyz"),
        chunk({"content": "Hé"}, usage=None),
        chunk({}, "stop"),
        {"id": "c", "model": "small-x", "choices": [], "usage": usage},
    )
    events = await play(stream, stream=True)
    assert [type(event) for event in events] == [Delta, Delta, Delta, Done]
    assert events[0].extra == {"system_fingerprint": "fp"}
    assert events[1].choices[0]["delta"] == {"content": "Hé"}
    assert events[3] == Done("small-x", Usage(prompt_tokens=3, completion_tokens=2), usage)


async def test_usage_that_comes_with_every_chunk_or_in_groqs_place_is_found() -> None:
    first, last = ({"prompt_tokens": 3, "completion_tokens": n} for n in (1, 2))
    stream = chunks(chunk({"content": "a"}, usage=first), chunk({}, "stop", usage=last))
    assert (await play(stream, stream=True))[-1].usage.completion_tokens == 2
    stream = chunks(chunk({}, "stop", x_groq={"id": "r", "usage": last}))
    assert (await play(stream, stream=True))[-1].usage.completion_tokens == 2


async def test_an_answer_without_usage_says_so() -> None:
    assert (await play(chunks(chunk({}, "stop")), stream=True))[-1] == Done("small-x", None, None)


async def test_a_stream_may_end_without_done_when_every_choice_is_finished() -> None:
    events = await play(chunks(chunk({"content": "a"}), chunk({}, "stop"), done=False), stream=True)
    assert events[-1] == Done("small-x", None, None)
    with pytest.raises(Malformed, match="ended its stream"):
        await play(chunks(chunk({"content": "a"}), done=False), stream=True)
    with pytest.raises(Malformed, match="ended its stream"):
        await play(chunks(chunk({}, "stop"), done=False), stream=True, n=2)


async def test_a_whole_answer_to_a_call_that_streams_is_understood() -> None:
    events = await play(json.dumps(WHOLE).encode(), stream=True, kind="application/json; charset=utf-8")
    assert [type(event) for event in events] == [Delta, Done]


async def test_tool_calls_get_their_index() -> None:
    calls = [{"id": i, "type": "function", "function": {"name": i, "arguments": "{}"}} for i in "ab"]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    delta, _ = await play(
        json.dumps({**WHOLE, "choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
    )
    assert [call["index"] for call in delta.choices[0]["delta"]["tool_calls"]] == [0, 1]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"<html>",
        b"\xff",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [1]}',
        b'{"choices": [{"message": "a"}]}',
        b'{"choices": [{"message": {"tool_calls": [1]}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"function": 1}]}}]}',
        b'{"choices": [{"index": [], "message": {"content": "a"}}]}',
        b"[" * 100_000,
    ],
)
async def test_a_whole_answer_that_cannot_be_read_is_malformed(answer: bytes) -> None:
    with pytest.raises(Malformed, match=r"^acme sent "):
        await play(answer)


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b"\xff", b'{"choices": 7}', b'{"choices": [{"delta": 7}]}', b'{"choices": [{"index": "a"}]}']
)
async def test_a_chunk_that_cannot_be_read_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed, match=r"^acme sent "):
        await play(b"data: " + data + b"\n\n", stream=True)


async def test_an_error_inside_a_stream_comes_after_the_deltas_before_it() -> None:
    error = {"error": {"message": "slow down, sk-abcdefgh", "code": "rate_limit_exceeded"}}

    async def serve(visit: Visit) -> None:
        await visit.request()
        await visit.answer(chunks(chunk({"content": "a"}), error), headers="content-type: text/event-stream\r\n")

    async with raw_server(serve) as server:
        provider = OpenAI(Endpoint(name="acme", base_url=server.url, allow_private=True))
        stream = provider.send(DEPLOYMENT, request(stream=True), CLEARED, timeout=5)
        assert isinstance(await anext(stream), Delta)
        with pytest.raises(Throttled, match=r"slow down, \[secret\]"):
            await anext(stream)
        await provider.close()


async def test_an_error_status_is_classified_and_a_body_that_is_no_json_does_not_matter() -> None:
    with pytest.raises(Unavailable, match="acme answered 503"):
        await play(b"<html>gateway</html>", status="503 Service Unavailable")
    with pytest.raises(Refused, match=r"acme answered 401: wrong key \[secret\]"):
        await play(b'{"error": {"message": "wrong key k-1234567890"}}', status="401 Unauthorized")


async def test_the_key_travels_in_its_header_and_nowhere_else() -> None:
    async def serve(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b'{"data": [{"embedding": [1.0]}], "model": "m"}')

    async with raw_server(serve) as server:
        endpoint = Endpoint(name="acme", base_url=server.url + "/v1", api_key="k-secret-1", allow_private=True)
        assert "k-secret-1" not in repr(endpoint)
        provider = OpenAI(endpoint)
        answer = await provider.embed(DEPLOYMENT, {"model": "x", "input": "a"}, CLEARED, timeout=5)
        await provider.close()
        head, _, body = server.visits[0].requests[0].partition(b"\r\n\r\n")
    assert answer["data"] == [{"embedding": [1.0]}]
    assert head.startswith(b"POST /v1/embeddings HTTP/1.1\r\n")
    assert b"authorization: Bearer k-secret-1" in head
    assert json.loads(body) == {"model": "small-2026", "input": "a"}


async def test_an_embeddings_answer_without_data_is_malformed() -> None:
    async def serve(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b'{"data": 1}')

    async with raw_server(serve) as server:
        provider = OpenAI(Endpoint(name="acme", base_url=server.url, allow_private=True))
        with pytest.raises(Malformed, match="without embeddings"):
            await provider.embed(DEPLOYMENT, {"input": "a"}, CLEARED, timeout=5)
        await provider.close()


@pytest.mark.parametrize("settings", [{"base_url": "http://10.0.0.1"}, {"base_url": "x"}, {"api_key": "a\r\nb: c"}])
def test_an_endpoint_that_cannot_be_used_is_refused_by_name_and_without_its_key(settings: Any) -> None:
    with pytest.raises(ValueError, match=r"^Provider 'acme': ") as caught:
        OpenAI(Endpoint(**{"name": "acme", "base_url": "https://api.example.com", **settings}))
    assert "b: c" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "choices index delta message tool_calls function arguments content error usage model".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


CHOICES = st.lists(st.dictionaries(st.sampled_from(["index", "delta", "finish_reason"]), JSON, max_size=3), max_size=2)


@given(st.lists(st.fixed_dictionaries({"choices": CHOICES}) | JSON, max_size=4))
async def test_any_json_in_a_stream_gives_deltas_or_an_upstream_error(bodies: list[Any]) -> None:
    upstream = Upstream(Endpoint(name="acme", base_url="http://api.example.com"), headers={})
    reader, tally = StreamReader(upstream, 1), Tally(0)
    try:
        for body in bodies:
            delta = reader.take(msgspec.json.encode(body))
            if delta is not None:
                tally.add(delta)
        tally.add(reader.end())
    except UpstreamError:
        return
    tally.completion("m")
