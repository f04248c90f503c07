"""`POST /chat`: a prompt in, a text out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.house import Answer, House, Tenant

FIELDS = {"content", "source", "latency_ms", "cost", "model", "confidence"}


def ask(house: House, tenant: Tenant, body: Any, **headers: str) -> Answer:
    return house.request("POST", "/chat", body, key=tenant.key, headers=headers)


def test_a_question_is_answered_live_and_then_from_the_cache(house: House, tenant: Tenant) -> None:
    question = {"prompt": "How do I export my invoices?"}
    first, again = ask(house, tenant, question), ask(house, tenant, question)
    assert set(first.json) == set(again.json) == FIELDS
    assert (first.json["source"], again.json["source"]) == ("live", "cache")
    assert first.json["content"] == again.json["content"] != ""
    assert float(first.json["cost"]) > 0 == float(again.json["cost"])
    assert first.json["model"] == again.json["model"] == "simulated-small"
    assert first.json["latency_ms"] >= 0
    assert again.headers["x-headgate-source"] == "exact"
    assert again.headers["x-request-id"]


def test_the_model_may_be_chosen(house: House, tenant: Tenant) -> None:
    assert ask(house, tenant, {"prompt": "Hello", "model": "large"}).json["model"] == "simulated-large"


def test_the_tenant_is_the_keys_whatever_the_body_says(house: House, tenant: Tenant) -> None:
    other = house.tenant()
    assert ask(house, tenant, {"prompt": "Whose is this?", "tenant": other.id}).json["source"] == "live"
    assert ask(house, other, {"prompt": "Whose is this?", "tenant": tenant.id}).json["source"] == "live"
    for one in (tenant, other):
        report = house.request("GET", "/v1/usage", key=one.key).json
        assert report["total"]["requests"] == 1


def test_an_empty_budget_is_a_source_of_its_own(house: House) -> None:
    poor = house.tenant(budget={"hour": "0"})
    answer = ask(house, poor, {"prompt": "Hello"})
    assert answer.status == 402
    assert answer.error["code"] == "budget_exceeded"
    assert (answer.json["source"], answer.json["content"], answer.json["cost"]) == ("budget_limit", "", "0.00")
    assert set(answer.json) == {*FIELDS, "error"}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "prompt"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": "  "}, 400, "prompt"),
        ({"prompt": ["x"]}, 400, "prompt"),
        ({"prompt": "x", "model": 1}, 400, "model"),
        ({"prompt": "x", "model": "gpt-17"}, 404, "model"),
        ({"prompt": "x", "model": "broken-500"}, 503, None),
        ({"prompt": "x", "model": "broken-400"}, 400, None),
    ],
)
def test_an_error_keeps_its_shape_and_says_that_it_is_one(
    house: House, tenant: Tenant, body: Any, status: int, param: str | None
) -> None:
    answer = ask(house, tenant, body)
    assert (answer.status, answer.error["param"], answer.json["source"]) == (status, param, "error")
    assert answer.headers["x-request-id"]


def test_wishes_hold_here_too(house: House, tenant: Tenant) -> None:
    ask(house, tenant, {"prompt": "Hello"})
    again = ask(house, tenant, {"prompt": "Hello"}, **{"x-headgate-cache": "no-cache"})
    assert again.json["source"] == "live"
    wrong = ask(house, tenant, {"prompt": "Hello"}, **{"x-headgate-cash": "1"})
    assert (wrong.status, wrong.error["param"]) == (400, "x-headgate-cash")
