"""What every decider promises: an opinion or an abstention with a word, the same for the same state, whatever the request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Policy
from headgate.routing.classifier import Classifier, instructions
from headgate.routing.deciders import Asked, Decider
from headgate.routing.difficulty import FeatureDecider
from headgate.routing.features import asked as last_turn
from headgate.routing.features import features
from headgate.routing.patterns import compiled
from headgate.routing.route import TIERS, Route
from headgate.routing.rules import Rule, RuleDecider, When

AUTO = Route("auto", dict.fromkeys(TIERS, ("a",)))


async def labelled(template: str, question: str, asked: Asked) -> str | None:
    return '{"intent": "chat", "complexity": 0.5, "tier": "low", "strategy": "standard", "confidence": 0.7}'


def rules() -> Decider:
    when = When(matches=compiled("[a-m]+"), under_tokens=50)
    return RuleDecider({"auto": [Rule(name="short", when=when, tier="low")]})


DECIDERS: dict[str, Callable[[], Decider]] = {
    "rules": rules,
    "features": FeatureDecider,
    "classifier": lambda: Classifier(labelled, instructions()),
}


def asked(turns: list[str], *, dry: bool = False, **body: object) -> Asked:
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]
    request = ChatRequest.parse({"model": "auto", "messages": messages, **body})
    return Asked(
        id="1",
        tenant="acme",
        user=None,
        policy=Policy(),
        route=AUTO,
        request=request,
        seen=features(request),
        text=last_turn(request),
        dry=dry,
    )


@pytest.mark.parametrize("name", DECIDERS)
@given(st.lists(st.text(), min_size=1, max_size=3), st.booleans())
def test_any_request_gets_an_opinion_or_an_abstention_with_a_word(name: str, turns: list[str], dry: bool) -> None:
    opinion = asyncio.run(DECIDERS[name]().opinion(asked(turns, dry=dry)))
    assert opinion.reason
    assert "\n" not in opinion.reason
    assert len(opinion.reason) < 80
    assert 0 <= opinion.confidence <= 1
    assert opinion.complexity is None or 0 <= opinion.complexity <= 1
    assert opinion.tier in (*TIERS, None)


@pytest.mark.parametrize("name", DECIDERS)
async def test_the_same_state_has_the_same_opinion(name: str) -> None:
    decider = DECIDERS[name]()
    one = asked(["Explain why the sky is blue, and compare it with the sunset."], metadata={"plan": "gold"})
    assert await decider.opinion(one) == await decider.opinion(one) == await DECIDERS[name]().opinion(one)


@pytest.mark.parametrize("name", DECIDERS)
async def test_a_request_without_text_is_no_accident(name: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": [picture]}]})
    one = Asked(
        id="1", tenant="acme", user=None, policy=Policy(), route=AUTO, request=request, seen=features(request), text=""
    )
    assert (await DECIDERS[name]().opinion(one)).reason
