"""From the usage that vendors report to one Usage.

The invariant: parts are parts (cached, written, audio and reasoning tokens never exceed what they belong to), and where vendors
count differently the result is never below what they bill.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headgate.model.chat import Json
from headgate.model.money import Usage
from headgate.model.tally import as_reported

LARGEST_COUNT = 2**40
"""Tokens that no call uses; a larger count is a broken report."""


def from_openai(reported: Any) -> Usage | None:
    """Usage in the shape of OpenAI's chat answers, as its many imitators give it; None when it counts nothing.

    Cached tokens come as `prompt_tokens_details.cached_tokens`, or beside the totals (DeepSeek, Moonshot). Some servers leave
    the reasoning out of `completion_tokens` but have it in `total_tokens` (xAI, Gemini): it is billed as output.
    """
    if not isinstance(reported, dict) or not _reports(reported, "prompt_tokens", "completion_tokens"):
        return None
    prompt, completion = _count(reported, "prompt_tokens"), _count(reported, "completion_tokens")
    inputs, outputs = _part(reported, "prompt_tokens_details"), _part(reported, "completion_tokens_details")
    return _bounded(
        Usage(
            prompt_tokens=prompt,
            completion_tokens=max(completion, _count(reported, "total_tokens") - prompt),
            cached_tokens=_count(inputs, "cached_tokens")
            or _first(reported, "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"),
            cache_write_tokens=_count(inputs, "cache_write_tokens") or _count(reported, "cache_creation_input_tokens"),
            reasoning_tokens=_count(outputs, "reasoning_tokens") or _count(reported, "reasoning_tokens"),
            audio_input_tokens=_count(inputs, "audio_tokens"),
            audio_output_tokens=_count(outputs, "audio_tokens"),
        )
    )


def from_anthropic(reported: Any) -> Usage | None:
    """Usage in Anthropic's shape; None when it counts nothing.

    `input_tokens` leaves out what was read from or written to the cache, so those are added. A call that was compacted or
    advised on the way lists its `iterations`, and the totals leave some of them out, so the larger of both counts.
    """
    if not isinstance(reported, dict) or not _reports(reported, "input_tokens", "output_tokens"):
        return None
    listed = reported.get("iterations")
    rounds = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []

    def count(name: str) -> int:
        return max(_count(reported, name), sum(_count(entry, name) for entry in rounds))

    cached, written = count("cache_read_input_tokens"), count("cache_creation_input_tokens")
    return _bounded(
        Usage(
            prompt_tokens=count("input_tokens") + cached + written,
            completion_tokens=count("output_tokens"),
            cached_tokens=cached,
            cache_write_tokens=written,
            reasoning_tokens=_count(_part(reported, "output_tokens_details"), "thinking_tokens"),
        )
    )


def anthropic_as_openai(usage: Usage) -> Json:
    """The usage in OpenAI's shape; what was written to the cache keeps Anthropic's name, as OpenAI has none."""
    reported = as_reported(usage)
    if usage.cache_write_tokens:
        reported["cache_creation_input_tokens"] = usage.cache_write_tokens
    return reported


def _reports(reported: Json, *names: str) -> bool:
    return any(isinstance(reported.get(name), int) for name in names)


def _bounded(usage: Usage) -> Usage:
    """The same with every part within what it belongs to."""
    completion = max(usage.completion_tokens, usage.reasoning_tokens)
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    return msgspec.structs.replace(
        usage,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=min(usage.cache_write_tokens, usage.prompt_tokens - cached),
        audio_input_tokens=min(usage.audio_input_tokens, usage.prompt_tokens),
        audio_output_tokens=min(usage.audio_output_tokens, completion),
    )


def _count(reported: Json, name: str) -> int:
    value = reported.get(name)
    return value if type(value) is int and 0 <= value <= LARGEST_COUNT else 0


def _first(reported: Json, *names: str) -> int:
    return next((count for name in names if (count := _count(reported, name))), 0)


def _part(reported: Json, name: str) -> Json:
    part = reported.get(name)
    return part if isinstance(part, dict) else {}
