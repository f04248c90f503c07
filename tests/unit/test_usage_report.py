"""The usage report: what it adds to the journal's sums."""

from __future__ import annotations

import pytest

from headgate.budget.budget import Entry, Hold
from headgate.budget.memory import MemoryLedger
from headgate.server.usage import usage_report


@pytest.fixture
async def ledger() -> MemoryLedger:
    """A call that was routed to a cheaper model, and a hit for which half is billed."""
    made = MemoryLedger(now=lambda: 1_795_176_000.0)
    entry = Entry(tenant="t", model="small", route="auto", amount=10, saved=90)
    await made.reserve(Hold(id="a", scopes=(), amount=10, least=10, lease=60.0, entry=entry))
    made.settle("a", [entry])
    made.note("b", Entry(tenant="t", model="small", route="auto", source="exact", billed=5, saved=10))
    return made


async def test_what_was_routed_is_saved_by_a_live_call(ledger: MemoryLedger) -> None:
    report = await usage_report(ledger, None, {"group_by": "source"})
    assert [(row["source"], row["saved_by"]) for row in report["data"]] == [
        ("exact", {"exact": "0.00000001"}),
        ("live", {"routed": "0.00000009"}),
    ]


@pytest.mark.parametrize("groups", ["", "tenant", "source", "source,tenant", "day,model"])
async def test_totals_do_not_depend_on_the_grouping(ledger: MemoryLedger, groups: str) -> None:
    report = await usage_report(ledger, None, {"group_by": groups})
    assert report["total"] == {
        "requests": 2,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cached_tokens": 0,
        "cost_usd": "0.00000001",
        "billed_usd": "0.000000015",
        "saved_usd": "0.0000001",
        "saved_by": {"exact": "0.00000001", "routed": "0.00000009"},
    }
    names = [name for name in groups.split(",") if name]
    assert all(list(row)[: len(names)] == names for row in report["data"])
    assert len(report["data"]) == (2 if "source" in names else 1)


async def test_no_calls_are_no_rows(ledger: MemoryLedger) -> None:
    assert (await usage_report(ledger, "other", {}))["data"] == []
