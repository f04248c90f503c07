"""Page: what a replay has shown, as one HTML file that needs nothing else.

The invariant: nothing that comes from the log or the command line reaches the page unescaped, and the page loads nothing: a policy in
its head forbids it even to a text that would slip through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

from headgate.evaluation.curves import thinned, trade_off
from headgate.evaluation.evaluation import Course, Outcome
from headgate.evaluation.replay import (
    COLUMNS,
    WhatIf,
    alone,
    is_saved,
    named,
    notes,
    row,
    saved,
    saved_so_far,
    scope_of,
)
from headgate.evaluation.report import number, share
from headgate.evaluation.svg import TONES, Axis, Series, Where, chart, counted, dollars, percent

MOST_POINTS = 240
"""Of a line: a picture shows no more."""

MOST_DOUBTFUL = 20
LONGEST_TEXT = 300
DAY, HOUR = 86_400.0, 3_600.0

_LABELLED = "Known from the labels of the log."
_ESTIMATED = (
    "Estimated: the stored answer is compared with the one that the log has for the request, by its words and by what they mean."
    " Where neither can tell, the hit counts as undecided and is left out of the share."
)


def page(found: WhatIf, courses: Sequence[Course], *, name: str) -> str:
    """The page of a replay of the log `name`; `courses` are those of its runs, in their order."""
    template = Template(files("headgate.evaluation").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        name=escape(name),
        scope=escape(scope_of(found)),
        notes="\n".join(f'<p class="note">{escape(note)}</p>' for note in notes(found)),
        table=_table(found),
        charts="\n".join(_charts(found, courses)),
        doubtful=_doubtful(found, courses),
        how=escape(_ESTIMATED if found.estimated else _LABELLED),
    )


def _table(found: WhatIf) -> str:
    first, *others = (escape(heading) for heading in COLUMNS.values())
    head = f'<th class="text" scope="col">{first}</th>' + "".join(f'<th scope="col">{one}</th>' for one in others)
    rows = [_row(place, row(run), run.report.undecided) for place, run in enumerate(found.runs)]
    return (
        "<table><caption>Each row is the whole log under one setting. Recall: of what a perfect cache finds beyond exact match."
        f"</caption><thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join([*rows, _row(None, alone(found), 0)])
        + "\n</tbody></table>"
    )


def _row(place: int | None, cells: Mapping[str, str], undecided: int) -> str:
    setting, *others = (escape(cells.get(name, "-")) for name in COLUMNS)
    told = "".join(f"<td>{cell}</td>" for cell in others)
    aside = f"<small>{undecided:,} hits undecided</small>" if undecided else ""
    return f'<tr><th class="text" scope="row">{_swatch(place)}<code>{setting}</code>{aside}</th>{told}</tr>'


def _swatch(place: int | None) -> str:
    tone = "quiet" if place is None else f"tone{place % TONES}{' dashed' if place >= TONES else ''}"
    return f'<svg class="swatch" viewBox="0 0 22 10" aria-hidden="true"><path class="line {tone}" d="M0 5L22 5"/></svg>'


def _charts(found: WhatIf, courses: Sequence[Course]) -> Iterator[str]:
    yield _figure(
        "Hits against wrong hits",
        _hits_against_wrong(found, courses),
        "Each dot is a setting, with the range of its wrong share. The dashed line is what other bars would have let through in the"
        " first run.",
    )
    yield _figure(
        "Savings over time",
        _savings_over_time(found, courses),
        "What was saved since the beginning of the log, less what checks cost. The dashed line is exact match alone.",
    )
    yield _figure(
        "Calibration",
        _calibration(found),
        "Of the candidates that were judged with some confidence, how many were right. On the dashed line, confidence is what it says.",
    )


def _figure(name: str, drawing: str, told: str) -> str:
    return f"<div><h2>{escape(name)}</h2>\n{drawing}\n<p>{escape(told)}</p></div>"


def _hits_against_wrong(found: WhatIf, courses: Sequence[Course]) -> str:
    dots = [
        Series(
            points=[(run.report.hits or 0.0, run.report.wrong_of_hits or 0.0)],
            tone=place,
            dots=[f"{named(run)}: {share(run.report.hits)} hits, {share(run.report.wrong_of_hits)} of them wrong"],
            whiskers=[run.report.wrong_of_hits_interval or (0.0, 0.0)],
        )
        for place, run in enumerate(found.runs)
    ]
    tops = [one.whiskers[0][1] for one in dots] + [run.report.max_error_rate for run in found.runs]
    line = _other_bars(courses[0].outcomes)
    most = max([one.points[0][0] for one in dots] + [x for x, y in line if y <= max(tops) * 1.15], default=0.0)
    least = min([one.points[0][0] for one in dots] + [x for x, _ in line], default=0.0)
    margin = max((most - least) * 0.08, 0.005)
    x = Axis("hits, of all requests", min(most + margin, 1.0), percent, low=max(least - margin, 0.0))
    y = Axis("wrong, of hits", max(max(tops) * 1.15, 0.001), percent)
    told = "; ".join(one.dots[0] for one in dots)
    return chart("Hits against wrong hits", told, x, y, [Series(points=line), *dots])


def _other_bars(outcomes: Sequence[Outcome]) -> list[Where]:
    """Hits and wrong share at every bar, had the candidates that were judged been the same."""
    exact = [one.right for one in outcomes if one.source == "exact"]
    wrong = exact.count(False)
    points = trade_off(one.judged for one in outcomes if one.judged is not None)
    return [
        ((len(exact) + one.served) / len(outcomes), (wrong + one.wrong) / (len(exact) + one.served))
        for one in thinned(points, MOST_POINTS)
    ]


def _savings_over_time(found: WhatIf, courses: Sequence[Course]) -> str:
    money = found.exact_alone.saved_usd is not None
    lines = [_saved_line(course.outcomes, is_saved, money=money) for course in courses]
    alone = _saved_line(courses[0].outcomes, lambda one: one.repeat, money=money)
    span = found.last - found.first
    unit, each = ("days", DAY) if span > 3 * DAY else ("hours", HOUR) if span > 3 * HOUR else ("minutes", 60.0)
    x = Axis(f"{unit} since the beginning", max(span / each, 1e-3), lambda value: f"{value:g}")
    top = max(y for line in (*lines, alone) for _, y in line)
    y = Axis("saved, USD" if money else "saved, tokens", top * 1.05 or 1.0, dollars if money else counted)
    drawn = [
        Series(points=[((at - found.first) / each, amount) for at, amount in line], tone=place)
        for place, line in [(None, alone), *enumerate(lines)]
    ]
    told = "; ".join(f"{named(run)}: {saved(run.savings)}" for run in found.runs)
    return chart("Savings over time", told, x, y, drawn)


def _saved_line(outcomes: Sequence[Outcome], saves: Callable[[Outcome], bool], *, money: bool) -> list[Where]:
    so_far = saved_so_far(outcomes, saves, money=money)
    return thinned([(one.request.at, saved) for one, saved in zip(outcomes, so_far, strict=True)], MOST_POINTS)


def _calibration(found: WhatIf) -> str:
    side = Axis("confidence", 1.0, percent)
    drawn = [Series(points=[(0.0, 0.0), (1.0, 1.0)])]
    for place, run in enumerate(found.runs):
        bins = run.report.calibration
        drawn.append(
            Series(
                points=[(one.confidence, one.share) for one in bins],
                tone=place,
                dots=[f"{one.right} of {one.count} right at a confidence of {one.confidence:.2f}" for one in bins],
            )
        )
    told = "; ".join(f"{named(run)}: calibration error {number(run.report.calibration_error)}" for run in found.runs)
    return chart("Calibration", told, side, Axis("right", 1.0, percent), drawn)


def _doubtful(found: WhatIf, courses: Sequence[Course]) -> str:
    """The wrong hits of the run that has the most, the most frequent first: what to look at before believing a figure."""
    of_runs = [_wrong_hits(course.outcomes) for course in courses]
    place = max(range(len(of_runs)), key=lambda index: of_runs[index].total())
    wrong = of_runs[place]
    if not wrong:
        return ""
    heading = escape(f"Wrong hits of {named(found.runs[place])}")
    rows = "\n".join(
        f'<tr><td class="text">{_cut(tenant)}</td><td class="text">{_cut(asked)}</td><td class="text">{_cut(stored)}</td><td>{times}</td></tr>'
        for (tenant, stored, asked), times in wrong.most_common(MOST_DOUBTFUL)
    )
    return (
        f'<section class="wide"><h2>{heading}</h2>\n<table><thead><tr><th class="text" scope="col">tenant</th>'
        '<th class="text" scope="col">asked</th><th class="text" scope="col">got the answer to</th><th scope="col">times</th></tr></thead>'
        f"\n<tbody>\n{rows}\n</tbody></table></section>"
    )


def _wrong_hits(outcomes: Sequence[Outcome]) -> Counter[tuple[str, str, str]]:
    """Whose question, which stored one it was taken for, and what was asked."""
    return Counter(
        (one.request.tenant, one.near or "", one.request.chat.question or "")
        for one in outcomes
        if one.source == "semantic" and one.right is False
    )


def _cut(text: str) -> str:
    return escape(text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…")
