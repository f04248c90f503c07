"""Usage as vendors report it, normalised."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.model.money import Usage
from headgate.providers.usage import anthropic_as_openai, from_anthropic, from_openai


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
            Usage(prompt_tokens=64, completion_tokens=9, audio_input_tokens=44, audio_output_tokens=9),
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
    assert from_openai(reported) == usage


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
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
