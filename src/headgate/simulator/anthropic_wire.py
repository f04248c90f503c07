"""Anthropic's messages: bodies in and out, JSON and server-sent events.

A prompt with `cache_control` has its prefix up to the last mark written to a cache on first sight and read from it
afterwards. Invariant: input, cache-creation and cache-read tokens together are the prompt tokens that are billed.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from headgate.simulator import answers, wire
from headgate.simulator.answers import Answer, Ask, Finish, Quirks, Tool
from headgate.simulator.anthropic_body import Block, Body, Message, OfferedTool
from headgate.simulator.delivery import Delivery, Frame
from headgate.simulator.wire import Rejection, Stamp

CONTEXT_WINDOW = 200_000
KEPT_PREFIXES = 4096

_STOP_REASON = {
    Finish.NATURAL: "end_turn",
    Finish.STOPPED: "stop_sequence",
    Finish.LENGTH: "max_tokens",
    Finish.TOOL: "tool_use",
}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    529: "overloaded_error",
}


class Reading:
    """Adds up the texts and tokens of a prompt in order, and notes where the cacheable prefix ends."""

    def __init__(self) -> None:
        self.turns: list[str] = []
        self.cost = 0
        self.prefix: tuple[int, int] | None = None

    def text(self, text: str) -> None:
        """Add a text at its own price."""
        self.turns.append(text)
        self.cost += answers.tokens(text)

    def message(self, role: str, content: str | list[Block]) -> None:
        """Add a message with all its blocks."""
        self.turns.append(role)
        self.cost += answers.MESSAGE_TOKENS
        if isinstance(content, str):
            self.text(content)
            return
        for block in content:
            self._block(block)

    def _block(self, block: Block) -> None:
        match block.type:
            case "text":
                self.text(block.text)
            case "thinking":
                self.text(block.thinking)
            case "tool_use":
                self.text(block.name + str(bytes(block.input), "utf-8"))
            case "tool_result":
                parts = block.content or ()
                for part in [Block("text", text=parts)] if isinstance(parts, str) else parts:
                    self._block(part)
            case "image" | "document":
                self.turns.append(block.type)
                self.cost += answers.ATTACHMENT_TOKENS
            case other:
                raise Rejection(400, f"messages: Input tag '{other}' found using 'type' does not match any known block")
        if block.cache_control is not None:
            self.prefix = (len(self.turns), self.cost)

    def cached_prefix(self) -> tuple[bytes, int] | None:
        """Digest and tokens of the cacheable prefix, if one is marked."""
        if self.prefix is None:
            return None
        turns, cost = self.prefix
        return hashlib.sha256("\x1f".join(self.turns[:turns]).encode()).digest(), cost


class AnthropicMessages:
    """`POST /v1/messages`."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Body)
        self._tools = msgspec.json.Decoder(list[OfferedTool] | None)
        self._prefixes: dict[bytes, None] = {}

    def read(self, body: bytes) -> Ask:
        """Understand a request body; raises Rejection."""
        asked = wire.decode(self._decoder, body)
        if not asked.messages:
            raise Rejection(400, "messages: at least one message is required")
        if asked.max_tokens < 1:
            raise Rejection(400, "max_tokens: Input should be greater than or equal to 1")
        reading = Reading()
        offered = wire.decode(self._tools, bytes(asked.tools)) if asked.tools else None
        if offered:
            reading.text(str(bytes(asked.tools), "utf-8"))
        if asked.system:
            reading.message("system", asked.system)
        for message in asked.messages:
            reading.message(message.role, message.content)
        config = asked.output_config
        return Ask(
            model=asked.model,
            turns=tuple(reading.turns),
            question=_question(asked.messages),
            prompt_tokens=reading.cost,
            max_tokens=asked.max_tokens,
            stop=tuple(asked.stop_sequences or ()),
            tool=_tool(asked, offered),
            shape=config.format.schema if config and config.format else None,
            stream=asked.stream,
            cached_prefix=reading.cached_prefix(),
        )

    def deliver(self, ask: Ask, stamp: Stamp, quirks: Quirks) -> Delivery:
        """The sound answer to a call; raises Rejection when a schema in it is unusable."""
        answer = wire.composed(ask, quirks)[0]
        request_id = f"request-id: req_sim{stamp.number:012d}"
        message = self._message(ask, stamp, quirks)
        if ask.stream:
            return wire.stream_delivery(ask, wire.stream_head(request_id), _frames(answer, message, stamp, quirks))
        message["content"] = [_content(answer, stamp)]
        message["stop_reason"] = _STOP_REASON[answer.finish]
        message["stop_sequence"] = answer.stopped_at
        if not quirks.no_usage:
            message["usage"]["output_tokens"] = answer.tokens
        return wire.json_delivery(ask, wire.json_head(request_id), message, answer.tokens)

    def reject(self, rejection: Rejection, stamp: Stamp) -> Delivery:
        """The error in Anthropic's shape."""
        request_id = f"req_sim{stamp.number:012d}"
        error = {"type": _TYPES.get(rejection.status, "invalid_request_error"), "message": rejection.message}
        value = {"type": "error", "error": error, "request_id": request_id}
        return wire.error_delivery(rejection, value, f"request-id: {request_id}")

    def no_money(self) -> Rejection:
        """Anthropic's error for an account that is empty."""
        return Rejection(
            400,
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or"
            " purchase credits.",
        )

    def too_long(self, prompt_tokens: int) -> Rejection:
        """Anthropic's error for a prompt that does not fit."""
        return Rejection(400, f"prompt is too long: {prompt_tokens} tokens > {CONTEXT_WINDOW} maximum")

    def forget(self) -> None:
        """Empty the prompt cache."""
        self._prefixes.clear()

    def _message(self, ask: Ask, stamp: Stamp, quirks: Quirks) -> dict[str, Any]:
        """The message before its content."""
        message: dict[str, Any] = {
            "id": f"msg_sim{stamp.number:012d}",
            "type": "message",
            "role": "assistant",
            "model": ask.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }
        if not quirks.no_usage:
            message["usage"] = self._usage(ask)
        return message

    def _usage(self, ask: Ask) -> dict[str, Any]:
        written = read = 0
        if ask.cached_prefix:
            digest, cost = ask.cached_prefix
            if digest in self._prefixes:
                read = cost
            else:
                written = cost
                self._prefixes[digest] = None
                if len(self._prefixes) > KEPT_PREFIXES:
                    del self._prefixes[next(iter(self._prefixes))]
        return {
            "input_tokens": ask.prompt_tokens - written - read,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "output_tokens": 0,
            "service_tier": "standard",
        }


