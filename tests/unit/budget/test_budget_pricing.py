"""Prices as they change while the gateway runs."""

from __future__ import annotations

import pytest

from headgate.budget.memory import MemoryLedger
from headgate.budget.prices import PriceTable
from headgate.budget.pricing import Pricing
from headgate.model.errors import InvalidRequest, NotFound
from headgate.model.money import Price

LAST_SECOND_OF_2026 = 1_798_761_599.0


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = LAST_SECOND_OF_2026

    def __call__(self) -> float:
        return self.now


def pricing(ledger: MemoryLedger, clock: Clock, told: list[float]) -> Pricing:
    """Prices for one provider; `told` grows whenever they may have changed."""
    table = PriceTable.load(now=clock)
    models = {"mine": ("google", "gemini-3.6-flash")}
    return Pricing(
        table, ledger, models=models, providers=("google",), on_change=lambda: told.append(clock.now), now=clock
    )


async def test_a_dated_price_begins_on_its_day_while_the_gateway_runs() -> None:
    clock, told = Clock(), []
    known = pricing(MemoryLedger(), clock, told)
    before = known.table.find("google", "gemini-3.6-flash")
    await known.refresh()
    clock.now += 1
    await known.refresh()
    await known.refresh()
    after = known.table.find("google", "gemini-3.6-flash")
    assert before is not None
    assert after is not None
    assert (told, after.input) == ([clock.now], 2 * before.input)


async def test_what_one_process_sets_another_learns_and_is_told_of_once() -> None:
    ledger, clock, here, there = MemoryLedger(), Clock(), [], []
    one, other = pricing(ledger, clock, here), pricing(ledger, clock, there)
    price = Price(input=1, output=2)
    await one.set("google", "gemini-3.6-flash", price, by="me")
    assert (len(here), there) == (1, [])
    await other.refresh()
    await other.refresh()
    assert (other.table.find("google", "gemini-3.6-flash", "mine"), len(there)) == (price, 1)
    assert one.table.digest == other.table.digest
    await other.unset("google", "gemini-3.6-flash")
    await one.refresh()
    assert one.table.changed() == ()


async def test_only_what_was_set_can_be_unset_and_only_for_providers_there_are() -> None:
    ledger = MemoryLedger()
    known = pricing(ledger, Clock(), [])
    with pytest.raises(NotFound):
        await known.unset("google", "gemini-3.6-flash")
    with pytest.raises(NotFound):
        await known.set("nobody", "x", Price(input=1, output=1))
    with pytest.raises(InvalidRequest):
        await known.set("google", "", Price(input=1, output=1))
    with pytest.raises(InvalidRequest):
        await known.set("google", "x", Price(input=-1, output=1))
    assert await ledger.repricings() == (0, [])
