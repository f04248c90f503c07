"""How good an order is: which questions should get the better model first, judged by what came of them.

Measures are those of RouteLLM (Ong et al., 2024): PGR at a share is the quality gained relative to always asking the cheap model, over
what always asking the rich one gains; APGR its mean over all shares (0.5 by chance, over 1 possible); CPT(x) the least share that
reaches x of it. Ties get the mean of all their orders.

Invariant: rows that know only one model's quality count where that model is asked, by inverse propensity (Swaminathan and Joachims, "The
self-normalized estimator", 2015); where all rows know both, that is the plain mean.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


class Graded(msgspec.Struct, frozen=True, eq=False):
    """Questions with what came of them; arrays of shape (n,).

    cheap, rich  quality of each model's answer, NaN where it was not asked
    weight       one over the propensity of what was asked
    kind         which task each is of, as a number
    characters   of the question
    """

    cheap: Numbers
    rich: Numbers
    weight: Numbers
    kind: NDArray[np.int64]
    characters: Numbers

    def where(self, chosen: Any) -> Graded:
        """Those that a mask or places choose."""
        return Graded(*(getattr(self, name)[chosen] for name in self.__struct_fields__))


def qualities(order: Numbers, rows: Graded) -> Numbers:
    """Mean quality when the first 0, 1, ..., n questions of the order, the highest first, get the rich model; shape (n + 1,)."""
    _, ties = np.unique(-order, return_inverse=True)
    counts = np.bincount(ties)
    count = len(order)

    def sums(values: Numbers) -> Numbers:
        """Of the first 0 to n, each with the mean of those that are tied with it."""
        means = np.bincount(ties, values, minlength=len(counts)) / counts
        return np.concatenate([[0.0], np.cumsum(np.repeat(means, counts))])

    total = np.zeros(count + 1)
    for quality, first in ((rows.rich, True), (rows.cheap, False)):
        known = np.isfinite(quality)
        weight = np.where(known, rows.weight, 0.0)
        worth, mass = sums(weight * np.where(known, quality, 0.0)), sums(weight)
        if not first:
            worth, mass = worth[-1] - worth, mass[-1] - mass
        share = np.arange(count + 1) / count if first else 1 - np.arange(count + 1) / count
        total += share * np.divide(worth, mass, out=np.zeros(count + 1), where=mass > 1e-12)
    return total


def gained(order: Numbers, rows: Graded) -> Numbers | None:
    """PGR after each share; None where neither model is better."""
    quality = qualities(order, rows)
    gain = quality[-1] - quality[0]
    return None if abs(gain) < 1e-9 else (quality - quality[0]) / gain


def apgr(order: Numbers, rows: Graded) -> float | None:
    """The mean of `gained`; None where there is none."""
    found = gained(order, rows)
    return None if found is None else float(found.mean())


def cpt(order: Numbers, rows: Graded, target: float) -> float | None:
    """The least share of rich calls with which `target` of the gain is reached."""
    found = gained(order, rows)
    return None if found is None else float(np.argmax(found >= target - 1e-12) / len(order))
