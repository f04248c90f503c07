"""`python -m benchmarks.run`: everything in one run, on loopback, on the same two cores; prints a report and writes JSON.

Exit code 0 when the run is complete and every check holds, 1 when not, 2 when something to install is missing. A missed goal
does not fail the run: a busy machine misses goals, only a wrong count is a wrong program.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import uvloop

from benchmarks import peers, semantic, servers, startup, streaming, table, throughput
from benchmarks.load import CHAT_PATH, LoadFailed, Target
from benchmarks.plan import QUICK, Plan
from benchmarks.questions import MARK, NUMBERED, Supply, chat_body
from benchmarks.servers import DidNotStart, Running
from benchmarks.table import BARE, HIT, NGINX, PASS, SIMULATOR, Findings
from benchmarks.throughput import Contender

CORES = 2
LATEST = Path(__file__).with_name("results") / "latest.json"
SAMPLED_ANSWERS = 25


@click.command()
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=LATEST, show_default=True, help="JSON file."
)
@click.option("--litellm", type=click.Path(path_type=Path), help="Virtual environment that has bin/litellm.")
@click.option("--portkey", type=click.Path(path_type=Path), help="Folder that has node_modules/@portkey-ai/gateway.")
@click.option("--quick", is_flag=True, help="Short rounds: under a minute, noisier.")
def main(out: Path, litellm: Path | None, portkey: Path | None, *, quick: bool) -> None:
    """Measure Headgate beside nginx, a bare ASGI server and other gateways."""
    if missing := servers.missing_packages():
        click.echo(f"nginx and wrk are needed. Install them with: apt-get install {' '.join(missing)}", err=True)
        sys.exit(2)
    # Asked to end, it ends through the blocks that stop the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    plan = QUICK if quick else Plan()
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as name:
        try:
            found = _measure(Path(name), plan, litellm, portkey)
        except (DidNotStart, LoadFailed) as error:
            click.echo(f"The benchmark ended early: {error}", err=True)
            sys.exit(1)
    click.echo("\n" + table.text(found))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(table.document(found))
    click.echo(f"\nwritten to {out}")
    sys.exit(0 if all(check.holds for check in found.checks) else 1)


def _measure(folder: Path, plan: Plan, litellm: Path | None, portkey: Path | None) -> Findings:
    """All parts, one after the other. Raises DidNotStart and LoadFailed."""
    supply = Supply(folder)
    with servers.simulator(folder / "simulator") as simulator:
        offered = (
            peers.litellm(folder / "litellm", install=litellm, upstream=simulator.port),
            peers.portkey(folder / "portkey", install=portkey, upstream=simulator.port),
        )
        found = Findings(plan=plan, rows={}, answer_bytes=_answer_bytes(simulator))
        found.left_out += [peer for peer in offered if isinstance(peer, str)]
        others = [peer for peer in offered if not isinstance(peer, str)]
        _throughput(found, folder, simulator, others, supply)
        config = servers.headgate_config({servers.MODEL: simulator.port}, semantic=True)
        with servers.headgate(folder / "semantic", config) as headgate:
            found.semantic, checks = semantic.measure(headgate, supply, plan, _tell)
            found.checks += checks
        _streams(found, folder)
        found.start_up, checks = startup.measure(folder / "starts", config, plan.starts)
        found.checks += checks
    return found


def _throughput(found: Findings, folder: Path, simulator: Running, others: list[peers.Peer], supply: Supply) -> None:
    config = servers.headgate_config({servers.MODEL: simulator.port}, semantic=False)
    with contextlib.ExitStack() as stack:
        nginx = stack.enter_context(servers.nginx(folder / "nginx", upstream=simulator.port))
        bare = stack.enter_context(servers.bare(folder / "bare", answer_bytes=found.answer_bytes))
        headgate = stack.enter_context(servers.headgate(folder / "headgate", config))
        running: list[tuple[str, Running, dict[str, str]]] = [
            (SIMULATOR, simulator, {}),
            (NGINX, nginx, {}),
            (BARE, bare, {}),
        ]
        for peer in others:
            try:
                server = stack.enter_context(peer.start())
                peers.try_out(peer, server)
            except (DidNotStart, LoadFailed) as error:
                found.left_out.append(f"{peer.name} is left out: {error}")
            else:
                running.append((peer.name, server, peer.headers))
        contenders = [
            Contender(
                target=Target(name=name, port=server.port, headers=headers),
                bodies=supply.numbered,
                first=supply.numbers,
            )
            for name, server, headers in running
        ]
        contenders[3:3] = _headgate_contenders(headgate, simulator, supply)
        found.rows, checks = throughput.measure(contenders, found.plan, _tell)
        found.checks += checks


def _headgate_contenders(headgate: Running, simulator: Running, supply: Supply) -> list[Contender]:
    """Headgate twice: each question new, and one question over and over, which is asked once beforehand."""
    headers = {"authorization": f"Bearer {servers.enrol(headgate)}"}
    calls = _both_counts(headgate, simulator, headers)
    status, body = servers.fetch(headgate.port, CHAT_PATH, body=supply.fixed.read_bytes().strip(), headers=headers)
    if status != 200:
        raise LoadFailed(f"Headgate answered the first question with {status}: {body[-300:]!r}")
    new = Target(name=PASS, port=headgate.port, headers=headers)
    same = Target(name=HIT, port=headgate.port, headers=headers)
    return [
        Contender(target=new, bodies=supply.numbered, first=supply.numbers, calls=calls),
        Contender(target=same, bodies=supply.fixed, first=int, calls=calls, calls_upstream=False),
    ]


def _both_counts(headgate: Running, simulator: Running, headers: Mapping[str, str]) -> Callable[[], tuple[int, int]]:
    return lambda: (
        throughput.simulator_calls(simulator.port),
        throughput.headgate_attempts(headgate.port, headers),
    )


def _streams(found: Findings, folder: Path) -> None:
    with (
        servers.simulator(folder / "fast", tokens_per_s=streaming.FAST_TOKENS_PER_S) as fast,
        servers.simulator(folder / "paced", tokens_per_s=streaming.PACED_TOKENS_PER_S) as paced,
    ):
        upstreams = {streaming.FAST_MODEL: fast.port, streaming.PACED_MODEL: paced.port}
        config = servers.headgate_config(upstreams, semantic=False)
        with servers.headgate(folder / "streams", config) as headgate:
            # The same question again and again, answered by the provider each time and stored each time.
            headers = {"authorization": f"Bearer {servers.enrol(headgate)}", "x-headgate-cache": "no-cache"}
            targets = (
                Target(name="the fast simulator", port=fast.port),
                Target(name="the paced simulator", port=paced.port),
                Target(name="Headgate", port=headgate.port, headers=headers),
            )
            found.streaming, checks = uvloop.run(streaming.measure(*targets, found.plan))
            found.checks += checks


def _answer_bytes(simulator: Running) -> int:
    """The middle size of the simulator's answers to the numbered question; the bare server sends as much."""
    sizes = []
    for place in range(SAMPLED_ANSWERS):
        asked = chat_body(NUMBERED.replace(MARK, f"{place:012d}"))
        sizes.append(len(servers.fetch(simulator.port, CHAT_PATH, body=asked)[1]))
    return statistics.median_high(sizes)


def _tell(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
