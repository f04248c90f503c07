"""The reference at `/docs`: describes the calls that FastAPI does not serve, so that one OpenAPI document holds all paths."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from headgate.model.chat import Json

_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_REFUSED = {"description": "An error in OpenAI's shape", "content": {"application/json": {"schema": _ERROR}}}
_CHAT = {
    "type": "object",
    "required": ["model", "messages"],
    "description": "OpenAI's chat completions request; fields not listed here are passed on.",
    "properties": {
        "model": {"type": "string", "examples": ["auto"], "description": "A route, a model, or provider/model."},
        "messages": {
            "type": "array",
            "items": {"type": "object"},
            "examples": [[{"role": "user", "content": "Hello!"}]],
        },
        "stream": {"type": "boolean"},
        "max_tokens": {"type": "integer"},
        "temperature": {"type": "number"},
        "tools": {"type": "array", "items": {"type": "object"}},
        "response_format": {"type": "object"},
    },
}
_ASK = {
    "type": "object",
    "required": ["prompt"],
    "properties": {"prompt": {"type": "string"}, "model": {"type": "string", "default": "auto"}},
}
_QUERY = {
    "type": "object",
    "required": ["query", "user_id"],
    "properties": {
        "query": {"type": "string"},
        "user_id": {"type": "string", "description": "The end user; wins over x-headgate-user."},
        "model": {"type": "string", "default": "auto"},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_EMBED = {
    "type": "object",
    "required": ["model", "input"],
    "properties": {
        "model": {"type": "string"},
        "input": {
            "oneOf": [{"type": "string"}, {"type": "array", "items": {}}],
            "description": "A text, a list of texts, or tokens as whole numbers.",
        },
    },
}
_INVALIDATE = {
    "type": "object",
    "description": "Entries that fit every field that is given, of the tags one is enough; or `all`.",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}},
        "user": {"type": "string", "description": "A key that is bound to a user reaches that user's entries only."},
        "namespace": {"type": "string"},
        "model": {"type": "string", "description": "What was asked for."},
        "entry": {"type": "string", "description": "An id, as x-headgate-entry tells it."},
        "all": {"type": "boolean"},
    },
    "additionalProperties": False,
}
_FEEDBACK = {
    "type": "object",
    "required": ["request_id", "correct"],
    "properties": {
        "request_id": {"type": "string", "description": "The x-request-id of the answer."},
        "correct": {"type": "boolean"},
        "reason": {"type": "string"},
    },
    "additionalProperties": False,
}
_SUBMIT = {
    "type": "object",
    "description": "A prompt, or a chat completions request; fields not listed here are passed on.",
    "properties": {
        "prompt": {"type": "string"},
        "messages": {"type": "array", "items": {"type": "object"}},
        "model": {"type": "string", "default": "auto"},
        "request_id": {"type": "string", "description": "An id of your own: the same under the same id is done once."},
        "coalesce_key": {"type": "string", "description": "Only requests with the same one share a call in flight."},
        "timeout": {"type": "number", "description": "Seconds from now on, also in the queue."},
    },
}
_REQUEST_ID = {"name": "request_id", "in": "query", "required": True, "schema": {"type": "string"}}
_MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
_WISHES = (
    ("x-headgate-cache", "default, no-cache, no-store, only-if-cached or exact"),
    ("x-headgate-cache-ttl", "seconds that the answer is kept"),
    (
        "x-headgate-cache-stale",
        "seconds that an exact answer may be past its time; such a one is served at once and bought anew behind it",
    ),
    (
        "x-headgate-cache-strategy",
        "standard or bypass (nothing by meaning); the stricter of this and the route's counts",
    ),
    ("x-headgate-cache-tags", "names under which the answer is kept, separated by commas"),
    ("x-headgate-namespace", "a partition of the tenant's cache"),
    ("x-headgate-user", "the end user"),
    ("x-headgate-feature", "the feature of the product"),
    ("x-headgate-min-confidence", "0 to 1; may only raise the bar"),
    ("x-headgate-max-error-rate", "0 to 1; the share of wrong answers from the cache may only be lowered"),
    ("x-headgate-coalesce", "off, exact or semantic; the strictest of this, the tenant's and the route's counts"),
    ("x-headgate-timeout", "seconds that this caller waits at most"),
    ("Idempotency-Key", "a repeat under the same key gets the first answer and is paid once"),
)
_TOLD = (
    ("x-headgate-source", "live, exact, semantic, coalesced or coalesced-semantic"),
    ("x-headgate-cache", "miss, hit, bypass or shadow"),
    (
        "x-headgate-cache-reason",
        "why it was bypassed or not served; of a hit: stale (a fresh answer is on its way) or refused (the provider's error of before)",
    ),
    ("x-headgate-confidence", "of a hit, 0.000 to 1.000"),
    ("x-headgate-entry", "the cached answer"),
    ("x-headgate-model", "the provider's name of the model"),
    ("x-headgate-deployment", "the model that answered"),
    ("x-headgate-route-reason", "why it was chosen; budget_degraded: a budget is used up"),
    ("x-headgate-route-confidence", "0.000 to 1.000"),
    ("x-headgate-task", "what the router took the question for: chat, reasoning, code or vision"),
    ("x-headgate-intent", "retrieval, chat, analysis or error"),
    ("x-headgate-complexity", "0.00, a look-up, to 1.00"),
    ("x-headgate-tier", "low, medium or high"),
    ("x-headgate-decider", "who chose the tier: rules, features, knn or classifier"),
    (
        "x-headgate-output-limit",
        "tokens that an answer could have, where a budget near its end left fewer than were asked for",
    ),
    (
        "x-headgate-context",
        "of a prompt too long for a model: larger (another answered), pruned:12 (12 old messages left out) or condensed:8 (summed up)",
    ),
    ("x-headgate-attempts", "calls to providers"),
    ("x-headgate-fallback", "true when another model had failed before"),
    ("x-headgate-cost-usd", "what providers are owed for this call; nothing for one that shares another's"),
    ("x-headgate-saved-usd", "what it would have cost more without cache, coalescing and routing"),
    ("x-headgate-overhead-ms", "time that the gateway added"),
    ("x-ratelimit-limit-requests", "a minute; beside it remaining and reset"),
    ("x-ratelimit-limit-tokens", "a minute, where they are limited; beside it remaining and reset"),
)


def describe_calls(app: FastAPI) -> None:
    """Let the application's OpenAPI document name every path of the server."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    operation["responses"]["default"] = _REFUSED
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
            document["paths"] = {**_calls(), **document["paths"]}
            document.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend its document


