"""Outputs: how long an answer is expected to be at most."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from headgate.budget.outputs import ENOUGH, PRIOR, Outputs

UNLIMITED = 2**31


def seen(outputs: Outputs, *tokens: int, tenant: str = "acme", route: str = "chat", limit: int = UNLIMITED) -> None:
    for number in tokens:
        outputs.observe(tenant, route, number, limit=limit)


def test_before_any_answer_a_prior_is_expected() -> None:
    outputs = Outputs()
    seen(outputs, *[5] * (ENOUGH - 1))
    assert outputs.expected("acme", "chat") == PRIOR


@given(st.lists(st.integers(0, 200_000), min_size=ENOUGH, max_size=400))
def test_99_of_100_answers_are_no_longer_than_expected_and_it_is_not_much_longer_than_they(answers: list[int]) -> None:
    outputs = Outputs()
    seen(outputs, *answers)
    expected = outputs.expected("acme", "chat")
    needed = sorted(answers)[math.ceil(0.99 * len(answers)) - 1]
    assert needed <= expected <= max(1, needed * 1.2 + 1)
    assert expected <= max(answers)


def test_rare_long_answers_are_not_forgotten_when_old_ones_fade() -> None:
    outputs = Outputs()
    for round in range(100):
        seen(outputs, *[10] * 98, 5_000 + 7 * round, 9_000 + 11 * round)
    assert outputs.expected("acme", "chat") >= 5_000


def test_old_answers_fade() -> None:
    outputs = Outputs()
    seen(outputs, *[5_000] * 900)
    seen(outputs, *[10] * 9_000)
    assert outputs.expected("acme", "chat") == 10


def test_an_answer_that_was_cut_off_is_taken_for_longer() -> None:
    outputs = Outputs()
    seen(outputs, *[100] * ENOUGH, limit=100)
    assert outputs.expected("acme", "chat") > 100


def test_until_a_tenant_has_had_enough_all_tenants_of_the_route_speak_for_it() -> None:
    outputs = Outputs()
    seen(outputs, *[10] * ENOUGH, tenant="other")
    assert outputs.expected("acme", "chat") == 10
    seen(outputs, *[700] * ENOUGH)
    assert outputs.expected("acme", "chat") == 700
    assert outputs.expected("other", "chat") == 10
    assert outputs.expected("acme", "another route") == PRIOR


def test_no_more_pairs_are_remembered_than_was_asked() -> None:
    outputs = Outputs(most=3)
    for tenant in ("a", "b", "c"):
        seen(outputs, *[10] * ENOUGH, tenant=tenant)
    seen(outputs, *[900] * 900, tenant="d")
    assert outputs.expected("d", "chat") == 900
    assert outputs.expected("a", "chat") == 900
    assert outputs.expected("c", "chat") == 10


def test_answers_of_a_former_process_are_learnt_from() -> None:
    outputs = Outputs()
    outputs.recall(("acme", "chat", 40) for _ in range(ENOUGH))
    assert outputs.expected("acme", "chat") == 40
