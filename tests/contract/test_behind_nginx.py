"""Callers behind the nginx of deploy/nginx: a real one, before a gateway of which the test decides what it says and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from headgate.server.serve import KEEP_ALIVE
from tests.servers.nginx import DEPLOYED, Nginx
from tests.servers.server import free_port

LIMIT = 4 * 1024 * 1024
SOON = 10.0
"""Seconds after which what should have come will not come."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Says = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nx-request-id: req-1\r\ncontent-length: 2\r\n\r\n{}"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Gateway:
    """Whatever it is told to say to each connection; it keeps what it was asked."""

    def __init__(self, says: Says) -> None:
        self.asked: list[str] = []
        self.connections = 0
        self._says = says

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await self._head(reader):
                self.asked.append(head)
                await self._says(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> str:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((line for line in head.splitlines() if line.lower().startswith("content-length:")), "x:0")
        await reader.readexactly(int(length.partition(":")[2]))
        return head


async def ok(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)
    await writer.drain()


@asynccontextmanager
async def listening(gateway: Gateway) -> AsyncIterator[int]:
    port = free_port()
    server = await asyncio.start_server(gateway, "127.0.0.1", port, limit=2 * LIMIT)
    try:
        yield port
    finally:
        server.close()


@asynccontextmanager
async def before(*ports: int) -> AsyncIterator[Nginx]:
    server = await asyncio.to_thread(Nginx, *ports)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.close)


async def connect(port: int) -> Connection:
    return await asyncio.open_connection("127.0.0.1", port, limit=2 * LIMIT)


async def answer(port: int, path: str = "/v1/models", method: str = "GET", body: bytes = b"") -> tuple[str, str]:
    """Head and body of one answer, over a connection of its own."""
    reader, writer = await connect(port)
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    said = (await asyncio.wait_for(reader.read(), SOON)).decode()
    writer.close()
    told, _, rest = said.partition("\r\n\r\n")
    return told, rest


async def test_an_event_arrives_before_the_next_is_sent() -> None:
    arrived = asyncio.Event()

    async def two(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + b"9\r\ndata: 1\n\n\r\n")
        await arrived.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with listening(Gateway(two)) as port, before(port) as nginx:
        reader, writer = await connect(nginx.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        await asyncio.wait_for(reader.readuntil(b"data: 1\n\n"), SOON)
        arrived.set()
        await asyncio.wait_for(reader.readuntil(b"data: 2\n\n"), SOON)
        writer.close()


async def test_the_gateway_is_told_when_a_reader_leaves() -> None:
    left = asyncio.Event()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + b"9\r\ndata: 1\n\n\r\n")
        assert await reader.read() == b""
        left.set()

    async with listening(Gateway(one)) as port, before(port) as nginx:
        reader, writer = await connect(nginx.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        await asyncio.wait_for(reader.readuntil(b"data: 1\n\n"), SOON)
        writer.close()
        await asyncio.wait_for(left.wait(), SOON)


async def test_a_call_that_was_sent_is_not_sent_to_another_gateway() -> None:
    async def dies(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    first, second = Gateway(dies), Gateway(dies)
    async with listening(first) as one, listening(second) as two, before(one, two) as nginx:
        head, body = await answer(nginx.port, "/v1/chat/completions", "POST", b"{}")
    assert len(first.asked) + len(second.asked) == 1
    assert head.startswith("HTTP/1.1 503")
    assert json.loads(body)["error"]["code"] == "overloaded"


async def test_a_gateway_that_cannot_be_reached_is_passed_over() -> None:
    alive = Gateway(ok)
    async with listening(alive) as port, before(free_port(), port) as nginx:
        for _ in range(4):
            assert (await answer(nginx.port, "/v1/chat/completions", "POST", b"{}"))[1] == "{}"
    assert len(alive.asked) == 4


async def test_a_body_as_large_as_the_gateway_takes_passes_and_a_larger_one_is_refused_as_it_would() -> None:
    gateway = Gateway(ok)
    async with listening(gateway) as port, before(port) as nginx:
        for door in (nginx.port, nginx.operators):
            assert (await answer(door, "/v1/chat/completions", "POST", b"x" * LIMIT))[1] == "{}"
        head, body = await answer(nginx.port, "/v1/chat/completions", "POST", b"x" * (LIMIT + 1))
    assert head.startswith("HTTP/1.1 413")
    assert json.loads(body)["error"]["code"] == "request_too_large"
    assert len(gateway.asked) == 2


@pytest.mark.parametrize(
    "path",
    ["/admin", "/admin/keys", "//admin/keys", "/%61dmin/keys", "/v1/../admin/keys", "/admin%2Fkeys", "/metrics", "/docs", "/openapi.json"],
)  # fmt: skip
async def test_what_is_for_operators_is_behind_their_door_alone(path: str) -> None:
    gateway = Gateway(ok)
    async with listening(gateway) as port, before(port) as nginx:
        head, body = await answer(nginx.port, path)
        assert head.startswith("HTTP/1.1 404")
        assert json.loads(body)["error"]["code"] == "not_found"
        assert gateway.asked == []
        assert (await answer(nginx.operators, path))[1] == "{}"


async def test_callers_learn_the_gateways_request_id_and_it_is_logged_without_the_query() -> None:
    async with listening(Gateway(ok)) as port, before(port) as nginx:
        head, _ = await answer(nginx.port, "/v1/usage?from=secret")
        assert "x-request-id: req-1" in head.lower()
        line = json.loads((nginx.folder / "calls").read_text())
    assert (line["request_id"], line["path"], line["status"]) == ("req-1", "/v1/usage", 200)


async def test_connections_to_a_gateway_are_kept() -> None:
    gateway = Gateway(ok)
    async with listening(gateway) as port, before(port) as nginx:
        for _ in range(20):
            await answer(nginx.port)
    # One for each of nginx's workers at most.
    assert gateway.connections < 20
    assert not any("connection: close" in head.lower() for head in gateway.asked)


def test_nginx_lets_go_of_a_connection_before_the_gateway_does() -> None:
    """A call that is sent on a connection just closed would be lost."""
    kept = next(
        line.split()[1] for line in (DEPLOYED / "upstream.conf").read_text().splitlines() if "keepalive_timeout" in line
    )
    assert int(kept.removesuffix("s;")) < KEEP_ALIVE
