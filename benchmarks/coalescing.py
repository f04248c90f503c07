"""`python -m benchmarks.coalescing`: a thousand people ask at once, and twenty mean the same. Prints a table and writes JSON.

Fifty meanings with twenty wordings each, and two hundred look-alikes of them in which a number, a name, a direction or a word is another
(wordings.txt), go to Headgate in one burst or within two seconds, half of them as streams; the simulated provider takes a second to answer.
How many calls does it get, and who is given an answer that was made for another meaning? The simulator's answers say which wording they
were made for, and its count of calls is the truth. The server's loop is asked for a sign of life every few milliseconds meanwhile.

`--stream FILE` asks what people really asked (JSON lines {tenant, text, answer}: two texts of a tenant mean the same when their `answer`s are equal),
`--pairs FILE` what must not be taken for one another ({a, b, same}). Neither file is part of this project; see README.md.

Exit code 1 when an answer is missing or the counts differ; a missed goal fails nothing.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop

from benchmarks import servers
from benchmarks.load import Connection, LoadFailed, Target, encoded, percentile
from benchmarks.plan import Goal
from benchmarks.servers import Running
from benchmarks.throughput import headgate_attempts, simulator_calls

CORES = 2
LATEST = Path(__file__).with_name("results") / "coalescing.json"
WORDINGS = Path(__file__).with_name("wordings.txt")
LATENCY_MS = 1_000
MOST = 1_200
"""Requests of a burst."""
SIGN_OF_LIFE = 0.01
LOOK_ALIKE = "! "

_REFERENCE = re.compile(r"\[ref ([0-9a-f]{12})\]")


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. `counted` are the texts that the goal speaks of; `pairs` those that must not share an answer, None where all must
    not that differ in meaning."""

    name: str
    meanings: Mapping[str, Hashable]
    counted: frozenset[str]
    pairs: frozenset[frozenset[str]] | None = None

    def wrong(self, asked: str, made_for: str) -> bool:
        """Whether an answer is none to what was asked."""
        if self.pairs is not None:
            return frozenset((asked, made_for)) in self.pairs
        return self.meanings[asked] != self.meanings[made_for]


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One request: where its answer came from, which wording it was made for, and seconds it took."""

    text: str
    source: str
    made_for: str
    seconds: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a crowd. Latencies in ms; `lag` is how long the server's loop let a sign of life wait.

    calls     that the provider got, `counted_calls` of them for what the goal counts, of `counted` requests; some of the others are
              checks of answers from stock. `attempts`: what Headgate says of it
    sources   of all answers
    by_meaning  answers that were made for another wording, `wrong` of these to another question
    """

    crowd: str
    spread_s: float
    max_error_rate: float
    requests: int
    counted: int
    calls: int
    attempts: int
    counted_calls: int
    sources: Mapping[str, int]
    by_meaning: int
    wrong: Sequence[tuple[str, str, str]]
    p50_ms: float
    p95_ms: float
    per_s: float
    lag_p95_ms: float
    lag_most_ms: float


def wordings() -> Crowd:
    """The bundled questions: blocks of twenty wordings and the look-alikes of their meaning, each of which is a meaning by itself."""
    meanings: dict[str, Hashable] = {}
    counted = []
    for number, block in enumerate(WORDINGS.read_text(encoding="utf-8").strip().split("\n\n")):
        for line in block.splitlines():
            if line.startswith(LOOK_ALIKE):
                meanings[line.removeprefix(LOOK_ALIKE)] = line
            else:
                meanings[line] = number
                counted.append(line)
    return Crowd(name="wordings", meanings=meanings, counted=frozenset(counted))


