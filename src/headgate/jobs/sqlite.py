"""SqliteJobs: jobs in a file of their own beside the ledger, for what callers have asked has another life than money.

What was deleted is overwritten in the file: prompts and answers lie in it only as long as they are wanted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headgate.jobs.jobs import Job, Outcome, Waiting
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
)

Result = TypeVar("Result")

_FIELDS = "tenant, id, digest, size, made, state, begun, ended, starts, result, telling, tries"
_ONE = "tenant = ? AND id = ?"


class SqliteJobs:
    """A job store in one file."""

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
                    f"INSERT INTO jobs ({_FIELDS}, asked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*msgspec.structs.astuple(job), asked),
                )
                return job

        return await self._call(work)

    async def find(self, tenant: str, id: str) -> Job | None:
        """The tenant's job of this id."""
        return await self._call(lambda connection: _job(connection, tenant, id))

    async def begin(self, tenant: str, id: str, at: float) -> tuple[Job, bytes] | None:
        """Let a queued job be in flight."""

        def work(connection: sqlite3.Connection) -> tuple[Job, bytes] | None:
            with transaction(connection):
                row = connection.execute(
                    f"""UPDATE jobs SET state = 'in_flight', begun = ?, starts = starts + 1
                        WHERE {_ONE} AND state = 'queued' RETURNING {_FIELDS}, asked""",
                    (at, tenant, id),
                ).fetchone()
            return None if row is None else (_read(row[:-1]), row[-1])

        return await self._call(work)

    async def put_back(self, tenant: str, id: str) -> None:
        """Let a job in flight be queued as if it had not been begun."""
        await self._change(
            f"""UPDATE jobs SET state = 'queued', begun = NULL, starts = starts - 1
                WHERE {_ONE} AND state = 'in_flight'""",
            (tenant, id),
        )

    async def end(self, tenant: str, id: str, outcome: Outcome, at: float, telling: float | None) -> None:
        """Let a job in flight end."""
        await self._change(
            f"""UPDATE jobs SET state = ?, ended = ?, result = ?, telling = ?, asked = NULL
                WHERE {_ONE} AND state = 'in_flight'""",
            (outcome.state, at, msgspec.json.encode(outcome), telling, tenant, id),
        )

    async def reopen(self) -> list[Waiting]:
        """What is queued, and what was in flight."""

        def work(connection: sqlite3.Connection) -> list[Waiting]:
            with transaction(connection):
                connection.execute("UPDATE jobs SET state = 'queued', begun = NULL WHERE state = 'in_flight'")
                rows = connection.execute("SELECT tenant, id, size, made FROM jobs WHERE ended IS NULL ORDER BY made")
                return [Waiting(*row) for row in rows]

        return await self._call(work)

    async def due(self, at: float, limit: int) -> list[Job]:
        """Jobs whose end is to be told by this time."""
        sql = f"SELECT {_FIELDS} FROM jobs WHERE telling <= ? ORDER BY telling LIMIT ?"
        return await self._call(lambda connection: [_read(row) for row in connection.execute(sql, (at, limit))])

    async def told(self, tenant: str, id: str, again: float | None) -> None:
        """Note that telling a job's end was tried."""
        await self._change(f"UPDATE jobs SET telling = ?, tries = tries + 1 WHERE {_ONE}", (again, tenant, id))

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


def _read(row: Sequence[Any]) -> Job:
    return Job(**dict(zip(Job.__struct_fields__, row, strict=True)))
