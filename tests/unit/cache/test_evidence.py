"""What is known of a pair of questions: the same whichever comes first, and each number for a reason that can be said in a sentence."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.embedders import MiniLM
from headgate.cache.evidence import FEATURES, Evidence, Standing, gather, row
from headgate.cache.guards.guards import NAMES
from headgate.cache.reading import Reading
from tests.readings import Words

WORDS = Words()
ALONE = set(Standing.__struct_fields__)
"""What is unknown of a candidate that nothing else is near to."""
TEXTS = st.text(max_size=60) | st.lists(
    st.sampled_from(
        "what is not the price of gold Gold refund after 14 30 days $20 €20 isn't from Berlin to Paris who who's".split()
    ),
    max_size=14,
).map(" ".join)

Pair = Callable[[str, str], Evidence]

PRICE, GOLD = "What is the price?", "What is the price of gold?"
RESET, RESET_TOO = "How do I reset my password?", "How can I reset my password?"
DAYS = "Can I send it back after 14 days?", "Can I send it back after 30 days?"
BERLIN, PARIS = "How do I get from Berlin to Paris?", "How do I get from Paris to Berlin?"
CARD, NO_CARD = "Can I pay by card?", "Can I not pay by card?"
WHO, WHERE = "Who sells these lamps?", "Where are these lamps sold?"
ANNA, MARIA = "What did Anna write?", "What did Maria write?"
READ = (PRICE, GOLD, RESET, RESET_TOO, *DAYS, BERLIN, PARIS, CARD, NO_CARD, WHO, WHERE, ANNA, MARIA, "")


@pytest.fixture(scope="module")
def pair() -> Pair:
    """Evidence on two of the sentences above, as the built-in model reads them."""

    async def read() -> tuple[dict[str, Reading], object]:
        model = await asyncio.to_thread(MiniLM.load)
        readings = await asyncio.gather(*map(model.read, READ))
        await model.close()
        return dict(zip(READ, readings, strict=True)), model.rarity

    readings, rarity = asyncio.run(read())
    return lambda one, other: gather(readings[one], readings[other], rarity)


def of_words(one: str, other: str) -> Evidence:
    """Evidence by a reader that knows no language."""
    return gather(WORDS.reading(one), WORDS.reading(other), WORDS.rarity)


def measured(evidence: Evidence) -> list[float]:
    """Its numbers, to what rounding may differ in, and its objections by guard."""
    return [round(one, 5) for one in row(evidence) if not math.isnan(one)]


class TestSymmetry:
    @given(one=TEXTS, other=TEXTS)
    def test_it_does_not_matter_which_was_asked_first(self, one: str, other: str) -> None:
        assert row(of_words(one, other)) == pytest.approx(row(of_words(other, one)), abs=1e-5, nan_ok=True)
        assert (of_words(one, other).veto is None) == (of_words(other, one).veto is None)

    def test_nor_for_what_the_model_reads(self, pair: Pair) -> None:
        for one, other in zip(READ, READ[1:] + READ[:1], strict=True):
            assert measured(pair(one, other)) == pytest.approx(measured(pair(other, one)), abs=2e-5)

    @given(one=TEXTS, other=TEXTS)
    def test_every_number_is_one(self, one: str, other: str) -> None:
        evidence = of_words(one, other)
        for name in ("similarity", "opening", "covered", "covered_most", "worst"):
            assert -1.01 <= getattr(evidence, name) <= 1.01, name
        for name in ("shared", "contained", "length", "sequence"):
            assert -0.01 <= getattr(evidence, name) <= 1.01, name
        for least, most in (
            ("covered", "covered_most"),
            ("lost", "lost_most"),
            ("rare", "rare_most"),
            ("only", "only_most"),
        ):
            assert getattr(evidence, least) <= getattr(evidence, most)
        assert all(
            math.isfinite(value) for name, value in zip(FEATURES, row(evidence), strict=True) if name not in ALONE
        )


class TestPieces:
    def test_gold_is_left_without_a_partner(self, pair: Pair) -> None:
        evidence, reworded = pair(PRICE, GOLD), pair(RESET, RESET_TOO)
        assert evidence.worst < 0.3
        assert reworded.worst > 0.8
        assert evidence.rare_most > 0.5
        assert reworded.rare_most < 0.2
        assert evidence.lost_most > 2 * reworded.lost_most

    def test_only_the_longer_of_the_two_lacks_anything(self, pair: Pair) -> None:
        """All of "the price" is in "the price of gold"."""
        evidence = pair(PRICE, GOLD)
        assert evidence.rare < 0.2
        assert (evidence.contained, evidence.only, evidence.added, evidence.replaced) == (1.0, 0.0, 1.0, 0.0)
        assert evidence.only_most > 1.0
        assert evidence.covered < evidence.covered_most

    def test_a_question_is_like_itself_in_everything(self, pair: Pair) -> None:
        evidence = pair(GOLD, GOLD)
        for name in (
            "similarity",
            "opening",
            "covered",
            "worst",
            "shared",
            "contained",
            "length",
            "sequence",
            "asking",
        ):
            assert getattr(evidence, name) == pytest.approx(1.0, abs=2e-3), name
        for name in ("lost_most", "rare_most", "only_most", "replaced", "added", "figures", "names", "negated"):
            assert getattr(evidence, name) == pytest.approx(0.0, abs=2e-3), name
        assert evidence.differences == ()

    def test_a_rewording_is_covered_and_says_how_little_is_its_own(self, pair: Pair) -> None:
        evidence = pair(RESET, RESET_TOO)
        assert evidence.similarity > 0.95
        assert evidence.covered > 0.95
        assert (evidence.replaced, evidence.added) == (1.0, 0.0)
        assert evidence.only_most < 0.5, "do and can say next to nothing"

    def test_a_text_without_a_piece_has_no_partner_for_anything(self, pair: Pair) -> None:
        for other in ("", GOLD):
            evidence = pair("", other)
            assert (evidence.covered, evidence.covered_most, evidence.worst) == (0.0, 0.0, 0.0)
            assert (evidence.lost, evidence.lost_most, evidence.rare, evidence.rare_most) == (1.0, 1.0, 1.0, 1.0)
            assert (evidence.shared, evidence.contained, evidence.length, evidence.shorter) == (0.0, 0.0, 0.0, 0.0)


class TestWords:
    def test_other_numbers_are_counted_and_forbidden(self, pair: Pair) -> None:
        evidence = pair(*DAYS)
        assert (evidence.figures, evidence.figures_shared) == (2.0, 0.0)
        assert evidence.veto is not None
        assert evidence.veto.reason == "number:14|30"

    def test_the_same_number_is_shared(self, pair: Pair) -> None:
        assert pair(DAYS[0], DAYS[0]).figures_shared == 1.0

    def test_the_same_words_in_another_order_say_so(self, pair: Pair) -> None:
        evidence = pair(BERLIN, PARIS)
        assert evidence.similarity > 0.95
        assert (evidence.shared, evidence.only_most) == (1.0, 0.0)
        assert evidence.sequence < 0.9
        assert evidence.veto is not None

    def test_one_that_is_negated_is_told_from_one_that_is_not(self, pair: Pair) -> None:
        assert (pair(CARD, NO_CARD).negated, pair(CARD, CARD).negated) == (1.0, 0.0)

    def test_a_contraction_negates_too(self) -> None:
        for negated in ("This isn't open.", "This isn’t open.", "This is not open.", "This is never open."):
            assert of_words("This is open.", negated).negated == 1.0

    def test_who_and_where_ask_for_other_things(self, pair: Pair) -> None:
        assert (pair(WHO, WHERE).asking, pair(PRICE, GOLD).asking) == (0.0, 1.0)

    def test_names_that_only_one_has_are_counted_on_both_sides(self, pair: Pair) -> None:
        assert pair(ANNA, MARIA).names == 2.0
        assert of_words("What did anna write?", "What did Anna write?").names == 0.0, "the same name in small letters"

    def test_a_long_text_is_aligned_by_its_beginning_and_the_same_only_to_its_end(self) -> None:
        one = " ".join(f"word{number}" for number in range(500))
        evidence = of_words(one, one + " and more")
        assert (evidence.sequence, evidence.same_words) == (1.0, False)
        assert of_words(one, one + ".").same_words

    @pytest.mark.parametrize(
        "other",
        [
            "how do I reset it",
            "How do I  reset it ?",
            "How do I reset it?!",
            "HOW DO I RESET IT?",
            " How do I reset it…",
            "How do I, reset it?",
        ],
    )
    def test_capitals_blanks_and_the_marks_of_sentences_make_no_other_words(self, other: str) -> None:
        assert of_words("How do I reset it?", other).same_words

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("What is 5 - 3?", "What is 5 + 3?"),
            ("Is a < b?", "Is a > b?"),
            ("What does && do?", "What does || do?"),
            ("What does a ? b mean?", "What does a ! b mean?"),
            ("What does 😀 mean?", "What does 😢 mean?"),
            ("Is A ∧ B?", "Is A ∨ B?"),
            ("Refund after 14 days?", "Refund after 30 days?"),
            ("How do I reset it?", "How can I reset it?"),
        ],
    )
    def test_any_other_sign_may_be_what_it_is_about(self, one: str, other: str) -> None:
        assert not of_words(one, other).same_words


class TestRow:
    def test_there_is_a_number_for_every_name(self, pair: Pair) -> None:
        assert len(row(pair(*DAYS))) == len(FEATURES) == len(set(FEATURES))

    def test_a_veto_weighs_more_than_a_doubt_and_what_no_guard_saw_nothing(self, pair: Pair) -> None:
        evidence = pair(*DAYS)
        known = dict(zip(FEATURES, row(evidence), strict=True))
        assert known["guard:number"] == 2.0
        assert sum(known[f"guard:{name}"] for name in NAMES) == 2.0
        doubted = msgspec.structs.replace(
            evidence,
            differences=tuple(msgspec.structs.replace(one, severity="doubt") for one in evidence.differences),
        )
        assert dict(zip(FEATURES, row(doubted), strict=True))["guard:number"] == 1.0
        assert doubted.veto is None

    def test_of_a_candidate_that_stands_alone_its_neighbours_are_unknown(self, pair: Pair) -> None:
        known = dict(zip(FEATURES, row(pair(PRICE, GOLD)), strict=True))
        assert all(math.isnan(known[name]) for name in ALONE)

    def test_where_it_stands_is_said_beside_what_it_is(self) -> None:
        among = gather(WORDS.reading(PRICE), WORDS.reading(GOLD), WORDS.rarity, Standing(0.1, 0.9, 2.0))
        known = dict(zip(FEATURES, row(among), strict=True))
        assert (known["margin"], known["kin"], known["kins"]) == (0.1, 0.9, 2.0)
        alone = dict(zip(FEATURES, row(of_words(PRICE, GOLD)), strict=True))
        assert {name: value for name, value in known.items() if name not in ALONE} == {
            name: value for name, value in alone.items() if name not in ALONE
        }
