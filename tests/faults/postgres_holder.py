"""A process that has begun a job, claimed a sink and is in the middle of a transaction about it: to be killed."""

from __future__ import annotations

import asyncio
import sys

from headgate.billing.postgres import PostgresOutbox
from headgate.jobs.postgres import PostgresJobs
from headgate.storage.postgres import Postgres

LEASE = 1.0


async def hold(url: str) -> None:
    postgres = Postgres(url)
    jobs, outbox = PostgresJobs(postgres, lease=LEASE), PostgresOutbox(postgres, replica="killed")
    begun = await jobs.begin("acme", "a", 2.0)
    claimed = await outbox.claim("stripe", LEASE)
    async with postgres.transaction() as connection:
        for table in ("headgate_jobs", "headgate_sink_leases", "headgate_organisations"):
            await connection.execute(f"SELECT * FROM {table} FOR UPDATE")
        sys.stdout.write(f"{begun is not None and claimed}\n")
        sys.stdout.flush()
        await asyncio.sleep(600)


asyncio.run(hold(sys.argv[1]))
