"""OpenAI's own SDK takes Headgate for OpenAI: only the base URL and the key are changed."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.contract.house import House, Tenant
from tests.contract.sdk import MESSAGES, TOOLS, joined

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="


class Ticket(BaseModel):
    """A structured answer."""

    title: str
    priority: int
    tags: list[str]


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
