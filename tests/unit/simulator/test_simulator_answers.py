"""Answers and token counts: deterministic, bounded, and marked with the wording that produced them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.simulator import answers
from headgate.simulator.answers import Ask, Finish, Quirks
from headgate.simulator.anthropic_wire import AnthropicMessages
from headgate.simulator.embeddings import OpenAIEmbeddings, embed
from headgate.simulator.openai_wire import OpenAIChat
from headgate.simulator.synthesis import Synthesis
from headgate.simulator.wire import Rejection

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
limits = st.none() | st.integers(1, 200)
OPENAI = OpenAIChat()
ANTHROPIC = AnthropicMessages()


def asked(question: str, **more: Any) -> Ask:
    return Ask(model="any", turns=("user", question), question=question, prompt_tokens=1, **more)


def compose(question: str, **more: Any) -> answers.Answer:
    return answers.compose(asked(question, **more), Quirks())[0]


def mark(question: str) -> str:
    return f" [ref {hashlib.sha256(question.encode()).hexdigest()[:12]}]"


def test_a_token_is_four_bytes_of_utf8() -> None:
    assert [answers.tokens(text) for text in ("", "a", "abcd", "abcde", "é" * 4)] == [0, 1, 1, 2, 2]


@given(texts, limits, st.lists(st.text(max_size=3), max_size=3))
def test_the_same_prompt_gets_the_same_answer(question: str, limit: int | None, stop: list[str]) -> None:
    more = {"max_tokens": limit, "stop": tuple(stop)}
    assert compose(question, **more) == compose(question, **more)


@given(texts, st.integers(1, 200), st.lists(st.text(max_size=3), max_size=3))
def test_an_answer_never_exceeds_max_tokens(question: str, limit: int, stop: list[str]) -> None:
    answer = compose(question, max_tokens=limit, stop=tuple(stop))
    assert answer.tokens == answers.tokens(answer.text) <= limit


@given(texts, limits, st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_a_stop_text_is_never_in_the_answer(question: str, limit: int | None, stop: list[str]) -> None:
    answer = compose(question, max_tokens=limit, stop=tuple(stop))
    assert not any(end in answer.text for end in stop)
    assert (answer.finish is Finish.STOPPED) == (answer.stopped_at is not None)


@given(texts)
def test_an_answer_ends_with_the_mark_of_the_question(question: str) -> None:
    answer = compose(question)
    assert answer.text.endswith(mark(question))
    assert 25 <= answer.tokens <= 200


def test_an_answer_cut_for_length_keeps_its_mark_where_it_fits() -> None:
    answer = compose("How do I export my orders?", max_tokens=20)
    assert answer.finish is Finish.LENGTH
    assert answer.tokens == 20
    assert answer.text.endswith(mark("How do I export my orders?"))
    assert compose("How do I export my orders?", max_tokens=2).tokens == 2


def test_answers_differ_in_length_by_question() -> None:
    sizes = {compose(f"Question number {number}?").tokens for number in range(50)}
    assert len(sizes) > 10


def test_several_choices_differ() -> None:
    three = answers.compose(asked("Which plan fits?", n=3), Quirks())
    assert len({answer.text for answer in three}) == 3


@given(texts, limits)
def test_the_pieces_of_a_stream_add_up_to_the_answer(question: str, limit: int | None) -> None:
    answer = compose(question, max_tokens=limit)
    pieces = answers.cut(answer)
    assert "".join(piece for piece, _ in pieces) == answer.text
    assert sum(generated for _, generated in pieces) == answer.tokens


@given(st.integers(1, 60))
def test_the_pieces_of_a_tool_call_add_up_with_its_name(limit: int) -> None:
    tool = answers.Tool("look_up_order", {"type": "object", "properties": {"order": {"type": "string"}}})
    answer = compose("Where is it?", tool=tool, max_tokens=limit)
    assert answer.tokens <= limit
    assert sum(generated for _, generated in answers.cut(answer)) == answer.tokens


def test_a_huge_answer_is_billed_within_max_tokens() -> None:
    answer = answers.compose(asked("Hi", max_tokens=50), Quirks(huge_bytes=100_000))[0]
    assert len(answer.text) > 100_000
    assert answer.tokens == 50 == sum(generated for _, generated in answers.cut(answer))


parts = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}),
    st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.just({"url": "https://example.com/a.png"})}),
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": texts | st.lists(parts, max_size=5)}
    ),
    min_size=1,
    max_size=6,
)


@given(messages, st.none() | texts)
def test_prompt_tokens_stay_below_the_bytes_a_caller_can_count(turns: list[Any], description: str | None) -> None:
    """The bound a gateway computes without a tokeniser: bytes of texts, 8 a message, tools as JSON, 1000 an image."""
    tools = [{"type": "function", "function": {"name": "f", "description": description}}] if description else None
    body = json.dumps({"model": "any", "messages": turns, "tools": tools}).encode()
    bound = len(json.dumps(tools)) if tools else 0
    for turn in turns:
        content = turn["content"]
        listed = [{"type": "text", "text": content}] if isinstance(content, str) else content
        bound += 8 + sum(len(part["text"].encode()) if "text" in part else 1000 for part in listed)
    assert OPENAI.read(body).prompt_tokens <= bound


@given(texts, st.lists(texts, min_size=1, max_size=4))
def test_anthropic_prompt_tokens_stay_below_the_same_bound(system: str, turns: list[str]) -> None:
    spoken = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in turns]
    body = json.dumps({"model": "any", "max_tokens": 9, "system": system, "messages": spoken}).encode()
    bound = sum(len(text.encode()) + 8 for text in (system, *turns))
    assert ANTHROPIC.read(body).prompt_tokens <= bound


@given(st.binary(max_size=60))
def test_any_body_is_understood_or_rejected(body: bytes) -> None:
    for wire in (OPENAI, ANTHROPIC, OpenAIEmbeddings()):
        with contextlib.suppress(Rejection):
            assert wire.read(body).model is not None


def test_a_rejection_names_the_field() -> None:
    with pytest.raises(Rejection) as caught:
        OPENAI.read(b'{"model": "any", "messages": [{"role": "user", "content": 5}]}')
    assert caught.value.param == "messages[0].content"
    with pytest.raises(Rejection) as caught:
        ANTHROPIC.read(b'{"model": "any", "messages": [{"role": "user", "content": "Hi"}]}')
    assert caught.value.param == "max_tokens"


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        ({"type": "integer", "minimum": 5, "maximum": 7}, lambda value: 5 <= value <= 7),
        ({"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 7}, lambda value: value == 6),
        ({"type": "integer", "multipleOf": 10, "minimum": 15}, lambda value: value % 10 == 0 and value > 15),
        ({"type": "number", "maximum": -3}, lambda value: value <= -3),
        ({"enum": ["a", "b"]}, lambda value: value in {"a", "b"}),
        ({"const": 4}, lambda value: value == 4),
        ({"type": "string", "maxLength": 4}, lambda value: len(value) == 4),
        ({"type": "string", "minLength": 99}, lambda value: len(value) >= 99),
        ({"type": ["string", "null"]}, lambda value: isinstance(value, str)),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, lambda value: len(value) >= 2),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, lambda value: value is None),
        ({"allOf": [{"type": "object"}, {"properties": {"a": {"const": 1}}}]}, lambda value: value == {"a": 1}),
        ({"$ref": "#/$defs/day", "$defs": {"day": {"format": "date"}}}, lambda value: value == "2026-03-14"),
    ],
)
def test_a_made_up_value_matches_its_schema(schema: dict[str, Any], fits: Any) -> None:
    assert fits(Synthesis(schema, hashlib.sha256(b"any").digest(), "text").value())


def test_a_recursive_schema_ends() -> None:
    node = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "required": ["left"]}
    assert msgspec.json.encode(Synthesis(node, b"\x01\x02", "text").value())


def test_an_unusable_schema_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="not a usable JSON schema"):
        Synthesis({"type": "object", "properties": 5}, b"\x01", "text").value()


@given(texts, st.integers(1, 300))
def test_an_embedding_is_a_unit_vector_and_deterministic(text: str, dimensions: int) -> None:
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert abs(sum(part * part for part in vector) - 1) < 1e-4
    assert vector == embed(text, dimensions)
