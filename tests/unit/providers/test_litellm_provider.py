"""LiteLLM's adapter and its worker, with a module that stands for the library: what is passed on, what is told, and who outlives whom."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import headgate
from headgate.model.chat import ChatRequest, Delta, Done
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import (
    Malformed,
    Throttled,
    Unable,
    Unavailable,
    UpstreamContextTooLong,
    UpstreamError,
    UpstreamTimeout,
)
from headgate.providers.endpoint import Endpoint
from headgate.providers.http import Timeouts
from headgate.providers.litellm import LiteLLM
from headgate.providers.litellm_link import Link

PRETENDED = Path(__file__).parent / "pretended"
PATH = os.pathsep.join([str(PRETENDED), str(Path(headgate.__file__).parent.parent)])
KEY = "key-0123456789"


def made(link: Link, **options: str) -> LiteLLM:
    endpoint = Endpoint(name="tail", base_url="", api_key=KEY, timeouts=Timeouts(idle=0.2))
    return LiteLLM(endpoint, options=options, link=link)


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    one = Link(env={"PYTHONPATH": PATH, "PATH": os.environ["PATH"]})
    yield one
    await one.close()


@pytest.fixture
def provider(link: Link) -> LiteLLM:
    return made(link)


def asked(**fields: Any) -> ChatRequest:
    return ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": "Hello"}], **fields})


def model(name: str) -> Deployment:
    return Deployment(name="tail", provider="tail", model=name)


async def events(provider: LiteLLM, name: str, timeout: float = 20.0, **fields: Any) -> list[Any]:
    clearance = Clearance("r", 50)
    return [event async for event in provider.send(model(name), asked(**fields), clearance, timeout=timeout)]


async def text(provider: LiteLLM, name: str, **fields: Any) -> str:
    whole, _ = await events(provider, name, **fields)
    return whole.choices[0]["delta"]["content"]


async def test_a_call_says_what_the_caller_and_the_configuration_say_and_nothing_is_tried_again(link: Link) -> None:
    said = await text(made(link, aws_region_name="eu-central-1"), "bedrock/claude", temperature=0.5, stop=["x"])
    for pair in (
        ("api_key", KEY),
        ("aws_region_name", "eu-central-1"),
        ("max_retries", 0),
        ("max_tokens", 50),
        ("model", "bedrock/claude"),
        ("num_retries", 0),
        ("stop", ["x"]),
        ("temperature", 0.5),
    ):
        assert repr(pair) in said
    assert "api_base" not in said


@pytest.mark.parametrize(
    "field", ["api_base", "api_key", "mock_response", "callbacks", "custom_llm_provider", "extra_headers"]
)
async def test_no_caller_reaches_an_argument_of_the_librarys_own(provider: LiteLLM, link: Link, field: str) -> None:
    with pytest.raises(Unable) as caught:
        await events(provider, "any", **{field: "x"})
    assert caught.value.param == field
    assert link.pid is None


async def test_a_stream_comes_in_parts_with_its_usage(provider: LiteLLM) -> None:
    *parts, done = await events(provider, "any", stream=True)
    assert all(isinstance(part, Delta) for part in parts)
    assert [part.choices[0]["delta"].get("content") for part in parts] == ["Good", " day", None]
    assert isinstance(done, Done)
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (7, 2)


async def test_the_worker_phones_nobody_and_knows_no_secret_of_ours(provider: LiteLLM) -> None:
    assert await text(provider, "flags") == repr((True, False, "True", False))
    assert "litellm" not in sys.modules


@pytest.mark.parametrize(
    ("name", "kind", "sent"),
    [
        ("RateLimitError", Throttled, False),
        ("UnsupportedParamsError", Unable, False),
        ("ContextWindowExceededError", UpstreamContextTooLong, False),
        ("Timeout", UpstreamTimeout, True),
        ("InternalServerError", Unavailable, True),
    ],
)
async def test_its_exceptions_are_our_errors(
    provider: LiteLLM, name: str, kind: type[UpstreamError], sent: bool
) -> None:
    with pytest.raises(UpstreamError) as caught:
        await events(provider, name)
    error = caught.value
    assert (type(error), error.sent) == (kind, sent)
    assert KEY not in error.message
    assert "litellm" not in error.message.lower()
    if kind is Throttled:
        assert error.retry_after == 3


@pytest.mark.parametrize(
    ("name", "kind"),
    [("breaks", Malformed), ("dies-midway", Unavailable), ("stalls", UpstreamTimeout), ("unfinished", Malformed)],
)
async def test_an_answer_that_breaks_off_is_never_done(provider: LiteLLM, name: str, kind: type[UpstreamError]) -> None:
    received: list[Any] = []

    async def read() -> None:
        async for event in provider.send(model(name), asked(stream=True), Clearance("r", 50), timeout=20):
            received.append(event)

    with pytest.raises(kind):
        await read()
    assert received
    assert not any(isinstance(event, Done) for event in received)


async def test_a_worker_that_dies_takes_its_calls_along_and_the_next_call_has_another(
    provider: LiteLLM, link: Link
) -> None:
    with pytest.raises(Unavailable, match="the worker has ended") as caught:
        await events(provider, "dies")
    assert caught.value.sent
    assert "Hello" in await text(provider, "any")
    first = link.pid
    os.kill(first or 0, signal.SIGKILL)
    with pytest.raises(Unavailable):
        await events(provider, "hangs")
    assert "Hello" in await text(provider, "any")
    assert link.pid != first


async def test_who_leaves_gives_its_call_up(provider: LiteLLM) -> None:
    await provider.ready()
    waiting = asyncio.create_task(events(provider, "hangs"))
    while not await text(provider, "hanging"):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    # Orders are carried out in their order, so this one comes after the other's end.
    assert await text(provider, "cancelled") == "hangs"


async def test_calls_at_the_same_time_share_one_worker_and_do_not_mix(provider: LiteLLM, link: Link) -> None:
    said = await asyncio.gather(*(text(provider, "any", user=f"u-{n}") for n in range(20)))
    assert all(f"'u-{n}'" in one for n, one in enumerate(said))
    assert link.pid is not None


async def test_embeddings_come_in_the_shape_of_openai(provider: LiteLLM) -> None:
    answer = await provider.embed(model("e"), {"model": "e", "input": ["a", "b"]}, Clearance("r", 0), timeout=20)
    assert [row["index"] for row in answer["data"]] == [0, 1]


async def test_a_worker_that_cannot_start_is_an_outage_and_says_why() -> None:
    link = Link(
        env={"PYTHONPATH": str(Path(headgate.__file__).parent.parent), "PATH": os.environ["PATH"]},
        command=(sys.executable, "-c", ""),
    )
    with pytest.raises(Unavailable, match="cannot be started"):
        await events(made(link), "any")
    await link.close()
