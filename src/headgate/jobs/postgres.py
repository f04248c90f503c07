"""PostgresJobs: jobs in a database that several processes work on.

A lease is counted by the server's clock. Whoever looks for work takes what nobody else is just taking, and waits for no lock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from headgate.jobs.jobs import Job, Name, Outcome, State, Waiting
from headgate.storage.postgres import Postgres, Step

SCHEMA: tuple[Step, ...] = (
    (
        """CREATE TABLE headgate_jobs (
            tenant text NOT NULL, id text NOT NULL, digest bytea NOT NULL, size bigint NOT NULL, made float8 NOT NULL,
            state text NOT NULL, begun float8, ended float8, starts integer NOT NULL, result bytea NOT NULL, telling float8,
            tries integer NOT NULL, turn bigint NOT NULL, asked bytea, lease timestamptz, PRIMARY KEY (tenant, id)
        )""",
        "CREATE INDEX headgate_jobs_queued ON headgate_jobs (made) WHERE state = 'queued'",
        "CREATE INDEX headgate_jobs_in_flight ON headgate_jobs (lease) WHERE state = 'in_flight'",
        "CREATE INDEX headgate_jobs_ended ON headgate_jobs (ended) WHERE ended IS NOT NULL",
        "CREATE INDEX headgate_jobs_to_be_told ON headgate_jobs (telling) WHERE telling IS NOT NULL",
    ),
)

LEASE = 30.0
"""Seconds after which what a dead process had in flight is begun by another one."""

_FIELDS = "tenant, id, digest, size, made, state, begun, ended, starts, result, telling, tries, turn"
_ONE = "tenant = %(tenant)s AND id = %(id)s"
_LAST = f"{_ONE} AND turn = %(turn)s"
_UNTIL = "now() + make_interval(secs => %(lease)s)"

_queue = msgspec.json.Decoder(list[tuple[str, str, int, float]])


class PostgresJobs:
    """A job store in one database, of which each process has its own connections."""

    def __init__(self, postgres: Postgres, *, lease: float = LEASE) -> None:
        """`lease`: seconds for which a job belongs to who has begun it. The connections are closed by whoever opened them."""
        self.lease: float | None = lease
        self._postgres = postgres

    async def add(self, job: Job, asked: bytes) -> Job:
        """Keep a new job, or find the one of its id."""
        values = ", ".join(f"%({field})s" for field in Job.__struct_fields__)
        fresh = await self._postgres.query(
            f"INSERT INTO headgate_jobs ({_FIELDS}, asked) VALUES ({values}, %(asked)s) ON CONFLICT DO NOTHING RETURNING id",
            {**msgspec.structs.asdict(job), "asked": asked},
        )
        known = None if fresh else await self.find(job.tenant, job.id)
        # One that was swept between the two statements is as good as never there, but for a moment.
        return job if fresh else known or await self.add(job, asked)

    async def find(self, tenant: str, id: str) -> Job | None:
        """The tenant's job of this id."""
        sql = f"SELECT {_FIELDS} FROM headgate_jobs WHERE {_ONE}"
        rows = await self._postgres.query(sql, {"tenant": tenant, "id": id})
        return _read(rows[0]) if rows else None

    async def states(self, names: Collection[Name]) -> dict[Name, State]:
        """The state of each of these jobs that there is."""
        rows = await self._postgres.query(
            """SELECT tenant, id, state FROM headgate_jobs
                JOIN unnest(%s::text[], %s::text[]) AS wanted (tenant, id) USING (tenant, id)""",
            ([tenant for tenant, _ in names], [id for _, id in names]),
        )
        return {(tenant, id): state for tenant, id, state in rows}

    async def begin(self, tenant: str, id: str, at: float) -> tuple[Job, bytes] | None:
        """Let a queued job be in flight."""
        rows = await self._postgres.query(
            f"""UPDATE headgate_jobs SET state = 'in_flight', begun = %(at)s, starts = starts + 1, turn = turn + 1,
                lease = {_UNTIL} WHERE (tenant, id) =
                (SELECT tenant, id FROM headgate_jobs WHERE {_ONE} AND state = 'queued' FOR UPDATE SKIP LOCKED)
                RETURNING {_FIELDS}, asked""",
            {"tenant": tenant, "id": id, "at": at, "lease": self.lease},
        )
        return (_read(rows[0][:-1]), rows[0][-1]) if rows else None

    async def renew(self, job: Job) -> bool:
        """Let the lease of a job begin anew."""
        return await self._change(
            f"UPDATE headgate_jobs SET lease = {_UNTIL} WHERE {_LAST} AND state = 'in_flight'", job, lease=self.lease
        )

    async def put_back(self, job: Job) -> None:
        """Let a job in flight be queued as if it had not been begun."""
        await self._change(
            f"""UPDATE headgate_jobs SET state = 'queued', begun = NULL, starts = starts - 1, turn = turn + 1, lease = NULL
                WHERE {_LAST} AND state = 'in_flight'""",
            job,
        )

    async def end(self, job: Job, outcome: Outcome, at: float, telling: float | None) -> bool:
        """Let a job end."""
        return await self._change(
            f"""UPDATE headgate_jobs SET state = %(state)s, begun = %(begun)s, ended = %(at)s, result = %(result)s,
                telling = %(telling)s, asked = NULL, lease = NULL WHERE {_LAST} AND starts > 0 AND ended IS NULL""",
            job,
            state=outcome.state,
            begun=job.begun,
            at=at,
            result=msgspec.json.encode(outcome),
            telling=telling,
        )

    async def reopen(self) -> list[Waiting]:
        """What is queued, and what nobody works on any more. The queue comes as one value: read row by row, a long one would hold up the
        event loop every second."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                """UPDATE headgate_jobs SET state = 'queued', begun = NULL, lease = NULL WHERE (tenant, id) IN
                    (SELECT tenant, id FROM headgate_jobs WHERE state = 'in_flight' AND lease <= now() FOR UPDATE SKIP LOCKED)"""
            )
            cursor = await connection.execute(
                """SELECT coalesce(json_agg(json_build_array(tenant, id, size, made) ORDER BY made), '[]')::text
                    FROM headgate_jobs WHERE state = 'queued'"""
            )
            found = await cursor.fetchone()
        return [Waiting(*row) for row in _queue.decode(found[0])] if found else []

    async def due(self, at: float, again: float, limit: int) -> list[Job]:
        """Jobs whose end is to be told by this time."""
        rows = await self._postgres.query(
            f"""WITH due AS (
                    SELECT tenant, id, telling FROM headgate_jobs WHERE telling <= %(at)s
                    ORDER BY telling LIMIT %(limit)s FOR UPDATE SKIP LOCKED
                ), taken AS (
                    UPDATE headgate_jobs AS job SET telling = %(again)s FROM due
                    WHERE job.tenant = due.tenant AND job.id = due.id
                    RETURNING {", ".join(f"job.{field}" for field in Job.__struct_fields__)}, due.telling AS since
                )
                SELECT {_FIELDS} FROM taken ORDER BY since""",
            {"at": at, "again": again, "limit": limit},
        )
        return [_read(row) for row in rows]

    async def told(self, tenant: str, id: str, again: float | None) -> None:
        """Note that telling a job's end was tried."""
        await self._postgres.query(
            f"UPDATE headgate_jobs SET telling = %(again)s, tries = tries + 1 WHERE {_ONE} AND ended IS NOT NULL",
            {"tenant": tenant, "id": id, "again": again},
        )

    async def sweep(self, before: float) -> int:
        """Forget what ended before this time."""
        rows = await self._postgres.query(
            """WITH gone AS (
                    DELETE FROM headgate_jobs WHERE (tenant, id) IN
                    (SELECT tenant, id FROM headgate_jobs WHERE ended < %s FOR UPDATE SKIP LOCKED) RETURNING 1
                )
                SELECT count(*) FROM gone""",
            (before,),
        )
        return int(rows[0][0])

    async def close(self) -> None:
        """Nothing of its own to let go of."""

    async def _change(self, sql: str, job: Job, **values: Any) -> bool:
        """Run a statement about one beginning of a job; whether it changed anything."""
        parameters = {"tenant": job.tenant, "id": job.id, "turn": job.turn, **values}
        return bool(await self._postgres.query(f"{sql} RETURNING id", parameters))


def _read(row: Sequence[Any]) -> Job:
    return Job(**dict(zip(Job.__struct_fields__, row, strict=True)))
