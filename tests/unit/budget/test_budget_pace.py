"""Pace: a task that becomes dearer is noticed, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headgate.billing.billing import Place
from headgate.billing.webhook import Webhook
from headgate.budget.budget import Entry, Hold, UsageRow
from headgate.budget.memory import MemoryLedger
from headgate.budget.pace import DAY, dearer, dearer_now
from headgate.budget.sqlite import SqliteLedger
from headgate.budget.tail import Tail
from headgate.fittings_billing import feed_of
from headgate.housekeeping import newly_dearer

CENT = 10_000_000


def row(requests: int, cost: int, *, tenant: str = "t", feature: str = "", route: str = "auto") -> UsageRow:
    return UsageRow(
        group={"tenant": tenant, "feature": feature, "route": route}, requests=requests, prompt_tokens=0,
        completion_tokens=0, cached_tokens=0, cost=cost, billed=cost, saved=0,
    )  # fmt: skip


def test_a_task_that_costs_a_fifth_more_is_told() -> None:
    (pace,) = dearer([row(1_000, 1_200 * CENT)], [row(7_000, 7_000 * CENT)])
    assert (pace.percent, pace.usd_per_call, pace.past_usd_per_call, pace.calls) == (20, "0.012", "0.01", 1_000)


@pytest.mark.parametrize(
    ("recent", "past"),
    [
        (row(1_000, 1_150 * CENT), row(7_000, 7_000 * CENT)),
        (row(1_000, 800 * CENT), row(7_000, 7_000 * CENT)),
        (row(99, 990 * CENT), row(7_000, 7_000 * CENT)),
        (row(1_000, 2_000 * CENT), row(99, 99 * CENT)),
        (row(1_000, 2_000 * CENT), row(7_000, 0)),
        (row(1_000, 1_200), row(7_000, 7_000)),
        (row(1_000, 2_000 * CENT), row(7_000, 7_000 * CENT, feature="other")),
    ],
    ids=["fifteen percent", "cheaper", "few calls", "short past", "free past", "a trifle", "another task"],
)
def test_nothing_is_told_of(recent: UsageRow, past: UsageRow) -> None:
    assert dearer([recent], [past]) == []


def test_fifteen_percent_is_the_bound_to_the_nano_dollar() -> None:
    past = [row(1_000, 100_000 * CENT)]
    assert dearer([row(1_000, 115_000 * CENT)], past) == []
    assert [pace.percent for pace in dearer([row(1_000, 115_000 * CENT + 1)], past)] == [15]


def test_what_costs_most_comes_first() -> None:
    past = [row(1_000, 1_000 * CENT, tenant=name) for name in "ab"]
    told = dearer([row(1_000, 1_300 * CENT, tenant="a"), row(1_000, 9_000 * CENT, tenant="b")], past)
    assert [pace.tenant for pace in told] == ["b", "a"]


async def test_the_last_day_is_held_against_the_week_before_it() -> None:
    now = [0.0]
    ledger = MemoryLedger(now=lambda: now[0])
    for day in range(9):
        now[0] = day * DAY + 1.0
        for number in range(200):
            id = f"{day}-{number}"
            # The first day lies before the week and was dear; the last one is.
            entry = Entry(tenant="t", route="auto", amount=5 * CENT if day in (0, 8) else CENT)
            await ledger.reserve(Hold(id=id, scopes=(), amount=entry.amount, least=0, lease=60.0, entry=entry))
            ledger.settle(id, [entry])
    assert [pace.percent for pace in await dearer_now(ledger, 9 * DAY)] == [400]
    assert await dearer_now(ledger, 8 * DAY) == []


async def test_an_alert_is_written_once_and_a_ledger_opens_with_it(tmp_path: Path) -> None:
    path = tmp_path / "headgate.db"
    await SqliteLedger(path).close()
    tail = Tail(path)
    entry = Entry(tenant="t", route="auto", source="pace")
    assert await tail.tell("pace t auto 2026-11-20", 5.0, entry, '{"tenant":"t"}')
    assert not await tail.tell("pace t auto 2026-11-20", 6.0, entry, "{}")
    place, rows = await tail.rows((0, None), ("alert",), 10)
    assert [(posted.at, posted.entry, posted.detail) for posted in rows] == [(5_000_000, entry, '{"tenant":"t"}')]
    assert (place[0], await tail.rows(place, ("alert",), 10)) == (1, (place, []))
    tail.close()
    await SqliteLedger(path).close()


async def test_a_dearer_task_is_written_down_once_a_day_and_goes_out_as_an_alert(tmp_path: Path) -> None:
    path, now = tmp_path / "headgate.db", [0.0]
    ledger = SqliteLedger(path, now=lambda: now[0])
    for day in (0, 7):
        now[0] = day * DAY + 1.0
        for number in range(100):
            entry = Entry(tenant="t", route="auto", feature="search", amount=(1 + day) * CENT)
            await ledger.reserve(
                Hold(id=f"{day}-{number}", scopes=(), amount=entry.amount, least=0, lease=60.0, entry=entry)
            )
            await ledger.dispatched(f"{day}-{number}")
            ledger.settle(f"{day}-{number}", [entry])
    tail = Tail(path)
    assert [pace.percent for pace in await newly_dearer(ledger, tail, 7.5 * DAY)] == [700]
    assert await newly_dearer(ledger, tail, 7.9 * DAY) == []
    _, (row,) = await tail.rows((0, None), ("alert",), 10)
    _, (line,) = await feed_of(tail)(Place(), ("alert",), 10)
    hook = Webhook(lambda *_: None, secret=None)
    assert json.loads(hook.render(line, "hg_1", None)) == {
        "id": "hg_1",
        "type": "spend_rate",
        "created": int(7.5 * DAY),
        "data": {
            "tenant": "t",
            "feature": "search",
            "route": "auto",
            "percent": 700,
            "usd_per_call": "0.08",
            "past_usd_per_call": "0.01",
            "calls": 100,
        },
    }
    assert row.entry.source == "pace"
    tail.close()
    await ledger.close()
    await SqliteLedger(path).close()
