"""The verdict: reads what is near, weighs it, asks what was learnt, and never outvotes a guard."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.cache import Candidate, Entry
from headgate.cache.evidence import FEATURES, SEEN, Standing
from headgate.cache.labels import Label, Scope
from headgate.cache.learning import NOTHING, Learning
from headgate.cache.prior import Prior, Served, Sight
from headgate.cache.reading import EmbedderUnavailable, Reading
from headgate.cache.tuning import Tuning
from headgate.cache.verdict import ALONE_AT, FAR, READ, SAME_WORDS, CalibratedVerdict, Judgement, standing
from headgate.model.tenancy import Key, Namespace
from tests.priors import Node, near, planted
from tests.readings import Words

SHOP = Scope(Namespace("acme"), b"shop")
STRANGE = Scope(Namespace("umbra"), b"shop")
ASKED, REWORDED = "How do I return a lamp?", "How can I return a lamp?"
RATE = 0.05


def candidate(text: str | None = REWORDED, similarity: float = 0.95, *, id: str = "e") -> Candidate:
    entry = Entry(id=id, key=Key(SHOP.namespace, b""), answer=b"", stored=0.0, expires=0.0, text=text)
    return Candidate(entry, similarity)


def label(*, entry: str = "e", right: bool, served: bool = True, own: str = "", confidence: float = 0.99) -> Label:
    return Label(
        scope=SHOP, entry=entry, confidence=confidence, right=right, origin="check", served=served, at=0.0, own=own
    )


class Bench:
    """A verdict, and what it is made of."""

    def __init__(self, prior: Prior | None = None, *, reader: Words | None = None, far: float = FAR) -> None:
        self.reader = reader or Words()
        self.learning = Learning(Tuning(mix=1.0, prevented=0.0))
        self.verdict = CalibratedVerdict(self.reader, prior or near(), self.learning, far=far)

    async def judge(
        self, *candidates: Candidate, rate: float = RATE, scope: Scope = SHOP, question: str = ASKED
    ) -> Sequence[Judgement]:
        return await self.verdict.judge(scope, question, candidates, rate)

    async def one(self, *candidates: Candidate, rate: float = RATE, question: str = ASKED) -> Judgement:
        """The judgement on the first."""
        return (await self.judge(*candidates, rate=rate, question=question))[0]


async def test_what_is_sure_enough_is_served_and_tells_how_sure() -> None:
    judged = await Bench().one(candidate())
    assert judged.serve
    assert judged.reason == "confidence"
    assert judged.confidence == judged.prior == pytest.approx(1.0 / (1.0 + math.exp(-5.0)))
    assert judged.confidence >= judged.bar > 0.0
    assert judged.evidence is not None


async def test_what_is_not_sure_enough_says_what_it_would_have_had_to_be() -> None:
    judged = await Bench(near(odds=1.0, served=[Served(0.9, 9_999, 0)])).one(candidate())
    assert (judged.serve, judged.reason, judged.bar) == (False, "confidence", 0.9)
    assert judged.confidence == pytest.approx(1.0 / (1.0 + math.exp(-1.0)))


async def test_the_bar_itself_is_sure_enough() -> None:
    sure = (await Bench().one(candidate())).confidence
    assert (await Bench(near(served=[Served(sure, 9_999, 0)])).one(candidate())).serve
    assert not (await Bench(near(served=[Served(sure + 1e-9, 9_999, 0)])).one(candidate())).serve


async def test_its_name_changes_with_the_reader_and_the_prior() -> None:
    assert Bench().verdict.identity == f"{Words().identity} {near().identity}"


async def test_a_text_that_the_reader_does_not_see_to_its_end_does_not_fit() -> None:
    verdict = Bench(reader=Words(longest=3)).verdict
    assert verdict.fits("One two three.")
    assert not verdict.fits("One two three four.")


async def test_the_same_words_are_the_same_question_whatever_the_trees_say() -> None:
    doubtful = near(odds=-5.0)
    for text in (ASKED.lower(), "How do I return a lamp", "How do I  return a LAMP?!"):
        assert (await Bench(doubtful).one(candidate(text))).prior == pytest.approx(SAME_WORDS)
    assert (await Bench(doubtful).one(candidate())).prior < 0.1


class TestReading:
    async def test_what_is_far_is_not_read(self) -> None:
        bench = Bench()
        judged = await bench.judge(candidate("Near?", FAR), candidate("Far?", FAR - 0.001), candidate("Farther?", 0.1))
        assert bench.reader.asked == [ASKED, "Near?"]
        assert [one.reason for one in judged] == ["confidence", "similarity", "similarity"]
        assert (judged[1].serve, judged[1].confidence, judged[1].evidence) == (False, 0.0, None)
        assert judged[1].bar == judged[0].bar

    async def test_where_nothing_is_near_nothing_is_read(self) -> None:
        bench = Bench()
        assert [one.serve for one in await bench.judge(candidate(similarity=0.5), candidate(similarity=-1.0))] == [
            False
        ] * 2
        assert bench.reader.asked == []
        assert list(await bench.judge()) == []

    async def test_no_more_are_read_than_a_few(self) -> None:
        bench = Bench()
        judged = await bench.judge(*(candidate(f"Lamp {number}?", 0.9) for number in range(READ + 3)))
        assert len(bench.reader.asked) == READ + 1
        assert [one.evidence is not None for one in judged] == [True] * READ + [False] * 3

    async def test_an_entry_without_a_text_is_not_compared(self) -> None:
        for text in (None, ""):
            assert not (await Bench().one(candidate(text, 1.0))).serve

    async def test_not_a_number_is_not_near(self) -> None:
        bench = Bench()
        judged = await bench.judge(candidate(similarity=math.nan), candidate("Near?"))
        assert (judged[0].serve, judged[0].reason) == (False, "similarity")
        assert bench.reader.asked == [ASKED, "Near?"]

    async def test_each_is_judged_by_itself_and_in_its_place(self) -> None:
        judged = await Bench().judge(
            candidate("Where are gloves sold?", 0.9),
            candidate(similarity=0.2),
            candidate(REWORDED, 0.8),
            rate=RATE,
        )
        assert [one.evidence is None for one in judged] == [False, True, False]
        assert judged[2].confidence > judged[0].confidence

    async def test_a_reader_that_is_unavailable_is_no_judgement(self) -> None:
        class Gone(Words):
            async def read(self, text: str) -> Reading:
                raise EmbedderUnavailable("closed")

        with pytest.raises(EmbedderUnavailable):
            await Bench(reader=Gone()).judge(candidate())


class TestSparing:
    """Where the reader's own similarities are known, what cannot be served need not be read."""

    @pytest.fixture
    def bench(self) -> Bench:
        """Sure of what is covered by more than nine tenths, which no pair is that is not nearer than 0.9."""
        usual, best = (tuple(covered if name == "covered" else 0.0 for name in SEEN) for covered in (0.5, 0.8))
        seldom, always = (tuple(covered if name == "covered" else 0.0 for name in SEEN) for covered in (0.85, 1.0))
        tree = Node(FEATURES.index("covered"), 0.9, left=-5.0, right=5.0)
        sights = (Sight(0.9, usual, best), Sight(1.01, seldom, always))
        return Bench(planted([tree], sights=sights))

    async def spared(self, bench: Bench, *candidates: Candidate, question: str = ASKED) -> list[Judgement]:
        return list(await bench.verdict.judge(SHOP, question, candidates, RATE, sparing=True))

    async def test_what_could_not_be_sure_enough_is_not_read_and_what_could_is(self, bench: Bench) -> None:
        low, high = await self.spared(bench, candidate("How can a lamp be returned?", 0.8), candidate(similarity=0.95))
        assert bench.reader.asked == [ASKED, REWORDED]
        assert (low.serve, low.read, low.reason) == (False, False, "confidence")
        assert low.prior < 0.1
        assert high.read

    async def test_what_a_guard_forbids_is_not_read(self, bench: Bench) -> None:
        (judged,) = await self.spared(
            bench, candidate("Can it go back after 30 days?", 0.99), question="Can it go back after 14 days?"
        )
        assert bench.reader.asked == []
        assert (judged.serve, judged.reason) == (False, "number:14|30")

    async def test_who_does_not_ask_for_it_has_everything_read(self, bench: Bench) -> None:
        (judged,) = await bench.judge(candidate(similarity=0.8))
        assert bench.reader.asked == [ASKED, REWORDED]
        assert judged.read

    async def test_a_prior_that_does_not_know_what_is_usual_spares_nothing(self) -> None:
        bench = Bench()
        await self.spared(bench, candidate(similarity=0.71))
        assert bench.reader.asked == [ASKED, REWORDED]

    @given(similarity=st.floats(0.5, 1.0), covered=st.floats(0.0, 1.0))
    async def test_it_spares_nothing_that_would_be_served(self, similarity: float, covered: float) -> None:
        least = tuple(0.0 for _ in SEEN)
        best = tuple(covered if name == "covered" else 0.0 for name in SEEN)
        tree = Node(FEATURES.index("covered"), 0.9, left=-5.0, right=5.0)
        bench = Bench(planted([tree], sights=[Sight(1.01, least, best)]))
        (judged,) = await self.spared(bench, candidate("How can I send a lamp?", similarity))
        assert judged.serve <= judged.read


