"""Questions that come all at once, through the shipped model, prior and guards: who shares a call, and who never does."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import pytest

from headgate.cache.embedders import MiniLM
from headgate.cache.learning import Learning
from headgate.cache.prior import Prior
from headgate.cache.static import FirstStage, StaticEmbedder
from headgate.cache.treatment import CachePolicy
from headgate.cache.verdict import CalibratedVerdict
from headgate.model.chat import ChatRequest, Event
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.tenancy import Wishes
from headgate.providers.scripted import ScriptedProvider, answer
from tests.scenarios.house import House, ask, caller

MADE_FOR = "This was made for: "

PEOPLE = ("Anna Schmidt", "Maria Schmidt", "John Keller", "Peter Novak", "Laura Rossi", "James Brown", "Sofia Brown")
PLACES = ("Berlin", "Paris", "Madrid", "Vienna", "Oslo", "Lisbon", "Prague", "Dublin")
NUMBERS = ("3", "5", "14", "15", "30", "50", "200", "1,500")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
YEARS = ("1914", "1939", "1945", "1969", "1989", "2001", "2016")
VERSIONS = ("2.1", "2.4", "3.0", "3.11", "10.2")
LANGUAGES = ("Python", "Java", "Ruby", "Rust", "Haskell")
MONEY = ("dollars", "euros", "pounds", "yen")


def filled(*templates: str, **values: Sequence[str]) -> list[str]:
    """Each template with each choice of values, no value twice in one text."""
    names = list(values)
    found = []
    for chosen in itertools.product(*values.values()):
        if len(set(chosen)) == len(chosen):
            found += [template.format(**dict(zip(names, chosen, strict=True))) for template in templates]
    return found


SWAPPED = {
    "a name": filled("What did {one} invent?", one=PEOPLE)
    + filled("Is {one} married to {two}?", one=PEOPLE, two=PEOPLE[:2]),
    "a place": filled("What is the best time to visit {one}?", one=PLACES)
    + filled("How many people live in {one}?", one=PLACES),
    "a direction": filled("How do I get from {one} to {two}?", one=PLACES, two=PLACES),
    "a number": filled("Can I get a refund after {one} days?", one=NUMBERS)
    + filled("What does the plan cost for {one} seats?", one=NUMBERS)
    + filled("How much is {one} plus {two}?", one=NUMBERS, two=NUMBERS[:3]),
    "a date": filled("Is the museum open on {one}?", one=DAYS) + filled("What happened in Europe in {one}?", one=YEARS),
    "a version": filled("How do I install version {one}?", one=VERSIONS)
    + filled("How do I move from version {one} to version {two}?", one=VERSIONS, two=VERSIONS),
    "a language": filled("How do I sort a list in {one}?", one=LANGUAGES)
    + filled("How do I translate a program from {one} to {two}?", one=LANGUAGES, two=LANGUAGES),
    "a currency": filled("What does the small plan cost in {one}?", one=MONEY)
    + filled("How do I change {one} into {two}?", one=MONEY, two=MONEY),
    "a negation": [
        text
        for things in ("pay by card", "bring a dog", "leave early", "park here", "smoke outside", "use the lift")
        for text in (f"Can I {things}?", f"Can I not {things}?")
    ],
    "on and off": [
        text
        for things in ("the heating", "the alarm", "the camera", "the light", "the radio", "the microphone")
        for text in (f"How do I turn {things} on?", f"How do I turn {things} off?")
    ],
}
"""Each text has an answer of its own, though most are nearer to one another than many a true rewording."""

WORDINGS = (
    "How do I reset a password?",
    "How can I reset a password?",
    "How would I reset a password?",
    "How does one reset a password?",
    "how to reset a password",
    "What is the way to reset a password?",
    "What are the steps to reset a password?",
    "Please tell me how to reset a password.",
    "Could you explain how to reset a password?",
    "What do I have to do to reset a password?",
)


class Telling(ScriptedProvider):
    """Says what it was asked, once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.go = asyncio.Event()

    async def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        """The question, as the answer."""
        asked = request.question or ""
        self.asked.append(asked)
        await self.go.wait()
        for event in answer(MADE_FOR + asked):
            yield event