def streamed(path: Path, most: int) -> Crowd:
    """Of the second half of a stream (the first was tuned on), what one tenant asked in several wordings, and others beside it."""
    lines = list(_lines(path))
    own = [line for line in lines[len(lines) // 2 :] if line["tenant"] == lines[-1]["tenant"]]
    meanings: dict[str, Hashable] = {line["text"]: line["answer"] for line in own}
    worded = Counter(meanings.values())
    texts = sorted(meanings, key=lambda text: worded[meanings[text]], reverse=True)[:most]
    counted = frozenset(text for text in texts if worded[meanings[text]] > 1)
    return Crowd(name=path.name, meanings={text: meanings[text] for text in texts}, counted=counted)


def paired(path: Path, most: int) -> Crowd:
    """Pairs that must not share an answer, evenly from all of the file."""
    found = [(line["a"], line["b"]) for line in _lines(path) if not line["same"] and line["a"] != line["b"]]
    chosen = found[:: max(1, -(-2 * len(found) // most))]
    texts = {text: text for pair in chosen for text in pair}
    return Crowd(
        name=path.name,
        meanings=dict(texts),
        counted=frozenset(texts),
        pairs=frozenset(frozenset(pair) for pair in found),
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return (msgspec.json.decode(line) for line in raw.splitlines())


def measure(folder: Path, crowd: Crowd, *, spread: float, rate: float, seed: int) -> Outcome:
    """Ask everything, each text once, within `spread` seconds of a new Headgate that may err in `rate` of its answers from stock."""
    with _provider(folder / "simulator") as provider:
        config = servers.headgate_config({servers.MODEL: provider.port}, semantic=True)
        config["cache"]["semantic"]["max_error_rate"] = rate
        with servers.headgate(folder / "headgate", config) as headgate:
            target = Target(
                name="Headgate", port=headgate.port, headers={"authorization": f"Bearer {servers.enrol(headgate)}"}
            )
            answers, lags, seconds = uvloop.run(_asked(target, crowd, spread, random.Random(seed)))
            # The first was to have everything loaded.
            attempts, calls = headgate_attempts(headgate.port, target.headers) - 1, simulator_calls(provider.port) - 1
    latencies = [1_000 * one.seconds for one in answers]
    return Outcome(
        crowd=crowd.name,
        spread_s=spread,
        max_error_rate=rate,
        requests=len(answers),
        counted=len(crowd.counted),
        calls=calls,
        attempts=attempts,
        counted_calls=sum(one.source == "live" for one in answers if one.text in crowd.counted),
        sources=dict(Counter(one.source for one in answers)),
        by_meaning=sum(one.text != one.made_for for one in answers),
        wrong=[(one.text, one.made_for, one.source) for one in answers if crowd.wrong(one.text, one.made_for)],
        p50_ms=percentile(latencies, 0.5),
        p95_ms=percentile(latencies, 0.95),
        per_s=len(answers) / seconds,
        lag_p95_ms=1_000 * percentile(lags, 0.95),
        lag_most_ms=1_000 * max(lags),
    )


def _provider(folder: Path) -> AbstractContextManager[Running]:
    port = servers.free_port()
    command = [sys.executable, "-m", "headgate", "simulate", "--port", str(port), "--latency-ms", str(LATENCY_MS)]
    return servers.started("simulator", command, port=port, ready="/_sim/stats", folder=folder)


async def _asked(
    target: Target, crowd: Crowd, spread: float, chance: random.Random
) -> tuple[list[Answered], list[float], float]:
    made_for = {hashlib.sha256(text.encode()).hexdigest()[:12]: text for text in crowd.meanings}
    await _ask(target, "Good morning to all of you!", {}, stream=False)
    texts = sorted(crowd.meanings)
    chance.shuffle(texts)
    lags: list[float] = []
    alive = asyncio.ensure_future(_signs_of_life(target, lags))
    began = time.perf_counter()

    async def one(place: int, text: str) -> Answered:
        await asyncio.sleep(chance.uniform(0.0, spread))
        return await _ask(target, text, made_for, stream=place % 2 == 1)

    answers = await asyncio.gather(*(one(place, text) for place, text in enumerate(texts)))
    seconds = time.perf_counter() - began
    alive.cancel()
    return answers, lags, seconds


async def _ask(target: Target, text: str, made_for: Mapping[str, str], *, stream: bool) -> Answered:
    body = {"model": servers.MODEL, "messages": [{"role": "user", "content": text}], "stream": stream}
    request = encoded(target, msgspec.json.encode(body))
    connection = Connection()
    began = time.perf_counter()
    try:
        status, raw = await connection.ask(request)
    finally:
        connection.close()
    seconds = time.perf_counter() - began
    head, _, rest = raw.partition(b"\r\n\r\n")
    if status != 200:
        raise LoadFailed(f"{text!r} was answered with {status}: {rest[-300:]!r}")
    found = _REFERENCE.search(_said(rest) if stream else rest.decode())
    if found is None:
        raise LoadFailed(f"the answer to {text!r} is not whole: {rest[-300:]!r}")
    source = next(
        line.split(b": ", 1)[1].decode() for line in head.split(b"\r\n") if line.startswith(b"x-headgate-source")
    )
    return Answered(text=text, source=source, made_for=made_for.get(found[1], text), seconds=seconds)


def _said(raw: bytes) -> str:
    """The text of a streamed answer, from the bytes of its chunked body."""
    body = bytearray()
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        body += raw[: int(size, 16)]
        raw = raw[int(size, 16) + 2 :]
    events = (line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: {"))
    choices = (choice for event in events for choice in msgspec.json.decode(event).get("choices", ()))
    return "".join(choice.get("delta", {}).get("content") or "" for choice in choices)


async def _signs_of_life(target: Target, lags: list[float]) -> None:
    """How long the server's loop makes a request wait that costs it nothing."""
    connection = Connection()
    request = f"GET /livez HTTP/1.1\r\nhost: {servers.HOST}:{target.port}\r\n\r\n".encode()
    while True:
        began = time.perf_counter()
        await connection.ask(request)
        lags.append(time.perf_counter() - began)
        await asyncio.sleep(SIGN_OF_LIFE)


def goals(outcome: Outcome) -> list[Goal]:
    """What the figures should keep: both where all ask at once at the usual error rate, wrong answers always."""
    share = len(outcome.wrong) / max(1, outcome.by_meaning)
    found = [Goal(name="wrong, of answers by meaning", figure=100 * share, bound=0.0, unit="%", at_most=True)]
    if outcome.crowd == "wordings":
        calls = Goal(
            name="calls for a thousand wordings", figure=outcome.counted_calls, bound=60, unit="", at_most=True
        )
        found.insert(0, calls)
    return found


def shown(outcome: Outcome) -> str:
    """A few lines for people."""
    shared = 1 - outcome.counted_calls / max(1, outcome.counted)
    lines = [
        f"{outcome.crowd}: {outcome.requests:,} requests within {outcome.spread_s:g} s, max_error_rate {outcome.max_error_rate:g}",
        f"  calls      {outcome.calls:,}; {outcome.counted_calls:,} for the {outcome.counted:,} that are counted: {shared:.1%} of them shared",
        f"  sources    {', '.join(f'{name} {count:,}' for name, count in sorted(outcome.sources.items()))}",
        f"  by meaning {outcome.by_meaning:,}, of these wrong {len(outcome.wrong)}",
        f"  latency    p50 {outcome.p50_ms:,.0f} ms, p95 {outcome.p95_ms:,.0f} ms; {outcome.per_s:,.0f} requests/s",
        f"  the loop   kept a sign of life waiting p95 {outcome.lag_p95_ms:,.0f} ms, at most {outcome.lag_most_ms:,.0f} ms",
    ]
    lines += [
        f"  {'ok  ' if goal.met else 'MISS'} {goal.name}: {goal.figure:,.1f}{goal.unit} (goal {goal.bound:g}{goal.unit})"
        for goal in goals(outcome)
    ]
    lines += [f"    wrong: {asked!r} got the answer to {given!r} ({source})" for asked, given, source in outcome.wrong]
    return "\n".join(lines)


@click.command()
@click.option("--stream", type=click.Path(exists=True, path_type=Path), help="JSON lines of {tenant, text, answer}.")
@click.option("--pairs", type=click.Path(exists=True, path_type=Path), help="JSON lines of {a, b, same}.")
@click.option("--most", default=MOST, show_default=True, help="Requests of a burst from a file.")
@click.option("--seed", default=1, show_default=True, help="Draws the order.")
@click.option("--quick", is_flag=True, help="Only the burst at the usual error rate.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=LATEST, show_default=True, help="JSON file."
)
def main(stream: Path | None, pairs: Path | None, most: int, seed: int, out: Path, *, quick: bool) -> None:
    """Count the calls that a crowd's questions cost."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    settings = [(wordings(), 0.0, 0.01)]
    if not quick:
        settings += [(wordings(), 2.0, 0.01), (wordings(), 0.0, 0.005)]
    if stream is not None:
        settings.append((streamed(stream, most), 0.0, 0.01))
    if pairs is not None:
        settings.append((paired(pairs, most), 0.0, 0.01))
    outcomes: list[Outcome] = []
    for crowd, spread, rate in settings:
        with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
            try:
                outcomes.append(measure(Path(folder), crowd, spread=spread, rate=rate, seed=seed))
            except (servers.DidNotStart, LoadFailed) as error:
                click.echo(f"The benchmark ended early: {error}", err=True)
                sys.exit(1)
        click.echo(shown(outcomes[-1]) + "\n")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes)))
    click.echo(f"written to {out}")
    sys.exit(0 if all(_agree(outcome) for outcome in outcomes) else 1)


def _agree(outcome: Outcome) -> bool:
    """Whether the provider got as many calls as Headgate said."""
    return outcome.calls == outcome.attempts >= outcome.sources.get("live", 0)


if __name__ == "__main__":
    main()
