"""OpenAI's own SDK takes Headgate for OpenAI: only the base URL and the key are changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.contract.house import House, Tenant, eventually

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are a support agent."},
    {"role": "user", "content": "How do I export my invoices?"},
]
PARAMETERS: dict[str, object] = {
    "type": "object",
    "properties": {"order": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["order", "count"],
}
TOOLS: Any = [{"type": "function", "function": {"name": "find_order", "parameters": PARAMETERS}}]
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="


class Ticket(BaseModel):
    """A structured answer."""

    title: str
    priority: int
    tags: list[str]


@pytest.fixture
def once(client: openai.OpenAI) -> openai.OpenAI:
    """The SDK without its retries."""
    return client.with_options(max_retries=0)


@pytest.fixture
async def later(house: House, tenant: Tenant) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK for asyncio."""
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=tenant.key) as made:
        yield made


def ask(text: str) -> list[ChatCompletionMessageParam]:
    """One question."""
    return [{"role": "user", "content": text}]


def joined(chunks: Any) -> str:
    """The text of a stream."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


@pytest.mark.parametrize("model", ["auto", "small", "sim/simulated-small", "claude", "claude/simulated-claude"])
def test_an_answer_is_read_whatever_the_name_of_the_model(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=MESSAGES)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.role == "assistant"
    assert "How do I export my invoices?" in (answer.choices[0].message.content or "")
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("model", ["small", "claude"])
def test_a_stream_has_the_text_of_the_whole_answer(client: openai.OpenAI, model: str) -> None:
    fresh = {"x-headgate-cache": "no-store"}
    whole = client.chat.completions.create(model=model, messages=MESSAGES, extra_headers=fresh)
    chunks = list(client.chat.completions.create(model=model, messages=MESSAGES, stream=True, extra_headers=fresh))
    assert joined(chunks) == whole.choices[0].message.content
    assert len(chunks) > 3
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("model", ["small", "claude"])
def test_a_stream_that_asks_for_usage_ends_with_it(client: openai.OpenAI, model: str) -> None:
    for _ in ("live", "exact"):
        chunks = list(
            client.chat.completions.create(
                model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
        )
        assert chunks[-1].choices == []
        assert chunks[-1].usage
        assert chunks[-1].usage.completion_tokens > 10
        assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("model", ["small", "claude"])
def test_a_tool_is_called_and_its_result_taken(client: openai.OpenAI, model: str) -> None:
    first = client.chat.completions.create(model=model, messages=MESSAGES, tools=TOOLS)
    assert first.choices[0].finish_reason == "tool_calls"
    calls = first.choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "find_order"
    assert set(json.loads(calls[0].function.arguments)) == {"order", "count"}
    turns: Any = [
        *MESSAGES,
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": calls[0].id, "content": "it was sent"},
    ]
    second = client.chat.completions.create(model=model, messages=turns, tools=TOOLS)
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content


@pytest.mark.parametrize("model", ["small", "claude"])
def test_a_tool_call_is_streamed_in_pieces(client: openai.OpenAI, model: str) -> None:
    for _ in ("live", "exact"):
        name, arguments, finish = "", "", ""
        for chunk in client.chat.completions.create(model=model, messages=MESSAGES, tools=TOOLS, stream=True):
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or ():
                    assert call.index == 0
                    assert call.function
                    name += call.function.name or ""
                    arguments += call.function.arguments or ""
        assert (name, finish) == ("find_order", "tool_calls")
        assert set(json.loads(arguments)) == {"order", "count"}


def test_json_mode_gives_json(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="auto", messages=MESSAGES, response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_a_schema_is_parsed_into_its_type(client: openai.OpenAI) -> None:
    for _ in ("live", "exact"):
        answer = client.chat.completions.parse(model="auto", messages=MESSAGES, response_format=Ticket)
        assert isinstance(answer.choices[0].message.parsed, Ticket)


def test_a_streamed_schema_is_parsed_into_its_type(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="auto", messages=MESSAGES, response_format=Ticket) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Ticket)


@pytest.mark.parametrize("model", ["auto", "claude"])
def test_images_are_passed_on(client: openai.OpenAI, house: House, model: str) -> None:
    turns: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
            ],
        }
    ]
    before = house.calls().prompt_tokens
    assert client.chat.completions.create(model=model, messages=turns).choices[0].message.content
    assert house.calls().prompt_tokens - before > 80


def test_several_answers_come_and_are_never_cached(client: openai.OpenAI, house: House) -> None:
    before = house.calls().calls
    for _ in range(2):
        answer = client.chat.completions.with_raw_response.create(model="auto", messages=MESSAGES, n=2)
        assert answer.headers["x-headgate-cache"] == "bypass"
        assert answer.headers["x-headgate-cache-reason"] == "n"
        choices = answer.parse().choices
        assert [choice.index for choice in choices] == [0, 1]
        assert choices[0].message.content != choices[1].message.content
    assert house.calls().calls == before + 2


def test_several_answers_are_streamed_side_by_side(client: openai.OpenAI) -> None:
    texts = ["", ""]
    for chunk in client.chat.completions.create(model="auto", messages=MESSAGES, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert all("export" in text for text in texts)
    assert texts[0] != texts[1]


def test_stop_seed_and_limits_reach_the_provider(client: openai.OpenAI) -> None:
    stopped = client.chat.completions.create(model="auto", messages=MESSAGES, stop=["invoices"], seed=7)
    assert "invoices" not in (stopped.choices[0].message.content or "")
    short = client.chat.completions.create(model="auto", messages=MESSAGES, max_tokens=9)
    assert short.choices[0].finish_reason == "length"
    assert short.usage
    assert short.usage.completion_tokens == 9


def test_fields_that_headgate_does_not_know_pass_through_and_tell_requests_apart(
    client: openai.OpenAI, house: House
) -> None:
    before = house.calls().calls
    for effort in ("low", "high"):
        client.chat.completions.create(model="auto", messages=MESSAGES, extra_body={"reasoning_effort": effort})
    assert house.calls().calls == before + 2
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="auto", messages=MESSAGES, extra_body={"tool_choice": "sideways"})
    assert "tool_choice" in str(refused.value.body)


def test_embeddings_come_as_numbers_and_as_base64(client: openai.OpenAI) -> None:
    found = client.embeddings.create(model="embedding", input=["one", "two"])
    assert [one.index for one in found.data] == [0, 1]
    assert len(found.data[0].embedding) > 10
    assert found.usage.prompt_tokens > 0
    plain = client.embeddings.create(model="embedding", input="one", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(found.data[0].embedding, abs=1e-4)


def test_embeddings_take_tokens_and_dimensions(client: openai.OpenAI) -> None:
    assert client.embeddings.create(model="embedding", input=[1, 2, 3]).data[0].embedding
    assert len(client.embeddings.create(model="embedding", input=[[1, 2], [3]]).data) == 2
    assert len(client.embeddings.create(model="embedding", input="one", dimensions=8).data[0].embedding) == 8


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"auto", "small", "large", "claude"} <= set(names)
    for name in ("auto", "small", "sim/simulated-small"):
        assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-17")


def test_the_paths_work_without_v1_too(house: House, tenant: Tenant) -> None:
    with openai.OpenAI(base_url=house.url, api_key=tenant.key) as bare:
        assert bare.chat.completions.create(model="auto", messages=MESSAGES).choices
        assert bare.models.list().data
        assert bare.embeddings.create(model="embedding", input="one").data


def test_every_answer_says_how_it_was_found(client: openai.OpenAI) -> None:
    create = client.chat.completions.with_raw_response.create
    live, hit = create(model="auto", messages=MESSAGES), create(model="auto", messages=MESSAGES)
    assert (live.headers["x-headgate-source"], live.headers["x-headgate-cache"]) == ("live", "miss")
    assert (hit.headers["x-headgate-source"], hit.headers["x-headgate-cache"]) == ("exact", "hit")
    for answer in (live, hit):
        assert answer.headers["x-request-id"] == answer.parse().id.removeprefix("chatcmpl-")
        assert answer.headers["x-headgate-deployment"] == "small"
        assert answer.headers["x-headgate-model"]
        assert float(answer.headers["x-headgate-overhead-ms"]) >= 0
        assert answer.headers["x-ratelimit-limit-requests"] == "1000000"
        assert int(answer.headers["x-ratelimit-remaining-requests"]) < 1_000_000
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
    assert live.headers["x-headgate-attempts"] == "1"
    assert live.headers["x-headgate-route-reason"]
    assert 0 <= float(live.headers["x-headgate-route-confidence"]) <= 1
    assert float(live.headers["x-headgate-cost-usd"]) > 0 == float(live.headers["x-headgate-saved-usd"])
    assert hit.headers["x-headgate-confidence"] == "1.000"
    assert hit.headers["x-headgate-entry"] == live.headers["x-headgate-entry"]
    assert hit.headers["x-headgate-saved-usd"] == live.headers["x-headgate-cost-usd"]
    assert hit.headers["x-headgate-cost-usd"] == "0.00"
    assert live.request_id == live.headers["x-request-id"]


def test_a_cached_answer_has_an_id_of_its_own_and_the_usage_of_the_first(client: openai.OpenAI, house: House) -> None:
    before = house.calls().calls
    answers = [client.chat.completions.create(model="auto", messages=MESSAGES) for _ in range(3)]
    assert house.calls().calls == before + 1
    assert len({answer.id for answer in answers}) == 3
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    assert answers[0].usage == answers[1].usage == answers[2].usage


def test_a_paraphrase_is_answered_by_meaning(client: openai.OpenAI, house: House) -> None:
    create = client.chat.completions.with_raw_response.create
    first = create(model="auto", messages=ask("How do I reset my password?"))
    before = house.calls().calls

    def found() -> bool:
        again = create(model="auto", messages=ask("How can I reset my password?"))
        assert float(again.headers["x-headgate-confidence"]) <= 1
        assert again.headers["x-headgate-source"] == "semantic"
        assert again.headers["x-headgate-entry"] == first.headers["x-headgate-entry"]
        return True

    eventually(found)
    assert house.calls().calls == before


def test_a_question_that_only_looks_alike_is_not_answered_from_the_cache(client: openai.OpenAI) -> None:
    create = client.chat.completions.with_raw_response.create
    create(model="auto", messages=ask("How many seats are in the team plan of 2023?"))
    other = create(model="auto", messages=ask("How many seats are in the team plan of 2024?"))
    assert other.headers["x-headgate-source"] == "live"


async def test_ten_at_once_make_one_call(later: openai.AsyncOpenAI, house: House) -> None:
    before = house.calls().calls
    create = later.chat.completions.with_raw_response.create
    answers = await asyncio.gather(*(create(model="slow", messages=MESSAGES) for _ in range(10)))
    assert house.calls().calls == before + 1
    sources = sorted(answer.headers["x-headgate-source"] for answer in answers)
    assert sources == ["coalesced"] * 9 + ["live"]
    assert len({answer.parse().id for answer in answers}) == 10
    assert len({answer.parse().choices[0].message.content for answer in answers}) == 1
    assert sum(answer.headers["x-headgate-cost-usd"] != "0.00" for answer in answers) == 1


async def test_ten_streams_at_once_make_one_call(later: openai.AsyncOpenAI, house: House) -> None:
    before = house.calls().calls

    async def read() -> str:
        stream = await later.chat.completions.create(model="slow", messages=MESSAGES, stream=True)
        return joined([chunk async for chunk in stream])

    texts = await asyncio.gather(*(read() for _ in range(10)))
    assert house.calls().calls == before + 1
    assert len(set(texts)) == 1
    assert "export" in texts[0]


async def test_the_asynchronous_sdk_reads_answers_streams_and_tools(later: openai.AsyncOpenAI) -> None:
    answer = await later.chat.completions.create(model="claude", messages=MESSAGES)
    assert answer.choices[0].message.content
    async with later.chat.completions.stream(model="auto", messages=MESSAGES, tools=TOOLS) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    assert [model.id async for model in later.models.list()]
    assert (await later.embeddings.create(model="embedding", input="one")).data[0].embedding


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
        ("broken-429", openai.InternalServerError, 503),
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
    stream = client.chat.completions.with_raw_response.create(model="recovers", messages=ask("And streamed?"), stream=True)
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
        for chunk in stream:
            read.append(chunk)
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


class TestTheCallersWishes:
    """Each `x-headgate-*` request header does what it says."""

    @pytest.fixture
    def create(self, client: openai.OpenAI) -> Any:
        def create(text: str = "How do I export my invoices?", **wishes: str) -> Any:
            headers = {f"x-headgate-{name.replace('_', '-')}": value for name, value in wishes.items()}
            return client.chat.completions.with_raw_response.create(
                model="auto", messages=ask(text), extra_headers=headers
            ).headers

        return create

    def test_no_cache_asks_again_and_keeps_the_newer_answer(self, create: Any) -> None:
        first, again = create(), create(cache="no-cache")
        assert again["x-headgate-source"] == "live"
        assert again["x-headgate-entry"] != first["x-headgate-entry"]
        assert create()["x-headgate-entry"] == again["x-headgate-entry"]

    def test_no_store_leaves_nothing_behind(self, create: Any) -> None:
        assert create(cache="no-store")["x-headgate-cache"] == "bypass"
        assert create()["x-headgate-source"] == "live"

    def test_only_if_cached_never_calls(self, create: Any, once: openai.OpenAI, house: House) -> None:
        before = house.calls().calls
        with pytest.raises(openai.InternalServerError) as absent:
            once.chat.completions.create(
                model="auto", messages=MESSAGES, extra_headers={"x-headgate-cache": "only-if-cached"}
            )
        assert (absent.value.status_code, absent.value.code) == (504, "not_cached")
        assert house.calls().calls == before
        create()
        assert create(cache="only-if-cached")["x-headgate-source"] == "exact"

    def test_exact_takes_no_paraphrase(self, create: Any) -> None:
        create("How do I reset my password?")
        assert create("How can I reset my password?", cache="exact")["x-headgate-source"] == "live"

    def test_a_bar_of_one_takes_no_paraphrase(self, create: Any) -> None:
        create("How do I reset my password?")
        assert create("How can I reset my password?", min_confidence="1")["x-headgate-source"] == "live"

    def test_a_ttl_of_zero_keeps_nothing(self, create: Any) -> None:
        create(cache_ttl="0")
        assert create()["x-headgate-source"] == "live"

    def test_namespaces_share_nothing(self, create: Any) -> None:
        create(namespace="one")
        assert create(namespace="two")["x-headgate-source"] == "live"
        assert create(namespace="one")["x-headgate-source"] == "exact"

    def test_users_and_features_are_in_the_usage(self, create: Any, house: House, tenant: Tenant) -> None:
        create(user="ann", feature="export", cache_tags="a, b", coalesce="off")
        report = house.request("GET", "/v1/usage?group_by=user,feature", key=tenant.key).json
        assert [(row["user"], row["feature"], row["requests"]) for row in report["data"]] == [("ann", "export", 1)]

    def test_trace_and_idempotency_headers_are_taken(self, client: openai.OpenAI) -> None:
        headers = {"Idempotency-Key": "one", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        assert client.chat.completions.create(model="auto", messages=MESSAGES, extra_headers=headers).choices

    async def test_coalesce_off_shares_nothing(self, later: openai.AsyncOpenAI, house: House) -> None:
        before = house.calls().calls
        create = later.chat.completions.create
        alone = {"x-headgate-coalesce": "off", "x-headgate-cache": "no-cache"}
        await asyncio.gather(*(create(model="slow", messages=MESSAGES, extra_headers=alone) for _ in range(3)))
        assert house.calls().calls == before + 3

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("cache", "sometimes"),
            ("cache-ttl", "soon"),
            ("cache-ttl", "-1"),
            ("min-confidence", "1.1"),
            ("min-confidence", "nan"),
            ("coalesce", "yes"),
            ("timeout", "0"),
            ("timeout", "inf"),
            ("namespace", ""),
            ("user", "x" * 300),
            ("made-up", "1"),
        ],
    )
    def test_what_makes_no_sense_is_refused_by_name(self, once: openai.OpenAI, name: str, value: str) -> None:
        header = f"x-headgate-{name}"
        with pytest.raises(openai.BadRequestError) as refused:
            once.chat.completions.create(model="auto", messages=MESSAGES, extra_headers={header: value})
        assert refused.value.param == header
