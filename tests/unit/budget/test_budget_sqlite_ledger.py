"""What SqliteLedger adds to the conformance suite: it comes back, it is alone, it fails closed, and it notices damage."""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.budget.allowance import Allowance
from headgate.budget.budget import Alert, Balance, Change, Entry, Hold, Match, Scope, UsageQuery
from headgate.budget.journal import COLUMNS, INSERT, SCHEMA, Journal, open_journal, row_of, verify
from headgate.budget.proof import prove
from headgate.budget.sqlite import FOLD_EVERY, SqliteLedger
from headgate.budget.sums import mark_of
from headgate.model.errors import Conflict, Overloaded
from headgate.model.money import LARGEST, Rare, Usage
from headgate.storage.sqlite import connect, migrate

NOON = 1_795_176_000.0
HOUR = "hour:2026-11-20T12"
TOKENS = "tokens/day:2026-11-20"


def ledger_at(path: Path, at: float = NOON) -> SqliteLedger:
    return SqliteLedger(path / "ledger.db", now=lambda: at)


def hold(id: str, amount: int, window: str = HOUR, *, tokens: int = 0, user: str | None = None) -> Hold:
    scopes = (Scope("tenant:acme", window, 1_000), Scope("tenant:acme", "total"))
    if tokens:
        scopes = (*scopes, Scope("tenant:acme", TOKENS, tokens=True))
    entry = Entry(tenant="acme", user=user, route="auto")
    return Hold(id=id, scopes=scopes, amount=amount, least=amount, lease=900.0, entry=entry, tokens=tokens)


async def send(ledger: SqliteLedger, wanted: Hold) -> None:
    await ledger.reserve(wanted)
    await ledger.dispatched(wanted.id)


async def spend(ledger: SqliteLedger, id: str, amount: int, **fields: str) -> None:
    await send(ledger, hold(id, amount))
    ledger.settle(id, [Entry(tenant="acme", amount=amount, **fields)])


def copied(path: Path, to: Path) -> Path:
    """The files as a killed process leaves them."""
    to.mkdir()
    for file in path.glob("ledger.db*"):
        (to / file.name).write_bytes(file.read_bytes())
    return to


async def killed(ledger: SqliteLedger, path: Path, name: str = "after") -> Path:
    """A copy of the files once all rows are in them; the ledger goes on."""
    await ledger.usage(UsageQuery())
    return copied(path, path / name)


def rows_of(path: Path, columns: str) -> list[tuple[object, ...]]:
    with closing(connect(path / "ledger.db")) as connection:
        return connection.execute(f"SELECT {columns} FROM journal ORDER BY seq").fetchall()


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


async def test_a_clock_that_was_ahead_for_a_while_forgets_no_balance(tmp_path: Path) -> None:
    first = ledger_at(tmp_path)
    await spend(first, "a", 40)
    await first.close()
    ahead = ledger_at(tmp_path, NOON + 3 * 86_400)
    await ahead.close()
    again = ledger_at(tmp_path)
    assert await again.balance("tenant:acme", HOUR) == Balance(spent=40)
    await again.close()


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
    scopes = f'[["tenant:acme","{HOUR}"],["tenant:acme","total"]]'
    assert rows_of(tmp_path, "id, kind, route, amount, scopes") == [
        ("a", "hold", "auto", 40, scopes),
        ("a", "settle", "", 40, scopes),
    ]


async def test_each_attempt_that_cost_something_is_a_row_and_counts_where_its_deployment_does(tmp_path: Path) -> None:
    first = ledger_at(tmp_path)
    model = Scope("model:acme/big", "total", deployment="big")
    wanted = hold("a", 50)
    await send(first, msgspec.structs.replace(wanted, scopes=(*wanted.scopes, model)))
    bill = [Entry(tenant="acme", deployment="big", amount=7), Entry(tenant="acme", deployment="small", amount=30)]
    first.settle("a", bill)
    after = await killed(first, tmp_path)
    await first.close()
    assert rows_of(after, "kind, attempt, amount") == [("hold", 0, 50), ("charge", 0, 7), ("settle", 1, 30)]
    second = ledger_at(after)
    for ledger in (first, second):
        assert await ledger.balance("tenant:acme", "total") == Balance(spent=37)
        assert await ledger.balance("model:acme/big", "total") == Balance(spent=7)
    await second.close()


