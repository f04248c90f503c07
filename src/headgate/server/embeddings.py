"""`POST /v1/embeddings` and `GET /v1/models`."""

from __future__ import annotations

from typing import Any

from headgate.model.chat import Json
from headgate.model.errors import InvalidRequest, UnknownModel
from headgate.model.money import to_usd
from headgate.model.tenancy import Principal
from headgate.pipeline import Gateway
from headgate.server.edge import HangUp, HttpLimits, Receive, Scope, Sender, decode_json, read_body
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
        async with HangUp(receive):
            embedded = await self._gateway.embed(caller, body, wishes)
            record = embedded.record
            headers = [
                (b"x-request-id", record.id.encode()),
                (b"x-headgate-source", b"live"),
                (b"x-headgate-cache", b"bypass"),
                (b"x-headgate-deployment", (record.deployment or "").encode("latin-1", "replace")),
                (b"x-headgate-cost-usd", to_usd(record.cost).encode()),
            ]
            await send.json(embedded.body, headers=headers)

    async def models(self, caller: Principal, send: Sender) -> None:
        """All public names that this caller may use."""
        listed = [_model(name) for name in self._gateway.routing.models(caller.policy)]
        await send.json({"object": "list", "data": listed})

    async def model(self, caller: Principal, name: str, send: Sender) -> None:
        """One of them. Raises UnknownModel."""
        if name not in self._gateway.routing.models(caller.policy):
            raise UnknownModel(f"There is no model `{name}`, or this key may not use it.", param="model")
        await send.json(_model(name))


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "headgate"}


def _checked(body: Any) -> Json:
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    model, given = body.get("model"), body.get("input")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("`model` must be a text that is not empty.", param="model")
    inputs = given if isinstance(given, list) else [given]
    if not inputs or not all(isinstance(one, str) and one for one in inputs):
        raise InvalidRequest("`input` must be a text or a list of texts, none of them empty.", param="input")
    if len(inputs) > MOST_INPUTS:
        raise InvalidRequest(f"`input` holds {len(inputs)} texts; at most {MOST_INPUTS} are allowed.", param="input")
    return body
