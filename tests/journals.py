"""A journal in PostgreSQL for tests of ledgers that several processes share, and a clock for tills."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg

from headgate.budget import postgres_schema, postgres_till
from headgate.storage.postgres import Postgres

ROOMS = {"budget": postgres_schema.SCHEMA, "till": postgres_till.SCHEMA}


@asynccontextmanager
async def connected(url: str, pool: int = 4) -> AsyncIterator[Postgres]:
    """The connections of a process to a database that has the tables."""
    postgres = Postgres(url, pool=pool)
    await postgres.migrate(ROOMS)
    try:
        yield postgres
    finally:
        await postgres.close()


async def prepared(url: str) -> None:
    """Make the tables."""
    async with connected(url):
        pass


def emptied(url: str) -> None:
    """Make a database be as it was after it was prepared, if it was: quicker than to make another."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # the journal is append-only otherwise
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'headgate%' AND relkind IN ('r', 'p') AND NOT relispartition"
            " AND relname NOT IN ('headgate_steps', 'headgate_head')"
        ).fetchall()
        for (table,) in tables:
            connection.execute(f"DELETE FROM {table}".encode())
        if tables:
            connection.execute("UPDATE headgate_head SET seq = 0, since = 0")


class Onward:
    """The time of a till beside a clock that may be set back: it has one of its own, which goes on from there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen = self._time = clock()

    def __call__(self) -> float:
        now = self._clock()
        self._time += max(0.0, now - self._seen)
        self._seen = now
        return self._time
