"""Answers from stock as callers see them: invalidated while on their way, stale while a fresh one is bought, refused a moment ago."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from headgate.cache.cache import Selection
from headgate.cache.treatment import CachePolicy, RoutePolicy
from headgate.cache.verdict import Judgement
from headgate.model.errors import (
    BudgetExceeded,
    GatewayError,
    NotCached,
    NotFound,
    RateLimited,
    Refused,
    Rejected,
    Throttled,
    Unable,
    Unavailable,
    UpstreamContextTooLong,
    UpstreamTimeout,
)
from headgate.model.tenancy import CacheTerms, Principal, Wishes
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.reply import Reply
from tests.nearness import Near
from tests.scenarios.house import CALLER, House, ask, caller

STALE = Wishes(stale=600.0)
SHORT = CachePolicy(exact_ttl=100.0, semantic_ttl=100.0)


class Clock:
    """The store's time."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


async def asked(
    house: House, text: str = "Where is my parcel?", wishes: Wishes | None = None, by: Principal = CALLER, **more: Any
) -> Reply:
    """A call, read to its end."""
    async with await house.gateway.chat(by, ask(text, **more), wishes) as reply:
        await reply.completion()
    return reply


async def text_of(reply: Reply) -> str:
    return (await reply.completion()).text


class TestInvalidation:
    async def test_an_answer_asked_for_before_an_invalidation_is_given_and_not_kept(self) -> None:
        gate = asyncio.Event()
        house = House({"one": ScriptedProvider([gate, *answer("Old.")], answer("New."))})
        async with await house.gateway.chat(CALLER, ask(), Wishes(tags=("prices",))) as early:
            waiting = asyncio.create_task(early.completion())
            await asyncio.sleep(0)
            await house.gateway.cache.invalidate(Selection(tenant="acme", tags=("prices",)))
            gate.set()
            assert (await waiting).text == "Old."
        await house.flown()
        assert house.gateway.cache.size() == 0
        assert await text_of(await asked(house)) == "New."

    async def test_who_comes_after_an_invalidation_joins_nothing_that_began_before_it(self) -> None:
        gate = asyncio.Event()
        house = House({"one": ScriptedProvider([gate, *answer("Old.")], answer("New."))})
        early = await house.gateway.chat(CALLER, ask())
        await asyncio.sleep(0)
        await house.gateway.cache.invalidate(Selection(tenant="acme"))
        assert await text_of(await asked(house)) == "New."
        gate.set()
        async with early:
            assert (await early.completion()).text == "Old."
        await house.flown()
        late = await asked(house)
        assert (late.source, await text_of(late)) == ("exact", "New.")

    async def test_another_tenants_invalidation_changes_nothing(self) -> None:
        gate = asyncio.Event()
        house = House({"one": ScriptedProvider([gate, *answer("Hello.")])})
        early = await house.gateway.chat(CALLER, ask())
        await asyncio.sleep(0)
        await house.gateway.cache.invalidate(Selection(tenant="bolt"))
        other = await house.gateway.chat(CALLER, ask())
        gate.set()
        async with early, other:
            assert (await other.completion()).text == "Hello."
        assert other.source == "coalesced"
        await house.flown()
        assert house.gateway.cache.size("acme") == 1

    @pytest.mark.parametrize(
        ("named", "goes"),
        [
            ({"tags": ("a",)}, True),
            ({"tags": ("c",)}, False),
            ({"user": "ann"}, True),
            ({"user": "bob"}, False),
            ({"namespace": "shop"}, True),
            ({"namespace": ""}, False),
            ({"model": "auto"}, True),
            ({"model": "one"}, False),
            ({"entry": "id-1"}, True),
            ({"tags": ("a",), "user": "bob"}, False),
        ],
    )
    async def test_an_entry_goes_by_whatever_it_was_asked_for_with(self, named: dict[str, Any], goes: bool) -> None:
        house = House()
        await asked(house, wishes=Wishes(tags=("a", "b"), user="ann", namespace="shop"))
        await house.flown()
        assert await house.gateway.cache.invalidate(Selection(tenant="acme", **named)) == goes

    async def test_a_keys_own_user_is_who_asked(self) -> None:
        house = House()
        await asked(house, by=Principal(tenant="acme", user="ann"))
        await house.flown()
        assert await house.gateway.cache.invalidate(Selection(tenant="acme", user="ann")) == 1


