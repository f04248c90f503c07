"""What the benchmark prints and writes: the table of ratios, the goals with pass or miss, and one JSON document.

All figures are of one run on one machine; only the ratios between its rows travel to another machine.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from benchmarks.plan import MANY, Check, Figure, Goal, Plan, figure
from benchmarks.semantic import Semantic
from benchmarks.startup import StartUp
from benchmarks.streaming import Streaming
from benchmarks.throughput import Row

SIMULATOR = "simulator alone"
NGINX = "nginx"
BARE = "uvicorn, bare ASGI"
PASS = "Headgate, pass-through"  # noqa: S105 - the name of a row
HIT = "Headgate, exact hit"


class Findings(msgspec.Struct, kw_only=True):
    """Everything that one run found; a part that was not measured is None."""

    plan: Plan
    rows: dict[str, Row]
    answer_bytes: int
    streaming: Streaming | None = None
    semantic: Semantic | None = None
    start_up: StartUp | None = None
    checks: list[Check] = msgspec.field(default_factory=list)
    left_out: list[str] = msgspec.field(default_factory=list)


def goals(found: Findings) -> list[Goal]:
    """The bounds that Headgate set itself, with what was measured."""
    rows = found.rows
    listed: list[Goal] = []
    if PASS in rows:
        listed += [
            _least("pass-through, share of nginx's requests/s", rows[PASS].share_of(rows[NGINX]).median, 0.20, ""),
            _most(
                "pass-through, added p50 over the simulator, one connection",
                rows[PASS].added_ms(rows[SIMULATOR]),
                0.6,
                "ms",
            ),
        ]
    if HIT in rows:
        listed += [
            _least("exact hit, share of nginx's requests/s", rows[HIT].share_of(rows[NGINX]).median, 0.35, ""),
            _most("exact hit, added p50 over bare ASGI, one connection", rows[HIT].added_ms(rows[BARE]), 0.2, "ms"),
        ]
    if found.semantic:
        listed += [
            _least("semantic lookups of new questions, 32 connections", found.semantic.lookups.median, 600, "/s"),
            _most("semantic lookup, p95 at 200/s", found.semantic.steady.p95_ms, 8, "ms"),
        ]
    if found.start_up:
        listed += [
            _most("ready after start", found.start_up.ready_s.median, 1.5, "s"),
            _most("memory after start, model loaded", found.start_up.resident_mb, 250, "MB"),
        ]
    return listed


def text(found: Findings) -> str:
    """The whole report for a terminal."""
    parts = [_throughput(found), _streaming(found.streaming), _semantic(found.semantic), _start_up(found.start_up)]
    parts += [_goals(goals(found)), _checks(found.checks), "\n".join(found.left_out)]
    return "\n\n".join(part for part in parts if part)


def document(found: Findings) -> bytes:
    """The same for programs, as indented JSON, with the machine it was measured on."""
    nginx = found.rows.get(NGINX)
    written: dict[str, Any] = {
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "plan": found.plan,
        "answer_bytes": found.answer_bytes,
        "systems": {name: _system(row, nginx) for name, row in found.rows.items()},
        "streaming": found.streaming,
        "semantic": found.semantic,
        "start_up": found.start_up,
        "goals": [{**msgspec.structs.asdict(goal), "met": goal.met} for goal in goals(found)],
        "checks": found.checks,
        "left_out": found.left_out,
    }
    return msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n"


def _system(row: Row, nginx: Row | None) -> dict[str, Any]:
    return {
        "requests_per_s": row.rate,
        "share_of_nginx": row.share_of(nginx) if nginx else None,
        "latency_ms": {str(MANY): _latencies(row, single=False), "1": _latencies(row, single=True)},
        "bursts": {str(MANY): row.many, "1": row.single},
    }


def _latencies(row: Row, *, single: bool) -> dict[str, float]:
    bursts = row.single if single else row.many
    return {
        "p50": figure([burst.p50_us / 1000 for burst in bursts]).median,
        "p95": figure([burst.p95_us / 1000 for burst in bursts]).median,
        "p99": figure([burst.p99_us / 1000 for burst in bursts]).median,
    }


def _throughput(found: Findings) -> str:
    rows = found.rows
    head = (
        f"{'':<24}{'requests/s':>10} {'(least-most)':>17}{'of nginx':>11} {'p50':>7}{'p95':>7}{'p99':>7}   "
        f"{'p50':>6}{'p95':>6}{'p99':>6}{'added p50':>11}"
    )
    above = f"{'':<24}{'32 connections':>28}{'':>11} {'ms':>21}   {'one connection, ms':>18}"
    lines = [above, head]
    lines += [_line(name, rows) for name in rows]
    lines.append(
        f"added p50: over the simulator; of the exact hit: over bare ASGI. Questions of about 200 bytes, answers of about "
        f"{found.answer_bytes}; medians of {found.plan.rounds} rounds."
    )
    return "\n".join(lines)


def _line(name: str, rows: Mapping[str, Row]) -> str:
    row = rows[name]
    many, single = _latencies(row, single=False), _latencies(row, single=True)
    spread = f"({row.rate.least:,.0f}-{row.rate.most:,.0f})"
    share = f"{row.share_of(rows[NGINX]).median:.3f}" if NGINX in rows else ""
    floor = {SIMULATOR: None, BARE: None, HIT: BARE}.get(name, SIMULATOR)
    added = f"{row.added_ms(rows[floor]):+.2f}" if floor else ""
    return (
        f"{name:<24}{row.rate.median:>10,.0f} {spread:>17}{share:>11} "
        f"{many['p50']:>7.2f}{many['p95']:>7.2f}{many['p99']:>7.2f}   "
        f"{single['p50']:>6.2f}{single['p95']:>6.2f}{single['p99']:>6.2f}{added:>11}"
    )


def _streaming(found: Streaming | None) -> str:
    if found is None:
        return ""
    return (
        f"streams of {found.events:,} chunks\n"
        f"  one stream          {found.gateway_rate:>9,.0f} chunks/s through Headgate, {found.direct_rate:,.0f} direct; "
        f"a chunk costs {_shown(found.added_us, 1)} us more\n"
        f"  eight streams       {found.gateway_rate_8:>9,.0f} chunks/s through Headgate, {found.direct_rate_8:,.0f} direct\n"
        f"  at a steady pace    a chunk arrives {found.behind_p50_ms:.2f} ms later (p95 {found.behind_p95_ms:.2f})"
    )


def _semantic(found: Semantic | None) -> str:
    if found is None:
        return ""
    steady = found.steady
    return (
        "semantic lookup of a new question\n"
        f"  32 connections      {_shown(found.lookups, 0)} lookups/s, p50 {found.lookup_p50_ms:.1f} ms, "
        f"p95 {found.lookup_p95_ms:.1f} ms; {_shown(found.with_upstream, 0)} requests/s with the upstream call\n"
        f"  at 200 a second     p50 {steady.p50_ms:.2f} ms, p95 {steady.p95_ms:.2f} ms, p99 {steady.p99_ms:.2f} ms "
        f"({steady.requests:,} lookups; the client sent within {steady.late_p99_ms:.1f} ms of the due time, p99)\n"
        f"  answered by an earlier wording of the same question: {found.served_share:.2%}"
    )


def _start_up(found: StartUp | None) -> str:
    if found is None:
        return ""
    return (
        "start in an empty folder\n"
        f"  ready               {_shown(found.ready_s, 2)} s; the first semantic lookup then takes "
        f"{found.first_lookup_ms:.0f} ms\n"
        f"  memory              {found.resident_mb:.0f} MB after that lookup"
    )


def _goals(listed: Sequence[Goal]) -> str:
    lines = [
        f"  {'pass' if goal.met else 'MISS'}  {goal.name}: {goal.figure:,.2f}{goal.unit and ' ' + goal.unit} "
        f"(at {'most' if goal.at_most else 'least'} {goal.bound:g})"
        for goal in listed
    ]
    return "\n".join(("goals", *lines)) if lines else ""


def _checks(checks: Sequence[Check]) -> str:
    failed = [f"  FAILED  {check.name}: {check.detail}" for check in checks if not check.holds]
    return "\n".join((f"checks: {len(checks) - len(failed)} of {len(checks)} hold", *failed))


def _shown(found: Figure, decimals: int) -> str:
    return f"{found.median:,.{decimals}f} ({found.least:,.{decimals}f}-{found.most:,.{decimals}f})"


def _least(name: str, value: float, bound: float, unit: str) -> Goal:
    return Goal(name=name, figure=value, bound=bound, unit=unit, at_most=False)


def _most(name: str, value: float, bound: float, unit: str) -> Goal:
    return Goal(name=name, figure=value, bound=bound, unit=unit, at_most=True)
