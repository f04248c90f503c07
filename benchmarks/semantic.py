"""The semantic cache asked for answers that it does not have: the price of looking before every new question.

A lookup alone is measured with `x-headgate-cache: only-if-cached`, to which the right answer is 504. Bursts with an upstream call
come between, so that the lookups search an index that fills up; no question is asked twice.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import uvloop

from benchmarks.load import Burst, Spread, Target, steady, wrk
from benchmarks.plan import MANY, Check, Figure, Plan, figure
from benchmarks.questions import Supply
from benchmarks.servers import Running, enrol

ONLY_CACHED = {"x-headgate-cache": "only-if-cached"}
QUESTIONS = 12_000
RATE = 200.0
NOT_CACHED = 504


class Semantic(msgspec.Struct, frozen=True, kw_only=True):
    """Rates are requests a second with 32 connections; `steady` is 200 lookups a second in an open loop."""

    lookups: Figure
    with_upstream: Figure
    lookup_p50_ms: float
    lookup_p95_ms: float
    steady: Spread
    served_share: float


def measure(server: Running, supply: Supply, plan: Plan, tell: Callable[[str], None]) -> tuple[Semantic, list[Check]]:
    """Measure lookups on a running Headgate with the semantic cache on. Raises LoadFailed."""
    headers = {"authorization": f"Bearer {enrol(server)}"}
    asking = Target(name="Headgate, semantic", port=server.port, headers=headers)
    looking = Target(name="Headgate, lookup only", port=server.port, headers={**headers, **ONLY_CACHED})
    upstream: list[Burst] = []
    lookups: list[Burst] = []
    for turn in range(1, plan.rounds + 1):
        for target, kept, counted in ((asking, upstream, 0), (looking, lookups, NOT_CACHED)):
            file = supply.file(QUESTIONS)
            kept.append(wrk(target, file, connections=MANY, seconds=plan.seconds, first=0, counted=counted))
            tell(f"round {turn}/{plan.rounds}  {target.name:<22} {MANY} connections {kept[-1].rate:>10,.0f} requests/s")
    spread = uvloop.run(steady(looking, supply.bodies(round(RATE * plan.steady_seconds)), rate=RATE))
    asked = sum(burst.requests for burst in lookups)
    served = asked - sum(burst.counted for burst in lookups)
    measured = Semantic(
        lookups=figure([burst.rate for burst in lookups]),
        with_upstream=figure([burst.rate for burst in upstream]),
        lookup_p50_ms=figure([burst.p50_us / 1000 for burst in lookups]).median,
        lookup_p95_ms=figure([burst.p95_us / 1000 for burst in lookups]).median,
        steady=spread,
        served_share=served / asked,
    )
    return measured, _checks(upstream, lookups, spread)


def _checks(upstream: list[Burst], lookups: list[Burst], spread: Spread) -> list[Check]:
    refused = sum(burst.refused for burst in upstream)
    broken = sum(burst.broken for burst in (*upstream, *lookups))
    other = sum(burst.refused - burst.counted for burst in lookups)
    expected = {str(NOT_CACHED), "200"}
    return [
        Check(
            name="semantic: every answer with an upstream call is a 200",
            holds=not refused and not broken,
            detail=f"{refused} refused, {broken} broken",
        ),
        Check(
            name="semantic: every lookup is answered with 504 or from the cache",
            holds=not other and set(spread.statuses) <= expected,
            detail=f"{other} others with 32 connections; at the fixed rate {spread.statuses}",
        ),
    ]
