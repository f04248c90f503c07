"""Budget and Reservation: the bracket around a call, leases that are kept alive, and changes that are learnt of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headgate.budget.allowances import Allowances, Desk
from headgate.budget.budget import Balance, Change, Entry, Hold, Match, Scope, UsageQuery
from headgate.budget.memory import MemoryLedger
from headgate.budget.reservation import Budget, Reservation
from headgate.model.errors import BudgetExceeded, Overloaded
from headgate.model.money import Usage
from headgate.model.record import CallRecord
from headgate.model.tenancy import Caps, Policy, Principal, Wishes

NOON = 1_795_176_000.0
"""2026-11-20T12:00:00Z."""

DAY = "day:2026-11-20"
ANN = Principal(tenant="acme", key="k1", user="ann")


class StubbornLedger(MemoryLedger):
    """A ledger that can be made to fail at dispatching and at counting, or to take its time with the latter."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.full = False
        self.broken = False
        self.slow: asyncio.Event | None = None

    async def dispatched(self, id: str) -> None:
        """As the ledger's; on a full disk it marks the call and cannot say so."""
        await super().dispatched(id)
        if self.full:
            raise Overloaded("The ledger cannot be written: disk full.", retry_after=1.0)

    async def count(self, scope: Scope, match: Match) -> None:
        """As the ledger's, when it works."""
        if self.broken:
            raise Overloaded("The ledger cannot be written: disk full.", retry_after=1.0)
        await super().count(scope, match)
        if self.slow is not None:
            await self.slow.wait()


class People:
    """A census of one organisation with two tenants, one of them in Tokyo."""

    async def zone(self, tenant: str) -> str:
        return "Asia/Tokyo" if tenant == "nippon" else "UTC"

    async def members(self, organisation: str) -> tuple[str, ...]:
        return ("acme", "nippon") if organisation == "all" else ()


class House:
    """A budget over a ledger, a desk in another process, and a clock."""

    def __init__(self, defaults: Caps | None = None) -> None:
        self.now = NOON
        self.ledger = StubbornLedger(now=lambda: self.now)
        self.budget = self.process(defaults)
        self.desk = Desk(self.budget.allowances, self.ledger, self.ledger, now=lambda: self.now)

    def process(self, defaults: Caps | None = None) -> Budget:
        """A process that serves from this ledger, and has learnt nothing yet."""
        return Budget(self.ledger, Allowances(defaults), census=People(), lease=60.0, now=lambda: self.now)

    def reserve(self, id: str, ceiling: int = 10, caller: Principal = ANN, **fields: Any) -> Reservation:
        return self.budget.reserve(id, caller, fields.pop("wishes", Wishes()), route="chat", ceiling=ceiling, **fields)

    async def spend(self, id: str, amount: int, caller: Principal = ANN, **fields: Any) -> None:
        async with self.reserve(id, amount, caller, **fields) as reservation:
            await reservation.cleared(amount, 100)
            charge(reservation, amount)

    async def balance(self, account: str, window: str = DAY) -> Balance:
        return await self.ledger.balance(account, window)


def charge(reservation: Reservation, amount: int, deployment: str = "big", tokens: int = 5) -> None:
    usage = Usage(prompt_tokens=tokens)
    reservation.charge(deployment=deployment, model="m", amount=amount, usage=usage, prices="p1")


@pytest.fixture
def house() -> House:
    return House()


# The bracket.


async def test_what_was_charged_is_settled_and_the_rest_is_given_back(house: House) -> None:
    async with house.reserve("a", 30) as reservation:
        assert reservation.granted == 30
        clearance = await reservation.cleared(20, 64)
        assert (clearance.reservation, clearance.limit) == ("a", 64)
        assert await house.balance("tenant:acme") == Balance(held=30)
        charge(reservation, 12)
    assert await house.balance("tenant:acme") == Balance(spent=12)
    (row,) = await house.ledger.usage(UsageQuery(group_by=("user", "key", "route", "deployment", "source")))
    assert row.group == {"user": "ann", "key": "k1", "route": "chat", "deployment": "big", "source": "live"}
    assert (row.requests, row.cost, row.prompt_tokens) == (1, 12, 5)


