"""What SqliteLedger adds to the conformance suite: it comes back, it is alone, and it fails closed."""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headgate.budget.budget import Balance, Entry, Hold, Scope, UsageQuery
from headgate.budget.journal import Journal
from headgate.budget.sqlite import SqliteLedger
from headgate.model.errors import Conflict, Overloaded
from headgate.storage.sqlite import connect

NOON = 1_795_176_000.0


def ledger_at(path: Path, at: float = NOON) -> SqliteLedger:
    return SqliteLedger(path / "ledger.db", now=lambda: at)


def hold(id: str, amount: int, window: str = "hour:2026-11-20T12") -> Hold:
    scopes = (Scope("tenant:acme", window, 1_000), Scope("tenant:acme", "total"))
    return Hold(id=id, scopes=scopes, amount=amount, lease=900.0, entry=Entry(tenant="acme", route="auto"))


async def spend(ledger: SqliteLedger, id: str, amount: int) -> None:
    await ledger.reserve(hold(id, amount))
    await ledger.dispatched(id)
    ledger.settle(id, Entry(tenant="acme", amount=amount))


def copied(path: Path, to: Path) -> None:
    """The files as a killed process leaves them."""
    to.mkdir()
    for file in path.glob("ledger.db*"):
        (to / file.name).write_bytes(file.read_bytes())


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow, so every write of SQLite's fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_balances_come_back_from_the_journal(tmp_path: Path) -> None:
    first = ledger_at(tmp_path)
    await spend(first, "a", 40)
    await spend(first, "b", 2)
    await first.close()
    second = ledger_at(tmp_path)
    await spend(second, "c", 100)
    await second.close()
    third = ledger_at(tmp_path)
    assert await third.balance("tenant:acme", "hour:2026-11-20T12") == Balance(spent=142)
    assert await third.balance("tenant:acme", "total") == Balance(spent=142)
    assert [(row.requests, row.cost) for row in await third.usage(UsageQuery())] == [(3, 142)]
    await third.close()


async def test_what_a_killed_process_left_open_is_ended_when_it_comes_back(tmp_path: Path) -> None:
    """Dispatched: lost at the hold. Not dispatched: gone, as if it had never been."""
    first = ledger_at(tmp_path)
    await spend(first, "settled", 1)
    await first.reserve(hold("held", 20))
    await first.reserve(hold("sent", 300))
    await first.dispatched("sent")
    copied(tmp_path, tmp_path / "after")
    await first.close()
    second = ledger_at(tmp_path / "after")
    assert second.recovered == 1
    assert await second.balance("tenant:acme", "total") == Balance(spent=301)
    assert second.open_reservations() == 0
    rows = {row.group["route"]: row.cost for row in await second.usage(UsageQuery(group_by=("route",)))}
    assert rows == {"": 1, "auto": 300}
    await second.close()
    third = ledger_at(tmp_path / "after")
    assert third.recovered == 0
    await third.close()


async def test_a_call_is_two_rows_and_a_reservation_given_back_is_none(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    await ledger.reserve(hold("given back", 5))
    ledger.release("given back")
    await spend(ledger, "a", 40)
    await ledger.close()
    connection = connect(tmp_path / "ledger.db")
    scopes = '[["tenant:acme","hour:2026-11-20T12"],["tenant:acme","total"]]'
    assert connection.execute("SELECT id, kind, route, amount, scopes FROM journal ORDER BY seq").fetchall() == [
        ("a", "hold", "auto", 40, scopes),
        ("a", "settle", "", 40, scopes),
    ]
    connection.close()


async def test_what_was_only_reserved_when_the_process_was_killed_may_be_reserved_anew(tmp_path: Path) -> None:
    first = ledger_at(tmp_path)
    await first.reserve(hold("a", 20))
    await first.usage(UsageQuery())
    copied(tmp_path, tmp_path / "after")
    await first.close()
    second = ledger_at(tmp_path / "after")
    second.settle("a", Entry(tenant="acme", amount=7))
    assert await second.balance("tenant:acme", "total") == Balance()
    await spend(second, "a", 9)
    assert await second.balance("tenant:acme", "total") == Balance(spent=9)
    await second.close()


async def test_the_running_sums_never_pass_an_open_reservation(tmp_path: Path) -> None:
    """Sums brought up to date while calls are open lose none of them to a kill that follows."""
    first = ledger_at(tmp_path)
    await spend(first, "a", 1)
    await first.reserve(hold("open", 20))
    await first.dispatched("open")
    await spend(first, "b", 300)
    journal = Journal(tmp_path / "ledger.db")
    await first.usage(UsageQuery())
    await journal.fold(oldest=NOON)
    journal.close()
    copied(tmp_path, tmp_path / "after")
    await first.close()
    second = ledger_at(tmp_path / "after")
    assert await second.balance("tenant:acme", "total") == Balance(spent=321)
    await second.close()


async def test_windows_that_ended_long_ago_are_not_carried_along(tmp_path: Path) -> None:
    first = ledger_at(tmp_path)
    await spend(first, "a", 1)
    await first.close()
    later = ledger_at(tmp_path, NOON + 3 * 86_400)
    await later.close()
    connection = connect(tmp_path / "ledger.db")
    assert connection.execute("SELECT window FROM spent").fetchall() == [("total",)]
    connection.close()


async def test_two_servers_on_one_ledger_are_refused_naming_the_first(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    with pytest.raises(Conflict, match=f"in use by process {os.getpid()}"):
        ledger_at(tmp_path)
    await ledger.close()
    await ledger_at(tmp_path).close()


async def test_the_journal_can_be_read_while_a_server_writes_it(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    await spend(ledger, "a", 40)
    await ledger.usage(UsageQuery())
    journal = Journal(tmp_path / "ledger.db")
    assert [row.cost for row in await journal.usage(UsageQuery(tenant="acme"))] == [40]
    journal.close()
    await ledger.close()


async def test_a_row_of_the_journal_cannot_be_changed(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    await spend(ledger, "a", 40)
    await ledger.close()
    connection = connect(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("UPDATE journal SET amount = 0")
    connection.close()


async def test_nothing_is_dispatched_while_the_disk_is_full_and_nothing_is_lost(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    await spend(ledger, "before", 40)
    await ledger.usage(UsageQuery())
    await ledger.reserve(hold("during", 100))
    with full_disk():
        with pytest.raises(Overloaded) as caught:
            await ledger.dispatched("during")
        assert caught.value.status == 503
        with pytest.raises(Overloaded):
            await ledger.reserve(hold("refused", 100))
        ledger.settle("during", Entry(tenant="acme", amount=0))
    assert [row.cost for row in await ledger.usage(UsageQuery())] == [40]
    await spend(ledger, "after", 2)
    await ledger.close()
    reopened = ledger_at(tmp_path)
    assert reopened.recovered == 0
    assert await reopened.balance("tenant:acme", "total") == Balance(spent=42)
    await reopened.close()


async def test_text_that_utf8_cannot_carry_spoils_no_batch(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    ledger.note("odd", Entry(tenant="acme", user="half \ud83d pair", saved=1))
    ledger.note("even", Entry(tenant="acme", user="ann", saved=2))
    rows = await ledger.usage(UsageQuery(group_by=("user",)))
    assert [(row.group["user"], row.saved) for row in rows] == [("ann", 2), ("half ? pair", 1)]
    await ledger.close()
