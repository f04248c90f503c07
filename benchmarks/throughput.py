"""Requests a second and latency of every system, round by round, with what the counts on both ends must say.

All systems take turns within a round, so that a machine that slows down for a while slows them alike; a ratio is formed within
a round. Invariant: a round of Headgate counts only if the simulator saw exactly the calls that Headgate says it made.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.load import Burst, LoadFailed, Target, wrk
from benchmarks.plan import MANY, Check, Figure, Plan, figure
from benchmarks.servers import fetch

SETTLE_LIMIT = 10.0
_ATTEMPTS = re.compile(rb"^headgate_attempts_total(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A system under load: the bodies it gets, from which number on, and what is compared before and after a burst.

    `calls` returns the calls that the simulator received and those that the system says it made; `calls_upstream` is whether a
    request makes one call or none.
    """

    target: Target
    bodies: Path
    first: Callable[[], int]
    calls: Callable[[], tuple[int, int]] | None = None
    calls_upstream: bool = True


class Row(msgspec.Struct, kw_only=True):
    """All bursts of one system, in the order of the rounds."""

    many: list[Burst] = msgspec.field(default_factory=list)
    single: list[Burst] = msgspec.field(default_factory=list)

    @property
    def rate(self) -> Figure:
        """Requests a second with 32 connections."""
        return figure([burst.rate for burst in self.many])

    @property
    def p50_ms(self) -> float:
        """Median latency with one connection, in milliseconds."""
        return figure([burst.p50_us / 1000 for burst in self.single]).median

    def share_of(self, other: Row) -> Figure:
        """Requests a second as a share of another system's in the same round."""
        return figure([own.rate / its.rate for own, its in zip(self.many, other.many, strict=True)])

    def added_ms(self, other: Row) -> float:
        """Median of what each round's p50 with one connection is above the other system's, in milliseconds."""
        pairs = zip(self.single, other.single, strict=True)
        return figure([(own.p50_us - its.p50_us) / 1000 for own, its in pairs]).median


def measure(
    contenders: Sequence[Contender], plan: Plan, tell: Callable[[str], None]
) -> tuple[dict[str, Row], list[Check]]:
    """Warm every system up for a second, then let them take turns. Raises LoadFailed when one does not answer."""
    rows = {contender.target.name: Row() for contender in contenders}
    checks: list[Check] = []
    for contender in contenders:
        _burst(contender, MANY, 1)
    for turn in range(1, plan.rounds + 1):
        for connections, seconds in ((MANY, plan.seconds), (1, plan.single_seconds)):
            for contender in contenders:
                burst, found = _burst(contender, connections, seconds)
                row = rows[contender.target.name]
                (row.many if connections == MANY else row.single).append(burst)
                checks += found
                tell(
                    f"round {turn}/{plan.rounds}  {contender.target.name:<22} {connections:>2} connections"
                    f" {burst.rate:>10,.0f} requests/s  p50 {burst.p50_us / 1000:.2f} ms"
                )
    return rows, checks


def simulator_calls(port: int) -> int:
    """How many inference calls the simulator has received."""
    calls: int = msgspec.json.decode(fetch(port, "/_sim/stats")[1])["calls"]
    return calls


def headgate_attempts(port: int, headers: Mapping[str, str]) -> int:
    """How many upstream calls Headgate says it has made. Raises LoadFailed when its metrics cannot be read."""
    status, text = fetch(port, "/metrics", headers=headers)
    if status != 200:
        raise LoadFailed(f"Headgate answered GET /metrics with {status}")
    return round(sum(float(value) for value in _ATTEMPTS.findall(text)))


def _burst(contender: Contender, connections: int, seconds: int) -> tuple[Burst, list[Check]]:
    """One run of wrk, and the checks on it."""
    name = contender.target.name
    before = contender.calls() if contender.calls else (0, 0)
    burst = wrk(contender.target, contender.bodies, connections=connections, seconds=seconds, first=contender.first())
    clean = not burst.refused and not burst.broken
    detail = f"{burst.refused} refused, {burst.broken} broken of {burst.requests:,}"
    checks = [Check(name=f"{name}: every answer is a 200", holds=clean, detail=detail)]
    if contender.calls:
        received, made = _settled(contender.calls, before)
        # wrk hangs up with up to one request on each connection under way; those reach the simulator, uncounted by wrk.
        least, most = (burst.requests, burst.requests + connections) if contender.calls_upstream else (0, 0)
        checks.append(
            Check(
                name=f"{name}: the simulator's count is Headgate's and fits the answers",
                holds=received == made and least <= received <= most,
                detail=f"simulator {received:,}, Headgate {made:,}, answers {burst.requests:,}",
            )
        )
    return burst, checks


def _settled(calls: Callable[[], tuple[int, int]], before: tuple[int, int]) -> tuple[int, int]:
    """What both ends counted since `before`, once they agree twice in a row or the limit has passed."""
    last: tuple[int, int] | None = None
    began = time.monotonic()
    while True:
        received, made = calls()
        now = (received - before[0], made - before[1])
        if (now == last and now[0] == now[1]) or time.monotonic() - began > SETTLE_LIMIT:
            return now
        last = now
        time.sleep(0.05)