async def test_a_call_that_never_left_leaves_no_trace(house: House) -> None:
    with pytest.raises(RuntimeError):
        async with house.reserve("a", 30):
            raise RuntimeError
    assert await house.balance("tenant:acme") == Balance()
    assert await house.ledger.usage(UsageQuery()) == []


async def test_a_call_that_left_and_cost_nothing_is_a_row_of_nothing(house: House) -> None:
    async with house.reserve("a", 30) as reservation:
        await reservation.cleared(30, 64)
    assert await house.balance("tenant:acme") == Balance()
    assert [(row.requests, row.cost) for row in await house.ledger.usage(UsageQuery())] == [(1, 0)]


async def test_a_call_cancelled_on_its_way_is_settled_at_what_was_charged(house: House) -> None:
    async def call() -> None:
        async with house.reserve("a", 30) as reservation:
            await reservation.cleared(30, 64)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                charge(reservation, 7)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await house.balance("tenant:acme") == Balance(spent=7)
    assert house.ledger.open_reservations() == 0


async def test_a_further_attempt_is_covered_beside_what_the_first_has_cost(house: House) -> None:
    async with house.reserve("a", 30) as reservation:
        await reservation.cleared(30, 64)
        charge(reservation, 12)
        await reservation.cleared(18, 64)
        assert await house.balance("tenant:acme") == Balance(held=30)
        await reservation.cleared(30, 64)
        assert reservation.granted == 42
        assert await house.balance("tenant:acme") == Balance(held=42)
        charge(reservation, 25, "small")
    assert await house.balance("tenant:acme") == Balance(spent=37)


async def test_a_further_attempt_for_which_there_is_no_money_is_not_cleared(house: House) -> None:
    house = House(Caps(day=40))
    async with house.reserve("a", 30) as reservation:
        await reservation.cleared(30, 64)
        charge(reservation, 12)
        with pytest.raises(BudgetExceeded):
            await reservation.cleared(30, 64)
        assert (await reservation.cleared(20, 40)).limit == 40
    assert await house.balance("tenant:acme") == Balance(spent=12)


async def test_near_a_cap_a_call_is_granted_less_than_it_asked_for() -> None:
    house = House(Caps(day=80))
    async with house.reserve("a", 70, least=5) as reservation:
        assert reservation.granted == 10
    with pytest.raises(BudgetExceeded):
        await house.reserve("b", 90).__aenter__()


async def test_what_routing_saved_is_in_the_last_row(house: House) -> None:
    async with house.reserve("a", 30) as reservation:
        await reservation.cleared(30, 64)
        charge(reservation, 1, "first")
        charge(reservation, 2, "second")
        reservation.saved = 9
    rows = await house.ledger.usage(UsageQuery(group_by=("deployment",)))
    assert [(row.group["deployment"], row.saved) for row in rows] == [("first", 0), ("second", 9)]


async def test_a_call_of_the_gateways_own_is_in_the_journal_and_on_nobodys_budget() -> None:
    house = House(Caps(day=1))
    async with house.budget.for_operator("a", feature="cache", ceiling=30) as reservation:
        await reservation.cleared(30, 0)
        charge(reservation, 12)
    (row,) = await house.ledger.usage(UsageQuery(group_by=("tenant", "feature")))
    assert (row.group, row.cost) == ({"tenant": "operator", "feature": "cache"}, 12)


async def test_a_call_whose_mark_could_not_be_written_is_not_cleared_the_second_time_either(house: House) -> None:
    async with house.reserve("a", 30) as reservation:
        house.ledger.full = True
        for _ in range(2):
            with pytest.raises(Overloaded):
                await reservation.cleared(30, 64)
        house.ledger.full = False
        await reservation.cleared(30, 64)
        charge(reservation, 7)
    assert await house.balance("tenant:acme") == Balance(spent=7)


# Fees: what a tenant pays for an answer from stock.


def hit(id: str) -> CallRecord:
    return CallRecord(
        id=id, at=NOON, tenant="acme", key="k1", user="ann", route="chat", status=200, stream=False, source="exact",
        deployment="big", saved=30,
    )  # fmt: skip


