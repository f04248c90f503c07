"""The guards on pairs that an embedding holds for twins; `None` pairs are true rewordings that no guard may forbid."""

from __future__ import annotations

import re
import sys

import pytest

from headgate.cache.guards import eligibility, parsed, pieces, values
from headgate.cache.guards.difference import SHORT
from headgate.cache.guards.guards import LONGEST, MOST, Difference, differences

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
    ("How do I sign in?", "How do I log in?", None),
    ("It doesn't work", "It doesnt work", None),
    ("Is it never not possible to pay?", "Is it possible to pay?", None),
    ("Is it safe?", "Is it safe or not?", None),
    ("Refund within two weeks?", "Refund within 2 weeks?", None),
    ("Is a deposit of 1,000 dollars fine?", "Is a deposit of $1000 fine?", None),
    ("Is a discount of 50% possible?", "Is a discount of 50 percent possible?", None),
    ("Is 10k enough?", "Is 10,000 enough?", None),
    ("Is one million enough?", "Is 1,000,000 enough?", None),
    ("Can I eat a quarter of the pizza?", "Can I eat 1/4 of the pizza?", None),
    ("Can I pay in euros?", "Can I pay in euro?", None),
    ("Send my invoice by e-mail", "Send my invoice by email", None),
    ("Is the U.S. larger than Germany?", "Is the USA larger than Germany?", None),
    ("Who rules the United Kingdom?", "Who rules the UK?", None),
    ("What do Indians eat?", "What do people of India eat?", None),
    ("Where is the best café?", "Where is the best cafe?", None),
    ("Is coffee better than tea?", "Is coffee better than tea, please?", None),
    # slips of the keyboard
    ("How do I change my pasword?", "How do I change my password?", None),
    ("Where is my pacrel?", "Where is my parcel?", None),
    ("Cancel my subscriptions", "Cancel my subscription", None),
    ("What are your prices", "What are your price", None),
    # the sides of an "and" or "or"
    ("What is the difference between gold and silver?", "What is the difference between silver and gold?", None),
    (
        "Do people prefer a love marriage or an arranged marriage?",
        "Do people prefer an arranged marriage or a love marriage?",
        None,
    ),
    ("Is man inherently good or inherently evil?", "Is man inherently evil or inherently good?", None),
    # numbers
    ("Refund after 14 days?", "Refund after 30 days?", "number"),
    ("Refund after two weeks?", "Refund after three weeks?", "number"),
    ("Do you have 5 in stock?", "Do you have -5 in stock?", "number"),
    ("Is it safe at +40 degrees?", "Is it safe at -40 degrees?", "number"),
    ("Upgrade to version 1.2", "Upgrade to version 1.3", "number"),
    ("Python 3.1 support", "Python 3.10 support", "number"),
    ("How do I migrate to Python 2?", "How do I migrate to Python 3?", "number"),
    ("What is the price of the iPhone 6?", "What is the price of the iPhone 6s?", "number"),
    ("The 2 pm slot", "The 2:30 pm slot", "number"),
    ("A table for two", "A table for twelve", "number"),
    ("Should I take it once a day?", "Should I take it twice a day?", "number"),
    ("A discount of 1,000", "A discount of 1,000,000", "number"),
    ("Who was the 3rd president?", "Who was the fourth president?", "number"),
    ("Is the range 3-4 safe?", "Is the range 3-5 safe?", "number"),
    ("What does 2 2 3 mean?", "What does 2 3 3 mean?", "number"),
    ("How do I cook for one half?", "How do I cook for one third?", "number"),
    ("How do I update iOS 9.3.4?", "How do I update iOS 9.3.17?", "version"),
    ("Is Rocky II a good film?", "Is Rocky III a good film?", "number"),
    ("What led to World War I?", "What led to World War II?", "alternative"),
    # units and currencies of the same number
    ("How long do 5 km take?", "How long do 5 miles take?", "unit"),
    ("Does it cost 5 GB?", "Does it cost 5 MB?", "unit"),
    ("Do you open at 8 am?", "Do you open at 8 pm?", "unit"),
    ("Is a tip of 10% fine?", "Is a tip of 10 dollars fine?", "percent"),
    ("Is it 5 $?", "Is it 5 €?", "currency"),
    ("What are 20 dollars?", "What are 20 euros?", "currency"),
    ("The price in GBP", "The price in CHF", "currency"),
    # what is written for machines
    ("Upgrade to v2", "Upgrade to v3", "version"),
    ("What is new in 1.2.3?", "What is new in 1.2.4?", "version"),
    ("What happened on 2024-01-02?", "What happened on 2024-02-01?", "date"),
    ("Is 10:30 free?", "Is 11:30 free?", "time"),
    ("What is https://a.example/x?", "What is https://a.example/y?", "url"),
    ("What is shopabc.com?", "What is shopxyz.com?", "url"),
    ("Who is a@b.example?", "Who is c@b.example?", "email"),
    ("What is in /etc/hosts/x?", "What is in /etc/passwd/x?", "path"),
    ("What does read_csv return?", "What does read_json return?", "code"),
    ("Where is order #1201?", "Where is order #1202?", "id"),
    ("What is an h1b visa?", "What is an l1b visa?", "id"),
    ("Can I play mp3 files?", "Can I play mp7 files?", "id"),
    ('What does "break a leg" mean?', 'What does "piece of cake" mean?', "quote"),
    # months and weekdays
    ("Opening hours in January", "Opening hours in February", "date"),
    ("Do you deliver on Sunday?", "Do you deliver on Monday?", "date"),
    ("Is the sale in June?", "Is the sale in July?", "date"),
    # negation
    ("Is shipping included?", "Is shipping not included?", "negation"),
    ("Can I pay with a card?", "Can I pay without a card?", "negation"),
    ("Why is it working?", "Why isn't it working?", "negation"),
    ("Why does it start?", "Why doesnt it start?", "negation"),
    ("Is it refundable?", "Is it non-refundable?", "negation"),
    ("I always get mails", "I never get mails", "direction"),
    ("Is a < b true?", "Is a > b true?", "code"),
    ("What is 5 - 3?", "What is 5 + 3?", "code"),
    ("What does x && y mean?", "What does x || y mean?", "code"),
    ("Is A ≤ B?", "Is A ≥ B?", "code"),
    ("How do I switch from monthly to yearly billing?", "how to switch from yearly to monthly billing", "direction"),
    ("How do I exchange a large for a medium?", "Can you swap the medium for a large?", "direction"),
    (
        "Move money from my savings pot to my current account",
        "How would I move money from my current account to my savings pot?",
        "direction",
    ),
    ("I want to block my card, what do I press?", "I would like to unblock my card, what do I press?", "direction"),
    ("What do outgoing transfers cost?", "What do incoming transfers cost?", "direction"),
    ("Is the outlet open on 2 may", "Will the outlet be open on 2 June?", "date"),
    ("Is a refund possible after 14 days?", "Can I get a refund after 30 days? (ticket 17)", "number"),
    ("All rooms except the attic", "All rooms and the attic", "negation"),
    # opposites
    ("How do I turn on notifications?", "How do I turn off notifications?", "direction"),
    ("How do I log in?", "How do I log out?", "direction"),
    ("Can I cancel before shipping?", "Can I cancel after shipping?", "direction"),
    ("Prices above the average", "Prices below the average", "direction"),
    ("Are people over 18 allowed?", "Are people under 18 allowed?", "direction"),
    ("How do I enable backups?", "How do I disable backups?", "direction"),
    ("How do I increase my score?", "How do I decrease my score?", "direction"),
    ("Should I buy shares?", "Should I sell shares?", "direction"),
    ("What is the maximum speed?", "What is the minimum speed?", "direction"),
    ("Which is the best hotel?", "Which is the worst hotel?", "direction"),
    ("Which is the highest tower?", "Which is the lowest tower?", "direction"),
    ("Is it possible?", "Is it impossible?", "direction"),
    # words that exclude each other
    ("Is a red car safer?", "Is a blue car safer?", "alternative"),
    ("How do I feed a cat?", "How do I feed a dog?", "alternative"),
    ("Are you open in the morning?", "Are you open in the evening?", "alternative"),
    ("Can I take ibuprofen with milk?", "Can I take aspirin with milk?", "alternative"),
    ("Who founded the company?", "When founded the company?", "question"),
    ("Where is the meeting?", "When is the meeting?", "question"),
    # language and form of the answer
    ("Write a poem about rain in French", "Write a poem about rain in German", "language"),
    ("Describe a cat", "Describe a cat in French", "language"),
    ("List the planets as a table", "List the planets in JSON", "format"),
    ("Describe the moon in 50 words", "Describe the moon in 100 words", "number"),
    # names
    ("What is the capital of Austria?", "What is the capital of Australia?", "entity"),
    ("What do Germans eat?", "What do people of France eat?", "entity"),
    ("Is it on iOS?", "Is it on Android?", "entity"),
    ("How do I sort in C++?", "How do I sort in C#?", "entity"),
    ("How do I sort in C?", "How do I sort in C++?", "entity"),
    ("Who is Anna Kern?", "Who is Anna Wolf?", "entity"),
    ("How old is peter?", "How old is alex?", "entity"),
    ("How old is Peter Kern now?", "How old is Alexa Kern now?", "entity"),
    ("Why is the river Velm so cold?", "Why is the river Torn so cold?", "entity"),
    # single letters
    ("Does it have USB-A?", "Does it have USB-C?", "letter"),
    ("Which foods have vitamin a?", "Which foods have vitamin c?", "letter"),
    ("What is in plan B?", "What is in the plan?", "letter"),
    # order and direction
    ("A flight from Lisbon to Berlin", "A flight from Berlin to Lisbon", "order"),
    ("Convert euros to dollars", "Convert dollars to euros", "order"),
    ("Is A-Level harder than Abitur?", "Is Abitur harder than A-Level?", "order"),
    ("Migrate from version 2 to 3", "Migrate from version 3 to 2", "order"),
    ("Does the buyer pay the seller?", "Does the seller pay the buyer?", "order"),
    ("Why do I like you?", "Why do you like I?", "order"),
]

