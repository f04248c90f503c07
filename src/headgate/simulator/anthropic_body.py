"""The request body of Anthropic's messages.

Invariant: fields that the simulator does not know are ignored, as the vendor ignores most of them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Block(msgspec.Struct):
    """One content block of any type."""

    type: str
    text: str = ""
    thinking: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"")
    content: str | list[Block] | None = None
    cache_control: dict[str, Any] | None = None


class Message(msgspec.Struct):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class OfferedTool(msgspec.Struct):
    """A tool on offer."""

    name: str
    input_schema: dict[str, Any] = {}


class Choice(msgspec.Struct):
    """`tool_choice`."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""


class Format(msgspec.Struct):
    """The schema of a structured answer."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct):
    """`output_config`."""

    format: Format | None = None


class Body(msgspec.Struct):
    """The body of `POST /v1/messages`, as far as the simulator cares."""

    model: str
    messages: list[Message]
    max_tokens: int
    system: str | list[Block] = ""
    stream: bool = False
    stop_sequences: list[str] | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    tool_choice: Choice | None = None
    output_config: OutputConfig | None = None
