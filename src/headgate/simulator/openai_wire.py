"""OpenAI's chat completions: bodies in and out, JSON and server-sent events.

Invariant: billed prompt tokens never exceed the UTF-8 bytes of the messages plus 8 a message, the bytes of the tools'
JSON and 1,000 an attachment, so that a caller who counts bytes has an upper bound.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headgate.simulator import answers, wire
from headgate.simulator.answers import Answer, Ask, Finish, Quirks, Tool
from headgate.simulator.delivery import Delivery, Frame
from headgate.simulator.openai_body import Body, Format, Message, NamedChoice, OfferedTool, Part, Picture
from headgate.simulator.wire import Rejection, Stamp

CONTEXT_WINDOW = 128_000
MAX_CHOICES = 128
FINGERPRINT = "fp_simulated"

_FINISH = {
    Finish.NATURAL: "stop",
    Finish.STOPPED: "stop",
    Finish.LENGTH: "length",
    Finish.TOOL: "tool_calls",
}
_TYPES = {429: "requests", 500: "server_error", 502: "server_error", 503: "server_error", 529: "server_error"}


class OpenAIChat:
    """`POST /v1/chat/completions`."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Body)
        self._tools = msgspec.json.Decoder(list[OfferedTool] | None)

    def read(self, body: bytes) -> Ask:
        """Understand a request body; raises Rejection."""
        asked = wire.decode(self._decoder, body)
        limit = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
        choices = 1 if asked.n is None else asked.n
        _check(asked, limit, choices)
        offered = wire.decode(self._tools, bytes(asked.tools)) if asked.tools else None
        turns, prompt_tokens = _read_messages(asked.messages)
        if offered:
            turns.append(str(bytes(asked.tools), "utf-8"))
            prompt_tokens += answers.tokens(turns[-1])
        stop = asked.stop or ()
        return Ask(
            model=asked.model,
            turns=tuple(turns),
            question=_question(asked.messages),
            prompt_tokens=prompt_tokens,
            max_tokens=limit,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            n=choices,
            tool=_tool(asked, offered),
            shape=_shape(asked.response_format),
            stream=bool(asked.stream),
            with_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        )

    def deliver(self, ask: Ask, stamp: Stamp, quirks: Quirks) -> Delivery:
        """The sound answer to a call; raises Rejection when a schema in it is unusable."""
        choices = wire.composed(ask, quirks)
        request_id = f"x-request-id: req_sim{stamp.number:012d}"
        if ask.stream:
            return wire.stream_delivery(ask, wire.stream_head(request_id), _frames(ask, choices, stamp, quirks))
        generated = sum(choice.tokens for choice in choices)
        value: dict[str, Any] = {
            "id": _id(stamp),
            "object": "chat.completion",
            "created": stamp.created,
            "model": ask.model,
            "choices": [_choice(index, choice, stamp) for index, choice in enumerate(choices)],
            "system_fingerprint": FINGERPRINT,
        }
        if not quirks.no_usage:
            value["usage"] = usage(ask.prompt_tokens, generated)
        return wire.json_delivery(ask, wire.json_head(request_id), value, generated)

    def reject(self, rejection: Rejection, stamp: Stamp) -> Delivery:
        """The error in OpenAI's shape."""
        return reject(rejection, stamp)

    def no_money(self) -> Rejection:
        """OpenAI's error for an account that is empty."""
        return no_money()

    def too_long(self, prompt_tokens: int) -> Rejection:
        """OpenAI's error for a prompt that does not fit."""
        return Rejection(
            400,
            f"This model's maximum context length is {CONTEXT_WINDOW} tokens. However, your messages resulted in "
            f"{prompt_tokens} tokens. Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        )


def no_money() -> Rejection:
    """OpenAI's error for an account that is empty."""
    words = "You exceeded your current quota, please check your plan and billing details."
    return Rejection(429, words, code="insufficient_quota")


def reject(rejection: Rejection, stamp: Stamp) -> Delivery:
    """An error in OpenAI's shape."""
    error = {
        "message": rejection.message,
        "type": _TYPES.get(rejection.status, "invalid_request_error"),
        "param": rejection.param,
        "code": rejection.code,
    }
    return wire.error_delivery(rejection, {"error": error}, f"x-request-id: req_sim{stamp.number:012d}")


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """The usage object of a chat completion."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _check(asked: Body, limit: int | None, choices: int) -> None:
    if not asked.messages:
        raise Rejection(400, "[] is too short - 'messages'.", param="messages")
    if limit is not None and limit < 1:
        raise Rejection(
            400,
            f"Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got {limit} instead.",
            param="max_tokens",
            code="integer_below_min_value",
        )
    if not 1 <= choices <= MAX_CHOICES:
        raise Rejection(400, f"Invalid 'n': expected 1 to {MAX_CHOICES}, but got {choices}.", param="n")


def _read_messages(messages: list[Message]) -> tuple[list[str], int]:
    """All texts in order, and what the messages cost."""
    turns: list[str] = []
    cost = 0
    for message in messages:
        turns.append(message.role)
        cost += answers.MESSAGE_TOKENS
        if isinstance(message.content, str):
            turns.append(message.content)
            cost += answers.tokens(message.content)
        else:
            for part in message.content or ():
                text, price = _read_part(part)
                turns.append(text)
                cost += price
        for call in message.tool_calls or ():
            turns.append(call.function.name + call.function.arguments)
            cost += answers.tokens(turns[-1])
    return turns, cost


def _read_part(part: Part) -> tuple[str, int]:
    if part.type in ("text", "refusal"):
        text = part.text or part.refusal
        return text, answers.tokens(text)
    picture = part.image_url or Picture()
    small = picture.detail == "low"
    return picture.url, answers.SMALL_ATTACHMENT_TOKENS if small else answers.ATTACHMENT_TOKENS


def _question(messages: list[Message]) -> str:
    for message in reversed(messages):
        if message.role == "user":
            content = message.content or ""
            if isinstance(content, str):
                return content
            return "\n".join(part.text for part in content if part.type == "text")
    return ""


def _tool(asked: Body, offered: list[OfferedTool] | None) -> Tool | None:
    tools = [Tool(tool.function.name, tool.function.parameters or {"type": "object"}) for tool in offered or ()]
    choice: Literal["auto", "none", "required"] | Tool = "auto"
    if isinstance(asked.tool_choice, NamedChoice):
        name = asked.tool_choice.function.name
        named = next((tool for tool in tools if tool.name == name), None)
        if named is None:
            raise Rejection(400, f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")
        choice = named
    elif asked.tool_choice:
        choice = asked.tool_choice
    return answers.choose_tool(tools, choice, after_result=asked.messages[-1].role in ("tool", "function"))


def _shape(asked: Format | None) -> Any:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return {}
    if asked.json_schema is None:
        raise Rejection(
            400, "Missing required parameter: 'response_format.json_schema'.", param="response_format.json_schema"
        )
    return asked.json_schema.schema or {}


def _id(stamp: Stamp) -> str:
    return f"chatcmpl-sim{stamp.number:012d}"


def _call_id(stamp: Stamp, index: int) -> str:
    return f"call_sim{stamp.number:012d}{index:02d}"


def _choice(index: int, answer: Answer, stamp: Stamp) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool:
        called = {"name": answer.tool, "arguments": answer.text}
        message["content"] = None
        message["tool_calls"] = [{"id": _call_id(stamp, index), "type": "function", "function": called}]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": _FINISH[answer.finish]}


def _frames(ask: Ask, choices: list[Answer], stamp: Stamp, quirks: Quirks) -> list[Frame]:
    """All events of a stream: role, pieces and finish of each choice, usage, and the end mark."""
    with_usage = ask.with_usage and not quirks.no_usage
    opening = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"system_fingerprint":"%b",' % (
        msgspec.json.encode(_id(stamp)),
        stamp.created,
        msgspec.json.encode(ask.model),
        FINGERPRINT.encode(),
    )
    closing = b'],"usage":null}\n\n' if with_usage else b"]}\n\n"
    frames: list[Frame] = []
    for index, answer in enumerate(choices):
        start = opening + b'"choices":[{"index":%d,"delta":' % index
        middle = b',"logprobs":null,"finish_reason":null}' + closing
        first, parts = _deltas(answer, _call_id(stamp, index))
        frames.append((start + first + middle, 0))
        frames += [(start + delta + middle, generated) for delta, generated in parts]
        last = b'{},"logprobs":null,"finish_reason":"%b"}' % _FINISH[answer.finish].encode()
        frames.append((start + last + closing, 0))
    if with_usage:
        figures = usage(ask.prompt_tokens, sum(answer.tokens for answer in choices))
        frames.append((opening + b'"choices":[],"usage":%b}\n\n' % msgspec.json.encode(figures), 0))
    frames.append((b"data: [DONE]\n\n", 0))
    return frames


def _deltas(answer: Answer, call_id: str) -> tuple[bytes, list[Frame]]:
    """The first delta of a choice, and the ones that carry its text."""
    encode = msgspec.json.encode
    cut = answers.cut(answer)
    if not answer.tool:
        first = b'{"role":"assistant","content":"","refusal":null}'
        return first, [(b'{"content":%b}' % encode(piece), generated) for piece, generated in cut]
    called = {"name": answer.tool, "arguments": ""}
    call = {"index": 0, "id": call_id, "type": "function", "function": called}
    first = encode({"role": "assistant", "content": None, "tool_calls": [call]})
    part = b'{"tool_calls":[{"index":0,"function":{"arguments":%b}}]}'
    return first, [(part % encode(piece), generated) for piece, generated in cut]
