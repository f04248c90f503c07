"""Failures: what is tried again, what is told, what is paid, and that nothing wrong is kept."""

from __future__ import annotations

import asyncio

import pytest

from headgate.budget.budget import Hold
from headgate.budget.memory import MemoryLedger
from headgate.dispatch import Patience
from headgate.model.chat import Delta, Event
from headgate.model.errors import (
    AllFailed,
    BudgetExceeded,
    Interrupted,
    Malformed,
    Overloaded,
    Rejected,
    Throttled,
    Unable,
    Unavailable,
    UpstreamTimeout,
)
from headgate.model.tenancy import Caps, Wishes
from headgate.providers.scripted import ScriptedProvider, answer
from tests.scenarios.house import CALLER, House, ask, caller

ONE_CALL = 10 * 1_000 + 1 * 2_000


async def test_a_failure_before_the_first_delta_falls_back_to_the_next_deployment() -> None:
    house = House({"one": ScriptedProvider([Unavailable("down")]), "two": ScriptedProvider(answer("Second."))})
    async with await house.gateway.chat(CALLER, ask()) as reply:
        completion = await reply.completion()
    assert completion.text == "Second."
    assert [attempt.deployment for attempt in reply.trail.attempts] == ["one", "one", "two"]
    assert reply.trail.deployment == "two"
    assert await house.settled() == ONE_CALL


async def test_a_failure_after_the_first_delta_is_told_inside_the_stream_settled_in_part_and_not_kept() -> None:
    events = answer("Half an ", "answer.")
    broken = ScriptedProvider([events[0], Unavailable("cut")])
    spare = ScriptedProvider()
    house = House({"one": broken, "two": spare})
    read: list[Event] = []
    async with await house.gateway.chat(CALLER, ask(stream=True)) as reply:
        await reply.opened()
        with pytest.raises(Interrupted):
            async for event in reply.events():
                read.append(event)
    await house.flown()
    assert [type(event) for event in read] == [Delta]
    assert spare.calls == []
    assert 0 < await house.settled() < ONE_CALL * 10
    assert house.gateway.cache.size() == 0
    assert house.notes.records[0].error == "stream_interrupted"


async def test_an_exhausted_budget_is_refused_before_any_upstream_byte() -> None:
    house = House(caps=Caps(hour=1_000))
    reply = await house.gateway.chat(CALLER, ask())
    async with reply:
        with pytest.raises(BudgetExceeded) as refused:
            await reply.opened()
    assert (refused.value.status, refused.value.code, refused.value.retryable) == (402, "budget_exceeded", False)
    assert house.provider.calls == []
    assert await house.settled() == 0
    assert house.ledger.open_reservations() == 0


async def test_headroom_held_by_a_call_in_flight_is_another_refusal_than_money_spent() -> None:
    gate = asyncio.Event()
    house = House({"one": ScriptedProvider([gate, *answer("Hello.")])}, caps=Caps(hour=350_000))
    first = await house.gateway.chat(CALLER, ask("One"))
    await asyncio.sleep(0.0)
    second = await house.gateway.chat(CALLER, ask("Two"))
    async with second:
        with pytest.raises(BudgetExceeded) as refused:
            await second.opened()
    assert (refused.value.code, refused.value.retryable) == ("budget_held", True)
    assert refused.value.retry_after is not None
    gate.set()
    async with first:
        await first.completion()
    async with await house.gateway.chat(CALLER, ask("Two")) as third:
        assert (await third.completion()).text == "Hello."


async def test_the_provider_is_asked_for_no_more_output_than_was_held() -> None:
    house = House()
    async with await house.gateway.chat(CALLER, ask(max_tokens=7)) as reply:
        await reply.completion()
    async with await house.gateway.chat(CALLER, ask("No limit of its own")) as reply:
        await reply.completion()
    assert [call.limit for call in house.provider.calls] == [7, 100]


