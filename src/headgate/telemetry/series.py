"""The metrics that call records fill: names, labels, buckets. The names are part of what Headgate promises its users."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
OVERHEAD = (0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
LOOKUP = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)

GAUGES = {
    "headgate_breaker_state": "Breaker of a deployment: 0 closed, 1 half open, 2 open.",
    "headgate_budget_used_ratio": "Spent and held share of a tenant's cap.",
    "headgate_cache_bytes": "Bytes that cached answers take.",
    "headgate_cache_entries": "Cached answers.",
    "headgate_event_loop_lag_seconds": "How late the event loop runs what is due.",
    "headgate_flight_followers": "Callers that read another caller's flight now.",
    "headgate_ledger_lag_seconds": "Age of the oldest ledger write that is not yet durable.",
    "headgate_reservations_open": "Reservations neither settled nor released.",
}
"""Gauges that assembly fills by giving a function to read."""


class Series:
    """The counters and histograms of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"headgate_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"headgate_{name}", text, labels, buckets=buckets, registry=registry)

        self.requests = counter("requests_total", "Calls.", "tenant", "route", "source", "status")
        self.duration = histogram("request_duration_seconds", "Whole calls.", SECONDS, "source")
        self.overhead = histogram("overhead_seconds", "Time that the gateway itself added.", OVERHEAD)
        self.first_token = histogram(
            "time_to_first_token_seconds", "From an attempt's start to its first part.", SECONDS, "deployment"
        )
        self.lookups = counter("cache_lookups_total", "Calls by what the cache said.", "tier", "outcome")
        self.lookup = histogram("cache_lookup_seconds", "Cache lookups.", LOOKUP, "tier")
        self.decisions = counter("routing_decisions_total", "Routing decisions.", "route", "model", "reason")
        self.confidence = histogram("router_confidence", "The router's confidence; 0 is an abstention.", SHARES)
        self.attempts = counter("attempts_total", "Attempts at deployments.", "deployment", "outcome")
        self.fallbacks = counter("fallbacks_total", "Moves to another deployment.", "from", "to", "reason")
        self.tokens = counter("tokens_total", "Tokens of live calls.", "model", "kind")
        self.cost = counter("cost_usd_total", "What live calls cost.", "tenant", "model")
        self.saved = counter("saved_usd_total", "What calls would have cost.", "tenant", "reason")
        self.flights = counter("flights_total", "Flights that were sent to a provider.")
