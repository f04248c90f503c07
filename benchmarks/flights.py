"""`python -m benchmarks.flights`: one flight and its readers. Prints a table and writes JSON.

- One streamed answer with many readers, over HTTP, on two cores: the server has one, the provider and the readers (a process each) the
  other. All ask at once and wait for the provider; then twenty events a second go to each of them (readers.py).
- What a flight costs, in process: the same piece of work, awaited directly and by one who joins a flight for it, by turns.

Exit code 1 when a reader missed anything; a missed goal fails nothing: a busy machine misses goals.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop

from benchmarks import servers
from benchmarks.load import LoadFailed, Target, encoded
from benchmarks.plan import Figure, Goal, figure
from benchmarks.questions import chat_body
from benchmarks.readers import Heard
from headgate.coalesce.coalesce import Flight, Flights
from headgate.model.chat import Completion, Delta
from headgate.model.money import Usage

CORES = 2
LATEST = Path(__file__).with_name("results") / "flights.json"
MODEL = "sim-huge:0.001"
"""Some two hundred words."""
EVENTS_PER_S = 20
TOKENS_PER_S = EVENTS_PER_S * 280 / 205
LATENCY_MS = 3_000
"""Until the provider begins, so that all have joined by then; less than a follower's patience."""
PERIOD_MS = 1_000 / EVENTS_PER_S
WARM = 2
"""Readers of a stream that is not counted: what a server loads with its first call is nobody's share."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    rounds: int = 3
    followers: tuple[int, ...] = (100, 1_000)
    calls: int = 20_000


QUICK = Size(rounds=1, followers=(100,), calls=2_000)


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured: for each number of followers a stream a round, and µs that a flight adds to a call."""

    size: Size
    streams: dict[int, list[Heard]]
    flight_us: Figure

    @property
    def whole(self) -> bool:
        """Whether every reader got everything."""
        return all(heard.whole == heard.readers for streams in self.streams.values() for heard in streams)

    def goals(self) -> list[Goal]:
        """The figures that something was promised of."""
        goals = [_goal("a flight, over a direct call", self.flight_us.median, 10, "µs")]
        for followers, streams in self.streams.items():
            first = 10.0 if followers <= 100 else 80.0
            for name, values, bound, unit in (
                ("first byte after the leader's, p99", [one.first_p99_ms for one in streams], first, "ms"),
                ("an event after its first reader, p99", [one.behind_p99_ms for one in streams], PERIOD_MS, "ms"),
                ("server CPU a reader and event", [one.cpu_us for one in streams], 40, "µs"),
                ("memory a waiting reader", [one.reader_kb for one in streams[:1]], 30, "KB"),
            ):
                goals.append(_goal(f"{followers:,} followers: {name}", figure(values).median, bound, unit))
        return goals


def _goal(name: str, value: float, bound: float, unit: str) -> Goal:
    return Goal(name=name, figure=value, bound=bound, unit=unit, at_most=True)


@click.command()
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=LATEST, show_default=True, help="JSON file."
)
@click.option("--quick", is_flag=True, help="One stream with a hundred followers: some twenty seconds.")
def main(out: Path, *, quick: bool) -> None:
    """Measure flights and their readers."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    size = QUICK if quick else Size()
    with tempfile.TemporaryDirectory(prefix="headgate-flights-") as name:
        streams = {count: _streams(Path(name) / str(count), count, size.rounds) for count in size.followers}
    found = Findings(size=size, streams=streams, flight_us=uvloop.run(added(size)))
    click.echo(text(found))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    click.echo(f"\nwritten to {out}")
    sys.exit(0 if found.whole else 1)


def _streams(folder: Path, followers: int, rounds: int) -> list[Heard]:
    """A fresh server, and one stream a round. Raises DidNotStart and LoadFailed."""
    with _provider(folder / "simulator") as simulator:
        config = servers.headgate_config({MODEL: simulator.port}, semantic=False)
        with servers.headgate(folder / "headgate", config) as headgate:
            target = Target(
                name="Headgate",
                port=headgate.port,
                headers={"authorization": f"Bearer {servers.enrol(headgate)}", "x-headgate-cache": "no-cache"},
            )
            server, *others = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(headgate.pid, {server})
            os.sched_setaffinity(simulator.pid, others or {server})
            _heard(target, headgate.pid, WARM)
            return [_heard(target, headgate.pid, followers + 1) for _ in range(rounds)]


def _provider(folder: Path) -> Any:
    port = servers.free_port()
    pace = ("--latency-ms", str(LATENCY_MS), "--tokens-per-s", str(TOKENS_PER_S))
    command = [sys.executable, "-m", "headgate", "simulate", "--port", str(port), *pace]
    return servers.started("simulator", command, port=port, ready="/_sim/stats", folder=folder)


def _heard(target: Target, pid: int, count: int) -> Heard:
    """One stream with so many readers, who are a process of their own."""
    asked = encoded(target, chat_body("What do I do about all this?", model=MODEL, stream=True, max_tokens=4_096))
    command = [sys.executable, "-m", "benchmarks.readers", str(target.port), str(pid), str(count)]
    ended = subprocess.run(command, input=asked, capture_output=True, check=False)
    if ended.returncode:
        raise LoadFailed(ended.stderr.decode(errors="replace")[-1_000:])
    return msgspec.json.decode(ended.stdout, type=Heard)


async def added(size: Size) -> Figure:
    """µs of the loop's thread that a call takes more when it is a flight that its caller joins, reads and leaves."""
    flights = Flights()
    delta = Delta([{"index": 0, "delta": {"content": "Yes."}, "finish_reason": "stop"}])
    landed = Completion(model=MODEL, choices=[], usage=Usage(), reported={})

    async def work(publish: Callable[[Delta], None]) -> Completion:
        await asyncio.sleep(0)
        publish(delta)
        return landed

    async def directly(_: int) -> None:
        parts: list[Delta] = []
        await work(parts.append)

    async def fly(flight: Flight) -> None:
        flight.land(await work(flight.publish))

    async def joined(number: int) -> None:
        flight, _ = flights.join(number, "call", "finish", fly)
        while not flight.ended:
            await flight.news()
        flight.leave()

    async def seconds(call: Callable[[int], Awaitable[None]]) -> float:
        began = time.thread_time()
        for number in range(size.calls):
            await call(number)
        return time.thread_time() - began

    turns = [(await seconds(directly), await seconds(joined)) for _ in range(size.rounds + 1)][1:]
    return figure([1e6 * (flown - direct) / size.calls for direct, flown in turns])


def text(found: Findings) -> str:
    """The table."""
    lines = [f"medians of {found.size.rounds} streams each; {found.size.calls:,} calls", ""]
    for goal in found.goals():
        met = "ok" if goal.met else "MISS"
        lines.append(
            f"{goal.name:<58} {goal.figure:>8,.2f} {goal.unit:<3} {met:<5} at most {goal.bound:,g} {goal.unit}"
        )
    lines.append("")
    for followers, streams in found.streams.items():
        joins = figure([one.join_us for one in streams]).median
        pace = figure([(one.events - 1) / one.seconds for one in streams]).median
        last = figure([one.last_ms for one in streams]).median
        starved = max(one.starved for one in streams)
        whole = sum(one.whole == one.readers for one in streams)
        lines.append(
            f"{followers:,} followers: {pace:.1f} events a second, the last one {last:.0f} ms later at the last reader; to join costs "
            f"{joins:.0f} µs each; {whole} of {len(streams)} streams reached everyone whole; the server had to wait for its core "
            f"{starved:.0%} of the time"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
