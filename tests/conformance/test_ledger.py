"""What every Ledger must do. To check your own: subclass LedgerConformance and give it a `make` fixture.

One that outlives its process subclasses DurableConformance, and says in `killed` what a killed process leaves behind.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from headgate.budget.allowance import Allowance
from headgate.budget.budget import Alert, Balance, Change, Entry, Hold, Ledger, Match, Repricing, Scope, UsageQuery
from headgate.budget.memory import MemoryLedger
from headgate.budget.postgres import PostgresJournal
from headgate.budget.postgres_till import PostgresTill
from headgate.budget.redis import RedisTill
from headgate.budget.shared import SharedLedger
from headgate.budget.sqlite import SqliteLedger
from headgate.budget.till import Till
from headgate.budget.till_memory import MemoryTill
from headgate.model.errors import BudgetExceeded, InvalidRequest, Overloaded, RateLimited
from headgate.model.money import LARGEST, Price, Usage
from headgate.storage.postgres import Postgres
from headgate.storage.redis import Redis
from tests.journals import Onward, emptied, prepared
from tests.servers.postgres import PostgresServer
from tests.servers.redis import PATIENT, RedisCluster

NOON = 1_795_176_000.0
"""2026-11-20T12:00:00Z."""

HOUR = "hour:2026-11-20T12"
DAY_TOKENS = "tokens/day:2026-11-20"
MINUTE_TOKENS = "tokens/minute:2026-11-20T12:00"
USD = 1_000_000_000


class Make(Protocol):
    """Makes a ledger with a clock in unix seconds, and somebody to tell alerts to."""

    def __call__(self, now: Callable[[], float], on_alert: Callable[[Alert], None]) -> Ledger: ...


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def entry(amount: int = 0, **fields: Any) -> Entry:
    return Entry(**{"tenant": "acme", "amount": amount, **fields})


def used(prompt: int, completion: int = 0) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion)


def hold(
    id: str,
    amount: int,
    *further: Scope,
    cap: int | None = 100,
    total: int | None = None,
    least: int | None = None,
    lease: float = 900.0,
    tokens: int = 0,
    **fields: Any,
) -> Hold:
    scopes = (Scope("tenant:acme", HOUR, cap), Scope("tenant:acme", "total", total), *further)
    needed = amount if least is None else least
    return Hold(id=id, scopes=scopes, amount=amount, least=needed, lease=lease, tokens=tokens, entry=entry(0, **fields))


def allowed(cap: int, **fields: Any) -> Scope:
    """A scope under an allowance, as `terms` makes it."""
    allowance = Allowance(account="user:acme/ann", window="total", cap=cap, **fields)
    return Scope(allowance.account, "total", allowance.admits("total"), allowance)


class LedgerConformance:
    """The guarantees in the docstring of Ledger, each as a test."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def alerts(self) -> list[Alert]:
        return []

    @pytest.fixture
    async def ledger(self, make: Make, clock: Clock, alerts: list[Alert]) -> AsyncIterator[Ledger]:
        ledger = make(clock, alerts.append)
        yield ledger
        await ledger.close()

    async def hour(self, ledger: Ledger) -> Balance:
        return await ledger.balance("tenant:acme", HOUR)

    async def written(self, ledger: Ledger) -> None:
        """What waits to be written is written, and who has to be told was told."""
        await ledger.usage(UsageQuery())

    async def spend(self, ledger: Ledger, id: str, amount: int, *further: Scope, **fields: Any) -> None:
        """A call that costs what it holds."""
        await ledger.reserve(hold(id, amount, *further, cap=None, **fields))
        await ledger.dispatched(id)
        ledger.settle(id, [entry(amount, **fields)])

    # One call: held, then settled or given back.

    async def test_a_reservation_is_held_on_every_scope(self, ledger: Ledger) -> None:
        assert await ledger.reserve(hold("a", 60)) == 60
        assert await self.hour(ledger) == Balance(spent=0, held=60)
        assert await ledger.balance("tenant:acme", "total") == Balance(spent=0, held=60)
        assert ledger.open_reservations() == 1

    async def test_a_settlement_replaces_the_hold(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        await ledger.dispatched("a")
        ledger.settle("a", [entry(25)])
        assert await self.hour(ledger) == Balance(spent=25, held=0)
        assert ledger.open_reservations() == 0

    async def test_a_release_gives_the_hold_back(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        ledger.release("a")
        assert await self.hour(ledger) == Balance()
        assert ledger.open_reservations() == 0

    async def test_the_balance_can_be_peeked_at_without_waiting(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        assert ledger.peek("tenant:acme", HOUR) == await self.hour(ledger)
        assert ledger.peek("tenant:nobody", HOUR) == Balance()

    async def test_a_scope_without_a_cap_is_counted(self, ledger: Ledger) -> None:
        await self.spend(ledger, "a", 10**12)
        assert (await self.hour(ledger)).spent == 10**12

    async def test_exactly_the_cap_fits(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 100))
        assert (await self.hour(ledger)).held == 100

    async def test_what_costs_nothing_fits_where_nothing_is_left(self, ledger: Ledger) -> None:
        await self.spend(ledger, "a", 100)
        assert await ledger.reserve(hold("b", 0)) == 0

    async def test_no_number_of_calls_at_once_exceeds_a_cap(self, ledger: Ledger) -> None:
        async def call(id: str) -> bool:
            try:
                await ledger.reserve(hold(id, 7))
            except BudgetExceeded:
                return False
            await ledger.dispatched(id)
            balance = await self.hour(ledger)
            assert balance.spent + balance.held <= 100
            ledger.settle(id, [entry(7)])
            return True

        admitted = await asyncio.gather(*(call(f"c{number}") for number in range(200)))
        assert sum(admitted) == 14
        assert await self.hour(ledger) == Balance(spent=98, held=0)

    # How much is held: all that was asked for while much is left, as little as is needed near a cap.

    async def test_far_from_the_cap_all_that_was_asked_for_is_held(self, ledger: Ledger) -> None:
        assert await ledger.reserve(hold("a", 100, cap=800, least=10)) == 100

    async def test_near_the_cap_less_is_held_but_never_less_than_is_needed(self, ledger: Ledger) -> None:
        assert await ledger.reserve(hold("a", 500, cap=800, least=10)) == 100
        assert await ledger.reserve(hold("b", 500, cap=800, least=300)) == 300
        assert await self.hour(ledger) == Balance(held=400)

    async def test_one_call_with_a_huge_limit_keeps_nobody_out(self, ledger: Ledger) -> None:
        for number in range(20):
            await ledger.reserve(hold(f"c{number}", 10**9, cap=1_000, least=10))
        assert (await self.hour(ledger)).held <= 1_000

    async def test_calls_are_let_in_until_not_even_the_least_is_left(self, ledger: Ledger) -> None:
        for number in range(10):
            await ledger.reserve(hold(f"c{number}", 10, least=10))
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(hold("one more", 10, least=1))

    async def test_the_narrowest_scope_decides_how_much_is_held(self, ledger: Ledger) -> None:
        assert await ledger.reserve(hold("a", 500, cap=8_000, total=400, least=10)) == 50

    # Who is refused, and why.

    async def test_what_is_spent_refuses_for_good_and_says_why(self, ledger: Ledger) -> None:
        await self.spend(ledger, "a", 60 * USD)
        with pytest.raises(BudgetExceeded) as caught:
            await ledger.reserve(hold("b", 41 * USD, cap=100 * USD))
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

    async def test_who_is_refused_for_now_gets_in_when_the_others_have_ended(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(hold("b", 41))
        ledger.settle("a", [entry(59)])
        assert await ledger.reserve(hold("b", 41)) == 41

    async def test_a_call_that_will_fit_exactly_is_refused_for_now(self, ledger: Ledger) -> None:
        await self.spend(ledger, "a", 40)
        await ledger.reserve(hold("b", 1))
        with pytest.raises(BudgetExceeded) as caught:
            await ledger.reserve(hold("c", 60))
        assert caught.value.code == "budget_held"

    async def test_spent_money_is_named_before_held_money(self, ledger: Ledger) -> None:
        """Of two scopes that refuse, the one that cannot be waited for is told."""
        await ledger.reserve(hold("a", 60))
        await self.spend(ledger, "b", 10)
        with pytest.raises(BudgetExceeded) as caught:
            await ledger.reserve(hold("c", 50, cap=100, total=55))
        assert caught.value.code == "budget_exceeded"
        assert "The total budget" in caught.value.message

    async def test_a_call_dearer_than_its_cap_is_refused_for_good(self, ledger: Ledger) -> None:
        with pytest.raises(BudgetExceeded) as caught:
            await ledger.reserve(hold("a", 101))
        assert caught.value.code == "budget_exceeded"

    async def test_a_refusal_on_one_scope_holds_nothing_on_the_others(self, ledger: Ledger) -> None:
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(hold("a", 60, total=59))
        assert await self.hour(ledger) == Balance()
        assert ledger.open_reservations() == 0

    async def test_a_suspended_scope_lets_nothing_in_not_even_what_is_free(self, ledger: Ledger) -> None:
        with pytest.raises(BudgetExceeded, match="suspended") as caught:
            await ledger.reserve(hold("a", 0, allowed(10, suspended=True)))
        assert not caught.value.retryable

    async def test_a_changed_cap_is_that_of_the_next_call(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        await ledger.reserve(hold("b", 100, cap=160))
        with pytest.raises(BudgetExceeded, match="held"):
            await ledger.reserve(hold("c", 1, cap=50))

    # Idempotence: everything may be told twice, late, or in the wrong order.

    async def test_a_repeated_reservation_holds_nothing_more(self, ledger: Ledger) -> None:
        assert await ledger.reserve(hold("a", 60)) == await ledger.reserve(hold("a", 60)) == 60
        assert (await self.hour(ledger)).held == 60

    async def test_a_repeated_reservation_is_granted_what_it_was_granted(self, ledger: Ledger) -> None:
        assert await ledger.reserve(hold("a", 500, cap=800, least=10)) == 100
        assert await ledger.reserve(hold("a", 500, cap=800, least=10)) == 100

    async def test_a_reservation_repeated_after_its_end_holds_nothing_and_cannot_be_dispatched(
        self, ledger: Ledger
    ) -> None:
        await ledger.reserve(hold("a", 60))
        ledger.settle("a", [entry(5)])
        await ledger.reserve(hold("a", 60))
        assert await self.hour(ledger) == Balance(spent=5, held=0)
        with pytest.raises(Overloaded):
            await ledger.dispatched("a")

    async def test_every_ending_counts_once_however_often_it_is_told(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        await ledger.dispatched("a")
        await ledger.dispatched("a")
        for amount in (25, 25, 30):
            ledger.settle("a", [entry(amount)])
        ledger.release("a")
        assert await self.hour(ledger) == Balance(spent=25, held=0)
        assert [(row.requests, row.cost) for row in await ledger.usage(UsageQuery())] == [(1, 25)]

    async def test_a_settlement_after_a_release_adds_what_was_spent_once(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        ledger.release("a")
        ledger.settle("a", [entry(25)])
        ledger.settle("a", [entry(25)])
        assert await self.hour(ledger) == Balance(spent=25, held=0)

    @pytest.mark.parametrize("ending", ["never reserved", "released", "settled"])
    async def test_what_has_no_open_reservation_cannot_be_dispatched(self, ledger: Ledger, ending: str) -> None:
        if ending != "never reserved":
            await ledger.reserve(hold("a", 60))
        if ending == "released":
            ledger.release("a")
        if ending == "settled":
            ledger.settle("a", [entry(1)])
        with pytest.raises(Overloaded):
            await ledger.dispatched("a")

    async def test_a_dispatched_reservation_cannot_be_given_back(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        await ledger.dispatched("a")
        ledger.release("a")
        assert await self.hour(ledger) == Balance(spent=0, held=60)
        ledger.settle("a", [entry(25)])
        assert await self.hour(ledger) == Balance(spent=25, held=0)

    async def test_endings_of_unknown_reservations_change_nothing(self, ledger: Ledger) -> None:
        ledger.settle("x", [entry(25)])
        ledger.release("x")
        assert await self.hour(ledger) == Balance()

    # Bills: attempts are what is paid for, calls are what is counted.

    async def test_every_attempt_of_a_call_is_a_row_and_all_are_one_request(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        await ledger.dispatched("a")
        ledger.settle("a", [entry(10, deployment="first"), entry(20, deployment="second")])
        assert await self.hour(ledger) == Balance(spent=30)
        rows = await ledger.usage(UsageQuery(group_by=("deployment",)))
        assert [(row.group["deployment"], row.requests, row.cost) for row in rows] == [
            ("first", 0, 10),
            ("second", 1, 20),
        ]

    async def test_two_attempts_that_are_alike_are_both_paid_for(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        twice = entry(10, deployment="first")
        ledger.settle("a", [twice, twice])
        assert await self.hour(ledger) == Balance(spent=20)
        assert [(row.requests, row.cost) for row in await ledger.usage(UsageQuery())] == [(1, 20)]

    async def test_an_overrun_is_recorded_in_full(self, ledger: Ledger) -> None:
        """The provider has been paid: the truth goes over the cap, the next call does not."""
        await ledger.reserve(hold("a", 60))
        ledger.settle("a", [entry(130)])
        assert await self.hour(ledger) == Balance(spent=130, held=0)
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(hold("b", 0))

    async def test_a_tenant_is_billed_what_its_calls_cost(self, ledger: Ledger) -> None:
        await self.spend(ledger, "a", 7)
        assert [(row.cost, row.billed) for row in await ledger.usage(UsageQuery())] == [(7, 7)]

    async def test_what_lies_beyond_a_cap_with_overage_is_billed_at_its_rate(self, ledger: Ledger) -> None:
        beyond = allowed(100, rule="overage", percent=150)
        await self.spend(ledger, "a", 90, beyond)
        await self.spend(ledger, "b", 30, beyond)
        await self.spend(ledger, "c", 40, beyond)
        rows = await ledger.usage(UsageQuery())
        assert [(row.cost, row.billed) for row in rows] == [(160, 90 + (30 + 10) + (40 + 20))]
        assert (await ledger.balance("user:acme/ann", "total")).spent == 160

    # Extending: a longer lease, more money.

    async def test_extending_begins_the_lease_anew(self, ledger: Ledger, clock: Clock) -> None:
        await ledger.reserve(hold("a", 60, lease=10))
        clock.now += 9
        await ledger.extend("a", 10)
        clock.now += 9
        assert await ledger.expire() == 0
        clock.now += 1
        assert await ledger.expire() == 1

    async def test_extending_holds_more_on_every_scope(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60, tokens=5))
        await ledger.dispatched("a")
        await ledger.extend("a", 900, 80)
        await ledger.extend("a", 900, 80)
        assert await self.hour(ledger) == await ledger.balance("tenant:acme", "total") == Balance(held=80)
        ledger.settle("a", [entry(75)])
        assert await self.hour(ledger) == Balance(spent=75)

    async def test_extending_never_holds_less(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        await ledger.extend("a", 900, 10)
        assert (await self.hour(ledger)).held == 60

    async def test_extending_beyond_a_cap_is_refused_and_changes_nothing(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        await ledger.dispatched("a")
        with pytest.raises(BudgetExceeded):
            await ledger.extend("a", 900, 101)
        await ledger.reserve(hold("b", 30))
        with pytest.raises(BudgetExceeded, match="held"):
            await ledger.extend("a", 900, 71)
        assert await self.hour(ledger) == Balance(held=90)
        await ledger.extend("a", 900, 70)
        assert await self.hour(ledger) == Balance(held=100)

    async def test_what_has_ended_cannot_be_extended(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        ledger.settle("a", [entry(1)])
        for id in ("a", "never reserved"):
            with pytest.raises(Overloaded):
                await ledger.extend(id, 900, 70)
        assert await self.hour(ledger) == Balance(spent=1)

    # Leases.

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
        await ledger.extend("a", 10, 70)
        clock.now += 10
        assert await ledger.expire() == 1
        ledger.settle("a", [entry(25)])
        assert await self.hour(ledger) == Balance(spent=70, held=0)
        assert [(row.requests, row.cost, row.billed) for row in await ledger.usage(UsageQuery())] == [(1, 70, 70)]

    async def test_a_clock_that_steps_back_ends_nothing(self, ledger: Ledger, clock: Clock) -> None:
        await ledger.reserve(hold("a", 60, lease=10))
        clock.now -= 3_600
        assert await ledger.expire() == 0
        assert (await self.hour(ledger)).held == 60

    async def test_a_clock_that_steps_back_makes_no_lease_longer(self, ledger: Ledger, clock: Clock) -> None:
        await ledger.reserve(hold("a", 60, lease=10))
        clock.now -= 3_600
        await ledger.expire()
        clock.now += 10
        assert await ledger.expire() == 1
        assert await self.hour(ledger) == Balance()

    async def test_a_clock_that_leaps_ahead_and_comes_back_forgets_no_balance(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        await self.spend(ledger, "a", 60)
        clock.now += 400 * 86_400
        await ledger.expire()
        clock.now = NOON
        await ledger.expire()
        assert await self.hour(ledger) == Balance(spent=60)

    # Scopes that count only one deployment, or tokens.

    async def test_a_scope_of_one_deployment_counts_what_that_one_costs(self, ledger: Ledger) -> None:
        model = Scope("model:acme/big", "total", 100, deployment="big")
        await ledger.reserve(hold("a", 60, model))
        assert await ledger.balance("model:acme/big", "total") == Balance(held=60)
        ledger.settle("a", [entry(20, deployment="big"), entry(5, deployment="small")])
        assert await ledger.balance("model:acme/big", "total") == Balance(spent=20)
        assert await self.hour(ledger) == Balance(spent=25)

    async def test_a_lost_call_counts_on_every_deployment_it_may_have_gone_to(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        scopes = [Scope(f"model:acme/{name}", "total", 100, deployment=name) for name in ("big", "small")]
        await ledger.reserve(hold("a", 60, *scopes, lease=10))
        await ledger.dispatched("a")
        clock.now += 10
        await ledger.expire()
        for scope in scopes:
            assert await ledger.balance(scope.account, "total") == Balance(spent=60)

    async def test_a_scope_of_tokens_counts_the_tokens_of_every_attempt(self, ledger: Ledger) -> None:
        tokens = Scope("tenant:acme", DAY_TOKENS, 1_000, tokens=True)
        await ledger.reserve(hold("a", 60, tokens, tokens=300))
        assert await ledger.balance("tenant:acme", DAY_TOKENS) == Balance(held=300)
        await ledger.dispatched("a")
        await ledger.extend("a", 900, 90)
        ledger.settle("a", [entry(5, usage=used(100)), entry(6, usage=used(100, 50))])
        assert await ledger.balance("tenant:acme", DAY_TOKENS) == Balance(spent=250)
        assert await self.hour(ledger) == Balance(spent=11)

    async def test_tokens_of_this_minute_refuse_until_it_is_over(self, ledger: Ledger, clock: Clock) -> None:
        clock.now += 40
        rate = Scope("tenant:acme", MINUTE_TOKENS, 1_000, tokens=True)
        await ledger.reserve(hold("a", 1, rate, tokens=700))
        with pytest.raises(RateLimited) as caught:
            await ledger.reserve(hold("b", 1, rate, tokens=400))
        assert caught.value.retry_after == 1.0
        ledger.settle("a", [entry(1, usage=used(700))])
        with pytest.raises(RateLimited) as caught:
            await ledger.reserve(hold("b", 1, rate, tokens=400))
        assert caught.value.retry_after == pytest.approx(20.0)
        assert caught.value.limit == 1_000
        assert await ledger.reserve(hold("b", 1, rate, tokens=300)) == 1

    async def test_a_token_budget_refuses_as_a_budget_does(self, ledger: Ledger) -> None:
        budget = Scope("tenant:acme", DAY_TOKENS, 1_000, tokens=True)
        await ledger.reserve(hold("a", 1, budget, tokens=700))
        with pytest.raises(BudgetExceeded, match="400 tokens") as caught:
            await ledger.reserve(hold("b", 1, budget, tokens=400))
        assert caught.value.code == "budget_held"
        ledger.settle("a", [entry(1, usage=used(700))])
        with pytest.raises(BudgetExceeded, match="token budget of this day is spent: 700 of 1000 tokens") as caught:
            await ledger.reserve(hold("b", 1, budget, tokens=400))
        assert caught.value.code == "budget_exceeded"

    async def test_a_call_that_takes_no_tokens_is_not_kept_out_by_those_of_others(self, ledger: Ledger) -> None:
        rate = Scope("tenant:acme", MINUTE_TOKENS, 100, tokens=True)
        await ledger.reserve(hold("a", 1, rate, tokens=100))
        await ledger.dispatched("a")
        ledger.settle("a", [entry(1, usage=used(150))])
        assert await ledger.reserve(hold("b", 1, rate)) == 1
        with pytest.raises(RateLimited):
            await ledger.reserve(hold("c", 1, rate, tokens=1))

    # Counting from now on: accounts for which something was set in the middle of a window.

    async def test_a_scope_counted_from_now_on_knows_what_was_spent_and_what_is_open(self, ledger: Ledger) -> None:
        await self.spend(ledger, "a", 10, user="ann")
        await self.spend(ledger, "b", 20, user="bob")
        await ledger.reserve(hold("c", 30, user="ann"))
        await ledger.count(Scope("user:acme/ann", "total"), Match(("acme",), "user", "ann"))
        assert await ledger.balance("user:acme/ann", "total") == Balance(spent=10, held=30)
        await ledger.dispatched("c")
        ledger.settle("c", [entry(25, user="ann")])
        assert await ledger.balance("user:acme/ann", "total") == Balance(spent=35)

    async def test_counting_a_scope_again_changes_nothing(self, ledger: Ledger) -> None:
        scope, match = Scope("user:acme/ann", "total"), Match(("acme",), "user", "ann")
        await self.spend(ledger, "a", 10, user="ann")
        for _ in range(2):
            await ledger.count(scope, match)
        await self.spend(ledger, "b", 5, scope, user="ann")
        await ledger.count(scope, match)
        assert await ledger.balance("user:acme/ann", "total") == Balance(spent=15)

    async def test_what_was_counted_on_a_scope_already_is_not_counted_again(self, ledger: Ledger) -> None:
        """An allowance applies to new calls before its past is known."""
        scope = Scope("user:acme/ann", "total")
        await self.spend(ledger, "before", 10, user="ann")
        await self.spend(ledger, "since", 5, scope, user="ann")
        await ledger.reserve(hold("open", 7, scope, user="ann"))
        await ledger.count(scope, Match(("acme",), "user", "ann"))
        assert await ledger.balance("user:acme/ann", "total") == Balance(spent=15, held=7)

    async def test_calls_that_end_while_a_scope_begins_to_be_counted_count_once(self, ledger: Ledger) -> None:
        scope = Scope("user:acme/ann", "total")
        for number in range(6):
            await ledger.reserve(hold(f"c{number}", 10, cap=None, user="ann"))
            await ledger.dispatched(f"c{number}")
        ledger.settle("c0", [entry(1, user="ann")])
        counting = asyncio.ensure_future(ledger.count(scope, Match(("acme",), "user", "ann")))
        for number in range(1, 6):
            ledger.settle(f"c{number}", [entry(1, user="ann")])
            await asyncio.sleep(0)
        await counting
        assert await ledger.balance("user:acme/ann", "total") == Balance(spent=6)

    @pytest.mark.parametrize(
        ("account", "match", "spent"),
        [
            ("key:acme/k1", Match(("acme",), "key", "k1"), 1 + 8),
            ("feature:acme/search", Match(("acme",), "feature", "search"), 2 + 8),
            ("tenant:other", Match(("other",)), 4),
            ("organisation:all", Match(("acme", "other")), 15),
            ("organisation:none", Match(()), 0),
        ],
    )
    async def test_an_account_is_who_is_said_to_pay(
        self, ledger: Ledger, account: str, match: Match, spent: int
    ) -> None:
        await self.spend(ledger, "a", 1, key="k1")
        await self.spend(ledger, "b", 2, feature="search")
        await self.spend(ledger, "c", 4, tenant="other")
        await self.spend(ledger, "d", 8, key="k1", feature="search")
        await ledger.count(Scope(account, "total"), match)
        assert await ledger.balance(account, "total") == Balance(spent=spent)

    async def test_a_model_counted_from_now_on_knows_what_its_deployment_has_cost(self, ledger: Ledger) -> None:
        await self.spend(ledger, "a", 1, deployment="big")
        await self.spend(ledger, "b", 2, deployment="small")
        ledger.note("hit", entry(0, deployment="big", source="exact", billed=64))
        await ledger.reserve(hold("c", 30))
        scope = Scope("model:acme/big", "total", deployment="big")
        await ledger.count(scope, Match(("acme",), "deployment", "big"))
        assert await ledger.balance("model:acme/big", "total") == Balance(spent=1, held=30)
        ledger.settle("c", [entry(4, deployment="big"), entry(8, deployment="small")])
        assert await ledger.balance("model:acme/big", "total") == Balance(spent=5)

    async def test_only_what_was_spent_in_its_window_counts_on_a_scope(self, ledger: Ledger, clock: Clock) -> None:
        await self.spend(ledger, "a", 1, user="ann")
        clock.now += 3_600
        await self.spend(ledger, "b", 2, user="ann")
        await ledger.count(Scope("user:acme/ann", "hour:2026-11-20T13"), Match(("acme",), "user", "ann"))
        assert await ledger.balance("user:acme/ann", "hour:2026-11-20T13") == Balance(spent=2)

    async def test_tokens_can_be_counted_from_now_on_too(self, ledger: Ledger) -> None:
        await self.spend(ledger, "a", 1, usage=used(100, 20))
        ledger.note("hit", entry(0, source="exact", usage=used(1_000), saved=5))
        await ledger.reserve(hold("b", 1, tokens=300))
        await ledger.count(Scope("tenant:acme", DAY_TOKENS, tokens=True), Match(("acme",)))
        assert await ledger.balance("tenant:acme", DAY_TOKENS) == Balance(spent=120, held=300)

    # Notes: answers from stock, and what they are billed at.

    async def test_prices_that_were_changed_are_told_oldest_first_and_once(self, ledger: Ledger) -> None:
        assert await ledger.repricings() == (0, [])
        dear = Repricing(
            id="a", provider="openai", model="gpt", price=Price(input=7, output=9, cached_input=1), by="me"
        )
        back = Repricing(id="b", provider="openai", model="gpt")
        for one in (dear, back, dear):
            await ledger.reprice(one)
        place, told = await ledger.repricings()
        assert told == [dear, back]
        assert await ledger.repricings(place) == (place, [])

    async def test_a_note_is_a_request_that_cost_nothing_and_saved_something(self, ledger: Ledger) -> None:
        ledger.note("a", entry(source="exact", saved=4))
        (row,) = await ledger.usage(UsageQuery(group_by=("source",)))
        assert (row.group, row.requests, row.cost, row.billed, row.saved) == ({"source": "exact"}, 1, 0, 0, 4)

    async def test_a_repeated_note_is_one_row(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 9))
        for _ in range(2):
            ledger.note("a", entry(source="exact", saved=4, billed=3))
        assert [(row.requests, row.saved, row.billed) for row in await ledger.usage(UsageQuery())] == [(1, 4, 3)]
        assert await self.hour(ledger) == Balance(spent=3)

    async def test_what_a_hit_is_billed_at_counts_where_it_was_held(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 9))
        ledger.note("a", entry(source="semantic", billed=6, saved=30))
        assert await self.hour(ledger) == Balance(spent=6)
        assert ledger.open_reservations() == 0
        assert [(row.cost, row.billed, row.saved) for row in await ledger.usage(UsageQuery())] == [(0, 6, 30)]

    async def test_a_note_of_which_nothing_was_held_counts_nowhere(self, ledger: Ledger) -> None:
        ledger.note("a", entry(source="exact", billed=6))
        assert await self.hour(ledger) == Balance()

    async def test_only_a_note_of_which_something_was_held_counts_on_an_account_counted_later(
        self, ledger: Ledger
    ) -> None:
        await ledger.reserve(hold("held", 9, user="ann"))
        ledger.note("held", entry(source="exact", billed=6, user="ann"))
        ledger.note("not held", entry(source="exact", billed=20, user="ann"))
        await ledger.count(Scope("user:acme/ann", "total"), Match(("acme",), "user", "ann"))
        assert await ledger.balance("user:acme/ann", "total") == Balance(spent=6)

    async def test_nothing_is_held_for_a_note_that_has_been_written(self, ledger: Ledger) -> None:
        ledger.note("a", entry(source="exact", billed=6))
        await ledger.reserve(hold("a", 9))
        ledger.note("a", entry(source="exact", billed=6))
        assert await self.hour(ledger) == Balance()
        assert [row.billed for row in await ledger.usage(UsageQuery())] == [6]

    # A price that several share: it counts whole on what they have in common, and in parts on what each has alone.

    async def shared(self, ledger: Ledger) -> None:
        """A call of Ann's that costs 10, of which Bob owes 4."""
        ann, bob = Scope("user:acme/ann", "total", 100), Scope("user:acme/bob", "total", 100)
        model = Scope("model:acme/big", "total", 100, deployment="big")
        await ledger.reserve(hold("a", 10, ann, model, user="ann"))
        await ledger.reserve(Hold(id="b", scopes=(bob,), amount=5, least=5, lease=900.0, entry=entry(user="bob")))
        await ledger.dispatched("a")
        ledger.note("b", entry(user="bob", deployment="big", source="coalesced", billed=4, shared=4, saved=10))
        ledger.settle("a", [entry(10, user="ann", deployment="big", shared=4)])

    async def test_a_price_that_is_shared_counts_once_on_what_all_have_in_common(self, ledger: Ledger) -> None:
        await self.shared(ledger)
        assert await self.hour(ledger) == Balance(spent=10)
        assert await ledger.balance("model:acme/big", "total") == Balance(spent=10)
        assert ledger.open_reservations() == 0

    async def test_each_ones_own_budget_counts_its_own_part(self, ledger: Ledger) -> None:
        await self.shared(ledger)
        assert await ledger.balance("user:acme/ann", "total") == Balance(spent=6)
        assert await ledger.balance("user:acme/bob", "total") == Balance(spent=4)

    async def test_what_is_billed_of_a_shared_price_comes_to_it(self, ledger: Ledger) -> None:
        await self.shared(ledger)
        rows = await ledger.usage(UsageQuery(group_by=("user",)))
        assert [(row.group["user"], row.cost, row.billed, row.shared) for row in rows] == [
            ("ann", 10, 6, 4),
            ("bob", 0, 4, 4),
        ]

    async def test_accounts_counted_later_know_of_shared_prices(self, ledger: Ledger) -> None:
        await self.shared(ledger)
        ledger.note("c", entry(key="k1", feature="f", source="coalesced", billed=3, shared=3))
        every = Match(("acme",))
        for account, match, spent in (
            ("organisation:all", every, 10),
            ("feature:acme/f", Match(("acme",), "feature", "f"), 3),
            ("key:acme/k1", Match(("acme",), "key", "k1"), 3),
        ):
            await ledger.count(Scope(account, "total"), match)
            assert await ledger.balance(account, "total") == Balance(spent=spent)

    async def test_an_overage_bills_beyond_the_part_that_is_left(self, ledger: Ledger) -> None:
        beyond = allowed(4, rule="overage", percent=150)
        await ledger.reserve(hold("a", 10, beyond))
        ledger.settle("a", [entry(10, shared=2)])
        assert [row.billed for row in await ledger.usage(UsageQuery())] == [8 + 2]
        assert await ledger.balance("user:acme/ann", "total") == Balance(spent=8)

    async def test_no_more_is_shared_than_there_is(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 10))
        with pytest.raises(ValueError, match="shared"):
            ledger.settle("a", [entry(10, shared=11)])
        with pytest.raises(ValueError, match="shared"):
            ledger.note("n", entry(source="coalesced", billed=3, shared=4))
        assert await self.hour(ledger) == Balance(held=10)

    # Alerts: each threshold once in a window.

    async def test_each_threshold_is_told_once(self, ledger: Ledger, alerts: list[Alert]) -> None:
        scope = allowed(100)
        for number, amount in enumerate((49, 1, 10, 25, 1, 14, 50)):
            await self.spend(ledger, f"c{number}", amount, allowed(100, rule="soft"))
        await self.written(ledger)
        assert [(alert.percent, alert.spent, alert.cap) for alert in alerts] == [
            (50, 50, 100),
            (80, 85, 100),
            (100, 100, 100),
        ]
        assert {(alert.account, alert.window) for alert in alerts} == {(scope.account, "total")}

    async def test_a_call_that_passes_several_thresholds_tells_them_all(
        self, ledger: Ledger, alerts: list[Alert]
    ) -> None:
        await self.spend(ledger, "a", 130, allowed(100, rule="soft", alerts=(100, 10, 120, 200)))
        await self.written(ledger)
        assert [alert.percent for alert in alerts] == [10, 100, 120]

    async def test_a_threshold_is_not_told_again_when_the_cap_is_raised(
        self, ledger: Ledger, alerts: list[Alert]
    ) -> None:
        await self.spend(ledger, "a", 60, allowed(100))
        await self.spend(ledger, "b", 10, allowed(1_000))
        await self.spend(ledger, "c", 500, allowed(1_000))
        await self.spend(ledger, "d", 300, allowed(1_000))
        await self.written(ledger)
        assert [(alert.percent, alert.spent, alert.cap) for alert in alerts] == [(50, 60, 100), (80, 870, 1_000)]

    async def test_a_cap_lowered_to_what_is_spent_is_told_though_no_call_gets_in(
        self, ledger: Ledger, alerts: list[Alert]
    ) -> None:
        await self.spend(ledger, "a", 40, allowed(100))
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(hold("b", 1, allowed(40)))
        await ledger.expire()
        await self.written(ledger)
        assert [(alert.percent, alert.cap) for alert in alerts] == [(50, 40), (80, 40), (100, 40)]

    async def test_a_cap_of_nothing_tells_nothing_before_something_is_spent(
        self, ledger: Ledger, alerts: list[Alert]
    ) -> None:
        await self.spend(ledger, "a", 0, allowed(0))
        await self.written(ledger)
        assert alerts == []

    # Changes of what accounts may spend.

    async def test_changes_are_read_in_the_order_in_which_they_were_written(self, ledger: Ledger) -> None:
        def change(id: str, cap: int) -> Change:
            allowance = Allowance(account="tenant:acme", window="day", cap=cap, rule="grace", percent=5, alerts=(7,))
            return Change(id=id, action="set", allowance=allowance, by="key k1", at=NOON)

        assert await ledger.changes() == (0, [])
        await ledger.change(change("one", 1))
        place, changes = await ledger.changes()
        assert changes == [change("one", 1)]
        await self.spend(ledger, "a", 1)
        await ledger.change(change("two", 2))
        await ledger.change(change("three", 3))
        await ledger.change(change("one", 4))
        later, changes = await ledger.changes(place)
        assert changes == [change("two", 2), change("three", 3)]
        assert await ledger.changes(later) == (later, [])

    async def test_changes_of_prices_are_read_in_the_order_in_which_they_were_written(self, ledger: Ledger) -> None:
        def repricing(id: str, price: Price | None) -> Repricing:
            return Repricing(id=id, provider="openai", model="big", price=price, by="key k1")

        dear, cheap = repricing("one", Price(input=9, output=9)), repricing("two", Price(input=1, output=1))
        await ledger.reprice(dear)
        place, repricings = await ledger.repricings()
        assert repricings == [dear]
        for later in (cheap, repricing("one", None), repricing("three", None)):
            await ledger.reprice(later)
        assert (await ledger.repricings(place))[1] == [cheap, repricing("three", None)]
        assert (await ledger.changes())[1] == []

    # Bad input: a typed error, and nothing has changed.

    @pytest.mark.parametrize("amount", [-1, 1.5, True, LARGEST + 1, "1", None])
    async def test_what_is_no_amount_changes_nothing(self, ledger: Ledger, amount: Any) -> None:
        for wrong in (hold("a", amount), hold("a", 1, least=amount or -1), hold("a", 1, tokens=amount)):
            with pytest.raises(ValueError, match=r"amount|asks"):
                await ledger.reserve(wrong)
        await ledger.reserve(hold("b", 60))
        with pytest.raises(ValueError, match="amount"):
            await ledger.extend("b", 900, -1 if amount is None else amount)
        for wrong_entry in (entry(amount), entry(saved=amount), entry(usage=used(amount))):
            with pytest.raises(ValueError, match="amount"):
                ledger.settle("b", [entry(1), wrong_entry])
        with pytest.raises(ValueError, match="amount"):
            ledger.note("n", entry(billed=amount))
        assert await self.hour(ledger) == Balance(spent=0, held=60)
        assert await ledger.usage(UsageQuery()) == []

    async def test_an_empty_bill_is_no_bill(self, ledger: Ledger) -> None:
        await ledger.reserve(hold("a", 60))
        with pytest.raises(ValueError, match="at least one"):
            ledger.settle("a", [])
        assert await self.hour(ledger) == Balance(held=60)

    async def test_nobody_needs_more_than_he_asks_for(self, ledger: Ledger) -> None:
        with pytest.raises(ValueError, match="more than it asks for"):
            await ledger.reserve(hold("a", 1, least=2))

    async def test_one_scope_cannot_be_named_twice(self, ledger: Ledger) -> None:
        with pytest.raises(ValueError, match="twice"):
            await ledger.reserve(hold("a", 1, Scope("tenant:acme", HOUR)))
        assert await self.hour(ledger) == Balance()

    async def test_the_largest_amounts_add_up_exactly(self, ledger: Ledger, alerts: list[Alert]) -> None:
        """Sums are not bound to 64 bits; only what a row says is."""
        scope = allowed(LARGEST, rule="overage", percent=10_000)
        for id in ("a", "b"):
            await ledger.reserve(hold(id, 0, scope, cap=None))
            ledger.settle(id, [entry(LARGEST, saved=LARGEST)])
        ledger.note("n", entry(LARGEST, saved=LARGEST, source="exact", billed=LARGEST))
        (row,) = await ledger.usage(UsageQuery())
        assert (row.cost, row.saved, row.billed) == (3 * LARGEST, 3 * LARGEST, 3 * LARGEST)
        assert (await ledger.balance("tenant:acme", "total")).spent == 2 * LARGEST
        await self.written(ledger)
        assert [(alert.percent, alert.spent) for alert in alerts] == [(50, LARGEST), (80, LARGEST), (100, LARGEST)]
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(hold("more", 1, cap=LARGEST))

    # Reading the journal.

    async def test_usage_is_summed_by_group(self, ledger: Ledger, clock: Clock) -> None:
        usage = Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=3)
        for id, model, amount in (("a", "small", 1), ("b", "large", 20), ("c", "small", 3)):
            await ledger.reserve(hold(id, 30))
            ledger.settle(id, [entry(amount, model=model, usage=usage)])
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
        ledger.note("a", entry(tenant="acme", user="ann", source="exact", saved=1))
        ledger.note("b", entry(tenant="other", source="exact", saved=2))
        clock.now += 10
        ledger.note("c", entry(tenant="acme", source="exact", saved=4))
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


class DurableConformance(LedgerConformance):
    """What *durable* means besides: a killed process loses nothing of what has been promised."""

    @abstractmethod
    async def killed(self, ledger: Ledger, clock: Clock, alerts: list[Alert]) -> Ledger:
        """The ledger that a new process finds, had this one been killed now."""

    async def test_what_was_dispatched_and_has_no_end_is_spent_at_its_hold(
        self, ledger: Ledger, clock: Clock, alerts: list[Alert]
    ) -> None:
        model = Scope("model:acme/big", "total", deployment="big")
        tokens = Scope("tenant:acme", DAY_TOKENS, tokens=True)
        await ledger.reserve(hold("sent", 50, model, tokens, tokens=300))
        await ledger.dispatched("sent")
        await ledger.extend("sent", 900, 60)
        await ledger.reserve(hold("held", 20))
        found = await self.killed(ledger, clock, alerts)
        assert await self.hour(found) == await found.balance("model:acme/big", "total") == Balance(spent=60)
        assert await found.balance("tenant:acme", DAY_TOKENS) == Balance(spent=300)
        assert found.open_reservations() == 0
        found.settle("sent", [entry(1)])
        assert await self.hour(found) == Balance(spent=60)
        await found.close()

    async def test_settlements_notes_and_counted_scopes_are_found_again(
        self, ledger: Ledger, clock: Clock, alerts: list[Alert]
    ) -> None:
        scope, match = Scope("user:acme/ann", "total"), Match(("acme",), "user", "ann")
        await self.spend(ledger, "a", 10, user="ann")
        await ledger.reserve(hold("open", 30, user="ann"))
        await ledger.dispatched("open")
        await ledger.count(scope, match)
        await self.spend(ledger, "b", 5, scope, user="ann")
        await ledger.reserve(hold("hit", 9))
        ledger.note("hit", entry(source="exact", billed=3))
        await self.written(ledger)
        found = await self.killed(ledger, clock, alerts)
        assert await found.balance("user:acme/ann", "total") == Balance(spent=45)
        assert await self.hour(found) == Balance(spent=48)
        await found.count(scope, match)
        assert await found.balance("user:acme/ann", "total") == Balance(spent=45)
        await found.close()

    async def test_what_accounts_may_spend_is_found_again(
        self, ledger: Ledger, clock: Clock, alerts: list[Alert]
    ) -> None:
        change = Change(id="one", action="set", allowance=Allowance(account="tenant:acme", window="day", cap=7))
        await ledger.change(change)
        found = await self.killed(ledger, clock, alerts)
        assert (await found.changes())[1] == [change]
        await found.close()

    async def test_a_threshold_told_before_is_not_told_again(
        self, ledger: Ledger, clock: Clock, alerts: list[Alert]
    ) -> None:
        await self.spend(ledger, "a", 60, allowed(100))
        await self.written(ledger)
        found = await self.killed(ledger, clock, alerts)
        await self.spend(found, "b", 25, allowed(100))
        await self.written(found)
        assert [alert.percent for alert in alerts] == [50, 80]
        await found.close()

    async def test_a_rate_of_tokens_begins_anew(self, ledger: Ledger, clock: Clock, alerts: list[Alert]) -> None:
        rate = Scope("tenant:acme", MINUTE_TOKENS, 100, tokens=True)
        await ledger.reserve(hold("a", 1, rate, tokens=100))
        await ledger.dispatched("a")
        found = await self.killed(ledger, clock, alerts)
        assert await found.balance("tenant:acme", MINUTE_TOKENS) == Balance()
        await found.close()

    async def test_a_ledger_closed_in_order_loses_nothing(self, clock: Clock, alerts: list[Alert], make: Make) -> None:
        first = make(clock, alerts.append)
        await self.spend(first, "a", 10)
        await first.close()
        second = make(clock, alerts.append)
        assert await self.hour(second) == Balance(spent=10)
        await self.spend(second, "b", 1)
        assert await self.hour(second) == Balance(spent=11)
        await second.close()


class TestMemoryLedger(LedgerConformance):
    @pytest.fixture
    def make(self) -> Make:
        return lambda now, on_alert: MemoryLedger(now=now, on_alert=on_alert)


class TestSqliteLedger(DurableConformance):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda now, on_alert: SqliteLedger(tmp_path / "ledger.db", now=now, on_alert=on_alert)

    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path) -> None:
        self.path = tmp_path

    async def killed(self, ledger: Ledger, clock: Clock, alerts: list[Alert]) -> Ledger:
        """What the files say now; nothing later is ever written to this copy."""
        copy = self.path / "after"
        copy.mkdir()
        for file in self.path.glob("ledger.db*"):
            (copy / file.name).write_bytes(file.read_bytes())
        return SqliteLedger(copy / "ledger.db", now=clock, on_alert=alerts.append)


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """One database for all tests of this file; each finds it empty."""
    url = postgres_server.database()
    asyncio.run(prepared(url))
    yield url
    postgres_server.drop(url)


class SharedConformance(DurableConformance):
    """A ledger of several processes: what one of them left open is ended by another, when its lease is over."""

    @pytest.fixture
    @abstractmethod
    async def till(self, clock: Clock, postgres: Postgres) -> Till:
        """The till that is asked."""

    @pytest.fixture
    async def postgres(self, database: str) -> AsyncIterator[Postgres]:
        emptied(database)
        postgres = Postgres(database, pool=4)
        yield postgres
        await postgres.close()

    @pytest.fixture
    def make(self, till: Till, postgres: Postgres) -> Make:
        return lambda now, on_alert: SharedLedger(till, PostgresJournal(postgres, now=now), now=now, on_alert=on_alert)

    @pytest.fixture(autouse=True)
    def maker(self, make: Make) -> None:
        self.make = make

    async def killed(self, ledger: Ledger, clock: Clock, alerts: list[Alert]) -> Ledger:
        clock.now += 900
        found = self.make(clock, alerts.append)
        await found.expire()
        return found


class TestSharedLedgerInMemory(SharedConformance):
    @pytest.fixture
    async def till(self, clock: Clock) -> Till:
        return MemoryTill(clock=Onward(clock))


class TestSharedLedgerInRedis(SharedConformance):
    @pytest.fixture
    async def till(self, clock: Clock, redis_url: str) -> AsyncIterator[Till]:
        redis = Redis(redis_url, timeout=PATIENT)
        yield RedisTill(redis, clock=Onward(clock))
        await redis.close()


class TestSharedLedgerInRedisCluster(SharedConformance):
    @pytest.fixture
    async def till(self, clock: Clock, redis_cluster: RedisCluster, redis_prefix: str) -> AsyncIterator[Till]:
        redis = Redis(redis_cluster.url, cluster=True, prefix=redis_prefix, timeout=PATIENT)
        yield RedisTill(redis, clock=Onward(clock))
        await redis.close()


class TestSharedLedgerInPostgres(SharedConformance):
    @pytest.fixture
    async def till(self, clock: Clock, postgres: Postgres) -> Till:
        return PostgresTill(postgres, clock=Onward(clock))
