"""Allowances and the desk at which they are changed: what is checked, what is written, and what several changes come to."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headgate.budget.allowance import Allowance, checked_allowance, level_of, tenant_of
from headgate.budget.allowances import Allowances, Desk, folded, standing
from headgate.budget.budget import Balance, Change, Entry, Hold, Scope
from headgate.budget.memory import MemoryLedger
from headgate.model.errors import InvalidRequest
from headgate.model.money import LARGEST
from headgate.model.tenancy import Caps

NOON = 1_795_176_000.0
"""2026-11-20T12:00:00Z."""

DAY = "day:2026-11-20"


class House:
    """A desk, its journal, and a process that learns of every change at once."""

    def __init__(self) -> None:
        self.now = NOON
        self.ledger = MemoryLedger(now=lambda: self.now)
        self.allowances = Allowances(Caps(month=1_000))
        self.desk = self.new_desk()

    def new_desk(self) -> Desk:
        return Desk(self.allowances, self.ledger, self.ledger, now=lambda: self.now)

    async def learn(self) -> None:
        for allowance in folded((await self.ledger.changes())[1], {}).values():
            self.allowances.put(allowance)

    async def spend(self, amount: int, account: str = "tenant:acme", window: str = DAY) -> None:
        id = f"{account} {window} {amount}"
        entry = Entry(tenant="acme", amount=amount)
        await self.ledger.reserve(
            Hold(id=id, scopes=(Scope(account, window),), amount=amount, least=amount, lease=60.0, entry=entry)
        )
        self.ledger.settle(id, [entry])

    async def changes(self) -> list[Change]:
        return (await self.ledger.changes())[1]


@pytest.fixture
def house() -> House:
    return House()


@pytest.mark.parametrize(
    ("account", "level", "tenant"),
    [
        ("organisation:all", "organisation", None),
        ("tenant:t_1", "tenant", "t_1"),
        ("user:t_1/ann@example.com", "user", "t_1"),
        ("user:t_1/a/b:c", "user", "t_1"),
        ("key:t_1/k1", "key", "t_1"),
        ("feature:t_1/search box", "feature", "t_1"),
        ("model:t_1/openai/gpt", "model", "t_1"),
    ],
)
def test_an_account_says_its_level_and_its_tenant(account: str, level: str, tenant: str | None) -> None:
    assert level_of(account) == level
    assert tenant_of(account) == tenant


@pytest.mark.parametrize(
    "account",
    ["", "tenant", "tenant:", "acme", "team:acme", "tenant:a/b", "user:acme", "user:acme/", "user:/ann",
     "organisation:a/b", "Tenant:acme", "user:acme/" + "x" * 400, "user:acme/a\nb", "user:acme/\udcff"],
)  # fmt: skip
def test_what_is_no_account_is_refused(account: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        level_of(account)
    assert caught.value.param == "account"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"window": "year"}, "window"),
        ({"window": "minute"}, "window"),
        ({"unit": "eur"}, "unit"),
        ({"rule": "strict"}, "rule"),
        ({"cap": -1}, "cap"),
        ({"cap": 1.5}, "cap"),
        ({"cap": True}, "cap"),
        ({"cap": "5"}, "cap"),
        ({"cap": LARGEST + 1}, "cap"),
        ({"extra": -1}, "extra"),
        ({"percent": 5}, "percent"),
        ({"rule": "grace"}, "percent"),
        ({"rule": "grace", "percent": -5}, "percent"),
        ({"rule": "grace", "percent": 2.5}, "percent"),
        ({"rule": "grace", "percent": True}, "percent"),
        ({"rule": "grace", "percent": 10_001}, "percent"),
        ({"rule": "overage", "percent": 99}, "percent"),
        ({"rule": "overage", "percent": 120, "unit": "tokens"}, "rule"),
        ({"alerts": (0,)}, "alerts"),
        ({"alerts": (1_001,)}, "alerts"),
        ({"alerts": (50.5,)}, "alerts"),
        ({"alerts": (True,)}, "alerts"),
        ({"alerts": tuple(range(1, 10))}, "alerts"),
        ({"account": "nobody"}, "account"),
    ],
)
def test_what_cannot_be_allowed_is_refused_by_the_name_of_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked_allowance(Allowance(**{"account": "tenant:acme", "window": "day", **fields}))
    assert caught.value.param == param


def test_the_largest_caps_stay_within_64_bits() -> None:
    most = Allowance(account="tenant:acme", window="total", cap=LARGEST, extra=LARGEST, extra_window="total")
    assert most.limit("total") == LARGEST
    assert msgspec.structs.replace(most, rule="grace", percent=10_000).admits("total") == LARGEST


async def test_a_cap_is_set_and_says_who_did_it(house: House) -> None:
    allowance = await house.desk.set("tenant:acme", "day", 50, rule="grace", percent=10, alerts=(90,), by="key k1")
    assert allowance == Allowance(
        account="tenant:acme", window="day", cap=50, rule="grace", percent=10, alerts=(90,), created=NOON
    )
    (change,) = await house.changes()
    assert (change.action, change.allowance, change.by, change.at) == ("set", allowance, "key k1", NOON)


async def test_nothing_is_written_that_cannot_be(house: House) -> None:
    for wrong in ({"cap": -1}, {"cap": 1, "rule": "strict"}, {"cap": 1, "unit": "eur"}, {"cap": 1, "zone": "Mars"}):
        with pytest.raises(InvalidRequest):
            await house.desk.set("tenant:acme", "day", **wrong)  # type: ignore[arg-type]
    for amount in (0, -1, 1.5, True, LARGEST + 1):
        with pytest.raises(InvalidRequest):
            await house.desk.top_up("tenant:acme", "month", amount)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        await house.desk.top_up("tenant:acme", "year", 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        await house.desk.suspend("nobody")
    assert await house.changes() == []


async def test_a_cap_below_what_is_spent_is_refused(house: House) -> None:
    await house.spend(60)
    with pytest.raises(InvalidRequest, match="suspend") as caught:
        await house.desk.set("tenant:acme", "day", 59)
    assert caught.value.param == "cap"
    assert (await house.desk.set("tenant:acme", "day", 60)).cap == 60


async def test_a_cap_may_be_raised_though_more_is_spent_already(house: House) -> None:
    await house.desk.set("tenant:acme", "day", 50, rule="soft")
    await house.learn()
    await house.spend(200)
    assert (await house.desk.set("tenant:acme", "day", 100, rule="soft")).cap == 100
    with pytest.raises(InvalidRequest):
        await house.desk.set("tenant:acme", "day", 49)


async def test_a_cap_may_not_be_set_below_what_a_topped_up_one_has_let_spend(house: House) -> None:
    await house.desk.set("tenant:acme", "day", 50)
    await house.learn()
    await house.desk.top_up("tenant:acme", "day", 50)
    await house.learn()
    await house.spend(80)
    with pytest.raises(InvalidRequest):
        await house.desk.set("tenant:acme", "day", 70)


async def test_windows_are_those_of_the_zone(house: House) -> None:
    house.now += 11 * 3_600
    await house.spend(60, window="day:2026-11-21@Asia/Tokyo")
    with pytest.raises(InvalidRequest):
        await house.desk.set("tenant:acme", "day", 10, zone="Asia/Tokyo")
    assert (await house.desk.set("tenant:acme", "day", 10)).cap == 10


async def test_topping_up_adds_for_the_present_window_alone(house: House) -> None:
    await house.desk.set("tenant:acme", "day", 50)
    await house.learn()
    for amount in (5, 7):
        await house.desk.top_up("tenant:acme", "day", amount)
        await house.learn()
    allowance = house.allowances.find("tenant:acme", "day")
    assert allowance is not None
    assert (allowance.limit(DAY), allowance.limit("day:2026-11-21")) == (62, 50)
    house.now += 86_400
    topped = await house.desk.top_up("tenant:acme", "day", 1)
    assert (topped.limit(DAY), topped.limit("day:2026-11-21")) == (50, 51)


async def test_a_default_cap_can_be_topped_up(house: House) -> None:
    topped = await house.desk.top_up("tenant:acme", "month", 5)
    assert topped.limit("month:2026-11") == 1_005


async def test_a_total_is_topped_up_for_good(house: House) -> None:
    await house.desk.set("tenant:acme", "total", 50)
    await house.learn()
    house.now += 400 * 86_400
    assert (await house.desk.top_up("tenant:acme", "total", 5)).limit("total") == 55


async def test_what_has_no_cap_cannot_be_topped_up(house: House) -> None:
    with pytest.raises(InvalidRequest, match="nothing to top up"):
        await house.desk.top_up("user:acme/ann", "day", 5)


async def test_a_cap_cannot_be_topped_up_beyond_all_money(house: House) -> None:
    await house.desk.set("tenant:acme", "total", LARGEST - 1)
    await house.learn()
    with pytest.raises(InvalidRequest, match="beyond"):
        await house.desk.top_up("tenant:acme", "total", 2)


async def test_suspending_stops_every_window_and_resuming_gives_the_caps_back(house: House) -> None:
    await house.desk.set("key:acme/k1", "day", 50)
    await house.desk.set("key:acme/k1", "hour", 5, rule="soft")
    await house.learn()
    assert len(await house.desk.suspend("key:acme/k1")) == 2
    await house.learn()
    assert [one.admits(DAY) for one in house.allowances.of("key:acme/k1")] == [-1, -1]
    assert await house.desk.suspend("key:acme/k1") == []
    await house.desk.resume("key:acme/k1")
    await house.learn()
    assert [one.admits(DAY) for one in house.allowances.of("key:acme/k1")] == [50, None]


async def test_an_account_that_never_had_a_budget_can_be_suspended(house: House) -> None:
    (allowance,) = await house.desk.suspend("user:acme/ann")
    assert (allowance.window, allowance.cap, allowance.admits("total")) == ("total", None, -1)


async def test_setting_a_cap_resumes_nothing(house: House) -> None:
    await house.desk.set("key:acme/k1", "day", 50)
    await house.learn()
    await house.desk.suspend("key:acme/k1")
    await house.learn()
    assert (await house.desk.set("key:acme/k1", "day", 70)).suspended


async def test_of_two_changes_made_at_once_neither_undoes_the_other(house: House) -> None:
    """Two processes, neither of which knows what the other has just written."""
    await house.desk.set("tenant:acme", "day", 50)
    await house.learn()
    first, second = house.new_desk(), house.new_desk()
    await first.top_up("tenant:acme", "day", 5)
    await second.top_up("tenant:acme", "day", 7)
    await first.suspend("tenant:acme")
    await second.set("tenant:acme", "day", 60)
    await first.top_up("tenant:acme", "day", 3)
    await house.learn()
    allowance = house.allowances.find("tenant:acme", "day")
    assert allowance is not None
    assert (allowance.cap, allowance.extra, allowance.suspended, allowance.created) == (60, 3, True, NOON)


async def test_changes_come_to_the_same_however_they_are_read(house: House) -> None:
    for amount in (1, 2, 3):
        await house.desk.top_up("tenant:acme", "month", amount)
    await house.desk.suspend("tenant:acme")
    changes = await house.changes()
    at_once = folded(changes, {})
    one_by_one: dict[Any, Allowance] = {}
    for change in changes:
        one_by_one.update(folded([change], one_by_one))
    assert at_once == one_by_one
    assert at_once["tenant:acme", "month", "usd"].limit("month:2026-11") == 1_006


async def test_the_standing_of_an_allowance_is_that_of_its_present_window(house: House) -> None:
    await house.spend(60)
    await house.spend(70, "organisation:all")
    day = Allowance(account="tenant:acme", window="day")
    assert await standing(house.ledger, day, "UTC", NOON) == Balance(60)
    assert await standing(house.ledger, day, "UTC", NOON + 86_400) == Balance()
    above = Allowance(account="organisation:all", window="day")
    assert await standing(house.ledger, above, "Asia/Tokyo", NOON + 6 * 3_600) == Balance(70)


def test_all_allowances_are_told_by_account() -> None:
    allowances = Allowances()
    for account in ("tenant:b", "tenant:a", "key:a/k"):
        allowances.put(Allowance(account=account, window="day", cap=1))
    assert [one.account for one in allowances.all()] == ["key:a/k", "tenant:a", "tenant:b"]
    assert [one.account for one in allowances.of("tenant:a")] == ["tenant:a"]
    assert allowances.of("tenant:c") == ()