DOUBTS = [
    ("Is it free?", "Is it free for 3 users?", "number"),
    ("Half of the price", "The price", "number"),
    ("Can I pay in yen?", "Can I pay?", "currency"),
    ("Is 50 a lot?", "Is 50% a lot?", "percent"),
    ("How do I return shoes?", "How do I return trousers?", "word"),
    ("Tell me about cats", "Tell me about cars", "word"),
    ("Is it safe to take zolmivex daily?", "Is it safe to take bentorol daily?", "word"),
    ("How do the two largest parties of Norway pay for their members?", "Why does nobody pay for parties?", "negation"),
]

PROBLEM = (
    "Mia picks 12 apples on each of 3 days and gives 7 of the apples to her neighbour. "
    "How many apples does she have left at the end?"
)


def guards_of(one: str, other: str, severity: str) -> set[str]:
    return {seen.guard for seen in differences(one, other) if seen.severity == severity}


def test_the_table_is_long_enough_and_names_every_guard() -> None:
    assert len(PAIRS) >= 100
    assert {name for _, _, name in PAIRS} == {
        None, "number", "unit", "percent", "currency", "version", "date", "time", "url", "email", "path", "code", "id", "quote",
        "negation", "direction", "alternative", "question", "language", "format", "entity", "letter", "order",
    }  # fmt: skip


