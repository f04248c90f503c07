"""What the two wire formats share: the Wire protocol, rejections, and reading a JSON body.

Invariant: a body that a wire cannot read is a Rejection in that vendor's own shape, never an exception of ours.
"""

from __future__ import annotations

import re
from typing import Any, Protocol, TypeVar

import msgspec

from headgate.simulator.answers import Answer, Ask, Quirks, compose
from headgate.simulator.delivery import Delivery, Frame, head, whole

T = TypeVar("T")

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")

REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    529: "Overloaded",
}


class Rejection(Exception):
    """A call that is answered with an error; `param` and `code` appear where the vendor has them."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after


class Stamp(msgspec.Struct, frozen=True):
    """What makes one answer unique: the number of the call and the second it was made (Unix time)."""

    number: int
    created: int


class Wire(Protocol):
    """One vendor's format: reads a body and writes answers and errors."""

    def read(self, body: bytes) -> Ask:
        """Understand a request body; raises Rejection."""
        ...

    def deliver(self, ask: Ask, stamp: Stamp, quirks: Quirks) -> Delivery:
        """The sound answer to a call; raises Rejection when a schema in it is unusable."""
        ...

    def reject(self, rejection: Rejection, stamp: Stamp) -> Delivery:
        """The error in the vendor's shape."""
        ...

    def no_money(self) -> Rejection:
        """The vendor's error for an account that is empty."""
        ...

    def too_long(self, prompt_tokens: int) -> Rejection:
        """The vendor's error for a prompt that does not fit the context window."""
        ...


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a body; raises Rejection that names the field in dotted form."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        text = str(error)
        found = _AT.search(text)
        param = found["path"] if found else None
        reason = text[: found.start()] if found else text
        missing = re.search(r"missing required field `(\w+)`", reason)
        if missing:
            param = f"{param}.{missing[1]}" if param else missing[1]
        raise Rejection(400, f"Invalid value for '{param}': {reason}.", param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejection(400, f"We could not parse the JSON body of your request: {error}.") from error


def composed(ask: Ask, quirks: Quirks) -> list[Answer]:
    """The answers to a call; raises Rejection when a schema in it is unusable."""
    try:
        return compose(ask, quirks)
    except ValueError as error:
        raise Rejection(400, f"Invalid schema: {error}.") from error


def json_delivery(ask: Ask, headers: bytes, value: Any, generated: int) -> Delivery:
    """A complete JSON answer."""
    body = msgspec.json.encode(value)
    return Delivery(headers, ((body, generated),), len(body), model=ask.model, prompt_tokens=ask.prompt_tokens)


def stream_delivery(ask: Ask, headers: bytes, frames: list[Frame]) -> Delivery:
    """An answer as server-sent events."""
    return Delivery(headers, frames, model=ask.model, prompt_tokens=ask.prompt_tokens)


def error_delivery(rejection: Rejection, value: Any, *headers: str) -> Delivery:
    """An error answer with Retry-After where the rejection has one."""
    reason = REASONS[rejection.status]
    if rejection.retry_after is not None:
        headers = (*headers, f"retry-after: {rejection.retry_after:g}")
    return whole(head(rejection.status, reason, "application/json", *headers), msgspec.json.encode(value))


def json_head(request_id: str) -> bytes:
    """The first lines of a JSON answer; `request_id` is the whole header line."""
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{request_id}\r\n".encode()


def stream_head(request_id: str) -> bytes:
    """The first lines of a stream; `request_id` is the whole header line."""
    return (
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        f"cache-control: no-cache\r\n{request_id}\r\n"
    ).encode()
