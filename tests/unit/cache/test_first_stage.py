"""The cache with a first stage: the model is spared where nothing is near, and nothing is lost by that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headgate.cache.cache import Hit, Miss, Selection
from headgate.cache.fingerprint import fingerprint
from headgate.cache.keeping import Asked
from headgate.cache.memory import MemoryStore
from headgate.cache.static import FirstStage, StaticEmbedder
from headgate.cache.tiers import Cache
from headgate.cache.treatment import CachePolicy
from headgate.model.chat import ChatRequest, Completion
from headgate.model.money import Usage
from headgate.model.tenancy import CacheTerms, Namespace, Wishes
from tests.nearness import Near

HOME, THERE = Namespace("acme"), Namespace("bolt")
SAID = Completion(
    model="m",
    choices=[{"index": 0, "message": {"role": "assistant", "content": "So."}, "finish_reason": "stop"}],
    usage=Usage(),
    reported={},
)


class Letters:
    """An embedder of bags of letters that notes what it is asked for."""

    identity = "letters"
    dimensions = 27

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = False

    def fits(self, text: str) -> bool:
        return True

    async def embed(self, text: str) -> Any:
        self.asked.append(text)
        if self.broken:
            raise OSError("the model is gone")
        counts = np.zeros(self.dimensions, np.float32)
        for letter in text.lower():
            counts[ord(letter) - 96 if "a" <= letter <= "z" else 0] += 1
        return counts / np.linalg.norm(counts)

    async def close(self) -> None:
        return


class House:
    """A gateway's way with the cache: look, and keep the answer that was made because nothing was found."""

    def __init__(self, static: StaticEmbedder, store: MemoryStore | None = None) -> None:
        self.embedder = Letters()
        self.store = store or MemoryStore()
        self.cache = Cache(self.store, self.embedder, Near(0.8), CachePolicy(), stage=FirstStage(static))

    async def ask(self, text: str, place: Namespace = HOME) -> tuple[Hit | Miss, list[str]]:
        """What was found, and which vectors were made before that."""
        request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": text}]})
        treated, key = self.cache.treatment("auto", CacheTerms(), Wishes()), fingerprint(place, request)
        epoch = self.cache.epoch(place.tenant)
        before = len(self.embedder.asked)
        question = await self.cache.question(request, treated, key)
        found = await self.cache.lookup(key, question, treated)
        asked = self.embedder.asked[before:]
        if isinstance(found, Miss):
            await self.cache.store(key, question, SAID, treated, Asked(id=text, epoch=epoch))
        return found, asked


@pytest.fixture(scope="module")
def static() -> StaticEmbedder:
    return StaticEmbedder.load()


async def test_a_rewording_of_what_is_stored_is_found(static: StaticEmbedder) -> None:
    house = House(static)
    await house.ask("How do I reset my password?")
    await house.ask("Which mountain is the tallest in Europe?")
    for stored in ("How can I reset my password?", "Which mountain is Europe's tallest?"):
        found, _ = await house.ask(stored)
        assert isinstance(found, Hit)
        assert found.tier == "semantic"


async def test_where_nothing_is_near_no_vector_is_made_before_the_answer_and_one_after(static: StaticEmbedder) -> None:
    house = House(static)
    await house.ask("How do I reset my password?")
    found, asked = await house.ask("Which mountain is the tallest in Europe?")
    assert found == Miss()
    assert asked == []
    assert house.embedder.asked[-1] == "Which mountain is the tallest in Europe?"


async def test_a_place_that_was_never_seen_empty_is_looked_into_with_the_model(static: StaticEmbedder) -> None:
    """As after a restart with answers from the last run."""
    earlier = House(static)
    await earlier.ask("How do I reset my password?")
    house = House(static, earlier.store)
    _, asked = await house.ask("Which mountain is the tallest in Europe?")
    assert asked == ["Which mountain is the tallest in Europe?"]
    found, _ = await house.ask("How can I reset my password?")
    assert isinstance(found, Hit)


async def test_what_is_stored_for_one_tenant_tells_nothing_of_another(static: StaticEmbedder) -> None:
    house = House(static)
    await house.ask("How do I reset my password?")
    await house.ask("Which mountain is the tallest in Europe?", THERE)
    _, asked = await house.ask("How can I reset my password?", THERE)
    assert asked == []


async def test_what_went_from_the_cache_costs_a_vector_and_is_not_found(static: StaticEmbedder) -> None:
    house = House(static)
    await house.ask("How do I reset my password?")
    await house.cache.invalidate(Selection(tenant="acme"))
    found, asked = await house.ask("How can I reset my password?")
    assert found == Miss()
    assert asked == ["How can I reset my password?"]


async def test_an_answer_whose_vector_cannot_be_made_any_more_is_found_exactly(static: StaticEmbedder) -> None:
    house = House(static)
    await house.ask("How do I reset my password?")
    house.embedder.broken = True
    await house.ask("Which mountain is the tallest in Europe?")
    found, _ = await house.ask("Which mountain is the tallest in Europe?")
    assert isinstance(found, Hit)
    assert found.tier == "exact"
    assert house.cache.failures()["embedder",] == 1.0
    found, _ = await house.ask("How can I reset my password?")
    assert found == Miss()
