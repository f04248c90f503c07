"""`python -m benchmarks.ledger`: the ledger by itself, in process. Prints a table and writes JSON.

- What a call costs the event loop: reserve, mark as dispatched, settle, by the bracket that the gateway uses, with many callers at
  once. The time of the loop's thread, in µs; where a caller waits for the disk the loop does other callers' work.
- Entries a second: the same calls against a file, two entries each, from the first to the last of them on the disk.
- Opening a long journal, after a clean close and after a kill that left calls open and the newest entries out of the running sums.
- Memory of many accounts: resident memory that opening a ledger adds to a process.

Exit code 0 also when a goal is missed: a busy machine misses goals.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import uvloop

from benchmarks.ledger_child import Opened
from benchmarks.plan import Figure, Goal, figure
from headgate.budget.budget import Ledger
from headgate.budget.memory import MemoryLedger
from headgate.budget.reservation import Budget
from headgate.budget.sqlite import SqliteLedger
from headgate.model.ids import Ids
from headgate.model.money import Usage
from headgate.model.tenancy import Principal, Wishes

LATEST = Path(__file__).with_name("results") / "ledger.json"
CALLERS = 256
CALLER = Principal(tenant="t_0123456789abcdef", key="k_0123456789abcdef")
WISHES = Wishes(feature="search")
USAGE = Usage(prompt_tokens=1_000, completion_tokens=200, cached_tokens=500)
CEILING = 900_000
COST = 270_000
ENTRIES_PER_CALL = 2


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    rounds: int = 5
    calls: int = 50_000
    entries: int = 1_000_000
    accounts: int = 100_000


QUICK = Size(rounds=2, calls=5_000, entries=50_000, accounts=5_000)


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. Times of calls are µs of the loop's thread, memory is MB."""

    size: Size
    memory_us: Figure
    file_us: Figure
    entries_per_s: Figure
    after_kill: Opened
    after_close: Opened
    tenants: Opened
    users: Opened

    def goals(self) -> list[Goal]:
        """The figures that something was promised of."""
        return [
            Goal(name="reserve + settle, memory", figure=self.memory_us.median, bound=20, unit="µs", at_most=True),
            Goal(name="reserve + settle, file", figure=self.file_us.median, bound=20, unit="µs", at_most=True),
            Goal(name="journal", figure=self.entries_per_s.median, bound=20_000, unit="entries/s", at_most=False),
            Goal(name="opening after a clean close", figure=self.after_close.seconds, bound=2, unit="s", at_most=True),
            Goal(name="opening after a kill", figure=self.after_kill.seconds, bound=2, unit="s", at_most=True),
            Goal(name="tenants, every window counted", figure=self.tenants.kept_mb, bound=200, unit="MB", at_most=True),
            Goal(name="users, an allowance each", figure=self.users.kept_mb, bound=200, unit="MB", at_most=True),
        ]


@click.command()
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=LATEST, show_default=True, help="JSON file."
)
@click.option("--quick", is_flag=True, help="Small numbers: some seconds, and no figure to believe.")
def main(out: Path, *, quick: bool) -> None:
    """Measure the ledger in process."""
    size = QUICK if quick else Size()
    with tempfile.TemporaryDirectory(prefix="headgate-ledger-") as name:
        found = measure(Path(name), size)
    click.echo(text(found))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    click.echo(f"\nwritten to {out}")


def measure(folder: Path, size: Size) -> Findings:
    """All parts, one after the other."""
    in_memory = [uvloop.run(spend(MemoryLedger, size.calls))[0] for _ in range(size.rounds)]
    in_file: list[float] = []
    rates: list[float] = []
    for turn in range(size.rounds):
        path = folder / f"calls-{turn}.db"
        each, seconds = uvloop.run(spend(lambda path=path: SqliteLedger(path), size.calls))  # type: ignore[misc]
        in_file.append(each)
        rates.append(ENTRIES_PER_CALL * size.calls / seconds)
        path.unlink()
    long, tenants, users = folder / "long.db", folder / "tenants.db", folder / "users.db"
    child("fill", long, size.entries)
    after_kill = opened(long)
    child("tenants", tenants, size.accounts)
    child("users", users, size.accounts)
    return Findings(
        size=size,
        memory_us=figure(in_memory),
        file_us=figure(in_file),
        entries_per_s=figure(rates),
        after_kill=after_kill,
        after_close=opened(long),
        tenants=opened(tenants),
        users=opened(users),
    )


async def spend(make: Callable[[], Ledger], calls: int) -> tuple[float, float]:
    """Make calls that settle, many at once; µs of the loop's thread for each, and the seconds that all took."""
    ledger = make()
    budget = Budget(ledger)
    new_id = Ids()

    async def caller() -> None:
        for _ in range(calls // CALLERS):
            async with budget.reserve(new_id(), CALLER, WISHES, route="auto", ceiling=CEILING) as reservation:
                await reservation.cleared(CEILING, 1_000)
                reservation.charge(deployment="gpt-4o-mini", model="gpt-4o-mini", amount=COST, usage=USAGE)

    began, worked = time.perf_counter(), time.thread_time()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    worked = time.thread_time() - worked
    await ledger.close()
    done = calls // CALLERS * CALLERS
    return worked / done * 1e6, (time.perf_counter() - began) * calls / done


def child(*words: object) -> bytes:
    """Run a part in a process of its own; what it printed. One that fills a journal ends by killing itself."""
    command = [sys.executable, "-m", "benchmarks.ledger_child", *map(str, words)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=words[0] != "fill").stdout


def opened(path: Path) -> Opened:
    """Open a ledger in a fresh process."""
    return msgspec.json.decode(child("open", path), type=Opened)


def text(found: Findings) -> str:
    """The table."""
    size = found.size
    lines = [
        f"{size.calls:,} calls by {CALLERS} callers, {size.rounds} rounds; {size.entries:,} entries; {size.accounts:,} accounts",
        "",
    ]
    for goal in found.goals():
        bound = f"{'at most' if goal.at_most else 'at least'} {goal.bound:,g} {goal.unit}"
        lines.append(f"{goal.name:<32} {goal.figure:>12,.2f} {goal.unit:<10} {'ok' if goal.met else 'MISS':<5} {bound}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