async def test_a_hit_that_is_paid_for_counts_on_the_budget_and_one_that_is_not_does_not(house: House) -> None:
    fee = await house.budget.fee("a", ANN, Wishes(), route="chat", most=9).__aenter__()
    house.budget.note(hit("a"), billed=6)
    fee.drop()
    house.budget.note(hit("b"))
    assert await house.balance("tenant:acme") == Balance(spent=6)
    assert [(row.requests, row.cost, row.billed, row.saved) for row in await house.ledger.usage(UsageQuery())] == [
        (2, 0, 6, 60)
    ]


async def test_a_fee_that_comes_to_nothing_is_given_back(house: House) -> None:
    fee = await house.budget.fee("a", ANN, Wishes(), route="chat", most=9).__aenter__()
    fee.drop()
    assert await house.balance("tenant:acme") == Balance()


async def test_a_fee_that_the_budget_does_not_cover_is_refused() -> None:
    house = House(Caps(day=8))
    with pytest.raises(BudgetExceeded):
        await house.budget.fee("a", ANN, Wishes(), route="chat", most=9).__aenter__()


async def test_a_hit_takes_no_tokens() -> None:
    house = House()
    limited = Principal(tenant="acme", policy=Policy(tpm=10))
    await house.spend("a", 1, limited, tokens=10)
    async with house.reserve("b", 1, limited, tokens=5):
        assert house.budget.tokens("acme") == (10, 60.0)
    fee = await house.budget.fee("c", limited, Wishes(), route="chat", most=9).__aenter__()
    fee.drop()


# Leases.


async def test_an_open_call_is_kept_alive_and_one_that_nobody_tends_is_lost(house: House) -> None:
    async with house.reserve("a", 30) as reservation:
        await reservation.cleared(30, 64)
        scopes = (Scope("tenant:acme", DAY),)
        await house.ledger.reserve(
            Hold(id="orphan", scopes=scopes, amount=7, least=7, lease=60.0, entry=Entry(tenant="acme"))
        )
        await house.ledger.dispatched("orphan")
        for _ in range(5):
            house.now += 59
            await house.budget.tend()
        assert await house.balance("tenant:acme") == Balance(spent=7, held=30)
        charge(reservation, 12)
    assert await house.balance("tenant:acme") == Balance(spent=19)


async def test_a_reservation_that_has_ended_keeps_nobody_from_being_tended(house: House) -> None:
    async with house.reserve("gone", 5) as gone, house.reserve("a", 30) as reservation:
        await gone.cleared(5, 64)
        await reservation.cleared(30, 64)
        house.ledger.settle("gone", [Entry(tenant="acme", amount=5)])
        for _ in range(3):
            house.now += 59
            await house.budget.tend()
        assert await house.balance("tenant:acme") == Balance(spent=5, held=30)
    assert house.ledger.open_reservations() == 0


async def test_a_process_that_slept_longer_than_a_lease_finds_its_calls_again(house: House) -> None:
    async with house.reserve("a", 30) as reservation:
        await reservation.cleared(30, 64)
        house.now += 3_600
        await house.budget.tend()
        charge(reservation, 12)
    assert await house.balance("tenant:acme") == Balance(spent=12)


# Changes.


async def test_a_change_applies_once_it_has_been_learnt_of(house: House) -> None:
    await house.desk.set("tenant:acme", "day", 5)
    async with house.reserve("a", 10):
        pass
    await house.budget.refresh()
    with pytest.raises(BudgetExceeded):
        await house.reserve("b", 10).__aenter__()
    await house.desk.top_up("tenant:acme", "day", 5)
    await house.budget.refresh()
    async with house.reserve("c", 10):
        pass


async def test_an_account_limited_in_the_middle_of_a_window_has_spent_what_its_calls_have_cost(house: House) -> None:
    await house.spend("a", 20)
    await house.spend("b", 3, Principal(tenant="acme", user="bob"))
    async with house.reserve("open", 30) as reservation:
        await reservation.cleared(30, 64)
        await house.desk.set("user:acme/ann", "day", 60)
        await house.budget.refresh()
        assert await house.balance("user:acme/ann") == Balance(spent=20, held=30)
        with pytest.raises(BudgetExceeded, match="held"):
            await house.reserve("more", 11).__aenter__()
        charge(reservation, 12)
    assert await house.balance("user:acme/ann") == Balance(spent=32)


