"""Hedges: a call that is slower than nearly all is made twice, within its route's share, and paid for twice."""

from __future__ import annotations

import asyncio

import pytest

from headgate.model.errors import AllFailed, Unavailable
from headgate.model.tenancy import Caps
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.routing.retries import RetryBudget
from tests.scenarios.house import CALLER, House, ask

PRACTICE = 20
ONE_CALL = 10 * 1_000 + 1 * 2_000


async def practised(one: list, two: list, *, stream: bool = False, **options) -> House:
    """A house whose first deployment has answered often enough for it to be known how long that takes; then it plays `one`."""
    house = House(
        {"one": ScriptedProvider(*[answer("Hello.")] * PRACTICE, *one), "two": ScriptedProvider(*two)},
        hedges={"auto": RetryBudget(share=0.05, reserve_per_second=0.0, clock=lambda: 0.0)},
        **options,
    )
    for number in range(PRACTICE):
        async with await house.gateway.chat(CALLER, ask(f"Question {'x' * number}", stream=stream)) as reply:
            await reply.completion()
    return house


@pytest.mark.parametrize("stream", [True, False])
async def test_the_second_answers_when_the_first_is_silent_and_both_are_in_the_journal(*, stream: bool) -> None:
    never = asyncio.Event()
    house = await practised([[never]], [answer("Second.")], stream=stream)
    async with await house.gateway.chat(CALLER, ask("Slow", stream=stream)) as reply:
        assert (await reply.completion()).text == "Second."
    rows = [(attempt.deployment, attempt.outcome) for attempt in reply.trail.attempts]
    assert sorted(rows) == [("one", "outrun"), ("two", "ok")]
    assert all(attempt.cost > 0 for attempt in reply.trail.attempts)
    assert await house.settled() == PRACTICE * ONE_CALL + sum(attempt.cost for attempt in reply.trail.attempts)
    assert house.ledger.open_reservations() == 0
    assert [provider.open for provider in house.providers.values()] == [0, 0], "the loser was cancelled"


async def test_the_first_answers_after_all_and_the_second_is_paid_for_its_prompt() -> None:
    never, soon = asyncio.Event(), asyncio.Event()
    house = await practised([[soon, *answer("First.")]], [[never]])
    reply = await house.gateway.chat(CALLER, ask("Slow"))
    async with reply:
        reading = asyncio.create_task(reply.completion())
        while not house.providers["two"].calls:
            await asyncio.sleep(0)
        soon.set()
        assert (await reading).text == "First."
    assert [(one.deployment, one.outcome) for one in sorted(reply.trail.attempts, key=lambda one: one.deployment)] == [
        ("one", "ok"),
        ("two", "outrun"),
    ]
    assert reply.trail.deployment == "one"


async def test_more_than_its_share_is_not_hedged() -> None:
    never, gate = asyncio.Event(), asyncio.Event()
    house = await practised([[never], [gate, *answer("First.")]], [answer("Second.")])
    async with await house.gateway.chat(CALLER, ask("Slow")) as reply:
        await reply.completion()
    async with await house.gateway.chat(CALLER, ask("Slow again")) as reply:
        reading = asyncio.create_task(reply.completion())
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(house.providers["two"].calls) == 1
        gate.set()
        assert (await reading).text == "First."


async def test_without_money_for_both_only_one_is_asked() -> None:
    gate = asyncio.Event()
    house = await practised(
        [[gate, *answer("First.")]], [answer("Second.")], caps=Caps(hour=PRACTICE * ONE_CALL + 350_000)
    )
    async with await house.gateway.chat(CALLER, ask("Slow")) as reply:
        reading = asyncio.create_task(reply.completion())
        for _ in range(50):
            await asyncio.sleep(0)
        assert house.providers["two"].calls == []
        gate.set()
        assert (await reading).text == "First."


async def test_when_both_fail_the_error_lists_both() -> None:
    gate = asyncio.Event()
    house = await practised([[gate, Unavailable("down")]], [[Unavailable("down")]])
    async with await house.gateway.chat(CALLER, ask("Slow")) as reply:
        reading = asyncio.create_task(reply.completion())
        while not house.providers["two"].calls:
            await asyncio.sleep(0)
        gate.set()
        with pytest.raises(AllFailed) as failed:
            await reading
    assert {row.deployment for row in failed.value.attempts} == {"one", "two"}
    assert house.ledger.open_reservations() == 0
    assert house.fleet.health("one")["inside"] == house.fleet.health("two")["inside"] == 0
