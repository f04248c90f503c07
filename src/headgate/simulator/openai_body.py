"""The request body of OpenAI's chat completions.

Invariant: fields that the simulator does not know are ignored, as the vendor ignores most of them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Picture(msgspec.Struct):
    """An image by address; `detail` decides its price."""

    url: str = ""
    detail: str | None = None


class Part(msgspec.Struct):
    """One part of a message."""

    type: Literal["text", "refusal", "image_url", "input_audio", "file"]
    text: str = ""
    refusal: str = ""
    image_url: Picture | None = None


class CalledFunction(msgspec.Struct):
    """The function of a call, arguments as JSON text."""

    name: str
    arguments: str = ""


class Called(msgspec.Struct):
    """A call that the model made earlier."""

    function: CalledFunction


class Message(msgspec.Struct):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[Called] | None = None


class Function(msgspec.Struct):
    """A function on offer."""

    name: str
    parameters: dict[str, Any] | None = None


class OfferedTool(msgspec.Struct):
    """A tool on offer."""

    function: Function


class Named(msgspec.Struct):
    """A name alone."""

    name: str


class NamedChoice(msgspec.Struct):
    """`tool_choice` that names a function."""

    function: Named


class SchemaFormat(msgspec.Struct):
    """The schema of a structured answer."""

    schema: dict[str, Any] | None = None


class Format(msgspec.Struct):
    """`response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_usage: bool | None = False


class Body(msgspec.Struct):
    """The body of `POST /v1/chat/completions`, as far as the simulator cares."""

    model: str
    messages: list[Message]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    response_format: Format | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    tool_choice: Literal["auto", "none", "required"] | NamedChoice | None = None
