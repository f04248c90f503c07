"""Which served answers are checked."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.checks import DAY, Checks, Ration
from headgate.cache.labels import Scope, Served
from headgate.cache.recent import Recent
from headgate.model.tenancy import Namespace

SHOP, HELP = Scope(Namespace("acme"), b"shop"), Scope(Namespace("acme"), b"help")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.floats(0.0, 1.0)), max_size=400),
    st.floats(0.0, 0.5),
    st.floats(0.0, 1.0),
)
def test_no_more_than_the_share_of_the_requests_is_ever_checked(
    requests: list[tuple[bool, int, float]], share: float, chance: float
) -> None:
    checks = Checks(Ration(share=share, chance=chance), now=lambda: 0.0)
    made = {SHOP: 0, HELP: 0}
    asked = {SHOP: 0, HELP: 0}
    for number, (hit, question, confidence) in enumerate(requests):
        scope = SHOP if question % 2 else HELP
        if hit:
            chosen = checks.chosen(str(number), scope, bytes([question]), "e", confidence=confidence, bar=0.9)
            made[scope] += chosen is not None
        checks.asked(scope)
        asked[scope] += 1
        assert made[scope] <= share * asked[scope] + 1e-6


def chosen(checks: Checks, id: str, question: str, confidence: float = 0.95, entry: str = "e") -> str | None:
    return checks.chosen(id, SHOP, question.encode(), entry, confidence=confidence, bar=0.9)


def rich(share: float = 1.0, **more: float) -> Checks:
    prices = {"chance": 0.0, "dear": 2.0, "cheap": 0.1, **more}
    checks = Checks(Ration(share=share, **prices), now=lambda: 0.0)
    for _ in range(3):
        checks.asked(SHOP)
    return checks


def test_what_is_served_again_and_again_is_checked_before_what_was_served_once() -> None:
    checks = rich()
    assert chosen(checks, "1", "popular") is None
    assert chosen(checks, "2", "rare") is None
    assert [chosen(checks, str(n), "popular") for n in range(3, 9)].count("value") >= 1
    assert chosen(checks, "9", "as rare") is None


def test_doubtful_answers_are_checked_before_sure_ones() -> None:
    sure = [chosen(rich(saved=4.0), "1", "q", 1.0 - doubt / 1_000) for doubt in range(100)]
    assert sure[0] is None
    assert sure[-1] == "value"
    assert sure == sorted(sure, key=lambda reason: reason is not None)


def test_once_checked_a_question_has_to_come_again_as_often() -> None:
    checks = rich()
    reasons = [chosen(checks, str(n), "popular") for n in range(12)]
    assert reasons.count("value") >= 2
    first, second = (
        (n for n, reason in enumerate(reasons) if reason is not None) if reasons.count("value") == 2 else (0, 2)
    )
    assert second - first > 1


def test_what_chance_has_chosen_says_so_and_depends_on_the_id_alone() -> None:
    def drawn(seed: str) -> list[int]:
        checks = Checks(Ration(share=1.0, chance=0.1, dear=1e9, cheap=1e9), seed=seed, now=lambda: 0.0)
        found = []
        for number in range(2_000):
            checks.asked(SHOP)
            if chosen(checks, f"r{number}", f"q{number}") == "chance":
                found.append(number)
        return found

    assert drawn("") == drawn("")
    assert drawn("") != drawn("other")
    assert 150 < len(drawn("")) < 250


def test_a_days_money_is_not_overspent_and_the_next_day_has_its_own() -> None:
    clock = Clock()
    checks = Checks(Ration(share=1.0, money=100, chance=1.0), now=clock)
    for _ in range(9):
        checks.asked(SHOP)
    assert chosen(checks, "1", "a") == "chance"
    checks.paid(60)
    assert chosen(checks, "2", "b") == "chance"
    checks.paid(60)
    assert chosen(checks, "3", "c") is None
    clock.now += DAY
    assert chosen(checks, "4", "d") == "chance"


def test_without_a_share_nothing_is_checked() -> None:
    checks = Checks(Ration(share=0.0, chance=1.0), now=lambda: 0.0)
    for number in range(500):
        checks.asked(SHOP)
        assert chosen(checks, str(number), "q") is None


def test_the_memory_of_questions_and_scopes_is_bounded() -> None:
    checks = Checks(Ration(share=0.001, chance=0.0, questions=10, scopes=2), now=lambda: 0.0)
    for number in range(100):
        scope = Scope(Namespace(str(number)), b"")
        checks.asked(scope)
        checks.chosen(str(number), scope, bytes([number]), "e", confidence=0.9, bar=0.9)
    assert len(checks._times) == 10
    assert len(checks._left) == 2


def served(tenant: str, id: str) -> Served:
    return Served(id=id, tenant=tenant, entry=f"entry of {id}", tier="exact")


def test_a_tenant_finds_its_own_answers_and_no_others() -> None:
    recent = Recent()
    recent.keep(served("acme", "1"))
    found = recent.find("acme", "1")
    assert found is not None
    assert found.entry == "entry of 1"
    assert recent.find("umbra", "1") is None
    assert recent.find("acme", "2") is None


def test_the_oldest_answers_make_room_and_no_tenant_takes_anothers() -> None:
    recent = Recent(of_a_tenant=3, in_all=5)
    for number in range(10):
        recent.keep(served("loud", str(number)))
    recent.keep(served("quiet", "q"))
    assert recent.find("loud", "6") is None
    assert recent.find("loud", "7") is not None
    for number in range(10, 20):
        recent.keep(served("loud", str(number)))
    assert recent.find("quiet", "q") is not None
    for number in range(3):
        recent.keep(served("third", str(number)))
    assert len(recent) == 5
    recent.recall([served("acme", "x"), served("acme", "x")])
    assert len(recent) == 5
    assert recent.find("acme", "x") is not None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=100))
def test_the_count_is_that_of_what_can_be_found(kept: list[tuple[str, int]]) -> None:
    recent = Recent(of_a_tenant=4, in_all=7)
    for tenant, id in kept:
        recent.keep(served(tenant, str(id)))
        assert recent.find(tenant, str(id)) is not None
    found = sum(recent.find(tenant, str(id)) is not None for tenant in "abc" for id in range(10))
    assert found == len(recent) <= 7


def test_chance_is_fair_whatever_the_value() -> None:
    """The share of wrong answers among those that chance has chosen is that of all that were served."""
    chance = random.Random(4)
    checks = Checks(Ration(share=0.5, chance=0.1), now=lambda: 0.0)
    right: list[bool] = []
    for number in range(20_000):
        checks.asked(SHOP)
        confidence = 0.9 + chance.random() / 10
        outcome = chance.random() < 0.8
        if chosen(checks, f"x{number}", f"q{chance.randrange(300)}", confidence) == "chance":
            right.append(outcome)
    assert abs(sum(right) / len(right) - 0.8) < 0.05
