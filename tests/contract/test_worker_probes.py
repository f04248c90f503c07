"""What a worker answers over HTTP: probes, and nothing else."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headgate.assembly import open_engine
from headgate.config import Config
from headgate.server.serve import build_front, http_server
from headgate.simulator.simulator import Simulator


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[str]:
    """The address of one that runs."""
    async with Simulator().serve() as running:
        config = Config().answered_at(running.url)
        async with open_engine(config, tmp_path) as engine:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                server = http_server(build_front(config, engine))
                serving = asyncio.create_task(server.serve(sockets=[listener]))
                yield f"127.0.0.1:{listener.getsockname()[1]}"
                server.should_exit = True
                await serving
                assert engine.jobs.stopping


async def asked(where: str, method: str, path: str) -> tuple[int, bytes, bytes]:
    """The status of an answer, its head and its body."""
    host, _, port = where.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), head, body


async def test_it_tells_that_it_lives_and_is_ready_and_what_it_counts(worker: str) -> None:
    async with asyncio.timeout(10):
        while (await asked(worker, "GET", "/readyz"))[0] != 200:
            await asyncio.sleep(0.01)
    status, _, body = await asked(worker, "GET", "/healthz")
    assert (status, json.loads(body)) == (200, {"status": "alive"})
    status, _, body = await asked(worker, "GET", "/metrics")
    assert (status, b"headgate_jobs" in body) == (200, True)
    assert (await asked(worker, "HEAD", "/healthz"))[::2] == (200, b"")


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v2/inference/result?request_id=a", "/admin/tenants", "/docs", "/openapi.json", "/"]
)
async def test_it_has_no_other_path(worker: str, path: str) -> None:
    status, _, body = await asked(worker, "GET", path)
    told: Any = json.loads(body)
    assert (status, told["error"]["code"]) == (404, "not_found")


async def test_a_probe_is_only_read(worker: str) -> None:
    status, head, _ = await asked(worker, "POST", "/healthz")
    assert status == 405
    assert b"allow: GET, HEAD" in head
