"""Fittings of PostgreSQL: what must not be lost, where several processes share it. Used by `fittings_stores` alone, and imported only where it
is configured, for it brings a library of its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from headgate.billing import postgres as billing
from headgate.billing.postgres import PostgresOutbox
from headgate.budget import postgres_schema, postgres_till
from headgate.budget.budget import Alert
from headgate.budget.postgres import PostgresJournal
from headgate.budget.postgres_proof import prove
from headgate.budget.postgres_tail import PostgresTail
from headgate.budget.postgres_till import PostgresTill
from headgate.budget.proof import Proof
from headgate.budget.shared import SharedLedger
from headgate.budget.spool import Spool
from headgate.budget.till import Till
from headgate.cache import labels_behind
from headgate.config import Config
from headgate.fittings_health import first_contact
from headgate.jobs import postgres as jobs
from headgate.jobs.postgres import PostgresJobs
from headgate.routing import outcomes_behind
from headgate.storage import behind_postgres
from headgate.storage.behind_postgres import PostgresRows
from headgate.storage.postgres import Postgres, Step
from headgate.stores import Beside, Durable, beside_of
from headgate.tenants import postgres as tenants
from headgate.tenants.postgres import PostgresDirectory

SCHEMAS: dict[str, Sequence[Step]] = {
    "budget": postgres_schema.SCHEMA,
    "till": postgres_till.SCHEMA,
    "tenants": tenants.SCHEMA,
    "billing": billing.SCHEMA,
    "jobs": jobs.SCHEMA,
    "learnt": (behind_postgres.schema((*labels_behind.TABLES, *outcomes_behind.TABLES)),),
}
"""What every room keeps in PostgreSQL, step by step."""
PROVING = 3_600.0
"""Seconds that the proof of a journal may take: all of it is read."""


class Proven(msgspec.Struct, frozen=True):
    """A database that is prepared for this version: the server's version, and what the proof of its journal says."""

    version: str
    proof: Proof


async def connected(stack: AsyncExitStack, config: Config) -> Postgres:
    """The connections to the database, until the stack is left. Raises Conflict when it does not answer, or is not prepared for this
    version."""
    return await _prepared(stack, Postgres(_url(config), pool=config.storage.pool))


async def proven(config: Config) -> Proven:
    """Read all of the journal and say whether it is right; processes may go on writing. Raises Conflict as `connected`, Overloaded when it
    cannot be read to its end."""
    async with AsyncExitStack() as stack:
        connections = await _prepared(stack, Postgres(_url(config), pool=2, seconds=PROVING))
        ((version,),) = await connections.query("SHOW server_version")
        return Proven(version, await prove(connections))


async def _prepared(stack: AsyncExitStack, connections: Postgres) -> Postgres:
    stack.push_async_callback(connections.close)
    with first_contact("storage.url"):
        await connections.check(SCHEMAS)
    return connections


def _url(config: Config) -> str:
    if config.storage.postgres is None:
        raise ValueError("nothing is kept in PostgreSQL")
    return config.storage.postgres


def durable(
    config: Config, data: Path, postgres: Postgres, *, till: Till | None, on_alert: Callable[[Alert], None]
) -> Durable:
    """What outlives the process; `till`: where holds are counted in front of it, in PostgreSQL itself unless given. Reads the spool from disk."""
    replica = secrets.token_hex(8)
    spool = Spool(beside_of(config.storage.path(data), "spool"), most=config.storage.spool)
    return Durable(
        directory=PostgresDirectory(postgres),
        ledger=SharedLedger(till or PostgresTill(postgres), PostgresJournal(postgres), spool=spool, on_alert=on_alert),
        tail=PostgresTail(postgres),
        outbox=PostgresOutbox(postgres, replica=replica),
        jobs=PostgresJobs(postgres),
        labels=PostgresRows(postgres, labels_behind.TABLES, replica=replica),
        outcomes=PostgresRows(postgres, outcomes_behind.TABLES, replica=replica),
    )


def beside(postgres: Postgres) -> Beside:
    """What can be read and managed beside running servers."""
    replica = secrets.token_hex(8)
    return Beside(
        directory=PostgresDirectory(postgres),
        journal=PostgresJournal(postgres),
        tail=PostgresTail(postgres),
        outbox=PostgresOutbox(postgres, replica=replica),
        outcomes=PostgresRows(postgres, outcomes_behind.TABLES, replica=replica),
    )
