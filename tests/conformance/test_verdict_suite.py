"""What every Verdict must do. To check your own: subclass VerdictConformance and give it a `verdict` fixture."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Sequence

import pytest

from headgate.cache.cache import Candidate, Entry
from headgate.cache.embedders import MiniLM
from headgate.cache.labels import Scope
from headgate.cache.learning import Learning
from headgate.cache.prior import Prior
from headgate.cache.verdict import CalibratedVerdict, Judgement, Verdict
from headgate.model.tenancy import Key, Namespace
from tests.conformance.test_embedder import ODD_TEXTS
from tests.nearness import Near
from tests.priors import near
from tests.readings import Words

HERE = Scope(Namespace("acme"), b"questions")
QUESTION = "How do I reset my password?"
STORED = ("How can I reset my password?", "How do I reset a lamp?", "Where is the post office?")
SIMILAR = (0.98, 0.75, 0.2)
RATES = (0.0, 0.0001, 0.005, 0.01, 0.05, 0.2, 1.0)
ALIKE = (
    ("Can I send it back after 14 days?", "Can I send it back after 30 days?"),
    ("How much is it in dollars ($)?", "How much is it in euros (€)?"),
    ("Who moved from Berlin to Paris?", "Who moved from Paris to Berlin?"),
    ("Can I pay by card?", "Can I not pay by card?"),
    ("Is the shop open on Sunday?", "Is the shop open on Monday?"),
)
"""Questions that no nearness makes the same."""


def candidate(text: str | None, similarity: float) -> Candidate:
    key = Key(HERE.namespace, b"")
    return Candidate(Entry(id=f"id of {text}", key=key, answer=b"", stored=0.0, expires=0.0, text=text), similarity)


def some() -> list[Candidate]:
    return [candidate(text, similarity) for text, similarity in zip(STORED, SIMILAR, strict=True)]


class VerdictConformance:
    """The guarantees in the docstring of Verdict, each as a test."""

    async def judge(
        self, verdict: Verdict, candidates: Sequence[Candidate], rate: float = 0.05, question: str = QUESTION
    ) -> Sequence[Judgement]:
        return await verdict.judge(HERE, question, candidates, rate)

    async def test_it_has_a_name_for_what_it_is(self, verdict: Verdict) -> None:
        assert verdict.identity

    async def test_each_candidate_is_judged_in_its_place_and_says_why(self, verdict: Verdict) -> None:
        for count in range(len(STORED) + 1):
            judged = await self.judge(verdict, some()[:count])
            assert len(judged) == count
            assert all(one.reason and 0.0 <= one.confidence <= 1.0 and 0.0 <= one.prior <= 1.0 for one in judged)
            assert all(one.confidence >= one.bar for one in judged if one.serve)

    async def test_the_same_pair_among_the_same_neighbours_gets_the_same_judgement(self, verdict: Verdict) -> None:
        first = list(await self.judge(verdict, some()))
        assert list(await self.judge(verdict, some())) == first
        together = await asyncio.gather(*(self.judge(verdict, some()) for _ in range(5)))
        assert [[one.serve for one in judged] for judged in together] == [[one.serve for one in first]] * 5
        for judged in together:
            assert [one.confidence for one in judged] == pytest.approx([one.confidence for one in first], abs=1e-3)

    async def test_the_very_question_is_served(self, verdict: Verdict) -> None:
        (judged,) = await self.judge(verdict, [candidate(QUESTION, 1.0)])
        assert judged.serve
        assert judged.confidence > 0.9

    @pytest.mark.parametrize("similarity", [math.nan, -math.inf, -1.0, 0.0, 0.3])
    async def test_what_is_not_near_is_not_served(self, verdict: Verdict, similarity: float) -> None:
        (alone,) = await self.judge(verdict, [candidate(QUESTION, similarity)], 1.0)
        among = await self.judge(verdict, [*some(), candidate(QUESTION, similarity)], 1.0)
        assert (alone.serve, among[-1].serve) == (False, False)

    async def test_a_promise_of_no_error_at_all_is_not_given(self, verdict: Verdict) -> None:
        assert not any(one.serve for one in await self.judge(verdict, [candidate(QUESTION, 1.0), *some()], 0.0))

    async def test_a_stricter_promise_serves_nothing_that_a_laxer_one_does_not(self, verdict: Verdict) -> None:
        served = [[one.serve for one in await self.judge(verdict, some(), rate)] for rate in RATES]
        for strict, lax in itertools.pairwise(served):
            assert all(one <= other for one, other in zip(strict, lax, strict=True))

    @pytest.mark.parametrize(("one", "other"), ALIKE)
    async def test_what_a_guard_forbids_is_served_at_no_rate(self, verdict: Verdict, one: str, other: str) -> None:
        for question, stored in ((one, other), (other, one)):
            (judged,) = await self.judge(verdict, [candidate(stored, 1.0)], 1.0, question)
            assert not judged.serve
            assert judged.reason != "confidence"

    async def test_an_entry_without_a_text_is_not_served(self, verdict: Verdict) -> None:
        (judged,) = await self.judge(verdict, [candidate(None, 1.0)], 1.0)
        assert not judged.serve

    @pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: ascii(text[:12]))
    async def test_a_text_of_any_kind_fits_and_is_judged_or_does_not_fit(self, verdict: Verdict, text: str) -> None:
        if verdict.fits(text):
            (judged,) = await self.judge(verdict, [candidate("How do I reset it?", 0.8)], question=text)
            assert not judged.serve

    async def test_other_scopes_are_asked_for_themselves(self, verdict: Verdict) -> None:
        elsewhere = Scope(Namespace("umbra"), b"questions")
        judged = await verdict.judge(elsewhere, QUESTION, some(), 0.05)
        assert [one.prior for one in judged] == pytest.approx([one.prior for one in await self.judge(verdict, some())])


class TestNear(VerdictConformance):
    @pytest.fixture
    def verdict(self) -> Verdict:
        return Near(0.92)


class TestCalibratedByHand(VerdictConformance):
    """With words for pieces and one tree."""

    @pytest.fixture
    def verdict(self) -> Verdict:
        return CalibratedVerdict(Words(), near(), Learning())


class TestCalibratedAsShipped(VerdictConformance):
    @pytest.fixture
    async def verdict(self) -> AsyncIterator[Verdict]:
        model = await asyncio.to_thread(MiniLM.load)
        yield CalibratedVerdict(model, Prior.load(), Learning())
        await model.close()
