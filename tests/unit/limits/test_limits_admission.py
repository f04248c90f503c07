"""Who is let in, who is told to wait, and for how long."""

from __future__ import annotations

import pytest

from headgate.limits.limits import Limits, RateState, Taken
from headgate.limits.memory import MemoryCounters
from headgate.model.errors import RateLimited
from headgate.model.tenancy import Policy, Principal


def caller(tenant: str = "acme", **policy) -> Principal:
    return Principal(tenant=tenant, policy=Policy(**policy))


async def take(counters: MemoryCounters, key: str, limit: int) -> Taken:
    return await counters.take(key, places=1_000, limit=limit, per_seconds=60)


def limits() -> Limits:
    return Limits(MemoryCounters(clock=lambda: 0))


async def test_a_permit_tells_what_is_left_of_the_minute() -> None:
    permit = await limits().admit(caller(rpm=120))
    assert permit.rate == RateState(limit=120, remaining=119, reset_seconds=0.5)


async def test_too_many_in_a_minute_are_told_how_long_to_wait() -> None:
    door = limits()
    for _ in range(120):
        (await door.admit(caller(rpm=120))).release()
    with pytest.raises(RateLimited, match="120 a minute") as caught:
        await door.admit(caller(rpm=120))
    assert caught.value.retry_after == 0.5
    assert door.running("acme") == 0


async def test_too_many_at_the_same_time_are_refused_until_one_is_released() -> None:
    door = limits()
    first, _second = [await door.admit(caller(concurrency=2)) for _ in range(2)]
    with pytest.raises(RateLimited, match="same time: the limit is 2") as caught:
        await door.admit(caller(concurrency=2))
    assert caught.value.retry_after
    first.release()
    assert (await door.admit(caller(concurrency=2))).rate.remaining == 117, "a refused call took nothing of the rate"


async def test_a_permit_is_released_once_however_often_it_is_asked() -> None:
    door = limits()
    first, _second = [await door.admit(caller()) for _ in range(2)]
    first.release()
    first.release()
    assert door.running("acme") == 1


async def test_tenants_do_not_take_each_others_places() -> None:
    door = limits()
    await door.admit(caller("a", concurrency=1))
    await door.admit(caller("b", concurrency=1))


@pytest.mark.parametrize("policy", [{"rpm": 0}, {"concurrency": 0}])
async def test_zero_admits_nothing(policy) -> None:
    with pytest.raises(RateLimited):
        await limits().admit(caller(**policy))


async def test_idle_keys_are_dropped_and_their_number_is_bounded() -> None:
    now = [0]
    counters = MemoryCounters(most_keys=100, clock=lambda: now[0])
    for number in range(1_000):
        now[0] += 10**6
        await take(counters, f"tenant-{number}", 60)
    assert len(counters) <= 3
    for number in range(1_000):
        await take(counters, f"busy-{number}", 1)
    assert len(counters) <= 100


async def test_a_busy_key_survives_the_arrival_of_others() -> None:
    counters = MemoryCounters(most_keys=100, clock=lambda: 0)
    await take(counters, "busy", 1)
    for number in range(50):
        await take(counters, f"other-{number}", 1)
    assert not (await take(counters, "busy", 1)).allowed
