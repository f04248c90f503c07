"""`python -m benchmarks.replicas`: what it costs to share, and what one Redis carries.

The same gateway four times in one run: alone (SQLite), with Redis, with PostgreSQL, and with both; they take turns, on the same two cores as the
stores, the provider and the load.

added p50    with one connection, over the gateway alone, for a question that is new and for one that is in stock. Goal: at most 1.0 ms with Redis.
round trips  to Redis for each of them, by the gateway's own count, those that nobody waits for included, as a mean over a burst
ready        a new replica in an empty folder beside shared stores, from the start of its process to `/readyz`. Goal: 3 s.
demo mix     requests a second that two replicas on one Redis and one PostgreSQL answer of the traffic that `headgate demo` replays, again and again
             with other words around it, so that each round has the mix of the first. Goal: 850.

Exit code 1 when an answer was not a 200, or the journal differs from what the provider counted.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import msgspec

from benchmarks import servers, shared_stores
from benchmarks.load import Burst, Target, wrk
from benchmarks.plan import MANY, figure
from benchmarks.questions import Supply
from benchmarks.servers import Running
from headgate.demo.replay import body_of
from headgate.demo.trace import load

CORES = 2
ADDED_MS, READY_S, MIX_RATE = 1.0, 3.0, 850.0
LAPS = 40
_TRIPS = re.compile(rb"^headgate_redis_round_trips_total(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


class Row(msgspec.Struct, kw_only=True):
    """One way to keep things: bursts of new questions and of one in stock, with one connection and with many."""

    new: list[Burst] = msgspec.field(default_factory=list)
    stock: list[Burst] = msgspec.field(default_factory=list)
    many: list[Burst] = msgspec.field(default_factory=list)
    trips: dict[str, float] = msgspec.field(default_factory=dict)
    ready_s: float = 0.0


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--seconds", type=click.IntRange(min=1), default=3, show_default=True, help="Of each burst.")
def main(rounds: int, seconds: int) -> None:
    """Measure what sharing costs; JSON on standard output, a table on standard error."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory(prefix="headgate-replicas-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        simulator = stack.enter_context(servers.simulator(folder / "simulator"))
        redis = stack.enter_context(shared_stores.redis())
        postgres = stack.enter_context(shared_stores.postgres())
        plain = servers.headgate_config({servers.MODEL: simulator.port}, semantic=False)
        ways = {
            "alone": plain,
            "Redis": {**plain, "redis": {**redis, "prefix": "a"}},
            "PostgreSQL": {**plain, "storage": postgres},
            "both": {**plain, "storage": postgres, "redis": {**redis, "prefix": "b"}},
        }
        shared_stores.migrate(ways["both"], folder)
        rows = _ways(folder, ways, rounds, seconds)
        mix, refused = _mix(folder, simulator, redis, postgres, seconds)
    _report(rows, mix, refused)
    sys.exit(
        1 if refused or any(burst.refused or burst.broken for row in rows.values() for burst in _bursts(row)) else 0
    )


def _ways(folder: Path, ways: Mapping[str, Mapping[str, Any]], rounds: int, seconds: int) -> dict[str, Row]:
    """Each way in its turn, a new replica in an empty folder each time."""
    rows = {name: Row() for name in ways}
    supply = Supply(folder)
    for turn in range(rounds):
        for name, config in ways.items():
            with servers.headgate(folder / f"{name}-{turn}", config) as server:
                row, headers = rows[name], {"authorization": f"Bearer {servers.enrol(server, f'{name}-{turn}')}"}
                row.ready_s = max(row.ready_s, server.ready_s)
                target = Target(name=name, port=server.port, headers=headers)
                wrk(target, supply.fixed, connections=1, seconds=1, first=0)
                for what, bodies, found in (("new", supply.numbered, row.new), ("stock", supply.fixed, row.stock)):
                    before = _trips(server)
                    found.append(wrk(target, bodies, connections=1, seconds=seconds, first=supply.numbers()))
                    row.trips[what] = (_trips(server) - before) / found[-1].requests
                row.many.append(wrk(target, supply.numbered, connections=MANY, seconds=seconds, first=supply.numbers()))
    return rows


