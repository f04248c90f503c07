"""What callers and their SDKs see of budgets: statuses, Retry-After, and the headers that say what money did to an answer."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from tests.contract.house import House, Tenant, refused
from tests.contract.sdk import MESSAGES, ask

CHAT = "/v1/chat/completions"
ONE_CALL = "0.001"
"""USD; room for one of the default maximum's answers, and for not quite two of the usual length."""


def question(text: str = "How do I export my invoices?", **more: Any) -> dict[str, Any]:
    return {"model": "small", "messages": ask(text), **more}


@pytest.mark.parametrize("stream", [False, True])
def test_a_limit_that_the_budget_has_shrunk_is_told_in_a_header(house: House, stream: bool) -> None:
    near = house.tenant(budget={"hour": ONE_CALL})
    answer = house.request("POST", CHAT, question(max_tokens=100_000, stream=stream), key=near.key)
    assert answer.status == 200
    assert 0 < int(answer.headers["x-headgate-output-limit"]) < 4_096
    far = house.tenant()
    answer = house.request("POST", CHAT, question(stream=stream), key=far.key)
    assert "x-headgate-output-limit" not in answer.headers


def test_money_held_by_calls_in_flight_is_waited_for_by_the_sdk(house: House) -> None:
    near = house.tenant(budget={"hour": ONE_CALL})

    async def both() -> tuple[list[Any], list[Any]]:
        async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=near.key) as client:
            create, once = client.chat.completions.create, client.with_options(max_retries=0).chat.completions.create
            hasty = await asyncio.gather(
                *(once(model="slow", messages=ask(f"Which number is {n}?")) for n in range(2)), return_exceptions=True
            )
            patient = await asyncio.gather(
                *(create(model="slow", messages=ask(f"What is number {n}?")) for n in range(2)), return_exceptions=True
            )
            return hasty, patient

    hasty, patient = asyncio.run(both())
    (held,) = [one for one in hasty if isinstance(one, Exception)]
    assert isinstance(held, openai.APIStatusError)
    assert (held.status_code, held.code) == (402, "budget_held")
    assert (held.response.headers["retry-after"], held.response.headers["x-should-retry"]) == ("1", "true")
    assert not [one for one in patient if isinstance(one, Exception)], "the SDK has waited and tried again"


def test_money_that_is_spent_is_not_asked_for_again(house: House) -> None:
    spent = house.tenant(budget={"hour": "0.00"})
    answer = house.request("POST", CHAT, question(), key=spent.key)
    assert refused(answer, 402)["code"] == "budget_exceeded"
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


def test_tokens_of_the_minute_are_told_with_every_answer(house: House) -> None:
    tenant = house.tenant(tpm=10_000)
    for path, body in (
        (CHAT, question()),
        (CHAT, question()),
        (CHAT, question("Another?", stream=True)),
        ("/chat", {"model": "small", "prompt": "A third?"}),
        ("/v1/embeddings", {"model": "embedding", "input": "What?"}),
    ):
        answer = house.request("POST", path, body, key=tenant.key)
        assert answer.status == 200, answer
        assert answer.headers["x-ratelimit-limit-tokens"] == "10000"
        assert 0 < int(answer.headers["x-ratelimit-remaining-tokens"]) < 10_000
        assert 0 < float(answer.headers["x-ratelimit-reset-tokens"].removesuffix("s")) <= 60
        assert "x-ratelimit-limit-requests" in answer.headers


def test_a_tenant_without_such_a_limit_hears_nothing_of_tokens(house: House, tenant: Tenant) -> None:
    answer = house.request("POST", CHAT, question(), key=tenant.key)
    assert not [name for name in answer.headers if name.endswith("-tokens")]


def test_tokens_that_are_used_up_are_a_rate_limit_of_their_own_kind(house: House) -> None:
    tight = house.tenant(tpm=20)
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=tight.key, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as limited:
            client.chat.completions.create(model="small", messages=MESSAGES)
    error, headers = limited.value, limited.value.response.headers
    assert (error.code, error.type) == ("rate_limit_exceeded", "tokens")
    assert 1 <= int(headers["retry-after"]) <= 60
    assert (headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-remaining-tokens"]) == ("20", "0")


def test_what_routing_saved_is_told_in_a_header_and_counted(house: House, tenant: Tenant) -> None:
    answer = house.request("POST", CHAT, {**question(), "model": "auto"}, key=tenant.key)
    assert answer.headers["x-headgate-deployment"] == "small"
    assert float(answer.headers["x-headgate-saved-usd"]) == 0, "both models of this house cost the same"
    assert float(answer.headers["x-headgate-cost-usd"]) > 0


@pytest.mark.parametrize("fault", ["truncated-json", "malformed-sse", "cut"])
def test_an_answer_that_was_generated_and_cannot_be_read_is_billed_as_an_estimate(house: House, fault: str) -> None:
    tenant = house.tenant(budget={"total": "1.00"})
    before = house.metric("headgate_usage_estimated_total")
    answer = house.request("POST", CHAT, {**question(), "model": f"broken-{fault}"}, key=tenant.key)
    assert answer.status == 503
    usage = house.request("GET", f"/admin/usage?tenant={tenant.id}").json["total"]
    assert float(usage["cost_usd"]) > 0
    assert house.metric("headgate_usage_estimated_total") > before
