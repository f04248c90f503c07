"""Conversations: which turns belong together, what they keep, and when moving to another deployment pays."""

from __future__ import annotations

import msgspec
import pytest

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.money import Price, Usage
from headgate.model.tenancy import Policy, Principal
from headgate.routing.breaker import Breakers
from headgate.routing.deciders import Asked, Deciders, Opinion
from headgate.routing.fleet import Fleet
from headgate.routing.route import Decision, Kept, Route
from headgate.routing.routing import Routing
from headgate.routing.sticking import AT_HAND, LEAST_CACHED, Sticking, conversation_of

USD = 1_000_000_000
CACHING = Price(input=2 * USD, output=8 * USD, cached_input=USD // 5)
PLAIN = Price(input=2 * USD, output=8 * USD)
CHEAP = Price(input=USD // 10, output=USD // 10)
IDLE = 600.0


class Voice:
    """A decider that says what it is told to."""

    def __init__(self, tier: str = "low") -> None:
        self.tier = tier

    async def opinion(self, asked: Asked) -> Opinion:
        return Opinion(tier=self.tier, confidence=0.9, reason="told")  # type: ignore[arg-type]


class Talk:
    """A route with two deployments of each tier, and one conversation on it."""

    def __init__(self, prices: dict[str, Price] | None = None, **route) -> None:
        self.time = 0.0
        self.voice = Voice()
        names = ("small", "small-2", "middle", "large", "large-2")
        deployments = {
            name: Deployment(name=name, provider="sim", model=name, price=(prices or {}).get(name, CACHING))
            for name in names
        }
        tiers = {"low": ("small", "small-2"), "medium": ("middle",), "high": ("large", "large-2")}
        self.breakers = Breakers(clock=lambda: self.time)
        self.routing = Routing(
            deployments,
            {"auto": Route("auto", tiers, deciders=("features",), stick=IDLE, **route)},
            fleet=Fleet(self.breakers, clock=lambda: self.time, random=lambda: 0.0),
            deciders=Deciders({"features": self.voice}),
            sticking=Sticking(clock=lambda: self.time),
        )

    async def turn(self, number: int, tier: str, *, answers: str | None = None, tokens: int = 0, **more) -> Decision:
        """The turn of this number, from 0; `answers`: who answers it, by default who is planned first."""
        self.voice.tier = tier
        request, caller = turns(number), Principal(tenant="acme", **more)
        decision = await self.routing.decide(request, caller)
        first = self.first(decision, request, caller.policy)
        self.routing.answered(decision, "auto", answers or first, Usage(prompt_tokens=tokens))
        return decision

    def first(self, decision: Decision, request: ChatRequest, policy: Policy | None = None) -> str:
        plan = self.routing.plan(decision, policy or Policy(), request, likely=2_000, most=4_000, expected=100)
        return plan.steps[0].deployment.name


def turns(number: int, *, first: str = "Hello!", answer: str = "Hi.") -> ChatRequest:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": first}]
    for at in range(number):
        said = answer if at == 0 else f"answer {at}"
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": f"question {at}"}]
    return ChatRequest.parse({"model": "auto", "messages": messages})


def test_turns_of_one_conversation_have_the_same_place_and_others_do_not() -> None:
    second, third = (conversation_of(turns(number), "acme", None, "auto") for number in (1, 2))
    assert second == third
    assert conversation_of(turns(0), "acme", None, "auto").opening == second.opening
    assert conversation_of(turns(0), "acme", None, "auto").own is None
    others = [
        conversation_of(turns(1, first="Hey!"), "acme", None, "auto"),
        conversation_of(turns(1, answer="Hey."), "acme", None, "auto"),
        conversation_of(turns(1), "globex", None, "auto"),
        conversation_of(turns(1), "acme", "ann", "auto"),
        conversation_of(turns(1), "acme", None, "other"),
    ]
    assert len({one.own for one in (*others, second)}) == 6


async def test_a_conversation_keeps_its_tier_and_goes_upward() -> None:
    talk = Talk()
    tiers = [(await talk.turn(at, tier)).tier for at, tier in enumerate(["medium", "low", "high", "medium", "low"])]
    assert tiers == ["medium", "medium", "high", "high", "high"]


async def test_what_sticks_says_so_and_says_how_sure_the_router_was() -> None:
    talk = Talk()
    await talk.turn(0, "high")
    decision = await talk.turn(1, "low")
    assert (decision.reason, decision.confidence, decision.decider) == ("sticks:high", 0.9, "features")
    assert decision.reasons == ("features: low 0.90, told", "sticks:high")


async def test_a_conversation_that_was_silent_for_too_long_begins_anew() -> None:
    talk = Talk()
    await talk.turn(0, "high")
    talk.time = IDLE - 1
    assert (await talk.turn(1, "low")).tier == "high"
    talk.time += IDLE
    assert (await talk.turn(2, "low")).tier == "low"


async def test_a_first_question_is_free_however_others_went_on_from_it() -> None:
    talk = Talk()
    await talk.turn(0, "high")
    assert (await talk.turn(0, "low")).tier == "low"
    assert (await talk.turn(1, "low")).tier == "high"


async def test_a_budget_and_a_person_are_above_a_conversation() -> None:
    talk = Talk()
    await talk.turn(0, "high")
    caller = Principal(tenant="acme")
    assert (await talk.routing.decide(turns(1), caller, frugal=True)).tier == "low"
    assert (await talk.turn(1, "high", policy=Policy(tier="low"))).tier == "low"


async def test_turns_that_nobody_answered_are_not_remembered() -> None:
    talk = Talk()
    talk.voice.tier = "high"
    await talk.routing.decide(turns(0), Principal(tenant="acme"))
    assert (await talk.turn(1, "low")).tier == "low"


async def test_a_conversation_stays_with_its_deployment_while_that_is_well() -> None:
    talk = Talk()
    await talk.turn(0, "low", answers="small-2")
    assert talk.first(await talk.turn(1, "low"), turns(1)) == "small-2"
    for _ in range(5):
        talk.breakers.observe("small-2", failed=True)
    assert talk.first(await talk.turn(2, "low"), turns(2)) == "small"


async def test_a_conversation_that_rises_leaves_its_deployment() -> None:
    talk = Talk()
    await talk.turn(0, "low", answers="small-2", tokens=10_000)
    assert talk.first(await talk.turn(1, "high"), turns(1)) == "large"


async def test_a_preferred_deployment_and_a_tasks_own_go_before_what_sticks() -> None:
    talk = Talk(tasks={"chat": ("middle",)})
    await talk.turn(0, "low", answers="small-2")
    decision = await talk.turn(1, "low", answers="small-2")
    assert talk.first(decision, turns(1)) == "middle"
    assert talk.first(msgspec.structs.replace(decision, task="code"), turns(1)) == "small-2"
    assert talk.first(msgspec.structs.replace(decision, task="code"), turns(1), Policy(prefer=("large",))) == "large"


@pytest.mark.parametrize(
    ("price", "tokens", "stays"),
    [
        (CACHING, 0, True),  # the same price: nothing is won by moving
        (CHEAP, 10_000, False),  # so cheap that reading all anew is less than what is at hand
        (Price(input=USD, output=8 * USD), 0, False),  # half the price, and nothing to lose
        (Price(input=USD, output=8 * USD), 10_000, True),  # half the price is more than the tenth that is paid here
        (Price(input=USD, output=8 * USD), LEAST_CACHED - 1, False),  # too short to have been kept
    ],
)
async def test_a_move_is_weighed_against_the_prompt_that_is_at_hand(price: Price, tokens: int, stays: bool) -> None:
    talk = Talk({"small": price, "small-2": CACHING})
    await talk.turn(0, "low", answers="small-2", tokens=tokens)
    decision = await talk.turn(1, "low", answers="small-2", tokens=tokens)
    assert talk.first(decision, turns(1)) == ("small-2" if stays else "small")


async def test_what_was_read_long_ago_is_no_longer_at_hand() -> None:
    talk = Talk({"small": Price(input=USD, output=8 * USD)})
    await talk.turn(0, "low", answers="small-2", tokens=10_000)
    talk.time = AT_HAND
    decision = await talk.turn(1, "low", answers="small-2", tokens=10_000)
    assert decision.kept == Kept("low", "small-2", 0)
    assert talk.first(decision, turns(1)) == "small"


async def test_what_the_provider_counted_goes_before_what_is_supposed() -> None:
    sticking, request = Sticking(clock=lambda: 0.0), turns(1)
    route = Route("auto", {"low": ("small",)}, stick=IDLE)
    small = Deployment(name="small", provider="sim", model="small", price=CACHING)
    plain = msgspec.structs.replace(small, price=PLAIN)
    for one, usage, cached in (
        (small, Usage(prompt_tokens=5_000, cached_tokens=3_000, cache_write_tokens=500), 3_500),
        (small, Usage(prompt_tokens=5_000), 5_000),
        (plain, Usage(prompt_tokens=5_000), 0),
        (plain, Usage(prompt_tokens=5_000, cached_tokens=100), 100),
    ):
        free = Decision("chat", "low", 1.0, "told")
        decision = sticking.held(free, route, request, tenant="acme", user=None)
        sticking.answered(decision, route, one, usage)
        kept = sticking.held(free, route, request, tenant="acme", user=None).kept
        assert kept == Kept("low", "small", cached)


async def test_of_too_many_conversations_the_longest_silent_is_forgotten() -> None:
    sticking = Sticking(clock=lambda: 0.0, most=2)
    route = Route("auto", {"high": ("small",)}, stick=IDLE)
    small = Deployment(name="small", provider="sim", model="small")
    low, high = (Decision("chat", tier, 1.0, "told") for tier in ("low", "high"))  # type: ignore[arg-type]

    def held(decision: Decision, user: str) -> Decision:
        return sticking.held(decision, route, turns(1), tenant="acme", user=user)

    for user in ("ann", "bob", "ann", "eve"):
        sticking.answered(held(high, user), route, small, Usage())
    assert [held(low, user).tier for user in ("ann", "bob", "eve")] == ["high", "low", "high"]


async def test_a_route_where_nothing_sticks_remembers_nothing() -> None:
    sticking, route = Sticking(), Route("auto", {"low": ("small",)})
    decision = Decision("chat", "low", 1.0, "told")
    assert sticking.held(decision, route, turns(1), tenant="acme", user=None) is decision


def pooled(random: float) -> Routing:
    """One list without tiers, whose first is drawn from a pool."""
    deployments = {name: Deployment(name=name, provider="sim", model=name) for name in ("a", "b")}
    route = Route("flat", dict.fromkeys(("low", "medium", "high"), ("a", "b")), pools=(("a", "b"),), stick=IDLE)
    return Routing(deployments, {"flat": route}, fleet=Fleet(random=lambda: random))


@pytest.mark.parametrize(("random", "drawn", "other"), [(0.0, "a", "b"), (0.9, "b", "a")])
async def test_in_a_pool_a_conversation_stays_with_the_one_that_answered_it(
    random: float, drawn: str, other: str
) -> None:
    routing, caller = pooled(random), Principal(tenant="acme")
    first, second = (msgspec.structs.replace(turns(number), model="flat") for number in (0, 1))

    async def planned(request: ChatRequest) -> str:
        decision = await routing.decide(request, caller)
        plan = routing.plan(decision, Policy(), request, likely=10, most=20)
        routing.answered(decision, "flat", other, Usage())
        return plan.steps[0].deployment.name

    assert await planned(first) == drawn
    assert await planned(second) == other


async def test_what_is_explained_of_a_pool_does_not_hang_on_chance() -> None:
    found = [
        await pooled(random).explain(
            msgspec.structs.replace(turns(0), model="flat"), Principal(tenant="acme"), likely=10, most=20, expected=10
        )
        for random in (0.0, 0.9)
    ]
    assert found[0] == found[1]
    assert [one.place for one in found[0].candidates] == [1, 2]
