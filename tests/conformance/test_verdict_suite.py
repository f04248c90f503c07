"""What every Verdict promises: it is pure, says how sure it is, and a pair that was never compared is not served."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.verdict import FixedVerdict, Verdict, threshold_for

VERDICTS = {"fixed, strict": FixedVerdict(threshold_for(0.0)), "fixed, lenient": FixedVerdict(threshold_for(0.05))}
QUESTIONS = st.text(max_size=80) | st.lists(
    st.sampled_from(
        "what is not the price of gold refund after 14 30 days $20 €20 without from Berlin to Paris".split()
    ),
    max_size=10,
).map(" ".join)


@pytest.fixture(params=VERDICTS)
def verdict(request: pytest.FixtureRequest) -> Verdict:
    return VERDICTS[request.param]


@given(question=QUESTIONS, stored=QUESTIONS, similarity=st.floats(-1.001, 1.001))
def test_the_same_pair_always_gets_the_same_judgement(question: str, stored: str, similarity: float) -> None:
    for verdict in VERDICTS.values():
        first = verdict.judge(question, stored, similarity)
        assert verdict.judge(question, stored, similarity) == first
        assert 0.0 <= first.confidence <= 1.0
        assert first.reason


@given(question=QUESTIONS)
def test_the_very_question_is_served(question: str) -> None:
    for verdict in VERDICTS.values():
        assert verdict.judge(question, question, 1.0).serve


@pytest.mark.parametrize("similarity", [math.nan, -1.0, 0.0])
def test_what_is_not_near_is_never_served(verdict: Verdict, similarity: float) -> None:
    assert not verdict.judge("How do I pay?", "How do I pay?", similarity).serve


def test_a_nearer_pair_is_never_judged_worse(verdict: Verdict) -> None:
    judged = [verdict.judge("How do I pay?", "How can I pay?", step / 100).serve for step in range(101)]
    assert judged == sorted(judged)
