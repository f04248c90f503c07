"""Any order of calls, repeats, changes of caps, expiries, clock steps and crashes: both ledgers agree with a model of some fifty lines.

The model keeps reservations and computes balances; it never adds to one. After every step every balance of the ledger is compared with
it, and no reservation has made what is spent and held on a scope exceed its cap.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headgate.budget.budget import Balance, Entry, Hold, Ledger, Match, Scope, UsageQuery
from headgate.budget.memory import MemoryLedger
from headgate.budget.sqlite import SqliteLedger
from headgate.model.errors import BudgetExceeded, Overloaded
from headgate.model.money import Usage

NOON = 1_795_176_000.0

SCOPES = {
    "organisation": Scope("organisation:all", "total", 60),
    "tenant": Scope("tenant:acme", "day:2026-11-20", 40),
    "free": Scope("tenant:acme", "total"),
    "ann": Scope("user:acme/ann", "total", 20),
    "big": Scope("model:acme/big", "total", 30, deployment="big"),
    "tokens": Scope("tenant:acme", "tokens/day:2026-11-20", 100, tokens=True),
    "bob": Scope("user:acme/bob", "total", 20),
    "bob's tokens": Scope("user:acme/bob", "tokens/total", 60, tokens=True),
}
LATE = {"bob", "bob's tokens"}
"""Scopes that are not counted before somebody asks for it."""

IDS = st.sampled_from([f"call-{number}" for number in range(6)])
# Few values, so that sums often come to exactly a cap, or to one more.
AMOUNTS = st.sampled_from([0, 1, 9, 10, 11, 20, 21])
LEASES = st.sampled_from([5, 50])
BILLS = st.lists(
    st.tuples(st.sampled_from(["big", "small"]), AMOUNTS, AMOUNTS, st.sampled_from([0, 0, 50, 100])),
    min_size=1,
    max_size=3,
)
Bill = list[tuple[str, int, int, int]]
"""Of each attempt: where, nano-USD, tokens, and the percent of the money that others owe."""


class Call(msgspec.Struct):
    """A reservation: how much it holds where, and what it cost in the end. `caps`: those in force when it was made."""

    user: str
    caps: dict[str, int | None]
    held: int
    tokens: int
    lease: float
    deadline: float
    state: str = "held"
    bill: Bill = []
    by_note: bool = False

    @property
    def is_open(self) -> bool:
        return self.state in ("held", "dispatched")

    def weight(self, name: str) -> tuple[int, int]:
        """What this call has spent and holds on a scope."""
        scope = SCOPES[name]
        if self.is_open:
            return 0, self.tokens if scope.tokens else self.held
        mine = [part for part in self.bill if scope.deployment is None or part[0] in ("", scope.deployment)]
        if scope.tokens:
            return sum(tokens for _, _, tokens, _ in mine), 0
        # What is shared weighs with the call on what all have in common, and with each one's part on what it has alone.
        alone = scope.account.startswith("user:") != self.by_note
        return sum(amount - (amount * shared // 100 if alone else 0) for _, amount, _, shared in mine), 0


class Model:
    """What a ledger should say."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.caps = {name: scope.cap for name, scope in SCOPES.items()}
        self.counted = SCOPES.keys() - LATE

    def balance(self, name: str) -> Balance:
        weights = [call.weight(name) for call in self.calls.values() if name in call.caps]
        return Balance(sum(spent for spent, _ in weights), sum(held for _, held in weights))

    def refusal(self, caps: dict[str, int | None], money: int, tokens: int) -> str | None:
        told = None
        for name, cap in caps.items():
            wanted = tokens if SCOPES[name].tokens else money
            if cap is None or (SCOPES[name].tokens and not wanted):
                continue
            balance = self.balance(name)
            if balance.spent + wanted > cap:
                return "budget_exceeded"
            if balance.spent + balance.held + wanted > cap:
                told = "budget_held"
        return told

    def settle(self, id: str, bill: Bill, *, by_note: bool = False) -> bool:
        call = self.calls.get(id)
        if call is None or not (call.is_open or call.state == "released"):
            return False
        call.state, call.bill, call.by_note = "settled", bill, by_note
        return True

    def count(self, name: str, user: str) -> None:
        if name not in self.counted:
            self.counted |= {name}
            for call in self.calls.values():
                if call.user == user and call.state != "released":
                    call.caps[name] = None

    def expire(self, now: float) -> None:
        for call in self.calls.values():
            call.deadline = min(call.deadline, now + call.lease)
            if call.is_open and call.deadline <= now:
                call.bill = [("", call.held, call.tokens, 0)] if call.state == "dispatched" else []
                call.state = "lost" if call.state == "dispatched" else "released"

    def restart(self) -> None:
        """What never left is as if it had never been; what left and has no end is lost."""
        self.expire(float("inf"))
        self.calls = {id: call for id, call in self.calls.items() if call.state != "released"}


