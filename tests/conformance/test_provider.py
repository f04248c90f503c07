"""What every Provider guarantees, over every provider there is: OpenAI's and Anthropic's against the simulator, OpenAI's with embeddings
that go together, LiteLLM's where that is installed, and the scripted one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from typing import Any

import msgspec
import pytest

from headgate.model.chat import ChatRequest, Completion, Delta, Done, Event
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import (
    Malformed,
    Refused,
    Rejected,
    Throttled,
    Unavailable,
    UpstreamContextTooLong,
    UpstreamError,
    UpstreamTimeout,
)
from headgate.model.tally import Tally
from headgate.providers.anthropic import Anthropic
from headgate.providers.batched import Batched
from headgate.providers.endpoint import Endpoint
from headgate.providers.http import Timeouts
from headgate.providers.lanes import Bounds
from headgate.providers.litellm import LiteLLM
from headgate.providers.openai import OpenAI
from headgate.providers.provider import Provider
from headgate.providers.scripted import ScriptedProvider, Step, answer
from headgate.simulator.simulator import Simulator

SOUND = answer("The answer", " is", " 42.")
SCRIPTS: dict[str | None, Callable[[], list[Step]]] = {
    None: lambda: [*SOUND],
    "400": lambda: [Rejected("no")],
    "401": lambda: [Refused("no")],
    "429": lambda: [Throttled("no", retry_after=1.0)],
    "500": lambda: [Unavailable("no")],
    "529": lambda: [Unavailable("no")],
    "context-length": lambda: [UpstreamContextTooLong("no")],
    "refuse": lambda: [Unavailable("no")],
    "hang": lambda: [asyncio.Event()],
    "stall": lambda: [SOUND[0], asyncio.Event()],
    "cut": lambda: [SOUND[0], Unavailable("broke off")],
    "malformed-sse": lambda: [SOUND[0], Malformed("no JSON")],
    "truncated-json": lambda: [Unavailable("broke off")],
    "split-utf8": lambda: [*answer("Übër", "größe")],
    "no-usage": lambda: [*SOUND[:-1], Done("scripted-1")],
    "huge": lambda: [*answer("a" * 2**20)],
}


class Served(LiteLLM):
    """LiteLLM in front of the simulator: all its models are of a server that speaks OpenAI's format."""

    def send(self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float) -> Any:
        named = msgspec.structs.replace(deployment, model=f"openai/{deployment.model}")
        return super().send(named, request, clearance, timeout=timeout)

    async def embed(self, deployment: Deployment, body: Any, clearance: Clearance, *, timeout: float) -> Any:
        named = msgspec.structs.replace(deployment, model=f"openai/{deployment.model}")
        return await super().embed(named, body, clearance, timeout=timeout)


class Rig:
    """A provider under test and the deployment at it that misbehaves in a given way."""

    def __init__(self, open_provider: Callable[[str | None], Provider]) -> None:
        self._open_provider = open_provider
        self._providers: list[Provider] = []

    def open(self, fault: str | None = None) -> tuple[Provider, Deployment]:
        provider = self._open_provider(fault)
        self._providers.append(provider)
        model = "simulated-small" if fault is None else f"sim-{fault}"
        return provider, Deployment(name="under-test", provider="acme", model=model)

    async def close(self) -> None:
        for provider in self._providers:
            await provider.close()


def batched(endpoint: Endpoint) -> Batched:
    return Batched(OpenAI(endpoint), Bounds(), weigh=len)


KINDS: dict[str, Callable[[Endpoint], Provider]] = {"openai": OpenAI, "anthropic": Anthropic, "batched": batched}


TAIL = pytest.param(
    "litellm",
    marks=pytest.mark.skipif(
        find_spec("litellm") is None, reason="LITELLM IS NOT INSTALLED: pip install 'headgate[litellm]'"
    ),
)