@pytest.mark.parametrize(("one", "other", "guard"), PAIRS)
def test_each_pair_is_told_apart_by_its_guard(one: str, other: str, guard: str | None) -> None:
    vetoes = guards_of(one, other, "veto")
    assert guard in vetoes if guard else not vetoes


@pytest.mark.parametrize(("one", "other", "guard"), DOUBTS)
def test_what_natural_rewordings_do_as_well_is_doubted_and_not_forbidden(one: str, other: str, guard: str) -> None:
    assert guard in guards_of(one, other, "doubt")
    assert not guards_of(one, other, "veto")


@pytest.mark.parametrize(("one", "other"), [pair[:2] for pair in PAIRS + DOUBTS])
def test_guards_are_symmetric(one: str, other: str) -> None:
    turned = {Difference(seen.guard, seen.severity, seen.other, seen.one) for seen in differences(other, one)}
    assert {(seen.guard, seen.severity) for seen in turned} == {
        (seen.guard, seen.severity) for seen in differences(one, other)
    }


@pytest.mark.parametrize("text", [text for one, other, _ in PAIRS for text in (one, other)])
def test_no_question_differs_from_itself_not_even_shouted(text: str) -> None:
    assert differences(text, text) == ()
    assert not guards_of(text, text.upper(), "veto")


