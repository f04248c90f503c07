"""Metrics: call records counted for Prometheus.

The invariants: `record` neither waits nor raises; a label never holds a user, a prompt, or a name that callers can invent.
How many label values there can be is bounded by the labels themselves.

Attempts, tokens and cost are counted on the record of the call that led the flight; its followers' records only say what
they saved, so nothing is counted twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from headgate.model.money import NANO_PER_USD
from headgate.model.record import Attempt, CallRecord
from headgate.telemetry.labels import NONE, Labels
from headgate.telemetry.series import GAUGES, TOTALS, Series

BATCH = 64
MOST_TENANTS = 1_000
MOST_MODELS = 200
MOST_REASONS = 200
MOST_GAUGE_ROWS = 5_000

Reading = float | Mapping[tuple[str, ...], float]
_LEADERS = frozenset({"live", "none"})


class PrometheusSink:
    """Counts records in a registry of its own."""

    def __init__(self, *, routes: Iterable[str], deployments: Iterable[str]) -> None:
        """`routes` and `deployments` are all names that exist: any other is counted as `other`."""
        self.registry = CollectorRegistry()
        deployments = tuple(deployments)
        self._series = Series()
        self.registry.register(self._series)
        self._readings = _Readings()
        self.registry.register(self._readings)
        self._route = Labels((*routes, *deployments))
        self._deployment = Labels(deployments)
        self._tenant = Labels(most=MOST_TENANTS)
        self._model = Labels(deployments, most=MOST_MODELS)
        self._outcome = Labels(most=MOST_REASONS)
        self._reason = Labels(most=MOST_REASONS)
        self._waiting: list[CallRecord] = []

    def gauge(self, name: str, read: Callable[[], Reading], labels: tuple[str, ...] = ()) -> None:
        """Show what `read` returns at each scrape: a number, or with `labels` a number for each tuple of label values.

        Raises ValueError for a name that is not one of the documented gauges. A reading that fails is left out of the scrape.
        """
        if name not in GAUGES:
            raise ValueError(f"{name!r} is not one of {', '.join(GAUGES)}")
        self._readings.add(name, read, labels)

    def total(self, name: str, read: Callable[[], Reading], labels: tuple[str, ...] = ()) -> None:
        """The same for a count that somebody else keeps and that never falls."""
        if name not in TOTALS:
            raise ValueError(f"{name!r} is not one of {', '.join(TOTALS)}")
        self._readings.add(name, read, labels)

    def budget_alert(self, tenant: str | None, window: str, percent: int) -> None:
        """Count a threshold of a budget; `window` is its kind. An organisation's has no tenant."""
        self._series.budget_alerts.add((self._tenant(tenant), window, str(percent)))

    def upstream_alarm(self, deployment: str, reason: str) -> None:
        """Count a provider's refusal to work for us that somebody has to look at."""
        self._series.upstream_alarms.add((self._deployment(deployment), reason))

    def spend_rate_alert(self, tenant: str) -> None:
        """Count a task that became dearer."""
        self._series.spend_rate_alerts.add((self._tenant(tenant),))

    def shadow_check(self, outcome: str) -> None:
        """Count a check of a served answer: `right`, `wrong`, `unknown`, `failed` or `dropped`."""
        self._series.checks.add((outcome,))

    def job_wait(self, seconds: float) -> None:
        """Count a job that has ended, by how long it had waited until it was begun."""
        self._series.job_wait.observe(seconds)

    def job_notice(self, outcome: str) -> None:
        """Count a try to tell that a job has ended: `delivered`, `failed`, or `given_up` after the last of them."""
        self._series.job_notices.add((outcome,))

    def embeddings_call(self, deployment: str, items: int, callers: int) -> None:
        """Count a call for embeddings that went to a provider: its inputs, and for how many callers they were."""
        name = self._deployment(deployment)
        self._series.embedding_inputs.observe(items, name)
        self._series.embedding_callers.observe(callers, name)

    def flight(self, *, exact: int, semantic: int, abandoned: bool, failed: bool, alone: bool) -> None:
        """Count a flight that is over: how many joined it with the same request and with one that means the same; whether everybody left
        before its end; whether it failed those who had joined before its first part; whether it answered `alone` after it had followed
        another in vain."""
        series = self._series
        for kind, joins in (("exact", exact), ("semantic", semantic)):
            if joins:
                series.joins.add((kind,), joins)
        series.joined.observe(exact + semantic)
        for happened, counter in (
            (abandoned, series.abandoned),
            (failed, series.leader_failures),
            (alone, series.twin_fallbacks),
        ):
            if happened:
                counter.add()

    def classifier(self, outcome: str) -> None:
        """Count a question to the router's classifier by what became of it."""
        self._series.classifier.add((outcome,))

    def record(self, record: CallRecord) -> None:
        """Count one finished call, together with others: many in a row cost half of as many one by one."""
        self._waiting.append(record)
        if len(self._waiting) >= BATCH:
            self._count_all()

    def render(self) -> bytes:
        """The text that `/metrics` serves."""
        self._count_all()
        return generate_latest(self.registry)

    def _count_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for record in waiting:
            # A sink that raises would fail a call that went well; what it could not count is merely missing.
            with contextlib.suppress(Exception):
                self._call(record)
                self._cache(record)
                if record.source in _LEADERS:
                    self._led(record)

    def close(self) -> None:
        """Count what waits."""
        self._count_all()

    def _call(self, record: CallRecord) -> None:
        series, tenant, source = self._series, self._tenant(record.tenant), record.source
        series.requests.add((tenant, self._route(record.route), source, str(record.status)))
        series.duration.observe(record.duration, source)
        series.overhead.observe(record.overhead)
        if record.saved > 0:
            reason = "routed" if source == "live" else source
            series.saved.add((tenant, reason), record.saved / NANO_PER_USD)
        if source not in _LEADERS and record.usage.total_tokens:
            series.saved_tokens.add((source,), record.usage.total_tokens)

    def _cache(self, record: CallRecord) -> None:
        """A hit names its tier; what every tier missed is one lookup of tier `none`. Refused calls never asked."""
        if record.source == "none" and record.cache == "bypass":
            return
        tier = record.source if record.source in ("exact", "semantic") else NONE
        self._series.lookups.add((tier, record.cache))
        if record.lookup is not None:
            self._series.lookup.observe(record.lookup, tier)
        judged = record.confidence if record.source == "semantic" else record.judged
        if judged is not None:
            self._series.verdict.observe(judged)

    def _led(self, record: CallRecord) -> None:
        series = self._series
        model = self._model(record.deployment or record.model)
        if record.route_reason is not None:
            series.decisions.add((self._route(record.route), model, self._reason(record.route_reason)))
            series.confidence.observe(record.route_confidence or 0.0)
        if not record.attempts:
            return
        series.flights.add()
        self._attempts(record)

    def _attempts(self, record: CallRecord) -> None:
        before = None
        for attempt in record.attempts:
            name, outcome = self._deployment(attempt.deployment), self._outcome(attempt.outcome)
            self._series.attempts.add((name, outcome))
            self._used(record.tenant, attempt)
            if attempt.usage.estimated:
                self._series.estimated.add((name,))
            if not attempt.priced and attempt.usage.total_tokens:
                self._series.unpriced.add((name,), attempt.usage.total_tokens)
            if attempt.first_token is not None:
                self._series.first_token.observe(attempt.first_token, name)
            if before is not None and before[0] != name:
                self._series.fallbacks.add((before[0], name, before[1]))
            before = name, outcome

    def _used(self, tenant: str, attempt: Attempt) -> None:
        """Each attempt counts under the model that was paid for it."""
        model, used = self._model(attempt.deployment), attempt.usage
        for kind, tokens in (
            ("prompt", used.prompt_tokens),
            ("completion", used.completion_tokens),
            ("cached", used.cached_tokens),
            ("reasoning", used.reasoning_tokens),
        ):
            if tokens:
                self._series.tokens.add((model, kind), tokens)
        if attempt.cost > 0:
            self._series.cost.add((self._tenant(tenant), model), attempt.cost / NANO_PER_USD)


class _Readings:
    """A collector that reads its gauges and totals when it is scraped."""

    def __init__(self) -> None:
        self._reads: dict[str, tuple[Callable[[], Reading], tuple[str, ...]]] = {}

    def add(self, name: str, read: Callable[[], Reading], labels: tuple[str, ...]) -> None:
        """Show one more."""
        self._reads[name] = read, labels

    def collect(self) -> Iterator[Metric]:
        """Read all of them. At most MOST_GAUGE_ROWS label values each."""
        for name, (read, labels) in self._reads.items():
            family = (
                GaugeMetricFamily(name, GAUGES[name], labels=labels)
                if name in GAUGES
                else CounterMetricFamily(name, TOTALS[name], labels=labels)
            )
            with contextlib.suppress(Exception):
                reading = read()
                rows = list(reading.items())[:MOST_GAUGE_ROWS] if isinstance(reading, Mapping) else [((), reading)]
                for values, amount in rows:
                    family.add_metric(list(values), amount)
                yield family
