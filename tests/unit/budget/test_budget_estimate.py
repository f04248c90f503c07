"""Estimates: the bound holds for every text, and the rule of thumb is near."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.budget.estimate import PER_IMAGE, PER_MESSAGE, measure, measure_input
from headgate.model.chat import ChatRequest


def request(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    return ChatRequest.parse({"model": "m", "messages": list(messages), **fields})


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1))
def test_no_text_has_more_tokens_than_the_bound(texts: list[str]) -> None:
    """A token of a vocabulary built on bytes covers at least one byte."""
    whole = measure(request(*({"role": "user", "content": text} for text in texts)))
    parts = measure(request({"role": "user", "content": [{"type": "text", "text": text} for text in texts]}))
    size = sum(len(text.encode()) for text in texts)
    assert whole.most == size + PER_MESSAGE * len(texts)
    assert parts.most == size + PER_MESSAGE
    assert whole.likely <= whole.most
    assert parts.likely <= parts.most


@pytest.mark.parametrize(
    ("text", "characters_per_token"),
    [
        ("The quick brown fox jumps over the lazy dog near the river bank.", 4),
        ("Съешьжеещёэтихмягкихфранцузскихбулок", 1.6),
        ("素早い茶色の狐がのろまな犬を飛び越える", 1),
    ],
)
def test_the_likely_size_follows_the_alphabet(text: str, characters_per_token: float) -> None:
    """Four characters a token in English, 1.6 in Cyrillic, one in Japanese: the rule that the module states."""
    assert abs(measure_input(text).likely - len(text) / characters_per_token) <= 1


def test_images_count_by_allowance_not_by_their_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    size = measure(request({"role": "user", "content": [image, image]}))
    assert size.most == 2 * PER_IMAGE + PER_MESSAGE


def test_tool_calls_definitions_schemas_and_unread_parts_count() -> None:
    plain = measure(request({"role": "user", "content": "hi"})).most
    function = {"name": "f" * 1_000}
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "x" * 1_000}}]
    for bigger in (
        request({"role": "user", "content": "hi"}, tools=[{"type": "function", "function": function}]),
        request({"role": "user", "content": "hi"}, tools=[{"type": "custom", "custom": function}]),
        request({"role": "user", "content": "hi"}, functions=[function]),
        request({"role": "user", "content": "hi"}, response_format={"type": "json_schema", "json_schema": function}),
        request({"role": "assistant", "content": "hi", "tool_calls": calls}),
        request({"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "file", "file": function}]}),
    ):
        assert measure(bigger).most >= plain + 1_000


def test_audio_counts_by_its_length() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "A" * 16_000, "format": "mp3"}}
    assert 1_000 <= measure(request({"role": "user", "content": [audio]})).most <= 1_100


@pytest.mark.parametrize(
    ("value", "most"),
    [("abcd", 4 + PER_MESSAGE), (["ab", "c"], 3 + 2 * PER_MESSAGE), ([1, 2, 3], 3), ([[1, 2], [3]], 3)],
)
def test_embeddings_take_texts_and_tokens(value: Any, most: int) -> None:
    assert measure_input(value).most == most
