"""What if: the same log through the cache under one setting after another.

The invariant: a run has a cache of its own that knows nothing of the others, and the same seed, so that runs differ by their settings
alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate, product

import msgspec

from headgate.evaluation.evaluation import Course, Outcome, Request, Share
from headgate.evaluation.logs import Log
from headgate.evaluation.report import StreamReport, number, ranged, share
from headgate.evaluation.svg import dollars
from headgate.model.money import to_usd

MOST_RUNS = 24
"""More combinations of settings say less than they cost."""

EARLIEST, LATEST = 1e8, 1e11
"""Unix seconds that are taken for dates: the years 1973 to 5138."""

Settings = dict[str, str]


class Savings(msgspec.Struct, frozen=True, kw_only=True):
    """What answers from stock save. Tokens are estimated where the log has none; USD as decimal strings, None where nobody knows
    what anything of the log cost."""

    tokens: int
    saved_usd: str | None
    without_usd: str | None
    share: float | None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The log under one combination of settings, by dotted path."""

    settings: Settings
    report: StreamReport
    savings: Savings


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """All runs over one log. `skipped`: lines that could not be used, by reason; `unpriced`: requests of unknown cost;
    `estimated`: whether an answer is right was judged from what it says; `exact_alone`: what exact match alone would have saved."""

    requests: int
    tenants: int
    first: float
    last: float
    skipped: dict[str, int]
    unpriced: int
    estimated: bool
    exact_alone: Savings
    runs: list[Run]


class BadSetting(Exception):
    """What was said to be varied cannot be. The message is one line."""


def combinations(said: Iterable[str]) -> list[Settings]:
    """Every combination of the values in `path=value,value`. Raises BadSetting."""
    varied: dict[str, list[str]] = {}
    for one in said:
        path, found, values = one.partition("=")
        path = path.strip()
        listed = [value.strip() for value in values.split(",")]
        if not found or not path or not all(listed):
            raise BadSetting(f"{one!r} is not PATH=VALUE[,VALUE...], such as cache.semantic.max_error_rate=0.005,0.01")
        if path in varied:
            raise BadSetting(f"{path} is set twice; list its values after one another: {path}=VALUE,VALUE")
        varied[path] = list(dict.fromkeys(listed))
    found_all = [dict(zip(varied, values, strict=True)) for values in product(*varied.values())]
    if len(found_all) > MOST_RUNS:
        raise BadSetting(f"{len(found_all)} combinations of settings; at most {MOST_RUNS}")
    return found_all


def what_if(log: Log, runs: Sequence[tuple[Settings, StreamReport, Course]]) -> WhatIf:
    """What the runs over a log come to."""
    requests = log.requests
    alone = runs[0][2].outcomes
    return WhatIf(
        requests=len(requests),
        tenants=len({one.tenant for one in requests}),
        first=requests[0].at,
        last=requests[-1].at,
        skipped={reason: count for reason, (count, _) in log.skipped.items()},
        unpriced=log.unpriced,
        estimated=any(course.estimated for _, _, course in runs),
        exact_alone=_savings(requests, alone, lambda one: one.repeat),
        runs=[
            Run(settings=settings, report=report, savings=_savings(requests, course.outcomes, is_saved))
            for settings, report, course in runs
        ],
    )


def is_saved(outcome: Outcome) -> bool:
    """Whether the model was not called for this request: neither to answer it, nor to check a hit."""
    return outcome.source != "model" and not outcome.checked


def saved_so_far(outcomes: Sequence[Outcome], saves: Callable[[Outcome], bool], *, money: bool) -> list[float]:
    """What was saved up to each request: USD, or tokens."""
    return list(accumulate(_worth(one.request, money=money) if saves(one) else 0.0 for one in outcomes))


def _worth(request: Request, *, money: bool) -> float:
    return (request.cost or 0) / 1e9 if money else float(request.tokens)


def _savings(requests: Sequence[Request], outcomes: Sequence[Outcome], saves: Callable[[Outcome], bool]) -> Savings:
    saved = [one.request for one in outcomes if saves(one)]
    tokens = sum(one.tokens for one in saved)
    if all(one.cost is None for one in requests):
        return Savings(tokens=tokens, saved_usd=None, without_usd=None, share=None)
    without, less = sum(one.cost or 0 for one in requests), sum(one.cost or 0 for one in saved)
    return Savings(
        tokens=tokens, saved_usd=to_usd(less), without_usd=to_usd(without), share=less / without if without else None
    )


def notes(found: WhatIf) -> Iterator[str]:
    """What a reader must know of the log before believing a figure."""
    if found.skipped:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in found.skipped.items())
        lines = sum(found.skipped.values())
        left = "1 line of the log was" if lines == 1 else f"{lines} lines of the log were"
        yield f"{left} left out: {reasons}."
    if found.unpriced:
        yield f"{found.unpriced} of {found.requests} requests have neither a cost nor a model whose price is known; they count as nothing."
    if found.estimated:
        yield "The log has texts of answers, not labels: wrong hits are estimated from what the answers say."


def scope_of(found: WhatIf) -> str:
    """What was replayed."""
    tenants = "one tenant" if found.tenants == 1 else f"{found.tenants} tenants"
    return f"{found.requests:,} requests of {tenants}, {_moment(found.first)} to {_moment(found.last)}"


def named(run: Run) -> str:
    """The settings of a run, each by the last part of its path where that is clear enough."""
    last = Counter(path.rpartition(".")[2] for path in run.settings)
    shown = {path: short if last[short := path.rpartition(".")[2]] == 1 else path for path in run.settings}
    return ", ".join(f"{shown[path]} {value}" for path, value in run.settings.items()) or "as configured"


def saved(savings: Savings) -> str:
    """USD, or tokens where nobody knows what those cost."""
    return f"{savings.tokens:,} tokens" if savings.saved_usd is None else dollars(float(savings.saved_usd))


COLUMNS = {
    "setting": "setting",
    "hits": "hits",
    "exact": "exact",
    "semantic": "by meaning",
    "wrong": "wrong, of hits",
    "recall": "recall",
    "saved": "saved",
    "share": "of all spent",
    "checks": "checks",
}
"""What is told of a run in a row, and the headings."""


def row(run: Run) -> dict[str, str]:
    """A run as a row of a table."""
    report = run.report
    tiers = {name: share(Share(tier.hits, report.requests).value) for name, tier in report.by_tier.items()}
    return {
        "setting": named(run),
        "hits": share(report.hits),
        **tiers,
        "wrong": ranged(report.wrong_of_hits, report.wrong_of_hits_interval),
        "recall": number(report.semantic_recall),
        "saved": saved(run.savings),
        "share": share(run.savings.share),
        "checks": f"{report.shadow_calls:,}",
    }


def alone(found: WhatIf) -> dict[str, str]:
    """Exact match alone as a row of the same table."""
    exact = share(found.runs[0].report.exact)
    told = {"setting": "exact match alone", "hits": exact, "exact": exact, "checks": "0"}
    return {**told, "saved": saved(found.exact_alone), "share": share(found.exact_alone.share)}


def _moment(at: float) -> str:
    """A date where the log has dates; where it counts from a beginning of its own, so many seconds."""
    if not EARLIEST < at < LATEST:
        return f"{at:,.0f} s"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
