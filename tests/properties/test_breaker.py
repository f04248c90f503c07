"""Breakers under any sequence of calls, outcomes and waiting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.routing.breaker import Breakers, Rules
from headgate.routing.retries import RetryBudget

RULES = Rules(failures=3, calls=6, window=30, open_time=4, most_open=32, probe_lease=15, most_cooling=50)
NEXT = {("closed", "open"), ("open", "half_open"), ("half_open", "open"), ("half_open", "closed"), ("open", "closed")}
MOVES = st.sampled_from(
    [("allow", None)] * 4
    + [("result", True)] * 3
    + [("result", False), ("panic", None), ("trip", None), ("trip", None)]
    + [("wait", seconds) for seconds in (0.5, 5.0, 5.0, 11.0, 40.0)]
    + [("throttled", seconds) for seconds in (0.0, 3.0, 100.0)]
)
"""Weighted so that most runs see every state, which even odds hardly reach."""


class Run:
    """Plays moves and keeps its own simple account of what must hold."""

    def __init__(self, jitter: float) -> None:
        self.now = 0.0
        self.changes: list[tuple[str, str]] = []
        self.breakers = Breakers(RULES, clock=lambda: self.now, random=lambda: jitter, on_change=self.changed)
        self.opened_at = 0.0
        self.shunned_until = 0.0
        self.probes: list[float] = []
        self.history: list[tuple[float, bool]] = []
        self.panicked = False

    def changed(self, name: str, before: str, after: str) -> None:
        assert name == "a"
        assert (before, after) in NEXT
        assert before == (self.changes[-1][1] if self.changes else "closed"), "states follow each other without gaps"
        if (before, after) == ("open", "closed"):
            assert self.panicked
        if before == "closed":
            self.assert_deserved()
        if after == "open":
            self.opened_at = self.now
        if after == "half_open":
            self.probes = []
        if after == "closed":
            self.history = []
        self.changes.append((before, after))

    def assert_deserved(self) -> None:
        """It opens after failures in a row, or when half of enough recent calls failed."""
        outcomes = [failed for _, failed in self.history]
        row = len(outcomes) >= RULES.failures and all(outcomes[-RULES.failures :])
        recent = [failed for at, failed in self.history if at > self.now - RULES.window - 2]
        assert row or (len(recent) >= RULES.calls and sum(recent) * 2 >= RULES.calls)

    def observe(self, failed: bool, retry_after: float | None = None) -> None:
        if self.breakers.state("a") == "closed":
            self.history.append((self.now, failed))
        if retry_after:
            self.shunned_until = max(self.shunned_until, self.now + min(retry_after, RULES.most_cooling))
        self.breakers.observe("a", failed, retry_after)

    def allow(self) -> None:
        state = self.breakers.state("a")
        allowed = self.breakers.allow("a")
        if self.now < self.shunned_until or state == "open":
            assert not allowed
        elif state == "closed":
            assert allowed
        else:
            out = [at for at in self.probes if self.now < at + RULES.probe_lease]
            assert allowed == (not out), "exactly one probe at a time"
            if allowed:
                self.probes.append(self.now)

    def play(self, move: str, value) -> None:
        if move == "wait":
            self.now += value
        elif move == "allow":
            self.allow()
        elif move == "result":
            self.observe(value)
        elif move == "trip":
            for _ in range(RULES.failures):
                self.observe(failed=True)
        elif move == "throttled":
            self.observe(failed=True, retry_after=value)
        else:
            self.panicked = self.breakers.least_bad(["a"]) is not None or self.panicked


@given(st.lists(MOVES, max_size=80), st.floats(0, 1))
def test_whatever_happens_its_promises_hold_and_it_recovers(moves: list, jitter: float) -> None:
    """Refused while open or cooling, one probe while half open, opened only for cause, and never stuck."""
    run = Run(jitter)
    for move, value in moves:
        run.play(move, value)
        if run.breakers.state("a") == "open":
            assert run.now < run.opened_at + RULES.most_open * 1.2 + 0.001
    run.now += max(RULES.most_open * 1.2, RULES.most_cooling, RULES.probe_lease) + 1
    assert run.breakers.allow("a")
    run.breakers.observe("a", failed=False)
    assert run.breakers.state("a") == "closed"


@given(st.lists(st.one_of(st.just("call"), st.just("retry"), st.floats(0, 5)), max_size=200))
def test_retries_in_any_window_stay_below_their_share_and_reserve(moves: list) -> None:
    """Each retry is allowed only while retries so far in the window are below a fifth of its calls plus the reserve."""
    now = 0.0
    budget = RetryBudget(share=0.2, reserve_per_second=0.3, seconds=10, clock=lambda: now)
    calls: list[float] = []
    retries: list[float] = []
    for move in moves:
        if move == "call":
            budget.deposit()
            calls.append(now)
        elif move == "retry":
            if budget.withdraw():
                retries.append(now)
                window = now - 10
                inner = sum(at > window + 10 / 30 for at in retries)
                assert inner <= 0.2 * sum(at > window - 10 / 30 for at in calls) + 3 + 1e-6
        else:
            now += move
