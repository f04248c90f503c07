"""The ledger of several processes while its till cannot be asked: a budget is not passed by, and who has none goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from headgate.budget.budget import Balance, Entry, Hold, Scope
from headgate.budget.postgres import PostgresJournal
from headgate.budget.shared import SharedLedger
from headgate.budget.till import Ask, Granted, Refused, Unknown
from headgate.budget.till_memory import MemoryTill
from headgate.model.errors import Overloaded
from tests.journals import connected

TENANT, ABOVE = "tenant:acme", "organisation:all"
ENTRY = Entry(tenant="acme", amount=20)


class Till(MemoryTill):
    """One that can be away; `deaf`: it does what it is asked, but no answer comes."""

    away = False
    deaf = False

    async def hold(self, ask: Ask) -> Granted | Refused | Unknown:
        if self.away:
            raise Overloaded("The till does not answer.", retry_after=1.0)
        answer = await super().hold(ask)
        if self.deaf:
            raise Overloaded("The till does not answer in time.", retry_after=1.0)
        return answer


@pytest.fixture
def till() -> Till:
    return Till()


@pytest.fixture
async def ledger(database_url: str, till: Till) -> AsyncIterator[SharedLedger]:
    async with connected(database_url) as postgres:
        ledger = SharedLedger(till, PostgresJournal(postgres))
        yield ledger
        await ledger.close()


def hold(id: str, cap: int | None) -> Hold:
    scopes = (Scope(TENANT, "total", cap), Scope(ABOVE, "total", None))
    return Hold(id=id, scopes=scopes, amount=50, least=50, lease=60.0, entry=Entry(tenant="acme"))


@pytest.mark.parametrize("how", ["away", "deaf"])
async def test_a_call_that_no_budget_limits_goes_on_and_is_counted(ledger: SharedLedger, till: Till, how: str) -> None:
    await ledger.reserve(hold("a", None))
    ledger.release("a")
    setattr(till, how, True)
    assert await ledger.reserve(hold("b", None)) == 50
    await ledger.dispatched("b")
    ledger.settle("b", [ENTRY])
    setattr(till, how, False)
    assert ledger.open_reservations() == 0
    for account in (TENANT, ABOVE):
        assert await ledger.balance(account, "total") == Balance(spent=20)


async def test_a_call_that_a_budget_limits_is_refused(ledger: SharedLedger, till: Till) -> None:
    till.away = True
    with pytest.raises(Overloaded):
        await ledger.reserve(hold("a", 100))
    assert ledger.open_reservations() == 0
    till.away = False
    assert await ledger.reserve(hold("a", 100)) == 50
    ledger.release("a")
