"""What callers see of providers that fail: errors and latency, with and without faults.

    python -m benchmarks.faults [--calls 4000] [--at-once 40]

Two simulated providers stand behind an engine, each behind its own socket. First all calls go well; then 4 % of what reaches a
provider fails, in as many ways as there are. Half of the calls stream. A stream that breaks off after its first content cannot be
made good by anybody, so streams meet the ways of failing before it; whole answers meet all of them.

Goals: at most 0.1 % of calls end in an error, and the 99th percentile of latency is at most twice that without faults.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import uvloop

from headgate.assembly import Engine, open_engine
from headgate.budget.budget import UsageQuery
from headgate.config import Config
from headgate.model.chat import ChatRequest
from headgate.model.errors import GatewayError
from headgate.model.tenancy import Policy, Principal
from headgate.simulator.script import Match, Rule
from headgate.simulator.simulator import Running, Simulator

SHARE: Final = 0.04
MOST_ERRORS: Final = 0.001
MOST_SLOWER: Final = 2.0
LATENCY, PACE = 0.1, 400.0
"""Seconds until a provider's answer begins, and tokens that it makes a second."""
ANYWAY: Final = (
    "429:1",
    "500",
    "502",
    "503",
    "529",
    "refuse",
    "hang",
    "cut:0",
    "error-event:0",
    "malformed-sse:0",
    "gzip",
)
WHOLE: Final = (*ANYWAY, "cut", "stall", "truncated-json")
PRICE: Final = {"input": "1", "output": "2"}
CALLER: Final = Principal(tenant="acme", policy=Policy(rpm=10**9, concurrency=10**6))
LENGTHS: Final = (20, 200)


class Part(msgspec.Struct):
    """What became of one part's calls. Seconds."""

    seconds: list[float] = []
    errors: Counter[str] = msgspec.field(default_factory=Counter)
    attempts: int = 0
    reached: int = 0

    def at(self, share: float) -> float:
        """The time within which this share of the calls ended."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


@click.command()
@click.option("--calls", default=4_000, show_default=True, help="Calls of each of the two parts.")
@click.option("--at-once", default=40, show_default=True, help="Callers, each with one call at a time.")
def main(calls: int, at_once: int) -> None:
    """Measure what callers see of failing providers; exit code 1 when the books are wrong."""
    sys.exit(uvloop.run(_measured(calls, at_once)))


async def _measured(calls: int, at_once: int) -> int:
    with tempfile.TemporaryDirectory(prefix="headgate-faults-") as name:
        simulators = [Simulator(latency_s=LATENCY, tokens_per_s=PACE, seed=seed) for seed in (1, 2)]
        async with (
            simulators[0].serve() as one,
            simulators[1].serve() as two,
            open_engine(_configuration(one.url, two.url), Path(name)) as engine,
        ):
            await _part(engine, (one, two), 4 * at_once, at_once)
            sound = await _part(engine, (one, two), calls, at_once)
            for simulator in simulators:
                simulator.use_script(_script())
            broken = await _part(engine, (one, two), calls, at_once)
            held = engine.gateway.budget.ledger.open_reservations()
    _tell(sound, broken, held)
    return 0 if held == 0 and broken.attempts == broken.reached else 1


def _script() -> list[Rule]:
    return [
        Rule(fault=fault, match=Match(model=model), probability=SHARE / len(faults))
        for model, faults in (("whole-*", WHOLE), ("stream-*", ANYWAY))
        for fault in faults
    ]


def _configuration(one: str, two: str) -> Config:
    timeouts = {"connect": "2s", "first_byte": "2s", "idle": "2s"}
    return Config.model_validate(
        {
            "providers": {
                name: {"kind": "openai", "base_url": f"{url}/v1", "allow_private": True, "timeouts": timeouts}
                for name, url in (("one", one), ("two", two))
            },
            "models": {
                f"{way}-{name}": {"provider": name, "price": PRICE, "max_output": 400}
                for way in ("whole", "stream")
                for name in ("one", "two")
            },
            "routes": {way: {"models": [[f"{way}-one", f"{way}-two"]]} for way in ("whole", "stream")},
            "cache": {"semantic": {"mode": "off"}, "exact": {"mode": "off"}},
            "tenant_defaults": {"budget": {"hour": 1_000_000}},
            "telemetry": {"log": "off"},
        }
    )


async def _part(engine: Engine, providers: tuple[Running, Running], calls: int, at_once: int) -> Part:
    before = sum(provider.stats().calls for provider in providers)
    part, left, lengths = Part(), iter(range(calls)), random.Random(1)

    async def caller() -> None:
        for number in left:
            await _call(engine, part, number, lengths.randint(*LENGTHS))

    await asyncio.gather(*(caller() for _ in range(at_once)))
    await engine.gateway.flights.idle()
    await engine.gateway.budget.ledger.usage(UsageQuery())
    part.reached = sum(provider.stats().calls for provider in providers) - before
    return part


_NUMBERS: Final[Iterator[int]] = itertools.count()


async def _call(engine: Engine, part: Part, number: int, length: int) -> None:
    stream = number % 2 == 1
    body: dict[str, Any] = {
        "model": "stream" if stream else "whole",
        "stream": stream,
        "max_tokens": length,
        "messages": [{"role": "user", "content": f"Tell me a long story about house number {next(_NUMBERS)}."}],
    }
    began = time.perf_counter()
    try:
        async with await engine.gateway.chat(CALLER, ChatRequest.parse(body)) as reply:
            try:
                if stream:
                    async with aclosing(reply.events()) as events:
                        async for _ in events:
                            pass
                await reply.completion()
            finally:
                part.attempts += len(reply.trail.attempts)
    except GatewayError as error:
        part.errors[error.message] += 1
    part.seconds.append(time.perf_counter() - began)


def _tell(sound: Part, broken: Part, held: int) -> None:
    calls = len(broken.seconds)
    failed = sum(broken.errors.values())
    for name, part in (("without faults", sound), (f"{SHARE:.0%} of provider calls failing", broken)):
        click.echo(
            f"{name}: {len(part.seconds)} calls, {part.reached} reached a provider,"
            f" p50 {part.at(0.5):.3f} s, p99 {part.at(0.99):.3f} s, errors {dict(part.errors) or 'none'}"
        )
    slower = broken.at(0.99) / sound.at(0.99)
    click.echo(f"errors seen by callers   {failed / calls:.3%}   goal: at most {MOST_ERRORS:.1%}")
    click.echo(f"p99 beside fault-free    {slower:.2f} x   goal: at most {MOST_SLOWER:g} x")
    click.echo(f"calls to providers       {broken.reached / calls:.3f} a call")
    click.echo(f"still held               {held}")


if __name__ == "__main__":
    main()
