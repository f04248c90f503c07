"""How far a request may go beyond text in and text out."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.model.chat import ChatRequest
from headgate.model.money import MOST_SEARCHES, Extent
from headgate.routing.extent import SEARCHES, TEXT, extent_of

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
FIVE_MINUTES = {"cache_control": {"type": "ephemeral"}}
WORDS = {"type": "text", "text": "Hello"}


def extent(content: Any = "Hello", **body: Any) -> Extent:
    return extent_of(ChatRequest.parse({"model": "m", "messages": [{"role": "user", "content": content}], **body}))


@pytest.mark.parametrize("content", ["Hello", [WORDS], [WORDS | FIVE_MINUTES]])
def test_text_is_text_also_when_it_is_cached_for_minutes(content: Any) -> None:
    assert extent(content) == TEXT


@pytest.mark.parametrize("content", [[WORDS, IMAGE], [SOUND], [{"type": "file", "file": {"file_id": "f"}}]])
def test_whatever_is_not_text_may_cost_what_it_is(content: Any) -> None:
    assert extent(content).rich


def test_a_cache_for_an_hour_may_be_asked_for_anywhere() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    assert extent([WORDS | HOUR]).rich
    assert extent(tools=[tool | HOUR]).rich
    assert extent(**HOUR).rich
    assert not extent(tools=[tool | FIVE_MINUTES]).rich


@pytest.mark.parametrize(
    ("body", "searches"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]}, 3),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, SEARCHES),
        ({"tools": [{"type": "web_search_20250305", "max_uses": 10**40}]}, MOST_SEARCHES),
        ({"tools": [{"type": "web_search_20250305", "max_uses": -1}]}, SEARCHES),
        ({"web_search_options": {}}, SEARCHES),
        ({}, 0),
    ],
)
def test_searches_are_held_as_many_as_may_be_made(body: Any, searches: int) -> None:
    assert extent(**body).searches == searches
