"""`headgate billing` and `headgate statement`, on a data directory that a server has used."""

from __future__ import annotations

import asyncio
import csv
import io
from pathlib import Path

import pytest

from headgate.billing.billing import BILLED, DELIVERED, Delivery, Event, Outcome, Place
from headgate.billing.sqlite import SqliteOutbox
from headgate.budget.tail import Tail
from tests.unit.budget.backups import back_up, restore
from tests.unit.cli.conftest import NOON, Headgate, printed, spend

DATA = Path("headgate-data")


def event(seq: int, tenant: str, body: bytes | None = b"x", reason: str = "") -> Event:
    return Event(id=f"hg_{seq}", seq=seq, tenant=tenant, billed=10**9, body=body, made=NOON, reason=reason)


@pytest.fixture
def acme(headgate: Headgate) -> str:
    """A tenant of whose three events one was delivered, one waits and one was refused."""
    id: str = printed(headgate("tenants", "create", "acme", "--json"))["id"]
    spend(DATA / "headgate.db", id, 250_000_000)

    async def sent() -> None:
        outbox = SqliteOutbox(DATA / "headgate-billing.db")
        await outbox.add("stripe", [event(1, id), event(2, id), event(3, id)], Place(3))
        outcomes = (DELIVERED, Outcome("refused", "400: no such customer"))
        await outbox.resolve("stripe", [event(1, id), event(2, id)], Delivery(outcomes))
        await outbox.close()

    asyncio.run(sent())
    return id


def test_status_shows_each_sink(headgate: Headgate, acme: str) -> None:
    (row,) = printed(headgate("billing", "status", "--json"))
    assert {name: row[name] for name in ("delivered", "delivered_usd", "pending", "parked", "parked_usd")} == {
        "delivered": 1,
        "delivered_usd": "1.00",
        "pending": 1,
        "parked": 1,
        "parked_usd": "1.00",
    }
    assert headgate("billing", "status").stdout.splitlines()[1].split()[:2] == ["stripe", "1"]


def test_parked_events_are_shown_and_sent_again(headgate: Headgate, acme: str) -> None:
    line = headgate("billing", "parked", "stripe").stdout.splitlines()[1]
    assert line.split()[:3] == ["hg_2", "acme", "1.00"]
    assert line.endswith("400: no such customer")
    assert headgate("billing", "retry", "stripe", "hg_9").stdout == "0 to be sent again\n"
    assert printed(headgate("billing", "retry", "stripe", "--all", "--json")) == {"retried": 1}
    assert headgate("billing", "parked", "stripe").stdout == "nothing is parked\n"


def test_what_is_to_be_sent_again_must_be_said(headgate: Headgate, acme: str) -> None:
    assert "Say which events, or --all" in headgate("billing", "retry", "stripe", code=2).stderr
    assert "Say which events, or --all" in headgate("billing", "retry", "stripe", "hg_2", "--all", code=2).stderr


def test_a_sink_there_is_not_is_said_with_those_there_are(headgate: Headgate, acme: str) -> None:
    told = headgate("billing", "parked", "strip", code=1).stderr
    assert told == "error: There is no billing sink 'strip'; known are stripe.\n"


def read_by_stripe(at: float) -> None:
    """The sink reads the whole journal."""

    async def read() -> None:
        tail, outbox = Tail(DATA / "headgate.db"), SqliteOutbox(DATA / "headgate-billing.db")
        (row, checksum), _ = await tail.rows((0, None), BILLED, 100)
        await outbox.add("stripe", [], Place(row, checksum, at))
        await outbox.stop("stripe", "replaced")
        await outbox.close()
        tail.close()

    asyncio.run(read())