def _calls() -> Json:
    wishes = [
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in _WISHES
    ]
    return {
        "/v1/chat/completions": {"post": _told(_call("Answer a chat, as JSON or as a stream", "calls", _CHAT, wishes))},
        "/v1/embeddings": {"post": _told(_call("Turn texts into vectors", "calls", _EMBED, wishes))},
        "/v1/models": {"get": _call("The models that this key may use", "calls")},
        "/v1/models/{model}": {"get": _call("One of them", "calls", parameters=[_MODEL])},
        "/v1/cache/invalidate": {"post": _call("Take answers of this tenant out of stock", "cache", _INVALIDATE)},
        "/v1/feedback": {
            "post": _call("Say whether an answer was right; a wrong one is withdrawn", "cache", _FEEDBACK)
        },
        "/v1/usage": {"get": _call("What this tenant used, saved and paid", "calls", parameters=_usage_parameters())},
        "/chat": {"post": _told(_call("Answer one question", "calls", _ASK, wishes))},
        "/v2/inference/submit": {
            "post": _call("Ask now, fetch the answer later", "calls", _SUBMIT, wishes, status="202")
        },
        "/v2/inference/result": {"get": _call("What has become of it", "calls", parameters=[_REQUEST_ID])},
        "/v2/inference/events": {"get": _call("The same, as it happens (SSE)", "calls", parameters=[_REQUEST_ID])},
        "/api/v1/ai/query": {"post": _told(_call("Answer one question of one user", "calls", _QUERY, wishes))},
        "/healthz": {"get": _call("Is the process alive", "operation")},
        "/readyz": {"get": _call("Are the stores reachable", "operation")},
        "/metrics": {"get": _call("Prometheus metrics", "operation")},
    }


def _usage_parameters() -> list[Json]:
    named = (
        ("from", "unix seconds or an ISO date"),
        ("to", "as `from`; exclusive"),
        ("group_by", "of key, user, feature, route, model, source, day, separated by commas"),
    )
    return [{"name": name, "in": "query", "description": text, "schema": {"type": "string"}} for name, text in named]


def _call(
    summary: str, tag: str, body: Json | None = None, parameters: list[Json] | None = None, *, status: str = "200"
) -> Json:
    operation: Json = {
        "summary": summary,
        "tags": [tag],
        "responses": {
            status: {"description": "OK"},
            "default": _REFUSED,
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _told(operation: Json) -> Json:
    """The same, with the headers of its answer. Of a stream, what is only known at the end comes in its last comment line."""
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in _TOLD}
    operation["responses"]["200"]["headers"] = headers
    return operation
