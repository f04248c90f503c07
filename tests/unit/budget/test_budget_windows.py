"""Windows: which one a moment lies in, by name, in any zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest

from headgate.budget.windows import kind_of, window_bounds, window_end, window_id
from headgate.model.tenancy import Window


def at(text: str) -> float:
    """The unix time of a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("moment", "zone", "window", "id"),
    [
        ("2026-11-20T17:42", "UTC", "minute", "minute:2026-11-20T17:42"),
        ("2026-11-20T17:42", "UTC", "hour", "hour:2026-11-20T17"),
        ("2026-11-20T17:42", "UTC", "day", "day:2026-11-20"),
        ("2026-11-20T17:42", "UTC", "week", "week:2026-W47"),
        ("2026-11-20T17:42", "UTC", "month", "month:2026-11"),
        ("2026-11-20T17:42", "Asia/Kolkata", "total", "total"),
        ("2026-11-20T23:30", "Europe/Berlin", "day", "day:2026-11-21@Europe/Berlin"),
        ("2026-11-20T17:42", "Asia/Kolkata", "hour", "hour:2026-11-20T23+0530@Asia/Kolkata"),
        ("2026-12-31T23:30", "Europe/Berlin", "month", "month:2027-01@Europe/Berlin"),
        ("2027-01-03T12:00", "UTC", "week", "week:2026-W53"),
        ("2027-01-04T00:00", "UTC", "week", "week:2027-W01"),
        ("2024-12-30T00:00", "UTC", "week", "week:2025-W01"),
        ("2027-01-03T23:30", "Europe/Berlin", "week", "week:2027-W01@Europe/Berlin"),
    ],
)
def test_a_moment_lies_in_the_window_of_its_zone(moment: str, zone: str, window: Window, id: str) -> None:
    assert window_id(window, at(moment), zone) == id


@pytest.mark.parametrize(
    ("id", "begin", "end"),
    [
        ("hour:2026-11-20T17", "2026-11-20T17:00", "2026-11-20T18:00"),
        ("day:2026-03-29@Europe/Berlin", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("day:2026-10-25@Europe/Berlin", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("week:2026-W13@Europe/Berlin", "2026-03-22T23:00", "2026-03-29T22:00"),
        ("month:2026-12", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("month:2028-02@America/New_York", "2028-02-01T05:00", "2028-03-01T05:00"),
        # Clocks are changed at midnight: that day begins at one.
        ("day:2026-04-24@Africa/Cairo", "2026-04-23T22:00", "2026-04-24T21:00"),
        ("tokens/day:2026-11-20", "2026-11-20T00:00", "2026-11-21T00:00"),
    ],
)
def test_a_window_is_as_long_as_the_clocks_of_its_zone_make_it(id: str, begin: str, end: str) -> None:
    assert window_bounds(id) == (at(begin), at(end))


def test_the_hour_that_a_clock_repeats_is_two_windows() -> None:
    ids = [window_id("hour", at(f"2026-10-25T0{hour}:30"), "Europe/Berlin") for hour in (0, 1)]
    assert ids == ["hour:2026-10-25T02+0200@Europe/Berlin", "hour:2026-10-25T02+0100@Europe/Berlin"]


def test_an_hour_is_cut_short_where_clocks_are_changed_by_half_of_one() -> None:
    bounds = window_bounds("hour:2026-10-04T02+1100@Australia/Lord_Howe")
    assert bounds == (at("2026-10-03T15:30"), at("2026-10-03T16:00"))


@pytest.mark.parametrize(
    "id",
    [
        "total",
        "tokens/total",
        "",
        "hour",
        "hour:never",
        "week:2026-11",
        "month:2026-13",
        "day:2026-11-20@Nowhere/Else",
        "day:2026-11-20@../../etc/passwd",
        "hour:2026-10-04T02+0300@Australia/Lord_Howe",
        "day:9999-12-31",
    ],
)
def test_what_is_no_calendar_window_never_ends(id: str) -> None:
    assert window_bounds(id) is None
    assert window_end(id) is None


@pytest.mark.parametrize("zone", ["", "Mars/Phobos", "europe/berlin ", "/etc/localtime", "UTC+1\0"])
def test_a_zone_there_is_not_is_an_error(zone: str) -> None:
    with pytest.raises(ValueError, match="not a time zone"):
        window_id("day", 0.0, zone)


def test_the_kind_of_a_window_is_told_from_its_id() -> None:
    for window in get_args(Window):
        for prefix in ("", "tokens/"):
            assert kind_of(prefix + window_id(window, 0.0, "Asia/Tokyo")) == window
