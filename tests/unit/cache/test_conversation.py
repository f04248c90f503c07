"""Which questions of a conversation stand alone, which earlier turns shape later answers, and when two conversations are about the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headgate.cache.conversation import FADES, LONGEST, NEAR, SPEAKS, TURNS, Topic, about, leans, mean, steers, topic
from headgate.cache.quantise import quantised, restored
from headgate.model.chat import ChatRequest
from tests.readings import Words

LEANING = {
    "Is it treatable?": "pronoun:it",
    "Where do they live?": "pronoun:they",
    "How old is he?": "pronoun:he",
    "What is her maiden name?": "pronoun:her",
    "Why doesn't its colour fade?": "pronoun:its",
    "How does binge drinking affect them?": "pronoun:them",
    "When was he born and where did he die?": "pronoun:he",
    "How much does it cost to repair it?": "pronoun:it",
    "And for children?": "opener:and",
    "For the children?": "opener:for",
    "What about Norway?": "opener:what about",
    "How about replacing the door?": "opener:how about",
    "Interesting. What about a food truck?": "opener:what about",
    "Why?": "opener:why?",
    "OK, why not?": "opener:why not",
    "Which is the most delicious?": "opener:which is",
    "Which one should I buy?": "opener:which one",
    "Does that hurt?": "demonstrative:does that",
    "What is the treatment for that?": "demonstrative:for that",
    "Who wrote this?": "demonstrative:this",
    "What causes those storms?": "demonstrative:those",
    "Tell me about hotels there.": "place:there",
    "What does a smart one do?": "one:one",
    "Show the other one.": "one:one",
    "What are some others?": "other:others",
    "What other factors led to a war?": "other:other",
    "What else grows in Norway?": "other:else",
    "Is walking good, too?": "other:too",
    "Tell me about the second.": "other:the second",
    "Tell me more about sharks.": "answer:more about",
    "What did you say about sharks?": "answer:you say",
    "Can you give an example?": "answer:example",
    "Summarize the main points of sharks.": "answer:summarize",
    "Is walking cheaper?": "comparison:cheaper",
    "What is the difference for sharks?": "comparison:difference",
    "How does Oslo differ?": "comparison:differ",
    "How reliable is the test?": "definite:the test",
    "Why was the system chosen?": "definite:the system",
    "What are the EU rules?": "definite:the EU rules",
    "What are symptoms?": "bare",
    "What is a typical cost?": "bare",
    "Tell me.": "bare",
    "Und wie lange dauert das nach Norwegen?": "language",
    "Qual é o preço do frete?": "language",
    "送料はいくらですか": "language",
    "?": "language",
    "What is " + "a" * LONGEST: "long",
}

ALONE = (
    "How long does shipping to Norway take?",
    "What is throat cancer?",
    "What are the symptoms of Lyme disease?",
    "What is the history of the Ottoman Empire?",
    "How does the climate of Oslo differ from Norway overall?",
    "What is the difference between a lake and a pond?",
    "Is it safe to eat raw eggs?",
    "How long does it take to learn Spanish?",
    "What does it cost to open a restaurant?",
    "Is there a train from Oslo to Bergen?",
    "Are there any sharks in Norway?",
    "Is coffee cheaper than tea?",
    "Which animals live in Norway?",
    "What is Rock City, and why is it famous?",
    "If sharks sleep, do they stop swimming?",
    "Do sharks eat each other?",
    "What fruits such as apples grow in Norway?",
    "How far away is the sun?",
    "Thanks. What do sharks eat?",
    "What's photosynthesis?",
    "How do sharks that live in Norway sleep?",
)

STEERING = {
    "Answer in French.": "statement",
    "Be brief.": "statement",
    "What is a shark? Be brief.": "statement",
    "What is a shark, in short?": "instruction",
    "Can you keep it simple: what is a shark?": "instruction",
    "Can you always answer politely?": "instruction",
    "Can you explain sharks step by step?": "instruction",
    "Can you pretend to be a shark?": "instruction",
    "What is a shark in French?": "form",
    "Can you list sharks as a table?": "form",
    "I have a bad knee.": "statement",
    "Which exercises help my knee?": "personal",
    "I'm twelve, what is a shark?": "personal",
    "What should I eat when I have a cold?": "personal",
    "Great movie -> positive": "statement",
    "Was ist ein Hai?": "language",
    "What is " + "a" * LONGEST: "long",
}

ASKING = (
    "What is a shark?",
    "OK. Tell me about sharks.",
    "And what about whales?",
    "How do I cook rice?",
    "I would like to learn about sharks.",
    "Besides teeth, what makes sharks dangerous?",
)


def talk(*turns: str, system: str | None = None) -> ChatRequest:
    """What a user said, each but the last with an answer."""
    said = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        said += [{"role": "user", "content": turn}, {"role": "assistant", "content": "Well."}]
    return ChatRequest.parse({"model": "auto", "messages": said[:-1]})


async def topic_of(*turns: str, reader: Any = None) -> Topic | None:
    return await topic(reader or Words(), turns[-1], talk(*turns))


class TestStandingAlone:
    @pytest.mark.parametrize(("text", "reason"), LEANING.items(), ids=lambda text: text[:40])
    def test_a_question_that_points_back_leans(self, text: str, reason: str) -> None:
        found = leans(text)
        assert found == reason

    @pytest.mark.parametrize("text", ALONE)
    def test_a_question_that_says_what_it_is_about_stands_alone(self, text: str) -> None:
        assert leans(text) is None

    def test_a_curly_apostrophe_is_one(self) -> None:
        assert leans("What’s the reason that it’s blue?") == leans("What's the reason that it's blue?") is not None


class TestSteering:
    @pytest.mark.parametrize(("text", "reason"), STEERING.items(), ids=lambda text: text[:40])
    def test_a_turn_that_does_more_than_ask_steers(self, text: str, reason: str) -> None:
        assert steers(text) == reason

    @pytest.mark.parametrize("text", ASKING)
    def test_a_turn_that_asks_does_not(self, text: str) -> None:
        assert steers(text) is None


class TestTurns:
    def test_turns_that_lean_say_nothing_of_what_it_is_about(self) -> None:
        assert about(["What is a shark?", "Is it dangerous?", "What is a whale?"]) == (
            "What is a whale?",
            "What is a shark?",
        )

    def test_a_conversation_may_begin_with_a_turn_that_leans(self) -> None:
        assert about(["Which is the largest shark?"]) == ("Which is the largest shark?",)

    def test_only_the_last_turns_are_looked_at(self) -> None:
        said = [f"What is shark {number}?" for number in range(20)]
        assert about(said) == tuple(reversed(said[-TURNS:]))

    def test_one_turn_that_steers_is_enough_however_long_ago(self) -> None:
        assert about(["Answer in French.", *[f"What is shark {number}?" for number in range(20)]]) == ()


class TestTopic:
    async def test_a_first_turn_is_what_it_is_about_itself_even_if_it_leans(self) -> None:
        for text in ("What do sharks eat?", "Is it dangerous?"):
            found = await topic_of(text)
            assert found is not None
            assert found.before is None
            np.testing.assert_array_equal(found.own, Words().reading(text).vector)

    async def test_later_turns_weigh_more(self) -> None:
        words = Words()
        found = await topic_of("What is a shark?", "What is a reef shark?", "What does a reef shark eat?")
        assert found is not None
        first, second = words.reading("What is a shark?").vector, words.reading("What is a reef shark?").vector
        expected = second + FADES * first
        np.testing.assert_allclose(found.before, expected / np.linalg.norm(expected), atol=1e-6)

    async def test_a_question_that_leans_has_none(self) -> None:
        assert await topic_of("What is a shark?", "Is it a fish?") is None

    async def test_a_question_after_a_turn_that_steers_has_none(self) -> None:
        assert await topic_of("What is a shark in French?", "What does a shark eat?") is None

    async def test_a_question_that_does_not_speak_of_what_was_spoken_of_has_none(self) -> None:
        found = await topic_of("Explain reef sharks.", "Which licenses do restaurants need?")
        assert found is None
        own, before = (
            Words().reading(text).vector for text in ("Which licenses do restaurants need?", "Explain reef sharks.")
        )
        assert float(own @ before) < SPEAKS

    async def test_a_turn_that_the_model_cannot_read_whole_leaves_none(self) -> None:
        turns = "What is a great white reef shark?", "What is a shark?"
        assert await topic_of(*turns) is not None
        assert await topic_of(*turns, reader=Words(longest=5)) is None

    async def test_what_a_tool_said_leaves_none(self) -> None:
        for odd in ({"role": "tool", "tool_call_id": "1", "content": "4"},
                    {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}):  # fmt: skip
            told = talk("What is a shark?", "What is a shark like?")
            request = ChatRequest.parse({**told.body, "messages": [odd, *told.body["messages"]]})
            assert await topic(Words(), "What is a shark like?", request) is None

    async def test_an_assistant_that_spoke_first_leaves_none(self) -> None:
        said = [
            {"role": "assistant", "content": "Do you like sharks?"},
            {"role": "user", "content": "What do sharks eat?"},
        ]
        assert await topic(Words(), "What do sharks eat?", ChatRequest.parse({"model": "m", "messages": said})) is None

    async def test_two_are_near_by_what_came_before_or_else_by_the_question_itself(self) -> None:
        one, other = np.eye(2, dtype=np.float32)
        assert Topic(one, one).near(quantised(one))
        assert Topic(other, one).near(quantised(one))
        assert not Topic(one, other).near(quantised(one))
        assert Topic(one).near(None)
        assert Topic(one).near(quantised(one))
        assert not Topic(one).near(quantised(other))
        assert not Topic(one, other).near(None)

    async def test_how_near_is_near_enough(self) -> None:
        one, other = np.eye(2, dtype=np.float32)
        for cosine, near in ((NEAR + 0.02, True), (NEAR - 0.02, False)):
            assert Topic(one).near(quantised(cosine * one + np.sqrt(1 - cosine**2) * other)) is near

    def test_the_first_of_two_vectors_weighs_more(self) -> None:
        one, other = np.eye(2, dtype=np.float32)
        found = mean([one, other])
        np.testing.assert_allclose(found, np.array([1.0, FADES]) / np.hypot(1.0, FADES), atol=1e-6)

    async def test_what_is_stored_is_what_came_before(self) -> None:
        found = await topic_of("What is a shark?", "What does a shark eat?")
        assert found is not None
        assert found.stored is not None
        assert float(restored(found.stored) @ found.before) > 0.999
        first = await topic_of("What is a shark?")
        assert first is not None
        assert first.stored is None
