"""Every error a caller can see: one class is one row of the table in the docs.

    GatewayError
    ├── InvalidRequest          400  something in the request is wrong; `param` names the field
    │   ├── ContextTooLong      400  the prompt does not fit any allowed model
    │   └── Unpriced            400  no price is known, so the call cannot be held against a budget
    ├── Unauthenticated         401  no key, a wrong key, an expired key
    ├── BudgetExceeded          402  spent (`budget_exceeded`) or held by calls in flight (`budget_held`)
    ├── Forbidden               403  the key may not do this
    ├── NotFound                404  no such path or object
    │   └── UnknownModel        404  no route, deployment or provider/model of that name
    ├── MethodNotAllowed        405
    ├── Conflict                409
    ├── TooLarge                413
    ├── RateLimited             429  requests a minute, tokens a minute or concurrency
    ├── Internal                500  our fault; the details are in the log under the request id
    ├── Overloaded              503  shutting down, or a bounded queue is full
    ├── NotCached               504  `only-if-cached` and there is no cached answer
    ├── AllFailed               503  every planned deployment failed; the attempts are listed
    ├── Interrupted             502  the answer broke off after its first part was sent
    └── UpstreamError           502  one attempt failed
        ├── Rejected            4xx  the provider refused this request; another deployment would too
        │   ├── Unable          400  this provider cannot do it; another may
        │   └── UpstreamContextTooLong  400  it does not fit *this* model
        ├── Refused             502  the provider refused our credentials or our account
        │   └── OutOfMoney      502  our account there has no money left
        ├── Throttled           429  the provider's own rate limit
        ├── Unavailable         502  5xx, connection refused, reset
        ├── UpstreamTimeout     504  connect, first byte, idle or total time ran out
        └── Malformed           502  the answer cannot be read

What callers see of them is in docs/reference/errors.md, which is written from these classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class ErrorBody(msgspec.Struct, frozen=True):
    """The inner object of OpenAI's error shape."""

    message: str
    type: str
    param: str | None
    code: str | None


class GatewayError(Exception):
    """Root of all typed errors. `retryable` tells the caller's SDK whether the same call may succeed later."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str | None = "internal_error"
    retryable: bool = False
    personal: ClassVar[bool] = False
    """Whether it is about who called: others who share the call are not to suffer from it."""

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.request_id: str | None = None
        self.remembered = False
        """Whether the provider said so to an earlier call, and was not asked again."""

    @property
    def label(self) -> str:
        """One word for logs, metrics and lists of attempts: the code, or the type of an error that has none."""
        return self.code or self.type

    def body(self) -> dict[str, Any]:
        """The JSON object of this error, in OpenAI's shape."""
        inner = ErrorBody(message=self.message, type=self.type, param=self.param, code=self.code)
        return {"error": msgspec.to_builtins(inner)}


