"""What a chunk of a streamed answer costs: straight from the simulator and through Headgate, by turns, same question.

Two simulators are used. One sends as fast as it can, each chunk in a write of its own: it shows the work a chunk costs. The
other sends at a steady pace: it shows how much later each chunk arrives, which is what a reader notices.
"""

from __future__ import annotations

import asyncio
import itertools
import time

import msgspec

from benchmarks.load import Connection, Streamed, Target, percentile, stream
from benchmarks.plan import Check, Figure, Plan, figure
from benchmarks.questions import NUMBERED, chat_body

FAST_MODEL = "sim-huge:0.01"
PACED_MODEL = "sim-huge:0.002"
FAST_TOKENS_PER_S = 1_000_000
PACED_TOKENS_PER_S = 1_000
SIDE_BY_SIDE = 8
FAST_BODY = chat_body(NUMBERED, model=FAST_MODEL, stream=True, max_tokens=4096)
PACED_BODY = chat_body(NUMBERED, model=PACED_MODEL, stream=True, max_tokens=4096)


class Streaming(msgspec.Struct, frozen=True, kw_only=True):
    """`events` a stream of the fast kind has; rates are events a second, of one stream and of eight side by side.

    `added_us` is what an event costs above the direct way with one stream; `behind_*` is how much later an event of a paced
    stream arrives than the same event straight from the simulator, counted from the request.
    """

    events: int
    direct_rate: float
    gateway_rate: float
    direct_rate_8: float
    gateway_rate_8: float
    added_us: Figure
    behind_p50_ms: float
    behind_p95_ms: float


async def measure(fast: Target, paced: Target, gateway: Target, plan: Plan) -> tuple[Streaming, list[Check]]:
    """Measure both kinds. `gateway` must know both models and call upstream for each stream. Raises LoadFailed."""
    direct, through = await _by_turns(fast, gateway, FAST_BODY, plan.streams)
    slow_direct, slow_through = await _by_turns(paced, gateway, PACED_BODY, max(2, plan.streams // 2))
    direct_8 = await _side_by_side(fast)
    through_8 = await _side_by_side(gateway)
    events = len(direct[0].arrivals)
    behind = [
        1000 * (late - early)
        for one, other in zip(slow_direct, slow_through, strict=True)
        for early, late in zip(one.arrivals, other.arrivals, strict=False)
    ]
    measured = Streaming(
        events=events,
        direct_rate=events / figure([one.seconds for one in direct]).median,
        gateway_rate=events / figure([one.seconds for one in through]).median,
        direct_rate_8=direct_8,
        gateway_rate_8=through_8,
        added_us=figure([1e6 * (two.seconds - one.seconds) / events for one, two in zip(direct, through, strict=True)]),
        behind_p50_ms=percentile(behind, 0.5),
        behind_p95_ms=percentile(behind, 0.95),
    )
    sizes = (
        {len(one.arrivals) for one in (*direct, *through)},
        {len(one.arrivals) for one in (*slow_direct, *slow_through)},
    )
    whole = all(one.complete for one in (*direct, *through, *slow_direct, *slow_through))
    return measured, [
        Check(name="streams: all are whole and end with [DONE]", holds=whole),
        Check(
            name="streams: Headgate sends as many events as the simulator",
            holds=all(len(found) == 1 for found in sizes),
            detail=" and ".join(str(sorted(found)) for found in sizes),
        ),
    ]


async def _by_turns(one: Target, other: Target, body: bytes, count: int) -> tuple[list[Streamed], list[Streamed]]:
    """`count` streams of each, by turns, after one of each that is not counted."""
    connections = Connection(), Connection()
    found: tuple[list[Streamed], list[Streamed]] = [], []
    for place in range(count + 1):
        for connection, target, kept in zip(connections, (one, other), found, strict=True):
            streamed = await stream(connection, target, body)
            if place:
                kept.append(streamed)
    for connection in connections:
        connection.close()
    return found


async def _side_by_side(target: Target) -> float:
    """Events a second of eight streams at once, each repeated once; the questions differ."""
    bodies = [
        chat_body(f"{NUMBERED} {place}", model=FAST_MODEL, stream=True, max_tokens=4096)
        for place in range(SIDE_BY_SIDE)
    ]

    async def two(body: bytes) -> list[Streamed]:
        connection = Connection()
        streams = [await stream(connection, target, body) for _ in range(2)]
        connection.close()
        return streams

    began = time.perf_counter()
    streams = itertools.chain.from_iterable(await asyncio.gather(*(two(body) for body in bodies)))
    return sum(len(one.arrivals) for one in streams) / (time.perf_counter() - began)
