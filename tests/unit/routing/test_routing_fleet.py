"""The fleet: who goes first, who is set back, how much each is given, and what is told of it."""

from __future__ import annotations

import asyncio

import pytest

from headgate.model.errors import OutOfMoney, Refused, Rejected, Throttled, Unavailable
from headgate.model.quota import Quota, Room
from headgate.routing.breaker import Breakers
from headgate.routing.concurrency import LEAST, ROUND, Gate
from headgate.routing.fleet import Fleet, Limits, Place, Refusal


class World:
    """A fleet with a clock that only tests move."""

    def __init__(self, chance: float = 0.0, **limits: Limits) -> None:
        self.now = 1_000.0
        self.chance = chance
        self.alarms: list[tuple[str, str]] = []
        self.fleet = Fleet(
            Breakers(clock=lambda: self.now, random=lambda: 0.0),
            limits,
            clock=lambda: self.now,
            random=lambda: self.chance,
            on_alarm=lambda *alarm: self.alarms.append(alarm),
        )

    async def place(self, name: str = "a", tokens: int = 0) -> Place:
        place = await self.fleet.enter(name, tokens=tokens, patience=0.0)
        assert isinstance(place, Place), place
        return place

    async def refusal(self, name: str = "a", tokens: int = 0) -> Refusal:
        refusal = await self.fleet.enter(name, tokens=tokens, patience=0.0)
        assert isinstance(refusal, Refusal)
        return refusal

    async def call(self, name: str = "a", error: Exception | None = None, seconds: float = 0.1) -> None:
        place = await self.place(name)
        if error is None:
            place.answered(seconds, stream=False)
            place.succeeded(0)
        else:
            place.failed(error)
        place.leave()


async def test_a_pool_shares_its_load_by_weight() -> None:
    world = World(a=Limits(weight=3.0))
    firsts = []
    for share in range(8):
        world.chance = share / 8
        firsts.append(world.fleet.ordered(("a", "b"), [("a", "b")])[0])
    assert firsts == ["a"] * 6 + ["b"] * 2


async def test_one_that_is_clearly_slower_busier_or_failing_yields_in_its_pool_and_nobody_outside_it_moves() -> None:
    world = World()
    await world.call("b", seconds=1.0)
    await world.call("c", seconds=0.1)
    world.chance = 0.0
    assert world.fleet.ordered(("x", "b", "y", "c"), [("b", "c")]) == ("x", "c", "y", "b")
    world.now += 1_000
    assert world.fleet.ordered(("x", "b", "y", "c"), [("b", "c")]) == ("x", "b", "y", "c"), (
        "what is long past is forgotten"
    )
    places = [await world.place("b") for _ in range(3)]
    assert world.fleet.ordered(("b", "c"), [("b", "c")]) == ("c", "b")
    for place in places:
        place.leave()


async def test_a_deployment_that_fails_much_more_than_its_peers_is_planned_after_them_until_that_is_long_past() -> None:
    world = World()
    for turn in range(40):
        await world.call("b")
        await world.call("a", error=Unavailable("down") if turn % 3 == 0 else None)
    assert world.fleet.ranks(["a", "b", "c"]) == {"a": 1, "b": 0, "c": 0}
    assert world.fleet.ranks(["a"]) == {"a": 0}, "there is nobody to compare it with"
    world.now += 120
    assert world.fleet.ranks(["a", "b"]) == {"a": 0, "b": 0}


async def test_what_a_minute_takes_is_not_exceeded_and_the_refusal_says_when_to_come_back() -> None:
    world = World(a=Limits(rpm=2, tpm=1_000))
    (await world.place(tokens=400)).leave()
    refusal = await world.refusal(tokens=700)
    assert (refusal.label, refusal.status) == ("quota_used_up", 429)
    assert 0 < refusal.wait <= 64
    (await world.place(tokens=600)).leave()
    assert (await world.refusal()).label == "quota_used_up"
    world.now += 64
    (await world.place(tokens=5_000)).leave()


async def test_tokens_that_an_answer_did_not_use_are_given_back() -> None:
    world = World(a=Limits(tpm=1_000))
    place = await world.place(tokens=900)
    assert (await world.refusal(tokens=900)).label == "quota_used_up"
    place.succeeded(50)
    place.leave()
    (await world.place(tokens=900)).leave()


