"""Running the server: one process, one event loop, a clean end.

SIGTERM and SIGINT stop the listening, let answers under way finish, settle, write the ledger and only then exit. A second signal
cuts the answers short and still settles; a third one is the system's and kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import cast

import uvicorn
import uvloop

from headgate.assembly import Engine, open_engine
from headgate.coalesce.coalesce import Flights
from headgate.config import Config
from headgate.model.ids import Ids
from headgate.server.admin import management
from headgate.server.app import App
from headgate.server.edge import HttpLimits
from headgate.server.front import Front
from headgate.server.protocol import PATIENCE, BoundedHttp

BACKLOG = 2_048
KEEP_ALIVE = 75
GRACE = 30
GC_THRESHOLDS = (20_000, 20, 50)
"""Requests make few cycles: looking for them after every 700 objects, as Python does, costs a tenth of the time."""

Announce = Callable[[str, str | None], None]
Prepared = Callable[[], AbstractAsyncContextManager[Config]]
Build = Callable[[Config, Engine], Front]


def run(prepared: Prepared, build: Build, *, data: Path, host: str, port: int, announce: Announce) -> int:
    """Serve until a signal comes; the exit code.

    `prepared` opens the configuration inside the server's loop; `build` makes the application of the engine;
    `announce(url, admin_key)` is called once the port is open. Raises OSError when the port is taken, and what `open_engine` raises.
    """
    # Read when numpy is loaded, which nobody has done yet. A lookup is a product of a matrix and a vector, done in microseconds;
    # woken threads take milliseconds to agree on who does what.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with _listen(host, port) as listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(prepared, build, data, listener, announce))
    return 0


def build_app(config: Config, engine: Engine) -> App:
    """The application of a gateway."""
    return App(
        gateway=engine.gateway,
        tenants=engine.tenants,
        jobs=engine.jobs,
        limits=_limits(config),
        management=management(engine),
        metrics=engine.metrics.render,
        probe=engine.faults,
        shared=engine.stores.shared,
        new_id=Ids(),
    )


def build_front(config: Config, engine: Engine) -> Front:
    """The application of a worker: nobody calls it but probes."""
    return Front(
        jobs=engine.jobs,
        limits=_limits(config),
        metrics=engine.metrics.render,
        probe=engine.faults,
        shared=engine.stores.shared,
        new_id=Ids(),
    )


def _limits(config: Config) -> HttpLimits:
    asked = config.server
    return HttpLimits(
        body=asked.limits.body,
        messages=asked.limits.messages,
        tools=asked.limits.tools,
        depth=asked.limits.depth,
        budget_status=asked.budget_status,
    )


def http_server(app: Front, *, slow_reader: float = PATIENCE) -> uvicorn.Server:
    """The uvicorn server as Headgate runs it; `await server.serve(sockets=[...])` until `server.should_exit` is set.

    `slow_reader`: seconds that a client may leave unread what waits for it.
    """
    return _Server(
        app,
        uvicorn.Config(
            app,
            loop="none",
            http=cast("type[asyncio.Protocol]", functools.partial(BoundedHttp, patience=slow_reader)),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
        ),
    )


async def _serve(prepared: Prepared, build: Build, data: Path, listener: socket.socket, announce: Announce) -> None:
    async with prepared() as config, open_engine(config, data) as engine:
        server = http_server(build(config, engine), slow_reader=config.server.slow_reader)
        # What has been built so far lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        host, port = listener.getsockname()[:2]
        _obey_signals(server, engine.gateway.flights)
        announce(f"http://{f'[{host}]' if ':' in host else host}:{port}", engine.admin_key)
        await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Leaves the signals alone: uvicorn would raise them again at its own end, before the ledger is closed."""

    def __init__(self, app: Front, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of who waits for what may take longer than the server lives, then of the others as they end."""
        self._app.stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _obey_signals(server: uvicorn.Server, flights: Flights) -> None:
    """For as long as the loop lives: the first signal ends the server, the second one also what its callers wait for."""
    loop = asyncio.get_running_loop()
    cutting: list[asyncio.Task[None]] = []

    def end() -> None:
        if not server.should_exit:
            server.should_exit = True
            return
        server.force_exit = True
        cutting.append(loop.create_task(flights.drain(0)))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is built, so that a taken one is said at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.listen(BACKLOG)
    return listener
