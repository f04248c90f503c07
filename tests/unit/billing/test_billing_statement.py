"""Statements: exact, and safe to open."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

from headgate.billing.statement import Statement, StatementRow, csv_statement, html_statement


def row(day: str = "2026-11-20", model: str = "gpt-4o", source: str = "live", **money: int) -> StatementRow:
    figures = {"cost": 1, "billed": 2, "saved": 3, **money}
    return StatementRow(
        day=day,
        model=model,
        source=source,
        requests=4,
        prompt_tokens=5,
        completion_tokens=6,
        cached_tokens=7,
        **figures,
    )


def statement(*rows: StatementRow, name: str = "acme") -> Statement:
    return Statement(
        tenant="t_1", name=name, customer=None, month="2026-11", zone="UTC", since=datetime(2026, 11, 1, tzinfo=UTC),
        until=datetime(2026, 12, 1, tzinfo=UTC), made=datetime(2026, 12, 1, tzinfo=UTC), open=False, rows=rows,
    )  # fmt: skip


def test_the_total_is_the_sum_of_its_rows_to_the_last_nano_dollar() -> None:
    rows = [row(billed=333_333_333, cost=2**62, saved=2**62), row(model="b", billed=1, cost=2**62, saved=2**62)]
    written = list(csv.DictReader(io.StringIO(csv_statement(statement(*rows)).decode())))
    assert [each["billed_usd"] for each in written] == ["0.333333333", "0.000000001", "0.333333334"]
    assert written[-1]["cost_usd"] == written[-1]["saved_usd"] == "9223372036.854775808"
    assert (written[-1]["day"], written[-1]["requests"]) == ("total", "8")


def test_a_page_shows_the_total_by_day_model_and_source() -> None:
    page = html_statement(
        statement(row(billed=10**9), row(day="2026-11-21", source="exact", billed=2 * 10**9))
    ).decode()
    for heading in ("Total", "By model", "By source", "By day", "By day, model and source"):
        assert f"<h2>{heading}</h2>" in page
    assert "<td>total</td>" in page
    assert "<td class=n>3.00</td>" in page
    assert "2026-11-01T00:00:00+00:00 to 2026-12-01T00:00:00+00:00 (UTC)" in page


def test_nothing_that_a_caller_invents_becomes_markup_or_a_formula() -> None:
    hostile = "<script>alert(1)</script>\"'&"
    page = html_statement(statement(row(model=hostile, source=hostile), name=hostile)).decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    sheet = csv_statement(statement(row(model="=HYPERLINK(1)"))).decode()
    assert "'=HYPERLINK(1)" in sheet


def test_a_month_without_calls_is_a_statement_too() -> None:
    assert csv_statement(statement()).decode().splitlines()[-1] == "total,,,0,0,0,0,0.00,0.00,0.00"
    assert b"0.00" in html_statement(statement())