def _mix(
    folder: Path, simulator: Running, redis: Mapping[str, Any], postgres: Mapping[str, Any], seconds: int
) -> tuple[list[float], int]:
    """Requests a second of two replicas together in each of three bursts, and how many were refused."""
    bodies = folder / "mix.txt"
    bodies.write_bytes(b"\n".join(_laps()) + b"\n")
    config = servers.headgate_config({servers.MODEL: simulator.port}, semantic=True)
    config |= {"storage": dict(postgres), "redis": {**redis, "prefix": "mix"}}
    with contextlib.ExitStack() as stack:
        replicas = [stack.enter_context(servers.headgate(folder / f"mix-{number}", config)) for number in range(2)]
        headers = {"authorization": f"Bearer {servers.enrol(replicas[0], 'mix')}"}
        targets = [Target(name="mix", port=one.port, headers=headers) for one in replicas]
        together = [_together(targets, bodies, seconds, turn) for turn in range(3)]
    return [sum(burst.rate for burst in bursts) for bursts in together], sum(
        one.refused for some in together for one in some
    )


def _together(targets: list[Target], bodies: Path, seconds: int, turn: int) -> list[Burst]:
    """A burst at each of the replicas at the same time, through another part of the mix each."""
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(wrk, target, bodies, connections=MANY // 2, seconds=seconds, first=(2 * turn + place) * 6_000)
            for place, target in enumerate(targets)
        ]
        return [job.result() for job in jobs]


def _laps() -> Iterator[bytes]:
    """The trace again and again, each time before another system prompt, so that nothing of an earlier lap is in stock."""
    trace = load()
    for lap in range(LAPS):
        for request in trace:
            body = body_of(
                msgspec.structs.replace(request, stream=False, system=f"{request.system} ({lap})"), servers.MODEL
            )
            yield msgspec.json.encode(body)


def _trips(server: Running) -> float:
    text = servers.fetch(server.port, "/metrics", headers={"authorization": f"Bearer {servers.ADMIN_KEY}"})[1]
    return sum(map(float, _TRIPS.findall(text)))


def _bursts(row: Row) -> list[Burst]:
    return [*row.new, *row.stock, *row.many]


def _p50(bursts: list[Burst]) -> float:
    return figure([burst.p50_us / 1000 for burst in bursts]).median


def _report(rows: Mapping[str, Row], mix: list[float], refused: int) -> None:
    alone = rows["alone"]
    report: dict[str, Any] = {"demo_mix_per_s": [round(rate) for rate in mix], "demo_mix_refused": refused, "ways": {}}
    click.echo(
        f"{'':<12}{'new p50':>9}{'added':>8}{'stock p50':>11}{'added':>8}{'trips new/stock':>18}{'32 conn./s':>12}{'ready s':>9}",
        err=True,
    )
    for name, row in rows.items():
        one = {
            "new_p50_ms": round(_p50(row.new), 3),
            "new_added_ms": round(_p50(row.new) - _p50(alone.new), 3),
            "stock_p50_ms": round(_p50(row.stock), 3),
            "stock_added_ms": round(_p50(row.stock) - _p50(alone.stock), 3),
            "round_trips_new": round(row.trips["new"], 2),
            "round_trips_stock": round(row.trips["stock"], 2),
            "new_per_s": round(figure([burst.rate for burst in row.many]).median),
            "ready_s": round(row.ready_s, 2),
        }
        report["ways"][name] = one
        click.echo(
            f"{name:<12}{one['new_p50_ms']:>9}{one['new_added_ms']:>8}{one['stock_p50_ms']:>11}{one['stock_added_ms']:>8}"
            f"{one['round_trips_new']:>11}/{one['round_trips_stock']:<6}{one['new_per_s']:>12}{one['ready_s']:>9}",
            err=True,
        )
    redis, slowest = report["ways"]["Redis"], max(row.ready_s for row in rows.values())
    goals = (
        ("added p50 with Redis, new", redis["new_added_ms"], ADDED_MS, redis["new_added_ms"] <= ADDED_MS),
        ("added p50 with Redis, in stock", redis["stock_added_ms"], ADDED_MS, redis["stock_added_ms"] <= ADDED_MS),
        ("a cold replica is ready, s", round(slowest, 2), READY_S, slowest <= READY_S),
        ("demo mix, requests/s", round(figure(mix).median), MIX_RATE, figure(mix).median >= MIX_RATE),
    )
    for name, found, goal, met in goals:
        click.echo(f"{'ok  ' if met else 'MISS'}  {name}: {found} (goal {goal:g})", err=True)
    click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())


if __name__ == "__main__":
    main()
