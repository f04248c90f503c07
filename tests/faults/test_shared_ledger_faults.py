"""A shared ledger when its stores fail in mid-traffic: nothing is lost, nothing counts twice, no cap is exceeded, and others are served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from headgate.budget.budget import Entry, Hold, Scope, UsageQuery
from headgate.budget.postgres import PostgresJournal
from headgate.budget.postgres_proof import prove
from headgate.budget.redis import RedisTill
from headgate.budget.shared import SharedLedger
from headgate.budget.spool import Spool
from headgate.model.errors import BudgetExceeded, Overloaded
from headgate.storage.postgres import Postgres
from headgate.storage.redis import Redis
from tests.journals import prepared
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

CAP = 10_000
PATIENCE = 20.0
"""Seconds in which a store that is back must have been noticed."""


def hold(id: str, amount: int = 10, *, cap: int | None = CAP) -> Hold:
    scopes = (Scope("tenant:acme", "total", cap), Scope("organisation:all", "total", cap))
    return Hold(id=id, scopes=scopes, amount=amount, least=amount, lease=60.0, entry=Entry(tenant="acme"))


def bill(amount: int) -> list[Entry]:
    return [Entry(tenant="acme", amount=amount)]


class Process:
    """What one process has: its own connections, its own ledger, and its own disk."""

    def __init__(self, database: str, redis: str, folder: Path, *, spool: int = 1_000) -> None:
        self.postgres = Postgres(database, pool=4, patience=0.5)
        self.redis = Redis(redis)
        self.ledger = SharedLedger(
            RedisTill(self.redis), PostgresJournal(self.postgres), spool=Spool(folder / "spool", most=spool)
        )

    async def call(self, id: str, *, cap: int | None = CAP, amount: int = 10) -> int:
        """A call that costs one less than it holds; what it cost, or nothing if it was refused."""
        await self.ledger.reserve(hold(id, amount, cap=cap))
        await self.ledger.dispatched(id)
        self.ledger.settle(id, bill(amount - 1))
        return amount - 1

    async def close(self) -> None:
        with suppress(Overloaded):
            await self.ledger.close()
        await self.redis.close()
        await self.postgres.close()


Begin = Callable[..., Process]


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def begin(postgres: PostgresServer, redis: RedisServer, tmp_path: Path) -> AsyncIterator[Begin]:
    """Begins processes over one database and one Redis, and ends them."""
    url = postgres.database()
    await prepared(url)
    begun: list[Process] = []

    def one(**settings: int) -> Process:
        begun.append(Process(url, redis.url, tmp_path, **settings))
        return begun[-1]

    yield one
    for process in begun:
        await process.close()


async def soon(what: Callable[[], Awaitable[object]]) -> None:
    """Return when this does not raise Overloaded any more."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await what()
            except Overloaded:
                await asyncio.sleep(0.05)
            else:
                return


async def told(process: Process) -> int:
    """What the journal says that all calls cost, once it answers and everything is written."""

    async def written() -> None:
        await process.ledger.usage(UsageQuery())
        if process.ledger.lag:
            raise Overloaded("something waits yet")

    await soon(written)
    rows = await process.ledger.usage(UsageQuery())
    return sum(row.cost for row in rows)


