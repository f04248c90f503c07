"""Chance in routing: who it may send where."""

from __future__ import annotations

from collections import Counter

from headgate.model.tenancy import Policy
from headgate.routing.exploration import candidates, explored
from headgate.routing.route import Decision, Route

TIERS = {"low": ("small",), "medium": ("middle",), "high": ("large",)}
AUTO = Route("auto", TIERS, explore=0.05)
DECIDED = Decision("chat", "low", 0.7, "plain", decider="features")


def test_the_share_that_was_asked_for_goes_to_each_of_the_other_tiers_with_its_propensity() -> None:
    found = [explored(DECIDED, f"c{number}", AUTO, Policy()) for number in range(20_000)]
    counts = Counter(one.tier for one in found)
    assert 0.02 < counts["medium"] / len(found) < 0.03
    assert 0.02 < counts["high"] / len(found) < 0.03
    assert {(one.tier, one.propensity) for one in found} == {("low", 0.95), ("medium", 0.025), ("high", 0.025)}
    # Weighted by inverse propensity, each tier stands for all calls.
    assert abs(sum(1 / one.propensity for one in found if one.tier == "high") / len(found) - 1) < 0.15


def test_the_same_call_and_seed_are_decided_the_same_and_another_seed_draws_others() -> None:
    ids = [f"c{number}" for number in range(2_000)]
    once, again, other = (
        [explored(DECIDED, id, AUTO, Policy(), seed=seed).tier for id in ids] for seed in ("", "", "x")
    )
    assert once == again != other


def test_what_a_person_or_a_budget_has_said_is_never_overruled() -> None:
    route = Route("auto", TIERS, explore=1.0)
    for decision in (
        Decision("chat", "low", 1.0, "rule:gold", decider="rules"),
        Decision("chat", "low", 1.0, "budget_degraded", frugal=True),
    ):
        assert explored(decision, "c1", route, Policy()) is decision


def test_chance_chooses_nothing_above_the_ceiling_nor_what_the_tenant_may_not_use() -> None:
    route = Route("auto", TIERS, explore=1.0, ceiling="medium")
    assert {explored(DECIDED, f"c{number}", route, Policy()).tier for number in range(50)} == {"medium"}
    shut = Policy(allowed_models=("small", "large"))
    assert tuple(candidates(Route("auto", TIERS), shut)) == ("low", "high")
    assert tuple(candidates(Route("auto", TIERS), Policy(allowed_models=("auto",)))) == ("low", "medium", "high")


def test_a_tier_that_leads_to_the_same_models_is_not_another() -> None:
    same = Route("auto", {"low": ("small",), "medium": ("small",), "high": ("large",)}, explore=1.0)
    middle = Decision("chat", "medium", 0.7, "length", decider="features")
    assert {explored(middle, f"c{number}", same, Policy()).tier for number in range(50)} == {"high"}
    alone = Route("auto", dict.fromkeys(TIERS, ("small",)), explore=1.0)
    assert explored(middle, "c1", alone, Policy()) is middle
