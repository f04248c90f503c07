"""Residency: whatever the configuration, the question and what fails, nothing of a tenant's reaches a model outside its regions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.budget.estimate import measure
from headgate.cache.checks import Ration
from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.errors import GatewayError, ModelNotAllowed, Unavailable
from headgate.model.record import CallRecord
from headgate.model.tenancy import Policy, Principal
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.routing.breaker import Breakers
from headgate.routing.deciders import Asked
from headgate.routing.features import Features
from headgate.routing.fleet import Fleet
from headgate.routing.knn import KnnDecider, Neighbours
from headgate.routing.outcomes_keeping import Outcomes
from headgate.routing.outcomes_memory import MemoryOutcomes
from headgate.routing.retries import RetryBudget
from headgate.routing.route import TIERS, Decision, Plan
from headgate.routing.routing import Route, Routing
from tests.scenarios.house import PRICE, House

NAMES = ("a", "b", "c", "d", "e")
regions = st.sampled_from(["eu", "us", "ap", None])
residencies = st.lists(st.sampled_from(["eu", "us", "ap", "moon"]), min_size=1, max_size=3, unique=True).map(tuple)
lists = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True).map(tuple)
ways = st.sampled_from([("larger",), ("prune",), ("larger", "condense"), ("condense", "larger", "refuse")])


@st.composite
def deployments(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    sizes = st.sampled_from([1_000, 4_000, 100_000])
    return {name: {"region": draw(regions), "context_window": draw(sizes)} for name in NAMES}


@st.composite
def routes(draw: st.DrawFn) -> Route:
    tiers = {tier: draw(lists) for tier in TIERS}
    tasks = draw(st.dictionaries(st.sampled_from(["code", "reasoning", "chat"]), lists))
    overflow = draw(ways)
    pools = draw(st.lists(lists, max_size=1).map(tuple))
    condenser = draw(st.sampled_from(NAMES)) if "condense" in overflow else None
    return Route("auto", tiers, tasks, overflow=overflow, condenser=condenser, pools=pools)


def request(model: str, turns: int) -> ChatRequest:
    said = [{"role": ("user", "assistant")[at % 2], "content": "x" * 400} for at in range(turns)]
    return ChatRequest.parse(
        {"model": model, "messages": [*said, {"role": "user", "content": "How long does delivery take?"}]}
    )


def outcome(make: Callable[[], Plan]) -> Plan | GatewayError:
    """The plan, or why there is none."""
    try:
        return make()
    except GatewayError as error:
        return error


@given(
    fields=deployments(),
    route=routes(),
    fallbacks=st.dictionaries(st.sampled_from(NAMES), lists),
    residency=st.none() | residencies,
    prefer=lists,
    model=st.sampled_from(["auto", *NAMES]),
    turns=st.sampled_from([0, 8, 40]),
    task=st.sampled_from(["chat", "code", "reasoning", "vision"]),
    tier=st.sampled_from(TIERS),
    frugal=st.booleans(),
)
def test_no_plan_names_a_model_outside(
    *,
    fields: Any,
    route: Route,
    fallbacks: Any,
    residency: Any,
    prefer: Any,
    model: str,
    turns: int,
    task: Any,
    tier: Any,
    frugal: bool,
) -> None:
    every = {name: Deployment(name=name, provider=name, model=name, price=PRICE, **of) for name, of in fields.items()}
    fleet = Fleet(Breakers(clock=lambda: 0.0), clock=lambda: 0.0)
    routing = Routing(every, {"auto": route}, fleet=fleet, fallbacks=fallbacks)
    policy = Policy(residency=residency, prefer=prefer)
    asked = request(model, turns)
    size = measure(asked)
    decision = Decision(task, tier, 1.0, "drawn", frugal=frugal)
    listed = routing.models(policy)
    for make in (
        lambda: routing.plan(decision, policy, asked, likely=size.likely, most=size.most, measure=measure),
        lambda: routing.plan_embeddings(policy, model, likely=10, most=40),
    ):
        found = outcome(make)
        if isinstance(found, Plan):
            assert model in listed
            assert all(policy.admits(step.deployment.region) for step in found.steps)
        elif isinstance(found, ModelNotAllowed):
            assert residency is not None
            assert all(region in found.message for region in residency)


class Letters:
    """An embedder that works where it is told, and counts what it sees."""

    identity = "letters"
    dimensions = 2

    def __init__(self) -> None:
        self.seen = 0

    def fits(self, text: str) -> bool:
        return True

    async def embed(self, text: str) -> Any:
        self.seen += 1
        return np.array([1.0, 0.0], dtype=np.float32)

    async def close(self) -> None:
        return None


@settings(max_examples=60, deadline=None)
@given(
    fields=deployments(),
    route=routes(),
    residency=residencies,
    embedded_in=regions,
    kinds=st.lists(st.sampled_from(["up", "up", "down"]), min_size=len(NAMES), max_size=len(NAMES)),
    turns=st.lists(st.sampled_from([0, 8, 40]), min_size=1, max_size=3),
    model=st.sampled_from(["auto", "auto", *NAMES]),
)
def test_no_call_of_a_tenant_reaches_a_model_outside(
    *, fields: Any, route: Route, residency: Any, embedded_in: Any, kinds: Any, turns: Any, model: str
) -> None:
    down, up = (Unavailable("down"),), answer("They agreed.")
    providers = {
        name: ScriptedProvider(down if kind == "down" else up) for name, kind in zip(NAMES, kinds, strict=True)
    }
    policy = Policy(residency=residency)
    embedder = Letters()

    async def work() -> None:
        house = House(
            providers,
            tiers=route.tiers,
            routed={
                "tasks": route.tasks,
                "overflow": route.overflow,
                "condenser": route.condenser,
                "pools": route.pools,
            },
            deployed=fields,
            embedder=embedder,
            sees=lambda policy: policy.admits(embedded_in),
            ration=Ration(share=9.0, chance=1.0, saved=100.0),
            hedges={"auto": RetryBudget(share=1.0, clock=lambda: 0.0)},
        )
        caller = Principal(tenant="acme", key="key-1", policy=policy)
        for count in turns:
            with contextlib.suppress(GatewayError):
                async with await house.gateway.chat(caller, request(model, count)) as reply:
                    await reply.completion()
            with contextlib.suppress(GatewayError):
                await house.gateway.embed(caller, {"model": model, "input": "How long does delivery take?"})
        await house.flown()
        assert house.ledger.open_reservations() == 0

    asyncio.run(work())
    for name, provider in providers.items():
        if not policy.admits(fields[name]["region"]):
            assert provider.calls == []
            assert provider.embedded == []
    if not policy.admits(embedded_in):
        assert embedder.seen == 0


async def test_what_learns_where_questions_go_reads_none_that_its_embedder_may_not_see() -> None:
    embedder, policy, log = Letters(), Policy(residency=("eu",)), MemoryOutcomes()
    route = Route("auto", {"low": ("a",), "medium": ("a",), "high": ("b",)}, deciders=("knn",))
    asked = request("auto", 0)

    def sees(policy: Policy) -> bool:
        return policy.admits("us")

    decider = KnnDecider(embedder.embed, Neighbours(2), sees=sees)
    opinion = await decider.opinion(
        Asked(
            id="c", tenant="acme", user=None, policy=policy, route=route, request=asked, seen=Features(), text="Where?"
        )
    )
    assert (opinion.tier, opinion.reason) == (None, "residency")
    keeping = Outcomes(log, {"auto": route}.get, embed=embedder.embed, sees=sees)
    record = CallRecord(id="c", at=0.0, tenant="acme", route="auto", status=200)
    keeping.bought(record, asked, Decision("chat", "low", 1.0, "drawn"), policy)
    await keeping.idle()
    assert embedder.seen == 0
    assert [one.vector for one in log.past()] == [b""]
