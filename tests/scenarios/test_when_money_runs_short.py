"""Near a cap: holds shrink to what answers need, huge wishes are not refused while money is there, and refusals say why."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headgate.model.errors import AllFailed, BudgetExceeded, Unpriced, UpstreamTimeout
from headgate.model.money import Price
from headgate.model.tenancy import Caps, Principal, Wishes
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.reply import Reply
from tests.scenarios.house import CALLER, PRICE, House, ask

PROMPT = 27_000
"""Nano-USD that the prompt of `ask()` is held at: a token for each of its 19 bytes, and eight for the message."""

TOKEN = 2_000
"""Nano-USD of an output token."""

ONE_CALL = 10 * 1_000 + 1 * TOKEN
"""What a scripted answer of one piece costs."""

USUAL = 10
"""Output tokens that a house expects at most of an answer when it has been `taught` that they have ten."""

TIERS: Any = {"low": ("small",), "medium": ("small",), "high": ("large",)}
DEAR = Price(input=PRICE.input * 10, output=PRICE.output * 10)
HARD = "Prove that there are infinitely many primes, step by step, then analyse the algorithmic complexity of a sieve."


def taught(house: House) -> House:
    """A house that has seen enough answers to know how long they are."""
    for _ in range(100):
        house.gateway.budget.outputs.observe("acme", "auto", USUAL, limit=100)
    assert house.gateway.budget.outputs.expected("acme", "auto") == USUAL
    return house


async def told(house: House, who: Principal = CALLER, wishes: Wishes | None = None, **more: Any) -> Reply:
    """The reply to a whole call."""
    async with await house.gateway.chat(who, ask(**more), wishes) as reply:
        await reply.completion()
    await house.flown()
    return reply


async def refused(house: House, who: Principal = CALLER, wishes: Wishes | None = None, **more: Any) -> BudgetExceeded:
    """The refusal of a call."""
    with pytest.raises(BudgetExceeded) as refusal:
        await told(house, who, wishes, **more)
    return refusal.value


async def test_far_from_the_cap_the_callers_own_maximum_is_held_and_asked_for() -> None:
    house = taught(House(caps=Caps(hour=8 * (PROMPT + 100 * TOKEN))))
    reply = await told(house)
    assert house.provider.calls[0].limit == 100
    assert reply.trail.ceiling == PROMPT + 100 * TOKEN
    assert reply.trail.limit is None


async def test_near_the_cap_the_hold_and_the_limit_that_is_sent_shrink_to_what_answers_need() -> None:
    house = taught(House(caps=Caps(hour=100_000)))
    reply = await told(house)
    assert house.provider.calls[0].limit == USUAL
    assert reply.trail.ceiling == PROMPT + USUAL * TOKEN
    assert reply.trail.limit == USUAL


async def test_between_the_two_a_call_holds_an_eighth_of_what_is_left() -> None:
    house = taught(House(caps=Caps(hour=8 * (PROMPT + 50 * TOKEN))))
    reply = await told(house)
    assert (house.provider.calls[0].limit, reply.trail.limit) == (50, 50)


async def test_a_huge_max_tokens_is_not_refused_while_money_is_there() -> None:
    house = taught(House(caps=Caps(hour=100_000), max_output=1_000_000))
    await told(house, max_tokens=1_000_000)
    assert house.provider.calls[0].limit == USUAL


async def test_callers_with_huge_wishes_do_not_keep_each_other_out() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider([gate, *answer("Hello.")])
    house = taught(House({"one": provider}, caps=Caps(hour=10 * (PROMPT + USUAL * TOKEN)), max_output=1_000_000))
    replies = [await house.gateway.chat(CALLER, ask(f"Where is parcel no. {number}?")) for number in range(8)]
    readers = [asyncio.create_task(reply.completion()) for reply in replies]
    while len(provider.calls) < 8:
        await asyncio.sleep(0)
    gate.set()
    assert [completion.text for completion in await asyncio.gather(*readers)] == ["Hello."] * 8
    for reply in replies:
        reply.close()


async def test_a_limit_of_the_callers_own_is_never_raised() -> None:
    house = taught(House(caps=Caps(hour=100_000)))
    reply = await told(house, max_tokens=5)
    assert (house.provider.calls[0].limit, reply.trail.limit) == (5, None)


async def test_what_is_held_by_calls_in_flight_is_waited_for_and_what_is_spent_is_not() -> None:
    gate = asyncio.Event()
    house = taught(House({"one": ScriptedProvider([gate, *answer("Hello.")])}, caps=Caps(hour=55_000)))
    first = await house.gateway.chat(CALLER, ask("Where is my parcel!"))
    await asyncio.sleep(0)
    held = await refused(house)
    assert (held.code, held.status, held.retryable, held.retry_after) == ("budget_held", 402, True, 1.0)
    gate.set()
    async with first:
        await first.completion()
    spent = await refused(house)
    assert (spent.code, spent.status, spent.retryable, spent.retry_after) == ("budget_exceeded", 402, False, None)


async def test_an_answer_that_a_shrunk_limit_cut_short_is_not_kept() -> None:
    house = taught(House({"one": ScriptedProvider(answer("Hel", finish="length"))}, caps=Caps(hour=100_000)))
    reply = await told(house)
    assert reply.trail.limit == USUAL
    assert house.gateway.cache.size() == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_follower_does_not_suffer_from_its_leaders_shrunk_limit(stream: bool) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider([gate, *answer("Hel", finish="length")], answer("Hello."))
    house = taught(House({"one": provider}))
    await house.allow("user:acme/ann", 100_000)
    poor = await house.gateway.chat(CALLER, ask(stream=stream), Wishes(user="ann"))
    rich = await house.gateway.chat(CALLER, ask(stream=stream), Wishes(user="bob"))
    readers = [asyncio.create_task(reply.completion()) for reply in (poor, rich)]
    await asyncio.sleep(0)
    gate.set()
    assert [completion.text for completion in await asyncio.gather(*readers)] == ["Hel", "Hello."]
    assert [call.limit for call in provider.calls] == [USUAL, 100]
    assert (poor.trail.limit, rich.trail.limit, rich.source) == (USUAL, None, "live")
    poor.close()
    rich.close()


async def test_who_joins_late_does_not_get_what_anothers_budget_left_of_an_answer() -> None:
    gate = asyncio.Event()
    first = answer("Hel", "lo", finish="length")
    provider = ScriptedProvider([first[0], gate, *first[1:]], answer("Whole."))
    house = taught(House({"one": provider}))
    await house.allow("feature:acme/draft", 100_000)
    async with await house.gateway.chat(CALLER, ask(stream=True), Wishes(feature="draft")) as poor:
        await poor.opened()
        late = asyncio.create_task(told(house, stream=True))
        while len(provider.calls) < 2:
            await asyncio.sleep(0)
        gate.set()
        assert (await late).trail.limit is None
    assert [call.limit for call in provider.calls] == [USUAL, 100]


async def test_callers_under_the_same_budgets_share_a_call_near_the_cap() -> None:
    house = taught(House(caps=Caps(hour=100_000)))
    replies = await asyncio.gather(*(told(house) for _ in range(5)))
    assert len(house.provider.calls) == 1
    assert sorted(reply.source for reply in replies) == ["coalesced"] * 4 + ["live"]


async def test_a_follower_does_not_inherit_its_leaders_refusal() -> None:
    house = House()
    await house.allow("user:acme/ann", 1_000)
    poor = await house.gateway.chat(CALLER, ask(), Wishes(user="ann"))
    rich = await house.gateway.chat(CALLER, ask(), Wishes(user="bob"))
    outcomes = await asyncio.gather(poor.completion(), rich.completion(), return_exceptions=True)
    assert isinstance(outcomes[0], BudgetExceeded)
    assert getattr(outcomes[1], "text", None) == "Hello."
    assert rich.source == "live"
    poor.close()
    rich.close()
    assert [(row.group["user"], row.cost) for row in await house.journal("user")] == [("bob", ONE_CALL)]


async def test_a_refused_leader_under_the_budget_of_all_costs_no_storm_of_calls() -> None:
    house = House(caps=Caps(hour=1_000))
    refusals = await asyncio.gather(*(refused(house) for _ in range(20)))
    assert {refusal.code for refusal in refusals} == {"budget_exceeded"}
    assert house.provider.calls == []
    assert house.gateway.flights.started <= 2


@pytest.mark.parametrize(
    ("account", "wishes"),
    [
        ("organisation:holding", Wishes()),
        ("tenant:acme", Wishes()),
        ("user:acme/ann", Wishes(user="ann")),
        ("key:acme/key-1", Wishes()),
        ("feature:acme/draft", Wishes(feature="draft")),
        ("model:acme/one", Wishes()),
    ],
)
async def test_each_kind_of_account_stops_at_its_own_cap_and_no_other(account: str, wishes: Wishes) -> None:
    house = House()
    who = Principal(tenant="acme", key="key-1", organisations=("holding",))
    await house.allow(account, PROMPT + 100 * TOKEN + ONE_CALL)
    await told(house, who, wishes)
    await told(house, who, wishes, text="Where is my Parcel?")
    assert (await refused(house, who, wishes, text="Where is My parcel?")).code == "budget_exceeded"
    other = Principal(tenant="bolt", key="key-2")
    await told(house, other)
    assert (await house.ledger.balance(account, "hour:1970-01-12T13")).spent == 2 * ONE_CALL


async def test_a_models_budget_counts_only_what_that_model_costs() -> None:
    house = House({"one": ScriptedProvider(), "two": ScriptedProvider()})
    await house.allow("model:acme/two", PROMPT + 100 * TOKEN)
    for number in range(3):
        await told(house, text=f"Where is parcel {number}?", model="one")
    await told(house, model="two", wishes=Wishes(cache="no-store"))
    assert (await refused(house, model="two", wishes=Wishes(cache="no-store"))).code == "budget_exceeded"
    await told(house, model="one", text="Where is it?")


async def test_a_soft_budget_is_counted_and_refuses_nothing() -> None:
    house = House()
    await house.allow("tenant:acme", 1, rule="soft")
    await told(house)
    assert await house.settled() == ONE_CALL


async def test_grace_lets_in_what_the_percent_allows_beyond_the_cap() -> None:
    house = House()
    await house.allow("tenant:acme", PROMPT + 100 * TOKEN, rule="grace", percent=10)
    await told(house)
    await told(house, text="Where is my Parcel?")
    assert (await refused(house, text="Where is My parcel?")).code == "budget_exceeded"


async def test_overage_refuses_nothing_and_bills_what_is_beyond_at_its_rate() -> None:
    house = House()
    await house.allow("tenant:acme", ONE_CALL, rule="overage", percent=150)
    await told(house)
    await told(house, text="Where is my Parcel?")
    (row,) = await house.journal()
    assert (row.cost, row.billed) == (2 * ONE_CALL, ONE_CALL + ONE_CALL * 150 // 100)


async def test_a_degrading_budget_sends_a_tiered_route_to_its_cheapest_tier_and_says_so() -> None:
    house = House({"small": ScriptedProvider(), "large": ScriptedProvider()}, tiers=TIERS)
    await house.allow("tenant:acme", ONE_CALL, rule="degrade")
    first = await told(house, text=HARD)
    assert (first.trail.deployment, first.trail.route_reason != "budget_degraded") == ("large", True)
    second = await told(house, text=HARD, wishes=Wishes(cache="no-store"))
    assert (second.trail.deployment, second.trail.route_reason) == ("small", "budget_degraded")


async def test_a_model_asked_for_by_name_is_refused_where_a_route_would_degrade() -> None:
    house = House({"small": ScriptedProvider(), "large": ScriptedProvider()}, tiers=TIERS)
    await house.allow("tenant:acme", ONE_CALL, rule="degrade")
    await told(house, text=HARD)
    assert (await refused(house, text=HARD, model="large", wishes=Wishes(cache="no-store"))).code == "budget_exceeded"


async def test_a_cheaper_answer_of_one_users_budget_is_neither_kept_nor_given_to_others() -> None:
    gate = asyncio.Event()
    small = ScriptedProvider([gate, *answer("Short and cheap.")])
    house = House({"small": small, "large": ScriptedProvider()}, tiers=TIERS)
    await house.allow("user:acme/ann", 0, rule="degrade")
    ann = await house.gateway.chat(CALLER, ask(HARD), Wishes(user="ann"))
    bob = await house.gateway.chat(CALLER, ask(HARD), Wishes(user="bob"))
    readers = [asyncio.create_task(reply.completion()) for reply in (ann, bob)]
    await asyncio.sleep(0)
    gate.set()
    assert [completion.text for completion in await asyncio.gather(*readers)] == ["Short and cheap.", "Hello."]
    ann.close()
    bob.close()
    await house.flown()
    assert (await told(house, text=HARD)).trail.deployment == "large"
    assert house.gateway.cache.size() == 1


async def test_a_charged_attempt_is_followed_by_another_only_if_the_budget_covers_both() -> None:
    silence = UpstreamTimeout("silent")
    silence.sent = True
    rich = House({"one": ScriptedProvider([silence]), "two": ScriptedProvider()}, caps=Caps(hour=8_000_000))
    reply = await told(rich)
    first, second = reply.trail.attempts
    assert (first.deployment, first.usage.estimated, second.deployment) == ("one", True, "two")
    assert await rich.settled() == first.cost + second.cost
    rows = await rich.journal("deployment")
    assert [(row.group["deployment"], row.cost, row.requests) for row in rows] == [
        ("one", first.cost, 0),
        ("two", second.cost, 1),
    ], "each attempt is a row of its own, the request is counted once"

    poor = House({"one": ScriptedProvider([silence]), "two": ScriptedProvider()}, caps=Caps(hour=PROMPT + 100 * TOKEN))
    with pytest.raises(AllFailed, match=r"one: upstream_timeout \(504\); two: budget_held \(402\)"):
        await told(poor)
    assert await poor.settled() == first.cost
    assert poor.ledger.open_reservations() == 0


@pytest.mark.parametrize("room", [False, True])
async def test_a_dear_fallback_is_tried_if_the_budget_has_room_for_it_beyond_what_is_held(room: bool) -> None:
    dear = 10 * (PROMPT + USUAL * TOKEN)
    house = taught(
        House(
            {"small": ScriptedProvider([UpstreamTimeout("silent")]), "large": ScriptedProvider()},
            tiers={"low": ("small", "large"), "medium": ("small", "large"), "high": ("large",)},
            prices={"large": DEAR},
            caps=Caps(hour=dear if room else dear - 1),
        )
    )
    if room:
        reply = await told(house)
        assert (reply.trail.deployment, reply.trail.limit, reply.trail.ceiling) == ("large", USUAL, dear)
    else:
        with pytest.raises(AllFailed, match=r"small: upstream_timeout \(504\); large: budget_held \(402\)$"):
            await told(house)
    assert house.ledger.open_reservations() == 0


async def test_a_model_without_a_price_is_refused_where_money_is_limited() -> None:
    house = House(prices={"one": None}, caps=Caps(hour=1_000_000))
    with pytest.raises(Unpriced):
        await told(house)
    assert await house.settled() == 0


async def test_what_routing_saved_is_in_the_reply_the_record_and_the_journal() -> None:
    providers = {"small": ScriptedProvider(), "large": ScriptedProvider()}
    house = House(providers, tiers=TIERS, prices={"large": DEAR})
    reply = await told(house)
    assert reply.trail.deployment == "small"
    assert reply.saved == 9 * ONE_CALL
    assert house.notes.records[0].saved == 9 * ONE_CALL
    (row,) = await house.journal("source")
    assert (row.group["source"], row.cost, row.saved) == ("live", ONE_CALL, 9 * ONE_CALL)