async def test_what_was_only_reserved_when_the_process_was_killed_may_be_reserved_anew(tmp_path: Path) -> None:
    first = ledger_at(tmp_path)
    await first.reserve(hold("a", 20))
    await first.usage(UsageQuery())
    copied(tmp_path, tmp_path / "after")
    await first.close()
    second = ledger_at(tmp_path / "after")
    second.settle("a", [Entry(tenant="acme", amount=7)])
    assert await second.balance("tenant:acme", "total") == Balance()
    await spend(second, "a", 9)
    assert await second.balance("tenant:acme", "total") == Balance(spent=9)
    await second.close()


async def test_sums_brought_up_to_date_while_calls_are_open_lose_none_of_them_to_a_kill(tmp_path: Path) -> None:
    """However long a call takes, the sums need not wait for it."""
    first = ledger_at(tmp_path)
    await spend(first, "a", 1)
    await send(first, hold("open", 20))
    await send(first, hold("open too", 7))
    await spend(first, "b", 300)
    await fold(first, tmp_path)
    await first.extend("open", 900.0, 50)
    first.settle("open too", [Entry(tenant="acme", amount=5)])
    after = await killed(first, tmp_path)
    with closing(connect(after / "ledger.db")) as connection:
        assert (mark_of(connection).seq, mark_of(connection).unended) == (6, (3, 4))
        assert prove(connection).holds
    await first.close()
    second = ledger_at(after)
    assert second.recovered == 1
    assert await second.balance("tenant:acme", "total") == Balance(spent=356)
    await second.close()
    with closing(connect(after / "ledger.db")) as connection:
        assert prove(connection).holds


