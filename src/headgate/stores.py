"""Stores: what a process keeps things in, whether that is its own or shared with other replicas. Values only; `fittings_stores.py` opens them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from headgate.billing.billing import Outbox
from headgate.budget.budget import Changes, DurableLedger, Repricings, Statements
from headgate.budget.posted import JournalTail
from headgate.cache.cache import CacheStore, SharedStore
from headgate.coalesce.relay import Relay
from headgate.jobs.jobs import JobStore
from headgate.limits.limits import Counters
from headgate.storage.behind import Rows
from headgate.storage.news import News
from headgate.tenants.tenants import Directory

if TYPE_CHECKING:
    from headgate.storage.postgres import Postgres
    from headgate.storage.redis import Redis


class Book(Statements, Changes, Repricings, Protocol):
    """A journal for one who reads it, or says who may spend what, and spends nothing."""


class Durable(msgspec.Struct, frozen=True):
    """Where a serving process keeps what must outlive it. The gateway closes the ledger, which it is the last to use."""

    directory: Directory
    ledger: DurableLedger
    tail: JournalTail
    outbox: Outbox
    jobs: JobStore
    labels: Rows
    outcomes: Rows


class Quick(msgspec.Struct, frozen=True):
    """What calls are quick with, and what may be forgotten. The gateway closes `entries`.

    shared  the same as `entries`, where replicas share them
    relay  what flights of other replicas are joined through, and `news` what replicas tell each other by; None where there are none
    """

    counters: Counters
    entries: CacheStore
    shared: SharedStore | None = None
    relay: Relay | None = None
    news: News | None = None


class Stores(msgspec.Struct, frozen=True):
    """All of it, and the connections beneath where replicas share them."""

    durable: Durable
    quick: Quick
    postgres: Postgres | None = None
    redis: Redis | None = None

    @property
    def shared(self) -> frozenset[str]:
        """What of that which `/readyz` names is down for all replicas when it is down for one."""
        durable = () if self.postgres is None else ("tenants", "ledger", "jobs")
        return frozenset((*durable, *(() if self.redis is None else ("redis",))))


class Beside(msgspec.Struct, frozen=True):
    """What can be read and managed beside a running server."""

    directory: Directory
    journal: Book
    tail: JournalTail
    outbox: Outbox
    outcomes: Rows


def beside_of(path: Path, what: str) -> Path:
    """A file beside the ledger's: what has another life than the money lies in another file."""
    return path.with_name(f"{path.stem}-{what}{path.suffix}")
