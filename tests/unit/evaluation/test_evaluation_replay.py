"""What if: combinations of settings, savings, and the page that shows them."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.evaluation.evaluation import Course, Request, Ruling
from headgate.evaluation.logs import Log
from headgate.evaluation.page import page
from headgate.evaluation.plots import plot_pairs, plot_stream
from headgate.evaluation.replay import MOST_RUNS, BadSetting, WhatIf, combinations, what_if
from headgate.evaluation.report import stream_report
from headgate.evaluation.svg import Axis, Series, chart, counted, dollars, percent
from tests.unit.evaluation.laboratory import ask, went

HOSTILE = "</script><script>alert('you & me')</script>\"><img src=x onerror=alert(1)>"
ALIASES = {f"When {n}?": ("Hours?", 0.95) for n in range(6)}


async def shown(requests: list[Request], *, name: str = "calls.jsonl", settings: int = 2) -> tuple[WhatIf, str]:
    """The figures and the page of a log under some settings."""
    courses: list[Course] = [await went(requests, ALIASES) for _ in range(settings)]
    runs = [
        ({"cache.semantic.max_error_rate": f"0.0{n}"}, stream_report(one, max_error_rate=0.01, learning=True), one)
        for n, one in enumerate(courses)
    ]
    found = what_if(Log(requests, {"not JSON": (2, 5)}, sum(one.cost is None for one in requests)), runs)
    return found, page(found, courses, name=name)


def traffic(*, cost: int | None = 1_000_000, answer: int = 1) -> list[Request]:
    return [
        ask(text, answer, at=60.0 * n, cost=cost, tokens=50) for n, text in enumerate(["Hours?", *ALIASES, "Hours?"])
    ]


def test_every_combination_is_tried_in_order() -> None:
    assert combinations(["a.b=1,2", "c=x"]) == [{"a.b": "1", "c": "x"}, {"a.b": "2", "c": "x"}]
    assert combinations([]) == [{}]
    assert combinations(["a= 1 , 1"]) == [{"a": "1"}]


@pytest.mark.parametrize("said", ["a.b", "=1", "a=", "a=1,,2", ""])
def test_a_setting_needs_a_path_and_values(said: str) -> None:
    with pytest.raises(BadSetting, match="PATH=VALUE"):
        combinations([said])


def test_a_path_is_said_once_and_combinations_are_bounded() -> None:
    with pytest.raises(BadSetting, match="a is set twice"):
        combinations(["a=1", "a=2"])
    with pytest.raises(BadSetting, match=f"25 combinations of settings; at most {MOST_RUNS}"):
        combinations(["a=1,2,3,4,5", "b=1,2,3,4,5"])


async def test_savings_are_what_the_hits_would_have_cost() -> None:
    found, _ = await shown(traffic())
    (run, _) = found.runs
    assert (run.savings.saved_usd, run.savings.without_usd, run.savings.tokens) == ("0.007", "0.008", 350)
    assert run.savings.share == pytest.approx(7 / 8)
    assert found.exact_alone.saved_usd == "0.001"


async def test_where_no_cost_is_known_tokens_are_told() -> None:
    found, shown_page = await shown(traffic(cost=None))
    assert (found.unpriced, found.runs[0].savings.saved_usd, found.runs[0].savings.tokens) == (8, None, 350)
    assert "8 of 8 requests have neither a cost nor a model whose price is known" in shown_page
    assert "350 tokens" in shown_page


async def test_the_page_tells_every_run_and_draws_three_charts() -> None:
    _, told = await shown(traffic())
    assert told.count('role="img"') == 3
    assert "max_error_rate 0.00" in told
    assert "max_error_rate 0.01" in told
    assert "exact match alone" in told
    assert "2 lines of the log were left out: not JSON (2)" in told


async def test_the_page_needs_nothing_else() -> None:
    _, told = await shown(traffic())
    assert re.findall(r"(?:https?:)?//(?!www\.w3\.org)[\w.]+", told) == []
    assert "default-src 'none'" in told
    assert not re.search(r"<(script|link|img|iframe|object)|@import|url\((?!#)", told)


async def test_every_chart_is_sound_xml() -> None:
    _, told = await shown(traffic())
    for drawing in re.findall(r"<svg viewBox.*?</svg>", told, re.DOTALL):
        ET.fromstring(drawing)  # raises where it is not


async def test_nothing_of_a_log_is_more_than_text() -> None:
    aliases = {HOSTILE: ("Hours?", 0.95)}
    requests = [ask("Hours?", 1, tenant=HOSTILE), ask(HOSTILE, 2, tenant=HOSTILE)]
    course = await went(requests, aliases)
    report = stream_report(course, max_error_rate=0.01, learning=True)
    found = what_if(Log(requests, {HOSTILE: (1, 1)}, 2), [({HOSTILE: HOSTILE}, report, course)])
    told = page(found, [course], name=HOSTILE)
    assert "Wrong hits of" in told
    assert "<script" not in told
    assert "<img" not in told
    assert told.count("&lt;script&gt;") >= 4


async def test_one_request_makes_a_page() -> None:
    found, told = await shown([ask("Hours?", 1)], settings=1)
    assert (found.requests, found.first, found.last) == (1, 0.0, 0.0)
    assert not re.search(r"\b(nan|inf)\b", told)


def test_round_numbers_mark_an_axis() -> None:
    assert Axis("", 1.0, percent).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Axis("", 0.43, percent, low=0.3).ticks() == pytest.approx([0.3, 0.32, 0.34, 0.36, 0.38, 0.4, 0.42])
    assert [percent(0.005), dollars(1234.5), dollars(1.2), dollars(0.00123), counted(25_000), counted(1_250_000)] == [
        "0.5 %",
        "$1,234",
        "$1.20",
        "$0.00123",
        "25k",
        "1.25M",
    ]


@given(
    st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), max_size=20),
    st.floats(1e-6, 1e9),
    st.text(max_size=20),
)
def test_any_points_make_a_chart(points: list[tuple[float, float]], high: float, text: str) -> None:
    axis = Axis("x", high, counted)
    drawn = chart("Any", text, axis, axis, [Series(points=points, tone=9, dots=[text] * len(points))])
    assert "nan" not in drawn
    assert 2 <= len(axis.ticks()) <= 9


async def test_plots_are_written_as_png(tmp_path: Path) -> None:
    course = await went(traffic(), ALIASES)
    plot_stream(course.outcomes, tmp_path / "stream.png", title="calls $ of _all_ \\kinds.jsonl")
    plot_pairs([Ruling(True, 0.9, True), Ruling(False, 0.2, False)], tmp_path / "pairs.png", title="pairs")
    plot_stream([], tmp_path / "empty.png", title="")
    plot_pairs([], tmp_path / "none.png", title="")
    for name in ("stream", "pairs", "empty", "none"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
