"""PostgreSQL: connections, transactions, and forward-only migrations.

It works behind PgBouncer in transaction mode: no statement is prepared on the server, nothing is set for a session, no lock outlives its
transaction.

Each room brings its steps; the table `headgate_steps` says which of them were taken. Steps only add, and a program may be older than the
schema that it finds, so replicas of two versions work side by side while one takes the place of the other. A schema that is too old for
a program is told by `check`.

Nothing is done twice by itself: when a connection breaks, nobody knows whether the server has done it. A connection that was broken while
nobody used it is found out and replaced before it is used (postgres_pool.py), so that after a restart there is nothing to repeat.

Invariants: what keeps the server from answering, or from working, is raised as Overloaded and counts in its `Footing`; what it answers does
not; an error never holds a password.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import errors

from headgate.model.errors import Conflict, Overloaded
from headgate.storage.footing import AGAIN, Footing
from headgate.storage.postgres_pool import Closed, Exhausted, Lent, Pool

Step = tuple[str, ...]
"""The statements of one migration."""
Row = tuple[Any, ...]
Connection = psycopg.AsyncConnection[Row]

SECONDS = 10.0
"""How long a statement, or all of a transaction's, may take before the server counts as gone."""
_MIGRATING = 4_848_001
"""The lock under which one process at a time migrates."""

_NOT_NOW = (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure, errors.QueryCanceled)
"""That others are in the way is no fault of the server."""
_NOT_PREPARED = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.UndefinedObject,
    errors.InvalidSchemaName,
)
_PREPARE = "run `headgate migrate` once, with the same configuration"
_REFUSALS = (
    (
        ("password", "authentication", "pg_hba.conf", "role", "no such user"),
        "check the user and password of `storage.url`",
    ),
    (("permission denied",), "grant it to the user of `storage.url`"),
    (("database",), "create it and run `headgate migrate`, or correct `storage.url`"),
    (
        ("too many", "connection slots", "no more connections"),
        "`max_connections` there must hold `storage.pool` for each process",
    ),
)
"""Words by which a server that lets nobody in says why, and what to do. Libpq hands over no code for these."""
_LATER = ("the database system is", "server login", "server_login", "pgbouncer cannot connect", "query_wait_timeout")
"""Words of one that cannot let anybody in yet."""