def test_vetoes_come_first_and_say_what_they_saw() -> None:
    seen = differences("Refund after 14 days for shoes?", "Refund after 30 days for trousers?")
    assert [one.severity for one in seen] == sorted((one.severity for one in seen), reverse=True)
    assert seen[0].reason == "number:14|30"


def test_what_is_said_of_a_difference_stays_short() -> None:
    seen = differences("Is " + "x" * 180 + "1 here?", "Is " + "y" * 180 + "2 here?")
    assert seen
    assert all(len(one.one) <= SHORT and len(one.other) <= SHORT for one in seen)


def test_more_detail_on_one_side_is_no_other_question() -> None:
    """One-sided words pass: the embedding sees them, and most rewordings have some."""
    assert differences("How do I return shoes?", "How do I return shoes that I bought here?") == ()


def test_texts_that_differ_in_much_are_left_to_the_vectors() -> None:
    """There a guard separates no better than chance, so it only doubts."""
    one, other = (
        "Should I see the castle in Prague or rest in the park?",
        "Which 3 museums of Vienna are worth the money?",
    )
    assert not guards_of(one, other, "veto")
    assert guards_of(one, other, "doubt")


@pytest.mark.parametrize(
    ("changed", "to", "guard"),
    [
        ("12 apples", "13 apples", "number"),
        ("12 apples", "some apples", "number"),
        ("on each of 3 days", "in total in 3 days", "detail"),
        ("neighbour", "teacher", "detail"),
        ("gives 7 of the apples to", "gives 7 of the apples and a basket to", "detail"),
        ("12 apples on each of 3 days", "3 apples on each of 12 days", "order"),
        ("one", "one", None),
    ],
)
def test_in_a_word_problem_every_word_counts(changed: str, to: str, guard: str | None) -> None:
    vetoes = guards_of(PROBLEM, PROBLEM.replace(changed, to), "veto")
    assert guard in vetoes if guard else not vetoes


def test_an_article_or_a_number_in_words_does_not_make_another_word_problem() -> None:
    assert not guards_of(PROBLEM, PROBLEM.replace("12", "twelve").replace("the apples", "these apples"), "veto")


def test_longer_texts_than_can_be_compared_are_only_the_same_when_they_are() -> None:
    long = "word " * LONGEST
    assert differences(long, long + "?") == ()
    assert [seen.reason for seen in differences(long, long + "more")] == [f"length:{len(long)}|{len(long) + 4}"]
    many = "a1 " * (MOST + 1)
    assert len(many) <= LONGEST
    assert guards_of(many, many + "b2", "veto") == {"length"}


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
    "你" * 100_000,
    " " * 100_000,
    "not " * 25_000,
    '"' * 100_000,
    "two hundred and " * 6_000,
]


@pytest.mark.parametrize("size", [100, 1_000, 7_900, 100_000])
@pytest.mark.parametrize("text", HUGE, ids=range(len(HUGE)))
def test_a_hundred_kilobytes_take_a_bounded_number_of_steps(text: str, size: int) -> None:
    """Counted in lines of Python run, not in seconds; the patterns' own steps are the next test's."""
    lines = 0

    def count(frame: object, event: str, arg: object) -> object:
        nonlocal lines
        lines += event == "line"
        return count

    differences("warm", "up")
    one, other = text[:size], "y " + text[:size] + " z"
    sys.settrace(count)
    try:
        differences(one, other)
    finally:
        sys.settrace(None)
    assert lines < 5_000 + 250 * min(size, LONGEST)


def test_no_pattern_repeats_a_repetition_of_what_it_could_also_split_otherwise() -> None:
    """Inside every repeated group the first character is one that the piece before it cannot match, so there is one way to read a
    text and nothing to go back to. Patterns that go back over one repetition see no more than a part between two blanks."""
    found = [
        value
        for module in (eligibility, parsed, pieces, values)
        for value in vars(module).values()
        if isinstance(value, re.Pattern)
    ]
    assert len(found) >= 7
    for pattern in found:
        for group in re.findall(r"\((?:\?:)?([^()]*[+*][^()]*)\)[*+]", pattern.pattern):
            assert group.startswith((r"\.", "['.&-]", ",", "(?:")), pattern.pattern
