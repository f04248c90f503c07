"""`headgate route explain` without a server; beside a running one in tests/contract/test_route_explain.py."""

from __future__ import annotations

from pathlib import Path

from tests.unit.cli.conftest import Headgate, printed

CONFIG = """
providers: {local: {kind: openai, base_url: "http://127.0.0.1:9/v1", allow_private: true}}
models:
  small: {provider: local, price: {input: "0.10", output: "0.40"}}
  large: {provider: local}
routes:
  auto:
    tiers: {low: [small], medium: [small], high: [large]}
    deciders: [rules, features, classifier]
    rules:
      - {name: gold, when: {metadata: {plan: gold}}, tier: high}
routing: {classifier: {model: small}}
"""


def test_a_question_is_explained_by_the_configuration_alone(headgate: Headgate) -> None:
    found = printed(headgate("route", "explain", "Where is my parcel?", "--json"))
    assert (found["model"], found["tier"], found["decider"]) == ("auto", "low", "features")
    assert [one["deployment"] for one in found["candidates"]] == ["sim-small", "sim-large"]
    assert headgate("route", "explain", "Where is my parcel?").stdout.count("sim-small") == 1


def test_rules_are_asked_and_who_was_not_asked_is_told(headgate: Headgate) -> None:
    Path("headgate.yaml").write_text(CONFIG, encoding="utf-8")
    line = ("route", "explain", "Where is my parcel?", "--json")
    found = printed(headgate(*line, "--metadata", "plan=gold"))
    assert (found["tier"], found["reason"], found["confidence"]) == ("high", "rule:gold", 1.0)
    assert [one["says"] for one in found["deciders"]] == ["high 1.00, rule:gold", "not asked", "not asked"]
    prices = {one["deployment"]: (one["place"], one["input_usd"]) for one in found["candidates"]}
    assert prices == {"large": (1, None), "small": (2, "0.10")}
    assert printed(headgate(*line))["deciders"][2]["says"] == "abstains, absent"


def test_a_tenants_policy_counts(headgate: Headgate) -> None:
    headgate("tenants", "create", "acme", "--tier", "high")
    found = printed(headgate("route", "explain", "hi", "--tenant", "acme", "--json"))
    assert (found["tier"], found["reason"]) == ("high", "tenant_tier")


def test_metadata_that_is_no_pair_is_told(headgate: Headgate) -> None:
    ran = headgate("route", "explain", "hi", "--metadata", "gold", code=2)
    assert "KEY=VALUE" in ran.stderr
