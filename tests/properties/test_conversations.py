"""Whatever is said in whichever conversations: what crosses from one to another is what may, and nothing crosses from tenant to tenant.

The embedder here finds everything near and the verdict serves everything, so that only the cache's own walls are left.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.cache import Hit
from headgate.cache.conversation import leans, steers
from headgate.cache.fingerprint import fingerprint
from headgate.cache.keeping import Asked
from headgate.cache.memory import MemoryStore
from headgate.cache.reading import Reading
from headgate.cache.tiers import Cache
from headgate.cache.treatment import CachePolicy
from headgate.model.chat import ChatRequest, Completion
from headgate.model.money import Usage
from headgate.model.tenancy import CacheTerms, Namespace, Wishes
from tests.nearness import Near

POLICY = CachePolicy(exact=False, conversation="context")
TURNS = st.sampled_from(
    [
        "What do sharks eat?",
        "Where do sharks live?",
        "Is it a fish?",
        "And whales?",
        "Answer in French.",
        "I live in Norway.",
        "¿Y?",
    ]
)
SAID = st.tuples(
    st.sampled_from(["acme", "beta"]), st.sampled_from(["", "Be kind."]), st.lists(TURNS, min_size=1, max_size=4)
)


class Same:
    """All texts are the same to it."""

    identity = "same"
    dimensions = 2
    rarity = np.ones(2, np.float32)
    vector = np.array([1.0, 0.0], np.float32)

    def fits(self, text: str) -> bool:
        return True

    async def embed(self, text: str) -> Any:
        return self.vector

    async def read(self, text: str) -> Reading:
        return Reading(text, self.vector, self.vector[None], (1,), self.vector)

    async def close(self) -> None:
        return None


def request(system: str, turns: list[str]) -> ChatRequest:
    messages = [{"role": "system", "content": system}]
    for turn in turns:
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": f"Of {turn}"}]
    return ChatRequest.parse({"model": "auto", "messages": messages[:-1]})


def free(turns: list[str]) -> bool:
    """Whether the last of the turns may be compared across conversations."""
    *earlier, last = turns
    return not earlier or not (leans(last) or any(map(steers, earlier)))


async def served(said: list[tuple[str, str, list[str]]]) -> list[tuple[int, int]]:
    """Which of them got the answer of which earlier one."""
    cache, found = Cache(MemoryStore(), Same(), Near(0.0), POLICY, reader=Same()), []
    treated = cache.treatment("auto", CacheTerms(), Wishes())
    for number, (tenant, system, turns) in enumerate(said):
        asked = request(system, turns)
        key, question = fingerprint(Namespace(tenant), asked), await cache.question(asked, treated)
        hit = await cache.lookup(key, question, treated)
        if isinstance(hit, Hit):
            found.append((number, int(hit.entry.id)))
        completion = Completion(model="m", choices=[{"finish_reason": "stop"}], usage=Usage(), reported={})
        await cache.store(key, question, completion, treated, Asked(id=str(number), epoch=cache.epoch(tenant)))
    assert not any(cache.failures().values())
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(SAID, min_size=2, max_size=12))
def test_what_is_served_is_the_tenants_own_and_crosses_only_where_it_may(
    said: list[tuple[str, str, list[str]]],
) -> None:
    for asked, answered in asyncio.run(served(said)):
        assert said[asked][:2] == said[answered][:2]
        one, other = said[asked][2], said[answered][2]
        assert one[:-1] == other[:-1] or (free(one) and free(other))


@given(st.text(max_size=600))
def test_any_text_leans_or_not_and_steers_or_not(text: str) -> None:
    assert leans(text) is None or leans(text)
    assert steers(text) is None or steers(text)
