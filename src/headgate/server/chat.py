"""`POST /v1/chat/completions`, and `POST /chat` for callers who want a question answered and nothing more."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from headgate.model.chat import ChatRequest, Json
from headgate.model.errors import BudgetExceeded, GatewayError, InvalidRequest
from headgate.model.money import to_usd
from headgate.model.tenancy import Principal
from headgate.pipeline import Gateway
from headgate.reply import Reply
from headgate.server import wire
from headgate.server.edge import (
    JSON_TYPE,
    SSE_HEADERS,
    HangUp,
    Header,
    HttpLimits,
    Receive,
    Scope,
    Sender,
    decode_json,
    read_body,
)
from headgate.server.pulse import Pulse
from headgate.server.wishes import read_wishes


class ChatDoor:
    """Both doors to `Gateway.chat`."""

    def __init__(self, gateway: Gateway, limits: HttpLimits) -> None:
        self._gateway = gateway
        self._limits = limits

    async def completions(self, caller: Principal, scope: Scope, receive: Receive, send: Sender) -> None:
        """OpenAI's call: JSON, or SSE when the request says `stream`."""
        wishes = read_wishes(scope["headers"])
        body = decode_json(await read_body(scope, receive, self._limits.body), self._limits)
        request = parse_chat(body, self._limits)
        async with await self._gateway.chat(caller, request, wishes) as reply:
            send.request_id = reply.id
            with _NOBODY_WAITS if reply.at_hand and not request.stream else HangUp(scope):
                await reply.opened()
                if request.stream:
                    await self._stream(reply, request, send)
                else:
                    completion = await reply.completion()
                    body = wire.completion_json(reply.id, int(reply.ticket.at), completion)
                    await send.whole(200, [JSON_TYPE, *self._headers(reply, final=True)], body)

    async def _stream(self, reply: Reply, request: ChatRequest, send: Sender) -> None:
        await send.start([*SSE_HEADERS, *self._headers(reply, final=False)])
        options = request.stream_options
        chunks = wire.sse(
            reply,
            int(reply.ticket.at),
            model=reply.trail.model or request.model,
            include_usage=bool(options is not None and options.include_usage),
        )
        with Pulse(send) as pulse:
            async for chunk in chunks:
                await send.part(chunk)
                pulse.beat()
        await send.end()

    async def ask(self, caller: Principal, scope: Scope, receive: Receive, send: Sender) -> None:
        """`{prompt, model?}` -> `{content, source, latency_ms, cost, model, confidence}`.

        The tenant is the key's; a `tenant` in the body changes nothing. `confidence` is that of a cached answer, null of a live
        one. An error keeps its status and its OpenAI shape, with `source` beside it.
        """
        began = time.monotonic()
        try:
            wishes = read_wishes(scope["headers"])
            body = decode_json(await read_body(scope, receive, self._limits.body), self._limits)
            request = _question(body)
            async with await self._gateway.chat(caller, request, wishes) as reply:
                send.request_id = reply.id
                with HangUp(scope):
                    completion = await reply.completion()
                    answer = _answer(reply, completion.text, began)
                    await send.json(answer, headers=self._headers(reply, final=True))
        except GatewayError as error:
            source = "budget_limit" if isinstance(error, BudgetExceeded) else "error"
            await send.error(error, self._limits, beside=_plain("", source, began))

    def _headers(self, reply: Reply, *, final: bool) -> list[Header]:
        return wire.reply_headers(reply, self._gateway.tokens(reply.ticket.caller), final=final)


_NOBODY_WAITS = contextlib.nullcontext()


def parse_chat(decoded: Any, limits: HttpLimits) -> ChatRequest:
    """A chat request within the limits. Raises InvalidRequest naming the field."""
    if isinstance(decoded, dict):
        for name, most in (("messages", limits.messages), ("tools", limits.tools)):
            items = decoded.get(name)
            if isinstance(items, list) and len(items) > most:
                raise InvalidRequest(f"`{name}` holds {len(items)} items; at most {most} are allowed.", param=name)
    return ChatRequest.parse(decoded)


def _question(body: Any) -> ChatRequest:
    if not isinstance(body, dict):
        raise InvalidRequest('The body must be a JSON object such as {"prompt": "..."}.')
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidRequest("`prompt` must be a text that is not empty.", param="prompt")
    return ChatRequest.parse({"model": body.get("model", "auto"), "messages": [{"role": "user", "content": prompt}]})


def _answer(reply: Reply, content: str, began: float) -> Json:
    source, trail = "live" if reply.source == "live" else "cache", reply.trail
    confidence = trail.confidence if trail.cache == "hit" else None
    found = {"cost": to_usd(reply.cost), "model": trail.model, "confidence": confidence}
    return {**_plain(content, source, began), **found}


def _plain(content: str, source: str, began: float) -> Json:
    latency = round((time.monotonic() - began) * 1000, 2)
    return {
        "content": content,
        "source": source,
        "latency_ms": latency,
        "cost": "0.00",
        "model": None,
        "confidence": None,
    }
