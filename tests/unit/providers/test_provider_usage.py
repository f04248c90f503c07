"""Usage as vendors report it, normalised."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.money import MOST_SEARCHES, Rare, Usage
from headgate.providers.usage import LARGEST_COUNT, anthropic_as_openai, from_anthropic, normalised


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, Usage(prompt_tokens=5, completion_tokens=7)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 10},
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            Usage(
                prompt_tokens=100,
                completion_tokens=50,
                cached_tokens=80,
                cache_write_tokens=10,
                reasoning_tokens=40,
            ),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5},
            Usage(prompt_tokens=9, completion_tokens=1, cached_tokens=4),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 3},
            Usage(prompt_tokens=9, completion_tokens=1, cached_tokens=3),
        ),
        (
            {"prompt_tokens": 66, "completion_tokens": 6, "total_tokens": 100},
            Usage(prompt_tokens=66, completion_tokens=34),
        ),
        (
            {"prompt_tokens": 1, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 30}},
            Usage(prompt_tokens=1, completion_tokens=30, reasoning_tokens=30),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 50}},
            Usage(prompt_tokens=5, completion_tokens=1, cached_tokens=5),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": None},
            Usage(prompt_tokens=5, completion_tokens=1),
        ),
        (
            {
                "prompt_tokens": 64,
                "completion_tokens": 9,
                "prompt_tokens_details": {"audio_tokens": 44},
                "completion_tokens_details": {"audio_tokens": 90},
            },
            Usage(prompt_tokens=64, completion_tokens=9, rare=Rare(audio_input=44, audio_output=9)),
        ),
        (
            {
                "prompt_tokens": 20,
                "completion_tokens": 100,
                "total_tokens": 120,
                "citation_tokens": 30,
                "reasoning_tokens": 70,
                "num_search_queries": 4,
            },
            Usage(prompt_tokens=20, completion_tokens=200, reasoning_tokens=70, rare=Rare(citation=30, searches=4)),
        ),
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 9,
                "total_tokens": 351,
                "completion_tokens_details": {"reasoning_tokens": 310},
            },
            Usage(prompt_tokens=32, completion_tokens=319, reasoning_tokens=310),
        ),
        ({"prompt_tokens": 5}, Usage(prompt_tokens=5)),
        ({"prompt_tokens": -5, "completion_tokens": True}, Usage()),
        ({"prompt_tokens": 10**30, "completion_tokens": 4}, Usage(completion_tokens=4)),
        ({"prompt_tokens": "5"}, None),
        ({}, None),
        (None, None),
        ([1], None),
    ],
)
def test_usage_in_the_shape_of_openai(reported: Any, usage: Usage | None) -> None:
    assert normalised(reported) == usage


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        (
            {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30, "image_tokens": 5},
                "output_tokens": 50,
                "output_tokens_details": {"reasoning_tokens": 40},
                "total_tokens": 150,
            },
            Usage(
                prompt_tokens=100,
                completion_tokens=50,
                cached_tokens=60,
                cache_write_tokens=30,
                reasoning_tokens=40,
                rare=Rare(image_input=5),
            ),
        ),
        (
            {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 0},
            Usage(prompt_tokens=105, completion_tokens=7, cached_tokens=100),
        ),
        (
            {
                "promptTokenCount": 200,
                "candidatesTokenCount": 80,
                "thoughtsTokenCount": 300,
                "toolUsePromptTokenCount": 50,
                "cachedContentTokenCount": 120,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 100},
                    {"modality": "AUDIO", "tokenCount": 70},
                    {"modality": "DOCUMENT", "tokenCount": 30},
                ],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 20}],
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 60}],
                "totalTokenCount": 630,
            },
            Usage(
                prompt_tokens=250,
                completion_tokens=380,
                cached_tokens=120,
                reasoning_tokens=300,
                rare=Rare(audio_input=70, audio_cached=20, image_input=30, image_output=60),
            ),
        ),
        ({"promptTokenCount": 8, "promptTokensDetails": [None, {}, 5]}, Usage(prompt_tokens=8)),
        (
            {
                "inputTokens": 10,
                "outputTokens": 20,
                "cacheReadInputTokens": 100,
                "cacheWriteInputTokens": 40,
                "cacheDetails": [{"inputTokens": 30, "ttl": "1h"}, {"inputTokens": 10, "ttl": "5m"}],
            },
            Usage(
                prompt_tokens=150,
                completion_tokens=20,
                cached_tokens=100,
                cache_write_tokens=40,
                rare=Rare(cache_write_hour=30),
            ),
        ),
        (
            {
                "billed_units": {"input_tokens": 6, "output_tokens": 9},
                "tokens": {"input_tokens": 500, "output_tokens": 9},
            },
            Usage(prompt_tokens=6, completion_tokens=9),
        ),
        ({"inputTokens": "10"}, None),
    ],
)
def test_usage_in_the_shapes_of_other_vendors(reported: Any, usage: Usage | None) -> None:
    """A server that speaks OpenAI's language may hand its own vendor's usage through."""
    assert normalised(reported) == usage


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        (
            {
                "input_tokens": 5,
                "output_tokens": 7,
                "cache_creation_input_tokens": 30,
                "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
                "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1},
            },
            Usage(
                prompt_tokens=35,
                completion_tokens=7,
                cache_write_tokens=30,
                rare=Rare(cache_write_hour=20, searches=3),
            ),
        ),
        ({"input_tokens": 5, "output_tokens": 7}, Usage(prompt_tokens=5, completion_tokens=7)),
        (
            {
                "input_tokens": 5,
                "output_tokens": 7,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 20,
                "output_tokens_details": {"thinking_tokens": 6},
            },
            Usage(
                prompt_tokens=125,
                completion_tokens=7,
                cached_tokens=100,
                cache_write_tokens=20,
                reasoning_tokens=6,
            ),
        ),
        (
            {
                "input_tokens": 20,
                "output_tokens": 8,
                "iterations": [{"input_tokens": 500, "output_tokens": 12}, {"input_tokens": 20, "output_tokens": 8}],
            },
            Usage(prompt_tokens=520, completion_tokens=20),
        ),
        (
            {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": None},
            Usage(prompt_tokens=5, completion_tokens=7),
        ),
        ({}, None),
        (None, None),
    ],
)
def test_usage_in_the_shape_of_anthropic(reported: Any, usage: Usage | None) -> None:
    assert from_anthropic(reported) == usage


def test_usage_of_anthropic_is_told_in_the_shape_of_openai() -> None:
    usage = Usage(prompt_tokens=125, completion_tokens=7, cached_tokens=100, cache_write_tokens=20, reasoning_tokens=6)
    assert anthropic_as_openai(usage) == {
        "prompt_tokens": 125,
        "completion_tokens": 7,
        "total_tokens": 132,
        "prompt_tokens_details": {"cached_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 6},
        "cache_creation_input_tokens": 20,
    }


FIELDS = st.sampled_from(
    "prompt_tokens completion_tokens total_tokens cached_tokens reasoning_tokens citation_tokens num_search_queries input_tokens"
    " output_tokens cache_read_input_tokens cache_creation_input_tokens promptTokenCount candidatesTokenCount inputTokens"
    " outputTokens thoughtsTokenCount cachedContentTokenCount".split()
)
PARTS = st.sampled_from(
    "prompt_tokens_details completion_tokens_details input_tokens_details output_tokens_details cache_creation billed_units"
    " server_tool_use iterations promptTokensDetails cacheDetails".split()
)
COUNTS = st.none() | st.booleans() | st.integers(-5, 2**70) | st.integers(0, 5_000) | st.text(max_size=3) | st.floats()
JSON = st.recursive(
    COUNTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=3), inner, max_size=4),
    max_leaves=6,
)


@given(st.dictionaries(FIELDS, COUNTS, max_size=8), st.dictionaries(PARTS, JSON, max_size=4))
def test_whatever_is_reported_parts_are_parts_and_nothing_is_negative(counts: Any, parts: Any) -> None:
    for usage in (normalised({**counts, **parts}), from_anthropic({**counts, **parts})):
        if usage is None:
            continue
        assert 0 <= usage.cached_tokens + usage.cache_write_tokens <= usage.prompt_tokens
        assert 0 <= usage.reasoning_tokens <= usage.completion_tokens
        rare = usage.rare or Rare()
        assert rare.cache_write_hour <= usage.cache_write_tokens
        assert max(rare.audio_cached, rare.image_cached) <= usage.cached_tokens
        assert max(rare.audio_input, rare.image_input, rare.video_input) <= usage.prompt_tokens
        assert max(rare.audio_output, rare.image_output, rare.video_output) <= usage.completion_tokens
        assert 0 <= rare.searches <= MOST_SEARCHES
        assert max(usage.prompt_tokens, usage.completion_tokens) <= LARGEST_COUNT
