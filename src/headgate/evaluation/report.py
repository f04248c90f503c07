"""Report: what was measured, as figures for programs and as lines for people.

The invariant: the names of the figures are a promise to whoever reads the JSON. Shares lie between 0 and 1; every interval is one of
95 %, by Clopper and Pearson, which takes cases to be independent (a popular wording that is served again and again is not).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from headgate.evaluation.curves import Bin, Judged, calibration, calibration_error, percentile, roc_area
from headgate.evaluation.evaluation import Course, Outcome, Ruling, Share, Source

TIERS: tuple[Source, ...] = ("exact", "semantic")

Bounds = tuple[float, float]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs that were asked. `auc`: area under the ROC curve of the confidence, None where all are of one kind; `served_same` and
    `served_different`: share of the same, and of the different pairs that would be served."""

    pairs: int
    auc: float | None
    same: int
    served_same: float | None
    served_same_interval: Bounds | None
    served_different: float | None
    served_different_interval: Bounds | None


class PairsReport(Group, frozen=True, kw_only=True):
    """All pairs, and those of each kind. `calibration_error`: expected error of the confidence within ten bins, over the `judged`
    pairs, those of which a probability decided."""

    max_error_rate: float
    judged: int
    calibration_error: float | None
    by_kind: dict[str, Group]
    calibration: list[Bin]


