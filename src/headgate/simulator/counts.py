"""What the simulator has received and billed.

Invariant: a token is counted at the moment it is generated, so these figures are what a real provider would put on its
invoice even when nobody received the answer.
"""

from __future__ import annotations

import msgspec


class ModelCounts(msgspec.Struct):
    """Calls and billed tokens of one model name."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Counts(msgspec.Struct):
    """Calls, streams, errors and billed tokens since the start or the last reset."""

    calls: int = 0
    streams: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    by_model: dict[str, ModelCounts] = msgspec.field(default_factory=dict)

    def called(self, model: str, *, stream: bool) -> None:
        """Count one understood call that asks for `model`."""
        self.streams += stream
        self._of(model).calls += 1

    def bill(self, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Add tokens to the invoice of `model`."""
        if not prompt_tokens and not completion_tokens:
            return
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        own = self._of(model)
        own.prompt_tokens += prompt_tokens
        own.completion_tokens += completion_tokens

    def copy(self) -> Counts:
        """A snapshot that later calls do not change."""
        return msgspec.convert(msgspec.to_builtins(self), Counts)

    def clear(self) -> None:
        """Back to zero."""
        self.calls = self.streams = self.errors = self.prompt_tokens = self.completion_tokens = 0
        self.by_model.clear()

    def _of(self, model: str) -> ModelCounts:
        own = self.by_model.get(model)
        if own is None:
            own = self.by_model[model] = ModelCounts()
        return own
