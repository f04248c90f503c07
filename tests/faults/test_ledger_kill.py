"""Kill -9 at random points of a process that spends: what it was promised is there when the ledger is opened again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import msgspec

from headgate.budget.budget import Balance
from headgate.budget.proof import prove
from headgate.budget.sqlite import SqliteLedger
from headgate.model import failpoints
from headgate.storage.sqlite import connect
from tests.faults.ledger_child import CAP, HOUR, NOON, TOKENS

ROUNDS = 20
CHILD = Path(__file__).with_name("ledger_child.py")
Told = dict[str, dict[str, int]]


def spend_until_killed(ledger: Path, round: int, chance: random.Random) -> list[list[str]]:
    """What the child told before it was killed; a line cut short was told too late to count.

    Every other one is killed from outside after some lines, the rest by themselves in the middle of a commit.
    """
    lines = chance.randint(1, 400)
    environ = dict(os.environ)
    if round % 2:
        environ[failpoints.VARIABLE] = f"during_commit:{chance.randint(1, 400)}"
    child = subprocess.Popen([sys.executable, str(CHILD), str(ledger), str(round)], stdout=subprocess.PIPE, env=environ)
    assert child.stdout is not None
    told = []
    if not round % 2:
        told = [child.stdout.readline() for _ in range(lines)]
        child.kill()
    told += child.stdout.readlines()
    child.stdout.close()
    assert child.wait() == -9
    return [line.decode().split() for line in told if line.endswith(b"\n")]


async def test_no_promise_is_broken_by_twenty_kills(tmp_path: Path) -> None:
    """Seeded. Every dispatched call is held in the journal and has ended; nothing reported as spent is missing; the cap holds;
    and every account's balance is the sum of the journal's rows that count on it."""
    path = tmp_path / "ledger.db"
    chance = random.Random(20_261_120)
    told: Told = defaultdict(dict)
    for round in range(ROUNDS):
        for kind, id, amount in spend_until_killed(path, round, chance):
            told[kind][id] = int(amount)
        ledger = SqliteLedger(path, now=lambda: NOON)
        places = [("tenant:acme", HOUR), *((account, "total") for account in ACCOUNTS), ("tenant:acme", TOKENS)]
        balances = {place: await ledger.balance(*place) for place in places}
        assert ledger.open_reservations() == 0
        await ledger.close()
        spent = check_journal(path, told)
        assert balances == {place: Balance(spent=spent[place]) for place in places}
        assert spent["tenant:acme", HOUR] == spent["tenant:acme", "total"] <= CAP
        with closing(connect(path)) as connection:
            assert prove(connection).holds
    assert len(told["settled"]) > ROUNDS


ACCOUNTS = ("tenant:acme", "user:acme/ann", "user:acme/bob")


def check_journal(path: Path, told: Told) -> dict[tuple[str, str], int]:
    """Compare the journal with what was told; what it says is spent, by account and window, added up without any SQL."""
    with closing(connect(path)) as connection:
        columns = "id, kind, amount, billed, prompt_tokens + completion_tokens, scopes"
        rows = connection.execute(f"SELECT {columns} FROM journal ORDER BY seq").fetchall()
    held: dict[str, int] = defaultdict(int)
    cost: dict[str, int] = defaultdict(int)
    ends: dict[str, str] = {}
    spent: dict[tuple[str, str], int] = defaultdict(int)
    for id, kind, amount, billed, tokens, scopes in rows:
        if kind in ("hold", "extend"):
            held[id] += amount
        elif kind in ("charge", "settle", "lost"):
            cost[id] += amount
        if kind in ("settle", "lost"):
            assert id not in ends
            ends[id] = kind
        for account, window in msgspec.json.decode(scopes):
            if kind in ("charge", "settle", "lost", "note", "seed"):
                counted = tokens * (kind != "note") if window == TOKENS else billed if kind == "note" else amount
                spent[account, window] += counted
    assert held.keys() == ends.keys()
    for id, amount in {**told["dispatched"], **told["extended"]}.items():
        assert held[id] >= amount
    for id, amount in told["settled"].items():
        assert (ends[id], cost[id]) in {("settle", amount), ("lost", held[id])}
    for id, kind in ends.items():
        assert cost[id] == held[id] or kind == "settle"
    return spent
