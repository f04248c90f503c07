"""What a tenant pays for an answer that nobody was asked for: nothing, a share, all of it or more, and never beyond its budget."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headgate.budget.budget import UsageRow
from headgate.model.errors import BudgetExceeded
from headgate.model.tenancy import Principal, Wishes
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.reply import Reply
from tests.scenarios.house import House, ask, caller

ONE_CALL = 10 * 1_000 + 1 * 2_000
HELD_FOR_ONE = 27_000 + 100 * 2_000


async def told(house: House, who: Principal, wishes: Wishes | None = None, **more: Any) -> Reply:
    async with await house.gateway.chat(who, ask(**more), wishes) as reply:
        await reply.completion()
    await house.flown()
    return reply


async def by_source(house: House) -> dict[str, UsageRow]:
    return {row.group["source"]: row for row in await house.journal("source")}


@pytest.mark.parametrize(("percent", "price"), [(0, 0), (30, 3_600), (100, ONE_CALL), (120, 14_400)])
async def test_a_hit_is_billed_at_the_tenants_percent_of_what_the_call_would_have_cost(
    percent: int, price: int
) -> None:
    house, who = House(), caller(hit_percent=percent)
    await told(house, who)
    reply = await told(house, who)
    assert (reply.source, reply.cost, reply.billed, reply.saved) == ("exact", 0, price, ONE_CALL)
    row = (await by_source(house))["exact"]
    assert (row.cost, row.billed, row.saved, row.requests) == (0, price, ONE_CALL, 1)
    assert (await house.ledger.balance("tenant:acme", "hour:1970-01-12T13")).spent == ONE_CALL + price
    assert house.ledger.open_reservations() == 0


@pytest.mark.parametrize("percent", [0, 30])
async def test_followers_of_a_shared_call_are_billed_like_hits(percent: int) -> None:
    house, who = House(), caller(hit_percent=percent)
    replies = await asyncio.gather(*(told(house, who) for _ in range(4)))
    assert sorted(reply.source for reply in replies) == ["coalesced"] * 3 + ["live"]
    rows = await by_source(house)
    assert (rows["live"].cost, rows["live"].billed) == (ONE_CALL, ONE_CALL)
    assert (rows["coalesced"].cost, rows["coalesced"].billed) == (0, 3 * ONE_CALL * percent // 100)
    assert rows["coalesced"].saved == 3 * ONE_CALL
    assert house.ledger.open_reservations() == 0


async def test_a_hit_that_the_budget_cannot_pay_is_refused_and_costs_nothing() -> None:
    house, who = House(), caller(hit_percent=50)
    await house.allow("tenant:acme", HELD_FOR_ONE)
    await told(house, who)
    for _ in range((HELD_FOR_ONE - ONE_CALL) // (ONE_CALL // 2)):
        await told(house, who)
    with pytest.raises(BudgetExceeded) as refused:
        await told(house, who)
    assert (refused.value.code, refused.value.retryable) == ("budget_exceeded", False)
    assert (await house.ledger.balance("tenant:acme", "hour:1970-01-12T13")).spent <= HELD_FOR_ONE
    assert house.notes.records[-1].status == 402
    assert house.ledger.open_reservations() == 0


async def test_a_hit_that_costs_nothing_is_given_when_the_budget_is_spent() -> None:
    house, who = House(), caller()
    await told(house, who)
    await house.allow("tenant:acme", ONE_CALL)
    assert (await told(house, who)).source == "exact"
    with pytest.raises(BudgetExceeded):
        await told(house, who, text="Something else?")


async def test_a_paid_hit_counts_on_the_users_budget_too() -> None:
    house, who, ann = House(), caller(hit_percent=100), Wishes(user="ann")
    await house.allow("user:acme/ann", 2 * ONE_CALL)
    await told(house, who)
    await told(house, who, ann)
    await told(house, who, ann)
    with pytest.raises(BudgetExceeded, match="user ann"):
        await told(house, who, ann)
    await told(house, who, Wishes(user="bob"))


async def test_a_hit_takes_no_tokens_of_the_minute() -> None:
    house, who = House(), caller(hit_percent=100, tpm=10)
    generous = caller(hit_percent=100)
    await told(house, generous)
    assert (await told(house, who)).source == "exact"


async def test_a_hit_of_a_route_is_given_when_a_degrading_budget_is_used_up() -> None:
    tiers: Any = {"low": ("small",), "medium": ("small",), "high": ("large",)}
    house = House({"small": ScriptedProvider(), "large": ScriptedProvider()}, tiers=tiers)
    who = caller(hit_percent=100)
    await told(house, who)
    await house.allow("tenant:acme", ONE_CALL, rule="degrade")
    assert (await told(house, who)).source == "exact"


async def test_who_reads_a_part_of_a_hit_and_hangs_up_has_had_it() -> None:
    house, who = House({"one": ScriptedProvider(answer("One ", "two ", "three."))}), caller(hit_percent=100)
    await told(house, who)
    async with await house.gateway.chat(who, ask(stream=True)) as reply:
        async for _ in reply.events():
            break
    rows = await by_source(house)
    assert rows["exact"].billed == rows["live"].cost > 0
    assert house.notes.records[-1].status == 499


async def test_who_follows_a_stream_and_hangs_up_pays_its_share_when_the_price_is_known() -> None:
    gate = asyncio.Event()
    events = answer("One ", "two.")
    house = House({"one": ScriptedProvider([events[0], gate, *events[1:]])})
    who = caller(hit_percent=50)
    leader = await house.gateway.chat(who, ask(stream=True))
    async with await house.gateway.chat(who, ask(stream=True)) as follower:
        async for _ in follower.events():
            break
    assert await by_source(house) == {}
    gate.set()
    async with leader:
        await leader.completion()
    await house.flown()
    rows = await by_source(house)
    assert rows["coalesced"].billed == rows["live"].cost // 2 > 0
    assert house.ledger.open_reservations() == 0


async def test_who_leaves_before_anything_was_given_pays_nothing() -> None:
    gate = asyncio.Event()
    house, who = House({"one": ScriptedProvider([gate, *answer("Hello.")])}), caller(hit_percent=100)
    leader = await house.gateway.chat(who, ask())
    (await house.gateway.chat(who, ask())).close()
    gate.set()
    async with leader:
        await leader.completion()
    await house.flown()
    assert set(await by_source(house)) == {"live"}


async def test_a_repeat_under_an_idempotency_key_is_an_answer_from_stock() -> None:
    house, who = House(), caller(hit_percent=30)
    once = Wishes(cache="no-store", idempotency_key="order-7")
    await told(house, who, once)
    reply = await told(house, who, once)
    assert (reply.cost, reply.billed) == (0, ONE_CALL * 30 // 100)
