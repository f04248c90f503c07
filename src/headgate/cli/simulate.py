"""`headgate simulate`: run a model provider of its own that counts, answers deterministically and misbehaves on request."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click
import uvloop

from headgate.simulator.faults import describe_faults
from headgate.simulator.script import Rule, ScriptError, read_rules
from headgate.simulator.simulator import Simulator

_BEFORE_FAULTS = """\b
Examples:
  headgate simulate --port 9000 --latency-ms 200 --tokens-per-s 80
  headgate simulate --port 9000 --script faults.yaml
  curl localhost:9000/v1/chat/completions -H 'x-sim-fault: 429:2' \\
    -d '{"model": "any", "messages": [{"role": "user", "content": "Hi"}]}'
  curl localhost:9000/_sim/stats

\b
A call meets the fault of its x-sim-fault header, else of its model name
(sim-<fault>), else of the script. POST /_sim/script replaces the script,
POST /_sim/reset sets the counts to zero and begins the script again.

\b
Faults:
"""

_AFTER_FAULTS = """

\b
A script is a list of rules; all conditions of a rule must hold, and the
first rule that fires decides. Calls are counted per rule from 1.
  - fault: 429:2                        # every call of these models ...
    match: {model: "gpt-*", path: /v1/chat/completions}
    calls: {from: 10, to: 20}           # ... from the 10th to the 20th
  - {fault: 500, every: 7}              # each 7th call
  - {fault: stall, probability: 0.01}   # one in a hundred, seeded
  - {fault: refuse:3, seconds: {from: 60, to: 63}}   # down for 3 s
"""


def _read_script(_: click.Context, __: click.Parameter, path: Path | None) -> tuple[Rule, ...]:
    if path is None:
        return ()
    try:
        return read_rules(path.read_bytes())
    except ScriptError as error:
        raise click.BadParameter(f"{path}: {error}") from error


@click.command(epilog=_BEFORE_FAULTS + describe_faults() + _AFTER_FAULTS)
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="Port to listen on; 0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--latency-ms", type=click.FloatRange(min=0), default=0, show_default=True, help="Time to the first byte."
)
@click.option(
    "--tokens-per-s", type=click.FloatRange(min=0), default=0, show_default=True, help="Pace; 0 means no pacing."
)
@click.option(
    "--script",
    "rules",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_read_script,
    help="Fault script in YAML or JSON.",
)
def simulate(port: int, host: str, latency_ms: float, tokens_per_s: float, rules: tuple[Rule, ...]) -> None:
    """Run a simulated provider that speaks OpenAI's and Anthropic's wire formats."""
    simulator = Simulator(latency_s=latency_ms / 1000, tokens_per_s=tokens_per_s, script=rules)
    try:
        uvloop.run(_serve(simulator, host, port))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error}") from error


async def _serve(simulator: Simulator, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with simulator.serve(host, port) as running:
        click.echo(f"simulator listening on {running.url}")
        await stopped.wait()
