"""The journal in PostgreSQL beside what every ledger promises: who tails it, whether it is right, and what several processes learn of when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from headgate.budget.allowance import Allowance
from headgate.budget.budget import Alert, Balance, Entry, Hold, Match, Scope, UsageQuery
from headgate.budget.postgres import PostgresJournal
from headgate.budget.postgres_proof import prove
from headgate.budget.postgres_tail import PostgresTail
from headgate.budget.shared import SharedLedger
from headgate.budget.till_memory import MemoryTill
from headgate.model.errors import Conflict, Overloaded
from headgate.storage.postgres import Postgres
from tests.journals import prepared
from tests.servers.pgbouncer import PgBouncer

NOON = 1_795_176_000.0
BILLED = ("charge", "settle", "lost", "note")
ANN = Scope("user:acme/ann", "total")
MATCH = Match(("acme",), "user", "ann")


@pytest.fixture
async def database(database_url: str) -> str:
    await prepared(database_url)
    return database_url


@pytest.fixture
async def postgres(database: str) -> AsyncIterator[Postgres]:
    postgres = Postgres(database, pool=4)
    yield postgres
    await postgres.close()


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ledgers(postgres: Postgres, clock: Clock) -> AsyncIterator[list[SharedLedger]]:
    """Two processes."""
    till = MemoryTill(clock=clock)
    both = [SharedLedger(till, PostgresJournal(postgres, now=clock), now=clock) for _ in range(2)]
    yield both
    for ledger in both:
        await ledger.close()


@pytest.fixture
def ledger(ledgers: list[SharedLedger]) -> SharedLedger:
    return ledgers[0]


async def begin(ledger: SharedLedger, id: str, *further: Scope, amount: int = 10) -> None:
    scopes = (Scope("tenant:acme", "total", 1_000), *further)
    entry = Entry(tenant="acme", user="ann")
    await ledger.reserve(Hold(id=id, scopes=scopes, amount=amount, least=amount, lease=60.0, entry=entry))
    await ledger.dispatched(id)


async def spend(ledger: SharedLedger, id: str, *further: Scope, amount: int = 10, user: str = "ann") -> None:
    await begin(ledger, id, *further, amount=amount)
    ledger.settle(id, [Entry(tenant="acme", user=user, amount=amount)])
    await ledger.usage(UsageQuery())


class TestTail:
    async def test_rows_of_the_wanted_kinds_come_in_portions_and_in_order(
        self, ledger: SharedLedger, postgres: Postgres
    ) -> None:
        tail = PostgresTail(postgres)
        assert await tail.rows((0, None), BILLED, 5) == ((0, None), [])
        for id in "abc":
            await spend(ledger, id)
        place, rows = await tail.rows((0, None), BILLED, 2)
        assert [(row.id, row.kind, row.entry.billed, row.at) for row in rows] == [
            ("a", "settle", 10, int(NOON * 1e6)),
            ("b", "settle", 10, int(NOON * 1e6)),
        ]
        place, rows = await tail.rows(place, BILLED, 2)
        assert [row.id for row in rows] == ["c"]
        assert await tail.rows(place, BILLED, 2) == (place, [])

    async def test_an_alert_is_told_once(self, postgres: Postgres) -> None:
        tail = PostgresTail(postgres)
        told = [await tail.tell("pace acme", NOON, Entry(tenant="acme", source="pace"), "{}") for _ in range(2)]
        assert told == [True, False]
        _, (row,) = await tail.rows((0, None), ("alert",), 10)
        assert (row.id, row.detail) == ("pace acme", "{}")

    async def test_a_journal_that_was_replaced_is_noticed_and_where_it_parts_is_found(
        self, ledger: SharedLedger, postgres: Postgres, clock: Clock, database: str
    ) -> None:
        tail = PostgresTail(postgres)
        await spend(ledger, "both have")
        common, _ = await tail.rows((0, None), BILLED, 10)
        clock.now += 10
        await spend(ledger, "only the first has")
        place, _ = await tail.rows((0, None), BILLED, 10)
        with pytest.raises(Conflict, match="nothing to go back from"):
            await tail.fork(place, clock.now, BILLED)
        restored(database, common[0])
        with pytest.raises(Conflict, match="replaced"):
            await tail.rows(place, BILLED, 10)
        moment = clock.now
        clock.now += 10
        await spend(ledger, "only the second has", amount=7)
        fork = await tail.fork(place, moment - 1, BILLED)
        assert (fork.place, fork.at, fork.rows, fork.billed, fork.cut_off) == (common, NOON, 1, 7, [])
        with pytest.raises(Conflict, match="clock"):
            await tail.fork(place, clock.now, BILLED)


def restored(database: str, row: int) -> None:
    """As a backup made at this row has it, as far as it matters to who tails the journal."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM headgate_journal WHERE seq > %s", (row,))
        connection.execute("UPDATE headgate_head SET seq = %s", (row,))


