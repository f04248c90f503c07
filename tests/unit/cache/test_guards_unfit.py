"""Questions that are not answered by meaning at all, and those that look like them and are."""

from __future__ import annotations

import pytest

from headgate.cache.guards.guards import unfit

CASES = {
    "empty": ["", " ", "?!", "...", "😀😀", "\x00\x07", "___", "–"],
    "volatile": [
        "What is the weather in Oslo?",
        "What's the latest version of the app?",
        "What is the current price of gold?",
        "Are you open right now?",
        "Is the shop open today?",
        "What happened this week?",
        "What time is it?",
        "Who is winning?",
        "Is it still in stock?",
        "What is the exchange rate of the yen?",
    ],
    "personal": [
        "Where is my order?",
        "What is my account balance?",
        "Why was my card declined?",
        "When does my subscription end?",
        "Has our last invoice been paid?",
        "Was I charged twice?",
    ],
    "effect": [
        "Cancel my subscription",
        "Please delete all my files!",
        "Could you send him an email?",
        "Buy two tickets",
        "Hi, can you please close my account?",
        "Turn off my notifications",
        "Transfer $50 to Anna",
        "Book a table",
    ],
}
FIT = [
    "How do I improve my English?",
    "How can I lose my weight?",
    "How do I cancel my subscription?",
    "Can I cancel my subscription?",
    "What happens if my parcel is lost?",
    "How do I delete my account?",
    "Cancel culture and its critics",
    "Order of operations in algebra",
    "Book recommendations for children",
    "Delete the last element of a list in Python",
    "Write an email that thanks a customer",
    "Who knows what electric current is?",
    "What is a weather balloon?",
    "What is nowcasting?",
    "你好吗",
    "42",
]


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in CASES.items() for text in texts])
def test_a_question_that_no_stock_can_answer_says_why(reason: str, text: str) -> None:
    assert unfit(text) == reason


@pytest.mark.parametrize("text", FIT)
def test_advice_and_look_alikes_are_answered_by_meaning(text: str) -> None:
    assert unfit(text) is None


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    assert unfit("word " * 2_000 + "today") is None
    assert unfit("?" * 10_000 + "word") == "empty"
