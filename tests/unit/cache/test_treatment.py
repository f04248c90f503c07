"""How a call is treated by the cache: who has a say, and that callers can only raise the bar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.treatment import CachePolicy, RoutePolicy, Treatment, treatment
from headgate.model.tenancy import CacheTerms, Mode, Strategy, Wishes

PLAIN = CachePolicy(exact_ttl=100.0, semantic_ttl=50.0, error_rate=0.01, stale=30.0)
SILENT = CacheTerms()
MODES: list[Mode] = ["off", "shadow", "on"]
STRATEGIES: list[Strategy] = ["bypass", "standard", "aggressive"]


def treated(
    wishes: Wishes = Wishes(),  # noqa: B008 - frozen
    *,
    policy: CachePolicy = PLAIN,
    route: RoutePolicy | None = None,
    tenant: CacheTerms = SILENT,
    confidence: float = 1.0,
) -> Treatment:
    return treatment(policy, route, tenant, wishes, confidence)


def test_what_nobody_says_otherwise_is_as_configured() -> None:
    assert treated() == Treatment(exact_ttl=100.0, semantic_ttl=50.0, error_rate=0.01)
    assert treated(policy=CachePolicy(exact=False, semantic="shadow")).semantic == "shadow"
    assert not treated(policy=CachePolicy(exact=False)).exact


def test_a_route_has_times_of_its_own() -> None:
    found = treated(route=RoutePolicy(exact_ttl=7.0, semantic_ttl=3.0))
    assert (found.exact_ttl, found.semantic_ttl) == (7.0, 3.0)


@pytest.mark.parametrize("tenant", [None, *MODES])
@pytest.mark.parametrize("route", [None, *MODES])
@pytest.mark.parametrize("configured", MODES)
def test_route_and_tenant_replace_the_configured_mode_and_of_both_the_stricter_counts(
    configured: Mode, route: Mode | None, tenant: Mode | None
) -> None:
    found = treated(
        policy=CachePolicy(semantic=configured), route=RoutePolicy(semantic=route), tenant=CacheTerms(mode=tenant)
    )
    said = [mode for mode in (route, tenant) if mode is not None]
    expected = min(said, key=MODES.index) if said else configured
    assert found.semantic == ("off" if configured == "off" else expected)


@pytest.mark.parametrize(
    ("route", "tenant", "rate"),
    [(None, None, 0.01), (0.02, None, 0.02), (None, 0.002, 0.002), (0.02, 0.03, 0.02), (0.04, 0.002, 0.002)],
)
def test_the_error_rate_is_the_lower_of_route_and_tenant(
    route: float | None, tenant: float | None, rate: float
) -> None:
    found = treated(route=RoutePolicy(error_rate=route), tenant=CacheTerms(max_error_rate=tenant))
    assert found.error_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("strategy", "configured", "rate"),
    [("standard", 0.01, 0.01), ("aggressive", 0.01, 0.02), ("aggressive", 0.04, 0.05), ("aggressive", 0.2, 0.2)],
)
def test_an_aggressive_route_takes_twice_the_rate_up_to_a_twentieth_or_what_is_configured(
    strategy: Strategy, configured: float, rate: float
) -> None:
    found = treated(policy=CachePolicy(error_rate=configured), route=RoutePolicy(strategy=strategy))
    assert found.error_rate == pytest.approx(rate)


def test_a_route_that_bypasses_still_serves_what_is_exact() -> None:
    found = treated(route=RoutePolicy(strategy="bypass"))
    assert (found.exact, found.semantic) == (True, "off")


@pytest.mark.parametrize(
    ("confidence", "share"), [(1.0, 1.0), (0.8, 1.0), (0.6, 0.75), (0.4, 0.5), (0.1, 0.5), (0.0, 0.5)]
)
def test_an_unsure_router_lowers_the_rate_in_proportion_and_never_to_nothing(confidence: float, share: float) -> None:
    assert treated(confidence=confidence).error_rate == pytest.approx(0.01 * share)


class TestWishes:
    def test_a_bolder_strategy_than_the_routes_changes_nothing(self) -> None:
        for strategy in STRATEGIES:
            bolder = treated(Wishes(strategy="aggressive"), route=RoutePolicy(strategy=strategy))
            assert bolder == treated(route=RoutePolicy(strategy=strategy))

    def test_a_stricter_strategy_than_the_routes_counts(self) -> None:
        route = RoutePolicy(strategy="aggressive")
        assert treated(Wishes(strategy="standard"), route=route).error_rate == pytest.approx(0.01)
        assert treated(Wishes(strategy="bypass"), route=route).semantic == "off"

    def test_a_lower_error_rate_counts_and_a_higher_one_does_not(self) -> None:
        assert treated(Wishes(max_error_rate=0.001)).error_rate == pytest.approx(0.001)
        assert treated(Wishes(max_error_rate=0.5)).error_rate == pytest.approx(0.01)
        assert treated(Wishes(max_error_rate=0.0)).error_rate == 0.0

    def test_exact_answers_only_leave_the_semantic_tier_out(self) -> None:
        assert treated(Wishes(cache="exact")).semantic == "off"

    def test_a_ttl_is_the_exact_ones_and_can_only_shorten_the_semantic_one(self) -> None:
        short, long = treated(Wishes(ttl=10.0)), treated(Wishes(ttl=500.0))
        assert (short.exact_ttl, short.semantic_ttl) == (10.0, 10.0)
        assert (long.exact_ttl, long.semantic_ttl) == (500.0, 50.0)

    def test_stale_answers_are_as_old_as_the_store_keeps_them_at_most(self) -> None:
        assert treated().stale == 0.0
        assert treated(Wishes(stale=10.0)).stale == 10.0
        assert treated(Wishes(stale=1e9)).stale == 30.0


def shares() -> st.SearchStrategy[float]:
    return st.floats(0, 0.5)


@given(
    configured=st.builds(CachePolicy, semantic=st.sampled_from(MODES), error_rate=shares()),
    route=st.builds(
        RoutePolicy,
        semantic=st.none() | st.sampled_from(MODES),
        error_rate=st.none() | shares(),
        strategy=st.sampled_from(STRATEGIES),
    ),
    tenant=st.builds(CacheTerms, mode=st.none() | st.sampled_from(MODES), max_error_rate=st.none() | shares()),
    wishes=st.builds(
        Wishes,
        cache=st.sampled_from(["default", "no-cache", "exact", "only-if-cached"]),
        strategy=st.none() | st.sampled_from(STRATEGIES),
        max_error_rate=st.none() | st.floats(0, 1),
        min_confidence=st.floats(0, 1),
    ),
    confidence=st.floats(0, 1),
)
def test_no_wish_lowers_the_bar(
    configured: CachePolicy, route: RoutePolicy, tenant: CacheTerms, wishes: Wishes, confidence: float
) -> None:
    without = treatment(configured, route, tenant, Wishes(), confidence)
    with_it = treatment(configured, route, tenant, wishes, confidence)
    assert with_it.error_rate <= without.error_rate
    assert with_it.min_confidence >= without.min_confidence
    assert MODES.index(with_it.semantic) <= MODES.index(without.semantic)


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_surer_the_router_the_higher_the_rate(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert treated(confidence=low).error_rate <= treated(confidence=high).error_rate <= PLAIN.error_rate
