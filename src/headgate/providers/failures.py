"""What a provider's error means: from a status, headers and body of any vendor to one typed error.

The invariant: no message that leaves here holds a credential, and none is longer than a line or two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from headgate.model.chat import Json
from headgate.model.errors import (
    Malformed,
    OutOfMoney,
    Refused,
    Rejected,
    Throttled,
    Unavailable,
    UpstreamContextTooLong,
    UpstreamError,
    UpstreamTimeout,
)
from headgate.providers.quotas import HeaderOf, retry_after

MAX_WORDS = 400
OVERLOADED = 529
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "invalid_request": 400,
    "BadRequestError": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "insufficient_quota": 429,
    "permission_error": 403,
    "not_found_error": 404,
    "NotFoundError": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "timeout_error": 504,
    "overloaded_error": OVERLOADED,
    "api_error": 500,
    "server_error": 500,
}
"""The status that an error inside a stream stands for; OpenAI's, Anthropic's and vLLM's words."""

_NO_MONEY = re.compile(
    r"insufficient[_ ](quota|balance|funds|credit)|billing_(hard_limit|error)|credit balance is too low"
    r"|spend(ing)? limit|specified (\w+ )?API usage limits",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|context (window|length|size|limit)"
    r"|prompt is too long|input is too long|maximum model length|too many input tokens|prompt contains too many tokens",
    re.IGNORECASE,
)
_KEY_SHAPES = re.compile(
    r"\b(?:sk|rk|gsk|xai|hg)[-_][\w*.-]{6,}|\bAIza[\w-]{20,}|\b(Bearer|Basic)\s+[\w.~+/=*-]{6,}", re.IGNORECASE
)


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """What an error body says, whatever its shape."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str | None = None
    status: int | None = None


def complaint(body: Any) -> Complaint:
    """Read OpenAI's, Anthropic's, vLLM's, Gemini's, Ollama's and FastAPI's error shapes; empty for any other."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return Complaint()
    inner = body.get("error")
    if isinstance(inner, dict):
        return _complaint_of(inner)
    if isinstance(inner, str):
        return _complaint_of({**body, "message": body.get("message") or inner})
    return _complaint_of({**body, "message": body.get("message") or body.get("detail") or ""})


def _complaint_of(inner: Json) -> Complaint:
    message, code, param = inner.get("message"), inner.get("code"), inner.get("param")
    status = next((n for n in (inner.get("status"), inner.get("status_code"), code) if _is_status(n)), None)
    return Complaint(
        message=message if isinstance(message, str) else msgspec.json.encode(message).decode() if message else "",
        type=_word(inner.get("type")),
        code=_word(code),
        param=param if isinstance(param, str) else None,
        status=status,
    )


def _is_status(value: Any) -> bool:
    return isinstance(value, int) and 400 <= value < 600


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def inside_stream(name: str, body: Any, *, secrets: Iterable[str] = ()) -> UpstreamError:
    """The error that came as an object inside a 200 answer: its own status, code or type tells what it is."""
    said = complaint(body)
    status = said.status or STATUS_OF_TYPE.get(said.code) or STATUS_OF_TYPE.get(said.type) or 502
    return classify(name, status, said, header=lambda _: None, now=0.0, secrets=secrets)


def classify(
    name: str, status: int, said: Complaint, *, header: HeaderOf, now: float, secrets: Iterable[str] = ()
) -> UpstreamError:
    """The typed error for an answer of `status`.

    `header` looks up a header by its lower-case name, `now` is Unix time (for dates in Retry-After), and every text of
    `secrets` is cut out of the message.
    """
    words = clean(said.message, secrets)
    told = f"{name} answered {status}" + (f": {words}" if words else ".")
    wait = retry_after(header, now)
    about = f"{said.code} {said.type} {said.message}"
    if status == 402 or (400 <= status < 500 and _NO_MONEY.search(about)):
        return OutOfMoney(told)
    if status in (401, 403):
        return Refused(told)
    if status in (408, 504):
        return UpstreamTimeout(told, retry_after=wait)
    if status == 429:
        return Throttled(told, retry_after=wait)
    if status >= 500:
        return Unavailable(told, retry_after=wait)
    if status < 400:
        return Malformed(f"{name} answered {status}, which is not followed." if status >= 300 else told)
    if status in (400, 413, 422) and _TOO_LONG.search(about):
        return UpstreamContextTooLong(words or told, status=400, param=said.param or "messages")
    return Rejected(words or told, status=status, param=said.param, code=said.code or None)


def clean(message: str, secrets: Iterable[str] = ()) -> str:
    """One line of at most 400 characters, without the given secrets and without anything shaped like a key."""
    line = " ".join("".join(char if char.isprintable() else " " for char in message[: 8 * MAX_WORDS]).split())
    for secret in secrets:
        if secret:
            line = line.replace(secret, "[secret]")
    line = _KEY_SHAPES.sub("[secret]", line)
    return line if len(line) <= MAX_WORDS else f"{line[: MAX_WORDS - 1]}…"
