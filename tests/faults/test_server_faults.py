"""The real server process when it is stopped, killed, started twice, or runs out of disk, provider or model."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import headgate as package
from headgate.assembly import read_ledger
from headgate.demo.children import Child, headgate
from headgate.demo.replay import Client, Outcome
from headgate.demo.trace import TraceRequest
from headgate.providers.egress import origin_of
from headgate.providers.http import Answer, Http
from headgate.simulator.simulator import Running, Simulator

ADMIN_KEY = "hg-admin-of-the-tests"
PRICE = {"input": "1", "output": "2"}
NANO_IN, NANO_OUT = 1_000, 2_000
PATIENCE = 15.0


class House:
    """A folder with a configuration and data, and the way to start a server on them."""

    def __init__(self, folder: Path, provider: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.config = folder / "headgate.yaml"
        self.config.write_text(
            json.dumps(
                {
                    "providers": {"one": {"kind": "openai", "base_url": f"{provider}/v1", "allow_private": True}},
                    "models": {"small": {"provider": "one", "price": PRICE, "max_output": 400}},
                    "routes": {"auto": {"models": ["small"]}},
                    "dispatch": {"retries": 0},
                    "tenant_defaults": {"rpm": 1_000_000},
                }
            )
        )

    def serve(self, **environ: str) -> AbstractAsyncContextManager[Child]:
        return headgate(
            "serve",
            f"--config={self.config}",
            f"--data={self.data}",
            "--port=0",
            says=b"Headgate listens",
            log=self.folder / "log",
            environ={"HEADGATE_ADMIN_KEY": ADMIN_KEY, **environ},
        )

    def command(self) -> list[str]:
        return [sys.executable, "-m", "headgate", "serve", f"--config={self.config}", f"--data={self.data}", "--port=0"]

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def rows(self, file: str, sql: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.data / file)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


@asynccontextmanager
async def house(folder: Path, simulator: Simulator | None = None) -> AsyncIterator[tuple[House, Running]]:
    async with (simulator or Simulator()).serve() as running:
        yield House(folder, running.url), running


@asynccontextmanager
async def http(server: Child, key: str = ADMIN_KEY) -> AsyncIterator[Http]:
    headers = {"authorization": f"Bearer {key}"}
    client = Http(origin_of(server.url, allow_private=True), name="client", headers=headers, allow_private=True)
    try:
        yield client
    finally:
        await client.close()


async def new_key(server: Child) -> str:
    async with http(server) as admin:
        answer = await admin.post("/admin/keys", json.dumps({"tenant": "default"}).encode(), timeout=PATIENCE)
        return str(json.loads(await answer.whole())["key"])


def asked(text: str, **more: Any) -> TraceRequest:
    return TraceRequest(t=0.0, tenant="", text=text, system="Be brief.", answer="", kind="novel", **more)


async def opened(client: Http, text: str) -> Answer:
    """A stream whose first part has come."""
    body = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": text}]}
    answer = await client.post("/v1/chat/completions", json.dumps(body).encode(), timeout=PATIENCE)
    assert answer.status == 200
    assert await answer.read()
    return answer


async def rest_of(answer: Answer) -> bytes:
    parts = []
    while part := await answer.read():
        parts.append(part)
    return b"".join(parts)


async def until(true: Callable[[], bool]) -> None:
    """Wait for what another process does, and fail when it does not come."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.02)


def listens(server: Child) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(server.url.rpartition(":")[2]))) == 0


async def until_served(client: Client, text: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await client.send(asked(text))).status != 200:
            await asyncio.sleep(0.05)


def billed(provider: Running) -> int:
    counts = provider.stats()
    return counts.prompt_tokens * NANO_IN + counts.completion_tokens * NANO_OUT


