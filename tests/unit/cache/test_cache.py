"""The cache as the pipeline sees it: two tiers, the caller's wishes, and whatever breaks costs a hit and never an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest

from headgate.cache.cache import Cache, CachePolicy, CacheStore, Candidate, Entry, Hit, Miss, Question
from headgate.cache.fingerprint import fingerprint
from headgate.cache.memory import MemoryStore
from headgate.cache.verdict import FixedVerdict, Judgement, Verdict
from headgate.model.chat import ChatRequest, Completion
from headgate.model.money import Usage
from headgate.model.tenancy import Key, Namespace, Wishes

HOME = Namespace("acme")
PLAIN = Wishes()


class Clock:
    def __init__(self) -> None:
        self.time = 1_000.0

    def __call__(self) -> float:
        return self.time


class Words:
    """An embedder of bags of letters; what it is asked for is noted."""

    identity = "letters"
    dimensions = 27

    def __init__(self, *, longest: int = 1_000) -> None:
        self.asked: list[str] = []
        self.closed = False
        self._longest = longest

    def fits(self, text: str) -> bool:
        return len(text) <= self._longest

    async def embed(self, text: str) -> Any:
        self.asked.append(text)
        counts = np.zeros(self.dimensions, np.float32)
        for letter in text.lower():
            counts[ord(letter) - 96 if "a" <= letter <= "z" else 0] += 1
        return counts / np.linalg.norm(counts)

    async def close(self) -> None:
        self.closed = True


class Broken:
    """A store whose every method raises."""

    def peek(self, key: Key) -> Entry | None:
        raise OSError("the store is gone")

    async def get(self, key: Key) -> Entry | None:
        raise OSError("the store is gone")

    async def nearest(self, namespace: Namespace, partition: bytes, vector: Any, count: int) -> Sequence[Candidate]:
        raise OSError("the store is gone")

    async def put(self, entry: Entry) -> None:
        raise OSError("the store is gone")

    def size(self) -> int:
        return 0

    async def close(self) -> None:
        return None


class House:
    """A cache over a store in memory, and what it is asked with."""

    def __init__(
        self,
        *,
        store: CacheStore | None = None,
        embedder: Any = None,
        verdict: Verdict | None = None,
        patience: float = 5.0,
        **policy: Any,
    ) -> None:
        self.clock = Clock()
        self.embedder = embedder or Words()
        self.store = store or MemoryStore(now=self.clock)
        self.cache = Cache(
            self.store,
            self.embedder,
            verdict or FixedVerdict(0.92),
            CachePolicy(**policy),
            now=self.clock,
            patience=patience,
        )

    async def keep(
        self, text: str, answer: str = "Soon.", wishes: Wishes = PLAIN, *, finish: str = "stop", **more: Any
    ) -> None:
        request = ask(text, **more)
        question = await self.cache.question(request, wishes)
        await self.cache.store(
            fingerprint(HOME, request),
            question,
            said(answer, finish),
            wishes,
            id=f"id of {text}",
            worth=9,
            deployment="small",
        )

    async def look(self, text: str, wishes: Wishes = PLAIN, place: Namespace = HOME, **more: Any) -> Hit | Miss:
        request = ask(text, **more)
        return await self.cache.lookup(fingerprint(place, request), await self.cache.question(request, wishes), wishes)


def ask(text: str, **more: Any) -> ChatRequest:
    return ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": text}], **more})


def said(text: str, finish: str | None = "stop", **extra: Any) -> Completion:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return Completion(
        model="m", choices=[choice], usage=Usage(prompt_tokens=3, completion_tokens=2), reported={}, extra=extra
    )


def hit(found: Hit | Miss) -> Hit:
    assert isinstance(found, Hit)
    return found


async def test_the_same_request_is_an_exact_hit_with_all_that_was_stored() -> None:
    house = House()
    await house.keep("Where is it?", wishes=Wishes(tags=("orders", "eu")))
    found = hit(await house.look("Where is it?"))
    assert (found.tier, found.confidence) == ("exact", 1.0)
    assert found.entry.completion == said("Soon.")
    assert (found.entry.id, found.entry.worth, found.entry.deployment) == ("id of Where is it?", 9, "small")
    assert found.entry.tags == ("orders", "eu")
    assert found.entry.stored == 1_000.0
    assert house.cache.peek(fingerprint(HOME, ask("Where is it?"))) == found
    assert house.cache.size() == 1


async def test_a_rewording_is_a_semantic_hit_with_its_similarity() -> None:
    house = House()
    await house.keep("Where is my parcel?")
    found = hit(await house.look("Where is my parcel, please?"))
    assert found.tier == "semantic"
    assert 0.92 <= found.confidence < 1.0
    assert house.cache.peek(fingerprint(HOME, ask("Where is my parcel, please?"))) is None


async def test_a_look_alike_is_a_miss_that_names_its_guard() -> None:
    house = House()
    await house.keep("Refund after 14 days?")
    found = await house.look("Refund after 30 days?")
    assert isinstance(found, Miss)
    assert found.judgement is not None
    assert found.judgement.reason == "number"
    assert not found.shadow


async def test_behind_a_look_alike_the_true_rewording_is_found() -> None:
    house = House()
    await house.keep("Refund after 30 days?", "no")
    await house.keep("Refund, please, after 14 days?", "yes")
    assert hit(await house.look("Refund after 14 days?")).entry.completion == said("yes")


async def test_nothing_near_is_a_miss_without_a_judgement() -> None:
    assert await House().look("Where is it?") == Miss()


async def test_another_tenant_or_namespace_finds_nothing() -> None:
    house = House()
    await house.keep("Where is it?")
    for place in (Namespace("beta"), Namespace("acme", "other")):
        assert await house.look("Where is it?", place=place) == Miss()


async def test_another_conversation_model_or_setting_is_not_compared() -> None:
    house = House()
    await house.keep("Where is it?")
    assert await house.look("Where is it now?", temperature=0.1) == Miss()
    assert await house.look("Where is it now?", seed=1) == Miss()


class TestWishes:
    async def test_exact_asks_no_embedder_and_stores_no_vector(self) -> None:
        house = House()
        wishes = Wishes(cache="exact")
        await house.keep("Where is my parcel?", wishes=wishes)
        assert hit(await house.look("Where is my parcel?", wishes)).tier == "exact"
        assert await house.look("Where is my parcel, please?", wishes) == Miss()
        assert house.embedder.asked == []
        assert await house.look("Where is my parcel, please?") == Miss()

    async def test_min_confidence_only_raises_the_bar(self) -> None:
        house = House()
        await house.keep("Where is my parcel?")
        near = hit(await house.look("Where is my parcel, please?")).confidence
        assert isinstance(await house.look("Where is my parcel, please?", Wishes(min_confidence=near)), Hit)
        refused = await house.look("Where is my parcel, please?", Wishes(min_confidence=near + 0.001))
        assert isinstance(refused, Miss)
        assert hit(await house.look("Where is my parcel?", Wishes(min_confidence=1.0))).tier == "exact"
        await house.keep("What do you sell here?")
        far = await house.look("Which wares do you sell there?", Wishes(min_confidence=0.01))
        assert isinstance(far, Miss)

    async def test_a_shorter_life_is_shorter_in_both_tiers_and_a_longer_one_in_the_exact_tier_alone(self) -> None:
        house = House(exact_ttl=100.0, semantic_ttl=50.0)
        await house.keep("Where is my parcel?", wishes=Wishes(ttl=10.0))
        await house.keep("What is the colour of it?", wishes=Wishes(ttl=500.0))
        house.clock.time += 10.0
        assert isinstance(await house.look("Where is my parcel?"), Miss)
        assert isinstance(await house.look("Where is my parcel, please?"), Miss)
        assert hit(await house.look("What is the colour of it, please?")).tier == "semantic"
        house.clock.time += 40.0
        assert await house.look("What is the colour of it, please?") == Miss()
        house.clock.time += 400.0
        assert hit(await house.look("What is the colour of it?")).tier == "exact"

    async def test_without_a_wish_each_tier_has_its_own_life(self) -> None:
        house = House(exact_ttl=100.0, semantic_ttl=50.0)
        await house.keep("Where is my parcel?")
        house.clock.time += 50.0
        assert await house.look("Where is my parcel, please?") == Miss()
        assert isinstance(await house.look("Where is my parcel?"), Hit)
        house.clock.time += 50.0
        assert await house.look("Where is my parcel?") == Miss()


class TestModes:
    async def test_a_watching_tier_serves_nothing_and_says_what_it_would_have(self) -> None:
        house = House(semantic="shadow")
        await house.keep("Where is my parcel?")
        found = await house.look("Where is my parcel, please?")
        assert isinstance(found, Miss)
        assert found.shadow
        assert found.judgement is not None
        assert found.judgement.serve
        assert found.judgement.confidence > 0.92
        assert hit(await house.look("Where is my parcel?")).tier == "exact"
        refused = await house.look("What is your parcel number 7?")
        assert isinstance(refused, Miss)
        assert not refused.shadow

    async def test_a_tier_that_is_off_has_no_embedder(self) -> None:
        house = House(semantic="off")
        await house.keep("Where is my parcel?")
        assert await house.look("Where is my parcel, please?") == Miss()
        assert hit(await house.look("Where is my parcel?")).tier == "exact"
        assert house.embedder.asked == []

    async def test_without_the_exact_tier_equal_questions_are_found_by_meaning(self) -> None:
        house = House(exact=False)
        await house.keep("Where is my parcel?")
        assert house.cache.peek(fingerprint(HOME, ask("Where is my parcel?"))) is None
        assert hit(await house.look("Where is my parcel?")).tier == "semantic"

    async def test_with_no_tier_for_it_nothing_is_stored(self) -> None:
        house = House(exact=False)
        await house.keep("Where?", tools=[{"type": "function", "function": {"name": "f"}}])
        assert house.cache.size() == 0

    @pytest.mark.parametrize("mode", ["on", "shadow", "off"])
    async def test_closing_lets_go_of_the_model_where_there_is_one(self, mode: Literal["on", "shadow", "off"]) -> None:
        house = House(semantic=mode)
        await house.cache.close()
        assert house.embedder.closed == (mode != "off")


@pytest.mark.parametrize("finish", ["length", "content_filter", None, "unheard of"])
async def test_an_answer_that_was_cut_is_not_kept(finish: str) -> None:
    house = House()
    await house.keep("Where is it?", finish=finish)
    assert house.cache.size() == 0


async def test_a_text_that_does_not_fit_the_model_is_not_compared() -> None:
    house = House(embedder=Words(longest=5))
    assert await house.cache.question(ask("Where is it?"), PLAIN) is None
    assert house.embedder.asked == []


class TestFailingOpen:
    async def test_a_store_that_breaks_costs_a_hit(self, caplog: pytest.LogCaptureFixture) -> None:
        house = House(store=Broken())
        assert house.cache.peek(fingerprint(HOME, ask("Where?"))) is None
        assert await house.look("Where?") == Miss()
        await house.keep("Where?")
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 3

    async def test_a_store_that_breaks_only_in_the_semantic_tier_still_serves_exactly(self) -> None:
        class HalfBroken(MemoryStore):
            async def nearest(self, *args: Any) -> Sequence[Candidate]:
                raise OSError("the index is gone")

        house = House(store=HalfBroken(now=lambda: 1_000.0))
        await house.keep("Where?")
        assert isinstance(await house.look("Where?"), Hit)
        assert await house.look("Where is it?") == Miss()

    @pytest.mark.parametrize("place", ["fits", "embed"])
    async def test_an_embedder_that_breaks_costs_the_semantic_tier(self, place: str) -> None:
        class BrokenEmbedder(Words):
            def fits(self, text: str) -> bool:
                if place == "fits":
                    raise OSError("the model is gone")
                return True

            async def embed(self, text: str) -> Any:
                raise OSError("the model is gone")

        house = House(embedder=BrokenEmbedder())
        assert await house.cache.question(ask("Where?"), PLAIN) is None
        await house.keep("Where?")
        assert hit(await house.look("Where?")).tier == "exact"

    async def test_an_embedder_that_hangs_is_not_waited_for(self, caplog: pytest.LogCaptureFixture) -> None:
        class Hanging(Words):
            async def embed(self, text: str) -> Any:
                await asyncio.Event().wait()

        house = House(embedder=Hanging(), patience=0.01)
        await house.keep("Where?")
        assert hit(await house.look("Where?")).tier == "exact"
        assert "TimeoutError" in caplog.text

    async def test_a_verdict_that_breaks_costs_a_hit(self) -> None:
        class BrokenVerdict:
            def judge(self, question: str, stored: str, similarity: float) -> Judgement:
                raise ZeroDivisionError

        house = House(verdict=BrokenVerdict())
        await house.keep("Where is my parcel?")
        assert await house.look("Where is my parcel, please?") == Miss()

    async def test_an_answer_that_cannot_be_encoded_is_not_kept(self) -> None:
        """A vendor's field may hold a number beyond 64 bits."""
        house = House()
        question = await house.cache.question(ask("Where?"), PLAIN)
        key = fingerprint(HOME, ask("Where?"))
        await house.cache.store(key, question, said("x", vendor=2**70), PLAIN, id="1", worth=0, deployment="")
        assert house.cache.size() == 0

    async def test_whoever_cancels_is_obeyed(self) -> None:
        """Failing open is for faults; a call that nobody wants any more ends."""
        started = asyncio.Event()

        class Hanging(Words):
            async def embed(self, text: str) -> Any:
                started.set()
                await asyncio.Event().wait()

        asking = asyncio.create_task(House(embedder=Hanging()).cache.question(ask("Where?"), PLAIN))
        await started.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_question_carries_text_vector_and_partition() -> None:
    house = House()
    one = await house.cache.question(ask("Where?"), PLAIN)
    other = await house.cache.question(ask("When?"), PLAIN)
    assert isinstance(one, Question)
    assert isinstance(other, Question)
    assert one.text == "Where?"
    assert one.partition == other.partition
    assert float(one.vector @ one.vector) == pytest.approx(1.0)
