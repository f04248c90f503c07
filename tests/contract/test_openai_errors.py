"""Headgate's errors are the exceptions that OpenAI's SDK raises for OpenAI's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.contract.house import House, Tenant, eventually
from tests.contract.sdk import MESSAGES, TOOLS, ask, joined


def test_a_wrong_key_is_an_authentication_error(house: House) -> None:
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key="hg-wrong") as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            stranger.chat.completions.create(model="auto", messages=MESSAGES)
    assert refused.value.code == "invalid_api_key"
    assert refused.value.request_id


def test_an_unknown_model_is_a_not_found_error_that_lists_what_there_is(once: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        once.chat.completions.create(model="gpt-17", messages=MESSAGES)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert "auto" in refused.value.message


def test_a_bad_field_is_a_bad_request_error_that_names_it(once: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        once.chat.completions.create(model="auto", messages=MESSAGES, temperature=9)
    assert refused.value.param == "temperature"


def test_a_refusal_of_the_provider_is_passed_on_as_it_is(once: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        once.chat.completions.create(model="broken-400", messages=MESSAGES)
    assert "refused on purpose" in refused.value.message


def test_a_model_that_the_tenant_may_not_use_is_a_permission_error(house: House) -> None:
    limited = house.tenant(policy={"allowed_models": ["small"]})
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=limited.key) as client:
        assert client.chat.completions.create(model="small", messages=MESSAGES).choices
        assert [model.id for model in client.models.list()] == ["small"]
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.chat.completions.create(model="large", messages=MESSAGES)
        assert refused.value.code == "model_not_allowed"


def test_a_missing_capability_is_a_bad_request(once: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        once.chat.completions.create(model="plain", messages=MESSAGES, tools=TOOLS)
    assert refused.value.param == "tools"


@pytest.mark.parametrize(
    ("model", "expected", "status"),
    [
        ("broken-500", openai.InternalServerError, 503),
        ("broken-429", openai.RateLimitError, 429),
        ("broken-401", openai.InternalServerError, 503),
        ("broken-truncated-json", openai.InternalServerError, 503),
    ],
)
def test_a_broken_provider_is_a_server_error_that_names_the_attempts(
    once: openai.OpenAI, model: str, expected: type[openai.APIStatusError], status: int
) -> None:
    with pytest.raises(expected) as refused:
        once.chat.completions.create(model=model, messages=MESSAGES)
    assert refused.value.status_code == status
    body: Any = refused.value.body
    assert body["attempts"][0]["deployment"] == model
    assert int(refused.value.response.headers["retry-after"]) >= 1


def test_a_fallback_answers_for_a_broken_model_and_says_so(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(model="recovers", messages=MESSAGES)
    assert answer.headers["x-headgate-deployment"] == "small"
    assert answer.headers["x-headgate-fallback"] == "true"
    assert int(answer.headers["x-headgate-attempts"]) >= 2
    stream = client.chat.completions.with_raw_response.create(
        model="recovers", messages=ask("And streamed?"), stream=True
    )
    assert stream.headers["x-headgate-fallback"] == "true"
    assert "And streamed?" in joined(stream.parse())


@pytest.fixture
def counted(house: House) -> Iterator[Any]:
    """An SDK of a given tenant, whose HTTP requests are counted."""
    made: list[openai.OpenAI] = []
    sent: list[str] = []

    def make(tenant: Tenant) -> tuple[openai.OpenAI, list[str]]:
        web = openai.DefaultHttpxClient(event_hooks={"request": [lambda request: sent.append(str(request.url))]})
        made.append(openai.OpenAI(base_url=f"{house.url}/v1", api_key=tenant.key, http_client=web))
        return made[-1], sent

    yield make
    for client in made:
        client.close()


def test_an_empty_budget_is_told_once_and_not_asked_for_again(house: House, counted: Any) -> None:
    client, sent = counted(house.tenant(budget={"total": "0.00"}))
    before = house.calls().calls
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="auto", messages=MESSAGES)
    assert refused.value.status_code == 402
    assert refused.value.code == "budget_exceeded"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert len(sent) == 1
    assert house.calls().calls == before


def test_a_rate_limit_is_waited_for_by_the_sdk(house: House, counted: Any) -> None:
    client, sent = counted(house.tenant(rpm=60))
    once = client.with_options(max_retries=0).chat.completions
    with pytest.raises(openai.RateLimitError) as refused:
        for _ in range(1_000):
            once.create(model="auto", messages=MESSAGES)
    assert refused.value.code == "rate_limit_exceeded"
    headers = refused.value.response.headers
    assert headers["retry-after"] == "1"
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    before = len(sent)
    assert client.chat.completions.create(model="auto", messages=MESSAGES).choices
    assert len(sent) == before + 2


def test_too_many_at_once_are_told_to_wait(house: House) -> None:
    narrow = house.tenant(concurrency=1)

    async def both() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=narrow.key, max_retries=0) as client:
            create = client.chat.completions.create
            return await asyncio.gather(
                *(create(model="slow", messages=ask(f"Number {n}?")) for n in range(2)), return_exceptions=True
            )

    outcomes = asyncio.run(both())
    assert sum(isinstance(one, openai.RateLimitError) for one in outcomes) == 1
    assert sum(not isinstance(one, Exception) for one in outcomes) == 1


def test_a_stream_that_breaks_off_raises_after_what_was_sent(once: openai.OpenAI) -> None:
    stream = once.chat.completions.create(model="broken-cut", messages=MESSAGES, stream=True)
    read = []
    with pytest.raises(openai.APIError) as broken:
        read.extend(stream)
    assert joined(read)
    assert broken.value.code == "stream_interrupted"


def test_an_answer_that_breaks_off_is_an_error_when_it_was_not_streamed(once: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError):
        once.chat.completions.create(model="broken-cut", messages=MESSAGES)


def test_a_caller_waits_no_longer_than_it_said(house: House) -> None:
    hasty = house.tenant(policy={"abandoned": "cancel"}, concurrency=1)
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=hasty.key, max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as late:
            client.chat.completions.create(
                model="broken-hang", messages=MESSAGES, extra_headers={"x-headgate-timeout": "0.1"}
            )
        assert late.value.status_code == 504
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.2).chat.completions.create(model="broken-hang", messages=MESSAGES)
        eventually(lambda: house.metric("headgate_reservations_open") == 0)
        assert client.chat.completions.create(model="small", messages=MESSAGES).choices


def test_an_answer_without_usage_is_billed_by_an_estimate(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(model="broken-no-usage", messages=MESSAGES)
    assert float(answer.headers["x-headgate-cost-usd"]) > 0
    usage = answer.parse().usage
    assert usage
    assert usage.completion_tokens > 0
