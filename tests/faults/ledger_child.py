"""A process that spends without end and tells each thing it has been promised, one line each, until it is killed."""

from __future__ import annotations

import asyncio
import os
import random
import sys

from headgate.budget.budget import Entry, Hold, Scope
from headgate.budget.sqlite import SqliteLedger
from headgate.model.errors import BudgetExceeded

CAP = 200_000


def tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def call(ledger: SqliteLedger, id: str, chance: random.Random) -> None:
    amount = chance.randint(1, 50)
    scopes = (Scope("tenant:acme", "total", CAP), Scope("tenant:acme", "hour:2026-11-20T12"))
    try:
        await ledger.reserve(Hold(id=id, scopes=scopes, amount=amount, lease=900.0, entry=Entry(tenant="acme")))
    except BudgetExceeded:
        await asyncio.sleep(0)
        return
    if chance.random() < 0.1:
        ledger.release(id)
        return
    await ledger.dispatched(id)
    tell(f"dispatched {id} {amount}")
    await asyncio.sleep(0)
    spent = chance.randint(0, amount)
    ledger.settle(id, Entry(tenant="acme", amount=spent))
    tell(f"settled {id} {spent}")


async def main(path: str, round: str) -> None:
    ledger = SqliteLedger(path, now=lambda: 1_795_176_000.0)

    async def caller(number: int) -> None:
        chance = random.Random(f"{round}-{number}")
        turn = 0
        while True:
            await call(ledger, f"r{round}-{number}-{turn}", chance)
            turn += 1

    await asyncio.gather(*(caller(number) for number in range(4)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
