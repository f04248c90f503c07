"""Who does not read what was asked for: how much waits for such a client, how long, and what its fellow readers notice of it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headgate.assembly import Engine, open_engine
from headgate.config import Config
from headgate.reply import BATCH
from headgate.server.protocol import MOST_WAITING
from headgate.server.serve import build_app, http_server
from headgate.simulator.answers import LONG_PIECE
from headgate.simulator.simulator import Simulator
from tests.contract.house import written

LATENCY = 0.3
"""Seconds until the provider begins, so that all who ask meanwhile share its answer."""
BODY = {"model": "huge", "messages": [{"role": "user", "content": "Tell me all."}]}
"""Answered with eight megabytes, more than the kernel keeps for a client."""


class Service(msgspec.Struct, frozen=True):
    """A running server and one tenant of it."""

    engine: Engine
    server: Any
    port: int
    tenant: str
    key: str

    def ask(self, *, stream: bool = True) -> socket.socket:
        """Ask on a connection of its own, whose kernel keeps little for a client that does not read."""
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        line.connect(("127.0.0.1", self.port))
        line.sendall(written("/v1/chat/completions", json.dumps({**BODY, "stream": stream}).encode(), self.key))
        line.setblocking(False)
        return line

    @property
    def lines(self) -> list[Any]:
        """The connections that are open."""
        return list(self.server.server_state.connections)

    @property
    def permits(self) -> int:
        """How many calls hold one."""
        return self.engine.gateway.limits.running(self.tenant)


@asynccontextmanager
async def serving(data: Path, *, patience: float) -> AsyncIterator[Service]:
    """A server that gives its clients so many seconds to read, on the loop of the test."""
    async with Simulator(latency_s=LATENCY).serve() as simulator:
        config = Config.model_validate(
            {
                "providers": {"sim": {"kind": "openai", "base_url": f"{simulator.url}/v1", "allow_private": True}},
                "models": {"huge": {"provider": "sim", "model": "sim-huge", "price": {"input": 1, "output": 1}}},
                "cache": {"semantic": {"mode": "off"}},
                "telemetry": {"log": "off"},
            }
        )
        async with open_engine(config, data) as engine:
            tenant = await engine.tenants.create("readers")
            issued = await engine.tenants.create_key(tenant.id)
            with ExitStack() as stack:
                listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                server = http_server(build_app(config, engine), slow_reader=patience)
                server.config.timeout_keep_alive = 1
                runs = asyncio.create_task(server.serve(sockets=[listener]))
                yield Service(engine, server, listener.getsockname()[1], tenant.id, issued.key)
                server.should_exit = True
                await runs


async def until(check: Callable[[], bool]) -> None:
    """Let the server go on until `check()` is true."""
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.002)


async def whole(line: socket.socket) -> bytes:
    """All that comes, to the end of the stream."""
    loop, received = asyncio.get_running_loop(), bytearray()
    while not received.endswith(b"\r\n0\r\n\r\n"):
        part = await loop.sock_recv(line, 1 << 20)
        assert part, "the server hung up"
        received += part
    return bytes(received)


async def what_came(line: socket.socket) -> bytes:
    """All that comes before the connection ends."""
    loop, received = asyncio.get_running_loop(), bytearray()
    with suppress(ConnectionResetError):
        while part := await loop.sock_recv(line, 1 << 20):
            received += part
    return bytes(received)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_reads_nothing_is_cut_off(tmp_path: Path, *, stream: bool) -> None:
    async with serving(tmp_path, patience=0.1) as service:
        with closing(service.ask(stream=stream)) as line:
            await until(lambda: service.permits == 1)
            await until(lambda: service.permits == 0)
            await until(lambda: not service.lines)
            assert 0 < len(await what_came(line)) < 8 * 2**20
        assert service.engine.gateway.flights.followers == 0


async def test_what_waits_for_a_client_that_does_not_read_is_bounded(tmp_path: Path) -> None:
    most = [0]

    def over() -> bool:
        most.extend(one.transport.get_write_buffer_size() for one in service.lines)
        return not service.lines

    async with serving(tmp_path, patience=0.1) as service:
        with closing(service.ask()):
            await until(lambda: bool(service.lines))
            await until(over)
    piece = LONG_PIECE + 1_000
    assert MOST_WAITING <= max(most) <= MOST_WAITING + BATCH + piece


async def test_it_costs_those_who_read_the_same_answer_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, patience=1) as service:
        flights = service.engine.gateway.flights
        with closing(service.ask()), closing(service.ask()) as one, closing(service.ask()) as other:
            await until(lambda: flights.followers == 2)
            answers = await asyncio.gather(whole(one), whole(other))
            await until(lambda: service.permits == 0)
            await until(lambda: not service.lines)
        assert flights.started == 1
        assert all(len(answer) > 8 * 2**20 for answer in answers)
        assert all(b"data: [DONE]" in answer[-100:] for answer in answers)
        assert all(b"x-headgate-source: coalesced" in answer[:2_000] for answer in answers)
    [said] = [record.getMessage() for record in caplog.records if record.name == "headgate.server.protocol"]
    assert "is cut off" in said
