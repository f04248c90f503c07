"""From the usage that vendors report to one Usage.

The invariant: parts are parts (`cached`, `cache_write` and `reasoning` never exceed what they belong to), and where vendors
count differently the result is never below what they bill.
"""

from __future__ import annotations

from typing import Any

from headgate.model.chat import Json
from headgate.model.money import Usage
from headgate.model.tally import as_reported

LARGEST_COUNT = 2**40
"""Tokens that no call uses; a larger count is a broken report."""


def from_openai(reported: Any) -> Usage | None:
    """Usage in the shape of OpenAI's chat answers, as its many imitators give it; None when it counts nothing.

    Cached tokens come as `prompt_tokens_details.cached_tokens`, or beside the totals (DeepSeek, Mistral, Moonshot). Some
    servers leave the reasoning out of `completion_tokens` but have it in `total_tokens` (xAI, Gemini): it is billed as output.
    """
    if not isinstance(reported, dict) or not _reports(reported, "prompt_tokens", "completion_tokens"):
        return None
    prompt, completion = _count(reported, "prompt_tokens"), _count(reported, "completion_tokens")
    total = _count(reported, "total_tokens")
    inputs, outputs = _part(reported, "prompt_tokens_details"), _part(reported, "completion_tokens_details")
    return _bounded(
        prompt=prompt,
        completion=max(completion, total - prompt),
        cached=_count(inputs, "cached_tokens")
        or _first(reported, "prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens", "cache_read_input_tokens"),
        written=_count(inputs, "cache_write_tokens") or _first(reported, "cache_creation_input_tokens"),
        reasoning=_count(outputs, "reasoning_tokens") or _count(reported, "reasoning_tokens"),
    )


def from_embeddings(reported: Any) -> Usage | None:
    """Usage of an embeddings answer: a prompt and nothing else; None when it counts nothing."""
    usage = from_openai(reported)
    if usage is None and isinstance(reported, dict) and _reports(reported, "total_tokens", "total_tokens"):
        return Usage(prompt_tokens=_count(reported, "total_tokens"))
    return usage if usage is None else Usage(prompt_tokens=max(usage.prompt_tokens, usage.total_tokens))


def from_anthropic(reported: Any) -> Usage | None:
    """Usage in Anthropic's shape; None when it counts nothing.

    `input_tokens` leaves out what was read from or written to the cache, so those are added. A call that was compacted on the
    way lists its `iterations`, and only their sum is what it cost.
    """
    if not isinstance(reported, dict) or not _reports(reported, "input_tokens", "output_tokens"):
        return None
    rounds = [entry for entry in reported.get("iterations") or () if isinstance(entry, dict)] or [reported]
    cached = sum(_count(entry, "cache_read_input_tokens") for entry in rounds)
    written = sum(_count(entry, "cache_creation_input_tokens") for entry in rounds)
    return _bounded(
        prompt=sum(_count(entry, "input_tokens") for entry in rounds) + cached + written,
        completion=sum(_count(entry, "output_tokens") for entry in rounds),
        cached=cached,
        written=written,
        reasoning=_count(_part(reported, "output_tokens_details"), "thinking_tokens"),
    )


def anthropic_as_openai(usage: Usage) -> Json:
    """The usage in OpenAI's shape; what was written to the cache keeps Anthropic's name, as OpenAI has none."""
    reported = as_reported(usage)
    if usage.cache_write_tokens:
        reported["cache_creation_input_tokens"] = usage.cache_write_tokens
    return reported


def _reports(reported: Json, *names: str) -> bool:
    return any(isinstance(reported.get(name), int) for name in names)


def _bounded(*, prompt: int, completion: int, cached: int, written: int, reasoning: int) -> Usage:
    completion = max(completion, reasoning)
    cached = min(cached, prompt)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=min(written, prompt - cached),
        reasoning_tokens=reasoning,
    )


def _count(reported: Json, name: str) -> int:
    value = reported.get(name)
    return value if type(value) is int and 0 <= value <= LARGEST_COUNT else 0


def _first(reported: Json, *names: str) -> int:
    return next((count for name in names if (count := _count(reported, name))), 0)


def _part(reported: Json, name: str) -> Json:
    part = reported.get(name)
    return part if isinstance(part, dict) else {}
