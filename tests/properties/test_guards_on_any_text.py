"""Guards on any text: they never fail, they are symmetric, and what says nothing changes nothing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.guards.guards import NAMES, differences, unfit
from headgate.cache.guards.pair import aligned

_WORDS = st.sampled_from(
    "how what when the a not no never in on to from paris London india 5 12 1,000 $5 50% km miles two half second 3rd v1.2 a@b.cd "
    'https://x.y/z foo_bar 12:30 2024-01-02 "quoted" more less before after red blue good or and C C++ U.S. us US don\'t É 你好 ٣ … 😀'.split()
)
_QUESTIONS = st.lists(_WORDS, max_size=30).map(" ".join)
_TEXTS = st.one_of(st.text(max_size=300), _QUESTIONS)


def _told(one: str, other: str) -> set[tuple[str, str]]:
    return {(seen.guard, seen.severity) for seen in differences(one, other)}


@given(_TEXTS, _TEXTS)
def test_any_two_texts_are_compared_and_each_side_says_the_same(one: str, other: str) -> None:
    assert _told(one, other) == _told(other, one)
    assert {guard for guard, _ in _told(one, other)} <= set(NAMES)


@given(_TEXTS)
def test_no_text_differs_from_itself(text: str) -> None:
    assert differences(text, text) == ()
    assert differences(text, f" {text}\n") == ()


@given(_QUESTIONS)
def test_a_capital_at_the_beginning_and_a_mark_at_the_end_say_nothing(text: str) -> None:
    begun = text[:1].upper() + text[1:]
    assert differences(text, begun) == ()
    assert differences(text, f"{text} ?") == ()
    assert differences(f"{text}!", f"  {begun} ") == ()


@given(_QUESTIONS, _QUESTIONS)
def test_a_capital_at_the_beginning_changes_no_verdict(one: str, other: str) -> None:
    assert _told(one, other) == _told(one[:1].upper() + one[1:], f"{other} ?")


@given(_TEXTS)
def test_every_text_is_fit_or_not_for_a_reason(text: str) -> None:
    assert unfit(text) in {None, "empty", "effect", "volatile", "personal"}


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12))
def test_an_alignment_is_a_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    found = aligned(one, other)
    assert all(one[i] == other[j] for i, j in found)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(found))
    assert len(found) == _longest(one, other)


def _longest(one: list[str], other: list[str]) -> int:
    """The length by the textbook."""
    row = [0] * (len(other) + 1)
    for here in one:
        before = row
        row = [0]
        for at, there in enumerate(other):
            row.append(before[at] + 1 if here == there else max(row[-1], before[at + 1]))
    return row[-1]
