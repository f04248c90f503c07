"""The gateway's front: all paths of the contract.

Calls to models go straight from here to their door; only management (`/admin`, `/docs`) passes through FastAPI. Who may do what is
decided on `scope["path"]`, never on a URL put together from headers.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection

from headgate.model.errors import Forbidden
from headgate.model.tenancy import Principal
from headgate.pipeline import Gateway
from headgate.server.chat import ChatDoor
from headgate.server.edge import (
    CALLER,
    JSON_TYPE,
    HttpLimits,
    Message,
    Receive,
    Scope,
    Send,
    Sender,
    decode_json,
    read_body,
)
from headgate.server.embeddings import EmbeddingsDoor
from headgate.server.front import Front, Probe, only
from headgate.server.inference import InferenceDoor
from headgate.server.query import QueryDoor
from headgate.server.statements import statement_page
from headgate.server.stock import StockDoor
from headgate.server.usage import query_of, usage_report
from headgate.server.wishes import credential
from headgate.tenants.tenants import Tenants
from headgate.worker import Worker

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Door = Callable[[Principal, Scope, Receive, Sender], Awaitable[None]]


class App(Front):
    """All paths of the contract."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        tenants: Tenants,
        jobs: Worker,
        limits: HttpLimits,
        management: Asgi,
        metrics: Callable[[], bytes],
        probe: Probe,
        shared: Collection[str] = (),
        new_id: Callable[[], str],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`management` answers `/admin` and `/docs`; the others are as in Front."""
        super().__init__(jobs=jobs, limits=limits, metrics=metrics, probe=probe, shared=shared, new_id=new_id)
        self._gateway = gateway
        self._tenants = tenants
        self._management = management
        self._now = now
        self._chat = ChatDoor(gateway, limits)
        self._embeddings = EmbeddingsDoor(gateway, limits)
        self._stock = StockDoor(gateway, limits)
        self._query = QueryDoor(gateway, limits)
        inference = InferenceDoor(jobs, limits)
        self._doors: dict[str, tuple[str, Door]] = {
            "/chat": ("POST", self._chat.ask),
            "/api/v1/ai/query": ("POST", self._query.query),
            "/v2/inference/submit": ("POST", inference.submit),
            "/v2/inference/result": ("GET", inference.result),
            "/v2/inference/events": ("GET", inference.events),
        }
        for prefix in ("/v1", ""):
            self._doors[f"{prefix}/chat/completions"] = "POST", self._chat.completions
            self._doors[f"{prefix}/embeddings"] = "POST", self._embeddings.embeddings
            self._doors[f"{prefix}/models"] = "GET", self._embeddings.models
            self._doors[f"{prefix}/cache/invalidate"] = "POST", self._stock.invalidate
            self._doors[f"{prefix}/feedback"] = "POST", self._stock.feedback
            self._doors[f"{prefix}/usage"] = "GET", self._usage
            self._doors[f"{prefix}/statement"] = "GET", self._statement

    async def _route(self, scope: Scope, receive: Receive, send: Sender) -> None:
        path: str = scope["path"]
        found = self._doors.get(path)
        if found is not None:
            method, door = found
            only(method, scope)
            caller = await self._tenants.authenticate(credential(scope["headers"]))
            return await door(caller, scope, receive, send)
        for prefix in ("/v1/models/", "/models/"):
            if path.startswith(prefix):
                only("GET", scope)
                caller = await self._tenants.authenticate(credential(scope["headers"]))
                return await self._embeddings.model(caller, path.removeprefix(prefix), send)
        await self._operate(scope, receive, send)

    async def _usage(self, caller: Principal, scope: Scope, _: Receive, send: Sender) -> None:
        query = query_of(scope["query_string"], {"from", "to", "group_by"})
        await send.json(await usage_report(self._gateway.budget.ledger, caller.tenant, query))

    async def _statement(self, caller: Principal, scope: Scope, _: Receive, send: Sender) -> None:
        if caller.role == "caller":
            raise Forbidden("A statement is for keys of the role tenant_admin or admin.")
        query = query_of(scope["query_string"], {"month", "format"})
        month, format = query.get("month", ""), query.get("format", "html")
        page = await statement_page(
            self._gateway.budget.ledger, self._tenants, caller.tenant, month, format, now=self._now()
        )
        await send.whole(200, page.headers, page.body)

    async def _operate(self, scope: Scope, receive: Receive, send: Sender) -> None:
        """What operators and their tools ask."""
        path: str = scope["path"]
        if path in ("/docs", "/openapi.json"):
            return await self._manage(scope, receive, send)
        if path == "/admin" or path.startswith("/admin/"):
            caller = await self._tenants.authenticate(credential(scope["headers"]))
            if caller.role != "admin":
                raise Forbidden("Only the admin key may use /admin.")
            return await self._manage({**scope, CALLER: caller}, receive, send)
        await super()._route(scope, receive, send)

    async def _manage(self, scope: Scope, receive: Receive, send: Sender) -> None:
        """Let FastAPI answer, after the body has passed the same checks as every other."""
        body = await read_body(scope, receive, self._limits.body)
        if body:
            decode_json(body, self._limits)
        parts = [body]

        async def replay() -> Message:
            return {"type": "http.request", "body": parts.pop()} if parts else await receive()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", send.id().encode())]
            await send(message)

        headers = [pair for pair in scope["headers"] if pair[0] != JSON_TYPE[0]]
        await self._management({**scope, "headers": [*headers, JSON_TYPE]}, replay, named)
