"""`POST /api/v1/ai/query`: one question of one user."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.house import Answer, House, Tenant

PATH = "/api/v1/ai/query"
FIELDS = {"response", "source", "latency_ms", "model_used", "confidence"}


def ask(house: House, tenant: Tenant, body: Any, **headers: str) -> Answer:
    return house.request("POST", PATH, body, key=tenant.key, headers=headers)


def query(text: str, **more: Any) -> dict[str, Any]:
    return {"query": text, "user_id": "u-1", **more}


def test_a_question_is_answered_live_and_then_from_the_cache(house: House, tenant: Tenant) -> None:
    first, again = (ask(house, tenant, query("How do I close my account?")) for _ in range(2))
    assert set(first.json) == set(again.json) == FIELDS
    assert (first.json["source"], again.json["source"]) == ("live", "cache")
    assert first.json["response"] == again.json["response"] != ""
    assert first.json["model_used"] == again.json["model_used"] == "simulated-small"
    assert 0 <= first.json["confidence"] <= again.json["confidence"] == 1
    assert again.headers["x-headgate-source"] == "exact"


def test_the_call_counts_for_the_user_it_names_whatever_the_header_says(house: House, tenant: Tenant) -> None:
    ask(house, tenant, query("Hello", user_id="u-7"), **{"x-headgate-user": "u-8"})
    report = house.request("GET", "/v1/usage?group_by=user", key=tenant.key).json
    assert [row["user"] for row in report["data"]] == ["u-7"]


def test_the_model_may_be_chosen_and_metadata_may_be_given(house: House, tenant: Tenant) -> None:
    answer = ask(house, tenant, query("Hello", model="large", metadata={"page": "checkout"}))
    assert answer.json["model_used"] == "simulated-large"


def test_an_empty_budget_is_a_source_of_its_own(house: House) -> None:
    answer = ask(house, house.tenant(budget={"hour": "0"}), query("Hello"))
    assert (answer.status, answer.error["code"]) == (402, "budget_exceeded")
    assert (answer.json["source"], answer.json["response"], answer.json["model_used"]) == ("budget_limit", "", None)
    assert set(answer.json) == {*FIELDS, "error"}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ([], 400, None),
        ({"user_id": "u-1"}, 400, "query"),
        (query("  "), 400, "query"),
        (query(["x"]), 400, "query"),
        ({"query": "x"}, 400, "user_id"),
        (query("x", user_id=""), 400, "user_id"),
        (query("x", user_id="a\nb"), 400, "user_id"),
        (query("x", user_id="u" * 513), 400, "user_id"),
        (query("x", metadata=[]), 400, "metadata"),
        (query("x", metadata={"page": 1}), 400, "metadata"),
        (query("x", metadata={str(one): "x" for one in range(17)}), 400, "metadata"),
        (query("x", model=1), 400, "model"),
        (query("x", model="gpt-17"), 404, "model"),
        (query("x", model="broken-500"), 503, None),
        (query("x", model="broken-400"), 400, None),
    ],
)
def test_an_error_keeps_its_shape_and_says_that_it_is_one(
    house: House, tenant: Tenant, body: Any, status: int, param: str | None
) -> None:
    answer = ask(house, tenant, body)
    assert (answer.status, answer.error["param"], answer.json["source"]) == (status, param, "error")
    assert set(answer.json) == {*FIELDS, "error"}
    assert answer.headers["x-request-id"]


def test_who_has_no_key_is_told_so(house: House) -> None:
    assert house.request("POST", PATH, query("x"), key=None).status == 401
    assert house.request("GET", PATH).status == 405