class TestGuards:
    """The floor under what was learnt from examples."""

    @given(odds=st.floats(-30.0, 30.0), rights=st.integers(0, 20), rate=st.floats(0.0, 1.0))
    async def test_a_veto_is_never_outvoted(self, odds: float, rights: int, rate: float) -> None:
        bench = Bench(near(-1.0, odds=odds))
        for _ in range(rights):
            bench.learning.learn(label(right=True))
        judged = await bench.one(
            candidate("Can it go back after 30 days?", 1.0), rate=rate, question="Can it go back after 14 days?"
        )
        assert (judged.serve, judged.reason) == (False, "number:14|30")

    async def test_a_veto_is_told_with_what_the_evidence_alone_would_have_said(self) -> None:
        judged = await Bench(near(-1.0)).one(candidate("Refund after 30 days?", 0.99), question="Refund after 14 days?")
        assert judged.prior > 0.9
        assert judged.evidence is not None
        assert judged.evidence.veto is not None

    async def test_a_doubt_is_weighed_and_forbids_nothing(self) -> None:
        judged = await Bench(near(-1.0)).one(
            candidate("Which planet is the biggest?"), question="Which planet is the largest?"
        )
        assert judged.evidence is not None
        assert {one.severity for one in judged.evidence.differences} <= {"doubt"}
        assert judged.serve


