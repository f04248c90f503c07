"""The fixed verdict: a threshold for each error rate, and the guards above it."""

from __future__ import annotations

import pytest

from headgate.cache.verdict import FixedVerdict, Judgement, threshold_for


@pytest.mark.parametrize(
    ("rate", "threshold"),
    [(1.0, 0.92), (0.01, 0.92), (0.0014, 0.92), (0.001, 0.95), (0.0005, 0.95), (0.0004, 0.97), (0.0, 0.97)],
)
def test_fewer_errors_need_more_similarity(rate: float, threshold: float) -> None:
    assert threshold_for(rate) == threshold


def test_near_questions_are_served_with_their_similarity_as_confidence() -> None:
    judged = FixedVerdict(0.92).judge("How do I pay?", "How can I pay?", 0.93)
    assert judged == Judgement(serve=True, confidence=0.93, reason="similarity")


def test_the_threshold_itself_is_near_enough() -> None:
    verdict = FixedVerdict(0.92)
    assert verdict.judge("How do I pay?", "How can I pay?", 0.92).serve
    assert verdict.judge("How do I pay?", "How can I pay?", 0.9199) == Judgement(False, 0.9199, "similarity")


def test_a_guard_names_itself_and_refuses_whatever_the_similarity() -> None:
    judged = FixedVerdict(0.92).judge("Refund after 14 days?", "Refund after 30 days?", 1.0)
    assert judged == Judgement(serve=False, confidence=1.0, reason="number")


@pytest.mark.parametrize(("similarity", "confidence"), [(1.0000002, 1.0), (-0.3, 0.0)])
def test_confidence_stays_between_nought_and_one(similarity: float, confidence: float) -> None:
    assert FixedVerdict(0.92).judge("Same?", "Same?", similarity).confidence == confidence


def test_not_a_number_is_never_served() -> None:
    assert not FixedVerdict(0.92).judge("Same?", "Same?", float("nan")).serve
