"""What the tests that use OpenAI's SDK ask, and how they read a stream."""

from __future__ import annotations

from typing import Any

from openai.types.chat import ChatCompletionMessageParam

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are a support agent."},
    {"role": "user", "content": "How do I export my invoices?"},
]
PARAMETERS: dict[str, object] = {
    "type": "object",
    "properties": {"order": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["order", "count"],
}
TOOLS: Any = [{"type": "function", "function": {"name": "find_order", "parameters": PARAMETERS}}]


def ask(text: str) -> list[ChatCompletionMessageParam]:
    """One question."""
    return [{"role": "user", "content": text}]


def joined(chunks: Any) -> str:
    """The text of a stream."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
