"""Greetings and thanks are no part of a question, and nothing else is cut off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.courtesy import bare
from headgate.cache.fingerprint import comparable
from headgate.model.chat import ChatRequest


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Hello. How do I track my order? Many thanks", "How do I track my order?"),
        ("Good morning, team! Can I fly today? Thank you very much.", "Can I fly today?"),
        ("Sorry to bother you. Quick question: what is it?\n\nCheers!", "what is it?"),
        ("Please tell me: can I fly? Thanks in advance.", "can I fly?"),
        ("how do i pay, please?", "how do i pay?"),
        ("I lost my card, what now?\nKind regards", "I lost my card, what now?"),
    ],
)
def test_greetings_and_thanks_are_cut_off(text: str, question: str) -> None:
    assert bare(text) == question


@pytest.mark.parametrize(
    "text",
    [
        "How do I say thank you in French?",
        "How do I write many thanks",
        "Who wrote Hello Dolly?",
        "Hello World in Rust?",
        "What does cheers mean?",
        "Hi!",
        "thanks",
        "Please explain the offside rule.",
        "Tell me about Paris",
    ],
)
def test_words_that_the_question_is_about_stay(text: str) -> None:
    assert bare(text) == text


@given(st.text(max_size=300))
def test_what_is_left_is_a_part_of_any_text_and_never_nothing(text: str) -> None:
    left = bare(text)
    assert bool(left.strip()) == bool(text.strip())
    assert len(left) <= len(text)


def test_a_long_text_is_looked_at_only_at_its_ends() -> None:
    assert bare("Hello. " + "x " * 500_000 + "? Thanks") == ("x " * 500_000).strip() + "?"


def test_a_question_is_compared_without_them() -> None:
    request = ChatRequest.parse({"model": "m", "messages": [{"role": "user", "content": "Hi! Where is it? Thanks!"}]})
    assert comparable(request) == "Where is it?"
