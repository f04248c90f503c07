"""`headgate usage`, from a journal that a server wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import NOON, Headgate, printed, spend

LEDGER = Path("headgate-data/headgate.db")
DAY = 86_400.0


@pytest.fixture
def acme(headgate: Headgate) -> str:
    """A tenant with two calls: $0.25 on the 20th of November, $0.50 on the 21st; each answered once more from the cache."""
    id: str = printed(headgate("tenants", "create", "acme", "--json"))["id"]
    spend(LEDGER, id, 250_000_000)
    spend(LEDGER, id, 500_000_000, at=NOON + DAY, model="gpt-4o", id="b")
    return id


def test_usage_is_shown_by_tenant_with_names(headgate: Headgate, acme: str) -> None:
    assert acme.startswith("t_")
    heading, line = headgate("usage").stdout.splitlines()
    assert heading.split("  ")[0] == "tenant"
    assert line.split() == ["acme", "4", "400", "200", "0", "0.75", "0.75", "0.75"]


def test_several_groups_end_in_a_total(headgate: Headgate, acme: str) -> None:
    lines = headgate("usage", "--tenant", acme, "--group-by", "day,model").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["2026-11-20", "gpt-4o-mini"],
        ["2026-11-21", "gpt-4o"],
        ["total", "-"],
    ]
    assert lines[-1].split()[2:] == ["4", "400", "200", "0", "0.75", "0.75", "0.75"]


@pytest.mark.parametrize(
    ("span", "cost"),
    [
        (("--from", "2026-11-21"), "0.50"),
        (("--to", "2026-11-21"), "0.25"),
        (("--from", "2026-11-20T12:00:00Z", "--to", "2026-11-20T12:00:01+00:00"), "0.25"),
        (("--from", str(NOON + DAY + 1)), "0.00"),
    ],
)
def test_a_span_of_time_is_summed(headgate: Headgate, acme: str, span: tuple[str, ...], cost: str) -> None:
    found = printed(headgate("usage", "--tenant", "acme", *span, "--json"))
    assert found["total"]["cost_usd"] == cost
    assert all(row["tenant"] == acme for row in found["data"])


def test_a_deleted_tenant_still_has_a_bill(headgate: Headgate, acme: str) -> None:
    headgate("tenants", "delete", "acme", "--yes")
    assert printed(headgate("usage", "--tenant", acme, "--json"))["total"]["cost_usd"] == "0.75"
    assert acme in headgate("usage").stdout


def test_what_is_saved_is_told_by_its_reason(headgate: Headgate, acme: str) -> None:
    found = printed(headgate("usage", "--group-by", "model", "--json"))
    assert [row["saved_by"] for row in found["data"]] == [{"exact": "0.50"}, {"exact": "0.25"}]
    assert found["total"]["saved_by"] == {"exact": "0.75"}
    assert found["total"]["billed_usd"] == "0.75"


def test_no_usage_is_said_plainly(headgate: Headgate) -> None:
    assert headgate("usage").stdout == "no usage yet\n"


def test_an_unknown_group_is_refused(headgate: Headgate) -> None:
    assert headgate("usage", "--group-by", "colour", code=1).stderr.startswith(
        "error: Usage cannot be grouped by 'colour'"
    )
