"""`POST /v1/embeddings` and `GET /v1/models`."""

from __future__ import annotations

from typing import Any

from headgate.embedding import Embedded
from headgate.limits.limits import RateState
from headgate.model.chat import Json
from headgate.model.errors import InvalidRequest
from headgate.model.money import to_usd
from headgate.model.tenancy import Principal
from headgate.pipeline import Gateway
from headgate.server.edge import (
    HangUp,
    Header,
    HttpLimits,
    Receive,
    Scope,
    Sender,
    decode_json,
    rate_headers,
    read_body,
)
from headgate.server.wishes import read_wishes

MOST_INPUTS = 2_048


class EmbeddingsDoor:
    """OpenAI's embeddings call and its list of models."""

    def __init__(self, gateway: Gateway, limits: HttpLimits) -> None:
        self._gateway = gateway
        self._limits = limits

    async def embeddings(self, caller: Principal, scope: Scope, receive: Receive, send: Sender) -> None:
        """Vectors for a text or a list of texts."""
        wishes = read_wishes(scope["headers"])
        body = _checked(decode_json(await read_body(scope, receive, self._limits.body), self._limits))
        with HangUp(scope):
            embedded = await self._gateway.embed(caller, body, wishes)
            send.request_id = embedded.record.id
            await send.json(embedded.body, headers=_headers(embedded, self._gateway.tokens(caller)))

    async def models(self, caller: Principal, _scope: Scope, _receive: Receive, send: Sender) -> None:
        """All public names that this caller may use."""
        listed = [_model(name) for name in self._gateway.routing.models(caller.policy)]
        await send.json({"object": "list", "data": listed})

    async def model(self, caller: Principal, name: str, send: Sender) -> None:
        """One of them, also as `provider/model`. Raises UnknownModel or ModelNotAllowed."""
        self._gateway.routing.check(caller.policy, name)
        await send.json(_model(name))


def _headers(embedded: Embedded, tokens: RateState | None) -> list[Header]:
    record, rate = embedded.record, embedded.permit.rate
    waited = sum(attempt.seconds for attempt in record.attempts)
    return [
        (b"x-request-id", record.id.encode()),
        (b"x-headgate-source", b"live"),
        (b"x-headgate-cache", b"bypass"),
        (b"x-headgate-deployment", record.attempts[-1].deployment.encode("latin-1", "replace")),
        (b"x-headgate-attempts", b"%d" % len(record.attempts)),
        (b"x-headgate-overhead-ms", b"%.2f" % (max(0.0, record.duration - waited) * 1000)),
        (b"x-headgate-cost-usd", to_usd(record.cost).encode()),
        (b"x-headgate-saved-usd", to_usd(record.saved).encode()),
        *rate_headers(rate.limit, rate.remaining, rate.reset_seconds),
        *([] if tokens is None else rate_headers(tokens.limit, tokens.remaining, tokens.reset_seconds, of="tokens")),
    ]


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "headgate"}


def _checked(body: Any) -> Json:
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    model, given = body.get("model"), body.get("input")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("`model` must be a text that is not empty.", param="model")
    if not _embeddable(given):
        raise InvalidRequest(
            "`input` must be a text, a list of texts, or tokens as whole numbers, none of them empty.", param="input"
        )
    if isinstance(given, list) and not _tokens(given) and len(given) > MOST_INPUTS:
        raise InvalidRequest(f"`input` holds {len(given)} items; at most {MOST_INPUTS} are allowed.", param="input")
    return body


def _embeddable(given: Any) -> bool:
    if not given:
        return False
    if not isinstance(given, list):
        return isinstance(given, str)
    return _tokens(given) or all(isinstance(one, str) and one for one in given) or all(_tokens(one) for one in given)


def _tokens(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(type(one) is int and 0 <= one < 2**31 for one in given)
