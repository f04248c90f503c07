"""What the router makes of questions."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.chat import ChatRequest, Message
from headgate.model.deployment import Deployment
from headgate.model.tenancy import Policy, Principal
from headgate.routing.difficulty import score
from headgate.routing.features import HEAD, TAIL, features
from headgate.routing.fleet import Fleet
from headgate.routing.routing import Decision, Route, Routing

DEPLOYMENTS = {name: Deployment(name=name, provider="sim", model=name) for name in ("small", "middle", "large")}
AUTO = Route("auto", {"low": ("small",), "medium": ("middle",), "high": ("large",)})
FLAT = Route("flat", dict.fromkeys(("low", "medium", "high"), ("small",)))
ROUTING = Routing(DEPLOYMENTS, {"auto": AUTO, "flat": FLAT}, fleet=Fleet())


def ask(*turns: str, model: str = "auto", **body) -> ChatRequest:
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]
    return ChatRequest.parse({"model": model, "messages": messages, **body})


def by(routing: Routing, request: ChatRequest, policy: Policy | None = None, *, frugal: bool = False) -> Decision:
    caller = Principal(tenant="acme", policy=policy or Policy())
    return asyncio.run(routing.decide(request, caller, frugal=frugal))


def decided(*turns: str, policy: Policy | None = None, **body):
    return by(ROUTING, ask(*turns, **body), policy)


@pytest.mark.parametrize(
    "text",
    [
        "How do I reset my password?",
        "What is your refund policy?",
        "What are your opening hours on Sunday?",
        "Can you tell me how long delivery takes to Berlin?",
        "Where is my order 12345?",
        "Thanks!",
        "hi",
    ],
)
def test_a_short_plain_question_goes_to_the_low_tier(text: str) -> None:
    decision = decided(text)
    assert (decision.task, decision.tier) == ("chat", "low")
    assert decision.confidence > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "Prove that there are infinitely many primes, then derive a bound on how many lie below n if n is at least 10.",
        "Explain the difference between optimistic and pessimistic locking and compare their tradeoffs for a booking system.",
        "Write a Python function that merges two sorted lists. It must be O(n), must never copy, and needs a test.",
        "Analyze this contract clause: if the licensee becomes insolvent, unless both parties agree otherwise, what survives?",
    ],
)
def test_a_question_with_several_signs_of_difficulty_goes_to_the_high_tier(text: str) -> None:
    assert decided(text).tier == "high"


@pytest.mark.parametrize(
    "text",
    [
        "What is the enthalpy change of combustion for ethanol given bond energies?",
        "Which of the following indemnity clauses survives termination under New York law?",
        "A 54 year old man has chest pain radiating to the left arm and a history of diabetes. Next treatment?",
        "How does a transformer attention mechanism scale with sequence length?",
        "refund",
        "Draft a polite email to a customer whose parcel is late.",
    ],
)
def test_no_keyword_is_no_evidence_of_ease(text: str) -> None:
    """A scorer that sends every question without a keyword to the cheap model fails in chemistry, law and medicine."""
    assert decided(text).tier != "low"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("¿Cuál es la política de devoluciones de su tienda y cuánto tarda el reembolso en llegar?", "unsure:foreign"),
        ("パスワードをリセットするにはどうすればよいですか", "unsure:foreign"),
        ("refund", "unsure:few"),
        ("", "unsure:few"),
        ("The cat sat on the mat and the dog lay on the rug. " * 40, "unsure:long"),
    ],
)
def test_out_of_its_depth_the_router_abstains_to_the_default_tier(text: str, reason: str) -> None:
    safe = Routing(DEPLOYMENTS, {"auto": Route("auto", AUTO.tiers, AUTO.tasks, "high")}, fleet=Fleet())
    decision = by(safe, ask(text))
    assert (decision.tier, decision.confidence, decision.reason) == ("high", 0.0, reason)


def test_a_follow_up_needs_more_than_brevity_to_be_low() -> None:
    assert decided("Is it open on Sunday?").tier == "low"
    assert decided("Compare the two museums.", "Gladly: ...", "Is it open on Sunday?").tier == "medium"


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Fix this:\n```python\ndef f(x):\n    return x +\n```", "code"),
        ("Why does my Go program deadlock? Explain and compare channels with a mutex.", "reasoning"),
        ("Solve the equation x^2 - 4x = 5 and prove it.", "reasoning"),
        ("Which day is it?", "chat"),
    ],
)
def test_the_task_is_read_from_the_question(text: str, task: str) -> None:
    assert decided(text).task == task


def test_an_image_in_any_turn_makes_it_a_vision_task() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    request = ChatRequest.parse(
        {
            "model": "auto",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
                {"role": "assistant", "content": "A cat."},
                {"role": "user", "content": "What colour is it?"},
            ],
        }
    )
    assert by(ROUTING, request).task == "vision"


def test_a_deployment_asked_for_by_name_is_pinned() -> None:
    for model in ("large", "sim/large"):
        decision = decided("hi", model=model)
        assert (decision.reason, decision.confidence) == ("pinned", 1.0)


def test_a_route_with_one_list_is_not_judged() -> None:
    assert decided("Prove it.", model="flat").reason == "untiered"


def test_the_tenants_tier_overrules_the_router() -> None:
    decision = decided("hi", policy=Policy(tier="high"))
    assert (decision.tier, decision.confidence, decision.reason) == ("high", 1.0, "tenant_tier")


def test_a_frugal_decision_is_the_cheapest_tier_whatever_the_question_and_the_tenant_wish() -> None:
    request = ask("Prove that the square root of two is irrational, step by step.")
    decision = by(ROUTING, request, Policy(tier="high"), frugal=True)
    assert (decision.tier, decision.reason, decision.frugal) == ("low", "budget_degraded", True)
    for model, reason in (("large", "pinned"), ("flat", "untiered")):
        assert by(ROUTING, ask("hi", model=model), frugal=True).reason == reason


def test_only_a_route_with_several_tiers_or_tasks_has_a_cheaper_one() -> None:
    assert [ROUTING.tiered(name) for name in ("auto", "flat", "large", "absent")] == [True, False, False, False]


def test_the_reason_names_what_counted_most() -> None:
    assert decided("How do I reset my password?").reason == "plain+length"


def test_tools_and_turns_make_a_question_harder() -> None:
    tools = [{"type": "function", "function": {"name": "find"}}]
    bare = score(features(ask("The order came late.")))
    assert score(features(ask("The order came late.", tools=tools))) > bare
    assert score(features(ask("Hello", "Hello!", "The order came late."))) > bare


@given(st.text(max_size=400), st.sampled_from(["user", "system"]))
def test_any_text_gets_a_decision_with_bounded_features(text: str, role: str) -> None:
    request = ChatRequest(model="auto", messages=(Message(role, text),))
    seen = features(request)
    shares = [getattr(seen, name) for name in seen.__struct_fields__ if name not in ("words", "foreign", "long")]
    assert all(0 <= share <= 1 for share in shares)
    assert 0 <= by(ROUTING, request).confidence <= 1


@pytest.mark.parametrize("hostile", ["\n", "select ", ";\n ", "$a", "- ", "a=", "x^2 ", "why "])
def test_of_a_huge_prompt_only_head_and_tail_are_read(hostile: str) -> None:
    """So the time of a decision has a bound that no prompt can move."""
    huge = features(ask(hostile * 200_000))
    read = features(ask((hostile * 200_000)[:HEAD] + "\n" + (hostile * 200_000)[-TAIL:]))
    assert huge.long
    assert msgspec.structs.replace(huge, long=read.long, length=read.length) == read
