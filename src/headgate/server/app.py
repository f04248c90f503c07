"""The HTTP server's front: one raw ASGI application.

Calls to models go straight from here to their door; only management (`/admin`, `/docs`) passes through FastAPI. Who may do what is
decided on `scope["path"]`, never on a URL put together from headers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from headgate.model.errors import Forbidden, GatewayError, Internal, InvalidRequest, MethodNotAllowed, NotFound
from headgate.model.tenancy import Principal
from headgate.pipeline import Gateway
from headgate.server.chat import ChatDoor
from headgate.server.edge import HttpLimits, Receive, Scope, Send, Sender
from headgate.server.embeddings import EmbeddingsDoor
from headgate.server.usage import usage_report
from headgate.server.wishes import credential
from headgate.tenants.tenants import Tenants

log = logging.getLogger(__name__)

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Probe = Callable[[], Awaitable[dict[str, str]]]


class App:
    """All paths of the contract."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        tenants: Tenants,
        limits: HttpLimits,
        management: Asgi,
        metrics: Callable[[], bytes],
        probe: Probe,
        new_id: Callable[[], str],
    ) -> None:
        """`management` answers `/admin` and `/docs`; `metrics` renders Prometheus' text; `probe` tells each store's fault, or an
        empty text when it is well."""
        self._gateway = gateway
        self._tenants = tenants
        self._limits = limits
        self._management = management
        self._metrics = metrics
        self._probe = probe
        self._new_id = new_id
        self._chat = ChatDoor(gateway, limits)
        self._embeddings = EmbeddingsDoor(gateway, limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Lifespan is the runner's business; only HTTP is spoken here."""
        if scope["type"] != "http":
            raise RuntimeError(f"Headgate speaks HTTP only, not {scope['type']}")
        sender = Sender(scope, send)
        try:
            await self._route(scope, receive, sender)
        except GatewayError as error:
            await self._refuse(error, sender)
        except Exception:
            id = self._new_id()
            log.exception("request %s broke", id)
            await self._refuse(Internal(f"Internal error; its details are in the log under {id}."), sender)

    async def _refuse(self, error: GatewayError, send: Sender) -> None:
        """An error after the status line can only end the connection; the door has told of it inside the stream."""
        if not send.started:
            await send.error(error, self._limits, [(b"x-request-id", self._new_id().encode())])

    async def _route(self, scope: Scope, receive: Receive, send: Sender) -> None:
        path: str = scope["path"]
        if path.startswith("/v1/"):
            path = path[3:]
        if path == "/chat/completions":
            caller = await self._caller(scope, "POST")
            return await self._chat.completions(caller, scope, receive, send)
        if path == "/chat" and scope["path"] == "/chat":
            return await self._chat.ask(await self._caller(scope, "POST"), scope, receive, send)
        if path == "/embeddings":
            return await self._embeddings.embeddings(await self._caller(scope, "POST"), scope, receive, send)
        if path == "/models":
            return await self._embeddings.models(await self._caller(scope, "GET"), send)
        if path.startswith("/models/"):
            caller = await self._caller(scope, "GET")
            return await self._embeddings.model(caller, path.removeprefix("/models/"), send)
        if path == "/usage":
            caller = await self._caller(scope, "GET")
            report = await usage_report(self._gateway.budget.ledger, caller.tenant, _query(scope))
            return await send.json(report)
        await self._operate(scope, receive, send)

    async def _operate(self, scope: Scope, receive: Receive, send: Sender) -> None:
        """What operators and their tools ask."""
        path: str = scope["path"]
        if path == "/healthz":
            return await send.json({"status": "alive"})
        if path == "/readyz":
            faults = {name: fault for name, fault in (await self._probe()).items() if fault}
            status = {"status": "unready", "faults": faults} if faults else {"status": "ready"}
            return await send.json(status, status=503 if faults else 200)
        if path == "/metrics":
            text = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
            return await send.whole(200, [text], self._metrics())
        if path in ("/docs", "/openapi.json"):
            return await self._management(scope, receive, send)
        if path == "/admin" or path.startswith("/admin/"):
            caller = await self._tenants.authenticate(credential(scope["headers"]))
            if caller.role != "admin":
                raise Forbidden("Only the admin key may use /admin.")
            return await self._management(scope, receive, send)
        raise NotFound(f"There is no {path}; the paths are listed at /docs.")

    async def _caller(self, scope: Scope, method: str) -> Principal:
        if scope["method"] != method:
            raise MethodNotAllowed(f"{scope['path']} takes {method} only.")
        return await self._tenants.authenticate(credential(scope["headers"]))


def _query(scope: Scope) -> dict[str, str]:
    pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    query = dict(pairs)
    if len(query) != len(pairs):
        raise InvalidRequest("A parameter is given twice.")
    return query