class TestLearning:
    async def test_an_entry_that_was_wrong_when_it_was_served_is_withdrawn_however_sure_it_seems(self) -> None:
        bench = Bench()
        bench.learning.learn(label(right=False))
        judged = await bench.one(candidate(), rate=0.9)
        assert (judged.serve, judged.reason) == (False, "withdrawn")
        assert (await bench.one(candidate(id="another"), rate=0.9)).reason == "confidence"

    async def test_a_veto_is_told_before_a_withdrawal(self) -> None:
        bench = Bench(near(-1.0))
        bench.learning.learn(label(right=False))
        judged = await bench.one(candidate("Refund after 30 days?"), question="Refund after 14 days?")
        assert judged.reason == "number:14|30"

    async def test_labels_move_the_confidence_and_leave_the_prior_as_it_was(self) -> None:
        bench = Bench()
        before = await bench.one(candidate())
        for number in range(60):
            bench.learning.learn(label(entry=str(number), right=number % 3 > 0, served=False))
        after = await bench.one(candidate())
        assert after.confidence < before.confidence
        assert after.prior == before.prior

    async def test_what_one_scope_has_learnt_of_an_entry_is_nothing_to_another(self) -> None:
        bench = Bench()
        bench.learning.learn(label(right=False))
        (judged,) = await bench.judge(candidate(), scope=STRANGE)
        assert judged.reason == "confidence"

    async def test_the_bar_is_the_one_of_the_scope_and_what_it_has_served(self) -> None:
        bench = Bench(near(served=[Served(0.6, 999, 29), Served(0.9, 999, 9)]))
        assert (await bench.one(candidate(), rate=0.01)).bar == 0.9
        for _ in range(2_000):
            bench.learning.served(SHOP, "exact")
        judged = await bench.one(candidate(), rate=0.01)
        assert judged.bar == bench.learning.last_bar(SHOP) == 0.6, "exact answers make room for doubtful ones"
        (elsewhere,) = await bench.judge(candidate(), rate=0.01, scope=STRANGE)
        assert elsewhere.bar == 0.9

    async def test_of_a_candidate_alone_the_prior_knows_less(self) -> None:
        bench = Bench(near(served=[Served(0.6, 999, 9)], alone=[Served(0.8, 999, 9)]))
        assert (await bench.one(candidate(), rate=0.01)).bar == 0.8
        assert (await bench.one(candidate(), candidate("Far?", 0.1), rate=0.01)).bar == 0.6

    async def test_a_scope_that_is_off_serves_nothing_and_goes_on_judging(self) -> None:
        bench = Bench()
        await bench.one(candidate(), rate=0.01)
        for number in range(400):
            bench.learning.learn(label(entry=str(number), right=False, confidence=0.9999))
            if bench.learning.state(SHOP).drift == "off":
                break
        judged = await bench.one(candidate(), rate=0.01)
        assert (judged.serve, judged.bar) == (False, NOTHING)
        assert judged.evidence is not None

    @pytest.mark.parametrize("prior", [near(served=[Served(0.5, 10**9, 0)]), near(served=[Served(0.0, 10**12, 0)])])
    async def test_who_accepts_no_error_at_all_is_served_nothing_by_meaning(self, prior: Prior) -> None:
        assert not (await Bench(prior).one(candidate(similarity=1.0), rate=0.0)).serve

    async def test_the_known_kin_of_a_candidate_are_evidence_for_it(self) -> None:
        bench = Bench()
        near_by = candidate(), candidate("Lamps?", 0.9, id="kin"), candidate("Chairs?", 0.85, id="other")
        alone = await bench.one(*near_by)
        bench.learning.learn(label(entry="e", right=True, own="kin"))
        among = await bench.one(*near_by)
        assert alone.evidence is not None
        assert among.evidence is not None
        assert alone.evidence.standing == Standing(pytest.approx(0.05), 0.0, 0.0)
        assert among.evidence.standing == Standing(pytest.approx(0.10), 0.9, 1.0)


