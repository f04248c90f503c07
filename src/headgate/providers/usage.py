"""From the usage that vendors report to one Usage.

The invariant: parts are parts (cached, written, audio and reasoning tokens never exceed what they belong to), and where vendors
count differently the result is never below what they bill.

    chat        prompt_tokens, completion_tokens; the cache's part is inside, the reasoning too, but for xAI and Perplexity
    responses   input_tokens, output_tokens and their details; as chat
    Anthropic   input_tokens, output_tokens; what was read from and written to the cache is beside the input
    Gemini      promptTokenCount, candidatesTokenCount; thoughts and what tools read are beside them
    Bedrock     inputTokens, outputTokens; the cache is beside the input
    Cohere      billed_units

A server that speaks OpenAI's language often hands its vendor's usage through, so every shape is known by its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from headgate.model.chat import Json
from headgate.model.money import MOST_SEARCHES, Rare, Usage
from headgate.model.tally import as_reported

LARGEST_COUNT = 2**31
"""Tokens that no call uses; a larger count is a broken report."""


def normalised(reported: Any) -> Usage | None:
    """Usage in any vendor's shape; None when it counts nothing."""
    if not isinstance(reported, dict):
        return None
    for names, read in _SHAPES:
        for name in names:
            if isinstance(reported.get(name), int | dict):
                return read(reported)
    return None


def from_anthropic(reported: Any) -> Usage | None:
    """Usage in Anthropic's shape; None when it counts nothing.

    `input_tokens` leaves out what was read from or written to the cache, so those are added. A call that was compacted or
    advised on the way lists its `iterations`, and the totals leave some of them out, so the larger of both counts.
    """
    if not isinstance(reported, dict) or not any(
        isinstance(reported.get(name), int) for name in ("input_tokens", "output_tokens")
    ):
        return None
    rounds = list(_objects(reported.get("iterations")))

    def count(name: str, part: str = "") -> int:
        places = (_part(entry, part) if part else entry for entry in (reported, *rounds))
        whole, *each = (_count(place, name) for place in places)
        return max(whole, sum(each))

    cached, written = count("cache_read_input_tokens"), count("cache_creation_input_tokens")
    return _bounded(
        prompt=count("input_tokens") + cached + written,
        completion=count("output_tokens"),
        cached=cached,
        written=written,
        reasoning=_count(_part(reported, "output_tokens_details"), "thinking_tokens"),
        rare=_rare(
            cache_write_hour=count("ephemeral_1h_input_tokens", "cache_creation"),
            searches=_count(_part(reported, "server_tool_use"), "web_search_requests"),
        ),
    )


def anthropic_as_openai(usage: Usage) -> Json:
    """The usage in OpenAI's shape; what was written to the cache keeps Anthropic's name, as OpenAI has none."""
    reported = as_reported(usage)
    if usage.cache_write_tokens:
        reported["cache_creation_input_tokens"] = usage.cache_write_tokens
    return reported


def _chat(reported: Json) -> Usage:
    """OpenAI's chat shape, as its many imitators give it.

    Cached tokens come among the details, or beside the totals (DeepSeek, Moonshot, xAI). Some servers leave the
    reasoning out of `completion_tokens` but have it in `total_tokens` (xAI, Gemini): it is billed as output. Perplexity leaves
    reasoning and citations out of both, and bills its searches.
    """
    prompt, completion = _count(reported, "prompt_tokens"), _count(reported, "completion_tokens")
    read, said = _part(reported, "prompt_tokens_details"), _part(reported, "completion_tokens_details")
    reasoning = _count(said, "reasoning_tokens") or _count(reported, "reasoning_tokens")
    if "citation_tokens" in reported or "num_search_queries" in reported:
        completion += reasoning + _count(reported, "citation_tokens")
    return _bounded(
        prompt=prompt,
        completion=max(completion, _count(reported, "total_tokens") - prompt),
        cached=_count(read, "cached_tokens") or _first(reported, _CACHED),
        written=_count(read, "cache_write_tokens") or _count(reported, "cache_creation_input_tokens"),
        reasoning=reasoning,
        rare=_detailed(reported, read, said),
    )


_CACHED = (
    "prompt_cache_hit_tokens",
    "cached_tokens",
    "cached_prompt_text_tokens",
    "cache_read_input_tokens",
)


def _responses(reported: Json) -> Usage:
    """OpenAI's responses and images; also Anthropic's shape, which the cache's part gives away."""
    if not _ANTHROPICS.isdisjoint(reported):
        return from_anthropic(reported) or Usage()
    prompt = _count(reported, "input_tokens")
    read, said = _part(reported, "input_tokens_details"), _part(reported, "output_tokens_details")
    return _bounded(
        prompt=prompt,
        completion=max(_count(reported, "output_tokens"), _count(reported, "total_tokens") - prompt),
        cached=_count(read, "cached_tokens"),
        written=_count(read, "cache_write_tokens"),
        reasoning=_count(said, "reasoning_tokens"),
        rare=_detailed(reported, read, said),
    )


_ANTHROPICS = frozenset({"cache_read_input_tokens", "cache_creation_input_tokens", "iterations", "server_tool_use"})


