"""The front of every process that listens: one raw ASGI application, which tells errors in one way and answers operators' probes.

`headgate worker` answers nothing else; `App` has the doors of the gateway as well.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection

from headgate.model.errors import GatewayError, Internal, MethodNotAllowed
from headgate.server.edge import HttpLimits, Receive, Scope, Send, Sender, no_such_path
from headgate.server.readiness import readiness
from headgate.worker import Worker

log = logging.getLogger(__name__)

Probe = Callable[[], Awaitable[dict[str, str]]]


class Front:
    """`/healthz`, `/readyz` and `/metrics`."""

    def __init__(
        self,
        *,
        jobs: Worker,
        limits: HttpLimits,
        metrics: Callable[[], bytes],
        probe: Probe,
        shared: Collection[str] = (),
        new_id: Callable[[], str],
    ) -> None:
        """`metrics` renders Prometheus' text; `probe` tells each store's fault, or an empty text when it is well; `shared` are those of them
        that all replicas share."""
        self._jobs = jobs
        self._limits = limits
        self._metrics = metrics
        self._probe = probe
        self._shared = shared
        self._new_id = new_id

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

    async def _route(self, scope: Scope, receive: Receive, send: Sender) -> None:  # noqa: ARG002 - doors have a body to read
        """Answer one request. Raises GatewayError."""
        path: str = scope["path"]
        if path not in ("/healthz", "/readyz", "/metrics"):
            raise no_such_path(path)
        only("GET", scope)
        if path == "/healthz":
            return await send.json({"status": "alive"})
        if path == "/metrics":
            text = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
            return await send.whole(200, [text], self._metrics())
        status, told = readiness(await self._probe(), self._shared)
        await send.json(told, status=status)


def only(method: str, scope: Scope) -> None:
    """Raises MethodNotAllowed. Who may GET may ask for the headers alone."""
    given = scope["method"]
    if given != method and not (given == "HEAD" and method == "GET"):
        raise MethodNotAllowed(
            f"{scope['path']} takes {method} only.", allow="GET, HEAD" if method == "GET" else method
        )
