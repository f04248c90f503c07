"""The fleet under any sequence of calls, outcomes, headers and waiting."""

from __future__ import annotations

import asyncio

from hypothesis import example, given
from hypothesis import strategies as st

from headgate.model.errors import OutOfMoney, Throttled, Unavailable
from headgate.model.quota import Quota, Room
from headgate.routing.breaker import Breakers, Rules
from headgate.routing.buckets import MINUTE, Bucket
from headgate.routing.concurrency import LEAST, Gate
from headgate.routing.fleet import Fleet, Limits, Place

RPM, TPM = 5, 1_000


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.integers(0, 1_500)),
            st.tuples(st.just("use"), st.integers(0, 300)),
            st.tuples(st.just("wait"), st.floats(0, 40)),
            st.tuples(st.just("told"), st.integers(0, 4)),
        ),
        max_size=120,
    )
)
@example([("take", 900), ("take", 0), ("use", 0), ("use", 0), ("take", 101)])
def test_a_bucket_never_gives_out_more_than_a_minute_takes_nor_than_the_provider_said_was_left(moves: list) -> None:
    now, bucket = 50.0, Bucket(RPM, TPM)
    sent: list[list[float]] = []
    taken = []
    left, until = 0, float("-inf")
    for move, value in moves:
        if move == "wait":
            now += value
        elif move == "take" and bucket.wait(value, now) == 0:
            assert now >= until or left > 0
            left -= 1
            sent.append([now, min(value, TPM)])
            taken.append((bucket.take(value, now), sent[-1]))
            recent = [tokens for at, tokens in sent if at > now - MINUTE]
            assert len(recent) <= RPM
            assert sum(recent) <= TPM
        elif move == "use" and taken:
            request, counted = taken.pop()
            counted[1] = min(value, counted[1])
            bucket.used(request, int(counted[1]), now)
        elif move == "told" and taken:
            request, _ = taken[-1]
            bucket.told(Quota(requests=Room(value, 20.0)), request, now)
            left, until = value - (len(sent) - request.requests_before), now + 20.0
    assert bucket.wait(0, now + 2 * MINUTE) == 0


@given(
    st.integers(1, 60),
    st.lists(st.sampled_from(["enter", "enter", "leave", "fast", "slow", "push", "bind", "free"]), max_size=400),
)
def test_a_gate_keeps_its_limit_within_bounds_and_lets_in_no_more(most: int, moves: list[str]) -> None:
    async def play() -> None:
        gate = Gate(most)
        for move in moves:
            if move == "enter":
                room = gate.inside < gate.limit
                assert gate.enter() == room
            elif move == "leave" and gate.inside:
                gate.leave()
            elif move in ("fast", "slow"):
                gate.answered(0.1 if move == "fast" else 30.0)
            elif move == "push":
                gate.pushed_back()
            elif move in ("bind", "free"):
                gate.bind(3 if move == "bind" else None)
            assert min(3, LEAST, most) <= gate.limit <= most

    asyncio.run(play())


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200), st.integers(1, 4))
def test_never_more_than_half_are_set_back_because_of_how_they_compare(calls: list, among: int) -> None:
    fleet = Fleet(Breakers(Rules(failures=10**6, calls=10**6), clock=lambda: 0.0), clock=lambda: 0.0)

    async def play() -> None:
        for name, failed in calls:
            place = await fleet.enter(name, tokens=0, patience=0.0)
            assert isinstance(place, Place)
            if failed:
                place.failed(Unavailable("down"))
            else:
                place.succeeded(0)
            place.leave()

    asyncio.run(play())
    ranks = fleet.ranks("abcd"[:among])
    assert 2 * sum(rank > 0 for rank in ranks.values()) <= among


@given(
    st.lists(
        st.sampled_from(["enter", "enter", "ok", "fail", "fail", "throttled", "broke", "away", "wait", "long"]),
        max_size=120,
    )
)
def test_one_probe_at_a_time_and_every_place_is_given_back(moves: list[str]) -> None:
    now = 0.0
    rules = Rules(failures=2, calls=4, probe_lease=10**6)
    fleet = Fleet(
        Breakers(rules, clock=lambda: now, random=lambda: 0.0), {"a": Limits(concurrency=6)}, clock=lambda: now
    )
    errors = {"fail": Unavailable("down"), "throttled": Throttled("no", retry_after=3.0), "broke": OutOfMoney("pay")}

    async def play() -> None:
        nonlocal now
        places: list[Place] = []
        for move in moves:
            if move == "enter":
                half_open = fleet.breakers.state("a") == "half_open"
                found = await fleet.enter("a", tokens=0, patience=0.0)
                if isinstance(found, Place):
                    assert not (half_open and any(place.trial for place in places)), "exactly one probe"
                    assert found.trial == half_open
                    places.append(found)
            elif move in ("wait", "long"):
                now += 6.0 if move == "wait" else 2_000.0
            elif places:
                place = places.pop()
                if move == "ok":
                    place.succeeded(0)
                elif move in errors:
                    place.failed(errors[move])
                place.leave()
            assert fleet.health("a")["inside"] == len(places) <= 6
        for place in places:
            place.leave()
        now += 5_000.0
        assert isinstance(await fleet.enter("a", tokens=0, patience=0.0), Place), "it is never stuck"

    asyncio.run(play())
