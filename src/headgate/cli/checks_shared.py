"""What `headgate doctor` looks at in the stores that processes share. None changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from headgate.cli.checks import Check, State, proven
from headgate.config import Config
from headgate.config_storage import RedisConfig, masked
from headgate.fittings_health import FULL_COVERAGE, KEEPS, Seen
from headgate.model.errors import GatewayError

REPORT = "keep a copy of the database and report it: rows and sums are written together, so this must never happen"


def shared(config: Config, data: Path) -> Iterator[Check]:
    """Everything that is configured of them."""
    if config.storage.postgres is not None:
        yield from _postgres(config)
        yield from _spools(data)
    if config.redis is not None:
        yield from _redis(config.redis, counts_money=config.storage.postgres is not None)


def not_rebuilt() -> Check:
    """What there is to be made anew of a ledger in PostgreSQL."""
    found = "nothing was done: in PostgreSQL a row and what it adds to the sums are written in one transaction"
    return Check("rebuild", "warn", found, "an index is made anew by its own REINDEX")


def _postgres(config: Config) -> Iterator[Check]:
    """Is it there, prepared for this version, and its journal right? All of that is read."""
    from headgate.fittings_stores import proven as read  # late: without one nothing of it is needed

    try:
        found = asyncio.run(read(config))
    except GatewayError as error:
        yield Check("postgresql", "fail", error.message)
        return
    where = f"{found.version} at {masked(config.storage.url)}, prepared for this version"
    yield Check("postgresql", "ok", where)
    yield proven(found.proof, rebuild=REPORT)


def _spools(data: Path) -> Iterator[Check]:
    """What was written to disk because PostgreSQL could not be asked, and is not in the journal yet."""
    for path in sorted(data.glob("*.spool")):
        waiting = path.read_bytes().count(b"\n")
        if waiting:
            found = f"{waiting} steps of calls wait in {path.name} to be written into the journal"
            yield Check("spool", "warn", found, "a server that runs, or is started, on this directory does it")


def _redis(said: RedisConfig, *, counts_money: bool) -> Iterator[Check]:
    """Is it there, what is it for, and does it keep what it is given?"""
    from headgate.fittings_stores import looked_at  # late, as above

    try:
        compares, servers = asyncio.run(looked_at(said))
    except GatewayError as error:
        yield Check("redis", "fail", error.message)
        return
    use = f"at {masked(said.url)}, for {'budgets, ' if counts_money else ''}rates, answers and flights"
    if compares:
        yield Check("redis", "ok", use)
    else:
        found = f"{use}; it has no vector sets, so answers found by their meaning stay in each process"
        yield Check("redis", "warn", found, "Redis 8 lets all processes share them")
    for server in servers:
        yield from _server(server, must_keep=counts_money, evictable=said.evictable)


def _server(one: Seen, *, must_keep: bool, evictable: bool) -> Iterator[Check]:
    found = f"{one.version}, maxmemory-policy {one.policy}"
    if must_keep and one.policy != KEEPS:
        state: State = "warn" if evictable else "fail"
        advice = f"set it to {KEEPS}: it may evict what budgets are counted with"
        yield Check(one.server, state, f"{found}, and budgets are counted here", advice)
    else:
        yield Check(one.server, "ok", found)
    if one.whole:
        yield Check(one.server, "warn", f"{FULL_COVERAGE} is on", "turn it off, or one dead node stops all tenants")
