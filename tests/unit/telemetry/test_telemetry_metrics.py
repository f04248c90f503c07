"""What Prometheus sees of a call."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headgate.model.money import Usage
from headgate.model.record import Attempt, CallRecord
from headgate.telemetry.metrics import MOST_TENANTS, PrometheusSink

USED = Usage(prompt_tokens=100, completion_tokens=50, cached_tokens=10)
LIVE = CallRecord(
    id="r1", at=1.0, tenant="acme", user="jane@example.com", route="auto", status=200, source="live", cache="miss",
    model="vendor-small-2026", deployment="small", route_reason="plain+length", route_confidence=0.8,
    attempts=(
        Attempt(deployment="large", outcome="upstream_unavailable", seconds=0.1),
        Attempt(deployment="large", outcome="upstream_throttled", seconds=0.1),
        Attempt(deployment="small", outcome="ok", seconds=0.4, first_token=0.2, cost=2_500, usage=USED),
    ),
    usage=USED, cost=2_500, duration=0.6, first_token=0.3, overhead=0.0015, lookup=0.0004,
)  # fmt: skip
HIT = CallRecord(
    id="r2", at=2.0, tenant="acme", route="auto", status=200, source="semantic", cache="hit", confidence=0.99,
    model="vendor-small-2026", usage=USED, saved=2_500, duration=0.002, overhead=0.002, lookup=0.001,
)  # fmt: skip


def sink() -> PrometheusSink:
    return PrometheusSink(routes=["auto"], deployments=["small", "large"])


def samples(metrics: PrometheusSink) -> dict[tuple, float]:
    """Every sample by name and labels, as a Prometheus server reads it."""
    return {
        (sample.name.removeprefix("headgate_"), *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics: PrometheusSink, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, *sorted(labels.items())))


def test_a_live_call_is_counted_once_in_each_metric() -> None:
    metrics = sink()
    metrics.record(LIVE)
    assert value(metrics, "requests_total", tenant="acme", route="auto", source="live", status="200") == 1
    assert value(metrics, "request_duration_seconds_sum", source="live") == 0.6
    assert value(metrics, "request_duration_seconds_bucket", source="live", le="0.5") == 0
    assert value(metrics, "request_duration_seconds_bucket", source="live", le="1.0") == 1
    assert value(metrics, "overhead_seconds_sum") == 0.0015
    assert value(metrics, "time_to_first_token_seconds_sum", deployment="small") == 0.2
    assert value(metrics, "cache_lookups_total", tier="none", outcome="miss") == 1
    assert value(metrics, "cache_lookup_seconds_count", tier="none") == 1
    assert value(metrics, "routing_decisions_total", route="auto", model="small", reason="plain+length") == 1
    assert value(metrics, "router_confidence_sum") == 0.8
    assert value(metrics, "tokens_total", model="small", kind="prompt") == 100
    assert value(metrics, "tokens_total", model="small", kind="completion") == 50
    assert value(metrics, "tokens_total", model="small", kind="cached") == 10
    assert value(metrics, "cost_usd_total", tenant="acme", model="small") == pytest.approx(2.5e-6)
    assert value(metrics, "flights_total") == 1


def test_attempts_are_counted_one_by_one_and_a_retry_is_no_fallback() -> None:
    metrics = sink()
    metrics.record(LIVE)
    assert value(metrics, "attempts_total", deployment="large", outcome="upstream_unavailable") == 1
    assert value(metrics, "attempts_total", deployment="small", outcome="ok") == 1
    fallbacks = [key for key in samples(metrics) if key[0] == "fallbacks_total"]
    assert fallbacks == [("fallbacks_total", ("from", "large"), ("reason", "upstream_throttled"), ("to", "small"))]


def test_each_attempt_is_counted_under_the_model_that_was_paid_for_it() -> None:
    metrics = sink()
    silent = Attempt(
        deployment="large", outcome="upstream_timeout", seconds=9.0, cost=1_000, usage=Usage(prompt_tokens=100)
    )
    metrics.record(msgspec.structs.replace(LIVE, attempts=(silent, LIVE.attempts[-1]), cost=3_500))
    assert value(metrics, "cost_usd_total", tenant="acme", model="large") == pytest.approx(1e-6)
    assert value(metrics, "cost_usd_total", tenant="acme", model="small") == pytest.approx(2.5e-6)
    assert value(metrics, "tokens_total", model="large", kind="prompt") == 100
    assert value(metrics, "tokens_total", model="small", kind="prompt") == 100


def test_an_attempt_whose_tokens_were_counted_here_is_told() -> None:
    metrics = sink()
    guessed = Usage(prompt_tokens=100, completion_tokens=50, estimated=True)
    metrics.record(
        msgspec.structs.replace(LIVE, attempts=(Attempt(deployment="small", outcome="ok", seconds=0.4, usage=guessed),))
    )
    metrics.record(LIVE)
    assert value(metrics, "usage_estimated_total", deployment="small") == 1


def test_what_a_live_call_saved_was_saved_by_routing() -> None:
    metrics = sink()
    metrics.record(msgspec.structs.replace(LIVE, saved=22_500))
    assert value(metrics, "saved_usd_total", tenant="acme", reason="routed") == pytest.approx(2.25e-5)


def test_a_hit_names_its_tier_and_what_it_saved_and_costs_nothing() -> None:
    metrics = sink()
    metrics.record(HIT)
    assert value(metrics, "cache_lookups_total", tier="semantic", outcome="hit") == 1
    assert value(metrics, "saved_usd_total", tenant="acme", reason="semantic") == pytest.approx(2.5e-6)
    assert not [key for key in samples(metrics) if key[0] in ("tokens_total", "cost_usd_total", "attempts_total")]


def test_a_follower_does_not_count_the_leaders_attempts_again() -> None:
    metrics = sink()
    metrics.record(LIVE)
    metrics.record(msgspec.structs.replace(LIVE, source="coalesced", cost=0, saved=2_500))
    assert value(metrics, "attempts_total", deployment="small", outcome="ok") == 1
    assert value(metrics, "tokens_total", model="small", kind="prompt") == 100
    assert value(metrics, "requests_total", tenant="acme", route="auto", source="coalesced", status="200") == 1
    assert value(metrics, "saved_usd_total", tenant="acme", reason="coalesced") == pytest.approx(2.5e-6)


@pytest.mark.parametrize("source", ["exact", "semantic", "coalesced", "coalesced-semantic"])
def test_tokens_that_nobody_was_asked_for_are_counted_by_where_they_came_from(source: str) -> None:
    metrics = sink()
    metrics.record(LIVE)
    metrics.record(msgspec.structs.replace(HIT, source=source))
    assert value(metrics, "saved_tokens_total", reason=source) == 150
    assert value(metrics, "saved_usd_total", tenant="acme", reason=source) == pytest.approx(2.5e-6)
    assert value(metrics, "saved_tokens_total", reason="live") is None


def test_flights_are_counted_with_those_who_joined_and_how_they_ended() -> None:
    metrics = sink()
    metrics.flight(exact=0, semantic=0, abandoned=False, failed=False, alone=False)
    metrics.flight(exact=2, semantic=1, abandoned=True, failed=False, alone=False)
    metrics.flight(exact=1, semantic=0, abandoned=False, failed=True, alone=True)
    assert value(metrics, "flight_joins_total", kind="exact") == 3
    assert value(metrics, "flight_joins_total", kind="semantic") == 1
    assert value(metrics, "followers_per_flight_count") == 3
    assert value(metrics, "followers_per_flight_sum") == 4
    assert value(metrics, "followers_per_flight_bucket", le="0.0") == 1
    assert value(metrics, "flights_abandoned_total") == 1
    assert value(metrics, "flight_leader_failures_total") == 1
    assert value(metrics, "flight_twin_fallbacks_total") == 1


def test_a_refused_call_is_no_cache_lookup() -> None:
    metrics = sink()
    metrics.record(CallRecord(id="r", at=0.0, tenant="acme", route="auto", status=429, error="rate_limit_exceeded"))
    assert value(metrics, "requests_total", tenant="acme", route="auto", source="none", status="429") == 1
    assert not [key for key in samples(metrics) if key[0] == "cache_lookups_total"]


def test_names_that_callers_invent_never_become_labels() -> None:
    metrics = sink()
    for number in range(50):
        metrics.record(msgspec.structs.replace(HIT, source="none", route=f"gpt-{number}", status=404))
    text = metrics.render().decode()
    assert "gpt-" not in text
    assert value(metrics, "requests_total", tenant="acme", route="other", source="none", status="404") == 50


def test_no_user_becomes_a_label() -> None:
    metrics = sink()
    metrics.record(LIVE)
    assert b"jane" not in metrics.render()


def test_the_number_of_tenants_in_labels_is_bounded() -> None:
    metrics = sink()
    for number in range(MOST_TENANTS + 50):
        metrics.record(msgspec.structs.replace(HIT, tenant=f"t{number}"))
    assert value(metrics, "requests_total", tenant="other", route="auto", source="semantic", status="200") == 50


def test_gauges_are_read_at_each_scrape() -> None:
    metrics, open_now = sink(), [3]
    metrics.gauge("headgate_reservations_open", lambda: open_now[0])
    metrics.gauge("headgate_breaker_state", lambda: {("small",): 2.0}, labels=("deployment",))
    metrics.gauge("headgate_budget_used_ratio", lambda: {("acme", "hour"): 0.25}, labels=("tenant", "window"))
    assert value(metrics, "reservations_open") == 3
    open_now[0] = 4
    assert value(metrics, "reservations_open") == 4
    assert value(metrics, "breaker_state", deployment="small") == 2
    assert value(metrics, "budget_used_ratio", tenant="acme", window="hour") == 0.25


def test_a_gauge_that_cannot_be_read_is_left_out_and_the_rest_stays() -> None:
    metrics = sink()
    metrics.gauge("headgate_cache_entries", lambda: 1 // 0)
    metrics.gauge("headgate_reservations_open", lambda: 1)
    assert value(metrics, "reservations_open") == 1
    assert value(metrics, "cache_entries") is None


def test_only_documented_gauges_exist() -> None:
    with pytest.raises(ValueError, match="headgate_mood"):
        sink().gauge("headgate_mood", lambda: 1)


def test_a_record_that_cannot_be_counted_raises_nothing() -> None:
    metrics = sink()
    metrics.record(msgspec.structs.replace(LIVE, duration="long"))
    metrics.record(LIVE)
    assert value(metrics, "flights_total") == 1


def test_two_sinks_do_not_share_anything() -> None:
    first, second = sink(), sink()
    first.record(LIVE)
    assert value(second, "flights_total") == 0
    first.close()


def test_totals_that_others_keep_are_read_as_counters() -> None:
    metrics = sink()
    metrics.total("headgate_cache_failures_total", lambda: {("embedder",): 3.0}, labels=("part",))
    metrics.total("headgate_cache_invalidated_total", lambda: 7)
    assert value(metrics, "cache_failures_total", part="embedder") == 3
    assert value(metrics, "cache_invalidated_total") == 7
    assert "# TYPE headgate_cache_invalidated_total counter" in metrics.render().decode()
    with pytest.raises(ValueError, match="headgate_mood_total"):
        metrics.total("headgate_mood_total", lambda: 1)


def test_every_verdict_is_seen_once_served_or_not() -> None:
    metrics = sink()
    metrics.record(HIT)
    metrics.record(msgspec.structs.replace(LIVE, judged=0.4))
    metrics.record(msgspec.structs.replace(HIT, source="exact", confidence=1.0))
    metrics.record(msgspec.structs.replace(LIVE, source="coalesced"))
    assert value(metrics, "verdict_confidence_count") == 2
    assert value(metrics, "verdict_confidence_bucket", le="0.4") == 1
    assert value(metrics, "verdict_confidence_sum") == pytest.approx(1.39)
