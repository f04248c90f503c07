"""What an operator's rules look at, and which patterns may be run on what a stranger wrote."""

from __future__ import annotations

import re

import pytest

from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Policy
from headgate.routing.deciders import Asked
from headgate.routing.features import asked as last_turn
from headgate.routing.features import features
from headgate.routing.patterns import LONGEST, READ, compiled, found
from headgate.routing.route import Route
from headgate.routing.rules import Rule, RuleDecider, When, fits

AUTO = Route("auto", {"low": ("small",), "medium": ("middle",), "high": ("large",)})


def asked(text: str = "Where is my parcel?", *, tenant: str = "acme", user: str | None = None, **body) -> Asked:
    request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": text}], **body})
    return Asked(
        id="1",
        tenant=tenant,
        user=user,
        policy=Policy(),
        route=AUTO,
        request=request,
        seen=features(request),
        text=last_turn(request),
    )


TOOLS = [{"type": "function", "function": {"name": "look"}}]
CODE = "Write a Python function `def merge(a, b):` that returns a sorted list; import nothing."


@pytest.mark.parametrize(
    ("when", "fitting", "other"),
    [
        (When(tenant="acme"), asked(), asked(tenant="globex")),
        (When(user="ann"), asked(user="ann"), asked(user="bob")),
        (When(user="ann"), asked(user="ann"), asked()),
        (When(metadata={"plan": "gold"}), asked(metadata={"plan": "gold", "x": "y"}), asked(metadata={"plan": "tin"})),
        (When(metadata={"plan": "gold"}), asked(metadata={"plan": "gold"}), asked()),
        (When(metadata={"plan": "gold"}), asked(metadata={"plan": "gold"}), asked(metadata="gold")),
        (When(metadata={"seats": "3"}), asked(metadata={"seats": 3}), asked(metadata={"seats": 4})),
        (When(metadata={"beta": "true"}), asked(metadata={"beta": True}), asked(metadata={"beta": None})),
        (When(matches=compiled(r"\brefund\b")), asked("A REFUND, please"), asked("refunded")),
        (When(over_tokens=10), asked("x" * 44), asked("x" * 43)),
        (When(under_tokens=10), asked("x" * 39), asked("x" * 40)),
        (When(over_tokens=10, under_tokens=20), asked("x" * 60), asked("x" * 80)),
        (When(task="code"), asked(CODE), asked()),
        (When(has="tools"), asked(tools=TOOLS), asked()),
        (When(has="json"), asked(response_format={"type": "json_object"}), asked()),
        (When(tenant="acme", user="ann"), asked(user="ann"), asked(user="bob")),
    ],
)
def test_a_rule_fits_what_it_describes_and_nothing_else(when: When, fitting: Asked, other: Asked) -> None:
    assert fits(when, fitting)
    assert not fits(when, other)


def test_images_are_seen() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": [picture]}]})
    one = Asked(
        id="1", tenant="acme", user=None, policy=Policy(), route=AUTO, request=request, seen=features(request), text=""
    )
    assert fits(When(has="vision"), one)
    assert fits(When(task="vision"), one)


async def test_the_first_rule_that_fits_decides_and_is_sure() -> None:
    rules = [
        Rule(name="vip", when=When(user="ann"), tier="high", strategy="bypass"),
        Rule(name="parcels", when=When(matches=compiled("parcel")), tier="low"),
        Rule(name="acme", when=When(tenant="acme"), tier="medium"),
    ]
    decider = RuleDecider({"auto": rules})
    first = await decider.opinion(asked(user="ann"))
    assert (first.tier, first.confidence, first.reason, first.strategy) == ("high", 1.0, "rule:vip", "bypass")
    assert (await decider.opinion(asked())).reason == "rule:parcels"
    assert (await decider.opinion(asked("hello"))).reason == "rule:acme"


async def test_where_no_rule_fits_or_there_is_none_the_decider_abstains() -> None:
    decider = RuleDecider({"other": [Rule(name="all", when=When(tenant="acme"), tier="low")]})
    assert (await decider.opinion(asked())).tier is None


@pytest.mark.parametrize(
    "pattern",
    [
        r"\brefund\b",
        "contract|clause",
        ".*urgent",
        "(?:ab)+",
        "colou?rs?",
        "a{1,5}b{1,5}",
        "(a|b|c)+",
        "(urgent|asap)!?",
        r"order\s{1,3}no\s{1,3}\d+",
    ],
)
def test_an_everyday_pattern_is_taken(pattern: str) -> None:
    assert compiled(pattern).flags & re.IGNORECASE


@pytest.mark.parametrize(
    "pattern",
    [
        *["(a+)+$", "(a|aa)*b", "(a*)*b", "(x+x+)+y", "([a-z]+)*!", "(?:a?){30}b", "(?:a|a?)+b", "(.*a){12}"],
        *[".*.*.*x", r"\w+\s+\w+\s+\w+", "(?=(a+)+)b", "(?>(a+)+b)", "(a{1,30}){1,30}b"],
    ],
)
def test_a_pattern_that_can_backtrack_badly_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="for ever"):
        compiled(pattern)


@pytest.mark.parametrize(
    "pattern", ["(", "[a-", "*", "(?P<x", r"(a)\1", "(a)?(?(1)b|c)", "(?<=a+)b", "x" * (LONGEST + 1)]
)
def test_what_cannot_be_run_at_all_is_refused_too(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"regular expression|refers back|longer"):
        compiled(pattern)


def test_only_the_beginning_of_a_text_is_read() -> None:
    assert found(compiled("needle"), "x" * (READ - 6) + "needle")
    assert not found(compiled("needle"), "x" * (READ - 5) + "needle")
