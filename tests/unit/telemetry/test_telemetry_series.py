"""Series show what the metrics of prometheus_client itself would show."""

from __future__ import annotations

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from headgate.telemetry.series import SHARES, Counter, Histogram

AMOUNTS = st.lists(st.tuples(st.sampled_from(["a", 'quote " and \\']), st.sampled_from(SHARES) | st.floats(0, 2)))


class Shown(Collector):
    """One family, collected."""

    def __init__(self, series: Counter | Histogram) -> None:
        self._series = series

    def collect(self):
        yield self._series.family()


def text(series: Counter | Histogram) -> list[str]:
    registry = CollectorRegistry()
    registry.register(Shown(series))
    return generate_latest(registry).decode().splitlines()


def theirs(registry: CollectorRegistry) -> list[str]:
    """The time of creation is a thing that only they show."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(AMOUNTS)
def test_a_counter_shows_what_theirs_would(amounts: list[tuple[str, float]]) -> None:
    registry = CollectorRegistry()
    ours, reference = (
        Counter("x_total", "Text.", "label"),
        prometheus_client.Counter("headgate_x_total", "Text.", ["label"], registry=registry),
    )
    for value, amount in amounts:
        ours.add((value,), amount)
        reference.labels(value).inc(amount)
    assert text(ours) == theirs(registry)


@given(AMOUNTS)
def test_a_histogram_shows_what_theirs_would(amounts: list[tuple[str, float]]) -> None:
    registry = CollectorRegistry()
    ours = Histogram("x", "Text.", SHARES, "label")
    reference = prometheus_client.Histogram("headgate_x", "Text.", ["label"], buckets=SHARES, registry=registry)
    for value, amount in amounts:
        ours.observe(amount, value)
        reference.labels(value).observe(amount)
    assert text(ours) == theirs(registry)


def test_without_labels_there_is_a_zero_from_the_start() -> None:
    registry = CollectorRegistry()
    prometheus_client.Counter("headgate_x_total", "Text.", registry=registry)
    prometheus_client.Histogram("headgate_y", "Text.", buckets=SHARES, registry=registry)
    assert text(Counter("x_total", "Text.")) + text(Histogram("y", "Text.", SHARES)) == theirs(registry)


def test_what_is_no_number_leaves_a_histogram_as_it_was() -> None:
    ours = Histogram("x", "Text.", SHARES)
    before = text(ours)
    with pytest.raises(TypeError):
        ours.observe("long")
    assert text(ours) == before