class Traffic:
    """Callers who ask one thing after the other, half of them for streams, until the server is gone or they are told to stop."""

    def __init__(self, server: Child, key: str, callers: int = 6) -> None:
        self.outcomes: list[Outcome] = []
        self.stopped = False
        self._clients = [Client(server.url, key) for _ in range(callers)]
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(callers)]

    async def _ask(self, number: int) -> None:
        turn = 0
        while not self.stopped:
            turn += 1
            text = f"Caller {number} asks for the {turn}th time."
            outcome = await self._clients[number].send(asked(text, stream=number % 2 == 0))
            self.outcomes.append(outcome)
            if outcome.status == 0:
                return

    async def until(self, status: int, times: int = 20) -> None:
        """Wait until the last so many calls have had this status."""
        await until(lambda: [one.status for one in self.outcomes[-times:]] == [status] * times)

    async def end(self) -> list[Outcome]:
        self.stopped = True
        await asyncio.gather(*self._tasks)
        for client in self._clients:
            await client.close()
        return self.outcomes


async def test_a_stopped_server_finishes_its_streams_and_closes_its_books(tmp_path: Path) -> None:
    async with house(tmp_path, Simulator(tokens_per_s=150)) as (place, provider), place.serve() as server:
        async with http(server, await new_key(server)) as client:
            streams = [await opened(client, f"Tell me the whole story of number {number}.") for number in range(3)]
            server.process.send_signal(signal.SIGTERM)
            ends = await asyncio.gather(*map(rest_of, streams))
            assert all(b"data: [DONE]" in end for end in ends)
            for stream in streams:
                stream.close()
        assert await server.process.wait() == 0
        assert place.rows("headgate.db", "SELECT (SELECT seq FROM folded) = max(seq) FROM journal") == [(1,)]
        assert await read_ledger(place.data / "headgate.db") == (billed(provider), 0)


async def test_a_server_stopped_in_the_middle_of_traffic_settles_everything(tmp_path: Path) -> None:
    async with house(tmp_path, Simulator(latency_s=0.01, tokens_per_s=500)) as (place, provider):
        async with place.serve() as server:
            traffic = Traffic(server, await new_key(server))
            await traffic.until(200)
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(server.process.wait(), PATIENCE) == 0
            outcomes = await traffic.end()
        assert {outcome.status for outcome in outcomes} <= {200, 503, 0}
        assert not any(outcome.broken for outcome in outcomes)
        assert sum(outcome.status == 200 for outcome in outcomes) == provider.stats().calls
        assert await read_ledger(place.data / "headgate.db") == (billed(provider), 0)


async def test_a_second_signal_does_not_wait_for_callers_and_still_settles(tmp_path: Path) -> None:
    async with house(tmp_path, Simulator(tokens_per_s=2)) as (place, _), place.serve() as server:
        async with http(server, await new_key(server)) as client:
            stream = await opened(client, "Tell me a story that takes a minute.")
            server.process.send_signal(signal.SIGTERM)
            await until(lambda: not listens(server))
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(server.process.wait(), PATIENCE) == 0
            stream.close()
        cost, lost = await read_ledger(place.data / "headgate.db")
        assert lost == 0
        assert 0 < cost


async def test_a_killed_server_comes_back_with_keys_cache_and_ledger(tmp_path: Path) -> None:
    async with house(tmp_path) as (place, provider):
        async with place.serve() as server:
            key = await new_key(server)
            client = Client(server.url, key)
            first = await client.send(asked("Where is my parcel?"))
            await until(lambda: place.rows("headgate-cache.db", "SELECT count(*) FROM entries") == [(1,)])
            await until(
                lambda: place.rows("headgate.db", "SELECT count(*) FROM journal WHERE kind = 'settle'") == [(1,)]
            )
            await server.stop(signal.SIGKILL)
            await client.close()
        assert (first.status, first.source) == (200, "live")
        async with place.serve() as server:
            client = Client(server.url, key)
            again = await client.send(asked("Where is my parcel?"))
            await client.close()
        assert (again.status, again.source, again.content) == (200, "exact", first.content)
        assert provider.stats().calls == 1
        assert await read_ledger(place.data / "headgate.db") == (billed(provider), 0)


