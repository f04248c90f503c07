"""The guards on pairs that an embedding holds for twins; `None` pairs are true rewordings that must pass."""

from __future__ import annotations

import re
import sys

import pytest

from headgate.cache import guards
from headgate.cache.guards import MOST, currencies, differing, numbers

PAIRS = [
    # the same in other words
    ("How do I reset my password?", "how can I reset my password", None),
    ("Where is my order?", "Hi, where's my order please?", None),
    ("What is your refund policy?", "What's the refund policy?", None),
    ("Do you ship to Norway?", "Can you ship to Norway?", None),
    ("How long is the warranty?", "How long is your warranty, please?", None),
    ("Good morning, where is my parcel?", "Good evening! Where is my parcel?", None),
    ("Can I cancel my subscription?", "Could I cancel the subscription", None),
    ("I can't log in", "I cannot log in", None),
    ("It doesn't work", "It doesnt work", None),
    ("Is it never not possible to pay?", "Is it possible to pay?", None),
    ("Refund within two weeks?", "Refund within 2 weeks?", None),
    ("Is a deposit of 1,000 dollars fine?", "Is a deposit of 1000 dollars fine?", None),
    ("Can I pay in euros?", "Can I pay in euro?", None),
    ("Send my invoice by e-mail", "Send my invoice by email", None),
    # slips of the keyboard
    ("How do I change my pasword?", "How do I change my password?", None),
    ("Where is my pacrel?", "Where is my parcel?", None),
    ("Cancel my subscriptions", "Cancel my subscription", None),
    ("What are your prices", "What are your price", None),
    # numbers
    ("Refund after 14 days?", "Refund after 30 days?", "number"),
    ("Refund after two weeks?", "Refund after three weeks?", "number"),
    ("Do you have 5 in stock?", "Do you have -5 in stock?", "number"),
    ("Is it safe at +40 degrees?", "Is it safe at -40 degrees?", "number"),
    ("Upgrade to version 1.2", "Upgrade to version 1.3", "number"),
    ("Upgrade to v2", "Upgrade to v3", "number"),
    ("Python 3.1 support", "Python 3.10 support", "number"),
    ("The 2 pm slot", "The 2:30 pm slot", "number"),
    ("A table for two", "A table for twelve", "number"),
    ("Is it free?", "Is it free for 3 users?", "number"),
    ("What happened on 2024-01-02?", "What happened on 2024-02-01?", "number"),
    ("Should I take it once a day?", "Should I take it twice a day?", "number"),
    ("Half of the price", "The price", "number"),
    ("A discount of 1,000", "A discount of 1,000,000", "number"),
    # months and weekdays
    ("Opening hours in January", "Opening hours in February", "number"),
    ("Do you deliver on Sunday?", "Do you deliver on Monday?", "number"),
    ("Is the sale in June?", "Is the sale in July?", "number"),
    # currencies
    ("Is it 5 $?", "Is it 5 €?", "currency"),
    ("What are 20 dollars?", "What are 20 euros?", "currency"),
    ("The price in GBP", "The price in CHF", "currency"),
    ("Can I pay in yen?", "Can I pay?", "currency"),
    # negation
    ("Is shipping included?", "Is shipping not included?", "negation"),
    ("Can I pay with a card?", "Can I pay without a card?", "negation"),
    ("Why is it working?", "Why isn't it working?", "negation"),
    ("Why does it start?", "Why doesnt it start?", "negation"),
    ("Is it refundable?", "Is it non-refundable?", "negation"),
    ("I always get mails", "I never get mails", "negation"),
    ("All rooms except the attic", "All rooms and the attic", "negation"),
    # words that exclude each other and that nothing else looks at
    ("How do I turn on notifications?", "How do I turn off notifications?", "alternative"),
    ("How do I log in?", "How do I log out?", "alternative"),
    ("Can I cancel before shipping?", "Can I cancel after shipping?", "alternative"),
    ("Prices above the average", "Prices below the average", "alternative"),
    ("Are people over 18 allowed?", "Are people under 18 allowed?", "alternative"),
    ("Do you open at 8 am?", "Do you open at 8 pm?", "alternative"),
    ("Are you open in the morning?", "Are you open in the evening?", "alternative"),
    ("Who founded the company?", "When founded the company?", "alternative"),
    ("Where is the meeting?", "When is the meeting?", "alternative"),
    # order and direction
    ("A flight from Lisbon to Berlin", "A flight from Berlin to Lisbon", "order"),
    ("Convert euros to dollars", "Convert dollars to euros", "order"),
    ("Is A-Level harder than Abitur?", "Is Abitur harder than A-Level?", "order"),
    ("Migrate from version 2 to 3", "Migrate from version 3 to 2", "order"),
    ("Does the buyer pay the seller?", "Does the seller pay the buyer?", "order"),
    # one word for another
    ("How do I return shoes?", "How do I return trousers?", "word"),
    ("What is the capital of Austria?", "What is the capital of Australia?", "word"),
    ("How do I enable backups?", "How do I disable backups?", "word"),
    ("Does it cost 5 GB?", "Does it cost 5 MB?", "word"),
    ("Is it on iOS?", "Is it on Android?", "word"),
    ("Does it have USB-A?", "Does it have USB-C?", "word"),
    ("How do I sort in C++?", "How do I sort in C#?", "word"),
    ("How do I sort in C?", "How do I sort in C++?", "word"),
    ("Which foods have vitamin a?", "Which foods have vitamin c?", "word"),
    ("What is in plan B?", "What is in the plan?", "word"),
    ("Tell me about cats", "Tell me about cars", "word"),
    ("Who is Anna Kern?", "Who is Anna Wolf?", "word"),
]


