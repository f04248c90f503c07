"""What callers do with answers in stock: `POST /v1/cache/invalidate` and `POST /v1/feedback`. Each for its own tenant only."""

from __future__ import annotations

from typing import Any

from headgate.model.errors import InvalidRequest
from headgate.model.tenancy import Principal
from headgate.pipeline import Gateway
from headgate.server.edge import HttpLimits, Receive, Scope, Sender, decode_json, read_body
from headgate.server.invalidation import own_selection_of

LONGEST_ID = 256
LONGEST_REASON = 1_000
_FIELDS = ("request_id", "correct", "reason")


class StockDoor:
    """Both doors."""

    def __init__(self, gateway: Gateway, limits: HttpLimits) -> None:
        self._gateway = gateway
        self._limits = limits

    async def invalidate(self, caller: Principal, scope: Scope, receive: Receive, send: Sender) -> None:
        """`{tags?, user?, namespace?, model?, entry?, all?}` -> `{removed}`."""
        body = decode_json(await read_body(scope, receive, self._limits.body), self._limits)
        await send.json({"removed": await self._gateway.cache.invalidate(own_selection_of(caller, body))})

    async def feedback(self, caller: Principal, scope: Scope, receive: Receive, send: Sender) -> None:
        """`{request_id, correct, reason?}` -> `{request_id, withdrawn, learned}`: whether the answer was taken out of stock, and
        whether the verdict has learnt from it. Saying it again changes nothing."""
        body = decode_json(await read_body(scope, receive, self._limits.body), self._limits)
        id, correct, reason = _feedback(body)
        heard = await self._gateway.feedback(caller, id, correct=correct, reason=reason)
        await send.json({"request_id": id, "withdrawn": heard.withdrawn, "learned": heard.learned})


def _feedback(body: Any) -> tuple[str, bool, str | None]:
    if not isinstance(body, dict):
        raise InvalidRequest('The body must be a JSON object such as {"request_id": "...", "correct": false}.')
    for name in body:
        if name not in _FIELDS:
            known = ", ".join(_FIELDS)
            raise InvalidRequest(f"There is no field `{name[:80]}` here, only {known}.", param=name[:80])
    id, correct, reason = body.get("request_id"), body.get("correct"), body.get("reason")
    if not isinstance(id, str) or not 1 <= len(id) <= LONGEST_ID:
        raise InvalidRequest("`request_id` must be the `x-request-id` of an answer.", param="request_id")
    if not isinstance(correct, bool):
        raise InvalidRequest("`correct` must be true or false.", param="correct")
    if reason is not None and not (isinstance(reason, str) and len(reason) <= LONGEST_REASON):
        raise InvalidRequest(f"`reason` must be a text of at most {LONGEST_REASON} characters.", param="reason")
    return id.removeprefix("chatcmpl-"), correct, reason
