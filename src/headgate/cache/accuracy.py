"""Accuracy: what share of something may be, when so many of so many were seen.

The interval of Clopper and Pearson (Biometrika 1934), which holds at every sample size; its bounds are quantiles of the beta
distribution, found by halving over the incomplete beta function, which is a continued fraction (Lentz 1976, as in Press et al.,
Numerical Recipes §6.4).
"""

from __future__ import annotations

import math

TINY = 1e-300
CLOSE = 1e-12
MOST_TERMS = 10_000
HALVINGS = 60


def interval(seen: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Lowest and highest share that `seen` of `of` does not contradict at this confidence, both sides together."""
    tail = (1.0 - confidence) / 2.0
    low = _quantile(tail, seen, of - seen + 1) if seen else 0.0
    high = _quantile(1.0 - tail, seen + 1, of - seen) if seen < of else 1.0
    return low, high


def _quantile(probability: float, a: float, b: float) -> float:
    """Where the beta distribution's cumulative probability is this."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        if _beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    # The fraction converges fast on this side only; the other is its mirror image.
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(x, a, b) / a
    return 1.0 - front * _fraction(1.0 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1.0 / _apart(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _apart(1.0 + term * d)
            c = _apart(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < CLOSE:
            break
    return value


def _apart(number: float) -> float:
    """Away from zero, by which something is about to be divided."""
    return number if abs(number) > TINY else TINY
