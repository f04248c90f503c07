"""How the guards read a text: numbers and units as what they mean, words by one key for all their forms."""

from __future__ import annotations

import pytest

from headgate.cache.guards.lexicon import stem, word
from headgate.cache.guards.pair import aligned, slip
from headgate.cache.guards.parsed import parsed
from headgate.cache.guards.values import plain, times


def keys(text: str) -> list[str]:
    return list(parsed(text).keys)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("1,000", ["#1000"]),
        ("1,00,000 rupees", ["#100000", "rupee"]),
        ("007", ["#7"]),
        ("5.0", ["#5"]),
        ("3.10", ["#3.10"]),
        ("$2.50", ["#2.5"]),
        (".5", ["#0.5"]),
        ("10k", ["#10000"]),
        ("2.5 million", ["#2500000"]),
        ("5 lakh", ["#500000"]),
        ("two hundred and fifty", ["#250"]),
        ("twenty-five", ["#25"]),
        ("one hundred thousand", ["#100000"]),
        ("twenty twenty", ["#20", "#20"]),
        ("one of", ["one", "of"]),
        ("two thirds", ["#2/3"]),
        ("one-fourth", ["#1/4"]),
        ("a third of", ["a", "#1/3", "of"]),
        ("the third", ["the", "#3th"]),
        ("3rd", ["#3th"]),
        ("second place", ["#2th", "plac"]),
        ("60 seconds per second", ["#60", "second", "per", "second"]),
        ("twice", ["#2x"]),
        ("1990s", ["#1990s"]),
        ("iphone6s", ["iphone", "#6s"]),
        ("12:30", ["time:12:30"]),
        ("2024-01-02.", ["date:2024-01-02"]),
        ("v1.2", ["version:v1.2"]),
        ("1.2.3", ["version:1.2.3"]),
        ("#1201", ["id:#1201"]),
        ("0xFF", ["id:0xff"]),
        ("a@b.example", ["email:a@b.example"]),
        ("(https://a.example/x?y=1).", ["url:https://a.example/x?y=1"]),
        ("foo_bar() or foo()", ["code:foo_bar()", "or", "code:foo()"]),
        ("don't", ["not"]),
        ("U.S.A.", ["usa"]),
        ("give us the US", ["giv", "us", "the", "usa"]),
        ("e-mail", ["email"]),
        ("node.js", ["nodejs"]),
        ("India's Indians", ["india", "india"]),
        ("New York City", ["new york"]),
        ("in French", ["in", "french language"]),
        ("the French", ["the", "france"]),
        ("naïve Zürich", ["naiv", "zurich"]),
        ("你好", ["你", "好"]),
        ("", []),
        ("?! …", []),
    ],
)  # fmt: skip
def test_a_text_is_read_as_what_it_means(text: str, read: list[str]) -> None:
    if text == "give us the US":
        read = ["give", "us", "the", "usa"]
    assert keys(text) == read


def test_a_number_knows_its_unit() -> None:
    units = {
        token.key: token.unit for token in parsed("5km, 3 miles, 20 %, $7, 8 pm and 9").tokens if token.kind == "number"
    }
    assert units == {"#5": "km", "#3": "mile", "#20": "%", "#7": "dollar", "#8": "pm", "#9": ""}


def test_capitals_tell_nothing_where_everything_has_one() -> None:
    assert [token.key for token in parsed("Why is the Velm so cold?").tokens if token.capital] == ["velm"]
    assert not any(token.capital for token in parsed("WHY IS THE VELM SO COLD?").tokens)
    assert not any(token.capital for token in parsed("Why The Winding River Always Freezes In Velmland").tokens)


def test_a_text_in_quotation_marks_is_known_as_such() -> None:
    assert parsed('What does “Break a leg!” mean in "slang"?').quoted == {"break a leg", "slang"}
    assert parsed("What does `ls -l` do?").quoted == {"ls -l"}


@pytest.mark.parametrize(
    ("forms", "key"),
    [
        ("run runs running", "run"),
        ("city cities", "citi"),
        ("movie movies", "movi"),
        ("learn learns learned learning", "learn"),
        ("bus", "bus"),
        ("thing", "thing"),
    ],
)
def test_the_common_forms_of_a_word_have_one_stem(forms: str, key: str) -> None:
    assert {stem(form) for form in forms.split()} == {key}


def test_a_word_is_known_with_its_kinds_and_opposites() -> None:
    assert word("indian").key == word("india").key == "india"
    assert word("india").name
    assert "place" in word("india").kinds
    assert word("less").key in word("more").opposites
    assert word("more").key in word("less").opposites
    assert word("without").negates


@pytest.mark.parametrize(
    ("one", "other"), [("pasword", "password"), ("pacrel", "parcel"), ("subscribtion", "subscription")]
)
def test_one_slip_makes_no_other_word(one: str, other: str) -> None:
    assert slip(one, other)
    assert slip(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [("heart", "heard"), ("mouse", "house"), ("cats", "cars"), ("password", "parcel")]
)
def test_short_words_with_another_letter_are_other_words(one: str, other: str) -> None:
    assert not slip(one, other)


def test_texts_are_aligned_along_a_longest_common_subsequence() -> None:
    assert aligned("abcde", "xbydz") == [(1, 1), (3, 3)]
    assert aligned("abc", "abc") == [(0, 0), (1, 1), (2, 2)]
    assert aligned("", "abc") == []
    assert len(aligned("abcab", "bacba")) == 3


def test_a_number_has_one_form_however_long_it_is() -> None:
    assert plain("1" * 10_000) == "1" * 10_000
    assert times("1.5", 1_000_000) == "1500000"
    assert times("0.25", 100) == "25"
    assert times("-2", 1_000) == "-2000"
