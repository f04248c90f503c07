"""Submitted requests when the server process is killed or stopped between the submission and the answer."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headgate.assembly import read_ledger
from headgate.demo.children import Child, control
from headgate.simulator.simulator import Running, Simulator
from tests.faults.test_server_faults import PATIENCE, House, billed, house, new_key, until

RESULT = "/v2/inference/result?request_id="


async def submit(server: Child, key: str, text: str, **more: Any) -> str:
    answer = await control(f"{server.url}/v2/inference/submit", {"prompt": text, **more}, key=key)
    return str(answer["request_id"])


async def result(server: Child, key: str, id: str) -> Any:
    return await control(f"{server.url}{RESULT}{id}", key=key)


async def ended(server: Child, key: str, id: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        while (found := await result(server, key, id))["status"] not in ("done", "failed"):
            await asyncio.sleep(0.02)
    return found


def states(place: House) -> dict[str, str]:
    return dict(place.rows("headgate-jobs.db", "SELECT id, state FROM jobs"))


def seen(provider: Running) -> int:
    return provider.stats().calls


async def test_what_was_accepted_is_answered_by_the_next_process_after_a_kill(tmp_path: Path) -> None:
    """One is in flight, as its provider hangs; the other waits for its place."""
    async with house(tmp_path, Simulator(tokens_per_s=2)) as (place, provider):
        bounds(place, at_work=1)
        async with place.serve() as server:
            key = await new_key(server)
            first = await submit(server, key, "Tell me a story that takes a minute.", max_tokens=100)
            await until(lambda: seen(provider) == 1)
            second = await submit(server, key, "And another one?", request_id="mine", max_tokens=1)
            assert states(place) == {first: "in_flight", second: "queued"}
            await server.stop(signal.SIGKILL)
    async with house(tmp_path, Simulator()) as (place, provider), place.serve() as server:
        answers = [await ended(server, key, id) for id in (first, second)]
        assert [answer["status"] for answer in answers] == ["done", "done"]
        assert all(answer["content"] for answer in answers)
        assert await submit(server, key, "And another one?", request_id="mine", max_tokens=1) == "mine"
        assert seen(provider) == 2
        await server.stop()
        spent, lost = await read_ledger(place.data / "headgate.db")
    assert lost > 0, "the call whose end nobody saw is in the journal"
    assert spent == lost + billed(provider)


async def test_what_had_ended_before_a_kill_is_still_there_and_is_not_asked_for_again(tmp_path: Path) -> None:
    async with house(tmp_path) as (place, provider):
        async with place.serve() as server:
            key = await new_key(server)
            id = await submit(server, key, "Where is my parcel?")
            found = await ended(server, key, id)
            await server.stop(signal.SIGKILL)
        async with place.serve() as server:
            assert await result(server, key, id) == found
        assert seen(provider) == 1


async def test_a_stopped_server_finishes_what_is_at_work_and_keeps_the_rest(tmp_path: Path) -> None:
    async with house(tmp_path, Simulator(tokens_per_s=50)) as (place, provider):
        bounds(place, at_work=1)
        async with place.serve() as server:
            key = await new_key(server)
            first = await submit(server, key, "Tell me a story.", max_tokens=60)
            await until(lambda: seen(provider) == 1)
            second = await submit(server, key, "And another one?", max_tokens=1)
            async with following(server, key, second) as events:
                await events.readuntil(b'"status":"queued"}')
                await server.stop()
                assert server.process.returncode == 0
                assert await events.read() == b"\n\n\r\n0\r\n\r\n", "the stream was ended, not cut off"
        assert states(place) == {first: "done", second: "queued"}
        async with place.serve() as server:
            assert (await ended(server, key, second))["status"] == "done"
            assert (await result(server, key, first))["content"]
        assert await read_ledger(place.data / "headgate.db") == (billed(provider), 0)


@asynccontextmanager
async def following(server: Child, key: str, id: str) -> AsyncIterator[asyncio.StreamReader]:
    """Somebody who follows it."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    path = f"/v2/inference/events?request_id={id}"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    try:
        yield reader
    finally:
        writer.close()


async def test_a_broken_file_of_jobs_stops_no_call(tmp_path: Path) -> None:
    async with house(tmp_path) as (place, _):
        place.data.mkdir()
        (place.data / "headgate-jobs.db").write_bytes(b"something else altogether" * 1_000)
        async with place.serve() as server:
            key = await new_key(server)
            answer = await control(f"{server.url}/chat", {"prompt": "Where is my parcel?"}, key=key)
            assert answer["source"] == "live"
        assert "submitted requests cannot be read" in place.log()


def bounds(place: House, **inference: Any) -> None:
    """Write the section into the place's configuration."""
    place.config.write_text(json.dumps({**json.loads(place.config.read_text()), "inference": inference}))