@pytest.fixture(params=["openai", "anthropic", "batched", "scripted", TAIL])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "scripted":
            made = Rig(lambda fault: ScriptedProvider(SCRIPTS[fault](), embeddings=Rejected("no", status=404)))
        else:
            running = await stack.enter_async_context(Simulator().serve())
            endpoint = Endpoint(
                name="acme",
                base_url=running.url + "/v1",
                api_key="k-0123456789",
                allow_private=True,
                timeouts=Timeouts(idle=0.2),
            )
            if request.param == "litellm":
                one = Served(msgspec.structs.replace(endpoint, timeouts=Timeouts(idle=5.0)))
                # The library loads half of itself when it is first called.
                await events(
                    one, Deployment(name="first", provider="acme", model="simulated-small"), asked(stream=True)
                )
                yield Rig(lambda _: one)
                await one.close()
                return
            kind = KINDS[request.param]
            made = Rig(lambda _: kind(endpoint))
        yield made
        await made.close()


def asked(question: str = "How much is six times seven?", **fields: Any) -> ChatRequest:
    return ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": question}], **fields})


def cleared(limit: int) -> Clearance:
    """The right to call, as a reservation gives it out."""
    return Clearance("reserved", limit, "acme")


async def events(
    provider: Provider, deployment: Deployment, request: ChatRequest, *, timeout: float = 10.0
) -> list[Event]:
    return [event async for event in provider.send(deployment, request, cleared(500), timeout=timeout)]


def folded(received: list[Event]) -> Completion:
    tally = Tally(0)
    for event in received:
        tally.add(event)
    return tally.completion("")


async def test_a_stream_is_deltas_and_then_done_once(rig: Rig) -> None:
    received = await events(*rig.open(), asked(stream=True))
    assert len(received) > 2
    assert all(isinstance(event, Delta) for event in received[:-1])
    assert isinstance(received[-1], Done)


async def test_a_whole_answer_is_one_delta_and_done(rig: Rig) -> None:
    received = await events(*rig.open(), asked())
    assert [type(event) for event in received] == [Delta, Done]


async def test_both_ways_give_the_same_answer_with_its_usage(rig: Rig) -> None:
    provider, deployment = rig.open()
    streamed = folded(await events(provider, deployment, asked(stream=True)))
    whole = folded(await events(provider, deployment, asked(stream=False)))
    assert streamed.text == whole.text != ""
    assert streamed.choices[0]["finish_reason"] == whole.choices[0]["finish_reason"] == "stop"
    assert streamed.choices[0]["message"]["role"] == "assistant"
    assert streamed.usage.completion_tokens == whole.usage.completion_tokens > 0
    assert not streamed.usage.estimated
    assert streamed.reported["prompt_tokens"] == streamed.usage.prompt_tokens > 0
    assert streamed.model == whole.model != ""


ERRORS: dict[str, tuple[type[UpstreamError], ...]] = {
    "400": (Rejected,),
    "401": (Refused,),
    "429": (Throttled,),
    "500": (Unavailable,),
    "529": (Unavailable,),
    "context-length": (UpstreamContextTooLong,),
    "refuse": (Unavailable,),
    "hang": (UpstreamTimeout,),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ERRORS)
async def test_a_failure_before_the_answer_is_its_typed_error(rig: Rig, fault: str, *, stream: bool) -> None:
    with pytest.raises(UpstreamError) as caught:
        await events(*rig.open(fault), asked(stream=stream), timeout=0.1 if fault == "hang" else 10.0)
    assert type(caught.value) in ERRORS[fault]
    assert "k-0123456789" not in caught.value.message
    if fault == "429":
        assert caught.value.retry_after == 1.0


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [("stall", (UpstreamTimeout,)), ("cut", (Unavailable, Malformed)), ("malformed-sse", (Malformed,))],
)
async def test_a_failure_in_the_middle_comes_after_what_was_received(
    rig: Rig, fault: str, kinds: tuple[type[UpstreamError], ...]
) -> None:
    provider, deployment = rig.open(fault)
    received: list[Event] = []

    async def read() -> None:
        async for event in provider.send(deployment, asked(stream=True), cleared(500), timeout=0.5):
            received.append(event)

    with pytest.raises(kinds):
        await read()
    assert received
    assert not any(isinstance(event, Done) for event in received)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_body_that_is_cut_off_is_an_error_and_never_done(rig: Rig, *, stream: bool) -> None:
    with pytest.raises((Unavailable, Malformed)):
        await events(*rig.open("truncated-json"), asked(stream=stream))