def test_the_table_is_long_enough_and_names_every_guard() -> None:
    assert len(PAIRS) >= 60
    assert {name for _, _, name in PAIRS} == {None, "number", "currency", "negation", "alternative", "order", "word"}


@pytest.mark.parametrize(("one", "other", "guard"), PAIRS)
def test_each_pair_is_told_apart_by_its_guard(one: str, other: str, guard: str | None) -> None:
    assert differing(one, other) == guard


@pytest.mark.parametrize(("one", "other"), [(one, other) for one, other, _ in PAIRS])
def test_guards_are_symmetric(one: str, other: str) -> None:
    assert differing(one, other) == differing(other, one)


@pytest.mark.parametrize("text", [text for one, other, _ in PAIRS for text in (one, other)])
def test_no_question_differs_from_itself(text: str) -> None:
    assert differing(text, text) is None
    assert differing(text, text.upper()) is None or "’" in text


def test_more_detail_on_one_side_is_no_other_question() -> None:
    """One-sided words pass: the embedding sees them, and most rewordings have some."""
    assert differing("How do I return shoes?", "How do I return shoes that I bought here?") is None


def test_longer_texts_than_can_be_compared_are_never_the_same() -> None:
    """Also without spaces, where a count of words would see only one."""
    words = [_name(number) for number in range(MOST + 1)]
    assert differing(",".join(words), ",".join(words)) == "length"
    assert differing(",".join(words[:-1]), ",".join(words[:-1])) is None


def test_numbers_and_currencies_are_read_as_what_they_mean() -> None:
    assert numbers("Two of 1,000 in March, at 12:30, for -5 or 3.5.") == sorted(
        ["2", "1000", "march", "12:30", "-5", "3.5"]
    )
    assert numbers("3-4 at 10.") == ["10", "3-4"]
    assert currencies("5 $ or dollars or USD") == frozenset({"usd"})
    assert currencies("euros, £ and CHF") == frozenset({"eur", "gbp", "chf"})
    assert currencies("I found a pounding") == frozenset()


HUGE = [
    "1" * 100_000,
    "1," * 50_000,
    "+-" * 50_000,
    "1.1.1," * 16_000,
    "a-" * 50_000,
    "a'b'" * 25_000,
    "good " * 20_000,
    "$" * 100_000,
    "usd" * 33_000,
    "x" * 100_000,
    "é" * 100_000,
    " " * 100_000,
    "not " * 25_000,
    " ".join(
        f"{chr(97 + number % 26)}{chr(97 + number // 26 % 26)}{chr(97 + number // 676 % 26)}z"
        for number in range(20_000)
    ),
]


@pytest.mark.parametrize("text", HUGE, ids=range(len(HUGE)))
def test_a_hundred_kilobytes_take_a_bounded_number_of_steps(text: str) -> None:
    """Counted in lines of Python run, not in seconds; the patterns' own steps are the next test's."""
    lines = 0

    def count(frame: object, event: str, arg: object) -> object:
        nonlocal lines
        lines += event == "line"
        return count

    sys.settrace(count)
    try:
        differing(text, text + "y")
    finally:
        sys.settrace(None)
    assert lines < 20 * len(text) + 4 * MOST * MOST


def test_no_pattern_repeats_a_repetition_of_what_it_could_also_split_otherwise() -> None:
    """Inside every repeated group the first character is one that the piece before it cannot match, so there is one way to read a
    text and nothing to go back to."""
    patterns = [value for value in vars(guards).values() if isinstance(value, re.Pattern)]
    assert len(patterns) >= 5
    for pattern in patterns:
        for group in re.findall(r"\((?:\?:)?([^()]*[+*][^()]*)\)[*+]", pattern.pattern):
            assert group.startswith(("[.,:/-]", "['-]", ",")), pattern.pattern


def _name(number: int) -> str:
    """A word of letters that is far from the words of other numbers."""
    return "".join(chr(ord("a") + int(digit)) * 3 for digit in f"{number:03}")
