"""Long prompts and residency, as callers and operators see them over HTTP."""

from __future__ import annotations

from typing import Any

from tests.contract.house import ADMIN_KEY, House, Tenant, refused

CHAT = "/v1/chat/completions"


def chat(house: House, tenant: Tenant, model: str, turns: int = 0) -> Any:
    said = [{"role": ("user", "assistant")[at % 2], "content": f"{at:03} " + "x" * 400} for at in range(turns)]
    body = {"model": model, "messages": [*said, {"role": "user", "content": "And now?"}]}
    return house.request("POST", CHAT, body, key=tenant.key)


def test_a_shortened_conversation_says_so_in_a_header(house: House, tenant: Tenant) -> None:
    answers = [chat(house, tenant, "long", turns=30) for _ in range(2)]
    for answer in answers:
        assert answer.status == 200
        assert answer.headers["x-headgate-context"].startswith("pruned:")
        assert answer.headers["x-headgate-source"] == "live"
        assert answer.json["usage"]["prompt_tokens"] < 2_000
    assert "x-headgate-context" not in chat(house, tenant, "long").headers


def test_a_tenants_data_reaches_models_of_its_regions_alone(house: House) -> None:
    tenant = house.tenant(policy={"residency": ["eu"]})
    assert chat(house, tenant, "european").headers["x-headgate-deployment"] == "european"
    assert chat(house, tenant, "long").headers["x-headgate-deployment"] == "european"
    listed = [one["id"] for one in house.request("GET", "/v1/models", key=tenant.key).json["data"]]
    assert listed == ["long", "european"]
    for path, body in (
        (CHAT, {"model": "auto", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/embeddings", {"model": "embedding", "input": "x"}),
        ("/api/v1/ai/query", {"query": "x", "user_id": "u"}),
    ):
        error = refused(house.request("POST", path, body, key=tenant.key), 403, "model")
        assert error["code"] == "model_not_allowed"
        assert "data stays in eu" in error["message"]


def test_an_operator_changes_and_sees_a_residency(house: House, tenant: Tenant) -> None:
    path = f"/admin/tenants/{tenant.id}"
    changed = house.request("PATCH", path, {"policy": {"residency": ["eu", "ch"]}}, key=ADMIN_KEY)
    assert changed.json["policy"]["residency"] == ["eu", "ch"]
    refused(house.request("PATCH", path, {"policy": {"residency": []}}, key=ADMIN_KEY), 400, "residency")
    freed = house.request("PATCH", path, {"policy": {"residency": None}}, key=ADMIN_KEY)
    assert freed.json["policy"]["residency"] is None