class InvalidRequest(GatewayError):
    """The request is wrong in itself; `param` names the field."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None


class ContextTooLong(InvalidRequest):
    """The prompt and its answer do not fit the context window of any model that may be used."""

    code = "context_length_exceeded"


class Unpriced(InvalidRequest):
    """The model has no known price, so its cost cannot be held against a budget."""

    code = "model_unpriced"


class Unauthenticated(GatewayError):
    """No key, an unknown key, or one that has expired or was revoked."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class BudgetExceeded(GatewayError):
    """The call's ceiling does not fit under a cap.

    `budget_exceeded`: the money is spent, retrying is useless until the window ends.
    `budget_held`: calls in flight hold the headroom; retry after `retry_after` seconds.
    """

    status = 402
    type = "insufficient_quota"
    code = "budget_exceeded"
    personal = True

    def __init__(self, message: str, *, held: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.retryable = held
        if held:
            self.code = "budget_held"


class Forbidden(GatewayError):
    """The key is valid but may not do this."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class ModelNotAllowed(Forbidden):
    """The tenant's policy does not allow this model."""

    code = "model_not_allowed"


class NotFound(GatewayError):
    """No such path or object."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class UnknownModel(NotFound):
    """No route, deployment or `provider/model` has this name."""

    code = "model_not_found"


class MethodNotAllowed(GatewayError):
    """The path exists, the method does not; `allow` lists those that do, separated by commas."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class Conflict(GatewayError):
    """The request contradicts the present state."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class TooLarge(GatewayError):
    """The body is over the limit."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class RateLimited(GatewayError):
    """Requests a minute, tokens a minute or concurrency; always with `retry_after` seconds.

    `limit` is the requests a minute that are used up (None: something else was), `reset` the seconds until all are there again.
    """

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"
    retryable = True

    def __init__(self, message: str, *, retry_after: float, limit: int | None = None, reset: float = 0.0) -> None:
        super().__init__(message, retry_after=retry_after)
        self.limit = limit
        self.reset = reset


class TokensLimited(RateLimited):
    """Tokens of a window, most often of this minute, are used up; as RateLimited, counted in tokens."""

    type = "tokens"


class Internal(GatewayError):
    """A fault of ours. The message carries only the request id; details are in the log."""

    retryable = True


class Overloaded(GatewayError):
    """The gateway is shutting down or a bounded queue is full."""

    status = 503
    code = "overloaded"
    retryable = True


class NotCached(GatewayError):
    """The caller asked for a cached answer only, and there is none (as RFC 9111 §5.2.1.7 has it)."""

    status = 504
    type = "invalid_request_error"
    code = "not_cached"


class Interrupted(GatewayError):
    """The answer broke off after its first part had been sent; what was sent stays valid but incomplete."""

    status = 502
    code = "stream_interrupted"
    retryable = True


class UpstreamError(GatewayError):
    """One attempt at one deployment failed.

    `fallback` tells dispatch whether another deployment may do better, `retryable` whether the same one may.
    `blames` tells the breaker whether this says something about the deployment's health. `sent` is true when the connection
    broke, fell silent or brought something unreadable after the request had gone: then nobody will ever tell what the provider
    made of it, beyond the `received` bytes of an answer. `jitter` (0..1): where between nothing and the longest pause all those wait
    whose one call it was, so that they come back together; None when it was nobody else's.
    """

    status = 502
    code = "upstream_error"
    fallback: ClassVar[bool] = True
    blames: ClassVar[bool] = True
    sent: bool = False
    received: int = 0
    jitter: float | None = None


class Rejected(UpstreamError):
    """The provider answered 4xx for this very request: passed on with the provider's status and words."""

    type = "invalid_request_error"
    code = "upstream_rejected"
    fallback = False
    blames = False

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param=param)
        self.status = status
        if code is not None:
            self.code = code


class Unable(Rejected):
    """This provider cannot do what is asked, such as several answers to one call; another may."""

    code = "upstream_unable"
    fallback = True


class UpstreamContextTooLong(Rejected):
    """The prompt does not fit this deployment's model; a larger one may take it."""

    code = "context_length_exceeded"
    fallback = True


class Refused(UpstreamError):
    """The provider refused our credentials: somebody has to look, and another provider may answer meanwhile."""

    code = "upstream_refused"
    blames = False


class OutOfMoney(Refused):
    """Our account at the provider has no money left, or has reached what it may spend there. Trying again is useless for long."""

    code = "upstream_out_of_money"
    blames = True


class Throttled(UpstreamError):
    """The provider's rate limit; `retry_after` seconds if it said so."""

    status = 429
    type = "requests"
    code = "upstream_throttled"
    retryable = True


class Unavailable(UpstreamError):
    """5xx, connection refused or reset before an answer."""

    code = "upstream_unavailable"
    retryable = True


class UpstreamTimeout(UpstreamError):
    """Connect, first byte, idle or total time ran out."""

    status = 504
    code = "upstream_timeout"
    retryable = True


class Malformed(UpstreamError):
    """The answer broke the protocol or cannot be read."""

    code = "upstream_malformed"
    retryable = True


class FailedAttempt(msgspec.Struct, frozen=True):
    """One row of the list inside `AllFailed`."""

    deployment: str
    error: str
    status: int


class AllFailed(GatewayError):
    """Every planned deployment failed before its first delta. 429 when all of them throttled us, 504 when all ran out of time."""

    status = 503
    code = "all_deployments_failed"
    retryable = True

    def __init__(self, attempts: tuple[FailedAttempt, ...], *, retry_after: float | None = None) -> None:
        listed = "; ".join(f"{a.deployment}: {a.error} ({a.status})" for a in attempts)
        super().__init__(f"No deployment could answer: {listed}", retry_after=retry_after)
        self.attempts = attempts
        statuses = {attempt.status for attempt in attempts}
        if statuses in ({429}, {504}):
            self.status = statuses.pop()

    def body(self) -> dict[str, Any]:
        """As every error, with the attempts beside the message."""
        body = super().body()
        body["error"]["attempts"] = msgspec.to_builtins(self.attempts)
        return body
