"""Breakers, cooling and the retry budget, step by step."""

from __future__ import annotations

from headgate.routing.breaker import Breakers, Rules
from headgate.routing.retries import RetryBudget


class World:
    """Breakers with a clock that only tests move."""

    def __init__(self, rules: Rules | None = None, random: float = 0.0) -> None:
        self.now = 1_000.0
        self.changes: list[tuple[str, str, str]] = []
        self.breakers = Breakers(
            rules,
            clock=lambda: self.now,
            random=lambda: random,
            on_change=lambda *change: self.changes.append(change),
        )

    def fail(self, times: int = 1, name: str = "a") -> None:
        for _ in range(times):
            self.breakers.observe(name, failed=True)


def test_five_failures_in_a_row_open_it_and_a_success_between_does_not() -> None:
    world = World()
    world.fail(4)
    world.breakers.observe("a", failed=False)
    world.fail(4)
    assert world.breakers.allow("a")
    world.fail()
    assert not world.breakers.allow("a")
    assert world.changes == [("a", "closed", "open")]


def test_half_of_twenty_calls_failing_opens_it_without_a_row() -> None:
    world = World()
    for _ in range(9):
        world.fail()
        world.breakers.observe("a", failed=False)
    world.breakers.observe("a", failed=False)
    assert world.breakers.state("a") == "closed"
    world.fail()
    assert world.breakers.state("a") == "open"


def test_failures_older_than_the_window_do_not_count() -> None:
    world = World()
    for _ in range(9):
        world.fail()
        world.breakers.observe("a", failed=False)
    world.now += 31
    world.fail(2)
    assert world.breakers.state("a") == "closed"


def test_one_probe_is_admitted_and_its_success_closes() -> None:
    world = World()
    world.fail(5)
    world.now += 5
    assert [world.breakers.allow("a") for _ in range(3)] == [True, False, False]
    world.breakers.observe("a", failed=False)
    assert world.breakers.allow("a")
    assert [after for _, _, after in world.changes] == ["open", "half_open", "closed"]


def test_every_failed_probe_doubles_the_open_time_up_to_the_maximum() -> None:
    world = World(Rules(open_time=5, most_open=30))
    world.fail(5)
    for wait in (5, 10, 20, 30, 30):
        world.now += wait - 0.001
        assert not world.breakers.allow("a")
        world.now += 0.002
        assert world.breakers.allow("a")
        world.fail()


def test_jitter_lengthens_the_open_time_by_up_to_a_fifth() -> None:
    world = World(random=1.0)
    world.fail(5)
    world.now += 5.9
    assert not world.breakers.allow("a")
    world.now += 0.2
    assert world.breakers.allow("a")


def test_a_probe_that_never_reports_makes_room_for_another() -> None:
    world = World()
    world.fail(5)
    world.now += 5
    assert world.breakers.allow("a")
    world.now += 59
    assert not world.breakers.allow("a")
    world.now += 1
    assert world.breakers.allow("a")


def test_results_of_calls_that_began_before_it_opened_change_nothing() -> None:
    world = World()
    world.fail(5)
    world.fail(50)
    world.breakers.observe("a", failed=False)
    assert len(world.changes) == 1
    world.now += 5
    assert world.breakers.allow("a")


def test_retry_after_keeps_everyone_away_until_then() -> None:
    world = World()
    world.breakers.observe("a", failed=False, retry_after=30)
    world.now += 29
    assert not world.breakers.allow("a")
    assert world.breakers.cooling("a") == 1
    world.now += 1
    assert world.breakers.allow("a")
    assert world.changes == []


def test_an_absurd_retry_after_is_believed_for_ten_minutes() -> None:
    world = World()
    world.breakers.observe("a", failed=False, retry_after=1e9)
    assert world.breakers.cooling("a") == 600


def test_in_panic_the_least_bad_is_the_one_whose_open_time_ends_first() -> None:
    world = World()
    world.fail(5, "a")
    world.now += 1
    world.fail(5, "b")
    assert world.breakers.least_bad(["b", "a"]) == "a"
    world.breakers.observe("a", failed=False)
    assert world.breakers.state("a") == "closed"
    assert world.breakers.state("b") == "open"


def test_panic_leaves_cooling_deployments_alone() -> None:
    world = World()
    world.fail(5, "a")
    world.breakers.observe("a", failed=True, retry_after=20)
    assert world.breakers.least_bad(["a"]) is None


def test_failed_panic_tries_neither_lengthen_nor_log() -> None:
    world = World()
    world.fail(5)
    for _ in range(20):
        assert world.breakers.least_bad(["a"]) == "a"
        world.fail()
    assert len(world.changes) == 1
    world.now += 5
    assert world.breakers.allow("a")


def test_a_fifth_of_the_calls_may_be_retried_besides_the_reserve() -> None:
    budget = RetryBudget(reserve_per_second=1, seconds=10, clock=lambda: 0.0)
    for _ in range(100):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(100)) == 30


def test_a_quiet_client_may_retry_from_the_reserve_again_after_a_while() -> None:
    now = [0.0]
    budget = RetryBudget(reserve_per_second=0.1, seconds=10, clock=lambda: now[0])
    assert [budget.withdraw() for _ in range(2)] == [True, False]
    now[0] = 10.5
    assert budget.withdraw()


def test_without_a_reserve_the_first_retry_needs_five_calls() -> None:
    budget = RetryBudget(reserve_per_second=0, clock=lambda: 0.0)
    for _ in range(4):
        budget.deposit()
    assert not budget.withdraw()
    budget.deposit()
    assert budget.withdraw()