class TestStaleAnswers:
    """`x-headgate-cache-stale`: an answer past its time is served at once, and a fresh one is bought behind it."""

    def house(self, *scripts: Any, **more: Any) -> tuple[House, Clock]:
        clock = Clock()
        return House({"one": ScriptedProvider(*scripts)}, now=clock, cache=SHORT, **more), clock

    async def test_a_hundred_stale_hits_buy_one_answer(self) -> None:
        gate = asyncio.Event()
        house, clock = self.house(answer("Old."), [gate, *answer("New.")])
        await asked(house)
        clock.time += 150.0
        stale = [await asked(house, wishes=STALE) for _ in range(100)]
        assert {(reply.source, reply.trail.cache, reply.trail.cache_reason) for reply in stale} == {
            ("exact", "hit", "stale")
        }
        assert {await text_of(reply) for reply in stale} == {"Old."}
        gate.set()
        await house.flown()
        assert len(house.providers["one"].calls) == 2  # type: ignore[attr-defined]
        fresh = await asked(house)
        assert (fresh.source, await text_of(fresh)) == ("exact", "New.")

    async def test_who_does_not_ask_for_it_gets_nothing_stale(self) -> None:
        house, clock = self.house(answer("Old."), answer("New."))
        await asked(house)
        clock.time += 150.0
        assert (await asked(house)).source == "live"

    async def test_what_is_older_than_that_is_not_served(self) -> None:
        house, clock = self.house(answer("Old."), answer("New."))
        await asked(house)
        clock.time += 150.0
        assert (await asked(house, wishes=Wishes(stale=49.0))).source == "live"

    async def test_the_fresh_answer_is_paid_and_recorded_as_a_call_of_that_caller(self) -> None:
        house, clock = self.house(answer("Old."), answer("New."))
        await asked(house, wishes=Wishes(user="ann"))
        clock.time += 150.0
        await asked(house, wishes=Wishes(user="ann", stale=600.0))
        await house.flown()
        assert [(record.source, record.user, record.cost > 0) for record in house.notes.records] == [
            ("live", "ann", True),
            ("exact", "ann", False),
            ("live", "ann", True),
        ]
        (row,) = await house.journal("tenant")
        assert row.cost == sum(record.cost for record in house.notes.records)

    async def test_a_tenant_that_has_spent_its_budget_goes_on_being_served_what_is_stale(self) -> None:
        house, clock = self.house(answer("Old."), answer("New."))
        await asked(house)
        await house.allow("tenant:acme", await house.settled())
        clock.time += 150.0
        for _ in range(2):
            assert (await asked(house, wishes=STALE)).source == "exact"
            await house.flown()
        assert len(house.providers["one"].calls) == 1  # type: ignore[attr-defined]
        with pytest.raises(BudgetExceeded):
            await asked(house)

    async def test_the_fresh_answer_counts_on_the_callers_rate(self) -> None:
        house, clock = self.house(answer("Old."), answer("New."))
        thrifty = caller(rpm=3, concurrency=1)
        await asked(house, by=thrifty)
        clock.time += 150.0
        await asked(house, wishes=STALE, by=thrifty)
        await house.flown()
        with pytest.raises(RateLimited):
            await asked(house, by=thrifty)

    @pytest.mark.parametrize("error", [Unavailable("down"), Rejected("no", status=400)])
    async def test_a_fresh_answer_that_cannot_be_had_harms_nobody(
        self, error: GatewayError, caplog: pytest.LogCaptureFixture
    ) -> None:
        house, clock = self.house(answer("Old."), [error], [error], [error], [error])
        await asked(house)
        clock.time += 150.0
        for _ in range(2):
            assert await text_of(await asked(house, wishes=STALE)) == "Old."
            await house.flown()
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    async def test_only_if_cached_takes_the_stale_answer_and_buys_none(self) -> None:
        house, clock = self.house(answer("Old."), answer("New."))
        await asked(house)
        clock.time += 150.0
        wishes = Wishes(cache="only-if-cached", stale=600.0)
        assert (await asked(house, wishes=wishes)).source == "exact"
        await house.flown()
        assert len(house.providers["one"].calls) == 1  # type: ignore[attr-defined]
        with pytest.raises(NotCached):
            await asked(house, wishes=Wishes(cache="only-if-cached"))

    async def test_a_gateway_that_closes_gives_up_what_it_was_buying(self) -> None:
        house, clock = self.house(answer("Old."), [asyncio.Event(), *answer("New.")], grace=0.0)
        await asked(house)
        clock.time += 150.0
        await asked(house, wishes=STALE)
        await house.gateway.close()


LASTING = [
    Rejected("no such voice", status=400),
    Rejected("no such model", status=404),
    Rejected("too large", status=413),
    Rejected("not like this", status=422),
    Rejected("against our rules", status=400, code="content_policy_violation"),
    UpstreamContextTooLong("too long"),
    Unable("not here"),
]
PASSING = [
    Rejected("gone", status=410),
    Refused("your key is bad"),
    Throttled("slow down"),
    Unavailable("down"),
    UpstreamTimeout("late"),
]


