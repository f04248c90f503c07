"""SqliteJobs: jobs in a file of their own beside the ledger, for what callers have asked has another life than money.

What was deleted is overwritten in the file: prompts and answers lie in it only as long as they are wanted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headgate.jobs.jobs import Job, Name, Outcome, State, Waiting
from headgate.model.errors import Overloaded
from headgate.storage.sqlite import Database, Step, migrate, transaction

SCHEMA: tuple[Step, ...] = (
    (
        """CREATE TABLE jobs (
            tenant TEXT NOT NULL, id TEXT NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL, made REAL NOT NULL,
            state TEXT NOT NULL, begun REAL, ended REAL, starts INTEGER NOT NULL, result BLOB NOT NULL, telling REAL,
            tries INTEGER NOT NULL, asked BLOB, PRIMARY KEY (tenant, id)
        ) STRICT""",
        "CREATE INDEX jobs_open ON jobs (made) WHERE ended IS NULL",
        "CREATE INDEX jobs_ended ON jobs (ended) WHERE ended IS NOT NULL",
        "CREATE INDEX jobs_to_be_told ON jobs (telling) WHERE telling IS NOT NULL",
    ),
    ("ALTER TABLE jobs ADD COLUMN turn INTEGER NOT NULL DEFAULT 0",),
)

Result = TypeVar("Result")

_FIELDS = "tenant, id, digest, size, made, state, begun, ended, starts, result, telling, tries, turn"
_ONE = "tenant = ? AND id = ?"
_LAST = f"{_ONE} AND turn = ?"


class SqliteJobs:
    """A job store in one file, which one process works on at a time."""

    lease: float | None = None

    def __init__(self, path: str | Path) -> None:
        """Opens the file, or makes it, on first use."""
        self._database = Database(path)
        self._prepared = False

    async def add(self, job: Job, asked: bytes) -> Job:
        """Keep a new job, or find the one of its id."""

        def work(connection: sqlite3.Connection) -> Job:
            with transaction(connection):
                known = _job(connection, job.tenant, job.id)
                if known is not None:
                    return known
                connection.execute(
                    f"INSERT INTO jobs ({_FIELDS}, asked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*msgspec.structs.astuple(job), asked),
                )
                return job

        return await self._call(work)

    async def find(self, tenant: str, id: str) -> Job | None:
        """The tenant's job of this id."""
        return await self._call(lambda connection: _job(connection, tenant, id))

    async def states(self, names: Collection[Name]) -> dict[Name, State]:
        """The state of each of these jobs that there is."""
        sql = """SELECT tenant, id, state FROM jobs WHERE (tenant, id) IN
            (SELECT value ->> 0, value ->> 1 FROM json_each(?))"""
        asked = msgspec.json.encode(list(names)).decode()
        rows = await self._call(lambda connection: connection.execute(sql, (asked,)).fetchall())
        return {(tenant, id): state for tenant, id, state in rows}

    async def begin(self, tenant: str, id: str, at: float) -> tuple[Job, bytes] | None:
        """Let a queued job be in flight."""

        def work(connection: sqlite3.Connection) -> tuple[Job, bytes] | None:
            with transaction(connection):
                row = connection.execute(
                    f"""UPDATE jobs SET state = 'in_flight', begun = ?, starts = starts + 1, turn = turn + 1
                        WHERE {_ONE} AND state = 'queued' RETURNING {_FIELDS}, asked""",
                    (at, tenant, id),
                ).fetchone()
            return None if row is None else (_read(row[:-1]), row[-1])

        return await self._call(work)

    async def renew(self, job: Job) -> bool:
        """Whether a job is in flight by this beginning."""
        sql = f"SELECT 1 FROM jobs WHERE {_LAST} AND state = 'in_flight'"
        return await self._call(lambda connection: connection.execute(sql, _beginning(job)).fetchone() is not None)

    async def put_back(self, job: Job) -> None:
        """Let a job in flight be queued as if it had not been begun."""
        await self._change(
            f"""UPDATE jobs SET state = 'queued', begun = NULL, starts = starts - 1, turn = turn + 1
                WHERE {_LAST} AND state = 'in_flight'""",
            _beginning(job),
        )

    async def end(self, job: Job, outcome: Outcome, at: float, telling: float | None) -> bool:
        """Let a job in flight end."""
        changed = await self._change(
            f"""UPDATE jobs SET state = ?, begun = ?, ended = ?, result = ?, telling = ?, asked = NULL
                WHERE {_LAST} AND starts > 0 AND ended IS NULL""",
            (outcome.state, job.begun, at, msgspec.json.encode(outcome), telling, *_beginning(job)),
        )
        return changed > 0

    async def reopen(self) -> list[Waiting]:
        """What is queued, and what was in flight."""

        def work(connection: sqlite3.Connection) -> list[Waiting]:
            with transaction(connection):
                connection.execute("UPDATE jobs SET state = 'queued', begun = NULL WHERE state = 'in_flight'")
                rows = connection.execute("SELECT tenant, id, size, made FROM jobs WHERE ended IS NULL ORDER BY made")
                return [Waiting(*row) for row in rows]

        return await self._call(work)

    async def due(self, at: float, again: float, limit: int) -> list[Job]:
        """Jobs whose end is to be told by this time."""

        def work(connection: sqlite3.Connection) -> list[Job]:
            with transaction(connection):
                rows = connection.execute(
                    f"SELECT {_FIELDS} FROM jobs WHERE telling <= ? ORDER BY telling LIMIT ?", (at, limit)
                )
                found = [msgspec.structs.replace(_read(row), telling=again) for row in rows]
                connection.executemany(
                    f"UPDATE jobs SET telling = ? WHERE {_ONE}", [(again, job.tenant, job.id) for job in found]
                )
                return found

        return await self._call(work)

    async def told(self, tenant: str, id: str, again: float | None) -> None:
        """Note that telling a job's end was tried."""
        sql = f"UPDATE jobs SET telling = ?, tries = tries + 1 WHERE {_ONE} AND ended IS NOT NULL"
        await self._change(sql, (again, tenant, id))

    async def sweep(self, before: float) -> int:
        """Forget what ended before this time."""
        return await self._change("DELETE FROM jobs WHERE ended < ?", (before,))

    async def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    async def _change(self, sql: str, values: Sequence[Any]) -> int:
        """Run a statement; how many rows it changed."""
        return await self._call(lambda connection: connection.execute(sql, values).rowcount)

    async def _call(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        def ready(connection: sqlite3.Connection) -> Result:
            if not self._prepared:
                connection.execute("PRAGMA secure_delete = ON")
                migrate(connection, SCHEMA)
                self._prepared = True
            return work(connection)

        try:
            return await self._database.call(ready)
        except sqlite3.DatabaseError as error:
            raise Overloaded(f"The file of jobs cannot be used: {error}.", retry_after=10.0) from error


def _job(connection: sqlite3.Connection, tenant: str, id: str) -> Job | None:
    row = connection.execute(f"SELECT {_FIELDS} FROM jobs WHERE {_ONE}", (tenant, id)).fetchone()
    return None if row is None else _read(row)


def _beginning(job: Job) -> tuple[str, str, int]:
    return job.tenant, job.id, job.turn


def _read(row: Sequence[Any]) -> Job:
    return Job(**dict(zip(Job.__struct_fields__, row, strict=True)))
