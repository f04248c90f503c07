"""Report: what the demo's clients saw, held against the trace's labels and the providers' own counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from headgate.demo.replay import Outcome
from headgate.demo.trace import BUDGET_TENANT
from headgate.model.money import to_usd

SOURCES = ("live", "coalesced", "coalesced-semantic", "exact", "semantic")
BUDGET_CODES = frozenset({"budget_exceeded", "budget_held"})


class Spend(msgspec.Struct, frozen=True, kw_only=True):
    """Nano-USD. `with_headgate` is the providers' own count at list prices; `journal` what was billed to tenants, and `lost` the
    part of it that is holds of calls whose end nobody saw."""

    without: int
    without_cache: int
    with_headgate: int
    journal: int
    lost: int


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds, as clients measured them to the last byte."""

    requests: int
    p50: float
    p95: float
    p99: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The demo's result. `wrong` are answers from cache that belong to another label, by kind of request."""

    requests: int
    answered: int
    by_source: dict[str, int]
    from_stock: int
    wrong: dict[str, int]
    lookalikes: int
    provider_calls: int
    spend: Spend
    latency: dict[str, Latency]
    budget_refusals: int
    budget_tenant_cost: int
    shortened: int
    errors: dict[str, int]
    seconds: float
    gateway_died: bool = False


def make_report(
    outcomes: Sequence[Outcome],
    straight: Iterable[Outcome],
    *,
    spend: Spend,
    provider_calls: int,
    seconds: float,
    died: bool,
) -> Report:
    """Judge every answer: it is right when it is, word for word, what the provider says to a question of the same tenant and
    label, or the beginning of that where a budget has cut it short."""
    right = _right_answers(straight)
    answered = [one for one in outcomes if one.status == 200 and not one.broken]
    wrong = Counter[str](one.request.kind for one in answered if not _is_right(one, right))
    refused = [one for one in outcomes if one.error in BUDGET_CODES]
    errors = Counter(one.error or f"status {one.status}" for one in outcomes if _failed(one))
    by_source = Counter(one.source for one in answered)
    return Report(
        requests=len(outcomes),
        answered=len(answered),
        by_source={source: by_source[source] for source in SOURCES},
        from_stock=len(answered) - by_source["live"],
        wrong=dict(wrong),
        lookalikes=sum(one.request.kind.startswith("lookalike") for one in outcomes),
        provider_calls=provider_calls,
        spend=spend,
        latency={source: _latency(one.seconds for one in answered if one.source == source) for source in SOURCES},
        budget_refusals=len(refused),
        budget_tenant_cost=sum(one.cost for one in outcomes if one.request.tenant == BUDGET_TENANT),
        shortened=sum(one.shortened for one in answered),
        errors=dict(errors),
        seconds=seconds,
        gateway_died=died,
    )


def _right_answers(straight: Iterable[Outcome]) -> defaultdict[tuple[str, str], set[str]]:
    right: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for one in straight:
        right[one.request.tenant, one.request.answer].add(one.content)
    return right


def _is_right(one: Outcome, right: Mapping[tuple[str, str], set[str]]) -> bool:
    said = right[one.request.tenant, one.request.answer]
    return one.content in said or (one.shortened and any(_begins(whole, one.content) for whole in said))


def _begins(whole: str, part: str) -> bool:
    """Whether the part is a beginning of the whole. The simulated provider keeps the last line, its mark, of what it cuts."""
    body, line, mark = part.rpartition("\n")
    return whole.startswith(body) and whole.endswith(mark) if line else whole.startswith(part)


def _failed(one: Outcome) -> bool:
    return one.error not in BUDGET_CODES and (one.status != 200 or one.broken)


def _latency(seconds: Iterable[float]) -> Latency:
    taken = sorted(second * 1_000 for second in seconds)
    if not taken:
        return Latency(0, 0.0, 0.0, 0.0)
    at = [taken[min(len(taken) - 1, int(len(taken) * share))] for share in (0.50, 0.95, 0.99)]
    return Latency(len(taken), *(round(value, 1) for value in at))


def lines(report: Report, *, cap: str) -> list[str]:
    """The report as text."""
    spend = report.spend
    told = [
        "",
        (
            f"{report.requests} requests of four tenants in {report.seconds:.0f} s, {report.answered} answered, "
            f"{report.provider_calls} provider calls"
        ),
        "",
        "Spend                                             USD",
        _money("everything asked of gpt-4o, without Headgate", spend.without),
        _money("routed, but without cache and coalescing", spend.without_cache),
        _money("with Headgate, by the providers' own count", spend.with_headgate),
        (
            f"  saved                                        {_share(spend.without - spend.with_headgate, spend.without)} of the"
            f" first, {_share(spend.without_cache - spend.with_headgate, spend.without_cache)} of the second"
        ),
        _money("billed to tenants, by the journal", spend.journal) + _difference(spend),
        "",
        "Source              requests   share      p50      p95      p99  ms",
    ]
    for source, taken in report.latency.items():
        told.append(
            f"  {source:<18}{report.by_source[source]:>8}{_share(report.by_source[source], report.answered):>8}"
            f"{taken.p50:>9.1f}{taken.p95:>9.1f}{taken.p99:>9.1f}"
        )
    wrong = sum(report.wrong.values())
    of_lookalikes = sum(count for kind, count in report.wrong.items() if kind.startswith("lookalike"))
    told += [
        "",
        f"Wrong answers, against the trace's labels: {wrong} of {report.from_stock} not asked of a provider anew"
        + (f"  {report.wrong}" if wrong else ""),
        f"  on look-alikes (other number, product, negated, direction): {of_lookalikes} of {report.lookalikes}",
        (
            f"Budget: {BUDGET_TENANT} spent {to_usd(report.budget_tenant_cost)} of its {cap} USD; "
            f"{report.budget_refusals} requests refused with 402, {report.shortened} answers cut short and marked so"
        ),
        f"Errors seen by clients: {sum(report.errors.values())}"
        + (f"  {report.errors}" if report.errors else "")
        + "  (the cheap provider was down for 2 s in the middle)",
    ]
    if report.gateway_died:
        told.append(
            "The gateway died during the replay; its ledger was opened again and the lost calls settled at their holds."
        )
    return told


def _money(name: str, nano: int) -> str:
    return f"  {name:<44} {nano / 1e9:>8.4f}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _difference(spend: Spend) -> str:
    difference = spend.journal - spend.with_headgate
    lost = f", of which {to_usd(spend.lost)} are holds of lost calls" if spend.lost else ""
    return f"  (difference {to_usd(difference)}{lost})"
