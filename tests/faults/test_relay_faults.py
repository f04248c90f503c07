"""Flights of several replicas when the server between them is killed, frozen or emptied, and when the process that leads is killed.

Whatever happens, a caller has a whole answer or is told that it is not, and nobody is refused because Redis is away.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from headgate.coalesce.redis import RedisRelay
from headgate.providers.scripted import answer
from headgate.storage.redis import Redis
from tests.replicas import Replicas
from tests.servers.redis import RedisServer
from tests.waiting import until

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("flying_child.py")
ONE = answer("One ", "two.")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def replicas(server: RedisServer, *scripts: Any, count: int = 2, **more: Any) -> AsyncIterator[Replicas]:
    opened = [Redis(server.url, timeout=0.3) for _ in range(count)]
    relays = [RedisRelay(redis, f"replica-{number}") for number, redis in enumerate(opened)]
    yield Replicas(*scripts, relays=relays, **more)
    for relay, redis in zip(relays, opened, strict=True):
        await relay.close()
        await redis.close()


@contextmanager
def leader(server: RedisServer, *, speaks: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that leads a flight, once it does."""
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    asked = [sys.executable, str(CHILD), server.url, "headgate", "yes" if speaks else "no"]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"begun\n"
            yield child
        finally:
            child.kill()


def forget(server: RedisServer) -> None:
    """The time passes for which a log is kept that nobody tells of."""
    for key in server.command("KEYS", "headgate:*flight*").splitlines():
        server.command("DEL", key)


async def test_without_redis_every_replica_answers_by_itself(server: RedisServer) -> None:
    async with replicas(server, answer("Hello.")) as place:
        server.kill()
        for _ in range(3):
            readers = [place.come(at) for at in (0, 1)]
            assert [await reader.end() for reader in readers] == ["whole"] * 2
        await place.at_rest()


async def test_when_it_is_killed_before_the_first_part_who_followed_answers_by_itself(server: RedisServer) -> None:
    gate = asyncio.Event()
    async with replicas(server, [gate, *answer("Hello.")], answer("Mine.")) as place:
        first = place.come(0)
        await until(lambda: place.calls == [1, 0])
        second = place.come(1)
        await until(lambda: len(place.wires[1].logs) == 1)
        server.kill()
        assert (await second.end(), second.text) == ("whole", "Mine.")
        gate.set()
        assert (await first.end(), first.text) == ("whole", "Hello.")
        await asyncio.to_thread(server.restart)
        await place.at_rest()


@pytest.mark.parametrize("how", ["killed", "emptied"])
async def test_when_it_forgets_in_the_middle_a_stream_is_interrupted_and_who_reads_whole_answers_itself(
    server: RedisServer, how: str
) -> None:
    gate = asyncio.Event()
    async with replicas(server, [ONE[0], gate, *ONE[1:]], answer("Mine."), answer("x"), count=3) as place:
        first = place.come(0, stream=True)
        await until(lambda: first.text == "One ")
        streamed, whole = place.come(2, stream=True), place.come(1)
        await until(lambda: streamed.text == "One " and len(place.wires[1].logs) == 1)
        if how == "killed":
            server.kill()
            await asyncio.to_thread(server.restart)
        else:
            server.command("FLUSHALL")
        assert await streamed.end() == "stream_interrupted"
        assert (await whole.end(), whole.text) == ("whole", "Mine.")
        gate.set()
        assert (await first.end(), first.text) == ("whole", "One two.")
        await place.at_rest()


async def test_a_frozen_server_keeps_nobody_from_the_rest_of_a_stream(server: RedisServer) -> None:
    gate = asyncio.Event()
    async with replicas(server, [ONE[0], gate, *ONE[1:]]) as place:
        first, second = place.come(0, stream=True), None
        await until(lambda: first.text == "One ")
        second = place.come(1, stream=True)
        await until(lambda: second.text == "One ")
        server.stop_the_world()
        gate.set()
        assert (await first.end(), first.text) == ("whole", "One two.")
        await until(lambda: place.wires[0].asked["tell"] > 3)
        server.go_on()
        assert (await second.end(), second.text) == ("whole", "One two.")
        assert place.calls == [1, 0]
        await place.at_rest()


async def test_a_server_without_memory_costs_sharing_and_nothing_else(server: RedisServer) -> None:
    async with replicas(server, answer("Hello.")) as place:
        server.command("CONFIG", "SET", "maxmemory", "1")
        readers = [place.come(at) for at in (0, 1)]
        assert [await reader.end() for reader in readers] == ["whole"] * 2
        await place.at_rest()


async def test_when_the_leading_process_is_killed_before_its_first_part_another_leads(server: RedisServer) -> None:
    async with replicas(server, answer("Mine."), count=3, follower_patience=60.0) as place:
        with leader(server, speaks=False) as child:
            readers = [place.come(at) for at in range(3)]
            await until(lambda: sum(len(wire.logs) for wire in place.wires) == 3)
            assert not any(wire.logs[0].leads for wire in place.wires)
            child.kill()
            forget(server)
        assert [await reader.end() for reader in readers] == ["whole"] * 3
        assert sum(place.calls) == 1
        await place.at_rest()


async def test_when_it_is_killed_after_its_first_part_who_has_that_is_told_and_others_go_on(
    server: RedisServer,
) -> None:
    async with replicas(server, answer("Mine."), answer("Mine."), follower_patience=60.0) as place:
        with leader(server, speaks=True) as child:
            streamed, whole = place.come(0, stream=True), place.come(1)
            await until(lambda: streamed.text == "One " and len(place.wires[1].logs) == 1)
            child.kill()
            forget(server)
        assert (await streamed.end(), streamed.text) == ("stream_interrupted", "One ")
        assert (await whole.end(), whole.text) == ("whole", "Mine.")
        assert sum(place.calls) == 1
        await place.at_rest()