@pytest.mark.parametrize(
    ("place", "cosines", "families", "stands"),
    [
        (0, [0.9, 0.8], "ab", (0.1, 0.0, 0)),
        (1, [0.9, 0.8], "ab", (-0.1, 0.0, 0)),
        (0, [0.9, 0.8, 0.7], "abc", (0.1, 0.0, 0)),
        (0, [0.9, 0.8, 0.7], "aab", (0.2, 0.8, 1)),
        (1, [0.9, 0.8, 0.7], "aab", (0.1, 0.9, 1)),
        (2, [0.9, 0.8, 0.7], "aab", (-0.2, 0.0, 0)),
        (0, [0.9, 0.8, 0.7, 0.6], "abaa", (0.1, 0.7, 2)),
        (0, [0.9, 0.8, 0.7], "aaa", (0.9 - ALONE_AT, 0.8, 2)),
        (0, [0.9, 0.2], "ab", (0.9 - ALONE_AT, 0.0, 0)),
    ],
)
def test_the_margin_is_to_the_nearest_with_another_answer_and_kin_have_the_same(
    place: int, cosines: list[float], families: str, stands: tuple[float, float, int]
) -> None:
    found = standing(place, cosines, list(families))
    assert (found.margin, found.kin, found.kins) == pytest.approx(stands)


def test_alone_there_is_no_standing() -> None:
    stands = standing(0, [0.9], ["a"])
    assert all(math.isnan(one) for one in (stands.margin, stands.kin, stands.kins))