async def test_what_the_provider_says_is_left_is_all_that_is_sent_until_its_limit_is_whole_again() -> None:
    world = World()
    first, second = await world.place(), await world.place()
    first.told(Quota(requests=Room(2, 30.0)))
    third = await world.place()
    assert (await world.refusal()).wait == pytest.approx(30.0), "two were left, and two have been sent since"
    for place in (first, second, third):
        place.leave()
    world.now += 30
    (await world.place()).leave()


async def test_no_money_shuts_a_deployment_for_long_and_alarms_and_bad_credentials_only_alarm_once_a_minute() -> None:
    world = World()
    await world.call(error=OutOfMoney("pay"))
    assert (await world.refusal()).label == "breaker_open"
    world.now += 1_700
    assert (await world.refusal()).label == "breaker_open"
    world.now += 200
    await world.call()
    assert world.fleet.breakers.state("a") == "closed"
    for _ in range(10):
        await world.call("b", error=Refused("who are you"))
    assert world.fleet.breakers.state("b") == "closed"
    assert world.alarms == [("a", "upstream_out_of_money"), ("b", "upstream_refused")]
    world.now += 61
    await world.call("b", error=Refused("who are you"))
    assert len(world.alarms) == 3


async def test_what_is_wrong_with_a_request_says_nothing_of_the_deployment() -> None:
    world = World()
    for _ in range(50):
        await world.call(error=Rejected("bad"))
    assert world.fleet.health("a").items() >= {"state": "closed", "errors": 0.0, "failures": 0}.items()


async def test_a_probe_whose_caller_went_away_makes_room_for_another() -> None:
    world = World()
    for _ in range(5):
        await world.call(error=Unavailable("down"))
    world.now += 10
    probe = await world.place()
    assert probe.trial
    assert (await world.refusal()).label == "breaker_open"
    probe.leave()
    probe.leave()
    await world.call()
    assert world.fleet.breakers.state("a") == "closed"


async def test_a_place_that_was_not_used_is_not_counted() -> None:
    world = World(a=Limits(rpm=1))
    place = await world.place()
    place.not_sent()
    place.leave()
    (await world.place()).leave()


async def test_a_full_gate_is_waited_for_in_a_short_line_and_then_given_up() -> None:
    world = World(a=Limits(concurrency=2))
    inside = [await world.place() for _ in range(2)]
    waiting = asyncio.create_task(world.fleet.enter("a", tokens=0, patience=5.0))
    await asyncio.sleep(0)
    assert (await world.fleet.enter("a", tokens=0, patience=5.0)).label == "deployment_busy", "the line is full"
    inside.pop().leave()
    place = await waiting
    assert isinstance(place, Place)
    late = asyncio.create_task(world.fleet.enter("a", tokens=0, patience=5.0))
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    for one in (place, *inside):
        one.leave()
    assert world.fleet.health("a")["inside"] == 0


async def test_the_limit_falls_when_many_are_throttled_grows_while_it_is_used_and_ignores_a_failure_now_and_then() -> (
    None
):
    gate = Gate(100)
    for _ in range(60):
        gate.enter()
    for turn in range(10 * ROUND):
        gate.answered(0.1) if turn % ROUND else gate.pushed_back()
    assert gate.limit == 100
    for _ in range(ROUND):
        gate.pushed_back()
    assert gate.limit == 54, "a tenth below what was inside"
    for _ in range(50 * ROUND):
        gate.pushed_back()
    assert gate.limit >= LEAST
    low = gate.limit
    for _ in range(ROUND):
        gate.answered(0.1)
    assert gate.limit == low + 1


async def test_a_server_whose_memory_fills_up_is_given_fewer_attempts_at_a_time() -> None:
    world = World()
    limits = []
    for share in (0.0, 0.5, 0.9, 1.0, None):
        world.fleet.filled("a", share)
        limits.append(world.fleet.health("a")["limit"])
    assert limits == [12, 6, 1, 1, 10_000]


async def test_throttling_does_not_count_as_failing() -> None:
    world = World()
    for _ in range(4):
        await world.call(error=Throttled("slow down"))
    assert world.fleet.health("a")["errors"] == 0.0
