"""From Anthropic's answers to OpenAI's, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.chat import Completion, Delta
from headgate.model.errors import Malformed, UpstreamError
from headgate.model.money import Usage
from headgate.model.tally import Tally
from headgate.providers.anthropic_events import Stream, whole
from headgate.providers.anthropic_request import ANSWER_TOOL

USAGE = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2}
TEXT = {"type": "text", "text": "Hello"}
CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, 2]}}
BARE = {"type": "tool_use", "id": "t2", "name": "g", "input": {}}
THOUGHT = {"type": "thinking", "thinking": "hm, so", "signature": "sig"}
HIDDEN = {"type": "redacted_thinking", "data": "xyz"}
SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}}


def broken(what: str) -> Malformed:
    return Malformed(f"acme {what}.")


def from_whole(*blocks: Any, stop: str | None = "end_turn", answer_tool: bool = False) -> Completion:
    message = {"model": "claude-x-1", "content": list(blocks), "stop_reason": stop, "usage": USAGE}
    tally = Tally(0)
    for event in whole(message, answer_tool=answer_tool, broken=broken):
        tally.add(event)
    return tally.completion("")


def pieces(block: Any) -> list[Any]:
    """A block's deltas, cut in two where there is something to cut."""
    kind = block["type"]
    if kind == "text":
        cut = [block["text"][:2], block["text"][2:]]
        return [{"type": "text_delta", "text": part} for part in cut]
    if kind == "thinking":
        cut = [block["thinking"][:2], block["thinking"][2:]]
        signature = {"type": "signature_delta", "signature": block["signature"]}
        return [*({"type": "thinking_delta", "thinking": part} for part in cut), signature]
    if kind in ("tool_use", "server_tool_use") and block["input"]:
        written = json.dumps(block["input"], separators=(",", ":"))
        return [{"type": "input_json_delta", "partial_json": part} for part in ("", written[:4], written[4:])]
    return []


EMPTY = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}


def events(*blocks: Any, stop: str = "end_turn") -> list[Any]:
    message = {"model": "claude-x-1", "content": [], "usage": {**USAGE, "output_tokens": 1}}
    made: list[Any] = [{"type": "message_start", "message": message}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        opened = {**block, **EMPTY.get(block["type"], {})}
        made.append({"type": "content_block_start", "index": index, "content_block": opened})
        made += [{"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces(block)]
        made.append({"type": "content_block_stop", "index": index})
    made.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 5}})
    return [*made, {"type": "message_stop"}]


def from_stream(made: list[Any], *, answer_tool: bool = False) -> Completion:
    stream, tally = Stream(answer_tool=answer_tool, broken=broken), Tally(0)
    for event in made:
        delta = stream.take(event)
        if delta is not None:
            tally.add(delta)
    tally.add(stream.end())
    return tally.completion("")


@pytest.mark.parametrize(
    "blocks",
    [
        [TEXT],
        [TEXT, {"type": "text", "text": " you"}],
        [CALL],
        [TEXT, CALL, BARE],
        [THOUGHT, HIDDEN, TEXT],
        [THOUGHT, CALL],
        [SEARCH, {"type": "web_search_tool_result", "content": []}, TEXT],
    ],
)
def test_whole_and_streamed_answers_are_the_same_completion(blocks: list[Any]) -> None:
    once, streamed = from_whole(*blocks), from_stream(events(*blocks))
    message, parts = (completion.choices[0].pop("message") for completion in (once, streamed))
    assert (message["content"] or "") == (parts["content"] or "")
    assert {**message, "content": None} == {**parts, "content": None}
    assert once == streamed
    assert once.usage == Usage(prompt_tokens=15, completion_tokens=5, cached_tokens=3, cache_write_tokens=2)
    assert once.model == "claude-x-1"
    assert once.reported["prompt_tokens"] == 15


