"""From Anthropic's answers to OpenAI's: a whole message, or the events of a stream.

The invariant: both ways give the same completion once folded by Tally. Thinking becomes `reasoning_content`; the signed blocks
come beside it as `thinking_blocks`, which a caller must send back to go on thinking across tool calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import msgspec

from headgate.model.chat import Delta, Done, Json
from headgate.model.money import Usage
from headgate.providers.anthropic_request import ANSWER_TOOL
from headgate.providers.usage import anthropic_as_openai, from_anthropic

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "refusal": "content_filter",
}
"""`pause_turn` is an answer that is not at its end, which OpenAI's words can say only as `length`."""

Broken = Callable[[str], Exception]


def finish_reason(reason: Any, *, answer_tool: bool) -> str | None:
    """OpenAI's word for Anthropic's; None while there is none."""
    if reason is None:
        return None
    if answer_tool and reason == "tool_use":
        return "stop"
    return FINISH_REASONS.get(reason, "stop") if isinstance(reason, str) else "stop"


def done(model: Any, usage: Any) -> Done:
    """The answer's end, with the usage in OpenAI's shape."""
    normal = from_anthropic(usage)
    return Done(
        model if isinstance(model, str) else "", normal, None if normal is None else anthropic_as_openai(normal)
    )


def whole(message: Json, *, answer_tool: bool, broken: Broken) -> tuple[Delta, Done]:
    """A whole message as one delta and its end. Raises what `broken` makes when it cannot be read."""
    blocks = message.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise broken("sent an answer without content")
    reader = BlockReader(answer_tool=answer_tool, broken=broken)
    joined: Json = {"role": "assistant", "content": None}
    for index, block in enumerate(blocks):
        for part in (reader.start(index, block), reader.stop(index)):
            _join(joined, part or {})
    finish = finish_reason(message.get("stop_reason"), answer_tool=answer_tool)
    choice = {"index": 0, "delta": joined, "finish_reason": finish}
    return Delta([choice]), done(message.get("model"), message.get("usage"))


def _join(joined: Json, part: Json) -> None:
    for name, value in part.items():
        if name == "tool_calls":
            _join_calls(joined.setdefault(name, []), value)
        else:
            joined[name] = value if joined.get(name) is None else joined[name] + value


def _join_calls(calls: list[Json], parts: list[Json]) -> None:
    for part in parts:
        if part["index"] == len(calls):
            calls.append(part)
        else:
            calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]


class BlockReader:
    """Turns content blocks, whole or in pieces, into parts of an OpenAI message."""

    def __init__(self, *, answer_tool: bool, broken: Broken) -> None:
        """`broken` makes the error for a block that cannot be read."""
        self._answer_tool = answer_tool
        self._broken = broken
        self._open: dict[int, Json] = {}
        self._wrote: set[int] = set()
        self._calls: dict[int, int] = {}

    def start(self, index: int, block: Json) -> Json | None:
        """A block begins; a whole answer's block begins with all it has."""
        kind = block.get("type")
        self._open[index] = dict(block)
        if kind == "text":
            return self._text("content", block.get("text"))
        if kind == "thinking":
            return self._text("reasoning_content", block.get("thinking"))
        if kind != "tool_use":
            return None
        written = msgspec.json.encode(block["input"]).decode() if block.get("input") else ""
        if written:
            self._wrote.add(index)
        if self._is_answer(index):
            return {"content": written} if written else None
        self._calls[index] = len(self._calls)
        call = {"id": block.get("id"), "type": "function"}
        function = {"name": block.get("name"), "arguments": written}
        return {"tool_calls": [{"index": self._calls[index], **call, "function": function}]}

    def piece(self, index: int, delta: Json) -> Json | None:
        """More of an open block."""
        kind, block = delta.get("type"), self._open.get(index)
        if block is None:
            raise self._broken("sent a piece of a block that is not open")
        if kind == "text_delta":
            return self._text("content", delta.get("text"))
        if kind == "thinking_delta":
            text = self._string(delta.get("thinking"))
            block["thinking"] = (block.get("thinking") or "") + text
            return self._text("reasoning_content", text)
        if kind == "signature_delta":
            block["signature"] = self._string(delta.get("signature"))
        if kind == "input_json_delta" and block.get("type") == "tool_use":
            return self._arguments(index, self._string(delta.get("partial_json")))
        return None

    def stop(self, index: int) -> Json | None:
        """A block ends: a call without arguments gets the empty object, thinking is given with its signature."""
        block = self._open.pop(index, None)
        kind = None if block is None else block.get("type")
        if kind == "tool_use" and index not in self._wrote:
            self._open[index] = block or {}
            ending = self._arguments(index, "{}")
            self._open.pop(index)
            return ending
        if (kind == "thinking" and (block or {}).get("signature")) or kind == "redacted_thinking":
            return {"thinking_blocks": [block]}
        return None

    def _arguments(self, index: int, written: str) -> Json | None:
        if not written:
            return None
        self._wrote.add(index)
        if self._is_answer(index):
            return {"content": written}
        return {"tool_calls": [{"index": self._calls[index], "function": {"arguments": written}}]}

    def _is_answer(self, index: int) -> bool:
        return self._answer_tool and self._open[index].get("name") == ANSWER_TOOL

    def _text(self, name: str, text: Any) -> Json | None:
        return {name: text} if self._string(text) else None

    def _string(self, text: Any) -> str:
        if text is None:
            return ""
        if not isinstance(text, str):
            raise self._broken("sent a block that cannot be read")
        return text