class LedgerMachine(RuleBasedStateMachine):
    """Drives one ledger and the model side by side."""

    def opened(self) -> Ledger:
        return MemoryLedger(now=lambda: self.now)

    @initialize()
    def begin(self) -> None:
        self.now = NOON
        self.loop = asyncio.new_event_loop()
        self.ledger = self.opened()
        self.model = Model()
        self.noted: dict[str, int] = {}
        self.fees = 0

    def told(self, work: Awaitable[object]) -> str | None:
        """The code of the error that it raises."""

        async def done() -> None:
            await work

        try:
            self.loop.run_until_complete(done())
        except (BudgetExceeded, Overloaded) as error:
            return error.code
        return None

    def inside(self, work: Callable[[], None]) -> None:
        """Do something that does not wait, but wants a running loop."""

        async def done() -> None:
            work()

        self.loop.run_until_complete(done())

    def user(self, id: str) -> str:
        """Who makes this call, as every row of it says."""
        return self.model.calls[id].user if id in self.model.calls else ""

    def entries(self, id: str, bill: Bill) -> list[Entry]:
        """A bill as the ledger takes it."""
        return [
            Entry(
                tenant="acme",
                user=self.user(id),
                deployment=deployment,
                amount=amount,
                shared=amount * shared // 100,
                usage=Usage(completion_tokens=tokens),
            )
            for deployment, amount, tokens, shared in bill
        ]

    @rule(
        id=IDS,
        user=st.sampled_from(["ann", "bob", "cid"]),
        amount=AMOUNTS,
        share=st.sampled_from([0, 50, 100, 100]),
        tokens=AMOUNTS,
        lease=LEASES,
    )
    def reserve(self, *, id: str, user: str, amount: int, share: int, tokens: int, lease: int) -> None:
        least = amount * share // 100
        caps = {name: self.model.caps[name] for name in sorted(self.model.counted) if pays(name, user)}
        scopes = tuple(msgspec.structs.replace(SCOPES[name], cap=cap) for name, cap in caps.items())
        entry = Entry(tenant="acme", user=user)
        hold = Hold(id=id, scopes=scopes, amount=amount, least=least, tokens=tokens, lease=lease, entry=entry)
        refusal = self.told(self.ledger.reserve(hold))
        if id in self.model.calls:
            assert refusal is None
            return
        assert refusal == self.model.refusal(caps, least, tokens)
        if refusal is None:
            held = self.loop.run_until_complete(self.ledger.reserve(hold))
            assert least <= held <= amount
            self.model.calls[id] = Call(user, caps, held, tokens, lease, self.now + lease)
            self.nothing_exceeds({name: cap for name, cap in caps.items() if tokens or not SCOPES[name].tokens})

    def nothing_exceeds(self, caps: dict[str, int | None]) -> None:
        """What has just been held has made no balance exceed its cap."""
        for name, cap in caps.items():
            balance = self.ledger.peek(SCOPES[name].account, SCOPES[name].window)
            assert cap is None or balance.spent + balance.held <= cap

    @rule(id=IDS)
    def dispatched(self, id: str) -> None:
        call = self.model.calls.get(id)
        told = self.told(self.ledger.dispatched(id))
        if call is None or not call.is_open:
            assert told == "overloaded"
            return
        assert told is None
        call.state = "dispatched"

    @rule(id=IDS, lease=LEASES, amount=st.none() | AMOUNTS)
    def extend(self, id: str, lease: int, amount: int | None) -> None:
        call = self.model.calls.get(id)
        told = self.told(self.ledger.extend(id, lease, amount))
        if call is None or not call.is_open:
            assert told == "overloaded"
            return
        more = max(0, (amount or 0) - call.held)
        assert told == (self.model.refusal(call.caps, more, 0) if more else None)
        if told is None:
            call.held, call.lease, call.deadline = call.held + more, lease, self.now + lease
        if told is None and more:
            self.nothing_exceeds({name: cap for name, cap in call.caps.items() if not SCOPES[name].tokens})

    @rule(id=IDS, bill=BILLS)
    def settle(self, id: str, bill: Bill) -> None:
        entries = self.entries(id, bill)
        self.inside(lambda: self.ledger.settle(id, entries))
        self.model.settle(id, bill)

    @rule(id=IDS, billed=AMOUNTS, shared=st.booleans())
    def note(self, *, id: str, billed: int, shared: bool) -> None:
        """An answer from stock: a fee that was held is settled by it, and one for which nothing was held counts nowhere; but part of a
        shared price counts on its user's account as soon as that is counted."""
        user, percent = self.user(id), 100 * shared
        entry = Entry(
            tenant="acme",
            user=user,
            source="exact",
            billed=billed,
            shared=billed if shared else 0,
            deployment="small",
        )
        self.inside(lambda: self.ledger.note(id, entry))
        if id not in self.noted:
            self.noted[id] = billed
            bill = [("small", billed, 0, percent)]
            if self.model.settle(id, bill, by_note=True):
                self.fees += billed - entry.shared
            elif shared:
                self.model.calls[f"beside {id}"] = Call(user, {}, 0, 0, 0, 0, state="settled", bill=bill, by_note=True)
            self.model.calls.setdefault(id, Call("", {}, 0, 0, 0, 0, state="settled"))

    @rule(id=IDS)
    def release(self, id: str) -> None:
        self.inside(lambda: self.ledger.release(id))
        if id in self.model.calls and self.model.calls[id].state == "held":
            self.model.calls[id].state = "released"

    @rule(name=st.sampled_from(sorted(SCOPES)), cap=st.none() | st.sampled_from([0, 10, 20, 40, 60]))
    def change_cap(self, name: str, cap: int | None) -> None:
        self.model.caps[name] = cap

    @rule(name=st.sampled_from(sorted(LATE)))
    def count(self, name: str) -> None:
        """Count somebody whose calls have been made for long."""
        scope = msgspec.structs.replace(SCOPES[name], cap=None)
        self.loop.run_until_complete(self.ledger.count(scope, Match(("acme",), "user", "bob")))
        self.model.count(name, "bob")

    @rule(seconds=st.sampled_from([-50, -5, 5, 50]))
    def step_clock(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def leap_and_return(self) -> None:
        """A clock that is years ahead for a moment ends leases, and makes no balance be forgotten."""
        self.now += 10**8
        self.expire()
        self.now -= 10**8

    @rule()
    def expire(self) -> None:
        self.loop.run_until_complete(self.ledger.expire())
        self.model.expire(self.now)

    @invariant()
    def balances_are_the_models(self) -> None:
        for name in self.model.counted:
            scope = SCOPES[name]
            assert self.ledger.peek(scope.account, scope.window) == self.model.balance(name), name
        states = [call.state for call in self.model.calls.values()]
        assert self.ledger.open_reservations() == states.count("held") + states.count("dispatched")
        if not self.ledger.open_reservations():
            assert all(self.ledger.peek(scope.account, scope.window).held == 0 for scope in SCOPES.values())

    def teardown(self) -> None:
        """The journal says what the balances say: every call's cost is in it once, and every note."""
        rows = self.loop.run_until_complete(self.ledger.usage(UsageQuery(group_by=("source",))))
        billed = {row.group["source"]: row.billed for row in rows}
        assert billed.get("exact", 0) == sum(self.noted.values())
        by_others = sum(row.shared for row in rows if row.group["source"] == "live")
        assert billed.get("live", 0) + by_others == self.model.balance("free").spent - self.fees
        self.loop.run_until_complete(self.ledger.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


def pays(name: str, user: str) -> bool:
    """Whether a scope is one of those of a user's calls."""
    account = SCOPES[name].account
    return not account.startswith("user:") or account == f"user:acme/{user}"


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

    def written(self) -> None:
        """Everything that waits to be written is written."""
        self.loop.run_until_complete(self.ledger.usage(UsageQuery()))

    @rule()
    def close_and_open(self) -> None:
        self.loop.run_until_complete(self.ledger.close())
        self.ledger = self.opened()
        self.model.restart()

    @rule()
    def kill_and_open(self) -> None:
        self.written()
        self.kill()
        self.model.restart()

    @rule(id=IDS, bill=BILLS)
    def kill_after_a_settlement(self, id: str, bill: Bill) -> None:
        """What was told last is in the file or it is not; no part of it is, and a dispatched call is never forgotten."""
        self.written()
        entries = self.entries(id, bill)
        self.inside(lambda: self.ledger.settle(id, entries))
        self.kill()
        connection = sqlite3.connect(self.path / "ledger.db")
        (kept,) = connection.execute("SELECT count(*) FROM journal WHERE id = ? AND kind = 'settle'", (id,)).fetchone()
        connection.close()
        if kept:
            self.model.settle(id, bill)
        self.model.restart()

    def kill(self) -> None:
        """What a killed process leaves is the files as they are; nothing later is ever written to this copy."""
        left = self.path
        self.path = left.with_name(str(int(left.name) + 1))
        self.path.mkdir()
        for file in left.iterdir():
            (self.path / file.name).write_bytes(file.read_bytes())
        self.loop.run_until_complete(self.ledger.close())
        self.ledger = self.opened()

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


TestMemoryLedgerMachine = LedgerMachine.TestCase
TestMemoryLedgerMachine.settings = settings(max_examples=400, stateful_step_count=50, deadline=None)
TestSqliteLedgerMachine = SqliteLedgerMachine.TestCase
TestSqliteLedgerMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
