"""Fingerprints on examples: what is the same request, what may be compared, and what is kept out of the cache."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.cache.fingerprint import LONGEST, bypass_reason, comparable, fingerprint, partition
from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Namespace

HOME = Namespace("acme")


def ask(text: Any = "Where is my parcel?", **more: Any) -> ChatRequest:
    return ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": text}], **more})


def talk(*turns: tuple[str, str], **more: Any) -> ChatRequest:
    return ChatRequest.parse(
        {"model": "auto", "messages": [{"role": role, "content": text} for role, text in turns], **more}
    )


def test_a_digest_is_the_same_in_every_process_and_release() -> None:
    """It is written to disk: a change here empties every cache, so it must be on purpose."""
    digest = fingerprint(HOME, ask(temperature=0.2)).digest.hex()
    assert digest == "567ba28264f3057978685ccff49828fb14d13b82770abe9d7dc53af636ea7ce8"


@pytest.mark.parametrize(
    "more",
    [
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"user": "ann"},
        {"metadata": {"a": "b"}},
        {"store": False},
        {"service_tier": "flex"},
        {"safety_identifier": "x"},
        {"prompt_cache_key": "x"},
        {"n": 1},
        {"temperature": 1},
        {"top_p": 1.0},
        {"presence_penalty": 0.0, "frequency_penalty": 0},
        {"seed": None, "stop": None, "tools": None},
    ],
)
def test_what_does_not_shape_the_answer_makes_no_other_request(more: dict[str, Any]) -> None:
    assert fingerprint(HOME, ask(**more)) == fingerprint(HOME, ask())


@pytest.mark.parametrize(
    "more",
    [
        {"model": "gpt-4o"},
        {"max_tokens": 10},
        {"temperature": 0},
        {"top_p": 0.5},
        {"n": 2},
        {"seed": 1},
        {"stop": "x"},
        {"stop": ["x"]},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "none"},
        {"response_format": {"type": "json_object"}},
        {"logit_bias": {"1": 1}},
        {"logprobs": True},
        {"reasoning_effort": "low"},
        {"presence_penalty": 0.5},
        {"a field of tomorrow": 1},
    ],
)
def test_what_shapes_the_answer_makes_another_request(more: dict[str, Any]) -> None:
    assert fingerprint(HOME, ask(**more)) != fingerprint(HOME, ask())


def test_both_names_of_the_output_limit_are_one_field() -> None:
    assert fingerprint(HOME, ask(max_tokens=9)) == fingerprint(HOME, ask(max_completion_tokens=9))
    assert fingerprint(HOME, ask(max_tokens=9)) == fingerprint(HOME, ask(max_tokens=5, max_completion_tokens=9))


def test_the_namespace_lies_beside_the_digest() -> None:
    one, other = fingerprint(HOME, ask()), fingerprint(Namespace("beta", "b"), ask())
    assert one.digest == other.digest
    assert one.namespace == HOME
    assert other.namespace == Namespace("beta", "b")


@pytest.mark.parametrize("text", ["Where is my Parcel?", "Where is my parcel? ", "Where is my  parcel?"])
def test_a_letter_or_a_space_in_the_question_is_another_request(text: str) -> None:
    assert fingerprint(HOME, ask(text)) != fingerprint(HOME, ask())


def test_a_partition_is_everything_but_the_last_turn() -> None:
    history = ("system", "Be brief."), ("user", "Hello"), ("assistant", "Hello!")
    one = partition("m", talk(*history, ("user", "Where?")))
    assert one == partition("m", talk(*history, ("user", "When?"), stream=True, user="ann"))
    assert one != partition("m", talk(*history[1:], ("user", "Where?")))
    assert one != partition("m", talk(*history[:1], ("user", "Where?")))
    assert one != partition("m", talk(*history, ("user", "Where?"), temperature=0.1))
    assert one != partition("m", talk(*history, ("user", "Where?"), model="gpt-4o"))
    assert one != partition("m", talk(*history, ("user", "Where?"), max_tokens=5))
    assert one != partition("n", talk(*history, ("user", "Where?")))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, None),
        ({"n": 1, "temperature": 0.5, "store": False}, None),
        ({"n": 2}, "n"),
        ({"temperature": 0.51}, "temperature"),
        ({"temperature": 1}, "temperature"),
        ({"store": True}, "store"),
    ],
)
def test_what_asks_for_variety_or_for_keeping_is_not_cached(more: dict[str, Any], reason: str | None) -> None:
    assert bypass_reason(ask(**more)) == reason


def test_plain_text_may_be_compared() -> None:
    assert comparable(ask()) == "Where is my parcel?"
    assert comparable(ask([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])) == "one\ntwo"
    assert comparable(ask(" ".join(["word"] * LONGEST))) is not None


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


@pytest.mark.parametrize(
    "request_",
    [
        ask(""),
        ask(" \n"),
        ask(" ".join(["word"] * (LONGEST + 1))),
        ask("x", tools=[{"type": "function", "function": {"name": "f"}}]),
        ask("x", functions=[{"name": "f"}]),
        ask("x", audio={"voice": "a"}),
        ask([IMAGE]),
        ask([{"type": "text", "text": "What is this?"}, IMAGE]),
        talk(("user", "x"), ("assistant", "y")),
        talk(("user", "x"), ("system", "y")),
        ChatRequest.parse(
            {"model": "m", "messages": [{"role": "user", "content": [IMAGE]}, {"role": "user", "content": "And this?"}]}
        ),
        ChatRequest.parse(
            {"model": "m", "messages": [{"role": "assistant", "content": None}, {"role": "user", "content": "Go on"}]}
        ),
    ],
)
def test_what_is_not_one_short_text_is_never_compared(request_: ChatRequest) -> None:
    assert comparable(request_) is None