async def test_what_the_provider_rejects_is_passed_on_and_not_tried_elsewhere() -> None:
    spare = ScriptedProvider()
    house = House({"one": ScriptedProvider([Rejected("no such voice", status=422)]), "two": spare})
    async with await house.gateway.chat(CALLER, ask()) as reply:
        with pytest.raises(Rejected) as rejected:
            await reply.completion()
    assert rejected.value.status == 422
    assert spare.calls == []
    assert await house.settled() == 0


async def test_a_short_throttle_of_the_only_deployment_is_waited_for() -> None:
    house = House({"one": ScriptedProvider([Throttled("slow down", retry_after=2.0)], answer("Hello."))})
    async with await house.gateway.chat(CALLER, ask()) as reply:
        assert (await reply.completion()).text == "Hello."
    assert house.slept == [2.0], "the provider's own time is the least that is waited"


async def test_a_throttled_deployment_is_not_waited_for_while_another_is_free() -> None:
    throttled = ScriptedProvider([Throttled("slow down", retry_after=2.0)])
    house = House({"one": throttled, "two": ScriptedProvider(answer("Hello."))})
    for text in ("One", "Another"):
        async with await house.gateway.chat(CALLER, ask(text)) as reply:
            assert (await reply.completion()).text == "Hello."
    assert house.slept == []
    assert len(throttled.calls) == 1, "its Retry-After spares it from everyone"


async def test_when_all_fail_the_error_lists_every_attempt() -> None:
    down = ScriptedProvider([Unavailable("down")])
    house = House({"one": down, "two": ScriptedProvider([Malformed("garbage")])}, patience=Patience(retries=0))
    async with await house.gateway.chat(CALLER, ask()) as reply:
        with pytest.raises(AllFailed) as failed:
            await reply.completion()
    listed = failed.value.body()["error"]["attempts"]
    assert [(row["deployment"], row["error"]) for row in listed] == [
        ("one", "upstream_unavailable"),
        ("two", "upstream_malformed"),
    ]


async def test_an_attempt_that_fell_silent_is_charged_its_prompt_as_an_estimate() -> None:
    silence = UpstreamTimeout("silent")
    silence.sent = True
    house = House({"one": ScriptedProvider([silence]), "two": ScriptedProvider(answer("Hello."))})
    async with await house.gateway.chat(CALLER, ask()) as reply:
        await reply.completion()
    silent, spoken = reply.trail.attempts
    assert silent.cost > 0
    assert silent.usage.estimated
    assert await house.settled() == silent.cost + spoken.cost


async def test_an_attempt_that_never_left_costs_nothing() -> None:
    house = House(
        {"one": ScriptedProvider([UpstreamTimeout("no connection")]), "two": ScriptedProvider(answer("Hello."))}
    )
    async with await house.gateway.chat(CALLER, ask()) as reply:
        await reply.completion()
    assert reply.trail.attempts[0].cost == 0
    assert await house.settled() == ONE_CALL


async def test_what_one_provider_cannot_do_another_is_asked_for() -> None:
    house = House({"one": ScriptedProvider([Unable("one answer a call")]), "two": ScriptedProvider(answer("Both."))})
    async with await house.gateway.chat(CALLER, ask()) as reply:
        assert (await reply.completion()).text == "Both."


async def test_followers_of_a_flight_that_failed_start_over_together_once() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider([gate, Unavailable("down")], answer("Back."))
    house = House({"one": provider}, patience=Patience(retries=0))
    replies = [await house.gateway.chat(CALLER, ask()) for _ in range(4)]
    readers = [asyncio.create_task(reply.completion()) for reply in replies]
    await asyncio.sleep(0)
    gate.set()
    leader, *followers = await asyncio.gather(*readers, return_exceptions=True)
    assert isinstance(leader, AllFailed)
    assert [getattr(one, "text", one) for one in followers] == ["Back."] * 3
    assert len(provider.calls) == 2
    for reply in replies:
        reply.close()
    assert sorted(record.source for record in house.notes.records) == ["coalesced", "coalesced", "live", "none"]


