"""Verdict: may this stored answer be served for that question, and how sure are we?

The fixed verdict serves above one high similarity, and never when a guard tells the two questions apart: of look-alikes such as
"refund after 14 days" and "refund after 30 days" the wrong pairs are often nearer than the right ones.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from headgate.cache.guards import differing


class Judgement(msgspec.Struct, frozen=True):
    """`confidence` is between 0 and 1; `reason` is machine-readable and says what decided."""

    serve: bool
    confidence: float
    reason: str


class Verdict(Protocol):
    """Guarantees: pure and quick; the same pair always gets the same judgement."""

    def judge(self, question: str, stored: str, similarity: float) -> Judgement:
        """Judge a stored question that is `similarity` (cosine) near to the one asked."""
        ...


_THRESHOLDS = ((0.0014, 0.92), (0.0005, 0.95), (0.0, 0.97))
"""Share of wrong answers among the hits of natural traffic, and the lowest similarity that stays under it without any guard
(all-MiniLM-L6-v2, nearest neighbour within one tenant). Lower ones are not used: on look-alikes the guards need the help."""


def threshold_for(max_error_rate: float) -> float:
    """The similarity above which no more than that share of hits was wrong."""
    return next(threshold for rate, threshold in _THRESHOLDS if max_error_rate >= rate)


class FixedVerdict:
    """One threshold for all, and the guards. Confidence is the similarity itself."""

    def __init__(self, threshold: float) -> None:
        """`threshold` is a cosine similarity; see `threshold_for`."""
        self._threshold = threshold

    def judge(self, question: str, stored: str, similarity: float) -> Judgement:
        """Serve when near enough and no guard objects."""
        confidence = max(0.0, min(similarity, 1.0))
        # Written so that NaN, which compares false to everything, is refused too.
        if not similarity >= self._threshold:
            return Judgement(False, confidence, "similarity")
        guard = differing(question, stored)
        if guard is not None:
            return Judgement(False, confidence, guard)
        return Judgement(True, confidence, "similarity")
