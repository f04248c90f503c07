"""The edge: what is bytes and nothing else. Reading a bounded body, writing a response, turning errors into OpenAI's shape.

Pure ASGI, no middleware stack: a request passes here once on its way in and once on its way out.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Self

import msgspec

from headgate.model.errors import (
    BudgetExceeded,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    TooLarge,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

WHOLE = "headgate.response.whole"
"""The ASGI extension, and the message, by which a server takes a response in one piece (protocol.py)."""

STREAM = "headgate.response.stream"
"""The message by which the same server begins a stream: status line and headers, checked and written like those of a whole response."""

CALLER = "headgate.caller"
"""Where the scope of a request to the management API keeps the Principal that makes it."""

HANG_UP = "headgate.hang_up"
"""The ASGI extension by which a server tells that a client has hung up: a function that takes whom to tell, or None."""

Tell = Callable[[Callable[[], None] | None], None]

JSON_TYPE: Header = (b"content-type", b"application/json")
SSE_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may weigh: body in bytes, counts, and nesting of its JSON. `budget_status` is the status of an exhausted
    budget: 402, or 429 for clients that know nothing else."""

    body: int = 4 * 1024 * 1024
    messages: int = 512
    tools: int = 128
    depth: int = 64
    budget_status: int = 402


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is known to be over `limit` bytes, InvalidRequest when it breaks off."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise _broken_off()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return _within(body, limit)
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _broken_off()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
    return b"".join(parts)


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _broken_off() -> InvalidRequest:
    """Nobody will read this; it keeps a request of which a part came from being answered, and paid, as if it were whole."""
    return InvalidRequest("The body broke off.")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is over {limit} bytes; send less, or raise `server.limits.body`.")


def decode_json(body: bytes, limits: HttpLimits) -> Any:
    """The body as JSON. Raises InvalidRequest saying what is wrong with it."""
    if not body:
        raise InvalidRequest("The body is empty; send a JSON object.")
    try:
        decoded = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from None
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.") from None
    except RecursionError:
        raise _too_deep(limits.depth) from None
    if body.count(b"{") + body.count(b"[") > limits.depth and depth_of(decoded, limits.depth) > limits.depth:
        raise _too_deep(limits.depth)
    return decoded


def _too_deep(limit: int) -> InvalidRequest:
    return InvalidRequest(f"The body is nested deeper than {limit} levels.")


def depth_of(value: Any, enough: int) -> int:
    """How deep objects and arrays are nested; stops counting just past `enough`."""
    level, depth = [value], 0
    while depth <= enough:
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            break
        depth += 1
    return depth


def _inside(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return [None, *value.values()]
    return [None, *value] if isinstance(value, list) else ()


class Sender:
    """One response. Knows whether its status line has gone, and sends a whole response in one write where the server can.

    It is an ASGI `send` itself, for applications that want one. `request_id` is the call's once there is one.
    """

    def __init__(self, scope: Scope, send: Send, new_id: Callable[[], str]) -> None:
        self._send = send
        self._new_id = new_id
        self._at_once = WHOLE in scope.get("extensions", ())
        self.started = False
        self.request_id: str | None = None

    async def __call__(self, message: Message) -> None:
        """Pass an ASGI message on."""
        self.started = True
        await self._send(message)

    async def whole(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Send a response whose body is known."""
        length = (b"content-length", b"%d" % len(body))
        if self._at_once:
            return await self({"type": WHOLE, "status": status, "headers": (*headers, length), "body": body})
        await self({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await self({"type": "http.response.body", "body": body})

    async def json(self, value: object, *, status: int = 200, headers: Sequence[Header] = ()) -> None:
        """Send a value as JSON."""
        await self.whole(status, [JSON_TYPE, *headers], msgspec.json.encode(value))

    def id(self) -> str:
        """The request id: the call's, or one of its own for what never became a call."""
        if self.request_id is None:
            self.request_id = self._new_id()
        return self.request_id

    async def error(self, error: GatewayError, limits: HttpLimits, beside: Mapping[str, object] | None = None) -> None:
        """Send an error in OpenAI's shape, with other fields `beside` it."""
        headers = [*error_headers(error), (b"x-request-id", (error.request_id or self.id()).encode())]
        await self.json({**(beside or {}), **error.body()}, status=status_of(error, limits), headers=headers)

    async def start(self, headers: Sequence[Header]) -> None:
        """Begin a stream; the status is 200."""
        begin = STREAM if self._at_once else "http.response.start"
        await self({"type": begin, "status": 200, "headers": list(headers)})

    async def part(self, chunk: bytes) -> None:
        """Send a part of a stream."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        """End a stream."""
        await self._send({"type": "http.response.body", "body": b""})


def no_such_path(path: str) -> NotFound:
    """There is nothing here."""
    return NotFound(f"There is no {path[:200]}; the paths are listed at /docs.")


def status_of(error: GatewayError, limits: HttpLimits) -> int:
    """The status line of an error."""
    return limits.budget_status if isinstance(error, BudgetExceeded) else error.status


def error_headers(error: GatewayError) -> list[Header]:
    """`Retry-After` where waiting helps, `x-should-retry` where SDKs would guess wrong (they repeat every 409 and 429), and whether the
    provider said so to an earlier call."""
    headers: list[Header] = []
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    if error.remembered:
        headers += [(b"x-headgate-cache", b"hit"), (b"x-headgate-cache-reason", b"refused")]
    if isinstance(error, RateLimited) and error.limit is not None:
        headers.extend(rate_headers(error.limit, 0, error.reset, of=error.type))
    if error.retry_after is not None or error.status in (429, 503):
        wait = 1.0 if error.retry_after is None else error.retry_after
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(wait))))
    if isinstance(error, BudgetExceeded) or error.status == 409:
        headers.append((b"x-should-retry", b"true" if error.retryable else b"false"))
    return headers


def rate_headers(limit: int, remaining: int, reset: float, *, of: str = "requests") -> list[Header]:
    """OpenAI's rate-limit headers, of requests or of tokens; `reset` is in seconds, and written as `1.500s`."""
    kind = of.encode()
    return [
        (b"x-ratelimit-limit-" + kind, b"%d" % limit),
        (b"x-ratelimit-remaining-" + kind, b"%d" % remaining),
        (b"x-ratelimit-reset-" + kind, b"%.3fs" % reset),
    ]


class HangUp:
    """Cancels the work on a request when its client hangs up, and remembers that it was so.

    The server's own protocol tells of it (protocol.py); asking by ASGI's `receive` would take a task for every request.
    """

    def __init__(self, scope: Scope) -> None:
        self._tell: Tell | None = scope.get("extensions", {}).get(HANG_UP)
        self._worker: asyncio.Task[Any] | None = None
        self.happened = False

    def __enter__(self) -> Self:
        if self._tell is not None:
            self._worker = asyncio.current_task()
            self._tell(self._hung_up)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        if self._tell is not None:
            self._tell(None)
        if kind is not asyncio.CancelledError or not self.happened or self._worker is None:
            return False
        self._worker.uncancel()
        return True

    def _hung_up(self) -> None:
        self.happened = True
        if self._worker is not None:
            self._worker.cancel()
