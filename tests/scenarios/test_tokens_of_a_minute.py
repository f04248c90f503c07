"""Tokens a minute: counted like money, told in headers, never written down."""

from __future__ import annotations

import asyncio

import pytest

from headgate.limits.limits import RateState
from headgate.model.errors import RateLimited
from headgate.model.tenancy import Principal
from headgate.providers.scripted import ScriptedProvider, answer
from tests.scenarios.house import CALLER, House, ask, caller

MINUTE = 1_000_020.0
"""The beginning of one, unix seconds."""

TAKEN = 9 + 100
"""Tokens that a call holds: its likely prompt, and all that it may answer."""


class Clock:
    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


async def told(house: House, who: Principal, text: str = "Where is my parcel?") -> None:
    async with await house.gateway.chat(who, ask(text)) as reply:
        await reply.completion()
    await house.flown()


async def test_what_is_used_up_is_told_until_the_minute_is_over() -> None:
    clock = Clock(MINUTE + 15)
    house, who = House(now=clock), caller(tpm=TAKEN + 10)
    await told(house, who)
    assert house.gateway.tokens(who) == RateState(TAKEN + 10, TAKEN + 10 - 11, 45.0)
    with pytest.raises(RateLimited) as limited:
        await told(house, who, "Where is my Parcel?")
    error = limited.value
    assert (error.status, error.type, error.code, error.retryable) == (429, "tokens", "rate_limit_exceeded", True)
    assert (error.retry_after, error.limit, error.reset) == (45.0, TAKEN + 10, 45.0)
    clock.at = MINUTE + 60
    assert house.gateway.tokens(who) == RateState(TAKEN + 10, TAKEN + 10, 60.0)
    await told(house, who, "Where is my Parcel?")


async def test_calls_in_flight_hold_the_tokens_that_they_may_use() -> None:
    gate = asyncio.Event()
    house, who = House({"one": ScriptedProvider([gate, *answer("Hello.")])}), caller(tpm=TAKEN + 20)
    first = await house.gateway.chat(who, ask())
    while house.ledger.open_reservations() == 0:
        await asyncio.sleep(0)
    rate = house.gateway.tokens(who)
    assert rate is not None
    assert rate.remaining == 20
    with pytest.raises(RateLimited):
        await told(house, who, "Where is my Parcel?")
    gate.set()
    async with first:
        await first.completion()
    await told(house, who, "Where is my Parcel?")


async def test_who_has_no_limit_is_told_of_none() -> None:
    house = House()
    await told(house, CALLER)
    assert house.gateway.tokens(CALLER) is None


async def test_a_refusal_for_tokens_costs_nothing_and_leaves_nothing_behind() -> None:
    house, who = House(), caller(tpm=5)
    with pytest.raises(RateLimited):
        await told(house, who)
    assert house.provider.calls == []
    assert await house.settled() == 0
    assert house.ledger.open_reservations() == 0
    assert house.notes.records[0].status == 429
