"""A client that leaves, an answer that breaks off: what was made is paid, marked as an estimate where nobody told how much it was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headgate.dispatch import Patience
from headgate.model.chat import Done
from headgate.model.errors import AllFailed, Interrupted, Malformed, Unavailable, UpstreamError
from headgate.model.record import Attempt
from headgate.providers.scripted import ScriptedProvider, answer
from tests.scenarios.house import CALLER, House, ask, caller

PROMPT_LIKELY = 9
"""Tokens that the prompt of `ask()` is estimated at."""


def broken(error: UpstreamError, *, sent: bool = True, received: int = 0) -> UpstreamError:
    """An error as a provider's connection leaves it."""
    error.sent, error.received = sent, received
    return error


async def only_attempt(house: House) -> Attempt:
    (record,) = house.notes.records
    (attempt,) = record.attempts
    return attempt


@pytest.mark.parametrize("abandoned", ["finish", "cancel"])
async def test_a_stream_that_everybody_left_is_paid_for_what_had_come_as_an_estimate(abandoned: str) -> None:
    provider = ScriptedProvider([*answer("One ", "two ", "three ")[:3], asyncio.Event()])
    house = House({"one": provider}, drain=0.0)
    reply = await house.gateway.chat(caller(abandoned=abandoned), ask(stream=True))
    async for _ in reply.events():
        if len(reply._flight.events) == 3:
            break
    reply.close()
    await house.flown()
    attempt = await only_attempt(house)
    assert (attempt.outcome, attempt.usage.estimated) == ("cancelled", True)
    assert (attempt.usage.prompt_tokens, attempt.usage.completion_tokens) == (PROMPT_LIKELY, 4)
    assert await house.settled() == attempt.cost == PROMPT_LIKELY * 1_000 + 4 * 2_000
    assert provider.open == 0
    assert house.ledger.open_reservations() == 0


async def test_who_leaves_before_anything_was_done_owes_nothing_and_is_recorded_all_the_same() -> None:
    house = House()
    (await house.gateway.chat(caller(abandoned="cancel"), ask())).close()
    await house.flown()
    assert [(record.status, record.cost) for record in house.notes.records] == [(499, 0)]
    assert house.provider.calls == []


async def test_a_whole_answer_that_everybody_left_costs_its_prompt_at_least() -> None:
    house = House({"one": ScriptedProvider([asyncio.Event()])}, drain=0.0)
    reply = await house.gateway.chat(CALLER, ask())
    while not house.providers["one"].calls:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    reply.close()
    await house.flown()
    attempt = await only_attempt(house)
    assert (attempt.usage.prompt_tokens, attempt.usage.estimated) == (PROMPT_LIKELY, True)
    assert await house.settled() == attempt.cost > 0


async def test_an_abandoned_call_that_ends_in_time_is_paid_exactly_and_kept() -> None:
    gate = asyncio.Event()
    house = House({"one": ScriptedProvider([gate, *answer("Hello.")])}, drain=3_600.0)
    reply = await house.gateway.chat(CALLER, ask())
    await asyncio.sleep(0)
    reply.close()
    gate.set()
    await house.flown()
    assert await house.settled() == 12_000
    assert not (await only_attempt(house)).usage.estimated
    assert house.gateway.cache.size() == 1


async def test_who_comes_back_in_time_keeps_an_abandoned_call_alive() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider([gate, *answer("Hello.")])
    house = House({"one": provider}, drain=0.0)
    (await house.gateway.chat(CALLER, ask())).close()
    async with await house.gateway.chat(CALLER, ask()) as back:
        for _ in range(5):
            await asyncio.sleep(0)
        gate.set()
        assert (await back.completion()).text == "Hello."
    assert len(provider.calls) == 1


async def test_a_newcomer_does_not_join_a_call_that_was_given_up() -> None:
    provider = ScriptedProvider([asyncio.Event()], answer("Fresh."))
    house = House({"one": provider}, drain=0.0)
    (await house.gateway.chat(CALLER, ask())).close()
    await house.flown()
    async with await house.gateway.chat(CALLER, ask()) as reply:
        assert (await reply.completion()).text == "Fresh."


@pytest.mark.parametrize(
    ("error", "tokens"),
    [
        (broken(Unavailable("broke off"), received=200), (PROMPT_LIKELY, 50)),
        (broken(Malformed("cannot be read"), received=100_000), (PROMPT_LIKELY, 100)),
        (broken(Unavailable("closed the connection")), (PROMPT_LIKELY, 0)),
    ],
    ids=["half an answer", "more than was asked for", "nothing"],
)
async def test_an_answer_that_broke_is_paid_for_the_bytes_that_came(
    error: UpstreamError, tokens: tuple[int, int]
) -> None:
    house = House({"one": ScriptedProvider([error])}, patience=Patience(retries=0))
    with pytest.raises(AllFailed):
        async with await house.gateway.chat(CALLER, ask()) as reply:
            await reply.completion()
    attempt = await only_attempt(house)
    assert (attempt.usage.prompt_tokens, attempt.usage.completion_tokens) == tokens
    assert attempt.usage.estimated
    assert await house.settled() == attempt.cost == tokens[0] * 1_000 + tokens[1] * 2_000


@pytest.mark.parametrize("error", [Unavailable("500"), Malformed("was never asked")])
async def test_what_the_provider_refused_or_never_got_costs_nothing(error: UpstreamError) -> None:
    house = House({"one": ScriptedProvider([error])}, patience=Patience(retries=0))
    with pytest.raises(AllFailed):
        async with await house.gateway.chat(CALLER, ask()) as reply:
            await reply.completion()
    assert await house.settled() == 0


async def test_a_stream_that_breaks_off_is_paid_for_each_piece_that_came() -> None:
    pieces = answer(*"abcdefgh")[:8]
    house = House({"one": ScriptedProvider([*pieces, broken(Unavailable("cut"), received=5_000)])})
    async with await house.gateway.chat(CALLER, ask(stream=True)) as reply:
        with pytest.raises(Interrupted):
            await reply.completion()
    await house.flown()
    usage = (await only_attempt(house)).usage
    assert (usage.completion_tokens, usage.estimated) == (8, True), "eight pieces, though but eight bytes"


@pytest.mark.parametrize("length", [3, 5_000])
async def test_an_answer_whose_provider_tells_no_usage_is_counted_here_within_its_limit(length: int) -> None:
    silent = [*answer("x" * length)[:-1], Done("scripted-1")]
    house = House({"one": ScriptedProvider(silent)})
    async with await house.gateway.chat(CALLER, ask()) as reply:
        completion = await reply.completion()
    assert completion.usage.estimated
    assert completion.usage.completion_tokens == min(100, -(-length // 4))
    assert await house.settled() == reply.cost <= reply.trail.ceiling


async def test_an_embeddings_call_whose_caller_hangs_up_is_paid_as_an_estimate() -> None:
    class Slow(ScriptedProvider):
        async def embed(self, *_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()

    house = House({"one": Slow()})
    call = asyncio.create_task(house.gateway.embed(CALLER, {"model": "one", "input": "What?"}))
    for _ in range(10):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await house.settled() > 0
    assert house.ledger.open_reservations() == 0
