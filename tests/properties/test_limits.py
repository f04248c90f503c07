"""The rate limiter against its definition, for any arrivals."""

from __future__ import annotations

import asyncio
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from headgate.limits.limits import Limits
from headgate.limits.memory import MemoryCounters
from headgate.model.errors import RateLimited
from headgate.model.tenancy import Policy, Principal

GAPS = st.lists(st.integers(0, 20 * 10**6), max_size=60)


@given(GAPS, st.integers(1, 200))
def test_it_is_a_bucket_that_holds_a_minutes_limit_and_fills_steadily(gaps: list[int], limit: int) -> None:
    """A bucket of exact fractions decides the same, and `retry_after` and `remaining` are what that bucket says."""
    now = 0
    counters = MemoryCounters(clock=lambda: now)
    interval = 60 * 10**6 // limit
    level = Fraction(limit)
    for gap in gaps:
        now += gap
        level = min(Fraction(limit), level + Fraction(gap, interval))
        taken = asyncio.run(counters.take("a", places=1_000, limit=limit, per_seconds=60))
        assert taken.allowed == (level >= 1)
        if taken.allowed:
            level -= 1
            assert taken.remaining == int(level)
        else:
            assert abs(taken.retry_after - float((1 - level) * interval) / 1e6) < 1e-5


@given(st.lists(st.sampled_from(["admit", "release", "again"]), max_size=80), st.integers(0, 5))
def test_running_calls_never_exceed_the_limit_and_every_place_comes_back(moves: list[str], limit: int) -> None:
    caller = Principal(tenant="a", policy=Policy(rpm=10_000, concurrency=limit))

    async def play() -> None:
        limits = Limits(MemoryCounters(clock=lambda: 0))
        held, spent = [], []
        for move in moves:
            if move == "admit":
                try:
                    held.append(await limits.admit(caller))
                except RateLimited:
                    assert len(held) == limit
            elif move == "release" and held:
                spent.append(held.pop())
                spent[-1].release()
            elif spent:
                spent[-1].release()
            assert limits.running("a") == len(held) <= limit
        for permit in held:
            permit.release()
        assert limits.running("a") == 0

    asyncio.run(play())