async def test_the_running_sums_follow_by_themselves_so_that_a_kill_leaves_little_to_read(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    for number in range(FOLD_EVERY):
        ledger.note(f"{number}", Entry(tenant="acme", source="exact", saved=1))
    await ledger.usage(UsageQuery())
    await ledger.expire()
    with closing(connect(tmp_path / "ledger.db")) as connection:
        assert mark_of(connection).seq == FOLD_EVERY
    await ledger.close()


async def fold(ledger: SqliteLedger, path: Path) -> None:
    await ledger.usage(UsageQuery())
    journal = Journal(path / "ledger.db")
    await journal.fold(oldest=NOON)
    journal.close()


async def test_a_lost_call_counts_at_all_that_was_held_for_it(tmp_path: Path) -> None:
    """Money that was added later, tokens, and a place that was counted only after it began."""
    first = ledger_at(tmp_path)
    await send(first, hold("a", 20, tokens=9, user="ann"))
    await first.extend("a", 900.0, 35)
    await first.count(Scope("user:acme/ann", "total"), Match(("acme",), "user", "ann"))
    await first.extend("a", 900.0, 60)
    after = await killed(first, tmp_path)
    await first.close()
    journal = Journal(after / "ledger.db")
    assert await journal.balance("user:acme/ann", "total") == Balance(held=60)
    assert await journal.balance("tenant:acme", TOKENS) == Balance(held=9)
    journal.close()
    second = ledger_at(after)
    assert second.recovered == 1
    for account in ("tenant:acme", "user:acme/ann"):
        assert await second.balance(account, "total") == Balance(spent=60)
    assert await second.balance("tenant:acme", TOKENS) == Balance(spent=9)
    assert await second.lost() == 60
    await second.close()


async def test_what_a_place_was_seeded_with_is_not_counted_again_after_a_restart(tmp_path: Path) -> None:
    first = ledger_at(tmp_path)
    await spend(first, "before", 30, user="ann")
    await first.count(Scope("user:acme/ann", "total"), Match(("acme",), "user", "ann"))
    after = await killed(first, tmp_path)
    await first.close()
    for path in (tmp_path, after):
        second = ledger_at(path)
        await second.count(Scope("user:acme/ann", "total"), Match(("acme",), "user", "ann"))
        assert await second.balance("user:acme/ann", "total") == Balance(spent=30)
        await second.close()


async def test_a_place_whose_seed_was_never_written_is_seeded_after_a_restart(tmp_path: Path) -> None:
    """The place counts calls that are open already when it is killed; what ended before must not be missing."""
    first = ledger_at(tmp_path)
    await spend(first, "before", 30, user="ann")
    await send(first, hold("open", 5, user="ann"))
    with full_disk():
        with pytest.raises(Overloaded):
            await first.count(Scope("user:acme/ann", "total"), Match(("acme",), "user", "ann"))
    after = await killed(first, tmp_path)
    assert [kind for (kind,) in rows_of(after, "kind")] == ["hold", "settle", "hold", "adopt"]
    second = ledger_at(after)
    for ledger in (first, second):
        await ledger.count(Scope("user:acme/ann", "total"), Match(("acme",), "user", "ann"))
    assert await first.balance("user:acme/ann", "total") == Balance(spent=30, held=5)
    assert await second.balance("user:acme/ann", "total") == Balance(spent=35)
    await first.close()
    await second.close()


async def test_sums_beyond_64_bits_are_exact(tmp_path: Path) -> None:
    first = ledger_at(tmp_path)
    unlimited = (Scope("tenant:acme", "total"),)
    for id in ("a", "b", "c"):
        await send(first, msgspec.structs.replace(hold(id, LARGEST, user="ann"), scopes=unlimited))
        first.settle(id, [Entry(tenant="acme", user="ann", amount=LARGEST)])
    await first.count(Scope("user:acme/ann", "total"), Match(("acme",), "user", "ann"))
    await send(first, msgspec.structs.replace(hold("open", LARGEST), scopes=unlimited))
    after = await killed(first, tmp_path)
    await first.close()
    journal = Journal(after / "ledger.db")
    assert await journal.balance("tenant:acme", "total") == Balance(spent=3 * LARGEST, held=LARGEST)
    journal.close()
    for path in (tmp_path, after):
        second = ledger_at(path)
        assert await second.balance("tenant:acme", "total") == Balance(spent=4 * LARGEST)
        assert await second.balance("user:acme/ann", "total") == Balance(spent=3 * LARGEST)
        await second.close()
        with closing(connect(path / "ledger.db")) as connection:
            assert prove(connection).holds


async def test_an_answer_from_stock_counts_at_what_it_is_billed_also_after_a_kill(tmp_path: Path) -> None:
    first = ledger_at(tmp_path)
    await first.reserve(hold("hit", 50, tokens=9))
    for _ in range(2):
        first.note("hit", Entry(tenant="acme", source="exact", billed=20, saved=80, usage=Usage(prompt_tokens=9)))
    after = await killed(first, tmp_path)
    await first.close()
    second = ledger_at(after)
    for ledger in (first, second):
        assert await ledger.balance("tenant:acme", "total") == Balance(spent=20)
        assert await ledger.balance("tenant:acme", TOKENS) == Balance()
    await second.close()


async def test_a_shared_price_counts_once_in_common_and_in_parts_alone_also_after_a_kill(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    ann, bob = Scope("user:acme/ann", "total", 100), Scope("user:acme/bob", "total", 100)
    led, part = hold("a", 10, user="ann"), hold("a-share", 5, user="bob")
    await send(ledger, msgspec.structs.replace(led, scopes=(*led.scopes, ann)))
    await ledger.reserve(msgspec.structs.replace(part, scopes=(bob,)))
    ledger.note("a-share", Entry(tenant="acme", user="bob", source="coalesced", billed=5, shared=5))
    rare = Usage(prompt_tokens=3, rare=Rare(searches=2))
    ledger.settle("a", [Entry(tenant="acme", user="ann", amount=10, shared=5, usage=rare)])
    again = ledger_at(await killed(ledger, tmp_path))
    for one in (ledger, again):
        for account, spent in (("tenant:acme", 10), ("user:acme/ann", 5), ("user:acme/bob", 5)):
            assert await one.balance(account, "total") == Balance(spent=spent), account
        (row,) = await one.usage(UsageQuery())
        assert (row.cost, row.billed, row.shared) == (10, 10, 10)
    await again.close()
    await ledger.close()
    assert rows_of(tmp_path, "detail")[-2:] == [('{"shared":5}',), ('{"searches":2,"shared":5}',)]
    with closing(connect(tmp_path / "after" / "ledger.db")) as connection:
        assert prove(connection).holds


async def test_a_threshold_is_told_once_in_a_window_however_often_the_ledger_is_opened(tmp_path: Path) -> None:
    told: list[Alert] = []
    allowance = Allowance(account="tenant:acme", window="total", cap=100)
    scopes = (Scope("tenant:acme", "total", 100, allowance),)

    async def spend_in(path: Path, id: str, amount: int) -> None:
        ledger = SqliteLedger(path / "ledger.db", now=lambda: NOON, on_alert=told.append)
        await send(ledger, msgspec.structs.replace(hold(id, amount), scopes=scopes))
        ledger.settle(id, [Entry(tenant="acme", amount=amount)])
        if id == "b":
            await killed(ledger, path)
        await ledger.close()

    await spend_in(tmp_path, "a", 50)
    await spend_in(tmp_path, "b", 31)
    assert [alert.percent for alert in told] == [50, 80]
    for path in (tmp_path, tmp_path / "after"):
        told.clear()
        await spend_in(path, "c", 10)
        assert told == []
        await spend_in(path, "d", 9)
        assert told == [Alert(account="tenant:acme", window="total", percent=100, spent=100, cap=100)]
        assert rows_of(path, "kind").count(("alert",)) == 3


async def test_windows_that_ended_long_ago_are_not_carried_along(tmp_path: Path) -> None:
    first = ledger_at(tmp_path)
    await spend(first, "a", 1)
    await first.close()
    later = ledger_at(tmp_path, NOON + 3 * 86_400)
    later.note("b", Entry(tenant="acme", source="exact"))
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
    assert await journal.balance("tenant:acme", "total") == Balance(spent=40)
    journal.close()
    await ledger.close()


async def test_one_reader_that_asks_again_and_again_sees_each_balance_as_it_is(tmp_path: Path) -> None:
    """Through settlements, calls that open and end, more that is held, and sums that are brought up to date meanwhile."""
    ledger = ledger_at(tmp_path)
    journal = Journal(tmp_path / "ledger.db")
    for turn in range(12):
        await spend(ledger, f"a{turn}", 3)
        await send(ledger, hold(f"b{turn}", 7, tokens=5))
        if turn % 2:
            await ledger.extend(f"b{turn - 1}", 900.0, 9)
            ledger.settle(f"b{turn - 1}", [Entry(tenant="acme", amount=8, usage=Usage(prompt_tokens=2))])
        await ledger.usage(UsageQuery())
        for window in (HOUR, "total", TOKENS):
            assert await journal.balance("tenant:acme", window) == await ledger.balance("tenant:acme", window)
        if turn % 4 == 3:
            await fold(ledger, tmp_path)
    journal.close()
    await ledger.close()


async def test_changes_of_another_connection_are_seen_while_the_ledger_writes_and_are_never_undone(
    tmp_path: Path,
) -> None:
    ledger = ledger_at(tmp_path)
    journal = open_journal(tmp_path / "ledger.db")
    place = 0
    for turn in range(5):
        await spend(ledger, f"call {turn}", 1)
        change = Change(id=f"{turn}", action="set", allowance=Allowance(account="tenant:acme", window="day", cap=turn))
        await journal.change(change)
        await journal.change(msgspec.structs.replace(change, by="told twice"))
        place, seen = await ledger.changes(place)
        assert seen == [change]
    assert await ledger.changes(place) == (place, [])
    journal.close()
    await ledger.close()
    reopened = ledger_at(tmp_path)
    assert [change.allowance.cap for change in (await reopened.changes())[1]] == [0, 1, 2, 3, 4]
    assert await reopened.balance("tenant:acme", "total") == Balance(spent=5)
    await reopened.close()


async def test_a_row_of_the_journal_can_be_neither_changed_nor_deleted(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    await spend(ledger, "a", 40)
    await ledger.close()
    with closing(connect(tmp_path / "ledger.db")) as connection:
        for statement in ("UPDATE journal SET amount = 0", "DELETE FROM journal"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)


async def test_a_row_that_is_there_already_is_left_as_it_is_and_sums_stay_those_of_the_journal(tmp_path: Path) -> None:
    first = ledger_at(tmp_path)
    await spend(first, "a", 40)
    await first.close()
    with closing(connect(tmp_path / "ledger.db")) as connection:
        again = row_of("a", "settle", NOON, Entry(tenant="acme", amount=999), scopes='[["tenant:acme","total"]]')
        connection.execute(INSERT, ((b"[%b,%b]" % (again, again)).decode(),))
    second = ledger_at(tmp_path)
    assert await second.balance("tenant:acme", "total") == Balance(spent=40)
    await second.close()
    with closing(connect(tmp_path / "ledger.db")) as connection:
        assert prove(connection).holds


TEXT = st.text(max_size=20)
NUMBER = st.integers(0, LARGEST)


@settings(max_examples=150, deadline=None)
@given(
    st.builds(
        Entry,
        tenant=TEXT,
        key=TEXT,
        user=st.none() | TEXT,
        feature=st.none() | TEXT,
        route=TEXT,
        model=TEXT,
        deployment=TEXT,
        source=TEXT,
        amount=NUMBER,
        billed=NUMBER,
        saved=NUMBER,
        prices=TEXT,
        usage=st.builds(Usage, prompt_tokens=NUMBER, completion_tokens=NUMBER, estimated=st.booleans()),
    )
)
def test_a_row_comes_back_as_its_checksum_has_it_whatever_callers_call_themselves(entry: Entry) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        migrate(connection, SCHEMA)
        row = row_of("id \0", "settle", NOON, entry, detail=entry.tenant)
        connection.execute(INSERT, ((b"[%b]" % row).decode(),))
        assert verify(connection).sound
        assert connection.execute("SELECT amount FROM journal").fetchone() == (entry.amount,)


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
        ledger.settle("during", [Entry(tenant="acme", amount=0)])
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


async def folded_and_not(path: Path) -> None:
    """A ledger with rows of each kind, some in the running sums and some behind them, as a killed process leaves it."""
    ledger = ledger_at(path)
    await spend(ledger, "first", 40, user="ann")
    await send(ledger, hold("open", 20, user="ann"))
    await ledger.change(Change(id="1", action="set", allowance=Allowance(account="user:acme/ann", window="total")))
    await fold(ledger, path)
    await spend(ledger, "last", 2, user="ann", feature="search", key="key_1", model="m", deployment="d", prices="p")
    await killed(ledger, path)
    await ledger.close()


def damaged(path: Path, statements: Sequence[str]) -> Path:
    """The ledger of `folded_and_not` with something done to it that its own triggers would never let through."""
    with closing(connect(path / "after" / "ledger.db")) as connection:
        for trigger in ("journal_is_append_only", "journal_keeps_its_rows"):
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            connection.execute(statement)
    return path / "after"


VALUES = {
    **dict.fromkeys("id tenant key user feature route model deployment source scopes prices detail".split(), "'x'"),
    **dict.fromkeys("attempt at amount billed saved prompt_tokens completion_tokens cached_tokens".split(), "77"),
    **dict.fromkeys("cache_write_tokens reasoning_tokens estimated checksum".split(), "77"),
    "kind": "'lost'",
    "currency": "'USE'",
    "seq": "1000",
}


@pytest.mark.parametrize("column", VALUES)
async def test_a_changed_value_of_any_column_behind_the_running_sums_is_noticed_at_opening(
    tmp_path: Path, column: str
) -> None:
    assert {*COLUMNS, "seq", "checksum", "currency"} == VALUES.keys()
    await folded_and_not(tmp_path)
    after = damaged(tmp_path, [f"UPDATE journal SET {column} = {VALUES[column]} WHERE seq = 6"])
    with pytest.raises(Conflict, match=r"damaged: \d+ of its rows, the first of them row 6"):
        ledger_at(after)
    with closing(connect(after / "ledger.db")) as connection:
        assert prove(connection).first == 6
        assert not prove(connection).holds


@pytest.mark.parametrize(
    ("done", "first"),
    [
        ("UPDATE journal SET amount = 1 WHERE seq = 3", 3),  # a hold in the running sums, of a call that is open
        ("UPDATE journal SET tenant = CAST(x'ff' AS TEXT) WHERE seq = 6", 6),
        ("DELETE FROM journal WHERE seq = 5", 5),
        ("DELETE FROM journal WHERE seq > 2", 4),
        ("DELETE FROM journal", 4),
    ],
)
async def test_a_hold_a_gap_or_a_missing_end_is_noticed_at_opening(tmp_path: Path, done: str, first: int) -> None:
    await folded_and_not(tmp_path)
    after = damaged(tmp_path, [done])
    with pytest.raises(Conflict, match=rf"the first of them row {first}, .*restore the file from a backup"):
        ledger_at(after)
    with closing(connect(after / "ledger.db")) as connection:
        assert not prove(connection).sound


@pytest.mark.parametrize(
    "done",
    [
        "UPDATE spent SET spent = '0' WHERE window = 'total'",
        "UPDATE spent SET spent = CAST(x'ff' AS TEXT) WHERE window = 'total'",
        "UPDATE spent SET told = 100",
        "UPDATE spent SET account = 'tenant:b'",
        "DELETE FROM spent WHERE window = 'total'",
        "DELETE FROM folded",
        "UPDATE folded SET seq = 0",
        "UPDATE folded SET unended = '[]'",
    ],
)
async def test_damaged_running_sums_are_noticed_at_opening(tmp_path: Path, done: str) -> None:
    await folded_and_not(tmp_path)
    after = damaged(tmp_path, [done])
    with pytest.raises(Conflict, match="headgate doctor --rebuild"):
        ledger_at(after)
    with closing(connect(after / "ledger.db")) as connection:
        assert prove(connection).sound
        assert not prove(connection).holds


async def test_a_damaged_change_is_noticed_when_it_is_read_however_old_it_is(tmp_path: Path) -> None:
    await folded_and_not(tmp_path)
    after = damaged(
        tmp_path, ["""UPDATE journal SET detail = replace(detail, '"total"', '"month"') WHERE kind = 'change'"""]
    )
    ledger = ledger_at(after)
    with pytest.raises(Conflict, match="row 4"):
        await ledger.changes()
    await ledger.close()


async def test_a_ledger_that_cannot_be_opened_is_left_to_others(tmp_path: Path) -> None:
    await folded_and_not(tmp_path)
    after = damaged(tmp_path, ["DELETE FROM folded"])
    for _ in range(2):
        with pytest.raises(Conflict, match="running sums"):
            ledger_at(after)