def test_a_sink_goes_back_when_its_journal_was_replaced_and_only_then(headgate: Headgate) -> None:
    journal, backup = DATA / "headgate.db", DATA / "backup.db"
    id = printed(headgate("tenants", "create", "acme", "--json"))["id"]
    spend(journal, id, 250_000_000)
    back_up(journal, backup)
    spend(journal, id, 10**9, at=NOON + 60, id="gone")
    read_by_stripe(NOON + 120)
    assert "is the one that was read before" in headgate("billing", "rewind", "stripe", code=1).stderr
    restore(backup, journal)
    spend(journal, id, 2 * 10**9, at=NOON + 600, id="new")
    shown = printed(headgate("billing", "rewind", "stripe", "--json"))
    assert {name: shown[name] for name in ("new", "new_usd", "parked", "done")} == {
        "new": 2, "new_usd": "2.00", "parked": 0, "done": False,
    }  # fmt: skip
    table = headgate("billing", "rewind", "stripe").stdout
    assert "2026-11-20T12:00:00Z  2026-11-20T12:10:00Z" in table
    assert table.endswith("add --yes.\n")
    (row,) = printed(headgate("billing", "status", "--json"))
    assert (row["place"] > shown["told_up_to"], row["stopped"]) == (True, "replaced")
    assert "a clock was wrong" in headgate("billing", "rewind", "stripe", "--since", "2026-11-21", code=1).stderr
    assert printed(headgate("billing", "rewind", "stripe", "--yes", "--json")) == {**shown, "done": True}
    (row,) = printed(headgate("billing", "status", "--json"))
    assert (row["place"], row["stopped"]) == (shown["told_up_to"], "")


def test_nothing_was_told_yet(headgate: Headgate) -> None:
    assert headgate("billing", "status").stdout == "no sink was told anything yet\n"


def test_a_statement_is_printed_or_written(headgate: Headgate, acme: str) -> None:
    rows = list(csv.DictReader(io.StringIO(headgate("statement", "acme", "--month", "2026-11").stdout)))
    assert [(row["day"], row["source"], row["billed_usd"], row["saved_usd"]) for row in rows] == [
        ("2026-11-20", "exact", "0.00", "0.25"),
        ("2026-11-20", "live", "0.25", "0.00"),
        ("total", "", "0.25", "0.25"),
    ]
    found = printed(headgate("statement", "acme", "--month", "2026-11", "--json"))
    assert (found["name"], found["currency"], found["total"]["billed_usd"]) == ("acme", "USD", "0.25")
    assert [row["requests"] for row in found["data"]] == [1, 1]
    headgate("statement", acme, "--month", "2026-11", "--format", "html", "--out", "page.html")
    assert "<td>total</td>" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("acme", "--month", "2026-13"), 1, "`month` must be a month such as 2026-11"),
        (("nobody", "--month", "2026-11"), 1, "There is no tenant 'nobody'"),
        (("acme",), 2, "Missing option '--month'"),
        (("acme", "--month", "2026-11", "--format", "pdf"), 2, "'pdf' is not one of"),
    ],
)
def test_a_statement_that_cannot_be_is_refused(
    headgate: Headgate, acme: str, args: tuple[str, ...], code: int, says: str
) -> None:
    assert says in headgate("statement", *args, code=code).stderr


def test_a_statement_of_a_tenants_own_zone_has_its_days(headgate: Headgate) -> None:
    id = printed(headgate("tenants", "create", "kiwi", "--zone", "Pacific/Auckland", "--json"))["id"]
    # 2026-11-30T11:30Z is half an hour into December there.
    end = NOON + 10 * 86_400 - 1_800
    spend(DATA / "headgate.db", id, 1_000_000_000, at=end - 3_600, id="a")
    spend(DATA / "headgate.db", id, 2_000_000_000, at=end, id="b")
    for month, cost in (("2026-11", "1.00"), ("2026-12", "2.00")):
        rows = list(csv.DictReader(io.StringIO(headgate("statement", "kiwi", "--month", month).stdout)))
        assert rows[-1]["cost_usd"] == cost
    assert rows[0]["day"] == "2026-12-01"
