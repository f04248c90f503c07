"""Many readers of one call over real connections, when the leader's is cut, the provider dies in mid-stream, or says nothing at all.

Server and provider are processes of their own. Whatever happens, each reader's bytes are a whole answer or say that they are not, and
the journal is what the provider has billed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from headgate.budget.proof import prove
from headgate.demo.children import Child, control, headgate
from headgate.demo.replay import Client, Outcome, body_of
from headgate.demo.trace import TraceRequest

ADMIN_KEY = "hg-admin-of-the-tests"
PATIENCE = 30.0
READERS = 50
QUESTION = "Tell me the whole story of the parcel that nobody had sent."
NANO_IN, NANO_OUT = 1_000, 2_000
LINGER_NOT = struct.pack("ii", 1, 0)
"""Closing with this resets the connection."""


class Place:
    """A provider and a server on it, with the data directory."""

    def __init__(self, folder: Path, provider: Child, server: Child, key: str) -> None:
        self.provider = provider
        self.server = server
        self.key = key
        self._journal = folder / "data" / "headgate.db"

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        reader, writer = await asyncio.open_connection("127.0.0.1", _port(self.server))
        head = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        lines = (await reader.read()).decode().splitlines()
        writer.close()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    async def until(self, name: str, value: float) -> None:
        """Wait until a metric has come to a value."""
        async with asyncio.timeout(PATIENCE):
            while await self.metric(name) < value:
                await asyncio.sleep(0.05)

    async def calls(self) -> int:
        return int((await control(f"{self.provider.url}/_sim/stats"))["calls"])

    async def billed(self) -> int:
        """What the provider bills, nano-USD."""
        stats = await control(f"{self.provider.url}/_sim/stats")
        return int(stats["prompt_tokens"] * NANO_IN + stats["completion_tokens"] * NANO_OUT)

    def written(self, *, estimated: bool) -> int:
        """What the journal of a stopped server holds of calls that were made, nano-USD: told by the provider, or estimated."""
        with closing(sqlite3.connect(self._journal)) as connection:
            assert prove(connection).holds
            (rows,) = connection.execute(
                "SELECT coalesce(sum(amount), 0) FROM journal WHERE kind IN ('charge', 'settle', 'lost') AND estimated = ?",
                (estimated,),
            )
            return int(rows[0])

    async def stop(self) -> None:
        """Stop the server: what is in flight is settled, and nothing is held any more."""
        await self.until_nothing_is_held()
        await self.server.stop()
        assert self.server.process.returncode == 0

    async def until_nothing_is_held(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.metric("headgate_reservations_open"):
                await asyncio.sleep(0.05)


def _port(child: Child) -> int:
    return int(child.url.rpartition(":")[2])


@asynccontextmanager
async def opened(folder: Path, *simulate: str, drain: str = "30s", patience: str = "5s") -> AsyncIterator[Place]:
    log = folder / "log"
    async with headgate("simulate", "--port=0", *simulate, says=b"http", log=log, environ={}) as provider:
        config = folder / "headgate.yaml"
        config.write_text(
            json.dumps(
                {
                    "providers": {"one": {"kind": "openai", "base_url": f"{provider.url}/v1", "allow_private": True}},
                    "models": {"small": {"provider": "one", "price": {"input": "1", "output": "2"}, "max_output": 400}},
                    "routes": {"auto": {"models": ["small"]}},
                    "dispatch": {"retries": 0},
                    "coalesce": {"drain": drain, "patience": patience},
                    "tenant_defaults": {"rpm": 1_000_000, "concurrency": 1_000},
                }
            )
        )
        command = ("serve", f"--config={config}", f"--data={folder / 'data'}", "--port=0")
        environ = {"HEADGATE_ADMIN_KEY": ADMIN_KEY}
        async with headgate(*command, says=b"Headgate listens", log=log, environ=environ) as server:
            made = await control(f"{server.url}/admin/keys", {"tenant": "default"}, key=ADMIN_KEY)
            yield Place(folder, provider, server, made["key"])


class Leader:
    """Who asks first, on a socket of its own."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    @classmethod
    async def asks(cls, place: Place, *, hears: bytes | None) -> Leader:
        """Send the question as a stream, and wait until so much was heard."""
        line = socket.create_connection(("127.0.0.1", _port(place.server)))
        line.setblocking(False)
        body = json.dumps(body_of(asked(stream=True))).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {place.key}\r\n"
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(line, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        heard = b""
        async with asyncio.timeout(PATIENCE):
            while hears is not None and hears not in heard:
                heard += await loop.sock_recv(line, 65_536)
        return cls(line)

    def reset(self) -> None:
        """Cut the connection, as a client does that crashes."""
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self._line.close()


class Followers:
    """Half of them read in parts, half want the whole."""

    def __init__(self, place: Place, number: int = READERS) -> None:
        self._clients = [Client(place.server.url, place.key) for _ in range(number)]
        self._tasks = [
            asyncio.create_task(client.send(asked(stream=at % 2 == 0))) for at, client in enumerate(self._clients)
        ]

    async def end(self) -> list[Outcome]:
        """What each has seen."""
        async with asyncio.timeout(PATIENCE):
            outcomes = await asyncio.gather(*self._tasks)
        for client in self._clients:
            await client.close()
        return outcomes


def asked(**more: Any) -> TraceRequest:
    return TraceRequest(t=0.0, tenant="", text=QUESTION, system="", answer="", kind="novel", **more)


def all_whole(outcomes: list[Outcome]) -> None:
    """Everybody has the same answer, to its last word: the simulator ends each with a digest of the question."""
    assert {(one.status, one.error, one.broken) for one in outcomes} == {(200, "", False)}
    (content,) = {one.content for one in outcomes}
    assert content.endswith("]")


async def test_a_leader_whose_connection_is_reset_in_mid_stream_takes_nothing_from_fifty_others(tmp_path: Path) -> None:
    async with opened(tmp_path, "--tokens-per-s=30") as place:
        leader = await Leader.asks(place, hears=b"content")
        followers = Followers(place)
        await place.until("headgate_flight_followers", READERS)
        leader.reset()
        all_whole(await followers.end())
        assert await place.calls() == 1
        await place.stop()
        assert place.written(estimated=False) == await place.billed()
        assert place.written(estimated=True) == 0


async def test_followers_that_crash_take_nothing_from_each_other_and_the_call_is_paid_once(tmp_path: Path) -> None:
    async with opened(tmp_path, "--tokens-per-s=30") as place:
        crashing = [await Leader.asks(place, hears=b"content") for _ in range(10)]
        followers = Followers(place, 10)
        await place.until("headgate_flight_followers", 19)
        for one in crashing:
            one.reset()
        all_whole(await followers.end())
        assert await place.calls() == 1
        await place.stop()
        assert place.written(estimated=False) == await place.billed()


async def test_when_the_provider_dies_in_mid_stream_everybody_is_told_and_what_had_come_is_paid(tmp_path: Path) -> None:
    async with opened(tmp_path, "--tokens-per-s=20") as place:
        leader = await Leader.asks(place, hears=b"content")
        followers = Followers(place)
        await place.until("headgate_flight_followers", READERS)
        await place.provider.stop(signal.SIGKILL)
        outcomes = await followers.end()
        streamed, whole = outcomes[::2], outcomes[1::2]
        assert {(one.status, one.error, one.broken) for one in streamed} == {(200, "stream_interrupted", True)}
        assert {(one.status, one.error) for one in whole} == {(502, "stream_interrupted")}
        leader.reset()
        await place.stop()
        assert place.written(estimated=False) == 0
        assert place.written(estimated=True) > 0


async def test_a_provider_that_never_answers_costs_followers_their_patience_and_no_more(tmp_path: Path) -> None:
    async with opened(tmp_path, drain="0s", patience="1s") as place:
        rules = [{"fault": "hang", "calls": {"from": 1, "to": 1}}]
        await control(f"{place.provider.url}/_sim/script", rules)
        leader = await Leader.asks(place, hears=None)
        async with asyncio.timeout(PATIENCE):
            while not await place.calls():
                await asyncio.sleep(0.05)
        outcomes = await Followers(place).end()
        all_whole(outcomes)
        assert Counter(one.source for one in outcomes)["live"] == 1
        assert await place.calls() == 2, "the one that hangs, and one for all others"
        leader.reset()
        await place.stop()
        assert place.written(estimated=False) == await place.billed()
        assert place.written(estimated=True) > 0, "what nobody will ever tell the price of: its prompt"


async def test_a_provider_that_is_slow_with_one_call_is_paid_for_both(tmp_path: Path) -> None:
    async with opened(tmp_path, patience="500ms") as place:
        rules = [{"fault": "slow-first-byte:4", "calls": {"from": 1, "to": 1}}]
        await control(f"{place.provider.url}/_sim/script", rules)
        leader = asyncio.create_task(Leader.asks(place, hears=b"[DONE]"))
        async with asyncio.timeout(PATIENCE):
            while not await place.calls():
                await asyncio.sleep(0.05)
        all_whole(await Followers(place).end())
        (await leader).reset()
        assert await place.calls() == 2
        await place.stop()
        assert place.written(estimated=False) == await place.billed()
        assert place.written(estimated=True) == 0
