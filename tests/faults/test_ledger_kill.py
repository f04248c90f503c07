"""Kill -9 at random points of a process that spends: what it was promised is there when the ledger is opened again."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from headgate.budget.sqlite import SqliteLedger
from headgate.storage.sqlite import connect
from tests.faults.ledger_child import CAP

ROUNDS = 20
CHILD = Path(__file__).with_name("ledger_child.py")


def spend_until_killed(ledger: Path, round: int, lines: int) -> list[list[str]]:
    """What the child told before it was killed, after about `lines` lines; a line cut short was told too late to count."""
    child = subprocess.Popen([sys.executable, str(CHILD), str(ledger), str(round)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    told = [child.stdout.readline() for _ in range(lines)]
    child.kill()
    told += child.stdout.readlines()
    child.stdout.close()
    assert child.wait() == -9
    return [line.decode().split() for line in told if line.endswith(b"\n")]


async def test_no_promise_is_broken_by_twenty_kills(tmp_path: Path) -> None:
    """Seeded. Every dispatched call is held in the journal and has ended; nothing reported as spent is missing; the cap holds."""
    path = tmp_path / "ledger.db"
    chance = random.Random(20_261_120)
    dispatched: dict[str, int] = {}
    settled: dict[str, int] = {}
    for round in range(ROUNDS):
        for kind, id, amount in spend_until_killed(path, round, chance.randint(1, 400)):
            (dispatched if kind == "dispatched" else settled)[id] = int(amount)
        ledger = SqliteLedger(path, now=lambda: 1_795_176_000.0)
        total = await ledger.balance("tenant:acme", "total")
        hour = await ledger.balance("tenant:acme", "hour:2026-11-20T12")
        assert total == hour
        assert total.held == ledger.open_reservations() == 0
        assert sum(settled.values()) <= total.spent <= CAP
        await ledger.close()
        check_journal(path, dispatched, settled, total.spent)
    assert len(settled) > ROUNDS


def check_journal(path: Path, dispatched: dict[str, int], settled: dict[str, int], spent: int) -> None:
    connection = connect(path)
    rows = connection.execute("SELECT id, kind, amount FROM journal").fetchall()
    connection.close()
    held = {id: amount for id, kind, amount in rows if kind == "hold"}
    ends = {id: (kind, amount) for id, kind, amount in rows if kind in ("settle", "lost")}
    assert len(ends) + len(held) == len(rows)
    assert dispatched.items() <= held.items()
    assert held.keys() == ends.keys()
    for id, amount in settled.items():
        assert ends[id] == ("settle", amount) or ends[id] == ("lost", dispatched[id])
    assert all(amount == held[id] for id, (kind, amount) in ends.items() if kind == "lost")
    assert sum(amount for _, amount in ends.values()) == spent
