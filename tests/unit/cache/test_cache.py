"""The cache as the pipeline sees it: two tiers, the caller's wishes, and whatever breaks costs a hit and never an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest

from headgate.cache.cache import CacheStore, Candidate, Entry, Hit, Miss, Question, Selection
from headgate.cache.fingerprint import fingerprint
from headgate.cache.keeping import Asked
from headgate.cache.memory import MemoryStore
from headgate.cache.tiers import UNKNOWN_EPOCH, Cache
from headgate.cache.treatment import CachePolicy, Treatment
from headgate.cache.verdict import Judgement, Verdict
from headgate.model.chat import ChatRequest, Completion
from headgate.model.money import Usage
from headgate.model.tenancy import CacheTerms, Namespace, Wishes
from tests.nearness import Near

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

    def __getattr__(self, name: str) -> Any:
        def raising(*args: Any, **more: Any) -> Any:
            raise OSError("the store is gone")

        return raising


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
        self.store = store or MemoryStore(now=self.clock, stale_for=policy.get("stale", 0.0))
        self.cache = Cache(
            self.store,
            self.embedder,
            verdict or Near(0.92),
            CachePolicy(**policy),
            now=self.clock,
            patience=patience,
        )

    def treated(self, wishes: Wishes = PLAIN) -> Treatment:
        return self.cache.treatment("auto", CacheTerms(), wishes)

    async def keep(
        self, text: str, answer: str = "Soon.", wishes: Wishes = PLAIN, *, finish: str = "stop", **more: Any
    ) -> None:
        request, treated = ask(text, **more), self.treated(wishes)
        asked = Asked(
            id=f"id of {text}",
            epoch=self.cache.epoch("acme"),
            worth=9,
            deployment="small",
            model="auto",
            user="ann",
            tags=wishes.tags,
        )
        question = await self.cache.question(request, treated)
        await self.cache.store(fingerprint(HOME, request), question, said(answer, finish), treated, asked)

    async def look(self, text: str, wishes: Wishes = PLAIN, place: Namespace = HOME, **more: Any) -> Hit | Miss:
        request, treated = ask(text, **more), self.treated(wishes)
        return await self.cache.lookup(
            fingerprint(place, request), await self.cache.question(request, treated), treated
        )


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
    assert (found.entry.model, found.entry.user, found.entry.tags) == ("auto", "ann", ("orders", "eu"))
    assert found.entry.stored == 1_000.0
    assert house.cache.peek(fingerprint(HOME, ask("Where is it?"))) == found
    assert house.cache.size() == 1


async def test_a_rewording_is_a_semantic_hit_with_its_similarity() -> None:
    house = House()
    await house.keep("Where is the parcel?")
    found = hit(await house.look("Where is the parcel, please?"))
    assert found.tier == "semantic"
    assert 0.92 <= found.confidence < 1.0
    assert house.cache.peek(fingerprint(HOME, ask("Where is the parcel, please?"))) is None


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
        await house.keep("Where is the parcel?", wishes=wishes)
        assert hit(await house.look("Where is the parcel?", wishes)).tier == "exact"
        assert await house.look("Where is the parcel, please?", wishes) == Miss()
        assert house.embedder.asked == []
        assert await house.look("Where is the parcel, please?") == Miss()

    async def test_min_confidence_only_raises_the_bar(self) -> None:
        house = House()
        await house.keep("Where is the parcel?")
        near = hit(await house.look("Where is the parcel, please?")).confidence
        assert isinstance(await house.look("Where is the parcel, please?", Wishes(min_confidence=near)), Hit)
        refused = await house.look("Where is the parcel, please?", Wishes(min_confidence=near + 0.001))
        assert isinstance(refused, Miss)
        assert hit(await house.look("Where is the parcel?", Wishes(min_confidence=1.0))).tier == "exact"
        await house.keep("What do you sell here?")
        far = await house.look("Buzzing jazz, fizzy pizza?", Wishes(min_confidence=0.01))
        assert isinstance(far, Miss)

    async def test_a_shorter_life_is_shorter_in_both_tiers_and_a_longer_one_in_the_exact_tier_alone(self) -> None:
        house = House(exact_ttl=100.0, semantic_ttl=50.0)
        await house.keep("Where is the parcel?", wishes=Wishes(ttl=10.0))
        await house.keep("What is the colour of it?", wishes=Wishes(ttl=500.0))
        house.clock.time += 10.0
        assert isinstance(await house.look("Where is the parcel?"), Miss)
        assert isinstance(await house.look("Where is the parcel, please?"), Miss)
        assert hit(await house.look("What is the colour of it, please?")).tier == "semantic"
        house.clock.time += 40.0
        assert await house.look("What is the colour of it, please?") == Miss()
        house.clock.time += 400.0
        assert hit(await house.look("What is the colour of it?")).tier == "exact"

    async def test_without_a_wish_each_tier_has_its_own_life(self) -> None:
        house = House(exact_ttl=100.0, semantic_ttl=50.0)
        await house.keep("Where is the parcel?")
        house.clock.time += 50.0
        assert await house.look("Where is the parcel, please?") == Miss()
        assert isinstance(await house.look("Where is the parcel?"), Hit)
        house.clock.time += 50.0
        assert await house.look("Where is the parcel?") == Miss()


class TestModes:
    async def test_a_watching_tier_serves_nothing_and_says_what_it_would_have(self) -> None:
        house = House(semantic="shadow")
        await house.keep("Where is the parcel?")
        found = await house.look("Where is the parcel, please?")
        assert isinstance(found, Miss)
        assert found.shadow
        assert found.judgement is not None
        assert found.judgement.serve
        assert found.judgement.confidence > 0.92
        assert hit(await house.look("Where is the parcel?")).tier == "exact"
        refused = await house.look("What is your parcel number 7?")
        assert isinstance(refused, Miss)
        assert not refused.shadow

    async def test_a_tier_that_is_off_has_no_embedder(self) -> None:
        house = House(semantic="off")
        await house.keep("Where is the parcel?")
        assert await house.look("Where is the parcel, please?") == Miss()
        assert hit(await house.look("Where is the parcel?")).tier == "exact"
        assert house.embedder.asked == []

    async def test_without_the_exact_tier_equal_questions_are_found_by_meaning(self) -> None:
        house = House(exact=False)
        await house.keep("Where is the parcel?")
        assert house.cache.peek(fingerprint(HOME, ask("Where is the parcel?"))) is None
        assert hit(await house.look("Where is the parcel?")).tier == "semantic"

    async def test_with_no_tier_for_it_nothing_is_stored(self) -> None:
        house = House(exact=False)
        await house.keep("Where?", tools=[{"type": "function", "function": {"name": "f"}}])
        assert house.cache.size() == 0

    @pytest.mark.parametrize("mode", ["on", "shadow", "off"])
    async def test_closing_lets_go_of_the_model(self, mode: Literal["on", "shadow", "off"]) -> None:
        house = House(semantic=mode)
        await house.cache.close()
        assert house.embedder.closed


@pytest.mark.parametrize("finish", ["length", "content_filter", None, "unheard of"])
async def test_an_answer_that_was_cut_is_not_kept(finish: str) -> None:
    house = House()
    await house.keep("Where is it?", finish=finish)
    assert house.cache.size() == 0


async def test_a_text_that_does_not_fit_the_model_is_not_compared() -> None:
    house = House(embedder=Words(longest=5))
    assert await house.cache.question(ask("Where is it?"), Treatment()) is None
    assert house.cache.why_not(ask("Where is it?"), Treatment()) == "long"
    assert house.embedder.asked == []


async def test_a_text_that_is_unfit_for_comparison_is_looked_for_exactly_and_says_why() -> None:
    house = House()
    await house.keep("?!")
    assert hit(await house.look("?!")).tier == "exact"
    assert house.cache.why_not(ask("?!"), Treatment()) == "empty"
    assert house.embedder.asked == []


async def test_nothing_is_said_of_what_goes_without_saying() -> None:
    house = House()
    picture = [{"type": "image_url", "image_url": {"url": "data:,x"}}]
    assert house.cache.why_not(ask("Where?", tools=[{"type": "function"}]), Treatment()) is None
    assert house.cache.why_not(ask(picture), Treatment()) is None
    assert house.cache.why_not(ask("?!"), Treatment(semantic="off")) is None


async def test_an_answer_asked_for_before_an_invalidation_is_not_kept_after_it() -> None:
    house = House()
    asked = Asked(id="1", epoch=house.cache.epoch("acme"), tags=("prices",))
    assert await house.cache.invalidate(Selection(tenant="acme", tags=("prices",))) == 0
    await house.cache.store(fingerprint(HOME, ask("Where?")), None, said("Here."), Treatment(), asked)
    assert house.cache.size() == 0
    later = Asked(id="2", epoch=house.cache.epoch("acme"), tags=("prices",))
    await house.cache.store(fingerprint(HOME, ask("Where?")), None, said("Here."), Treatment(), later)
    assert house.cache.size("acme") == 1
    assert await house.cache.invalidate(Selection(tenant="acme")) == 1
    assert house.cache.invalidated == 1


class TestStale:
    async def test_an_exact_answer_past_its_time_is_there_for_whoever_takes_it_stale(self) -> None:
        house = House(exact_ttl=100.0, stale=60.0)
        await house.keep("Where is it?")
        key = fingerprint(HOME, ask("Where is it?"))
        assert not hit(await house.look("Where is it?", Wishes(stale=50.0))).stale
        house.clock.time += 140.0
        assert house.cache.peek(key) is None
        assert house.cache.peek(key, stale=39.0) is None
        for found in (house.cache.peek(key, stale=50.0), await house.look("Where is it?", Wishes(stale=50.0))):
            assert found is not None
            assert hit(found).stale
        house.clock.time += 21.0
        assert house.cache.peek(key, stale=1_000.0) is None


class TestFailingOpen:
    async def test_a_store_that_breaks_costs_a_hit_and_is_told_of_once(self, caplog: pytest.LogCaptureFixture) -> None:
        house = House(store=Broken())
        for _ in range(3):
            assert house.cache.peek(fingerprint(HOME, ask("Where?"))) is None
            assert await house.look("Where?") == Miss()
            assert house.cache.epoch("acme") == UNKNOWN_EPOCH
            await house.keep("Where?")
        told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(told) == len(set(told)) == 3
        # What is asked for in an epoch that nobody knows is not even tried to be kept.
        failures = {part: count for (part,), count in house.cache.failures().items() if count}
        assert failures == {"peek": 3, "lookup": 3, "epoch": 6}

    async def test_a_store_that_cannot_keep_anything_costs_no_answer(self) -> None:
        class Full(MemoryStore):
            async def put(self, entry: Entry, *, epoch: int) -> bool:
                raise OSError("the disk is full")

        house = House(store=Full(now=lambda: 1_000.0))
        await house.keep("Where?")
        assert house.cache.failures()["keep",] == 1
        assert await house.look("Where?") == Miss()

    async def test_who_invalidates_learns_that_it_could_not_be_done(self) -> None:
        with pytest.raises(OSError, match="gone"):
            await House(store=Broken()).cache.invalidate(Selection(tenant="acme"))

    @pytest.mark.parametrize(
        "vector",
        [
            np.full(27, np.nan, np.float32),
            np.zeros(27, np.float32),
            np.full(27, 9.0, np.float32),
            np.eye(1, 26, dtype=np.float32)[0],
            np.eye(2, 27, dtype=np.float32),
        ],
        ids=["NaN", "zero", "long", "short of numbers", "two"],
    )
    async def test_what_is_no_unit_vector_is_neither_compared_nor_stored(self, vector: Any) -> None:
        class Odd(Words):
            async def embed(self, text: str) -> Any:
                return vector

        house = House(embedder=Odd())
        assert await house.cache.question(ask("Where?"), Treatment()) is None
        assert house.cache.why_not(ask("Where?"), Treatment()) == "embedder"
        await house.keep("Where?")
        assert hit(await house.look("Where?")).entry.vector is None
        assert house.cache.failures()["embedder",] == 3

    async def test_an_embedder_that_works_again_is_used_again(self, caplog: pytest.LogCaptureFixture) -> None:
        class Moody(Words):
            down = True

            async def embed(self, text: str) -> Any:
                if self.down:
                    raise OSError("not now")
                return await super().embed(text)

        house = House(embedder=Moody())
        assert await house.cache.question(ask("Where?"), Treatment()) is None
        house.embedder.down = False
        assert await house.cache.question(ask("Where?"), Treatment()) is not None
        assert "works again" in caplog.text

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
        assert await house.cache.question(ask("Where?"), Treatment()) is None
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
        class BrokenVerdict(Near):
            async def judge(self, *args: Any) -> Sequence[Judgement]:
                raise ZeroDivisionError

        house = House(verdict=BrokenVerdict(0.92))
        await house.keep("Where is the parcel?")
        assert await house.look("Where is the parcel, please?") == Miss()

    async def test_an_answer_that_cannot_be_encoded_is_not_kept(self) -> None:
        """A vendor's field may hold a number beyond 64 bits."""
        house = House()
        question = await house.cache.question(ask("Where?"), Treatment())
        key = fingerprint(HOME, ask("Where?"))
        await house.cache.store(key, question, said("x", vendor=2**70), Treatment(), Asked(id="1", epoch=0))
        assert house.cache.size() == 0

    async def test_whoever_cancels_is_obeyed(self) -> None:
        """Failing open is for faults; a call that nobody wants any more ends."""
        started = asyncio.Event()

        class Hanging(Words):
            async def embed(self, text: str) -> Any:
                started.set()
                await asyncio.Event().wait()

        asking = asyncio.create_task(House(embedder=Hanging()).cache.question(ask("Where?"), Treatment()))
        await started.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_question_carries_text_vector_and_partition() -> None:
    house = House()
    one = await house.cache.question(ask("Where?"), Treatment())
    other = await house.cache.question(ask("When?"), Treatment())
    assert isinstance(one, Question)
    assert isinstance(other, Question)
    assert one.text == "Where?"
    assert one.partition == other.partition
    assert float(one.vector @ one.vector) == pytest.approx(1.0)
