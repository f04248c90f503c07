"""A real server on a real port with a simulated provider behind it, and a plain HTTP client to look at it from outside."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from uvicorn import Server

from headgate.assembly import open_engine
from headgate.config import Config
from headgate.server.serve import build_app, http_server
from headgate.simulator.counts import Counts
from headgate.simulator.simulator import Running, Simulator

ADMIN_KEY = "hg-admin-key-of-the-contract-tests"
PATIENCE = 20.0
_ABLE = {"provider": "sim", "capabilities": ["tools", "vision", "json"], "price": {"input": "0.15", "output": "0.60"}}


def settings(simulator: str) -> dict[str, Any]:
    """Two sound models, one of Anthropic's kind, and one for each way in which a provider can fail."""
    broken = ("400", "401", "429", "500", "cut", "hang", "stall", "malformed-sse", "no-usage", "huge", "truncated-json")
    return {
        "providers": {
            "sim": {"kind": "openai", "base_url": f"{simulator}/v1", "allow_private": True},
            "claude": {"kind": "anthropic", "base_url": f"{simulator}/v1", "api_key": "any", "allow_private": True},
        },
        "models": {
            "small": {**_ABLE, "model": "simulated-small"},
            "large": {**_ABLE, "model": "simulated-large"},
            "claude": {**_ABLE, "provider": "claude", "model": "simulated-claude"},
            "embedding": {**_ABLE, "model": "simulated-embedding"},
            "wide": {**_ABLE, "model": "simulated-wide", "context_window": 10_000_000},
            "european": {**_ABLE, "model": "simulated-european", "region": "eu"},
            "short": {**_ABLE, "model": "simulated-short", "context_window": 2_000, "max_output": 500},
            "plain": {**_ABLE, "model": "simulated-plain", "capabilities": []},
            **{f"broken-{fault}": {**_ABLE, "model": f"sim-{fault}"} for fault in broken},
            "slow": {**_ABLE, "model": "sim-slow-first-byte:0.2"},
            "recovers": {**_ABLE, "model": "sim-500", "fallbacks": ["small"]},
        },
        "routes": {
            "auto": {"tiers": {"low": ["small"], "medium": ["small"], "high": ["large"]}, "explore": 0},
            "long": {"models": ["short", "european"], "overflow": ["prune"]},
        },
        "dispatch": {"backoff": "1ms", "retries": 1},
        "tenant_defaults": {"rpm": 1_000_000, "concurrency": 10_000, "budget": {"hour": 1_000}},
        "telemetry": {"log": "off"},
    }


class Answer(msgspec.Struct, frozen=True):
    """A whole HTTP response; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, after a look at its shape."""
        error = self.json["error"]
        assert {"message", "type", "param", "code"} <= set(error)
        assert error["message"]
        assert b"Traceback" not in self.body
        assert self.headers["content-type"] == "application/json"
        return error


def parsed(raw: bytes) -> Answer:
    """A response off the wire."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Answer(int(lines[0].split()[1]), headers, body)


def written(path: str, body: bytes, key: str, more: bytes = b"") -> bytes:
    """A POST as it goes over the wire; `more` header lines end in CRLF each."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + more + b"\r\n" + body


def refused(answer: Answer, status: int = 400, param: str | None = None) -> dict[str, Any]:
    """The error, after a look at its status and the field it names."""
    assert answer.status == status, answer
    error = answer.error
    assert error["param"] == param, error
    assert answer.headers["x-request-id"]
    return error


class Standing(msgspec.Struct, frozen=True):
    """All that a refused request must leave as it was."""

    calls: int
    requests: int
    held: float
    entries: float


class Tenant(msgspec.Struct, frozen=True):
    """A tenant and a key of its own."""

    id: str
    name: str
    key: str


