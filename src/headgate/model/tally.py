"""Tally: folds the events of one answer into its Completion, and knows at any moment what has been used.

The merge follows OpenAI's streaming rules: text is joined, tool calls are joined by index, everything else is last-wins.
"""

from __future__ import annotations

from headgate.model.chat import Completion, Delta, Done, Event, Json
from headgate.model.money import Usage

BYTES_PER_TOKEN = 4
"""A rule of thumb for English text; used only where a provider reports no usage, and then marked as estimated."""


class Tally:
    """What one attempt has produced so far."""

    def __init__(self, prompt_tokens: int, most: int | None = None) -> None:
        """`prompt_tokens` is the estimate of the prompt's size, used when the provider reports none; `most` the output tokens
        that were asked for, which no estimate exceeds."""
        self._prompt_tokens = prompt_tokens
        self._most = most
        self._pieces = 0
        self._choices: dict[int, Json] = {}
        self._extra: Json = {}
        self._done: Done | None = None

    @property
    def started(self) -> bool:
        """True once any part of an answer has come."""
        return bool(self._choices) or self._done is not None

    @property
    def finished(self) -> bool:
        """True once the answer has ended as it should."""
        return self._done is not None

    def add(self, event: Event) -> None:
        """Take in the next event."""
        if isinstance(event, Done):
            self._done = event
            return
        self._add_delta(event)

    def _add_delta(self, event: Delta) -> None:
        if event.extra:
            self._extra.update(event.extra)
        for part in event.choices:
            delta = part.get("delta")
            if delta and (delta.get("content") or delta.get("tool_calls") or delta.get("reasoning_content")):
                self._pieces += 1
            index = part.get("index", 0)
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = {"index": index, "message": {}, "finish_reason": None}
            _merge_choice(choice, part)

    def usage(self) -> Usage:
        """What the provider reported, or an estimate from what was seen."""
        if self._done is not None and self._done.usage is not None:
            return self._done.usage
        if not self.started:
            return Usage(estimated=True)
        seen = sum(-(-_size(choice["message"]) // BYTES_PER_TOKEN) for choice in self._choices.values())
        made = max(seen, self._pieces)  # a piece holds one token at least
        if self._most is not None:
            made = min(made, self._most)
        return Usage(prompt_tokens=self._prompt_tokens, completion_tokens=made, estimated=True)

    def completion(self, model: str) -> Completion:
        """The whole answer; `model` names it when the provider did not."""
        usage = self.usage()
        done = self._done
        reported = done.reported if done is not None else None
        choices = [_finished_choice(self._choices[index]) for index in sorted(self._choices)]
        return Completion(
            model=(done.model if done is not None else "") or model,
            choices=choices,
            usage=usage,
            reported=as_reported(usage) if reported is None else reported,
            extra=self._extra,
        )


def as_reported(usage: Usage) -> Json:
    """Usage in OpenAI's shape."""
    reported: Json = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cached_tokens or usage.cache_write_tokens:
        reported["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens:
        reported["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return reported


def _merge_choice(choice: Json, part: Json) -> None:
    for name, value in part.items():
        if name == "delta":
            if value:
                _merge_message(choice["message"], value)
        elif name == "logprobs":
            _merge_logprobs(choice, value)
        elif value is not None or name not in choice:
            choice[name] = value


def _merge_message(message: Json, delta: Json) -> None:
    for name, value in delta.items():
        old = message.get(name)
        if name == "tool_calls":
            _merge_calls(message.setdefault(name, []), value or [])
        elif name == "function_call" and isinstance(old, dict) and isinstance(value, dict):
            _merge_function(old, value)
        elif isinstance(old, str) and isinstance(value, str) and name != "role":
            message[name] = old + value
        elif isinstance(old, list) and isinstance(value, list):
            message[name] = old + value
        elif value is not None or name not in message:
            message[name] = dict(value) if isinstance(value, dict) else value


def _merge_calls(calls: list[Json], parts: list[Json]) -> None:
    """Tool calls grow by index; a part without one starts a new call."""
    for part in parts:
        index = part.get("index", len(calls))
        call = next((known for known in calls if known["index"] == index), None)
        if call is None:
            calls.append({**part, "index": index, "function": dict(part.get("function") or {})})
            continue
        for name, value in part.items():
            if name == "function" and value:
                _merge_function(call["function"], value)
            elif value is not None and name != "index":
                call[name] = value


def _merge_function(function: Json, part: Json) -> None:
    """The name comes once, the arguments in pieces."""
    for name, value in part.items():
        if name == "arguments" and isinstance(value, str):
            function[name] = (function.get(name) or "") + value
        elif value is not None:
            function[name] = value


def _merge_logprobs(choice: Json, value: Json | None) -> None:
    old = choice.get("logprobs")
    if isinstance(old, dict) and isinstance(value, dict):
        merged = {name: (old.get(name) or []) + (value.get(name) or []) for name in {*old, *value}}
        choice["logprobs"] = {name: items or None for name, items in merged.items()}
    elif value is not None or "logprobs" not in choice:
        choice["logprobs"] = value


def _finished_choice(choice: Json) -> Json:
    """The choice as a whole answer has it: a role, content (if only null), tool calls without index, in order."""
    message = choice["message"]
    shaped: Json = {"role": "assistant", "content": None, **message}
    if "tool_calls" in message:
        ordered = sorted(message["tool_calls"], key=lambda call: int(call["index"]))
        shaped["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in ordered]
    return {**choice, "message": shaped}


def _size(message: Json) -> int:
    """UTF-8 bytes of everything the model wrote into a message."""
    size = 0
    for name, value in message.items():
        if isinstance(value, str) and name != "role":
            size += len(value.encode())
        elif name == "tool_calls":
            for call in value:
                function = call.get("function") or {}
                size += sum(len(text.encode()) for text in function.values() if isinstance(text, str))
    return size
