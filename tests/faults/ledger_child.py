"""A process that spends without end and tells each thing it has been promised, one line each, until it is killed."""

from __future__ import annotations

import asyncio
import os
import random
import sys

from headgate.budget.budget import Entry, Hold, Match, Scope
from headgate.budget.journal import Journal
from headgate.budget.sqlite import SqliteLedger
from headgate.model.errors import BudgetExceeded
from headgate.model.money import Usage

CAP = 200_000
NOON = 1_795_176_000.0
HOUR = "hour:2026-11-20T12"
TOKENS = "tokens/day:2026-11-20"
USERS = ("ann", "bob")


def tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def hold(id: str, user: str, amount: int) -> Hold:
    scopes = (
        Scope("tenant:acme", "total", CAP),
        Scope("tenant:acme", HOUR),
        Scope("tenant:acme", TOKENS, tokens=True),
        Scope("user:acme/ann", "total"),
    )
    entry = Entry(tenant="acme", user=user)
    return Hold(
        id=id,
        scopes=scopes if user == "ann" else scopes[:3],
        amount=amount,
        least=1,
        lease=900.0,
        entry=entry,
        tokens=10,
    )


async def call(ledger: SqliteLedger, id: str, chance: random.Random) -> None:
    """One call: held, perhaps given back or answered from stock, else sent, perhaps with more held, and settled."""
    user = chance.choice(USERS)
    try:
        granted = await ledger.reserve(hold(id, user, chance.randint(1, 50)))
    except BudgetExceeded:
        await asyncio.sleep(0)
        return
    way = chance.random()
    if way < 0.1:
        ledger.release(id)
        return
    if way < 0.2:
        ledger.note(id, Entry(tenant="acme", user=user, source="exact", billed=granted // 2, saved=granted))
        return
    await ledger.dispatched(id)
    tell(f"dispatched {id} {granted}")
    first = chance.randint(0, granted)
    bill = [Entry(tenant="acme", user=user, amount=first, usage=Usage(prompt_tokens=7, completion_tokens=1))]
    if way > 0.8:
        try:
            await ledger.extend(id, 900.0, granted + 10)
        except BudgetExceeded:
            pass
        else:
            tell(f"extended {id} {granted + 10}")
            bill.append(Entry(tenant="acme", user=user, amount=chance.randint(0, 10)))
    await asyncio.sleep(0)
    ledger.settle(id, bill)
    tell(f"settled {id} {sum(entry.amount for entry in bill)}")


async def keep_books(ledger: SqliteLedger, path: str, chance: random.Random) -> None:
    """What a server does beside: count an account that was not counted before, bring the running sums up to date."""
    journal = Journal(path)
    await ledger.count(Scope("user:acme/bob", "total"), Match(("acme",), "user", "bob"))
    while True:
        await asyncio.sleep(chance.random() / 20)
        await journal.fold(oldest=NOON)


async def main(path: str, round: str) -> None:
    ledger = SqliteLedger(path, now=lambda: NOON)

    async def caller(number: int) -> None:
        chance = random.Random(f"{round}-{number}")
        turn = 0
        while True:
            await call(ledger, f"r{round}-{number}-{turn}", chance)
            turn += 1

    await asyncio.gather(
        keep_books(ledger, path, random.Random(f"{round}-books")), *(caller(number) for number in range(4))
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