class Line:
    """One connection, kept alive. Requests are written by hand: http.client refuses to send what a hostile client would."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = ADMIN_KEY,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request and its whole answer."""
        self.send(method, path, body, key=key, headers=headers)
        with self.response(method) as response:
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = ADMIN_KEY,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send a request; a body that is not bytes is sent as JSON, no key as none."""
        sent = {"Host": "headgate", **(headers or {})}
        if key is not None:
            sent.setdefault("Authorization", f"Bearer {key}")
        if body is not None:
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        self.line.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b""))

    def response(self, method: str = "POST") -> http.client.HTTPResponse:
        """The beginning of the answer, to be read on and closed by the caller."""
        response = http.client.HTTPResponse(self.line, method=method)
        response.begin()
        return response


class House:
    """One running server."""

    def __init__(self, port: int, simulator: Running, server: Server) -> None:
        self._server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.simulator = simulator
        self._numbers = itertools.count(1)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = ADMIN_KEY,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own; a body that is not bytes is sent as JSON, no key as none."""
        with self.connection() as line:
            return line.ask(method, path, body, key=key, headers=headers)

    @contextmanager
    def connection(self) -> Iterator[Line]:
        """A connection that is kept alive."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as line:
            yield Line(line)

    def raw(self, sent: bytes, *, closes: bool = False) -> bytes:
        """What comes back for these bytes until the server closes or has answered once; `closes`: we stop sending after them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as line:
            line.sendall(sent)
            if closes:
                line.shutdown(socket.SHUT_WR)
            received = b""
            while not _whole(received):
                try:
                    piece = line.recv(65_536)
                except ConnectionResetError:
                    break
                if not piece:
                    break
                received += piece
            return received

    def tenant(self, **options: Any) -> Tenant:
        """A new tenant with a caller's key."""
        name = f"tenant-{next(self._numbers)}"
        made = self.request("POST", "/admin/tenants", {"name": name, **options})
        assert made.status == 201, made.body
        key = self.request("POST", "/admin/keys", {"tenant": made.json["id"]})
        assert key.status == 201, key.body
        return Tenant(made.json["id"], name, key.json["key"])

    def calls(self) -> Counts:
        """What the provider has seen."""
        return self.simulator.stats()

    def lines(self) -> int:
        """How many connections are open."""
        return len(self._server.server_state.connections)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.request("GET", "/metrics").body.decode().splitlines()
        rows = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows)

    def at_rest(self) -> bool:
        """Whether nothing goes on that an earlier test has begun."""
        return self.metric("headgate_jobs") == self.metric("headgate_reservations_open") == 0

    def standing(self) -> Standing:
        """What a refused request must not change: provider calls, journal rows, money held, cached answers."""
        usage = self.request("GET", "/admin/usage").json["total"]
        return Standing(
            self.calls().calls,
            usage["requests"],
            self.metric("headgate_reservations_open"),
            self.metric("headgate_cache_entries"),
        )


def eventually(check: Any) -> None:
    """Wait until `check()` is true; what happens after a hang-up happens in its own time."""
    give_up = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.005)


def _whole(received: bytes) -> bool:
    """Whether one response with a Content-Length is complete."""
    head, gap, body = received.partition(b"\r\n\r\n")
    if not gap:
        return False
    if head.startswith(b"HTTP/1.1 100"):
        return _whole(body)
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return head.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304"))


@contextmanager
def opened(data: Path, **uvicorn: Any) -> Iterator[House]:
    """Run simulator and server on a thread of their own, so that blocking clients can call them.

    `uvicorn`: what is to be different in the server's own configuration.
    """
    ready = _Ready()
    thread = threading.Thread(target=lambda: _run(_serve(data, uvicorn, ready)))
    thread.start()
    try:
        yield ready.wait()
    finally:
        ready.stop()
        thread.join()


def _run(work: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


class _Ready:
    """Tells the test when the server listens, and the server when the test is done."""

    def __init__(self) -> None:
        self._listens = threading.Event()
        self._found: list[Any] = []

    def tell(self, house: House, server: Any) -> None:
        self._found = [house, server]
        self._listens.set()

    def wait(self) -> House:
        assert self._listens.wait(PATIENCE), "the server did not start"
        house: House = self._found[0]
        return house

    def stop(self) -> None:
        if self._found:
            self._found[1].should_exit = True


async def _serve(data: Path, uvicorn: dict[str, Any], ready: _Ready) -> None:
    async with Simulator().serve() as running:
        config = Config.model_validate(settings(running.url))
        async with open_engine(config, data) as engine:
            with ExitStack() as stack:
                listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2_048))
                server = http_server(build_app(config, engine))
                vars(server.config).update(uvicorn)
                ready.tell(House(listener.getsockname()[1], running, server), server)
                await server.serve(sockets=[listener])
