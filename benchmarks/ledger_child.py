"""`python -m benchmarks.ledger_child WHAT PATH NUMBER`: the parts of the ledger's benchmark that need a process of their own.

fill     write a journal of NUMBER entries and be killed with the last of them not in the running sums
tenants  write a journal of NUMBER tenants that spent in every window
users    write a journal of NUMBER users with an allowance each
open     open the ledger, print a line of JSON about the time and the memory that took, and close it
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import msgspec

from headgate.budget.allowance import Allowance
from headgate.budget.budget import Change, Entry
from headgate.budget.journal import INSERT, SCHEMA, change_row, row_of, seed_rows
from headgate.budget.reservation import Budget
from headgate.budget.sqlite import FOLD_EVERY, SqliteLedger
from headgate.budget.sums import fold
from headgate.budget.windows import window_id
from headgate.model.ids import Ids
from headgate.model.money import Usage
from headgate.model.tenancy import WINDOWS
from headgate.storage.sqlite import connect, migrate

NOW = 1_795_176_000.0
"""2026-11-20T12:00:00Z"""
TENANTS = 1_000
STATEMENT = 5_000
OPEN = 100
"""Calls that are under way when the process is killed."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What opening a ledger took, and then learning of its budgets: seconds, the resident memory that both added, and the most
    that they ever added, in MB."""

    seconds: float
    learned_seconds: float
    kept_mb: float
    most_mb: float


def calls(tenants: int) -> Iterator[bytes]:
    """The two rows of one call after the other, without end, each of another tenant."""
    new_id = Ids()
    windows = [window_id(window, NOW) for window in WINDOWS]
    usage = Usage(prompt_tokens=1_000, completion_tokens=200, cached_tokens=500)
    while True:
        for number in range(tenants):
            id, tenant = new_id(), f"t_{number:016x}"
            scopes = msgspec.json.encode([(f"tenant:{tenant}", window) for window in windows]).decode()
            entry = Entry(tenant=tenant, key=f"k_{number:016x}", user="ann", route="auto", amount=900_000)
            yield row_of(id, "hold", NOW, entry, scopes=scopes)
            paid = msgspec.structs.replace(
                entry,
                model="gpt-4o-mini-2024-07-18",
                deployment="gpt-4o-mini",
                amount=270_000,
                billed=270_000,
                usage=usage,
            )
            yield row_of(id, "settle", NOW, paid, scopes=scopes)


def users(number: int) -> Iterator[bytes]:
    """An allowance of each user's own, and what the user had spent before it was set."""
    window = window_id("month", NOW)
    for each in range(number):
        account = f"user:t_{each % TENANTS:016x}/user{each:06d}"
        allowance = Allowance(account=account, window="month", cap=10**10 + each, created=NOW)
        yield change_row(Change(id=f"{each:032x}", action="set", allowance=allowance, by="admin"), NOW)
        yield from seed_rows((account, window), 5_000_000 + each, NOW)


def write(path: Path, parts: Iterable[Iterator[bytes]]) -> None:
    """Write rows into a new journal; after each part the running sums are brought up to date, but not after the last."""
    with closing(connect(path)) as connection:
        migrate(connection, SCHEMA)
        for number, part in enumerate(parts):
            if number:
                fold(connection, oldest=NOW)
            while rows := list(islice(part, STATEMENT)):
                connection.execute(INSERT, ((b"[" + b",".join(rows) + b"]").decode(),))


def fill(path: Path, entries: int) -> None:
    """As many rows as there can be behind the running sums, and some calls open, when the process is killed."""
    endless = calls(TENANTS)
    tail = min(FOLD_EVERY, entries // 2)
    holds = (row for row in calls(OPEN) if b'"hold"' in row)
    write(path, [islice(endless, entries - tail), iter([*islice(endless, tail - OPEN), *islice(holds, OPEN)])])
    os.kill(os.getpid(), signal.SIGKILL)


def open_ledger(path: Path) -> Opened:
    """Open a ledger and learn of its budgets, as a server does when it starts."""
    before, most = _resident_mb(), _most_mb()
    began = time.perf_counter()
    ledger = SqliteLedger(path, now=lambda: NOW)
    seconds = time.perf_counter() - began
    budget = Budget(ledger, now=lambda: NOW)

    async def learn() -> float:
        began = time.perf_counter()
        await budget.refresh()
        taken = time.perf_counter() - began
        await ledger.close()
        return taken

    learned = asyncio.run(learn())
    return Opened(
        seconds=seconds, learned_seconds=learned, kept_mb=_resident_mb() - before, most_mb=max(_most_mb() - most, 0.0)
    )


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _most_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(what: str, path: str, number: str = "0") -> None:
    if what == "fill":
        fill(Path(path), int(number))
    elif what == "tenants":
        write(Path(path), [islice(calls(int(number)), 2 * int(number)), iter(())])
    elif what == "users":
        write(Path(path), [users(int(number)), iter(())])
    elif what == "open":
        sys.stdout.write(msgspec.json.encode(open_ledger(Path(path))).decode())
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