@pytest.mark.parametrize(
    ("account", "spent"),
    [
        ("organisation:all", 1 + 2 + 4),
        ("organisation:other", 0),
        ("tenant:acme", 1 + 2),
        ("key:acme/k1", 1),
        ("feature:acme/search", 2),
        ("model:acme/big", 1 + 2),
        ("model:acme/small", 0),
    ],
)
async def test_every_account_knows_its_past(house: House, account: str, spent: int) -> None:
    await house.spend("a", 1)
    await house.spend("b", 2, Principal(tenant="acme"), wishes=Wishes(feature="search"))
    await house.spend("c", 4, Principal(tenant="nippon"))
    await house.desk.set(account, "day", 100)
    await house.budget.refresh()
    assert await house.balance(account) == Balance(spent=spent)


async def test_a_token_budget_knows_its_past(house: House) -> None:
    await house.spend("a", 1)
    await house.desk.set("tenant:acme", "day", 100, unit="tokens")
    await house.budget.refresh()
    assert await house.balance("tenant:acme", "tokens/day:2026-11-20") == Balance(spent=5)


async def test_accounts_beneath_a_tenant_have_its_zone_and_organisations_have_utc(house: House) -> None:
    house.now += 6 * 3_600
    caller = Principal(tenant="nippon", user="yui", organisations=("all",), policy=Policy(zone="Asia/Tokyo"))
    await house.spend("a", 1, caller)
    for account in ("user:nippon/yui", "organisation:all"):
        await house.desk.set(account, "day", 100, zone="Asia/Tokyo")
    await house.budget.refresh()
    await house.spend("b", 2, caller)
    assert await house.balance("user:nippon/yui", "day:2026-11-21@Asia/Tokyo") == Balance(spent=3)
    assert await house.balance("organisation:all", DAY) == Balance(spent=3)


async def test_calls_made_while_an_account_begins_to_be_counted_are_all_counted(house: House) -> None:
    house.ledger.slow = asyncio.Event()
    await house.spend("before", 1)
    async with house.reserve("open", 10) as reservation:
        await reservation.cleared(10, 64)
        await house.desk.set("user:acme/ann", "day", 30)
        learning = asyncio.create_task(house.budget.refresh())
        await asyncio.sleep(0)
        await house.spend("meanwhile", 4)
        charge(reservation, 8)
    await house.spend("also", 7)
    house.ledger.slow.set()
    await learning
    assert await house.balance("user:acme/ann") == Balance(spent=20)
    with pytest.raises(BudgetExceeded):
        await house.reserve("late", 11).__aenter__()


async def test_a_call_counts_where_it_should_when_it_is_held_whatever_was_so_when_it_came(house: House) -> None:
    """Terms are looked at before the cache is asked; what was set meanwhile applies."""
    house.budget.terms(ANN, Wishes())
    await house.desk.set("user:acme/ann", "day", 30)
    await house.budget.refresh()
    await house.spend("a", 5)
    assert await house.balance("user:acme/ann") == Balance(spent=5)


async def test_what_could_not_be_counted_is_not_limited_and_is_tried_again(house: House) -> None:
    await house.spend("before", 20)
    await house.desk.set("tenant:acme", "hour", 1_000)
    await house.desk.set("user:acme/ann", "day", 30)
    house.ledger.broken = True
    for _ in range(2):
        with pytest.raises(Overloaded):
            await house.budget.refresh()
    await house.spend("meanwhile", 15)
    house.ledger.broken = False
    await house.budget.refresh()
    assert await house.balance("user:acme/ann") == Balance(spent=35)
    with pytest.raises(BudgetExceeded):
        await house.reserve("late", 1).__aenter__()


async def test_a_top_up_read_twice_because_of_a_failure_counts_once(house: House) -> None:
    await house.desk.set("tenant:acme", "day", 10)
    await house.budget.refresh()
    await house.desk.top_up("tenant:acme", "day", 5)
    await house.desk.set("user:acme/ann", "day", 30)
    house.ledger.broken = True
    with pytest.raises(Overloaded):
        await house.budget.refresh()
    house.ledger.broken = False
    await house.budget.refresh()
    found = house.budget.allowances.find("tenant:acme", "day")
    assert found is not None
    assert found.limit(DAY) == 15


