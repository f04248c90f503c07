"""Windows: in every zone each moment lies in exactly one window of a kind, and windows follow each other without gap or overlap."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from hypothesis import example, given
from hypothesis import strategies as st

from headgate.budget.windows import window_bounds, window_id

ZONES = (
    "UTC",
    "Africa/Cairo",
    "America/Havana",
    "America/New_York",
    "America/Nuuk",
    "America/Santiago",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
)
"""Zones whose clocks are changed at midnight, by half an hour, twice a year or never, and those at the edges of the day."""

MOMENTS = st.integers(1_356_998_400, 4_000_000_000)
KINDS = st.sampled_from(["minute", "hour", "day", "week", "month"])
Kind = Literal["minute", "hour", "day", "week", "month"]


@given(MOMENTS, KINDS, st.sampled_from(ZONES))
@example(1_791_039_600, "hour", "Australia/Lord_Howe")
@example(1_776_981_600, "day", "Africa/Cairo")
def test_a_moment_lies_in_its_window_and_the_next_begins_where_it_ends(at: int, kind: Kind, zone: str) -> None:
    id = window_id(kind, at, zone)
    bounds = window_bounds(id)
    assert bounds is not None
    begin, end = bounds
    assert begin <= at < end
    assert window_id(kind, begin, zone) == id == window_id(kind, end - 1, zone)
    after, before = window_id(kind, end, zone), window_id(kind, begin - 1, zone)
    assert after != id != before
    assert (window_bounds(after) or (0, 0))[0] == end
    assert (window_bounds(before) or (0, 0))[1] == begin


@given(MOMENTS, st.sampled_from(ZONES))
def test_days_lie_within_their_month_and_within_their_week(at: int, zone: str) -> None:
    spans = [window_bounds(window_id(kind, at, zone)) for kind in ("hour", "day", "month")]
    weeks = [window_bounds(window_id(kind, at, zone)) for kind in ("day", "week")]
    for inner, outer in [*pairwise(spans), *pairwise(weeks)]:
        assert inner is not None
        assert outer is not None
        assert outer[0] <= inner[0] < inner[1] <= outer[1]


@given(MOMENTS, KINDS, st.sampled_from(ZONES), st.integers(0, 59))
def test_all_moments_of_a_minute_lie_in_one_window(at: int, kind: Kind, zone: str, second: int) -> None:
    begin = at - at % 60
    assert window_id(kind, begin, zone) == window_id(kind, begin + second + 0.999, zone)