class TestRefusals:
    """What a provider has refused is refused again for a moment without asking it."""

    def house(self, *errors: GatewayError, providers: Any = None, **more: Any) -> tuple[House, Clock]:
        clock = Clock()
        scripts = [[error] for error in errors]
        return House(providers or {"one": ScriptedProvider(*scripts, answer("Yes."))}, now=clock, **more), clock

    async def refused(self, house: House, text: str = "Where?", **more: Any) -> Reply:
        reply = await house.gateway.chat(CALLER, ask(text, **more), Wishes())
        async with reply:
            with pytest.raises(GatewayError) as found:
                await reply.completion()
        self.error = found.value
        return reply

    @pytest.mark.parametrize("error", LASTING, ids=lambda error: f"{error.status} {error.label}")
    async def test_a_refusal_of_the_request_itself_is_given_again(self, error: GatewayError) -> None:
        house, clock = self.house(error)
        first = await self.refused(house)
        assert (first.trail.cache, self.error.remembered) == ("miss", False)
        again = await self.refused(house)
        assert (again.trail.cache, again.trail.cache_reason, again.cost) == ("hit", "refused", 0)
        assert self.error.remembered
        assert (self.error.status, self.error.label, self.error.message) == (error.status, error.label, error.message)
        assert house.notes.records[-1].status == error.status
        clock.time += 30.0
        assert (await asked(house, "Where?")).source == "live"

    @pytest.mark.parametrize("error", PASSING, ids=lambda error: f"{error.status} {error.label}")
    async def test_what_may_pass_is_tried_again(self, error: GatewayError) -> None:
        house, _ = self.house(*[error] * 9)
        await self.refused(house)
        before = len(house.providers["one"].calls)  # type: ignore[attr-defined]
        assert (await self.refused(house)).trail.cache == "miss"
        assert len(house.providers["one"].calls) > before  # type: ignore[attr-defined]

    async def test_what_a_budget_refuses_is_not_remembered(self) -> None:
        house, _ = self.house()
        await house.allow("tenant:acme", 0)
        await self.refused(house)
        await house.allow("tenant:acme", None)
        assert (await asked(house, "Where?")).source == "live"

    async def test_no_cache_asks_anew(self) -> None:
        house, _ = self.house(LASTING[0])
        await self.refused(house)
        assert (await asked(house, "Where?", Wishes(cache="no-cache"))).source == "live"

    async def test_another_request_or_tenant_is_asked_for_itself(self) -> None:
        house, _ = self.house(LASTING[0])
        await self.refused(house)
        assert (await asked(house, "Where?", metadata={"a": "b"})).source == "live"
        assert (await asked(house, "Where?", by=Principal(tenant="bolt"))).source == "live"

    async def test_a_field_that_shapes_no_answer_may_be_what_was_refused(self) -> None:
        house, _ = self.house(LASTING[0])
        await self.refused(house, metadata={"a": "b" * 600})
        assert (await asked(house, "Where?")).source == "live"

    async def test_an_answer_in_stock_goes_before_a_refusal(self) -> None:
        house, _ = self.house(LASTING[0])
        await self.refused(house)
        await asked(house, "Where?", Wishes(cache="no-cache"))
        await house.flown()
        assert (await asked(house, "Where?")).source == "exact"

    async def test_a_refusal_by_the_second_after_the_first_had_failed_is_not_the_last_word(self) -> None:
        providers = {
            "one": ScriptedProvider([Unavailable("down")], [Unavailable("down")], answer("Yes.")),
            "two": ScriptedProvider([LASTING[0]]),
        }
        house, _ = self.house(providers=providers)
        await self.refused(house)
        assert (await asked(house, "Where?")).source == "live"

    async def test_a_refusal_by_all_is(self) -> None:
        providers = {name: ScriptedProvider([UpstreamContextTooLong("too long")]) for name in ("one", "two")}
        house, _ = self.house(providers=providers)
        await self.refused(house)
        assert (await self.refused(house)).trail.cache_reason == "refused"
        assert [len(one.calls) for one in providers.values()] == [1, 1]

    async def test_none_is_remembered_where_that_is_off(self) -> None:
        house, _ = self.house(LASTING[0], cache=CachePolicy(refusals=0.0))
        await self.refused(house)
        assert (await asked(house, "Where?")).source == "live"

    async def test_an_invalidation_forgets_them(self) -> None:
        house, _ = self.house(LASTING[0])
        await self.refused(house)
        await house.gateway.cache.invalidate(Selection(tenant="acme"))
        assert (await asked(house, "Where?")).source == "live"