class Tier(msgspec.Struct, frozen=True):
    """Answers that a tier served, how many of them were wrong, and of how many nobody can tell."""

    hits: int
    wrong: int
    undecided: int = 0


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as the cache saw it. `perfect`, `exact` and `hits` are shares of all requests: what a perfect cache, what exact
    match alone would have served, and what was served, right or wrong.

    wrong_of_hits      share of wrong ones among everything that was served, exact answers included
    semantic_recall    (right hits - exact) / (perfect - exact); `recallable` is how many requests that is a share of
    shadow_calls       calls of the model beside a hit, to see whether it was right
    lookups_per_s      one after the other, on one core: embedding, search and verdict
    bytes_per_entry    of memory, beside the entry's text and answer
    calibration_error  over all candidates of which a probability decided, served or not; `judged` is how many that were
    estimated          whether an answer is right was judged from what it says, not known from labels; then there is no perfect
                       cache to compare with, and `undecided` hits, of which nobody can tell, are left out of `wrong_of_hits`
    """

    requests: int
    max_error_rate: float
    learning: bool
    perfect: float | None
    exact: float | None
    hits: float | None
    by_tier: dict[str, Tier]
    wrong_of_hits: float | None
    wrong_of_hits_interval: Bounds | None
    semantic_recall: float | None
    semantic_recall_interval: Bounds | None
    recallable: int
    shadow_calls: int
    lookups_per_s: float | None
    lookup_p50_ms: float | None
    lookup_p95_ms: float | None
    entries: int
    bytes_per_entry: float | None
    judged: int
    calibration_error: float | None
    calibration: list[Bin]
    estimated: bool = False
    undecided: int = 0


def pairs_report(rulings: Sequence[Ruling], *, max_error_rate: float) -> PairsReport:
    """The figures of pairs."""
    kinds: defaultdict[str, list[Ruling]] = defaultdict(list)
    for ruling in rulings:
        kinds[ruling.kind].append(ruling)
    named = {kind: found for kind, found in sorted(kinds.items()) if kind}
    bins = calibration(_judged(one for one in rulings if one.judged))
    return PairsReport(
        **_figures(rulings),
        max_error_rate=max_error_rate,
        judged=sum(one.judged for one in rulings),
        calibration_error=calibration_error(bins),
        by_kind={kind: Group(**_figures(found)) for kind, found in named.items()},
        calibration=bins,
    )


def _judged(rulings: Iterable[Ruling]) -> list[Judged]:
    return [(one.confidence, one.same) for one in rulings]


def _figures(rulings: Sequence[Ruling]) -> dict[str, Any]:
    same = _served(one for one in rulings if one.same)
    different = _served(one for one in rulings if not one.same)
    return {
        "pairs": len(rulings),
        "auc": roc_area(_judged(rulings)),
        "same": same.of,
        "served_same": same.value,
        "served_same_interval": same.interval,
        "served_different": different.value,
        "served_different_interval": different.interval,
    }


def _served(rulings: Iterable[Ruling]) -> Share:
    served = [one.served for one in rulings]
    return Share(sum(served), len(served))


def stream_report(course: Course, *, max_error_rate: float, learning: bool, timed: bool = True) -> StreamReport:
    """The figures of a stream. Lookups are not `timed` where others have made them quicker."""
    outcomes = course.outcomes
    tiers: dict[str, Tier] = {tier: _tier(outcomes, tier) for tier in TIERS}
    hits, wrong = sum(tier.hits for tier in tiers.values()), sum(tier.wrong for tier in tiers.values())
    undecided = sum(tier.undecided for tier in tiers.values())
    exact = sum(one.repeat for one in outcomes)
    perfect = None if course.estimated else sum(bool(one.known) for one in outcomes)
    wrongly = Share(wrong, hits - undecided)
    recallable = 0 if perfect is None else max(perfect - exact, 0)
    recall = Share(min(max(hits - wrong - exact, 0), recallable), recallable)
    times = sorted(one.seconds for one in outcomes) if timed else []
    bins = calibration(one.judged for one in outcomes if one.judged is not None)
    return StreamReport(
        requests=len(outcomes),
        max_error_rate=max_error_rate,
        learning=learning,
        perfect=None if perfect is None else Share(perfect, len(outcomes)).value,
        exact=Share(exact, len(outcomes)).value,
        hits=Share(hits, len(outcomes)).value,
        by_tier=tiers,
        wrong_of_hits=wrongly.value,
        wrong_of_hits_interval=wrongly.interval,
        semantic_recall=recall.value,
        semantic_recall_interval=recall.interval,
        recallable=recall.of,
        shadow_calls=sum(one.checked for one in outcomes),
        lookups_per_s=len(times) / sum(times) if times and sum(times) else None,
        lookup_p50_ms=_milliseconds(times, 0.50),
        lookup_p95_ms=_milliseconds(times, 0.95),
        entries=course.entries,
        bytes_per_entry=course.weight / course.entries if course.entries else None,
        judged=sum(one.count for one in bins),
        calibration_error=calibration_error(bins),
        calibration=bins,
        estimated=course.estimated,
        undecided=undecided,
    )


def _milliseconds(times: Sequence[float], at: float) -> float | None:
    return percentile(times, at) * 1_000 if times else None


def _tier(outcomes: Iterable[Outcome], tier: Source) -> Tier:
    right = [one.right for one in outcomes if one.source == tier]
    return Tier(len(right), right.count(False), right.count(None))


def pairs_lines(report: PairsReport) -> Iterator[str]:
    """The report on pairs as text."""
    yield f"{report.pairs} pairs, {report.same} of them the same, at a maximum error rate of {share(report.max_error_rate)}"
    yield ""
    yield f"{'':<44}{'pairs':>8}{'auc':>8}{'same served':>26}{'different served':>26}"
    groups = [("all", report), *report.by_kind.items()]
    for kind, one in groups:
        named = "".join(letter if letter.isprintable() else "?" for letter in kind)
        same = ranged(one.served_same, one.served_same_interval)
        different = ranged(one.served_different, one.served_different_interval)
        yield f"{_cut(named, 43):<44}{one.pairs:>8}{number(one.auc):>8}{same:>26}{different:>26}"
    yield ""
    yield f"calibration error: {number(report.calibration_error)} (in ten bins of the confidence, over {report.judged} pairs that it decided)"


def stream_lines(report: StreamReport) -> Iterator[str]:
    """The report on a stream as text."""
    learning = "learning" if report.learning else "not learning"
    yield f"{report.requests} requests at a maximum error rate of {share(report.max_error_rate)}, {learning}"
    yield ""
    yield f"  perfect cache      {share(report.perfect):>9}   would have had the right answer"
    yield f"  exact match alone  {share(report.exact):>9}   would have had an answer"
    yield f"  hits               {share(report.hits):>9}"
    for name, tier in report.by_tier.items():
        yield f"    {name:<16} {tier.hits:>9}   wrong: {tier.wrong}"
    told = f", estimated from what answers say; {report.undecided} hits undecided" if report.estimated else ""
    yield f"  wrong, of hits     {share(report.wrong_of_hits):>9}   {_bounds(report.wrong_of_hits_interval)}{told}"
    recall = f"{_bounds(report.semantic_recall_interval)} of {report.recallable} that only meaning finds"
    yield f"  semantic recall    {number(report.semantic_recall):>9}   {recall}"
    yield f"  calibration error  {number(report.calibration_error):>9}   over {report.judged} candidates that a probability decided"
    of_all = share(Share(report.shadow_calls, report.requests).value)
    yield f"  shadow calls       {report.shadow_calls:>9}   {of_all} of the requests"
    pace = f"one after the other; p50 {number(report.lookup_p50_ms)} ms, p95 {number(report.lookup_p95_ms)} ms"
    yield f"  lookups            {_plain(report.lookups_per_s):>9}/s {pace}"
    yield f"  bytes an entry     {_plain(report.bytes_per_entry):>9}   beside text and answer, of {report.entries} entries"


def share(value: float | None) -> str:
    """`0.51 %`, or a dash."""
    return "-" if value is None else f"{value:.2%}".replace("%", " %")


def number(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def ranged(value: float | None, bounds: Bounds | None) -> str:
    """`0.51 % (0.33-0.74)`."""
    if value is None or bounds is None:
        return "-"
    return f"{share(value)} ({bounds[0] * 100:.2f}-{bounds[1] * 100:.2f})"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _bounds(bounds: Bounds | None) -> str:
    return "" if bounds is None else f"({bounds[0]:.4f} to {bounds[1]:.4f})"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
