"""Tenants, jobs and the outbox in PostgreSQL, when a process that uses them is killed, and when PostgreSQL itself is."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headgate.billing import postgres as billing
from headgate.billing.billing import Place
from headgate.billing.postgres import PostgresOutbox
from headgate.jobs import postgres as jobs
from headgate.jobs.jobs import Job
from headgate.jobs.postgres import PostgresJobs
from headgate.model.errors import Overloaded
from headgate.providers.scripted import answer
from headgate.storage.postgres import Postgres
from headgate.tenants import postgres as tenants
from headgate.tenants.organisations import Organisation
from headgate.tenants.postgres import PostgresDirectory
from tests.conformance.test_job_store import ASKED, job
from tests.conformance.test_outbox import event
from tests.scenarios.test_what_was_submitted import Office
from tests.servers.postgres import PostgresServer

PATIENCE = 30.0
ROOMS = {"tenants": tenants.SCHEMA, "billing": billing.SCHEMA, "jobs": jobs.SCHEMA}
HOLDER = Path(__file__).with_name("postgres_holder.py")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Postgres]:
    postgres = Postgres(url, pool=6)
    await postgres.migrate(ROOMS)
    yield postgres
    await postgres.close()


async def until(done: Callable[[], Awaitable[object]]) -> None:
    """Ask until it is so; a store that does not answer yet is asked again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if await done():
                    return
            except Overloaded:
                pass
            await asyncio.sleep(0.05)


async def test_what_a_killed_process_held_is_free_when_its_leases_are_over(database_url: str) -> None:
    async with connected(database_url) as postgres:
        store, outbox = PostgresJobs(postgres), PostgresOutbox(postgres, replica="living")
        await store.add(job(), ASKED)
        await outbox.add("stripe", [event(1)], Place(1))
        holder = await asyncio.create_subprocess_exec(
            sys.executable, str(HOLDER), database_url, stdout=asyncio.subprocess.PIPE
        )
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"True\n"
        assert await store.begin("acme", "a", 3.0) is None
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
        await until(store.reopen)
        found = await store.begin("acme", "a", 4.0)
        assert found is not None
        assert found[0].starts == 2
        await until(lambda: outbox.claim("stripe", 60.0))
        await outbox.trying("stripe", await outbox.pending("stripe", 10), 5.0)
        await PostgresDirectory(postgres).put_organisation(Organisation(name="north"))


async def test_jobs_that_end_while_postgres_is_down_end_and_none_is_answered_twice() -> None:
    with PostgresServer() as server:
        url = server.database()
        async with connected(url) as one, connected(url) as other:
            gate = asyncio.Event()
            offices = [Office([gate, *answer("Hello.")], store=PostgresJobs(each)) for each in (one, other)]
            async with offices[0] as first, offices[1] as second:
                await until(first.worker.recover)
                await until(second.worker.recover)
                places = zip(range(40), offices * 20, strict=True)
                given = [await office.submit(f"Question {number}?", f"id-{number}") for number, office in places]
                await until(lambda: at_work(offices))
                server.kill()
                gate.set()
                with pytest.raises(Overloaded):
                    await first.submit("While it is down?", "down")
                await asyncio.to_thread(server.restart)
                for each in given:
                    await until(lambda each=each: done(second, each))
                assert sum(len(office.provider.calls) for office in offices) == len(given)
                await until(lambda: nothing_open(offices))


async def at_work(offices: list[Office]) -> bool:
    """Whether each has begun all that it may."""
    return all(len(office.provider.calls) >= 15 for office in offices)


async def done(office: Office, each: Job) -> bool:
    return (await office.worker.find(each.tenant, each.id)).state == "done"


async def nothing_open(offices: list[Office]) -> bool:
    return all(office.worker.counts() == {} for office in offices)
