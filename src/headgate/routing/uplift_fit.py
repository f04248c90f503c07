"""Fitting an uplift model: ridge regressions in numpy, and a floor found by leaving out whole kinds of questions.

The target is the uplift, not the difficulty: what a question gains by the better model. Rows may know both answers' quality or only
that of the model that was asked; each model's quality is regressed on the rows that know it, by inverse propensity, and the uplift is the
difference. Where every row knows both this is the regression of the difference itself.

Invariant: the same rows give the same file.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headgate.routing.knn_cells import quantised
from headgate.routing.uplift import LENGTH, MIDDLE, NEAREST, Uplift, UpliftFile
from headgate.routing.uplift_curves import Graded, apgr

RIDGE = 10.0
POINTS = 2_048
"""Vectors that the file keeps: 0.8 MB of 384 dimensions."""
FOLDS = 8
"""Parts into which the kinds are put, each left out in turn."""
FEWEST_KINDS = 4
"""Below that, nothing can be said of kinds that were not seen, and the floor is what is usual among the rows themselves."""
UNTRIED, FAILED = 0.1, 0.35
"""Shares of the questions of seen kinds that are left unjudged where it is unknown whether the order holds beyond them, and where it
does not: a price, for what is near enough to be judged may be of another kind all the same."""
DRAWS = 200
SURE = 0.25
"""The share of draws that may say that questions of unseen kinds are ordered no better than by chance."""

ANYWHERE = -1.0
"""The floor of a model that judges every question."""

Numbers = NDArray[np.float64]
Floats = NDArray[np.float32]


class TooFew(Exception):
    """The rows do not suffice. The message says what is missing."""


def fitted(rows: Graded, vectors: Floats, embedder: str, done: Callable[[], None] = lambda: None) -> Uplift:
    """A model of these rows, whose vectors are of shape (n, d) and unit length. `done` is called FOLDS times. Raises TooFew."""
    if min(np.isfinite(rows.cheap).sum(), np.isfinite(rows.rich).sum()) < 50:
        raise TooFew("at least 50 outcomes of the cheap and of the rich model are needed")
    weights, intercept = _ridge(rows, vectors)
    chosen = _sampled(len(vectors))
    file = UpliftFile(
        format=1,
        embedder=embedder,
        dimensions=vectors.shape[1],
        rows=len(vectors),
        cheap=_mean(rows.cheap, rows.weight),
        rich=_mean(rows.rich, rows.weight),
        weights=tuple(float(f"{one:.5g}") for one in weights),
        intercept=intercept,
        floor=_floor(rows, vectors, done),
        points=base64.b64encode(b"".join(quantised(one) for one in vectors[chosen])).decode(),
    )
    return Uplift(file)


def _ridge(rows: Graded, vectors: Floats) -> tuple[Numbers, float]:
    """Weights of the uplift and the intercept. Kinds count by the root of their number, so that the largest is not all."""
    columns = np.c_[vectors.astype(np.float64), LENGTH * (np.log1p(rows.characters) - MIDDLE)]
    kinds = np.bincount(rows.kind, minlength=int(rows.kind.max()) + 1)
    each = rows.weight / np.sqrt(kinds[rows.kind])
    fits = []
    for quality in (rows.rich, rows.cheap):
        known = np.isfinite(quality)
        share = each[known] / each[known].mean()
        centre, level = np.average(columns[known], axis=0, weights=share), np.average(quality[known], weights=share)
        away = columns[known] - centre
        slope = np.linalg.solve(
            (away * share[:, None]).T @ away + RIDGE * np.eye(away.shape[1]),
            away.T @ (share * (quality[known] - level)),
        )
        fits.append((slope, float(level - slope @ centre)))
    (rich, level_rich), (cheap, level_cheap) = fits
    return rich - cheap, level_rich - level_cheap


def _floor(rows: Graded, vectors: Floats, done: Callable[[], None]) -> float:
    """The nearness from which on a question is judged: none, where questions of kinds that were left out are ordered better than by
    chance; else what is usual among rows of the same kinds."""
    kinds = int(rows.kind.max()) + 1
    part = np.random.default_rng(0).permutation(kinds)[rows.kind] % min(FOLDS, kinds)
    order = np.zeros(len(vectors))
    for fold in range(FOLDS):
        out = part == fold
        if kinds >= FEWEST_KINDS and out.any():
            weights, level = _ridge(rows.where(~out), vectors[~out])
            lengths = LENGTH * (np.log1p(rows.characters[out]) - MIDDLE)
            order[out] = vectors[out] @ weights[:-1] + weights[-1] * lengths + level
        done()
    if kinds < FEWEST_KINDS:
        return _usual(vectors, UNTRIED)
    return ANYWHERE if _holds(rows, order) else _usual(vectors, FAILED)


def _holds(rows: Graded, order: Numbers) -> bool:
    """Whether most draws of kinds find the order better than chance."""
    places = [np.flatnonzero(rows.kind == one) for one in np.unique(rows.kind)]
    chance, found = np.random.default_rng(1), []
    for _ in range(DRAWS):
        drawn = np.concatenate([places[one] for one in chance.integers(len(places), size=len(places))])
        value = apgr(order[drawn], rows.where(drawn))
        if value is not None:
            found.append(value)
    return bool(found) and float(np.quantile(found, SURE)) > 0.5


def _usual(vectors: Floats, unjudged: float) -> float:
    """The nearness of a row to the others that all but such a share have."""
    points = vectors[_sampled(len(vectors))]
    near = np.sort(points @ points.T, axis=1)
    # The last is the row itself.
    return float(np.quantile(near[:, -NEAREST - 1 : -1].mean(1), unjudged))


def _sampled(count: int) -> NDArray[np.int64]:
    """Which rows become points: all, or POINTS of them."""
    if count <= POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(2).choice(count, POINTS, replace=False))


def _mean(quality: Numbers, weight: Numbers) -> float:
    known = np.isfinite(quality)
    return float(np.average(quality[known], weights=weight[known]))