def _detailed(reported: Json, read: Json, said: Json) -> Rare | None:
    """The rarer kinds among OpenAI's details of prompt and completion, and what Perplexity counts."""
    cached = _part(read, "cached_tokens_details")
    return _rare(
        audio_input=_count(read, "audio_tokens"),
        audio_cached=_count(cached, "audio_tokens"),
        audio_output=_count(said, "audio_tokens"),
        image_input=_count(read, "image_tokens"),
        image_cached=_count(cached, "image_tokens"),
        image_output=_count(said, "image_tokens"),
        video_input=_count(read, "video_tokens"),
        citation=_count(reported, "citation_tokens"),
        searches=_count(reported, "num_search_queries"),
    )


def _rare(**counts: int) -> Rare | None:
    return Rare(**counts) if any(counts.values()) else None


def _gemini(reported: Json) -> Usage:
    """Gemini's own shape. What tools read belongs to the prompt, thoughts to the completion; a document counts as an image."""
    prompt = _count(reported, "promptTokenCount") + _count(reported, "toolUsePromptTokenCount")
    thoughts = _count(reported, "thoughtsTokenCount")
    completion = _count(reported, "candidatesTokenCount") + thoughts
    read = ("promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails")
    cached, written = ("cacheTokensDetails",), ("candidatesTokensDetails",)
    return _bounded(
        prompt=prompt,
        completion=max(completion, _count(reported, "totalTokenCount") - prompt),
        cached=_count(reported, "cachedContentTokenCount"),
        reasoning=thoughts,
        rare=_rare(
            audio_input=_of_kind(reported, read, "AUDIO"),
            audio_cached=_of_kind(reported, cached, "AUDIO"),
            audio_output=_of_kind(reported, written, "AUDIO"),
            image_input=_of_kind(reported, read, "IMAGE", "DOCUMENT"),
            image_cached=_of_kind(reported, cached, "IMAGE", "DOCUMENT"),
            image_output=_of_kind(reported, written, "IMAGE", "DOCUMENT"),
            video_input=_of_kind(reported, read, "VIDEO"),
            video_output=_of_kind(reported, written, "VIDEO"),
        ),
    )


def _of_kind(reported: Json, lists: tuple[str, ...], *kinds: str) -> int:
    entries = (entry for name in lists for entry in _objects(reported.get(name)))
    return sum(_count(entry, "tokenCount") for entry in entries if entry.get("modality") in kinds)


def _bedrock(reported: Json) -> Usage:
    """Bedrock's Converse."""
    cached, written = _count(reported, "cacheReadInputTokens"), _count(reported, "cacheWriteInputTokens")
    kept = _objects(reported.get("cacheDetails"))
    return _bounded(
        prompt=_count(reported, "inputTokens") + cached + written,
        completion=_count(reported, "outputTokens"),
        cached=cached,
        written=written,
        rare=_rare(cache_write_hour=sum(_count(entry, "inputTokens") for entry in kept if entry.get("ttl") == "1h")),
    )


def _cohere(reported: Json) -> Usage:
    """Cohere's: what is billed, which is less than what the model read; it bills nothing less for what it had cached."""
    billed = _part(reported, "billed_units")
    return _bounded(prompt=_count(billed, "input_tokens"), completion=_count(billed, "output_tokens"))


_SHAPES: tuple[tuple[tuple[str, ...], Callable[[Json], Usage]], ...] = (
    (("prompt_tokens", "completion_tokens"), _chat),
    (("input_tokens", "output_tokens"), _responses),
    (("promptTokenCount", "candidatesTokenCount"), _gemini),
    (("inputTokens", "outputTokens"), _bedrock),
    (("billed_units",), _cohere),
)
"""Fields that a shape is known by, and what reads it."""


def _bounded(
    *, prompt: int, completion: int, cached: int = 0, written: int = 0, reasoning: int = 0, rare: Rare | None = None
) -> Usage:
    """A usage with every part within what it belongs to."""
    prompt, completion = min(prompt, LARGEST_COUNT), min(max(completion, reasoning), LARGEST_COUNT)
    cached = min(cached, prompt)
    written = min(written, prompt - cached)
    if rare is not None:
        wholes = {
            "cache_write_hour": written,
            "audio_cached": cached,
            "image_cached": cached,
            "searches": MOST_SEARCHES,
        }
        parts = {
            name: min(count, wholes.get(name, prompt if name.endswith("_input") else completion))
            for name, count in msgspec.structs.asdict(rare).items()
        }
        rare = Rare(**parts)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        rare=rare,
    )


_NOTHING: Json = {}


def _count(reported: Json, name: str) -> int:
    """The number of this name; 0 where there is none, or one that cannot be."""
    value = reported.get(name)
    return value if type(value) is int and 0 <= value <= LARGEST_COUNT else 0


def _part(reported: Json, name: str) -> Json:
    part = reported.get(name)
    return part if isinstance(part, dict) else _NOTHING


def _first(reported: Json, names: tuple[str, ...]) -> int:
    for name in names:
        if name in reported and (count := _count(reported, name)):
            return count
    return 0


def _objects(listed: Any) -> Iterator[Json]:
    """The objects of a list."""
    return (entry for entry in listed if isinstance(entry, dict)) if isinstance(listed, list) else iter(())
