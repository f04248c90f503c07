"""`POST /api/v1/ai/query`: one question of one user, and where its answer came from.

Invariant: an error keeps its status, its code and OpenAI's shape; the fields of an answer lie beside it, so that who reads only these
finds them.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from headgate.model.chat import ChatRequest, Json
from headgate.model.errors import BudgetExceeded, GatewayError, InvalidRequest
from headgate.model.tenancy import Principal
from headgate.pipeline import Gateway
from headgate.reply import Reply
from headgate.server import wire
from headgate.server.edge import HangUp, HttpLimits, Receive, Scope, Sender, decode_json, read_body
from headgate.server.wishes import read_wishes

LONGEST_USER = 512
"""Characters of a user's id."""
MOST_METADATA = 16
LONGEST_NAME, LONGEST_VALUE = 64, 512
"""OpenAI's bounds of `metadata`, which is passed on."""


class QueryDoor:
    """A door to `Gateway.chat`."""

    def __init__(self, gateway: Gateway, limits: HttpLimits) -> None:
        self._gateway = gateway
        self._limits = limits

    async def query(self, caller: Principal, scope: Scope, receive: Receive, send: Sender) -> None:
        """`{query, user_id, model?, metadata?}` -> `{response, source, latency_ms, model_used, confidence}`.

        The tenant is the key's; `user_id` is whose budgets count, as in `x-headgate-user`, and wins over it. `source` is `live` or `cache`.
        `confidence`, 0 to 1, is that of the cache in an answer from stock, of the router in a live one.
        """
        began = time.monotonic()
        try:
            wishes = read_wishes(scope["headers"])
            body = decode_json(await read_body(scope, receive, self._limits.body), self._limits)
            request, user = _question(body)
            wishes = msgspec.structs.replace(wishes, user=user)
            async with await self._gateway.chat(caller, request, wishes) as reply:
                send.request_id = reply.id
                with HangUp(scope):
                    await self._answer(reply, began, send)
        except GatewayError as error:
            source = "budget_limit" if isinstance(error, BudgetExceeded) else "error"
            await send.error(error, self._limits, beside=_fields("", source, began))

    async def _answer(self, reply: Reply, began: float, send: Sender) -> None:
        completion = await reply.completion()
        source = "live" if reply.source == "live" else "cache"
        fields = _fields(completion.text, source, began, model=reply.trail.model, confidence=_confidence(reply))
        tokens = self._gateway.tokens(reply.ticket.caller)
        await send.json(fields, headers=wire.reply_headers(reply, tokens, final=True))


def _question(body: Any) -> tuple[ChatRequest, str]:
    """The request that a body asks for, and whose it is. Raises InvalidRequest naming the field."""
    if not isinstance(body, dict):
        raise InvalidRequest('The body must be a JSON object such as {"query": "...", "user_id": "..."}.')
    query, user = body.get("query"), body.get("user_id")
    if not isinstance(query, str) or not query.strip():
        raise InvalidRequest("`query` must be a text that is not empty.", param="query")
    if not (isinstance(user, str) and user.strip() and len(user) <= LONGEST_USER and user.isprintable()):
        raise InvalidRequest(f"`user_id` must be 1 to {LONGEST_USER} printable characters.", param="user_id")
    asked: Json = {"model": body.get("model", "auto"), "messages": [{"role": "user", "content": query}]}
    if body.get("metadata") is not None:
        asked["metadata"] = _metadata(body["metadata"])
    return ChatRequest.parse(asked), user.strip()


def _metadata(given: Any) -> dict[str, str]:
    if (
        isinstance(given, dict)
        and len(given) <= MOST_METADATA
        and all(1 <= len(name) <= LONGEST_NAME for name in given)
        and all(isinstance(value, str) and len(value) <= LONGEST_VALUE for value in given.values())
    ):
        return given
    raise InvalidRequest(
        f"`metadata` must be an object of at most {MOST_METADATA} texts, each of at most {LONGEST_VALUE} characters under a name of at"
        f" most {LONGEST_NAME}.",
        param="metadata",
    )


def _confidence(reply: Reply) -> float | None:
    trail = reply.trail
    return trail.confidence if trail.cache == "hit" else trail.route_confidence


def _fields(
    response: str, source: str, began: float, *, model: str | None = None, confidence: float | None = None
) -> Json:
    latency = round((time.monotonic() - began) * 1000, 2)
    return {
        "response": response,
        "source": source,
        "latency_ms": latency,
        "model_used": model,
        "confidence": confidence,
    }
