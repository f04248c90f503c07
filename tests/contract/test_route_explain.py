"""What callers and operators are told of a decision: headers, `POST /admin/route/explain`, `headgate route explain`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from headgate.cli.main import main
from tests.contract.house import ADMIN_KEY, House, Tenant, refused

CHAT = "/v1/chat/completions"
EXPLAIN = "/admin/route/explain"
HARD = "Prove that there are infinitely many primes, then derive a bound on how many lie below n if n is at least 10."


def test_an_answer_tells_what_the_router_made_of_the_question(house: House, tenant: Tenant) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": HARD}]}
    told = house.request("POST", CHAT, body, key=tenant.key).headers
    assert told["x-headgate-deployment"] == "large"
    assert (told["x-headgate-tier"], told["x-headgate-task"]) == ("high", "reasoning")
    assert (told["x-headgate-intent"], told["x-headgate-decider"]) == ("analysis", "features")
    assert 0.5 < float(told["x-headgate-complexity"]) <= 1
    assert float(told["x-headgate-route-confidence"]) > 0.5


def test_where_nothing_was_decided_nothing_is_told_of_it(house: House, tenant: Tenant) -> None:
    body = {"model": "small", "messages": [{"role": "user", "content": HARD}]}
    told = house.request("POST", CHAT, body, key=tenant.key).headers
    assert told["x-headgate-route-reason"] == "pinned"
    assert not {"x-headgate-tier", "x-headgate-intent", "x-headgate-decider"} & set(told)


def test_a_dry_run_tells_the_decision_every_deciders_word_and_the_models_in_order(house: House) -> None:
    before = house.standing()
    found = house.request("POST", EXPLAIN, {"prompt": HARD}).json
    assert (found["model"], found["tier"], found["task"], found["intent"]) == ("auto", "high", "reasoning", "analysis")
    assert (found["decider"], found["strategy"], found["kept"]) == ("features", None, None)
    assert found["reason"]
    assert 0 < found["confidence"] <= 1
    assert [one["name"] for one in found["deciders"]] == ["rules", "features"]
    assert found["deciders"][0]["says"].startswith("abstains")
    assert found["deciders"][1]["says"].startswith("high")
    first = found["candidates"][0]
    assert (first["place"], first["deployment"], first["provider"]) == (1, "large", "sim")
    assert (first["model"], first["input_usd"], first["output_usd"]) == ("simulated-large", "0.15", "0.60")
    assert first["health"]["state"] == "closed"
    assert house.request("POST", EXPLAIN, {"prompt": HARD}).json == found
    assert house.standing() == before


def test_a_dry_run_is_of_a_tenant_and_under_its_policy(house: House) -> None:
    careful = house.tenant(policy={"tier": "low", "allowed_models": ["auto"]})
    found = house.request("POST", EXPLAIN, {"prompt": HARD, "tenant": careful.name}).json
    assert (found["tier"], found["reason"], found["deciders"]) == ("low", "tenant_tier", [])
    refused(house.request("POST", EXPLAIN, {"prompt": HARD, "tenant": careful.name, "model": "large"}), 403, "model")
    refused(house.request("POST", EXPLAIN, {"prompt": HARD, "tenant": "nobody"}), 404)


def test_a_conversation_can_be_asked_about(house: House, tenant: Tenant) -> None:
    first = {"role": "user", "content": HARD}
    answer = house.request("POST", CHAT, {"model": "auto", "messages": [first]}, key=tenant.key)
    said = answer.json["choices"][0]["message"]["content"]
    messages = [first, {"role": "assistant", "content": said}, {"role": "user", "content": "thanks!"}]
    found = house.request("POST", EXPLAIN, {"messages": messages, "tenant": tenant.id}).json
    assert (found["tier"], found["reason"]) == ("high", "sticks:high")
    assert (found["kept"]["tier"], found["kept"]["deployment"]) == ("high", "large")
    told = house.request("POST", CHAT, {"model": "auto", "messages": messages}, key=tenant.key).headers
    assert (told["x-headgate-deployment"], told["x-headgate-route-reason"]) == ("large", "sticks:high")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king"}]}, "messages[0].role"),
        ({"prompt": "a", "metadata": {"plan": 3}}, "metadata.plan"),
        ({"prompt": "a", "id": "1"}, "id"),
    ],
)
def test_what_cannot_be_explained_says_why(house: House, body: dict, param: str) -> None:
    refused(house.request("POST", EXPLAIN, body), 400, param)


def test_a_model_that_is_not_there_cannot_be_explained(house: House) -> None:
    refused(house.request("POST", EXPLAIN, {"prompt": "a", "model": "nope"}), 404, "model")


def test_only_operators_may_ask(house: House, tenant: Tenant) -> None:
    assert house.request("POST", EXPLAIN, {"prompt": "a"}, key=tenant.key).status == 403


def test_the_command_asks_a_running_server(house: House, tenant: Tenant) -> None:
    line = ["route", "explain", HARD, "--tenant", tenant.id, "--url", house.url, "--admin-key", ADMIN_KEY]
    ran = CliRunner().invoke(main, [*line, "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout) == house.request("POST", EXPLAIN, {"prompt": HARD, "tenant": tenant.id}).json
    shown = CliRunner().invoke(main, line).stdout
    assert "high" in shown
    assert "simulated-large" not in shown
    assert "large" in shown
