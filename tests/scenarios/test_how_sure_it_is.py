"""Answers by meaning from the shipped model, prior and guards: what is served, what never is, and what is learnt from mistakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from headgate.cache.checks import Ration
from headgate.cache.embedders import MiniLM
from headgate.cache.judge import ExactJudge
from headgate.cache.learning import Learning
from headgate.cache.prior import Prior
from headgate.cache.treatment import CachePolicy
from headgate.cache.verdict import CalibratedVerdict
from headgate.model.tenancy import Principal, Wishes
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.reply import Reply
from tests.scenarios.house import CALLER, House, ask

Open = Callable[..., "Sure"]

RATE = 0.01
FIRST, REWORDED = "How do I cancel a subscription?", "How can I cancel a subscription?"

ALIKE = [
    ("Can I get a refund after 14 days?", "Can I get a refund after 30 days?"),
    ("What does the small plan cost in dollars?", "What does the small plan cost in euros?"),
    ("How do I get from Berlin to Paris?", "How do I get from Paris to Berlin?"),
    ("Can I pay by card?", "Can I not pay by card?"),
    ("Is the museum open on Sunday?", "Is the museum open on Monday?"),
    ("What did Anna Schmidt invent?", "What did Maria Schmidt invent?"),
    ("How do I install version 2.1?", "How do I install version 2.4?"),
    ("How do I turn the heating on?", "How do I turn the heating off?"),
    ("Is it 20 °C in the cellar?", "Is it 20 °F in the cellar?"),
    ("What does error E1001 mean?", "What does error E1010 mean?"),
    ("What is in https://example.com/a?", "What is in https://example.com/b?"),
    ("Explain closures in Python.", "Explain closures in Ruby."),
    ("Describe a glacier in English.", "Describe a glacier in French."),
    ("What is the price?", "What is the price of gold?"),
    ("How do I clean a ring?", "How do I clean a ring of gold?"),
    ("How do I get an invoice?", "How do I cancel an invoice?"),
]
"""Questions with two answers, nearer to each other than many a true rewording."""

SAME = [
    (FIRST, REWORDED),
    (FIRST, "What is the way to cancel a subscription?"),
    ("How long does a delivery take?", "how long does a delivery take"),
    ("How do I reset a password?", "How can I reset a password?"),
    ("How do I clean a ring of gold?", "How can I clean a ring of gold?"),
    ("How many legs does a spider have?", "How many legs do spiders have?"),
]


class Sure(House):
    """A house with what ships. Each question is bought with an answer of its own, unless `scripts` say otherwise."""

    def __init__(self, model: MiniLM, *scripts: Any, rate: float = RATE, **more: Any) -> None:
        learning = Learning(error_rate=rate)
        self.provider = ScriptedProvider(*(scripts or (answer(f"Answer {number}.") for number in range(1, 9))))
        super().__init__(
            {"one": self.provider},
            embedder=model,
            verdict=CalibratedVerdict(model, Prior.load(), learning),
            learning=learning,
            cache=CachePolicy(error_rate=rate),
            **more,
        )

    async def say(self, text: str, caller: Principal = CALLER, **wishes: Any) -> tuple[Reply, str]:
        async with await self.gateway.chat(caller, ask(text), Wishes(**wishes)) as reply:
            said = (await reply.completion()).text
        await self.gateway.flights.idle()
        return reply, said


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    model = await asyncio.to_thread(MiniLM.load)
    yield lambda *scripts, **more: Sure(model, *scripts, **more)
    await model.close()


@pytest.mark.parametrize(("one", "other"), ALIKE)
async def test_look_alikes_never_share_an_answer(opened: Open, one: str, other: str) -> None:
    for asked in ((one, other), (other, one)):
        house = opened(rate=0.05)
        replies = [await house.say(text) for text in asked]
        assert [said for _, said in replies] == ["Answer 1.", "Answer 2."]
        assert replies[1][0].source == "live"


@pytest.mark.parametrize(("one", "other"), SAME)
async def test_a_true_rewording_is_served_and_tells_how_sure_that_is(opened: Open, one: str, other: str) -> None:
    house = opened()
    await house.say(one)
    reply, said = await house.say(other)
    assert (reply.source, said) == ("semantic", "Answer 1.")
    assert reply.trail.confidence is not None
    assert 0.5 < reply.trail.confidence < 1.0, "sure, and never certain"
    assert reply.trail.prior is not None


async def test_a_miss_names_the_guard_that_forbade_it_and_how_near_it_was(opened: Open) -> None:
    house = opened()
    await house.say(ALIKE[0][0])
    reply, _ = await house.say(ALIKE[0][1])
    assert (reply.trail.cache, reply.trail.cache_reason) == ("miss", "number")
    assert reply.trail.judged is not None


async def test_neighbours_with_other_answers_take_nothing_from_each_other(opened: Open) -> None:
    house = opened(rate=0.05)
    texts = [f"What does the plan cost for {seats} seats?" for seats in (5, 10, 20, 50)]
    first = [(await house.say(text))[1] for text in texts]
    assert len(set(first)) == 4
    again = [await house.say(text.replace("What does", "How much does")) for text in texts]
    for (reply, said), own in zip(again, first, strict=True):
        assert said == own or reply.source == "live"


class TestStrictness:
    async def test_who_wants_to_be_surer_than_that_is_not_served(self, opened: Open) -> None:
        house = opened()
        await house.say(FIRST)
        assert (await house.say(REWORDED, min_confidence=1.0))[0].source == "live"

    async def test_who_accepts_no_error_at_all_gets_only_what_is_exact(self, opened: Open) -> None:
        house = opened()
        await house.say(FIRST)
        assert (await house.say(REWORDED, max_error_rate=0.0))[0].source == "live"
        assert (await house.say(REWORDED, max_error_rate=0.0))[0].source == "exact"

    async def test_another_tenant_is_not_served_what_this_one_has_bought(self, opened: Open) -> None:
        house = opened()
        await house.say(FIRST)
        assert (await house.say(REWORDED, Principal(tenant="bolt")))[0].source == "live"


class TestMistakes:
    async def test_an_answer_that_a_user_found_wrong_is_not_served_again(self, opened: Open) -> None:
        house = opened()
        await house.say(FIRST)
        wrong, said = await house.say(REWORDED)
        assert (wrong.source, said) == ("semantic", "Answer 1.")
        heard = await house.gateway.feedback(CALLER, wrong.id, correct=False)
        assert (heard.withdrawn, heard.learned) == (True, True)
        assert "Answer 1." not in [(await house.say(text))[1] for text in (REWORDED, FIRST)]

    async def test_an_entry_that_a_check_found_misjudged_is_served_by_meaning_no_more(self, opened: Open) -> None:
        ration = Ration(share=1.0, chance=1.0)
        house = opened(ration=ration, judge=ExactJudge(otherwise=False))
        first, _ = await house.say(FIRST)
        assert (await house.say(REWORDED))[1] == "Answer 1."
        await house.checking.idle()
        assert house.outcomes == ["wrong"]
        (label,) = house.labels.past()[0]
        assert house.checking.learning.withdrawn(label.scope, first.id)
        # The question has an answer of its own now.
        assert (await house.say(REWORDED))[1] == "Answer 2."
        reply, said = await house.say("how do I cancel a subscription")
        assert (reply.source, said) != ("semantic", "Answer 1.")
        assert (await house.say(FIRST))[1] == "Answer 1.", "to its own question it is still the answer"

    async def test_an_entry_that_a_check_found_right_goes_on_being_served(self, opened: Open) -> None:
        house = opened(answer("As you like."), ration=Ration(share=1.0, chance=1.0), judge=ExactJudge(otherwise=False))
        await house.say(FIRST)
        before, _ = await house.say(REWORDED)
        await house.checking.idle()
        assert house.outcomes == ["right"]
        reply, _ = await house.say("how do I cancel a subscription")
        assert reply.source == "semantic"
        assert before.source == "semantic"

    async def test_a_tenant_that_was_served_wrong_answers_all_the_time_is_served_less(self, opened: Open) -> None:
        house = opened(ration=Ration(share=1.0, chance=1.0), judge=ExactJudge(otherwise=False))
        things = "lamp chair table carpet mirror curtain pillow blanket drawer cupboard".split()
        sources = []
        for thing in things:
            await house.say(f"How do I clean a {thing}?")
            sources.append((await house.say(f"How can I clean a {thing}?"))[0].source)
            await house.checking.idle()
        assert sources[0] == "semantic"
        assert sources[-1] == "live"
        (state,) = house.checking.learning.states("acme")
        assert (state.checked, state.accuracy) == (state.wrong, 0.0)
        assert state.shift < 0.0
