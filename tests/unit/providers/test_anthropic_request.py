"""From an OpenAI chat request to Anthropic's: a table of what becomes what."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.errors import InvalidRequest, Rejected
from headgate.providers.anthropic_request import ANSWER_TOOL, translate

DEPLOYMENT = Deployment(name="c", provider="anthropic", model="claude-x")
HI = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def body(*messages: Any, **fields: Any) -> Any:
    request = ChatRequest.parse({"model": "auto", "messages": list(messages) or [HI], **fields})
    return translate(DEPLOYMENT, request, limit=99).body


def text(words: str, **rest: Any) -> Any:
    return {"type": "text", "text": words, **rest}


def test_the_smallest_request() -> None:
    assert body() == {"model": "claude-x", "max_tokens": 99, "messages": [{"role": "user", "content": [text("Hi")]}]}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        ({"stream": False}, {}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {}),
        ({"temperature": 1.7}, {"temperature": 1.0}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"top_p": 0.5, "top_k": 7}, {"top_p": 0.5, "top_k": 7}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["A", " ", ""]}, {"stop_sequences": ["A"]}),
        ({"stop": []}, {}),
        ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        ({"safety_identifier": "u2"}, {"metadata": {"user_id": "u2"}}),
        ({"metadata": {"user_id": "u3", "x": "y"}}, {"metadata": {"user_id": "u3"}}),
        ({"service_tier": "flex"}, {}),
        ({"service_tier": "standard_only"}, {"service_tier": "standard_only"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, {"thinking": {"type": "enabled", "budget_tokens": 9}}),
        ({"seed": 1, "logit_bias": {}, "store": True, "frequency_penalty": 1, "reasoning_effort": "low", "n": 1}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"parallel_tool_calls": False}, {}),
    ],
)
def test_each_setting_becomes_its_counterpart(asked: Any, sent: Any) -> None:
    plain = body()
    assert body(**asked) == {**plain, **sent}


def test_system_and_developer_turns_move_to_the_front() -> None:
    sent = body({"role": "system", "content": "A"}, HI, {"role": "developer", "content": [text("B", cache_control={})]})
    assert sent["system"] == [text("A"), text("B", cache_control={})]
    assert sent["messages"] == [{"role": "user", "content": [text("Hi")]}]


def test_neighbours_of_one_role_are_merged_and_empty_texts_left_out() -> None:
    empty = {"role": "user", "content": "  "}
    sent = body(
        HI, empty, {"role": "user", "content": [text("you"), text("")]}, {"role": "assistant", "content": "Hello \n"}
    )
    assert sent["messages"] == [
        {"role": "user", "content": [text("Hi"), text("you")]},
        {"role": "assistant", "content": [text("Hello")]},
    ]


def test_images_and_documents() -> None:
    parts = [
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64,AAA="},
            "cache_control": {"type": "ephemeral"},
        },
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,BBB=", "filename": "b.pdf"}},
        {"type": "document", "source": {"type": "text", "data": "x"}},
    ]
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "BBB="}
    assert body({"role": "user", "content": parts})["messages"][0]["content"] == [
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "AAA="},
            "cache_control": {"type": "ephemeral"},
        },
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "document", "source": pdf, "title": "b.pdf"},
        {"type": "document", "source": {"type": "text", "data": "x"}},
    ]


def test_tool_calls_and_their_results() -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    bare = {"id": "t2", "type": "function", "function": {"name": "g", "arguments": ""}}
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    sent = body(
        HI,
        {"role": "assistant", "content": "Calling.", "tool_calls": [call, bare]},
        {"role": "tool", "tool_call_id": "t1", "content": "one"},
        {"role": "tool", "tool_call_id": "t2", "content": [text("two"), image], "is_error": True},
        {"role": "user", "content": "And?"},
    )
    assert sent["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                text("Calling."),
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [
                        text("two"),
                        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                    ],
                    "is_error": True,
                },
                text("And?"),
            ],
        },
    ]


def test_calls_in_the_old_style_have_their_name_in_common() -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    sent = body(HI, old, {"role": "function", "name": "f", "content": "1"})
    assert sent["messages"][1]["content"][0]["id"] == sent["messages"][2]["content"][0]["tool_use_id"] == "call_f"


def test_signed_thoughts_go_back_before_the_call_they_led_to() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = {"role": "assistant", "content": None, "thinking_blocks": [thought], "tool_calls": [call]}
    kinds = [block["type"] for block in body(HI, turn)["messages"][1]["content"]]
    assert kinds == ["thinking", "tool_use"]


TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}


@pytest.mark.parametrize(
    ("asked", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"type": "tool", "name": "f"}),
        ({"tool_choice": {"type": "any"}}, {"type": "any"}),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": False, "tool_choice": "none"}, {"type": "none"}),
        (
            {"parallel_tool_calls": False, "tool_choice": "required"},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tools_and_their_choice(asked: Any, choice: Any) -> None:
    own = {"type": "web_search_20250305", "name": "web_search"}
    bare = {"type": "function", "function": {"name": "g"}}
    sent = body(tools=[TOOL, bare, own], **asked)
    assert sent["tools"] == [
        {"name": "f", "description": "d", "input_schema": SCHEMA},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
        own,
    ]
    assert sent.get("tool_choice") == choice


def test_a_json_schema_becomes_a_tool_that_must_be_called() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": SCHEMA}}
    request = ChatRequest.parse({"model": "auto", "messages": [HI], "response_format": wanted})
    asked = translate(DEPLOYMENT, request, limit=9)
    assert asked.answer_tool
    assert asked.body["tools"] == [{"name": ANSWER_TOOL, "input_schema": SCHEMA, "description": "d"}]
    assert asked.body["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL}


@pytest.mark.parametrize(
    "hindrance",
    [
        {"tools": [TOOL]},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        {"schema": {"type": "array", "items": {"type": "integer"}}},
    ],
)
def test_where_a_tool_cannot_be_forced_the_schema_is_told_in_words(hindrance: Any) -> None:
    schema = hindrance.pop("schema", SCHEMA)
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    request = ChatRequest.parse({"model": "auto", "messages": [HI], "response_format": wanted, **hindrance})
    asked = translate(DEPLOYMENT, request, limit=9)
    assert not asked.answer_tool
    told = asked.body["system"][-1]["text"]
    assert json.loads(told.splitlines()[-1]) == schema


def test_a_json_object_is_asked_for_in_words() -> None:
    sent = body({"role": "system", "content": "A"}, HI, response_format={"type": "json_object"})
    assert sent["system"][0] == text("A")
    assert "one JSON object" in sent["system"][1]["text"]


def user(*parts: Any) -> Any:
    return {"role": "user", "content": list(parts)}


def called(arguments: str) -> Any:
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        ([HI], {"n": 2}, "n"),
        ([user({"type": "input_audio", "input_audio": {}})], {}, "messages[0].content[0]"),
        ([user(text("a"), {"type": "image_url", "image_url": {"url": "ftp://x"}})], {}, "messages[0].content[1]"),
        ([user({"type": "file", "file": {"file_id": "f"}})], {}, "messages[0].content[0]"),
        ([user({"type": "file", "file": {"file_data": "data:text/plain;base64,AA"}})], {}, "messages[0].content[0]"),
        ([HI, called("{")], {}, "messages[1].tool_calls[0].function.arguments"),
        ([HI, called("[1]")], {}, "messages[1].tool_calls[0].function.arguments"),
    ],
)
def test_what_has_no_counterpart_is_rejected_by_name(messages: Any, fields: Any, param: str) -> None:
    with pytest.raises(Rejected) as caught:
        body(*messages, **fields)
    assert (caught.value.param, caught.value.status) == (param, 400)


def test_the_callers_request_is_left_as_it_was() -> None:
    asked = {"model": "auto", "messages": [HI, HI], "tools": [TOOL], "response_format": {"type": "json_object"}}
    before = json.dumps(asked)
    translate(DEPLOYMENT, ChatRequest.parse(asked), limit=9)
    assert json.dumps(asked) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "type text image_url url file function name arguments id schema content user_id refusal".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "function"])},
    optional={
        "content": st.none() | st.text(max_size=4) | st.lists(JSON, max_size=3),
        "tool_calls": JSON,
        "function_call": JSON,
        "thinking_blocks": JSON,
        "refusal": JSON,
        "name": JSON,
    },
)
FIELDS = (
    "stop tools tool_choice response_format metadata user thinking service_tier safety_identifier functions".split()
)


@given(st.lists(MESSAGE, min_size=1, max_size=4), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_any_request_that_headgate_accepts_is_translated_or_rejected(messages: list[Any], fields: Any) -> None:
    try:
        request = ChatRequest.parse({"model": "auto", "messages": messages, **fields})
    except InvalidRequest:
        return
    try:
        sent = translate(DEPLOYMENT, request, limit=9).body
    except Rejected:
        return
    roles = [turn["role"] for turn in sent["messages"]]
    assert all(a != b for a, b in itertools.pairwise(roles))
