"""The official SDKs take the simulator for the real providers, blocking and async."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator

import anthropic
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from headgate.simulator.simulator import Running, Simulator

QUESTION = "Where can I download my invoice?"
MARK = f" [ref {hashlib.sha256(QUESTION.encode()).hexdigest()[:12]}]"
MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are a support agent."},
    {"role": "user", "content": QUESTION},
]
PARAMETERS: dict[str, object] = {
    "type": "object",
    "properties": {"order": {"type": "string"}, "count": {"type": "integer", "minimum": 3, "maximum": 4}},
    "required": ["order", "count"],
}
TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": "find_order", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "refund", "parameters": PARAMETERS}},
]
ANTHROPIC_TOOLS = [
    {"name": "find_order", "input_schema": PARAMETERS},
    {"name": "refund", "input_schema": PARAMETERS},
]


class Ticket(BaseModel):
    """A structured answer."""

    title: str
    priority: int
    tags: list[str]


@pytest.fixture
def running() -> Iterator[Running]:
    """A simulator on a thread of its own, so that blocking clients can call it."""
    ready = threading.Event()
    found: list[tuple[Running, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with Simulator().serve() as started:
            found.append((started, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    started, loop, stop = found[0]
    yield started
    loop.call_soon_threadsafe(stop.set)
    thread.join()


@pytest.fixture
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0) as opened:
        yield opened


@pytest.fixture
def claude(running: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.url, api_key="any", max_retries=0) as opened:
        yield opened


def test_openai_reads_an_answer(client: openai.OpenAI, running: Running) -> None:
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    content = answer.choices[0].message.content
    assert content
    assert content.endswith(MARK)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.completion_tokens == -(-len(content.encode()) // 4)
    stats = running.stats().by_model["gpt-4o-mini"]
    assert (stats.prompt_tokens, stats.completion_tokens) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )


def test_openai_reads_a_stream_with_usage(client: openai.OpenAI, running: Running) -> None:
    chunks = list(
        client.chat.completions.create(
            model="any", messages=MESSAGES, stream=True, n=2, stream_options={"include_usage": True}
        )
    )
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert all(text.endswith(MARK) for text in texts)
    assert texts[0] != texts[1]
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == running.stats().completion_tokens


def test_openai_obeys_limits(client: openai.OpenAI) -> None:
    short = client.chat.completions.create(model="any", messages=MESSAGES, max_completion_tokens=12)
    assert short.choices[0].finish_reason == "length"
    assert short.usage
    assert short.usage.completion_tokens == 12
    stopped = client.chat.completions.create(model="any", messages=MESSAGES, stop=["You asked"])
    assert stopped.choices[0].finish_reason == "stop"
    assert "You asked" not in (stopped.choices[0].message.content or "")


def test_openai_calls_a_tool_and_then_answers(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="any", messages=MESSAGES, tools=TOOLS)
    assert first.choices[0].finish_reason == "tool_calls"
    calls = first.choices[0].message.tool_calls
    assert calls
    call = calls[0]
    assert call.type == "function"
    assert call.function.name == "find_order"
    assert json.loads(call.function.arguments)["count"] in (3, 4)
    history: list[ChatCompletionMessageParam] = [
        *MESSAGES,
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "found"},
    ]
    second = client.chat.completions.create(model="any", messages=history, tools=TOOLS)
    assert (second.choices[0].message.content or "").endswith(MARK)


def test_openai_streams_a_named_tool(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="any", messages=MESSAGES, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "refund"}}
    ) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls
    assert calls[0].function.name == "refund"
    assert set(json.loads(calls[0].function.arguments)) == {"order", "count"}
    unused = client.chat.completions.create(model="any", messages=MESSAGES, tools=TOOLS, tool_choice="none")
    assert unused.choices[0].message.content


def test_openai_json_mode_and_structured_outputs(client: openai.OpenAI) -> None:
    loose = client.chat.completions.create(model="any", messages=MESSAGES, response_format={"type": "json_object"})
    assert MARK.strip() in json.loads(loose.choices[0].message.content or "")["answer"]
    strict = client.chat.completions.parse(model="any", messages=MESSAGES, response_format=Ticket)
    parsed = strict.choices[0].message.parsed
    assert parsed
    assert MARK.strip() in parsed.title


def test_openai_embeddings_and_models(client: openai.OpenAI, running: Running) -> None:
    one = client.embeddings.create(model="e", input=["first", "second"], dimensions=8)
    two = client.embeddings.create(model="e", input="second", dimensions=8, encoding_format="float")
    assert one.data[1].embedding == pytest.approx(two.data[0].embedding)
    assert one.data[0].embedding != one.data[1].embedding
    assert one.usage.total_tokens + two.usage.total_tokens == running.stats().prompt_tokens
    assert "sim-429" in {model.id for model in client.models.list()}
    assert client.models.retrieve("anything").id == "anything"


def test_openai_errors_are_the_sdks_own(client: openai.OpenAI) -> None:
    def call(fault: str) -> None:
        client.chat.completions.create(model="any", messages=MESSAGES, extra_headers={"x-sim-fault": fault})

    with pytest.raises(openai.RateLimitError) as limited:
        call("429:3")
    assert limited.value.response.headers["retry-after"] == "3"
    with pytest.raises(openai.AuthenticationError):
        call("401")
    with pytest.raises(openai.BadRequestError) as too_long:
        call("context-length")
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.InternalServerError):
        call("529")
    with pytest.raises(openai.APIConnectionError):
        call("refuse")
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="any", input="Hi")


def test_openai_retries_a_scripted_failure(running: Running) -> None:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=1) as client:
        client.post("../_sim/script", body=[{"fault": "429:0.01", "calls": {"to": 1}}], cast_to=object)
        assert client.chat.completions.create(model="any", messages=MESSAGES).choices
    assert (running.stats().calls, running.stats().errors) == (2, 1)


def test_anthropic_reads_an_answer(claude: anthropic.Anthropic, running: Running) -> None:
    answer = claude.messages.create(
        model="claude-any",
        max_tokens=200,
        system="You are a support agent.",
        messages=[{"role": "user", "content": QUESTION}],
    )
    block = answer.content[0]
    assert block.type == "text"
    assert block.text.endswith(MARK)
    assert answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == (running.stats().prompt_tokens, 0)
    assert answer.usage.output_tokens == running.stats().completion_tokens


def test_anthropic_streams_every_event(claude: anthropic.Anthropic, running: Running) -> None:
    seen = []
    with claude.messages.stream(
        model="any", max_tokens=200, messages=[{"role": "user", "content": QUESTION}]
    ) as stream:
        for event in stream:
            seen.append(event.type)
        final = stream.get_final_message()
    block = final.content[0]
    assert block.type == "text"
    assert block.text.endswith(MARK)
    assert {"message_start", "content_block_start", "content_block_delta", "content_block_stop"} <= set(seen)
    assert {"message_delta", "message_stop"} <= set(seen)
    assert final.usage.output_tokens == running.stats().completion_tokens


def test_anthropic_obeys_limits(claude: anthropic.Anthropic) -> None:
    short = claude.messages.create(model="any", max_tokens=5, messages=[{"role": "user", "content": QUESTION}])
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 5)
    stopped = claude.messages.create(
        model="any", max_tokens=99, stop_sequences=["asked"], messages=[{"role": "user", "content": QUESTION}]
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "asked")


def test_anthropic_uses_tools(claude: anthropic.Anthropic) -> None:
    first = claude.messages.create(
        model="any",
        max_tokens=200,
        tools=ANTHROPIC_TOOLS,  # type: ignore[arg-type]
        messages=[{"role": "user", "content": QUESTION}],
    )
    block = first.content[0]
    assert block.type == "tool_use"
    assert (first.stop_reason, block.name) == ("tool_use", "find_order")
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "found"}
    second = claude.messages.create(
        model="any",
        max_tokens=200,
        tools=ANTHROPIC_TOOLS,  # type: ignore[arg-type]
        messages=[
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]},  # type: ignore[list-item,misc]
        ],
    )
    assert second.content[0].type == "text"
    with claude.messages.stream(
        model="any",
        max_tokens=200,
        tools=ANTHROPIC_TOOLS,  # type: ignore[arg-type]
        tool_choice={"type": "tool", "name": "refund"},
        messages=[{"role": "user", "content": QUESTION}],
    ) as stream:
        named = stream.get_final_message().content[0]
    assert named.type == "tool_use"
    assert (named.name, set(named.input)) == ("refund", {"order", "count"})


def test_anthropic_errors_are_the_sdks_own(claude: anthropic.Anthropic) -> None:
    def call(fault: str) -> None:
        claude.messages.create(model=f"sim-{fault}", max_tokens=9, messages=[{"role": "user", "content": QUESTION}])

    with pytest.raises(anthropic.RateLimitError):
        call("429")
    with pytest.raises(anthropic.AuthenticationError):
        call("401")
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        call("context-length")
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        call("529")
    assert overloaded.value.status_code == 529
    assert "sim-hang" in {model.id for model in claude.models.list()}


async def test_the_async_clients_read_answers_and_streams(running: Running) -> None:
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="any") as client:
        texts = ""
        async for chunk in await client.chat.completions.create(model="any", messages=MESSAGES, stream=True):
            texts += chunk.choices[0].delta.content or ""
        answer = await client.chat.completions.create(model="any", messages=MESSAGES)
        assert answer.choices[0].message.content == texts
    async with (
        anthropic.AsyncAnthropic(base_url=running.url, api_key="any") as claude,
        claude.messages.stream(model="any", max_tokens=200, messages=[{"role": "user", "content": QUESTION}]) as stream,
    ):
        assert (await stream.get_final_text()).endswith(MARK)


@pytest.mark.parametrize("fault", ["split-utf8", "no-usage", "slow-first-byte:0"])
def test_the_sdks_survive_the_faults_that_are_no_errors(
    client: openai.OpenAI, claude: anthropic.Anthropic, fault: str
) -> None:
    headers = {"x-sim-fault": fault}
    chunks = client.chat.completions.create(model="any", messages=MESSAGES, stream=True, extra_headers=headers)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).endswith(MARK)
    answer = client.chat.completions.create(model="any", messages=MESSAGES, extra_headers=headers)
    assert (answer.usage is None) == (fault == "no-usage")
    message = claude.messages.create(
        model="any", max_tokens=99, messages=[{"role": "user", "content": QUESTION}], extra_headers=headers
    )
    assert message.content[0].type == "text"


@pytest.mark.parametrize("fault", ["cut:1", "truncated-json", "malformed-sse:1"])
def test_a_broken_stream_is_an_exception_for_openai(client: openai.OpenAI, fault: str) -> None:
    stream = client.chat.completions.create(
        model="any", messages=MESSAGES, stream=True, extra_headers={"x-sim-fault": fault}
    )
    with pytest.raises((openai.APIConnectionError, json.JSONDecodeError)):
        list(stream)
