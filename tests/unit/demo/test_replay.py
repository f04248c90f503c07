"""The demo's clients and processes, against a real simulator: what they see, and what they say when something breaks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headgate.demo.children import ChildError, control, headgate
from headgate.demo.replay import Client, replay, straight
from headgate.demo.trace import TraceRequest
from headgate.simulator.simulator import Simulator


def request(text: str, **more: Any) -> TraceRequest:
    return TraceRequest(
        **{"t": 0.0, "tenant": "a", "text": text, "system": "s", "answer": text, "kind": "novel", **more}
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_reads_an_answer_to_its_end(stream: bool) -> None:
    async with Simulator().serve() as provider:
        client = Client(provider.url, "")
        seen = await client.send(request("Where is it?", stream=stream), "m")
        again = await client.send(request("Where is it?"), "m")
        await client.close()
    assert (seen.status, seen.error, seen.broken) == (200, "", False)
    assert seen.content == again.content != ""


@pytest.mark.parametrize(
    ("model", "stream", "status", "broken"),
    [
        ("sim-500", False, 500, False),
        ("sim-cut", True, 0, False),
        ("sim-cut", False, 0, False),
        ("sim-refuse", False, 0, False),
    ],
)
async def test_a_client_says_what_went_wrong_and_never_raises(
    model: str, stream: bool, status: int, broken: bool
) -> None:
    async with Simulator().serve() as provider:
        client = Client(provider.url, "")
        seen = await client.send(request("Where is it?", stream=stream), model)
        await client.close()
    assert (seen.status, seen.broken) == (status, broken)
    assert seen.error


async def test_every_request_is_sent_at_its_time_and_events_happen_between() -> None:
    happened: list[str] = []
    steps: list[int] = []

    async def event() -> None:
        happened.append(f"after {len(steps)}")

    async with Simulator().serve() as provider:
        client = Client(provider.url, "")
        trace = [request("first", tenant="a"), request("second", tenant="b", t=0.5)]
        outcomes = await replay(trace, {"a": client, "b": client}, done=lambda: steps.append(1), events=[(0.25, event)])
        await client.close()
    assert [outcome.request.text for outcome in outcomes] == ["first", "second"]
    assert happened == ["after 1"]
    assert len(steps) == 2


async def test_the_straight_pass_keeps_to_its_concurrency() -> None:
    running = most = 0

    class Counting(Simulator):
        def answer(self, request: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            asyncio.get_running_loop().call_soon(done)
            return super().answer(request)

    def done() -> None:
        nonlocal running
        running -= 1

    async with Counting().serve() as provider:
        outcomes = await straight(
            [request(str(number)) for number in range(12)], provider.url, "m", concurrency=3, done=lambda: None
        )
    assert {outcome.status for outcome in outcomes} == {200}
    assert most <= 3


async def test_a_process_that_does_not_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="No such option"):
        async with headgate("simulate", "--no-such-option", says=b"listening", log=tmp_path / "log", environ={}):
            pass


async def test_a_process_lives_as_long_as_the_block(tmp_path: Path) -> None:
    async with headgate("simulate", "--port=0", says=b"simulator listening", log=tmp_path / "log", environ={}) as child:
        assert child.alive
        assert (await control(f"{child.url}/_sim/stats"))["calls"] == 0
    assert not child.alive
    await child.stop()