async def test_a_killed_postgresql_loses_nothing_and_counts_nothing_twice(
    postgres: PostgresServer, begin: Begin
) -> None:
    process, spent, stop = begin(), [0], asyncio.Event()

    async def traffic(lane: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with suppress(Overloaded):
                spent.append(await process.call(f"{lane}-{number}"))
            await asyncio.sleep(0.002)

    lanes = [asyncio.create_task(traffic(lane)) for lane in range(8)]
    spent.append(await process.call("first"))
    await asyncio.to_thread(postgres.kill)
    before = len(spent)
    async with asyncio.timeout(PATIENCE):
        while len(spent) < before + 200:  # they go on, on what the till knows
            await asyncio.sleep(0.01)
    await asyncio.to_thread(postgres.restart)
    stop.set()
    await asyncio.gather(*lanes)
    assert await told(process) == sum(spent)
    assert (await prove(process.postgres)).holds
    assert (await process.ledger.balance("tenant:acme", "total")).spent == sum(spent)


async def test_what_a_process_left_in_its_spool_the_next_one_writes(postgres: PostgresServer, begin: Begin) -> None:
    process = begin()
    await process.call("before")
    await asyncio.to_thread(postgres.kill)
    await process.call("sent and settled")
    await process.ledger.reserve(hold("sent"))
    await process.ledger.dispatched("sent")
    await process.close()
    await asyncio.to_thread(postgres.restart)
    following = begin()
    await soon(following.postgres.probe)
    await following.ledger.expire()
    assert await told(following) == 18
    calls = await following.postgres.query("SELECT id, state, amount FROM headgate_calls ORDER BY id")
    assert calls == [("before", "settled", 10), ("sent", "open", 10), ("sent and settled", "settled", 10)]
    marked = await following.postgres.query(
        "SELECT id FROM headgate_journal WHERE detail LIKE '%%spooled%%' ORDER BY id"
    )
    assert marked == [("sent",), ("sent and settled",)]
    assert (await prove(following.postgres)).holds
    await following.ledger.expire()
    assert (await following.ledger.balance("tenant:acme", "total")).held == 10


async def test_when_the_spool_is_full_what_a_budget_limits_is_refused_and_nothing_else(
    postgres: PostgresServer, begin: Begin
) -> None:
    process = begin(spool=3)
    await process.call("before")
    await asyncio.to_thread(postgres.kill)
    spent, refused = 9, 0
    for number in range(6):
        try:
            spent += await process.call(f"capped {number}")
        except Overloaded:
            refused += 1
    assert refused >= 4
    for number in range(4):
        spent += await process.call(f"free {number}", cap=None)
    await asyncio.to_thread(postgres.restart)
    assert await told(process) == spent
    assert (await prove(process.postgres)).holds
    await soon(lambda: process.call("after"))


async def test_a_redis_that_is_flushed_lets_nobody_spend_twice(redis: RedisServer, begin: Begin) -> None:
    """Four processes, a cap for some of the calls only, and counters that vanish again and again."""
    processes, spent, cap = [begin() for _ in range(4)], [0], 900

    async def call(number: int) -> None:
        with suppress(BudgetExceeded, Overloaded):
            spent.append(await processes[number % 4].call(f"c{number}", cap=cap))
        if number % 40 == 0:
            await asyncio.to_thread(redis.command, "FLUSHALL")
        balance = await PostgresJournal(processes[0].postgres).balance("tenant:acme", "total")
        assert balance.spent + balance.held <= cap

    for begins in range(0, 200, 20):
        await asyncio.gather(*(call(begins + number) for number in range(20)))
    assert await told(processes[3]) <= cap
    sums = [await told(process) for process in processes]
    assert sums == [sum(spent)] * 4
    assert sum(spent) > cap // 2
    assert (await prove(processes[0].postgres)).holds


async def test_without_redis_a_budget_refuses_and_nothing_else_and_afterwards_it_knows_everything(
    redis: RedisServer, begin: Begin
) -> None:
    process = begin()
    spent = await process.call("before", cap=100, amount=50)
    await asyncio.to_thread(redis.kill)
    with pytest.raises(Overloaded):
        await process.call("capped", cap=100)
    for number in range(3):
        spent += await process.call(f"free {number}", cap=None)
    assert await told(process) == spent
    await asyncio.to_thread(redis.restart)  # with nothing in it

    async def refused() -> None:
        with pytest.raises(BudgetExceeded):
            await process.call("too much", cap=spent + 9)

    await soon(refused)
    assert (await process.ledger.balance("tenant:acme", "total")).spent == spent
    assert await process.call("just enough", cap=spent + 10) == 9


async def test_a_process_that_stands_still_neither_stops_the_others_nor_spends_what_was_given_away(
    begin: Begin, redis: RedisServer
) -> None:
    """One that reserved and then slept through its lease finds its reservation released, whatever the till says."""
    slow, other = begin(), begin()
    short = hold("slow", 60, cap=100)
    await slow.ledger.reserve(Hold(id="slow", scopes=short.scopes, amount=60, least=60, lease=0.05, entry=short.entry))

    async def released() -> None:
        if not await other.ledger.expire():
            raise Overloaded("its lease is not over yet")

    await soon(released)
    assert await other.call("other", cap=100, amount=60) == 59
    with pytest.raises(Overloaded):
        await slow.ledger.dispatched("slow")
    assert await told(other) == 59
