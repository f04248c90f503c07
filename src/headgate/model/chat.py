"""A chat request and the answer to it, as values.

The shapes are OpenAI's, which every door and every provider of Headgate translates from and to. Headgate types only what it
reads; everything else that a caller or a vendor sent survives untouched in `body` (requests) and `extra` (answers).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headgate.model.errors import InvalidRequest
from headgate.model.money import Usage

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
Json = dict[str, Any]


class ImageUrl(msgspec.Struct, frozen=True, gc=False):
    """Where an image is, or the image itself as a `data:` URL. Never fetched by Headgate."""

    url: str
    detail: str | None = None


class Part(msgspec.Struct, frozen=True, gc=False):
    """One piece of a message's content. Kinds that Headgate does not know pass through in the request's `body`."""

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


class FunctionCall(msgspec.Struct, frozen=True, gc=False):
    """Which function the model wants called, with JSON arguments as a string."""

    name: str = ""
    arguments: str = ""


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """A call that an earlier assistant turn asked for."""

    id: str
    type: str = "function"
    function: FunctionCall | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """One turn of the conversation."""

    role: Role
    content: str | tuple[Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_call_id: str | None = None

    def text(self) -> str | None:
        """The turn's text when it is text and nothing else, else None."""
        if isinstance(self.content, str):
            return self.content
        if self.content is None or any(part.type != "text" or part.text is None for part in self.content):
            return None
        return "\n".join(part.text or "" for part in self.content)


class StreamOptions(msgspec.Struct, frozen=True, gc=False):
    """What a streaming caller wants beside the deltas."""

    include_usage: bool | None = None


class Function(msgspec.Struct, frozen=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: Json | None = None


class Tool(msgspec.Struct, frozen=True):
    """One entry of `tools`. Kinds other than functions pass through in the request's `body`."""

    type: str
    function: Function | None = None


class ResponseFormat(msgspec.Struct, frozen=True, gc=False):
    """`text`, `json_object` or `json_schema`."""

    type: str
    json_schema: Json | None = None


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One chat request: typed views of what Headgate reads, and the whole `body` as the caller sent it."""

    model: str
    messages: tuple[Message, ...]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stop: str | tuple[str, ...] | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: str | Json | None = None
    response_format: ResponseFormat | None = None
    store: bool | None = None
    user: str | None = None
    body: Json = {}

    @classmethod
    def parse(cls, body: Any) -> ChatRequest:
        """Check a decoded JSON body and type what Headgate reads of it.

        Raises InvalidRequest naming the field, as `messages[0].role`.
        """
        if not isinstance(body, dict):
            raise InvalidRequest("The body must be a JSON object.")
        try:
            request = msgspec.convert({**body, "body": body}, cls)
        except msgspec.ValidationError as error:
            message, param = _explained(error)
            raise InvalidRequest(message, param=param) from None
        _check_ranges(request)
        return request

    @property
    def max_output(self) -> int | None:
        """Most output tokens the caller wants for each choice, or None when it does not say."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return 1 if self.n is None else self.n

    @property
    def question(self) -> str | None:
        """The last turn's text, when it is the user's and nothing but text."""
        last = self.messages[-1]
        return last.text() if last.role == "user" else None


def _explained(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """The message of msgspec ends in ` - at `$.messages[0].role``: split it into words and a field name."""
    message, _, path = str(error).partition(" - at `$")
    param = path.rstrip("`").lstrip(".")
    if message.startswith("Object missing required field `"):
        param = f"{param}.{message.split('`')[1]}".lstrip(".")
    return f"{message}.", param or None


def _check_ranges(request: ChatRequest) -> None:
    if not request.model:
        raise InvalidRequest("`model` must not be empty.", param="model")
    if not request.messages:
        raise InvalidRequest("`messages` must hold at least one message.", param="messages")
    if request.n is not None and not 1 <= request.n <= 128:
        raise InvalidRequest("`n` must be between 1 and 128.", param="n")
    if request.temperature is not None and not 0 <= request.temperature <= 2:
        raise InvalidRequest("`temperature` must be between 0 and 2.", param="temperature")
    for name in ("max_tokens", "max_completion_tokens"):
        limit = getattr(request, name)
        if limit is not None and not 1 <= limit < 2**31:
            raise InvalidRequest(f"`{name}` must be between 1 and {2**31 - 1}.", param=name)


class Delta(msgspec.Struct, frozen=True, gc=False):
    """A part of the answer: OpenAI's `choices` of one chunk, and the vendor's own top-level fields.

    An answer that came whole is one Delta whose choices carry the whole message and its finish reason.
    """

    choices: list[Json]
    extra: Json = {}


class Done(msgspec.Struct, frozen=True, gc=False):
    """The answer's end: what the provider says it used (None when it says nothing) and which model answered.

    `reported` is that usage in OpenAI's shape, as the provider gave it.
    """

    model: str
    usage: Usage | None = None
    reported: Json | None = None


Event = Delta | Done


class Completion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A whole answer. `choices` are OpenAI's, `usage` normalised, `reported` as the provider gave it."""

    model: str
    choices: list[Json]
    usage: Usage
    reported: Json
    extra: Json = {}

    def events(self) -> tuple[Event, ...]:
        """The same answer as events, for a reader that streams."""
        parts = [as_part(choice) for choice in self.choices]
        return Delta(parts, self.extra), Done(self.model, self.usage, self.reported)

    @property
    def text(self) -> str:
        """The first choice's text; empty when it has none."""
        return (self.choices[0].get("message") or {}).get("content") or "" if self.choices else ""

    @property
    def complete(self) -> bool:
        """True when every choice ended by itself, so the answer may be given again."""
        return bool(self.choices) and all(
            choice.get("finish_reason") in ("stop", "tool_calls", "function_call") for choice in self.choices
        )


def as_part(choice: Json) -> Json:
    """A whole choice in the form of a chunk's: the message becomes the delta, its tool calls get their index."""
    message = choice.get("message") or {}
    if message.get("tool_calls"):
        calls = [{"index": index, **call} for index, call in enumerate(message["tool_calls"])]
        message = {**message, "tool_calls": calls}
    part = {name: value for name, value in choice.items() if name != "message"}
    return {**part, "delta": message}