async def test_a_follower_of_a_silent_stream_loses_patience_and_starts_over() -> None:
    never = asyncio.Event()
    house = House({"one": ScriptedProvider([never], answer("Quick."))}, follower_patience=0.0)
    leader = await house.gateway.chat(CALLER, ask(stream=True))
    await asyncio.sleep(0)
    async with await house.gateway.chat(CALLER, ask(stream=True)) as follower:
        assert (await follower.completion()).text == "Quick."
    never.set()
    leader.close()
    await house.flown()


async def test_after_repeated_failures_the_breaker_spares_the_deployment() -> None:
    down = ScriptedProvider([Unavailable("down")])
    house = House({"one": down, "two": ScriptedProvider(answer("Hello."))}, patience=Patience(retries=0))
    for number in range(10):
        async with await house.gateway.chat(CALLER, ask(f"Question {'x' * number}")) as reply:
            await reply.completion()
    assert len(down.calls) == 5


async def test_an_open_breaker_on_the_only_deployment_does_not_make_an_outage() -> None:
    scripts = [[Unavailable("down")]] * 5 + [answer("Back.")]
    house = House({"one": ScriptedProvider(*scripts)}, patience=Patience(retries=0))
    for number in range(5):
        async with await house.gateway.chat(CALLER, ask(f"Question {'x' * number}")) as reply:
            with pytest.raises(AllFailed):
                await reply.completion()
    async with await house.gateway.chat(CALLER, ask("Anyone there?")) as reply:
        assert (await reply.completion()).text == "Back."


async def test_cancelled_twice_while_settling_the_money_is_still_settled() -> None:
    gate = asyncio.Event()
    house = House({"one": ScriptedProvider([*answer("A long story ")[:1], gate])})
    reply = await house.gateway.chat(caller(abandoned="cancel"), ask(stream=True))
    await reply.opened()
    task = next(iter(house.gateway.flights._tasks))
    task.cancel()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await house.flown()
    reply.close()
    assert house.ledger.open_reservations() == 0
    assert await house.settled() > 0


class FullLedger(MemoryLedger):
    """A ledger whose disk is full."""

    async def dispatched(self, id: str) -> None:
        raise Overloaded("The ledger cannot be written.", retry_after=1.0)


async def test_when_the_ledger_cannot_be_written_no_call_is_made() -> None:
    house = House(ledger=FullLedger(now=lambda: 0.0))
    async with await house.gateway.chat(CALLER, ask()) as reply:
        with pytest.raises(Overloaded):
            await reply.completion()
    assert house.provider.calls == []


class BrokenLedger(MemoryLedger):
    """A ledger that refuses every hold for no reason of money."""

    async def reserve(self, hold: Hold) -> int:
        raise ZeroDivisionError


async def test_a_fault_of_ours_is_an_internal_error_without_its_details() -> None:
    house = House(ledger=BrokenLedger(now=lambda: 0.0))
    async with await house.gateway.chat(CALLER, ask()) as reply:
        with pytest.raises(Exception, match="details are in the log under id-1") as raised:
            await reply.completion()
    assert "ZeroDivision" not in str(raised.value)
    assert house.notes.records[0].status == 500


class DeafEmbedder:
    """An embedder that never works."""

    identity, dimensions = "deaf", 3

    def fits(self, text: str) -> bool:
        return True

    async def embed(self, text: str) -> object:
        raise OSError("no model")

    async def close(self) -> None:
        return None


async def test_a_broken_embedder_costs_a_hit_and_never_an_answer() -> None:
    house = House(embedder=DeafEmbedder())
    async with await house.gateway.chat(CALLER, ask(), Wishes()) as reply:
        assert (await reply.completion()).text == "Hello."