class TestProof:
    @pytest.fixture
    def connection(self, database: str) -> Iterator[psycopg.Connection]:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            yield connection

    async def test_a_journal_that_is_as_it_was_written_is_right(
        self, ledgers: list[SharedLedger], postgres: Postgres
    ) -> None:
        assert (await prove(postgres)).holds
        await spend(ledgers[0], "a", ANN)
        await spend(ledgers[1], "b")
        await ledgers[1].count(ANN, MATCH)
        ledgers[0].note("hit", Entry(tenant="acme", source="exact", billed=3))
        await ledgers[0].usage(UsageQuery())
        proof = await prove(postgres)
        assert proof.holds
        assert (proof.rows, proof.calls, proof.sums) == (6, 2, 2)

    async def test_a_changed_row_a_missing_row_and_a_wrong_sum_are_found(
        self, ledger: SharedLedger, postgres: Postgres, connection: psycopg.Connection
    ) -> None:
        for id in "abc":
            await spend(ledger, id)
        connection.execute("UPDATE headgate_spent SET spent = spent + 1")
        assert (await prove(postgres)).unequal == 1
        connection.execute("UPDATE headgate_journal SET amount = 9 WHERE seq = 4")
        proof = await prove(postgres)
        assert (proof.damaged, proof.missing, proof.first) == (1, 0, 4)
        connection.execute("DELETE FROM headgate_journal WHERE seq IN (2, 6)")
        proof = await prove(postgres)
        assert (proof.damaged, proof.missing, proof.first) == (1, 2, 2)

    async def test_the_journal_takes_no_change_and_no_removal(self, ledger: SharedLedger, database: str) -> None:
        await spend(ledger, "a")
        for sql in (
            "UPDATE headgate_journal SET amount = 0",
            "DELETE FROM headgate_journal",
            "TRUNCATE headgate_journal",
        ):
            with psycopg.connect(database) as connection, pytest.raises(psycopg.Error, match="append-only"):
                connection.execute(sql.encode())


class TestSeveralProcesses:
    async def test_what_a_process_spent_before_it_learnt_of_an_account_is_added_when_it_learns(
        self, ledgers: list[SharedLedger]
    ) -> None:
        first, second = ledgers
        await spend(second, "before")
        await begin(second, "open", amount=30)
        await first.count(ANN, MATCH)
        assert await first.balance(ANN.account, "total") == Balance(spent=10, held=30)
        await spend(second, "not yet learnt", amount=5)
        await spend(first, "learnt", ANN, amount=1)
        await second.count(ANN, MATCH)
        assert await first.balance(ANN.account, "total") == Balance(spent=16, held=30)
        second.settle("open", [Entry(tenant="acme", user="ann", amount=20)])
        for ledger in (second, first):
            await ledger.count(ANN, MATCH)
            assert await ledger.balance(ANN.account, "total") == Balance(spent=36)

    async def test_a_rule_bills_what_all_of_them_together_spend_beyond_a_cap(self, ledgers: list[SharedLedger]) -> None:
        allowance = Allowance(account=ANN.account, window="total", cap=15, rule="overage", percent=200)
        beyond = Scope(ANN.account, "total", None, allowance)
        await spend(ledgers[0], "a", beyond)
        await spend(ledgers[1], "b", beyond)
        await spend(ledgers[0], "c", beyond)
        (row,) = await ledgers[1].usage(UsageQuery())
        assert (row.cost, row.billed) == (30, 10 + (10 + 5) + (10 + 10))

    async def test_one_of_them_tells_that_a_threshold_was_passed(self, postgres: Postgres) -> None:
        till, alerts = MemoryTill(), list[Alert]()
        ledgers = [SharedLedger(till, PostgresJournal(postgres), on_alert=alerts.append) for _ in range(3)]
        allowance = Allowance(account=ANN.account, window="total", cap=20, alerts=(50,))
        for ledger in ledgers:
            await spend(ledger, str(id(ledger)), Scope(ANN.account, "total", None, allowance))
        assert [(alert.percent, alert.spent) for alert in alerts] == [(50, 10)]
        for ledger in ledgers:
            await ledger.close()

    async def test_a_call_ends_once_whoever_ends_it(self, ledgers: list[SharedLedger], clock: Clock) -> None:
        first, second = ledgers
        await begin(first, "a")
        clock.now += 61
        assert await second.expire() == 1
        first.settle("a", [Entry(tenant="acme", amount=3)])
        await first.usage(UsageQuery())
        assert await second.lost() == 10
        assert await first.balance("tenant:acme", "total") == Balance(spent=10)

    async def test_it_works_behind_pgbouncer(self, database: str, pgbouncer: PgBouncer) -> None:
        postgres = Postgres(pgbouncer.through(database), pool=4)
        ledger = SharedLedger(MemoryTill(), PostgresJournal(postgres))
        allowance = Allowance(account=ANN.account, window="total", cap=5, rule="overage", percent=200)
        await spend(ledger, "a", Scope(ANN.account, "total", None, allowance))
        await ledger.count(Scope("user:acme/ann", "tokens/total", tokens=True), MATCH)
        assert (await prove(postgres)).holds
        await ledger.close()
        await postgres.close()

    async def test_odd_texts_spoil_no_batch(self, ledger: SharedLedger) -> None:
        odd = Entry(tenant="acme", user="\ud800\0", amount=3)
        await ledger.reserve(Hold(id="a", scopes=(ANN,), amount=5, least=5, lease=60.0, entry=odd))
        await ledger.dispatched("a")
        ledger.settle("a", [odd])
        (row,) = await ledger.usage(UsageQuery(group_by=("user",)))
        assert row.group == {"user": "?\ufffd"}

    async def test_without_a_spool_nothing_that_a_budget_limits_is_sent_while_the_journal_is_away(
        self, database: str
    ) -> None:
        postgres = Postgres(database, pool=2, patience=0.2)
        till = MemoryTill()
        ledger = SharedLedger(till, PostgresJournal(postgres))
        await spend(ledger, "a")
        await postgres.close()
        with pytest.raises(Overloaded):
            await begin(ledger, "b")
        assert ledger.open_reservations() == 0
        await ledger.close()
