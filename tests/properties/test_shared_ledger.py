"""Several ledgers over one till that forgets, in any order of calls: what was sent is never more than a cap allows, and the journal is right.

What is true is read from the journal itself: what is spent, and what calls hold that were dispatched and have no end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.budget.budget import Entry, Hold, Match, Scope, UsageQuery
from headgate.budget.postgres import PostgresJournal
from headgate.budget.postgres_proof import prove
from headgate.budget.shared import SharedLedger
from headgate.budget.till_memory import MemoryTill
from headgate.model.errors import BudgetExceeded, Overloaded
from headgate.storage.postgres import Postgres
from tests.journals import connected, emptied
from tests.servers.postgres import PostgresServer

NOON = 1_795_176_000.0
CAPPED = (Scope("tenant:acme", "day:2026-11-20", 100), Scope("organisation:all", "total", 150))
ANN = Scope("user:acme/ann", "total", 60)
IDS = 6

ledgers = st.integers(0, 1)
ids = st.integers(0, IDS - 1)
# Large ones, so that two calls often fill a cap, and some that just fit.
amounts = st.sampled_from([50, 50, 49, 30, 21, 0])
acts = {
    "reserve": st.tuples(ids, amounts, st.just(0) | amounts),
    "dispatch": st.tuples(ids),
    "call": st.tuples(ids, amounts),
    "extend": st.tuples(ids, amounts),
    "settle": st.tuples(ids, amounts),
    "release": st.tuples(ids),
    "forget": st.tuples(st.sampled_from(["t/acme", "o/all", None])),
    "count": st.tuples(ledgers),
    "expire": st.tuples(ledgers, st.booleans()),
}
often = [*acts, "reserve", "reserve", "dispatch", "dispatch", "dispatch", "forget", "forget"]
act = st.one_of(*(st.tuples(st.just(name), acts[name]) for name in often))
together = st.lists(st.lists(act, min_size=1, max_size=4), min_size=8, max_size=16)


class Call(msgspec.Struct):
    """A call as its caller sees it."""

    id: str
    ledger: SharedLedger
    granted: int = -1
    sent: bool = False
    cost: int | None = None


class House:
    """Two processes, and the calls that they make."""

    def __init__(self, postgres: Postgres) -> None:
        self.now = NOON
        self.till = MemoryTill(clock=lambda: self.now)
        self.ledgers = [
            SharedLedger(self.till, PostgresJournal(postgres, now=lambda: self.now, courtesy=0.0), now=lambda: self.now)
            for _ in range(2)
        ]
        self.calls = [Call(f"c{number}", self.ledgers[number % 2]) for number in range(IDS)]
        self.postgres = postgres
        self.counted = False

    async def act(self, what: str, args: tuple[object, ...]) -> None:
        with contextlib.suppress(BudgetExceeded, Overloaded):
            await getattr(self, what)(*args)

    async def reserve(self, number: int, amount: int, least: int) -> None:
        call = self.calls[number]
        scopes = (*CAPPED, ANN) if self.counted else CAPPED
        hold = Hold(
            id=call.id,
            scopes=scopes,
            amount=max(amount, least),
            least=least,
            lease=60.0,
            entry=Entry(tenant="acme", user="ann"),
        )
        granted = await call.ledger.reserve(hold)
        if call.granted < 0:
            call.granted = granted

    async def dispatch(self, number: int) -> None:
        call = self.calls[number]
        await call.ledger.dispatched(call.id)
        call.sent = True

    async def call(self, number: int, amount: int) -> None:
        await self.reserve(number, amount, amount)
        await self.dispatch(number)

    async def extend(self, number: int, amount: int) -> None:
        call = self.calls[number]
        await call.ledger.extend(call.id, 60.0, amount)
        call.granted = max(call.granted, amount)

    async def settle(self, number: int, amount: int) -> None:
        call = self.calls[number]
        if call.sent and call.cost is None:
            call.cost = min(amount, call.granted)
            call.ledger.settle(call.id, [Entry(tenant="acme", user="ann", amount=call.cost)])

    async def release(self, number: int) -> None:
        call = self.calls[number]
        call.ledger.release(call.id)

    async def forget(self, owner: str | None) -> None:
        self.till.forget(owner)

    async def count(self, ledger: int) -> None:
        await self.ledgers[ledger].count(msgspec.structs.replace(ANN, cap=None), Match(("acme",), "user", "ann"))
        self.counted = True

    async def expire(self, ledger: int, later: bool) -> None:
        self.now += 61 * later
        await self.ledgers[ledger].expire()

    async def check(self) -> None:
        """What was sent, spent or not, is within every cap, by the journal's word."""
        journal = PostgresJournal(self.postgres)
        for scope in CAPPED:
            balance = await journal.balance(scope.account, scope.window)
            assert balance.spent + balance.held <= (scope.cap or 0), scope

    async def end(self) -> None:
        """Each call that was sent is in the journal once, with what it cost or at its hold; till and journal say the same."""
        for ledger in self.ledgers:
            await ledger.usage(UsageQuery())
        # One that was refused by one owner and granted by another goes by another name when it comes again.
        found = dict(await self.postgres.query("SELECT split_part(id, '~', 1), state FROM headgate_calls"))
        sent = [call for call in self.calls if call.sent]
        cost = sum(
            call.granted if found[call.id] == "lost" else call.cost or 0
            for call in sent
            if found[call.id] in ("settled", "lost")
        )
        rows = await self.ledgers[0].usage(UsageQuery())
        assert sum(row.cost for row in rows) == cost
        proof = await prove(self.postgres)
        assert proof.holds, proof
        for scope in CAPPED:
            said = await self.ledgers[1].balance(scope.account, scope.window)
            true = await PostgresJournal(self.postgres).balance(scope.account, scope.window)
            assert said.spent == true.spent
        for ledger in self.ledgers:
            await ledger.close()


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    url = postgres_server.database()
    yield url
    postgres_server.drop(url)