@pytest.mark.parametrize(
    ("fault", "stream", "sent", "came"),
    [
        ("truncated-json", False, True, True),
        ("malformed-sse", False, True, True),
        ("truncated-json", True, True, True),
        ("refuse", False, True, False),
        ("500", False, False, False),
        ("429", True, False, False),
    ],
)
async def test_an_error_says_whether_the_call_was_sent_and_how_much_of_an_answer_came(
    rig: Rig, fault: str, *, stream: bool, sent: bool, came: bool
) -> None:
    """Scripts have no wire, and LiteLLM's is out of sight, so this holds for providers whose wire is ours."""
    provider, deployment = rig.open(fault)
    if isinstance(provider, ScriptedProvider | LiteLLM):
        return
    with pytest.raises(UpstreamError) as caught:
        await events(provider, deployment, asked(stream=stream))
    assert (caught.value.sent, caught.value.received > 0) == (sent, came)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["split-utf8", "no-usage", "huge"])
async def test_an_odd_answer_is_read_all_the_same(rig: Rig, fault: str, *, stream: bool) -> None:
    completion = folded(await events(*rig.open(fault), asked(stream=stream)))
    assert completion.complete
    assert completion.text
    assert "\ufffd" not in completion.text
    assert completion.usage.estimated == (fault == "no-usage")


async def test_a_reader_may_leave_at_any_time_and_the_provider_goes_on(rig: Rig) -> None:
    provider, deployment = rig.open()
    stream = provider.send(deployment, asked(stream=True), cleared(500), timeout=10)
    await anext(stream)
    await stream.aclose()
    assert folded(await events(provider, deployment, asked(stream=True))).complete


async def test_a_reader_may_be_cancelled_while_it_waits(rig: Rig) -> None:
    provider, deployment = rig.open("hang")
    waiting = asyncio.create_task(events(provider, deployment, asked()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_calls_at_the_same_time_do_not_mix(rig: Rig) -> None:
    provider, deployment = rig.open()
    questions = [asked(f"Say the number {n}.", stream=n % 2 == 0) for n in range(30)]
    alone = [folded(await events(provider, deployment, question)).text for question in questions]
    together = await asyncio.gather(*(events(provider, deployment, question) for question in questions))
    assert [folded(received).text for received in together] == alone


async def test_embeddings_are_in_the_shape_of_openai_or_refused(rig: Rig) -> None:
    provider, _ = rig.open()
    deployment = Deployment(name="e", provider="acme", model="simulated-embedding")
    answering = provider.embed(deployment, {"model": "e", "input": ["a", "b"]}, cleared(0), timeout=10)
    if isinstance(provider, OpenAI | Batched | LiteLLM):
        answered = await answering
        assert [row["index"] for row in answered["data"]] == [0, 1]
        assert answered["usage"]["prompt_tokens"] > 0
    else:
        with pytest.raises(Rejected) as caught:
            await answering
        assert caught.value.status == 404


async def test_a_limit_cuts_the_answer(rig: Rig) -> None:
    """Scripts do not count tokens, so this holds for those that do."""
    provider, deployment = rig.open()
    received = [event async for event in provider.send(deployment, asked(), cleared(2), timeout=10)]
    if not isinstance(provider, ScriptedProvider):
        completion = folded(received)
        assert completion.choices[0]["finish_reason"] == "length"
        assert completion.usage.completion_tokens <= 2


async def test_embeddings_asked_for_at_the_same_time_do_not_mix(rig: Rig) -> None:
    """Anthropic has none, and scripts say the same to all."""
    provider, _ = rig.open()
    if not isinstance(provider, OpenAI | Batched):
        return
    deployment = Deployment(name="e", provider="acme", model="simulated-embedding")
    inputs = [f"text {n}" if n % 3 else [f"text {n}", f"another {n}"] for n in range(30)]

    async def vectors(given: str | list[str]) -> Any:
        body = {"model": "e", "input": given, "dimensions": 4}
        answered = await provider.embed(deployment, body, cleared(0), timeout=10)
        return [(row["index"], row["embedding"]) for row in answered["data"]]

    alone = [await vectors(given) for given in inputs]
    assert await asyncio.gather(*map(vectors, inputs)) == alone