class Postgres:
    """The connections of one process. Connects when it is first used; all methods raise Overloaded when the server cannot answer now."""

    def __init__(self, url: str, *, pool: int = 10, patience: float = 2.0, seconds: float = SECONDS) -> None:
        """`pool`: most connections; `patience`: seconds that one is waited for while all are in use; `seconds`: that what is done on it may
        take, and connecting with it. Raises Conflict when the URL cannot be read."""
        self._most = pool
        self._seconds = seconds
        self._pool = Pool(url, most=pool, patience=patience)
        self.footing = Footing("PostgreSQL")

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection whose statements commit by themselves. What belongs together is a `transaction`."""
        async with self._lent(self._seconds) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """All of the statements inside or none."""
        async with self._lent(self._seconds) as connection, _whole(connection):
            yield connection

    async def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """The rows of one statement, none where it gives none; `%s` and `%(name)s` stand for its parameters."""
        async with self._lent(self._seconds) as connection:
            cursor = await connection.execute(_text(sql), parameters)
            return await cursor.fetchall() if cursor.description is not None else []

    async def probe(self) -> None:
        """Raises Overloaded unless the server answers now."""
        await self.query("SELECT 1")

    async def migrate(self, rooms: Mapping[str, Sequence[Step]]) -> dict[str, int]:
        """Take the steps that were not taken yet, all or none; how many of each room. Processes that do so at the same time take turns.
        Each takes the time it needs. Raises Conflict when a step fails."""
        async with self.connection() as connection:
            if not _missing(rooms, await _known(connection)):
                return {}  # Who may not change the schema may still find it complete.
        try:
            async with self._lent(None) as connection, _whole(connection):
                return await _migrated(connection, rooms)
        except psycopg.Error as error:
            raise Conflict(f"The database could not be prepared; nothing was changed: {_reason(error)}.") from error

    async def check(self, rooms: Mapping[str, Sequence[Step]]) -> None:
        """Raises Conflict unless all these steps were taken; there may be more, of a newer program."""
        async with self.connection() as connection:
            missing = _missing(rooms, await _known(connection))
        if missing:
            raise Conflict(f"The database is not prepared for this version ({', '.join(sorted(missing))}): {_PREPARE}.")

    async def close(self) -> None:
        """Close all connections; those in use when they come back."""
        await self._pool.close()

    @contextlib.asynccontextmanager
    async def _lent(self, seconds: float | None) -> AsyncIterator[Lent]:
        """A connection, for so long."""
        self.footing.admit()
        limit = asyncio.timeout(seconds)
        try:
            async with limit, self._pool.connection() as connection:
                yield connection
        except (Exhausted, Closed) as error:
            raise self._none(error) from None
        except (psycopg.Error, TimeoutError) as error:
            if limit.expired():
                raise self._slipped(f"no answer within {seconds:g} s") from None
            if not isinstance(error, psycopg.Error):
                raise
            told = self._told(error)
            if told is error:
                raise
            raise told from None
        self.footing.held()

    def _none(self, error: Exception) -> Overloaded:
        if isinstance(error, Closed):
            return Overloaded("PostgreSQL: the connections were closed.", retry_after=AGAIN)
        return Overloaded(
            f"All {self._most} connections to PostgreSQL are in use; `storage.pool` allows more.", retry_after=AGAIN
        )

    def _told(self, error: psycopg.Error) -> Exception:
        """What to raise for what a statement met; the error itself where it is an answer."""
        reason, state = _reason(error), error.sqlstate
        if isinstance(error, _NOT_NOW):
            self.footing.held()
            return Overloaded(f"PostgreSQL: {reason}.", retry_after=AGAIN)
        if isinstance(error, errors.InsufficientPrivilege):
            return self.footing.refused(f"{reason}: grant it to the user of `storage.url`")
        if isinstance(error, _NOT_PREPARED):
            return self.footing.refused(f"{reason}: {_PREPARE}")
        if isinstance(error, errors.ReadOnlySqlTransaction):
            # It was made a replica: who is connected to under its name next may be the new master.
            self._pool.renew()
            return self.footing.refused(reason)
        if state is not None and state.startswith("53"):  # no memory, no disk, no connections
            return self.footing.refused(reason)
        if isinstance(error, psycopg.OperationalError):
            advice = _advice(reason) if state is None else None
            return self.footing.refused(f"{reason}: {advice}") if advice else self._slipped(reason)
        self.footing.held()
        return error

    def _slipped(self, reason: str) -> Overloaded:
        self._pool.renew()
        return self.footing.slipped(reason)


@contextlib.asynccontextmanager
async def _whole(connection: Lent) -> AsyncIterator[None]:
    """A transaction. Who is cancelled in it does not wait for a server to roll it back: it does so when the connection is gone."""
    async with connection.transaction():
        try:
            yield
        except asyncio.CancelledError:
            connection.leave()
            raise


async def _migrated(connection: Lent, rooms: Mapping[str, Sequence[Step]]) -> dict[str, int]:
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATING,))
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS headgate_steps (room text NOT NULL, step integer NOT NULL,"
        " at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (room, step))"
    )
    known = await _known(connection)
    missing = _missing(rooms, known)
    for room in missing:
        for number, step in enumerate(rooms[room][known.get(room, 0) :], known.get(room, 0) + 1):
            for statement in step:
                await connection.execute(_text(statement))
            await connection.execute("INSERT INTO headgate_steps (room, step) VALUES (%s, %s)", (room, number))
    return missing


async def _known(connection: Connection) -> dict[str, int]:
    """The last step of each room that was taken."""
    cursor = await connection.execute("SELECT to_regclass('headgate_steps') IS NOT NULL")
    if await cursor.fetchone() == (False,):
        return {}
    cursor = await connection.execute("SELECT room, max(step) FROM headgate_steps GROUP BY room")
    return dict(await cursor.fetchall())


def _missing(rooms: Mapping[str, Sequence[Step]], known: Mapping[str, int]) -> dict[str, int]:
    """How many steps of each room were not taken, where any."""
    left = {room: len(steps) - known.get(room, 0) for room, steps in rooms.items()}
    return {room: count for room, count in left.items() if count > 0}


def _reason(error: psycopg.Error) -> str:
    """What is wrong, in one line: of what libpq says of connecting, the first host's, and not what it asks whoever reads it."""
    text = " ".join((error.diag.message_primary or str(error)).split())
    for more in (" Multiple connection attempts", " Is the server running", " This probably means"):
        text = text.partition(more)[0]
    return text.removeprefix("connection failed: ")[:200].rstrip(".") or type(error).__name__


def _advice(reason: str) -> str | None:
    """What to do about a server that lets nobody in; None where there is nothing to do but wait."""
    _, told, words = reason.lower().replace("fe_sendauth:", "fatal:").rpartition("fatal:")
    if not told or any(word in words for word in _LATER):
        return None
    return next((advice for known, advice in _REFUSALS if any(word in words for word in known)), None)


def _text(sql: str) -> Any:
    """Psycopg wants to know that a statement was not put together from what a caller said; ours are written in the program."""
    return sql
