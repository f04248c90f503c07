"""Estimate: how many tokens a prompt has, without a tokenizer.

Invariant: `most` is never too small for text. Every vocabulary in use is built on bytes, so a token covers at least one byte of
UTF-8, and providers add a few tokens for each message; what an image costs depends on its size, which is not known here, so
a stated allowance stands for it. `likely` is a rule of thumb: it counts where a provider reports nothing, and is marked there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headgate.model.chat import ChatRequest, Json, Message, Part

PER_MESSAGE = 8
"""Tokens for a message's role and delimiters; OpenAI documents 3 to 4."""

PER_IMAGE = 2_000
"""Tokens allowed for an image. Vendors bill 85 to about 1,600 for one at their largest size that is not tiled further."""

LIKELY_PER_IMAGE = 800

BYTES_PER_AUDIO_TOKEN = 16
"""Of base64. Speech coded as thinly as Opus does it still needs more than that for the tokens that vendors count a second."""

_SCHEMAS = ("tools", "functions", "response_format")
_encode = msgspec.json.encode


class PromptSize(msgspec.Struct, frozen=True):
    """Tokens of a prompt: the probable number, and one it cannot exceed."""

    likely: int
    most: int


def measure(request: ChatRequest) -> PromptSize:
    """The size of a chat prompt: all texts, names, tool calls, tool definitions and the answer's schema."""
    likely = most = 0
    for index, message in enumerate(request.messages):
        content = message.content
        if isinstance(content, str):
            size = len(content) if content.isascii() else len(content.encode("utf-8", "replace"))
            most += size + PER_MESSAGE
            likely += likely_tokens(content, size) + PER_MESSAGE // 2
        else:
            part_likely, part_most = _parts(content or (), request.body, index)
            likely += part_likely + PER_MESSAGE // 2
            most += part_most + PER_MESSAGE
        if message.tool_calls or message.name or message.tool_call_id:
            extra = _besides(message)
            likely += extra // 4
            most += extra
    for name in _SCHEMAS:
        schema = request.body.get(name) if request.body else getattr(request, name, None)
        if schema:
            size = len(_encode(schema))
            likely += size // 4
            most += size
    return PromptSize(likely, most)


def measure_input(value: Any) -> PromptSize:
    """The size of an embeddings input: a text, texts, tokens, or lists of tokens."""
    if isinstance(value, str):
        size = len(value.encode("utf-8", "replace"))
        return PromptSize(likely_tokens(value, size), size + PER_MESSAGE)
    if not isinstance(value, list):
        return PromptSize(1, 1 + PER_MESSAGE)
    likely = most = 0
    for item in value:
        inner = PromptSize(1, 1) if isinstance(item, int) else measure_input(item)
        likely += inner.likely
        most += inner.most
    return PromptSize(likely, most)


def likely_tokens(text: str, size: int) -> int:
    """Probable tokens of a text whose UTF-8 has `size` bytes.

    A character of b bytes counts for 1/4 + 3/8 (b - 1) tokens: a quarter in English, 5/8 in Cyrillic or Greek, one in
    Chinese, Japanese and Korean.
    """
    characters = len(text)
    if size == characters:
        return (size + 3) // 4
    beyond = size - characters
    return (characters + 3) // 4 + (beyond * 3 + 7) // 8


def _parts(parts: tuple[Part, ...], body: Json, message: int) -> tuple[int, int]:
    likely = most = 0
    for index, part in enumerate(parts):
        if part.text is not None:
            size = len(part.text.encode("utf-8", "replace"))
            likely += likely_tokens(part.text, size)
            most += size
        if part.image_url is not None:
            likely += LIKELY_PER_IMAGE
            most += PER_IMAGE
        if part.text is None and part.image_url is None and body:
            # A kind that is passed on unread: what it weighs is known from the body alone.
            size = len(_encode(body["messages"][message]["content"][index]))
            tokens = size // BYTES_PER_AUDIO_TOKEN if part.type == "input_audio" else size
            likely += tokens // 4
            most += tokens
    return likely, most


def _besides(message: Message) -> int:
    """Bytes of a message's name and tool calls."""
    size = len((message.name or "").encode("utf-8", "replace"))
    return size + len(message.tool_call_id or "") + (len(_encode(message.tool_calls)) if message.tool_calls else 0)