def _question(messages: list[Message]) -> str:
    for message in reversed(messages):
        if message.role == "user":
            if isinstance(message.content, str):
                return message.content
            texts = [block.text for block in message.content if block.type == "text"]
            if texts:
                return "\n".join(texts)
    return ""


def _tool(asked: Body, offered: list[OfferedTool] | None) -> Tool | None:
    tools = [Tool(tool.name, tool.input_schema or {"type": "object"}) for tool in offered or ()]
    choice: Literal["auto", "none", "required"] | Tool = "auto"
    if asked.tool_choice and asked.tool_choice.type == "tool":
        name = asked.tool_choice.name
        named = next((tool for tool in tools if tool.name == name), None)
        if named is None:
            raise Rejection(400, f"tool_choice: Tool '{name}' not found in provided tools")
        choice = named
    elif asked.tool_choice and asked.tool_choice.type == "none":
        choice = "none"
    last = asked.messages[-1].content
    after_result = not isinstance(last, str) and any(block.type == "tool_result" for block in last)
    return answers.choose_tool(tools, choice, after_result=after_result)


def _content(answer: Answer, stamp: Stamp) -> dict[str, Any]:
    """The one content block of an answer; arguments cut for length are no JSON and become an empty object."""
    if not answer.tool:
        return {"type": "text", "text": answer.text}
    arguments = msgspec.json.decode(answer.text) if answer.finish is Finish.TOOL else {}
    return {"type": "tool_use", "id": _call_id(stamp), "name": answer.tool, "input": arguments}


def _call_id(stamp: Stamp) -> str:
    return f"toolu_sim{stamp.number:012d}"


def _event(name: str, value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name, **value}))


def _frames(answer: Answer, message: dict[str, Any], stamp: Stamp, quirks: Quirks) -> list[Frame]:
    """All events of a stream, in the order in which the vendor sends them."""
    block: dict[str, Any] = {"type": "text", "text": ""}
    delta = b'{"type":"text_delta","text":%b}'
    if answer.tool:
        block = {"type": "tool_use", "id": _call_id(stamp), "name": answer.tool, "input": {}}
        delta = b'{"type":"input_json_delta","partial_json":%b}'
    event = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":' + delta + b"}\n\n"
    ending: dict[str, Any] = {"delta": {"stop_reason": _STOP_REASON[answer.finish], "stop_sequence": answer.stopped_at}}
    if not quirks.no_usage:
        ending["usage"] = {"output_tokens": answer.tokens}
    return [
        (_event("message_start", {"message": message}), 0),
        (_event("content_block_start", {"index": 0, "content_block": block}), 0),
        (_event("ping", {}), 0),
        *[(event % msgspec.json.encode(piece), generated) for piece, generated in answers.cut(answer)],
        (_event("content_block_stop", {"index": 0}), 0),
        (_event("message_delta", ending), 0),
        (_event("message_stop", {}), 0),
    ]
