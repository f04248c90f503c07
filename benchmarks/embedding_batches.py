"""`python -m benchmarks.embedding_batches`: 64 callers who ask for embeddings all the time, with and without going together.

The gateway runs in this process, with everything on that an embeddings call passes (limits, reservation, durable ledger, price, metrics);
the simulated provider is a process of its own, whose count of calls is the truth. Each caller asks for one text, and for the next when it
has its vector. Once the provider answers as fast as it can, once after 50 ms, as real ones do. Both ways take turns in each round, so
that a disturbed machine disturbs both; the ratio is formed within each round.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop

from benchmarks import servers
from benchmarks.plan import Figure, figure
from headgate.assembly import Engine, open_engine
from headgate.config import Config
from headgate.model.tenancy import Policy, Principal

CALLERS = 64
CALLER = Principal(tenant="acme", key="key-1", policy=Policy(rpm=100_000_000, concurrency=10_000))
MODELS = {"at once": "simulated-embedding", "after 50 ms": "sim-slow-first-byte:0.05"}
WAYS = {"one by one": 1, "together": 32}
DIMENSIONS = 256


class Burst(msgspec.Struct, frozen=True, kw_only=True):
    """What one burst showed: embeddings a second, calls that the provider saw for each, latencies in ms, µs of this process's CPU for
    each."""

    rate: float
    upstream: float
    p50: float
    p99: float
    cpu: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One way with one provider, over all rounds."""

    rate: Figure
    upstream: Figure
    p50: Figure
    p99: Figure
    cpu: Figure


@click.command()
@click.option("--seconds", default=2.0, show_default=True, help="Length of each burst.")
@click.option("--rounds", default=3, show_default=True, help="Bursts of each kind.")
def main(seconds: float, rounds: int) -> None:
    """Measure embeddings that go together beside embeddings that do not."""
    with tempfile.TemporaryDirectory(prefix="headgate-embeddings-") as name:
        folder = Path(name)
        with servers.simulator(folder) as upstream:
            found = {
                provider: [uvloop.run(one_round(folder, upstream.port, model, seconds)) for _ in range(rounds)]
                for provider, model in MODELS.items()
            }
    for line in table(found):
        click.echo(line)


async def one_round(folder: Path, port: int, model: str, seconds: float) -> dict[str, Burst]:
    """A burst of each way."""
    found = {}
    for way, items in WAYS.items():
        data = Path(tempfile.mkdtemp(dir=folder))
        async with open_engine(configured(port, model, items), data) as engine:
            await burst(engine, port, seconds / 4)
            found[way] = await burst(engine, port, seconds)
    return found


async def burst(engine: Engine, port: int, seconds: float) -> Burst:
    """All callers for so long."""
    numbers, times = itertools.count(), []
    before, cpu, began = await calls(port), time.process_time(), time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() - began < seconds:
            text = f"The question with the number {next(numbers)}, and what it is about."
            asked = time.perf_counter()
            await engine.gateway.embed(CALLER, {"model": "model", "input": text, "dimensions": DIMENSIONS})
            times.append(time.perf_counter() - asked)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    passed, used = time.perf_counter() - began, time.process_time() - cpu
    ranked = statistics.quantiles(times, n=100)
    return Burst(
        rate=len(times) / passed,
        upstream=(await calls(port) - before) / len(times),
        p50=ranked[49] * 1e3,
        p99=ranked[98] * 1e3,
        cpu=used / len(times) * 1e6,
    )


async def calls(port: int) -> int:
    """How many calls the provider has seen."""
    status, body = await asyncio.to_thread(servers.fetch, port, "/_sim/stats")
    if status != 200:
        raise servers.DidNotStart(f"the simulator answered {status}")
    seen: int = msgspec.json.decode(body)["calls"]
    return seen


def configured(port: int, model: str, items: int) -> Config:
    """One model at the simulator, with so many inputs in a call."""
    provider: dict[str, Any] = {"kind": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "allow_private": True}
    return Config.model_validate(
        {
            "providers": {"simulated": {**provider, "embeddings": {"items": items}}},
            "models": {"model": {"provider": "simulated", "model": model, "price": {"input": "0.02", "output": "0"}}},
            "cache": {"semantic": {"mode": "off"}},
            "tenant_defaults": {"budget": {"hour": "1000000.00"}},
            "telemetry": {"log": "off"},
        }
    )


def table(found: dict[str, list[dict[str, Burst]]]) -> list[str]:
    """The report."""
    lines = [f"{CALLERS} callers, one text each", ""]
    lines.append(
        f"{'provider answers':18}{'':12}{'embeddings/s':>14}{'calls each':>12}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}"
    )
    for provider, rounds in found.items():
        for way in WAYS:
            row = summed([one[way] for one in rounds])
            lines.append(
                f"{provider:18}{way:12}{row.rate.median:14,.0f}{row.upstream.median:12.3f}{row.p50.median:9.1f}"
                f"{row.p99.median:9.1f}{row.cpu.median:9.0f}"
            )
        one, other = WAYS
        faster = figure([turn[other].rate / turn[one].rate for turn in rounds])
        fewer = figure([turn[one].upstream / turn[other].upstream for turn in rounds])
        cheaper = figure([turn[one].cpu / turn[other].cpu for turn in rounds])
        lines.append(
            f"{'':18}together: {faster.median:.2f} ({faster.least:.2f}-{faster.most:.2f}) times the embeddings/s, "
            f"1/{fewer.median:.0f} of the calls, 1/{cheaper.median:.2f} of the CPU"
        )
    return lines


def summed(bursts: list[Burst]) -> Row:
    """The figures of several bursts."""
    return Row(**{name: figure([getattr(one, name) for one in bursts]) for name in Burst.__struct_fields__})


if __name__ == "__main__":
    main()
