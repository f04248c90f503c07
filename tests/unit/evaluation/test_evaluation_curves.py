"""What confidences are worth, held against labels."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.evaluation.curves import (
    Bin,
    Point,
    calibration,
    calibration_error,
    percentile,
    roc_area,
    thinned,
    trade_off,
)

judged = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60)


def test_the_area_is_how_often_a_right_pair_is_surer_than_a_wrong_one() -> None:
    assert roc_area([(0.9, True), (0.8, False), (0.7, True), (0.1, False)]) == 0.75
    assert roc_area([(0.9, True), (0.1, False)]) == 1.0
    assert roc_area([(0.1, True), (0.9, False)]) == 0.0


def test_equal_confidences_count_half() -> None:
    assert roc_area([(0.5, True), (0.5, False)]) == 0.5


@pytest.mark.parametrize("found", [[], [(0.5, True)], [(0.2, False), (0.9, False)]])
def test_without_both_kinds_there_is_no_area(found: list[tuple[float, bool]]) -> None:
    assert roc_area(found) is None


@given(judged)
def test_the_area_is_that_of_counting_all_couples(found: list[tuple[float, bool]]) -> None:
    right = [one for one, is_right in found if is_right]
    wrong = [one for one, is_right in found if not is_right]
    couples = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    expected = sum(couples) / len(couples) if couples else None
    assert roc_area(found) == (expected if expected is None else pytest.approx(expected))


def test_bins_hold_what_is_of_about_the_same_confidence() -> None:
    assert calibration([(0.0, False), (0.05, True), (0.95, True), (1.0, True)]) == [
        Bin(2, 0.025, 1),
        Bin(2, 0.975, 2),
    ]


def test_the_calibration_error_is_weighted_by_how_many_there_are() -> None:
    bins = [Bin(3, 0.9, 3), Bin(1, 0.2, 0)]
    assert calibration_error(bins) == pytest.approx((3 * 0.1 + 1 * 0.2) / 4)
    assert calibration_error([]) is None


def test_what_is_well_calibrated_has_almost_no_error() -> None:
    draw = random.Random(7)
    found = [(p, draw.random() < p) for p in (draw.random() for _ in range(20_000))]
    assert (calibration_error(calibration(found)) or 1.0) < 0.02


def test_every_bar_lets_through_what_is_at_least_as_sure() -> None:
    assert trade_off([(0.9, True), (0.5, False), (0.5, True), (0.1, False)]) == [
        Point(0.9, 1, 0),
        Point(0.5, 3, 1),
        Point(0.1, 4, 2),
    ]


@given(judged)
def test_lower_bars_serve_more_and_err_more(found: list[tuple[float, bool]]) -> None:
    points = trade_off(found)
    assert [one.served for one in points] == sorted({one.served for one in points})
    assert [one.wrong for one in points] == sorted(one.wrong for one in points)
    assert (points[-1].served if points else 0) == len(found)


@given(st.lists(st.integers(), max_size=50), st.integers(2, 60))
def test_a_thinned_line_keeps_its_ends(points: list[int], most: int) -> None:
    kept = thinned(points, most)
    assert len(kept) == min(len(points), most)
    assert (kept[:1], kept[-1:]) == (points[:1], points[-1:])


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert percentile([1.0, 2.0], 0.99) == 2.0
