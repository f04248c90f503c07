"""Any order of calls, repeats, expiries, clock steps and restarts: both ledgers agree with a model of thirty lines."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headgate.budget.budget import Balance, Entry, Hold, Ledger, Scope, UsageQuery
from headgate.budget.memory import MemoryLedger
from headgate.budget.sqlite import SqliteLedger
from headgate.model.errors import BudgetExceeded, Overloaded

CAPS = {"small": 50, "large": 120, "free": None}
IDS = st.sampled_from([f"call-{number}" for number in range(12)])
AMOUNTS = st.integers(0, 40)


class Model:
    """Reservations as (state, amount, deadline); balances are computed, never kept."""

    def __init__(self) -> None:
        self.calls: dict[str, tuple[str, int, float]] = {}

    @property
    def spent(self) -> int:
        return sum(amount for state, amount, _ in self.calls.values() if state in ("settled", "lost"))

    @property
    def held(self) -> int:
        return sum(amount for state, amount, _ in self.calls.values() if state in ("held", "dispatched"))

    def refusal(self, amount: int) -> str | None:
        caps = [cap for cap in CAPS.values() if cap is not None]
        if any(self.spent + amount > cap for cap in caps):
            return "budget_exceeded"
        return "budget_held" if any(self.spent + self.held + amount > cap for cap in caps) else None

    def settle(self, id: str, amount: int) -> None:
        if self.calls.get(id, ("lost",))[0] in ("held", "dispatched", "released"):
            self.calls[id] = ("settled", amount, 0)

    def restart(self) -> None:
        """What never left is as if it had never been; what left and has no end is lost."""
        self.end_all(float("inf"))
        self.calls = {id: call for id, call in self.calls.items() if call[0] != "released"}

    def end_all(self, now: float) -> None:
        for id, (state, amount, deadline) in self.calls.items():
            if state in ("held", "dispatched") and deadline <= now:
                self.calls[id] = ("lost" if state == "dispatched" else "released", amount, 0)


class LedgerMachine(RuleBasedStateMachine):
    """Drives one ledger and the model side by side."""

    def opened(self) -> Ledger:
        return MemoryLedger(now=lambda: self.now)

    @initialize()
    def begin(self) -> None:
        self.now = 1_795_176_000.0
        self.overrun = False
        self.loop = asyncio.new_event_loop()
        self.ledger = self.opened()
        self.model = Model()

    def inside(self, work: Callable[[], None]) -> None:
        """Do something that does not wait, but wants a running loop."""

        async def done() -> None:
            work()

        self.loop.run_until_complete(done())

    @rule(id=IDS, amount=AMOUNTS, lease=st.integers(1, 100))
    def reserve(self, id: str, amount: int, lease: int) -> None:
        scopes = tuple(Scope("tenant:acme", window, cap) for window, cap in CAPS.items())
        hold = Hold(id=id, scopes=scopes, amount=amount, lease=lease, entry=Entry(tenant="acme"))
        refusal = None
        try:
            self.loop.run_until_complete(self.ledger.reserve(hold))
        except BudgetExceeded as error:
            refusal = error.code
        if id in self.model.calls:
            assert refusal is None
            return
        assert refusal == self.model.refusal(amount)
        if refusal is None:
            self.model.calls[id] = ("held", amount, self.now + lease)

    @rule(id=IDS)
    def dispatched(self, id: str) -> None:
        state, amount, deadline = self.model.calls.get(id, ("released", 0, 0))
        try:
            self.loop.run_until_complete(self.ledger.dispatched(id))
        except Overloaded:
            assert state == "released"
            return
        assert state != "released"
        if state == "held":
            self.model.calls[id] = ("dispatched", amount, deadline)

    @rule(id=IDS, amount=AMOUNTS)
    def settle(self, id: str, amount: int) -> None:
        state, most, _ = self.model.calls.get(id, ("lost", 0, 0))
        self.overrun |= state == "released" or amount > most
        self.inside(lambda: self.ledger.settle(id, Entry(tenant="acme", amount=amount)))
        self.model.settle(id, amount)

    @rule(id=IDS)
    def release(self, id: str) -> None:
        self.inside(lambda: self.ledger.release(id))
        state, amount, _ = self.model.calls.get(id, ("", 0, 0))
        if state == "held":
            self.model.calls[id] = ("released", amount, 0)

    @rule(seconds=st.integers(-50, 100))
    def step_clock(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.loop.run_until_complete(self.ledger.expire())
        self.model.end_all(self.now)

    @invariant()
    def balances_are_the_models(self) -> None:
        for window, cap in CAPS.items():
            balance = self.loop.run_until_complete(self.ledger.balance("tenant:acme", window))
            assert balance == Balance(self.model.spent, self.model.held)
            assert cap is None or self.overrun or balance.spent + balance.held <= cap
        states = [state for state, _, _ in self.model.calls.values()]
        assert self.ledger.open_reservations() == states.count("held") + states.count("dispatched")
        assert self.ledger.open_reservations() or not self.model.held

    def teardown(self) -> None:
        rows = self.loop.run_until_complete(self.ledger.usage(UsageQuery()))
        assert sum(row.cost for row in rows) == self.model.spent
        self.loop.run_until_complete(self.ledger.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class SqliteLedgerMachine(LedgerMachine):
    """The same with a file, and with processes that end in order or are killed."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "0"
        self.path.mkdir()
        super().begin()

    def opened(self) -> Ledger:
        return SqliteLedger(self.path / "ledger.db", now=lambda: self.now)

    @rule()
    def close_and_open(self) -> None:
        self.loop.run_until_complete(self.ledger.close())
        self.restarted()

    @rule()
    def kill_and_open(self) -> None:
        """What a killed process leaves is the files as they are; nothing later is ever written to this copy."""
        self.loop.run_until_complete(self.ledger.usage(UsageQuery()))
        left = self.path
        self.path = left.with_name(str(int(left.name) + 1))
        self.path.mkdir()
        for file in left.iterdir():
            (self.path / file.name).write_bytes(file.read_bytes())
        self.loop.run_until_complete(self.ledger.close())
        self.restarted()

    def restarted(self) -> None:
        self.ledger = self.opened()
        self.model.restart()

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


TestMemoryLedgerMachine = LedgerMachine.TestCase
TestMemoryLedgerMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSqliteLedgerMachine = SqliteLedgerMachine.TestCase
TestSqliteLedgerMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
