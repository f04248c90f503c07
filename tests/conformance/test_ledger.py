"""What every Ledger must do. To check your own: subclass LedgerConformance and give it a `make` fixture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from headgate.budget.budget import Balance, Entry, Hold, Ledger, Scope, UsageQuery
from headgate.budget.memory import MemoryLedger
from headgate.budget.sqlite import SqliteLedger
from headgate.model.errors import BudgetExceeded, InvalidRequest, Overloaded
from headgate.model.money import LARGEST, Usage

NOON = 1_795_176_000.0
"""2026-11-20T12:00:00Z."""

HOUR = "hour:2026-11-20T12"
Now = Callable[[], float]


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def entry(amount: int = 0, **fields: Any) -> Entry:
    return Entry(**{"tenant": "acme", "amount": amount, **fields})


def hold(id: str, amount: int, *, cap: int | None = 100, total: int | None = None, lease: float = 900.0) -> Hold:
    scopes = (Scope("tenant:acme", HOUR, cap), Scope("tenant:acme", "total", total))
    return Hold(id=id, scopes=scopes, amount=amount, lease=lease, entry=entry())


class LedgerConformance:
    """The guarantees in the docstring of Ledger, each as a test."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    async def ledger(self, make: Callable[[Now], Ledger], clock: Clock) -> AsyncIterator[Ledger]:
        ledger = make(clock)
        yield ledger
        await ledger.close()

    async def hour(self, ledger: Ledger) -> Balance:
        return await ledger.balance("tenant:acme", HOUR)

    async def test_a_reservation_is_held_on_every_scope(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        assert await self.hour(ledger) == Balance(spent=0, held=60)
        assert await ledger.balance("tenant:acme", "total") == Balance(spent=0, held=60)
        assert ledger.open_reservations() == 1

    async def test_a_settlement_replaces_the_hold(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        await ledger.dispatched("a")
        ledger.settle("a", entry(25))
        assert await self.hour(ledger) == Balance(spent=25, held=0)
        assert ledger.open_reservations() == 0

    async def test_a_release_gives_the_hold_back(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        ledger.release("a")
        assert await self.hour(ledger) == Balance()
        assert ledger.open_reservations() == 0

    async def test_what_is_spent_refuses_for_good_and_says_why(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60_000_000_000, cap=100_000_000_000))
        ledger.settle("a", entry(60_000_000_000))
        with pytest.raises(BudgetExceeded) as caught:
            await ledger.reserve(hold("b", 41_000_000_000, cap=100_000_000_000))
        assert caught.value.code == "budget_exceeded"
        assert not caught.value.retryable
        for words in ("this hour", "60.00 of 100.00 USD", "41.00 USD", "2026-11-20T13:00:00Z"):
            assert words in caught.value.message

    async def test_what_is_held_refuses_for_now(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        with pytest.raises(BudgetExceeded) as caught:
            await ledger.reserve(hold("b", 41))
        assert caught.value.code == "budget_held"
        assert caught.value.retryable
        assert caught.value.retry_after

    async def test_spent_money_is_named_before_held_money(self, ledger: Ledger) -> None:
        """Of two scopes that refuse, the one that cannot be waited for is told."""
        await ledger.reserve(hold("a", 60))
        await ledger.reserve(hold("b", 10))
        ledger.settle("b", entry(10))
        with pytest.raises(BudgetExceeded) as caught:
            await ledger.reserve(hold("c", 50, cap=100, total=55))
        assert caught.value.code == "budget_exceeded"
        assert "The total budget" in caught.value.message

    async def test_a_call_dearer_than_its_cap_is_refused_for_good(self, ledger: Ledger) -> None:
        with pytest.raises(BudgetExceeded) as caught:
            await ledger.reserve(hold("a", 101))
        assert caught.value.code == "budget_exceeded"

    async def test_exactly_the_cap_fits(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 100))
        assert (await self.hour(ledger)).held == 100

    async def test_a_refusal_on_one_scope_holds_nothing_on_the_others(self, ledger: Ledger) -> None:
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(hold("a", 60, total=59))
        assert await self.hour(ledger) == Balance()
        assert ledger.open_reservations() == 0

    async def test_a_scope_without_a_cap_is_counted(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 10**12, cap=None))
        ledger.settle("a", entry(10**12))
        assert (await self.hour(ledger)).spent == 10**12

    async def test_a_repeated_reservation_holds_nothing_more(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        await ledger.reserve(hold("a", 60))
        assert (await self.hour(ledger)).held == 60

    async def test_a_reservation_repeated_after_its_end_holds_nothing(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        ledger.settle("a", entry(5))
        await ledger.reserve(hold("a", 60))
        assert await self.hour(ledger) == Balance(spent=5, held=0)

    async def test_every_ending_counts_once_however_often_it_is_told(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        await ledger.dispatched("a")
        await ledger.dispatched("a")
        for amount in (25, 25, 30):
            ledger.settle("a", entry(amount))
        ledger.release("a")
        await ledger.dispatched("a")
        assert await self.hour(ledger) == Balance(spent=25, held=0)

    async def test_an_overrun_is_recorded_in_full(self, ledger: Ledger) -> None:
        """The provider has been paid: the truth goes over the cap, the next call does not."""
        await ledger.reserve(hold("a", 60))
        ledger.settle("a", entry(130))
        assert await self.hour(ledger) == Balance(spent=130, held=0)
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(hold("b", 0))

    async def test_a_settlement_after_a_release_adds_what_was_spent_once(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        ledger.release("a")
        ledger.settle("a", entry(25))
        ledger.settle("a", entry(25))
        assert await self.hour(ledger) == Balance(spent=25, held=0)

    async def test_unknown_reservations_cannot_be_dispatched(self, ledger: Ledger) -> None:
        with pytest.raises(Overloaded):
            await ledger.dispatched("never reserved")

    async def test_a_released_reservation_cannot_be_dispatched(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        ledger.release("a")
        with pytest.raises(Overloaded):
            await ledger.dispatched("a")

    async def test_a_dispatched_reservation_cannot_be_given_back(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        await ledger.dispatched("a")
        ledger.release("a")
        assert await self.hour(ledger) == Balance(spent=0, held=60)
        ledger.settle("a", entry(25))
        assert await self.hour(ledger) == Balance(spent=25, held=0)

    async def test_endings_of_unknown_reservations_change_nothing(self, ledger: Ledger) -> None:
        ledger.settle("x", entry(25))
        ledger.release("x")
        assert await self.hour(ledger) == Balance()

    async def test_an_overdue_reservation_that_never_left_is_released(self, ledger: Ledger, clock: Clock) -> None:
        await ledger.reserve(hold("a", 60, lease=10))
        clock.now += 9.9
        assert await ledger.expire() == 0
        clock.now += 0.1
        assert await ledger.expire() == 1
        assert await self.hour(ledger) == Balance()

    async def test_an_overdue_reservation_that_left_is_spent_at_its_hold(self, ledger: Ledger, clock: Clock) -> None:
        await ledger.reserve(hold("a", 60, lease=10))
        await ledger.dispatched("a")
        clock.now += 10
        assert await ledger.expire() == 1
        ledger.settle("a", entry(25))
        assert await self.hour(ledger) == Balance(spent=60, held=0)
        assert [row.cost for row in await ledger.usage(UsageQuery())] == [60]

    async def test_a_clock_that_steps_back_ends_nothing(self, ledger: Ledger, clock: Clock) -> None:
        await ledger.reserve(hold("a", 60, lease=10))
        clock.now -= 3_600
        assert await ledger.expire() == 0
        assert (await self.hour(ledger)).held == 60

    @pytest.mark.parametrize("amount", [-1, 1.5, True, LARGEST + 1, "1", None])
    async def test_what_is_no_amount_changes_nothing(self, ledger: Ledger, amount: Any) -> None:
        with pytest.raises(ValueError):
            await ledger.reserve(hold("a", amount))
        await ledger.reserve(hold("b", 60))
        with pytest.raises(ValueError):
            ledger.settle("b", entry(amount))
        with pytest.raises(ValueError):
            ledger.note("n", entry(amount))
        assert await self.hour(ledger) == Balance(spent=0, held=60)
        assert await ledger.usage(UsageQuery()) == []

    async def test_the_largest_amounts_add_up_exactly(self, ledger: Ledger) -> None:
        for id in ("a", "b", "c"):
            await ledger.reserve(hold(id, 1, cap=None))
            ledger.settle(id, entry(LARGEST, saved=LARGEST))
            if id == "a":
                with pytest.raises(BudgetExceeded):
                    await ledger.reserve(hold("more", 1, cap=None))
                break
        ledger.note("n", entry(LARGEST, saved=LARGEST))
        (row,) = await ledger.usage(UsageQuery())
        assert (row.cost, row.saved) == (2 * LARGEST, 2 * LARGEST)

    async def test_no_number_of_calls_at_once_exceeds_a_cap(self, ledger: Ledger) -> None:
        async def call(id: str) -> bool:
            try:
                await ledger.reserve(hold(id, 7))
            except BudgetExceeded:
                return False
            await ledger.dispatched(id)
            balance = await self.hour(ledger)
            assert balance.spent + balance.held <= 100
            ledger.settle(id, entry(7))
            return True

        admitted = await asyncio.gather(*(call(f"c{number}") for number in range(200)))
        assert sum(admitted) == 14
        assert await self.hour(ledger) == Balance(spent=98, held=0)

    async def test_usage_is_summed_by_group(self, ledger: Ledger, clock: Clock) -> None:
        used = Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=3)
        for id, model, amount in (("a", "small", 1), ("b", "large", 20), ("c", "small", 3)):
            await ledger.reserve(hold(id, 30))
            ledger.settle(id, entry(amount, model=model, usage=used))
        clock.now += 86_400
        ledger.note("d", entry(0, model="small", source="exact", saved=4))
        rows = await ledger.usage(UsageQuery(group_by=("model", "day")))
        assert [(row.group, row.requests, row.cost, row.saved) for row in rows] == [
            ({"model": "large", "day": "2026-11-20"}, 1, 20, 0),
            ({"model": "small", "day": "2026-11-20"}, 2, 4, 0),
            ({"model": "small", "day": "2026-11-21"}, 1, 0, 4),
        ]
        assert (rows[1].prompt_tokens, rows[1].completion_tokens, rows[1].cached_tokens) == (20, 10, 6)

    async def test_usage_is_a_tenants_own_and_of_the_time_asked_for(self, ledger: Ledger, clock: Clock) -> None:
        ledger.note("a", entry(tenant="acme", user="ann", saved=1))
        ledger.note("b", entry(tenant="other", saved=2))
        clock.now += 10
        ledger.note("c", entry(tenant="acme", saved=4))
        by_user = UsageQuery(tenant="acme", group_by=("user",))
        assert [(row.group["user"], row.saved) for row in await ledger.usage(by_user)] == [("", 4), ("ann", 1)]
        late = UsageQuery(tenant="acme", since=NOON + 10, until=NOON + 10.5)
        assert [row.saved for row in await ledger.usage(late)] == [4]
        early = UsageQuery(since=NOON, until=NOON + 10)
        assert [row.saved for row in await ledger.usage(early)] == [3]

    async def test_usage_of_nothing_is_empty(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        assert await ledger.usage(UsageQuery()) == []
        assert await ledger.usage(UsageQuery(group_by=("tenant",))) == []

    async def test_usage_takes_no_group_but_the_known_ones(self, ledger: Ledger) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await ledger.usage(UsageQuery(group_by=("1; DROP TABLE journal",)))
        assert caught.value.param == "group_by"

    async def test_a_repeated_note_is_one_row(self, ledger: Ledger) -> None:
        ledger.note("a", entry(saved=4))
        ledger.note("a", entry(saved=4))
        assert [(row.requests, row.saved) for row in await ledger.usage(UsageQuery())] == [(1, 4)]


class TestMemoryLedger(LedgerConformance):
    @pytest.fixture
    def make(self) -> Callable[[Now], Ledger]:
        return lambda now: MemoryLedger(now=now)


class TestSqliteLedger(LedgerConformance):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[Now], Ledger]:
        return lambda now: SqliteLedger(tmp_path / "ledger.db", now=now)