class Stream:
    """Reads the events of one streamed message."""

    def __init__(self, *, answer_tool: bool, broken: Broken) -> None:
        """`broken` makes the error for an event that cannot be read."""
        self._answer_tool = answer_tool
        self._broken = broken
        self._blocks = BlockReader(answer_tool=answer_tool, broken=broken)
        self._begun = False
        self._stopped = False
        self._model: Any = None
        self._usage: Json = {}
        self.done: Done | None = None

    def take(self, event: Json) -> Delta | None:
        """The delta in one event; None when it carries none. Pings and kinds that are not known carry none."""
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._delta(self._blocks.piece(self._index(event), self._object(event, "delta")))
        if kind == "content_block_start":
            return self._delta(self._blocks.start(self._index(event), self._object(event, "content_block")))
        if kind == "content_block_stop":
            return self._delta(self._blocks.stop(self._index(event)))
        if kind == "message_start":
            message = self._object(event, "message")
            self._model = message.get("model")
            self._count(message.get("usage"))
        elif kind == "message_delta":
            return self._ending(event)
        elif kind == "message_stop":
            self.done = done(self._model, self._usage)
        return None

    def told(self, unread: Iterable[Json]) -> Usage | None:
        """What the provider has said that it used, also in events that came and are not read any more."""
        for event in unread:
            message = event.get("message")
            self._count(message.get("usage") if isinstance(message, dict) else event.get("usage"))
        return from_anthropic(self._usage)

    def end(self) -> Done:
        """What the stream ended with. Raises what `broken` makes when it stopped before the answer did."""
        if self.done is not None:
            return self.done
        if not self._stopped:
            raise self._broken("ended its stream before the answer was complete")
        return done(self._model, self._usage)

    def _ending(self, event: Json) -> Delta | None:
        self._count(event.get("usage"))
        finish = finish_reason(self._object(event, "delta").get("stop_reason"), answer_tool=self._answer_tool)
        if finish is None:
            return None
        self._stopped = True
        return self._delta({}, finish)

    def _count(self, usage: Any) -> None:
        """Counts are running totals: the last one given holds."""
        if isinstance(usage, dict):
            self._usage.update({name: value for name, value in usage.items() if value is not None})

    def _delta(self, part: Json | None, finish: str | None = None) -> Delta | None:
        """The role comes with the first real part, so that an error right after the start can still fall back."""
        if part is None:
            return None
        if not self._begun:
            self._begun = True
            part = {"role": "assistant", "content": "", **part}
        return Delta([{"index": 0, "delta": part, "finish_reason": finish}])

    def _index(self, event: Json) -> int:
        index = event.get("index", 0)
        return index if type(index) is int else self._refuse()

    def _object(self, event: Json, name: str) -> Json:
        value = event.get(name)
        return value if isinstance(value, dict) else self._refuse()

    def _refuse(self) -> NoReturn:
        raise self._broken("sent an event that cannot be read")
