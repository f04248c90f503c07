"""The metrics that call records fill: names, labels, buckets. The names are part of what Headgate promises its users.

Numbers are kept in plain dicts by their label values and become Prometheus' families when they are scraped: a scrape comes every
some seconds, a call every fraction of a millisecond, and a child of prometheus_client takes a lock for every count.

Invariant: only the event loop counts. A scrape may come from any thread; it reads copies.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
OVERHEAD = (0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
LOOKUP = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
WAITS = (0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 900, 3_600, 14_400)
TOGETHER = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048)
JOINED = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)

GAUGES = {
    "headgate_billing_events": "Events of a billing sink: `pending` are to be sent, `parked` need somebody.",
    "headgate_billing_oldest_seconds": "For how long the oldest pending event of a billing sink has waited.",
    "headgate_billing_stopped": "1 while a billing sink is sent nothing because the journal was replaced.",
    "headgate_breaker_state": "Breaker of a deployment: 0 closed, 1 half open, 2 open.",
    "headgate_budget_used_ratio": "Spent and held share of a tenant's cap.",
    "headgate_cache_bytes": "Bytes that cached answers take.",
    "headgate_cache_drift": "Scopes of the semantic cache by whether they keep their promise: ok, tightened, strict, off.",
    "headgate_cache_entries": "Cached answers.",
    "headgate_cache_hit_accuracy": "Of the answers served by meaning that pure chance had checked, the share that was right.",
    "headgate_event_loop_lag_seconds": "How late the event loop runs what is due.",
    "headgate_flight_followers": "Callers that read another caller's flight now.",
    "headgate_jobs": "Submitted requests that have not ended: `queued` or `in_flight`.",
    "headgate_ledger_lag_seconds": "Age of the oldest ledger write that is not yet durable.",
    "headgate_redis_memory_bytes": "Memory that Redis uses, by server.",
    "headgate_reservations_open": "Reservations neither settled nor released.",
    "headgate_store_up": "1 while a store that processes share works, 0 while this process goes on without it.",
    "headgate_upstream_errors_ratio": "Of a deployment's attempts of late, the share that failed.",
    "headgate_upstream_inflight": "Attempts that are at a deployment now.",
    "headgate_upstream_kv_cache_ratio": "How full a deployment's memory for prompts is, as its server says.",
    "headgate_upstream_limit": "Attempts that a deployment is given at a time.",
}
"""Gauges that assembly fills by giving a function to read."""

TOTALS = {
    "headgate_cache_evictions_total": "Cached answers that made room for others.",
    "headgate_cache_failures_total": "Times that a part of the cache did not work and a call went on without it.",
    "headgate_cache_invalidated_total": "Cached answers that were taken out by an invalidation, or by feedback.",
    "headgate_redis_round_trips_total": "Times that Redis was sent what had been asked for meanwhile.",
    "headgate_routing_outcomes_lost_total": "Outcomes of routing that could not be kept.",
}
"""The same for counters that others keep."""


class Counter:
    """One number for each tuple of label values; without labels there is one from the start."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name = f"headgate_{name}"
        self._text = text
        self._labels = labels
        self._numbers: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, values: tuple[str, ...] = (), amount: float = 1.0) -> None:
        """Count, under these label values."""
        numbers = self._numbers
        numbers[values] = numbers.get(values, 0.0) + amount

    def family(self) -> Metric:
        """What a scrape sees."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, number in list(self._numbers.items()):
            family.add_metric(values, number)
        return family


class Histogram:
    """How many observations fell into each bucket and what they sum to, for each value of its one label, if it has one."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> None:
        self._name = f"headgate_{name}"
        self._text = text
        self._bounds = bounds
        self._labels = labels
        # The last number is the sum; the one before it counts what exceeds all bounds.
        self._rows: dict[str, list[float]] = {} if labels else {"": self._empty()}

    def observe(self, amount: float, value: str = "") -> None:
        """Count one observation, under this label value."""
        row = self._rows.get(value)
        if row is None:
            row = self._rows[value] = self._empty()
        row[bisect_left(self._bounds, amount)] += 1
        row[-1] += amount

    def family(self) -> Metric:
        """What a scrape sees: each bucket counts the smaller ones too."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for value, row in list(self._rows.items()):
            *counts, total = row
            buckets = list(zip(names, accumulate(counts), strict=True))
            family.add_metric([value] if self._labels else [], buckets=buckets, sum_value=total)
        return family

    def _empty(self) -> list[float]:
        return [0.0] * (len(self._bounds) + 2)


class Series:
    """The counters and histograms of one registry, and the collector that shows them."""

    def __init__(self) -> None:
        self.requests = Counter("requests_total", "Calls.", "tenant", "route", "source", "status")
        self.duration = Histogram("request_duration_seconds", "Whole calls.", SECONDS, "source")
        self.overhead = Histogram("overhead_seconds", "Time that the gateway itself added.", OVERHEAD)
        self.first_token = Histogram(
            "time_to_first_token_seconds", "From an attempt's start to its first part.", SECONDS, "deployment"
        )
        self.lookups = Counter("cache_lookups_total", "Calls by what the cache said.", "tier", "outcome")
        self.lookup = Histogram("cache_lookup_seconds", "Cache lookups.", LOOKUP, "tier")
        self.verdict = Histogram(
            "verdict_confidence",
            "How probable it seemed that the nearest stored answer is right, served or not.",
            SHARES,
        )
        self.decisions = Counter("routing_decisions_total", "Routing decisions.", "route", "model", "reason")
        self.confidence = Histogram("router_confidence", "The router's confidence; 0 is an abstention.", SHARES)
        self.attempts = Counter("attempts_total", "Attempts at deployments.", "deployment", "outcome")
        self.fallbacks = Counter("fallbacks_total", "Moves to another deployment.", "from", "to", "reason")
        self.tokens = Counter("tokens_total", "Tokens of live calls.", "model", "kind")
        self.estimated = Counter(
            "usage_estimated_total",
            "Attempts whose tokens were counted here, for their provider told none.",
            "deployment",
        )
        self.unpriced = Counter(
            "unpriced_tokens_total", "Tokens of live calls that no price is known for.", "deployment"
        )
        self.cost = Counter("cost_usd_total", "What live calls cost.", "tenant", "model")
        self.saved = Counter("saved_usd_total", "What calls would have cost more.", "tenant", "reason")
        self.budget_alerts = Counter(
            "budget_alerts_total", "Thresholds of budgets that were passed.", "tenant", "window", "percent"
        )
        self.spend_rate_alerts = Counter(
            "spend_rate_alerts_total", "Tasks that became dearer than they were in the week before.", "tenant"
        )
        self.job_wait = Histogram("job_wait_seconds", "From a request's submission until it is at work.", WAITS)
        self.job_notices = Counter("job_notices_total", "Tries to tell that a submitted request has ended.", "outcome")
        self.checks = Counter("shadow_checks_total", "Answers served by meaning that were bought again.", "outcome")
        self.embedding_inputs = Histogram(
            "embedding_batch_inputs",
            "Inputs of each call for embeddings that went to a provider.",
            TOGETHER,
            "deployment",
        )
        self.embedding_callers = Histogram("embedding_batch_callers", "Callers who shared it.", TOGETHER, "deployment")
        self.saved_tokens = Counter(
            "saved_tokens_total", "Tokens of answers that no provider was asked for anew, by why.", "reason"
        )
        self._of_flights()

    def _of_flights(self) -> None:
        self.upstream_alarms = Counter(
            "upstream_alarms_total",
            "Minutes in which a provider refused our credentials, or wanted money.",
            "deployment",
            "reason",
        )
        self.checks = Counter("shadow_checks_total", "Answers served by meaning that were bought again.", "outcome")
        self.classifier = Counter(
            "router_classifier_total",
            "Questions that the router would have a model label: labelled, known from before, or why not.",
            "outcome",
        )
        self.flights = Counter("flights_total", "Flights that were sent to a provider.")
        self.joins = Counter(
            "flight_joins_total", "Callers that joined another's flight, by what they had in common with it.", "kind"
        )
        self.joined = Histogram("followers_per_flight", "Callers that joined each flight.", JOINED)
        self.abandoned = Counter("flights_abandoned_total", "Flights that everybody had left before their end.")
        self.leader_failures = Counter(
            "flight_leader_failures_total", "Flights that failed before their first part and others had joined."
        )
        self.twin_fallbacks = Counter(
            "flight_twin_fallbacks_total",
            "Flights that followed another, which answered the same in other words, and had to answer by themselves.",
        )

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        for series in vars(self).values():
            yield series.family()