@given(groups=together)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
def test_nothing_that_a_till_forgets_is_spent_twice(database: str, groups: list[list[tuple[object, ...]]]) -> None:
    async def run() -> None:
        emptied(database)
        async with connected(database) as postgres:
            house = House(postgres)
            for group in groups:
                await asyncio.gather(*(house.act(*one) for one in group))
                await house.check()
            await house.end()

    asyncio.run(run())


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_race_for_a_cap_never_exceed_it(database: str, processes: int) -> None:
    """A hundred calls at once for what is enough for fourteen, a till that forgets in between, and each process settles its own."""

    async def run() -> None:
        emptied(database)
        async with connected(database, pool=8) as postgres:
            till = MemoryTill()
            ledgers = [SharedLedger(till, PostgresJournal(postgres, courtesy=0.0)) for _ in range(processes)]
            journal, spent = PostgresJournal(postgres), [0]

            async def call(number: int) -> None:
                ledger, id = ledgers[number % processes], f"c{number}"
                scopes = (Scope("tenant:acme", "total", 100), Scope("organisation:all", "total", 90))
                try:
                    await ledger.reserve(
                        Hold(id=id, scopes=scopes, amount=7, least=7, lease=60.0, entry=Entry(tenant="acme"))
                    )
                    await ledger.dispatched(id)
                except (BudgetExceeded, Overloaded):
                    ledger.release(id)
                    return
                if number % 5 == 0:
                    till.forget()
                balance = await journal.balance("organisation:all", "total")
                assert balance.spent + balance.held <= 90
                ledger.settle(id, [Entry(tenant="acme", amount=6)])
                spent.append(6)

            for round in range(4):
                await asyncio.gather(*(call(25 * round + number) for number in range(25)))
            rows = [row for ledger in ledgers for row in await ledger.usage(UsageQuery())]
            assert rows[-1].cost == sum(spent) <= 90
            assert sum(spent) >= 60  # those who were refused because others held what was left come again
            assert (await prove(postgres)).holds
            for ledger in ledgers:
                await ledger.close()

    asyncio.run(run())
