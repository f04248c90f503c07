"""Names for questions that seem to have one answer, and what they change in a verdict."""

from __future__ import annotations

import pytest

from headgate.cache.cache import Candidate, Entry, Judged
from headgate.cache.labels import Scope
from headgate.cache.resemblance import SEEMS, Resemblance
from headgate.cache.verdict import ALONE_AT, Judgement, standing
from headgate.model.tenancy import Key, Namespace

HERE = Scope(Namespace("acme"), b"scope")
THERE = Scope(Namespace("bolt"), b"scope")


def entry(id: str) -> Entry:
    return Entry(id=id, key=Key(HERE.namespace, id.encode()), answer=b"", stored=0.0, expires=0.0)


def judged(id: str, confidence: float, reason: str = "confidence") -> Judged:
    return Judged(entry(id), Judgement(False, confidence, reason))


def names(resemblance: Resemblance, scope: Scope, *ids: str) -> list[str]:
    return [one.seems for one in resemblance.named(scope, [Candidate(entry(id), 0.9) for id in ids])]


def test_at_first_each_has_a_name_of_its_own() -> None:
    assert names(Resemblance(), HERE, "a", "b") == ["a", "b"]


def test_one_takes_the_name_of_the_most_probable_and_hands_it_on() -> None:
    resemblance = Resemblance()
    resemblance.note(HERE, "b", [judged("a", SEEMS), judged("z", 0.1)])
    resemblance.note(HERE, "c", [judged("b", 0.8)])
    assert names(resemblance, HERE, "a", "b", "c", "z") == ["a", "a", "a", "z"]


def test_what_is_not_probable_is_not_resembled() -> None:
    resemblance = Resemblance()
    resemblance.note(HERE, "b", [judged("a", SEEMS - 0.01)])
    resemblance.note(HERE, "c", [])
    assert names(resemblance, HERE, "a", "b", "c") == ["a", "b", "c"]


def test_what_a_guard_objects_to_is_not_resembled() -> None:
    resemblance = Resemblance()
    resemblance.note(HERE, "c", [judged("a", 0.9, "number:14|30"), judged("b", 0.6)])
    assert names(resemblance, HERE, "a", "b", "c") == ["a", "b", "b"]


def test_a_name_is_worth_nothing_in_another_scope() -> None:
    resemblance = Resemblance()
    resemblance.note(HERE, "b", [judged("a", 0.9)])
    assert names(resemblance, THERE, "a", "b") == ["a", "b"]


def test_the_oldest_are_forgotten() -> None:
    resemblance = Resemblance(most=1)
    resemblance.note(HERE, "b", [judged("a", 0.9)])
    resemblance.note(HERE, "c", [judged("a", 0.9)])
    assert names(resemblance, HERE, "b", "c") == ["b", "a"]


@pytest.mark.parametrize(
    ("seeming", "margin"),
    [("aaa", 0.9 - ALONE_AT), ("aab", 0.2), ("abb", 0.05), ("abc", 0.05)],
)
def test_who_shares_its_name_speaks_neither_against_a_candidate_nor_for_it(seeming: str, margin: float) -> None:
    found = standing(0, [0.9, 0.85, 0.7], ["one", "two", "three"], list(seeming))
    assert (found.margin, found.kin, found.kins) == pytest.approx((margin, 0.0, 0.0))


def test_kin_that_are_proven_count_whatever_their_names_are() -> None:
    found = standing(0, [0.9, 0.85, 0.7], ["one", "one", "two"], ["a", "b", "c"])
    assert (found.margin, found.kin, found.kins) == pytest.approx((0.2, 0.85, 1.0))
