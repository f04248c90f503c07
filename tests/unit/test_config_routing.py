"""What is written of rules, deciders, the classifier, and conversations."""

from __future__ import annotations

import json

import pytest

from headgate.config import Config
from headgate.config_file import ConfigError, parse_config
from headgate.fittings import route
from headgate.fittings_routing import deciders
from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Policy
from headgate.routing.deciders import Asked
from headgate.routing.features import features

TEXT = r"""
providers: {p: {kind: openai, base_url: "http://127.0.0.1:9/v1", allow_private: true}}
models: {a: {provider: p}, b: {provider: p}}
routing:
  classifier: {model: a, timeout: 800ms, paid_by: tenant}
routes:
  auto:
    tiers: {low: [a], medium: [a], high: [b]}
    default_tier: low
    ceiling: medium
    deciders: [rules, features, classifier]
    stick: {idle: 10m}
    rules:
      - name: gold
        when: {metadata: {plan: gold, beta: true, seats: 3}, matches: '\brefunds?\b'}
        tier: high
        strategy: bypass
"""


def read(text: str = TEXT) -> Config:
    return parse_config(text, env={})


def test_what_is_written_is_what_the_route_is() -> None:
    made = route("auto", read().routes["auto"])
    assert (made.default_tier, made.ceiling, made.stick) == ("low", "medium", 600.0)
    assert made.deciders == ("rules", "features", "classifier")


async def test_rules_are_asked_as_they_are_written() -> None:
    said = read()
    request = ChatRequest.parse(
        {
            "model": "auto",
            "messages": [{"role": "user", "content": "REFUND me"}],
            "metadata": {"plan": "gold", "beta": True, "seats": 3},
        }
    )
    asked = Asked(
        id="",
        tenant="acme",
        user=None,
        policy=Policy(),
        route=route("auto", said.routes["auto"]),
        request=request,
        seen=features(request),
        text="REFUND me",
    )
    decision = await deciders(said).decide(asked, "chat")
    assert (decision.tier, decision.reason, decision.strategy) == ("high", "rule:gold", "bypass")


def test_what_is_read_can_be_written_and_read_again() -> None:
    said = read()
    assert Config.model_validate(json.loads(said.model_dump_json())).routes == said.routes
    assert Config.json_schema()


def test_conversations_stick_for_an_hour_unless_it_is_said_otherwise() -> None:
    assert read(TEXT.replace("    stick: {idle: 10m}\n", "")).routes["auto"].stick.idle == 3_600.0
    assert route("auto", read(TEXT.replace("10m", "0")).routes["auto"]).stick == 0


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        (r"\brefunds?\b", "(a+)+", 15, "routes.auto.rules[0].when.matches: could take for ever on some texts"),
        (r"\brefunds?\b", "(", 15, "routes.auto.rules[0].when.matches: is no regular expression"),
        ("plan: gold", "plan: [gold]", 15, "routes.auto.rules[0].when.metadata.plan: must be text"),
        ("name: gold", "name: all of gold", 14, "routes.auto.rules[0].name: a rule's name is"),
        ("tier: high\n", "tier: top\n", 16, "routes.auto.rules[0].tier: must be low, medium or high, not 'top'"),
        ("[rules, features, classifier]", "[features]", 14, "routes.auto.rules: are not asked"),
        ("[rules, features, classifier]", "[rules, rules]", 11, "routes.auto.deciders[1]: 'rules' comes twice"),
        ("default_tier: low", "default_tier: high", 10, "routes.auto.ceiling: is below the default_tier"),
        ("classifier: {model: a,", "classifier: {model: c,", 5, "routing.classifier.model: there is no model 'c'"),
        ("  classifier: {model: a, timeout: 800ms, paid_by: tenant}", "  sure: 0.6", 11, "routes.auto.deciders: there is no classifier"),
        ("{plan: gold, beta: true, seats: 3}, matches: '\\brefunds?\\b'", "{}", 15, "routes.auto.rules[0].when: says nothing"),
        ("metadata: {plan: gold,", "over_tokens: 9, under_tokens: 10, metadata: {plan: gold,", 15, "under_tokens: leaves no length"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_told_with_its_line(old: str, new: str, line: int, told: str) -> None:
    assert old in TEXT
    text = TEXT.replace(old, new)
    if new == "{}":
        text = text.replace("metadata: {}", "")
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(f"headgate.yaml:{line}: ")
    assert told in str(caught.value)


@pytest.mark.parametrize("key", ["deciders: [features]", "ceiling: low", "rules: []"])
def test_a_route_of_one_list_has_nothing_to_decide(key: str) -> None:
    text = TEXT.partition("routes:")[0] + f"routes:\n  auto:\n    models: [a]\n    {key}\n"
    with pytest.raises(ConfigError, match="needs tiers, and this route has none"):
        read(text)