def test_text_thoughts_and_calls_find_their_places() -> None:
    message = from_stream(events(THOUGHT, HIDDEN, TEXT, CALL, BARE, stop="tool_use")).choices[0]["message"]
    assert message["content"] == "Hello"
    assert message["reasoning_content"] == "hm, so"
    assert message["thinking_blocks"] == [THOUGHT, HIDDEN]
    assert message["tool_calls"] == [
        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":[1,2]}'}},
        {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_calls_stream_as_openai_streams_them() -> None:
    stream = Stream(answer_tool=False, broken=broken)
    deltas = [delta for event in events(TEXT, CALL) if (delta := stream.take(event)) is not None]
    assert deltas[0].choices[0]["delta"] == {"role": "assistant", "content": "He"}
    opening, *rest = [d.choices[0]["delta"]["tool_calls"][0] for d in deltas if "tool_calls" in d.choices[0]["delta"]]
    assert opening == {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert [(call["index"], call["function"]["arguments"]) for call in rest] == [(0, '{"a"'), (0, ":[1,2]}")]


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
def test_each_stop_reason_has_its_finish_reason(stop: str, finish: str) -> None:
    assert from_whole(TEXT, stop=stop).choices[0]["finish_reason"] == finish
    assert from_stream(events(TEXT, stop=stop)).choices[0]["finish_reason"] == finish


@pytest.mark.parametrize("streamed", [False, True])
def test_the_input_of_the_answer_tool_is_the_answer(*, streamed: bool) -> None:
    block = {"type": "tool_use", "id": "t", "name": ANSWER_TOOL, "input": {"a": 1}}
    made = from_stream(events(block, stop="tool_use"), answer_tool=True)
    completion = made if streamed else from_whole(block, stop="tool_use", answer_tool=True)
    assert json.loads(completion.text) == {"a": 1}
    assert completion.choices[0]["finish_reason"] == "stop"
    assert "tool_calls" not in completion.choices[0]["message"]


def test_nothing_is_given_before_the_first_real_part() -> None:
    """An error right after the start must still be able to fall back to another deployment."""
    stream = Stream(answer_tool=False, broken=broken)
    assert [stream.take(event) for event in events(TEXT)[:3]] == [None, None, None]


def test_a_stream_that_stops_before_its_answer_does_is_malformed() -> None:
    with pytest.raises(Malformed, match="ended its stream"):
        from_stream(events(TEXT)[:-2])
    assert from_stream(events(TEXT)[:-1]).text == "Hello"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message_start"},
        {"type": "message_delta"},
        {"type": "content_block_start", "index": 0},
        {"type": "content_block_delta", "index": 0},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "content_block_start", "index": "0", "content_block": TEXT},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": 7}},
    ],
)
def test_an_event_that_cannot_be_read_is_malformed(event: Any) -> None:
    with pytest.raises(Malformed, match=r"^acme sent "):
        Stream(answer_tool=False, broken=broken).take(event)


@pytest.mark.parametrize("content", [None, "text", [7]])
def test_a_message_without_blocks_is_malformed(content: Any) -> None:
    with pytest.raises(Malformed, match="without content"):
        whole({"content": content}, answer_tool=False, broken=broken)


JSON = st.recursive(
    st.none() | st.integers(-2, 2) | st.text(max_size=4), lambda inner: st.lists(inner, max_size=2), max_leaves=4
)
NAMES = "text thinking name id input signature partial_json stop_reason model usage".split()
PART = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            "text thinking tool_use text_delta thinking_delta input_json_delta signature_delta".split()
        )
    },
    optional=dict.fromkeys(NAMES, JSON),
)
EVENT = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            "message_start content_block_start content_block_delta content_block_stop message_delta".split()
        )
    },
    optional={"index": st.integers(0, 2), "delta": PART, "content_block": PART, "message": PART, "usage": JSON},
)


@given(st.lists(EVENT, max_size=8))
def test_any_events_give_deltas_or_an_upstream_error(made: list[Any]) -> None:
    stream, tally = Stream(answer_tool=False, broken=broken), Tally(0)
    try:
        for event in made:
            delta = stream.take(event)
            assert delta is None or isinstance(delta, Delta)
            if delta is not None:
                tally.add(delta)
        tally.add(stream.end())
    except UpstreamError:
        return
    tally.completion("m")


@given(st.lists(PART, max_size=4))
def test_any_blocks_give_an_answer_or_an_upstream_error(blocks: list[Any]) -> None:
    try:
        from_whole(*blocks)
    except UpstreamError:
        return