async def test_a_second_server_on_the_same_data_is_refused_in_one_line(tmp_path: Path) -> None:
    async with house(tmp_path) as (place, _), place.serve() as server:
        second = await asyncio.create_subprocess_exec(
            *place.command(), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        _, told = await second.communicate()
        assert second.returncode == 1
        (line,) = told.decode().splitlines()
        assert line.startswith("error: ")
        assert f"is in use by process {server.process.pid}:" in line


async def test_with_a_full_disk_new_calls_are_refused_and_cached_answers_still_come(tmp_path: Path) -> None:
    async with house(tmp_path) as (place, provider), place.serve() as server:
        client = Client(server.url, await new_key(server))
        assert (await client.send(asked("Where is my parcel?"))).source == "live"
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        refused = await client.send(asked("How do I pay?"))
        assert refused.status == 503
        assert (await client.send(asked("Where is my parcel?"))).source == "exact"
        calls = provider.stats().calls
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await until_served(client, "And how do I pay by card?")
        await client.close()
        assert calls == 1
        await server.stop()
        assert server.process.returncode == 0
        assert await read_ledger(place.data / "headgate.db") == (billed(provider), 0)


async def test_a_disk_that_fills_up_under_traffic_stops_calls_and_loses_none(tmp_path: Path) -> None:
    async with (
        house(tmp_path, Simulator(latency_s=0.01, tokens_per_s=2_000)) as (place, provider),
        place.serve() as server,
    ):
        traffic = Traffic(server, await new_key(server))
        await traffic.until(200)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        await traffic.until(503)
        calls = provider.stats().calls
        seen = len(traffic.outcomes)
        await until(lambda: len(traffic.outcomes) > seen + 20)
        assert {outcome.status for outcome in traffic.outcomes[seen:]} == {503}
        assert provider.stats().calls == calls
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await traffic.until(200)
        outcomes = await traffic.end()
        await server.stop()
        assert server.process.returncode == 0
        assert {outcome.status for outcome in outcomes} == {200, 503}
        assert await read_ledger(place.data / "headgate.db") == (billed(provider), 0)


async def test_a_provider_that_is_down_at_the_start_is_found_when_it_comes(tmp_path: Path) -> None:
    async with Simulator().serve() as gone:
        port = gone.port
    place = House(tmp_path, f"http://127.0.0.1:{port}")
    async with place.serve() as server:
        client = Client(server.url, await new_key(server))
        down = await client.send(asked("Where is my parcel?"))
        assert (down.status, down.error) == (503, "all_deployments_failed")
        async with Simulator().serve(port=port):
            assert (await client.send(asked("Where is my parcel?"))).status == 200
        await client.close()


@pytest.mark.parametrize("gone", ["model.int8.onnx", "trees.npz"])
async def test_without_its_model_or_prior_the_server_starts_and_says_that_the_semantic_cache_is_off(
    tmp_path: Path, gone: str
) -> None:
    """The package is copied without the file, as a broken installation would be."""
    source = Path(next(iter(package.__path__)))
    shutil.copytree(source, tmp_path / "lib" / "headgate", ignore=shutil.ignore_patterns(gone, "__pycache__", "*.gz"))
    async with house(tmp_path) as (place, _), place.serve(PYTHONPATH=str(tmp_path / "lib")) as server:
        client = Client(server.url, await new_key(server))
        assert (await client.send(asked("Where is my parcel?"))).source == "live"
        assert (await client.send(asked("Where is my parcel?"))).source == "exact"
        assert (await client.send(asked("Where's my parcel?"))).source == "live"
        await client.close()
    (told,) = [line for line in place.log().splitlines() if "the semantic cache is off" in line]
    assert str(tmp_path / "lib") in told
