"""The HTTP server's front: one raw ASGI application.

Calls to models go straight from here to their door; only management (`/admin`, `/docs`) passes through FastAPI. Who may do what is
decided on `scope["path"]`, never on a URL put together from headers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from headgate.model.errors import Forbidden, GatewayError, Internal, MethodNotAllowed
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
    no_such_path,
    read_body,
)
from headgate.server.embeddings import EmbeddingsDoor
from headgate.server.inference import InferenceDoor
from headgate.server.query import QueryDoor
from headgate.server.statements import statement_page
from headgate.server.stock import StockDoor
from headgate.server.usage import query_of, usage_report
from headgate.server.wishes import credential
from headgate.tenants.tenants import Tenants
from headgate.worker import Worker

log = logging.getLogger(__name__)

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Door = Callable[[Principal, Scope, Receive, Sender], Awaitable[None]]
Probe = Callable[[], Awaitable[dict[str, str]]]


class App:
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
        new_id: Callable[[], str],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`management` answers `/admin` and `/docs`; `metrics` renders Prometheus' text; `probe` tells each store's fault, or an
        empty text when it is well."""
        self._gateway = gateway
        self._tenants = tenants
        self._jobs = jobs
        self._limits = limits
        self._management = management
        self._metrics = metrics
        self._probe = probe
        self._new_id = new_id
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

    def stop(self) -> None:
        """The server is about to end: take no new jobs, and let go who waits for the end of one."""
        self._jobs.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Lifespan is the runner's business; only HTTP is spoken here."""
        if scope["type"] != "http":
            raise RuntimeError(f"Headgate speaks HTTP only, not {scope['type']}")
        sender = Sender(scope, send, self._new_id)
        try:
            await self._route(scope, receive, sender)
        except GatewayError as error:
            await self._refuse(error, sender)
        except Exception:
            log.exception("request %s broke", sender.id())
            await self._refuse(Internal(f"Internal error; its details are in the log under {sender.id()}."), sender)

    async def _refuse(self, error: GatewayError, send: Sender) -> None:
        """An error after the status line can only end the connection; the door has told of it inside the stream."""
        if not send.started:
            await send.error(error, self._limits)

    async def _route(self, scope: Scope, receive: Receive, send: Sender) -> None:
        path: str = scope["path"]
        found = self._doors.get(path)
        if found is not None:
            method, door = found
            _only(method, scope)
            caller = await self._tenants.authenticate(credential(scope["headers"]))
            return await door(caller, scope, receive, send)
        for prefix in ("/v1/models/", "/models/"):
            if path.startswith(prefix):
                _only("GET", scope)
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
        if path in ("/healthz", "/readyz", "/metrics"):
            _only("GET", scope)
            return await self._tell(path, send)
        if path in ("/docs", "/openapi.json"):
            return await self._manage(scope, receive, send)
        if path == "/admin" or path.startswith("/admin/"):
            caller = await self._tenants.authenticate(credential(scope["headers"]))
            if caller.role != "admin":
                raise Forbidden("Only the admin key may use /admin.")
            return await self._manage({**scope, CALLER: caller}, receive, send)
        raise no_such_path(path)

    async def _tell(self, path: str, send: Sender) -> None:
        if path == "/healthz":
            return await send.json({"status": "alive"})
        if path == "/metrics":
            text = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
            return await send.whole(200, [text], self._metrics())
        faults = {name: fault for name, fault in (await self._probe()).items() if fault}
        status = {"status": "unready", "faults": faults} if faults else {"status": "ready"}
        await send.json(status, status=503 if faults else 200)

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


def _only(method: str, scope: Scope) -> None:
    """Raises MethodNotAllowed. Who may GET may ask for the headers alone."""
    given = scope["method"]
    if given != method and not (given == "HEAD" and method == "GET"):
        raise MethodNotAllowed(
            f"{scope['path']} takes {method} only.", allow="GET, HEAD" if method == "GET" else method
        )