async def test_what_was_learnt_before_stays_when_somebody_changes_the_rest_who_does_not_know_it(house: House) -> None:
    await house.desk.set("tenant:acme", "day", 10)
    await house.budget.refresh()
    await house.desk.suspend("tenant:acme")
    await house.budget.refresh()
    ignorant = Desk(Allowances(), house.ledger, house.ledger, now=lambda: house.now)
    await ignorant.set("tenant:acme", "day", 20)
    await house.budget.refresh()
    found = house.budget.allowances.find("tenant:acme", "day")
    assert found is not None
    assert (found.cap, found.suspended) == (20, True)


async def test_a_suspension_applies_though_its_account_cannot_be_counted_yet(house: House) -> None:
    house.ledger.slow = asyncio.Event()
    await house.desk.suspend("user:acme/ann")
    learning = asyncio.create_task(house.budget.refresh())
    await asyncio.sleep(0)
    with pytest.raises(BudgetExceeded, match="suspended"):
        await house.reserve("a", 1).__aenter__()
    house.ledger.slow.set()
    await learning


async def test_two_who_learn_at_once_learn_everything_once(house: House) -> None:
    await house.spend("a", 20)
    await house.desk.set("user:acme/ann", "day", 50)
    await asyncio.gather(*(house.budget.refresh() for _ in range(5)))
    assert await house.balance("user:acme/ann") == Balance(spent=20)


async def test_a_change_written_while_others_are_learnt_is_learnt_next(house: House) -> None:
    house.ledger.slow = asyncio.Event()
    await house.desk.set("user:acme/ann", "day", 50)
    learning = asyncio.create_task(house.budget.refresh())
    await asyncio.sleep(0)
    await house.desk.set("tenant:acme", "day", 7)
    house.ledger.slow.set()
    await learning
    assert house.budget.allowances.find("tenant:acme", "day") is None
    await house.budget.refresh()
    assert house.budget.allowances.find("tenant:acme", "day") is not None


async def test_another_process_learns_all_that_was_ever_changed(house: House) -> None:
    await house.spend("a", 20)
    await house.desk.set("user:acme/ann", "day", 50)
    await house.budget.refresh()
    await house.desk.top_up("user:acme/ann", "day", 7)
    await house.desk.suspend("user:acme/ann")
    again = house.process()
    await again.refresh()
    found = again.allowances.find("user:acme/ann", "day")
    assert found is not None
    assert (found.limit(DAY), found.suspended) == (57, True)
    assert await house.balance("user:acme/ann") == Balance(spent=20)


async def test_a_change_learnt_of_after_its_window_was_over_misses_nothing_of_the_next(house: House) -> None:
    """Set one second before noon, learnt of two seconds after it; a call has been made in between."""
    house.now = NOON - 1
    await house.desk.set("user:acme/ann", "hour", 50)
    house.now = NOON + 1
    await house.spend("a", 20)
    house.now = NOON + 2
    await house.budget.refresh()
    assert await house.balance("user:acme/ann", "hour:2026-11-20T12") == Balance(spent=20)


async def test_windows_that_began_long_after_a_change_need_not_be_counted_again(house: House) -> None:
    await house.ledger.change(
        Change(id="old", action="set", allowance=await house.desk.set("user:acme/ann", "day", 50))
    )
    house.now += 3 * 86_400
    house.ledger.broken = True
    await house.process().refresh()


# Degrading.


async def test_a_budget_degrades_once_it_is_used_up(house: House) -> None:
    await house.desk.set("tenant:acme", "day", 30, rule="degrade")
    await house.budget.refresh()

    async def degraded() -> bool:
        return await house.budget.degraded(house.budget.terms(ANN, Wishes()))

    await house.spend("a", 20, tiered=True)
    assert not await degraded()
    async with house.reserve("b", 10, tiered=True):
        assert await degraded()
    assert not await degraded()
    await house.spend("c", 15, tiered=True)
    assert await degraded()
    with pytest.raises(BudgetExceeded):
        await house.reserve("d", 1).__aenter__()


async def test_the_balances_of_a_tenant_are_told_by_window(house: House) -> None:
    await house.spend("a", 20)
    windows = (DAY, "total", "day:2026-11-19")
    assert {window: await house.budget.ledger.balance("tenant:acme", window) for window in windows} == {
        DAY: Balance(20),
        "total": Balance(20),
        "day:2026-11-19": Balance(),
    }
