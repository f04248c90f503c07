"""What is asked of the cache, and the model as it is played: it says what the file says that a request deserves."""

from __future__ import annotations

from headgate.model.chat import ChatRequest, Completion
from headgate.model.money import Usage

MODEL = "evaluation"
"""What requests ask for where the file names no model: one for all, so that they may be compared."""


def plain_request(text: str) -> ChatRequest:
    """A request that asks nothing but this."""
    return ChatRequest.parse({"model": MODEL, "messages": [{"role": "user", "content": text}]})


def completion(text: str) -> Completion:
    """A whole answer that says this."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Completion(model=MODEL, choices=[choice], usage=Usage(), reported={})