class Square(House):
    """A gateway with what ships, and people who all ask before the provider has said a word."""

    def __init__(self, model: MiniLM, *, rate: float = 0.01, stage: FirstStage | None = None) -> None:
        learning = Learning(error_rate=rate)
        self._model = model
        self.telling = Telling()
        super().__init__(
            {"one": self.telling},
            embedder=model,
            verdict=CalibratedVerdict(model, Prior.load(), learning),
            learning=learning,
            cache=CachePolicy(error_rate=rate),
            stage=stage,
            embedding_patience=60.0,
            follower_patience=60.0,
        )

    async def ask(self, *texts: str) -> dict[str, tuple[str, str]]:
        """By what was asked: the question that the answer was made for, and its source."""
        for text in texts:
            await self._model.embed(text)  # so that they come in this order
        self.telling.go.clear()
        asking = [asyncio.ensure_future(self._one(text, stream=place % 2 == 1)) for place, text in enumerate(texts)]
        wanted = len(self.telling.asked) + len(texts)
        async with asyncio.timeout(60.0):
            while len(self.telling.asked) + self._following() < wanted:
                await asyncio.sleep(0)
        self.telling.go.set()
        told = await asyncio.gather(*asking)
        await self.flown()
        return dict(zip(texts, told, strict=True))

    def _following(self) -> int:
        """Flights that follow another now."""
        places = self.gateway._following.twins._places.values()
        return sum(asking.flight.twins for place in places for asking in place.askings)

    async def _one(self, text: str, *, stream: bool) -> tuple[str, str]:
        who = caller(concurrency=10_000, rpm=100_000)
        async with await self.gateway.chat(who, ask(text, stream=stream), Wishes()) as reply:
            said = (await reply.completion()).text
            return said.removeprefix(MADE_FOR), reply.source


@pytest.fixture
async def model() -> AsyncIterator[MiniLM]:
    loaded = await asyncio.to_thread(MiniLM.load)
    yield loaded
    await loaded.close()


@pytest.mark.parametrize("swapped", SWAPPED)
async def test_questions_in_which_one_thing_is_another_never_share_a_flight(model: MiniLM, swapped: str) -> None:
    texts = SWAPPED[swapped]
    random.Random(swapped).shuffle(texts)
    house = Square(model, rate=0.05)
    told = await house.ask(*texts)
    assert {text: made_for for text, (made_for, _) in told.items() if made_for != text} == {}
    assert sorted(house.telling.asked) == sorted(texts)


async def test_ten_wordings_of_one_question_are_answered_by_few_calls(model: MiniLM) -> None:
    house = Square(model)
    told = await house.ask(*WORDINGS)
    assert len(house.telling.asked) <= 3
    assert {source for _, source in told.values()} == {"live", "coalesced-semantic"}


async def test_look_alikes_in_the_same_burst_are_answered_by_themselves(model: MiniLM) -> None:
    others = ("How do I reset a router?", "How do I save a password?", "Who may reset a password?")
    house = Square(model)
    told = await house.ask(*(text for pair in itertools.zip_longest(WORDINGS, others) for text in pair if text))
    assert [told[text] for text in others] == [(text, "live") for text in others]
    assert not {made_for for made_for, _ in map(told.__getitem__, WORDINGS)} & set(others)


async def test_two_that_were_answered_side_by_side_keep_nobody_from_the_answer_of_either(model: MiniLM) -> None:
    """The third lies so near to both that each would speak against the other, had it not been seen that they resemble one another."""
    side_by_side = ("Could you explain how I pay my invoice by bank transfer?", "pay invoice by bank transfer")
    house = Square(model)
    third = "How do I pay my invoice by bank transfer?"
    told = await house.ask(*side_by_side, third)
    assert [told[text] for text in side_by_side] == [(text, "live") for text in side_by_side]
    assert told[third] == (side_by_side[0], "coalesced-semantic")


async def test_that_nothing_near_is_in_stock_keeps_nobody_from_sharing_a_call(model: MiniLM) -> None:
    static = await asyncio.to_thread(StaticEmbedder.load)
    house = Square(model, stage=FirstStage(static))
    await house.ask("Where is the moon?")  # so that the place is known, and empty but for this
    before = len(house.telling.asked)
    await house.ask(*WORDINGS)
    assert len(house.telling.asked) - before <= 3


async def test_who_accepts_no_error_shares_with_nobody_who_words_it_otherwise(model: MiniLM) -> None:
    house = Square(model, rate=0.0)
    await house.ask(*WORDINGS[:4])
    assert sorted(house.telling.asked) == sorted(WORDINGS[:4])