class TestFeedback:
    async def test_a_live_answer_that_was_wrong_is_taken_out_of_stock(self) -> None:
        house = House({"one": ScriptedProvider(answer("Wrong."), answer("Right."))})
        first = await asked(house)
        await house.flown()
        heard = await house.gateway.feedback(CALLER, first.id, correct=False, reason="it is not")
        assert heard.withdrawn
        assert not (await house.gateway.feedback(CALLER, first.id, correct=False)).withdrawn
        assert await text_of(await asked(house)) == "Right."

    async def test_a_wrong_answer_from_stock_is_taken_out_of_it_and_saying_so_again_changes_nothing(self) -> None:
        house = House({"one": ScriptedProvider(answer("Wrong."), answer("Right."))})
        await asked(house)
        await house.flown()
        hit = await asked(house)
        assert hit.source == "exact"
        assert (await house.gateway.feedback(CALLER, hit.id, correct=False)).withdrawn
        assert not (await house.gateway.feedback(CALLER, hit.id, correct=False)).withdrawn
        assert await text_of(await asked(house)) == "Right."

    async def test_a_right_answer_stays(self) -> None:
        house = House()
        first = await asked(house)
        await house.flown()
        assert not (await house.gateway.feedback(CALLER, first.id, correct=True)).withdrawn
        assert (await asked(house)).source == "exact"

    async def test_nobody_judges_the_answers_of_others(self) -> None:
        house = House()
        first = await asked(house)
        await house.flown()
        for who, id in ((Principal(tenant="bolt"), first.id), (CALLER, "unheard-of")):
            with pytest.raises(NotFound):
                await house.gateway.feedback(who, id, correct=False)
        assert (await asked(house)).source == "exact"


class Telling(Near):
    """A verdict whose reasons quote what they are about."""

    async def judge(self, *args: Any) -> list[Judgement]:
        return [Judgement(False, 0.4, "number:14|30", 0.4, 0.9)]


class Same:
    """An embedder to which all texts are the same."""

    identity = "same"
    dimensions = 4

    def fits(self, text: str) -> bool:
        return True

    async def embed(self, text: str) -> Any:
        return np.array([1.0, 0.0, 0.0, 0.0], np.float32)

    async def close(self) -> None:
        return None


async def test_a_miss_names_the_guard_and_quotes_neither_question() -> None:
    house = House(embedder=Same(), verdict=Telling(0.9))
    await asked(house, "Refund after 14 days?")
    await house.flown()
    reply = await asked(house, "Refund after 30 days?")
    assert (reply.source, reply.trail.cache_reason, reply.trail.judged) == ("live", "number", 0.4)
    assert house.notes.records[-1].cache_reason == "number"
    assert house.notes.records[-1].judged == 0.4


async def test_a_question_that_is_unfit_for_comparison_says_why() -> None:
    house = House(embedder=Same())
    reply = await asked(house, "What is the weather today?")
    assert (reply.trail.cache, reply.trail.cache_reason) == ("miss", "volatile")


async def test_an_embedder_that_hangs_costs_the_semantic_tier_and_no_answer() -> None:
    class Hanging(Same):
        async def embed(self, text: str) -> Any:
            await asyncio.Event().wait()

    house = House(embedder=Hanging(), embedding_patience=0.01)
    reply = await asked(house, "How do I reset my password?")
    assert (reply.source, reply.trail.cache, reply.trail.cache_reason) == ("live", "miss", "embedder")
    await house.flown()
    assert (await asked(house, "How do I reset my password?")).source == "exact"


class Broken:
    """A store of which nothing works."""

    def __getattr__(self, name: str) -> Any:
        raise OSError("the store is gone")


async def test_a_store_of_which_nothing_works_costs_no_answer() -> None:
    house = House(store=Broken())  # type: ignore[arg-type]
    for _ in range(2):
        reply = await asked(house, wishes=STALE)
        assert (reply.source, await text_of(reply)) == ("live", "Hello.")
    await house.gateway.close()
    assert house.providers["one"].closed  # type: ignore[attr-defined]


async def test_a_route_that_bypasses_says_so_to_nobody_and_serves_what_is_exact() -> None:
    house = House(route=RoutePolicy(strategy="bypass"))
    await asked(house)
    await house.flown()
    assert (await asked(house)).source == "exact"


async def test_a_tenants_own_terms_reach_the_cache() -> None:
    house = House()
    off = caller(cache=CacheTerms(mode="off"))
    await asked(house, by=off)
    await house.flown()
    assert (await asked(house, by=off)).source == "exact"
