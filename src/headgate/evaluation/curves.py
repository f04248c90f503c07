"""Curves: what confidences are worth, held against labels.

Everything here is a pure function of numbers; nothing knows what a question is. A *judged* pair is a confidence between 0 and 1
and whether serving would have been right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

import msgspec

T = TypeVar("T")

Judged = tuple[float, bool]
"""A confidence, and whether serving would have been right."""

BINS = 10
"""Of equal width, from 0 to 1."""


class Bin(msgspec.Struct, frozen=True, gc=False):
    """Judged pairs of about the same confidence: how many, how sure on average, and how many of them were right."""

    count: int
    confidence: float
    right: int

    @property
    def share(self) -> float:
        """Share of right ones: what `confidence` should be."""
        return self.right / self.count


class Point(msgspec.Struct, frozen=True, gc=False):
    """What a bar lets through: how many are served at this confidence or a higher one, and how many of them wrongly."""

    bar: float
    served: int
    wrong: int


def roc_area(judged: Iterable[Judged]) -> float | None:
    """Area under the ROC curve: how likely a right pair has a higher confidence than a wrong one; equal ones count half.

    None when all pairs are of one kind.
    """
    right = wrong = 0
    above = 0.0
    for _, tied in groupby(sorted(judged, key=itemgetter(0)), key=itemgetter(0)):
        of_these = [is_right for _, is_right in tied]
        good = sum(of_these)
        above += good * (wrong + (len(of_these) - good) / 2)
        right += good
        wrong += len(of_these) - good
    return above / (right * wrong) if right and wrong else None


def calibration(judged: Iterable[Judged]) -> list[Bin]:
    """The bins that anything falls into, from the least sure to the surest."""
    counts, sums, rights = [0] * BINS, [0.0] * BINS, [0] * BINS
    for confidence, is_right in judged:
        place = min(int(confidence * BINS), BINS - 1)
        counts[place] += 1
        sums[place] += confidence
        rights[place] += is_right
    return [Bin(n, total / n, right) for n, total, right in zip(counts, sums, rights, strict=True) if n]


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """Expected calibration error: how far confidence and truth are apart within a bin, averaged over all pairs.

    None when nothing was judged. Source: Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning", AAAI 2015.
    """
    whole = sum(one.count for one in bins)
    return sum(one.count * abs(one.confidence - one.share) for one in bins) / whole if whole else None


def trade_off(judged: Iterable[Judged]) -> list[Point]:
    """What every bar would let through, from the highest to the lowest."""
    points = []
    served = wrong = 0
    for bar, tied in groupby(sorted(judged, key=itemgetter(0), reverse=True), key=itemgetter(0)):
        for _, is_right in tied:
            served += 1
            wrong += not is_right
        points.append(Point(bar, served, wrong))
    return points


def thinned(points: Sequence[T], most: int) -> list[T]:
    """At most so many of the points, evenly spread, the first and the last among them: a picture shows no more."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(index * step)] for index in range(most)]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of the ordered ones does not exceed; 0 when there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
