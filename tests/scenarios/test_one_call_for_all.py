"""Who asks for the same thing shares one call: hits, leaders, followers, streams and those who leave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from headgate.cache.cache import Entry
from headgate.cache.memory import MemoryStore
from headgate.model.chat import Completion, Delta, Event
from headgate.model.errors import AllFailed, Conflict, GatewayError, NotCached, Overloaded, Refused, UpstreamTimeout
from headgate.model.tenancy import Key, Principal, Wishes
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.reply import Reply
from tests.scenarios.house import CALLER, House, ask, caller

ONE_CALL = 10 * 1_000 + 1 * 2_000
"""Nano-USD of ten prompt tokens and one completion token."""


async def completion_of(
    house: House, who: Principal = CALLER, wishes: Wishes | None = None, **more: object
) -> tuple[str, Reply]:
    async with await house.gateway.chat(who, ask(**more), wishes) as reply:  # type: ignore[arg-type]
        completion = await reply.completion()
        return completion.text, reply


def text_of(events: Sequence[Event]) -> str:
    return "".join(
        part["delta"].get("content") or "" for event in events if isinstance(event, Delta) for part in event.choices
    )


async def test_a_miss_calls_the_provider_and_the_next_one_is_a_hit() -> None:
    house = House()
    text, first = await completion_of(house)
    await house.flown()
    again, second = await completion_of(house)
    assert text == again == "Hello."
    assert (first.source, second.source) == ("live", "exact")
    assert len(house.provider.calls) == 1
    assert (first.cost, second.cost, second.saved) == (ONE_CALL, 0, ONE_CALL)
    assert await house.settled() == ONE_CALL


async def test_ten_identical_at_once_make_one_call_and_one_settlement() -> None:
    house = House()
    replies = await asyncio.gather(*(completion_of(house) for _ in range(10)))
    assert {text for text, _ in replies} == {"Hello."}
    assert len(house.provider.calls) == 1
    assert await house.settled() == ONE_CALL
    assert sorted(record.source for record in house.notes.records) == ["coalesced"] * 9 + ["live"]
    assert sum(record.cost for record in house.notes.records) == ONE_CALL


async def test_a_json_caller_and_a_streaming_caller_share_a_call() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider([*answer("Good ", "day.")[:1], gate, *answer("Good ", "day.")[1:]])
    house = House({"one": provider})
    streaming = await house.gateway.chat(CALLER, ask(stream=True))
    plain = await house.gateway.chat(CALLER, ask())
    await streaming.opened()
    gate.set()
    async with streaming, plain:
        streamed = [event async for event in streaming.events()]
        assert text_of(streamed) == (await plain.completion()).text == "Good day."
    assert len(provider.calls) == 1


async def test_a_late_joiner_replays_what_was_said_and_then_follows() -> None:
    gate = asyncio.Event()
    events = answer("One ", "two ", "three.")
    house = House({"one": ScriptedProvider([*events[:2], gate, *events[2:]])})
    leader = await house.gateway.chat(CALLER, ask(stream=True))
    read: list[Event] = []
    async with leader:
        async for event in leader.events():
            read.append(event)
            if len(read) == 2:
                late = await house.gateway.chat(CALLER, ask(stream=True))
                gate.set()
        async with late:
            assert [event async for event in late.events()] == read
    assert text_of(read) == "One two three."
    assert late.source == "coalesced"


async def test_when_the_leader_hangs_up_the_followers_still_get_their_answer() -> None:
    gate = asyncio.Event()
    events = answer("One ", "two.")
    house = House({"one": ScriptedProvider([events[0], gate, *events[1:]])})
    leader = await house.gateway.chat(caller(abandoned="cancel"), ask(stream=True))
    follower = await house.gateway.chat(caller(abandoned="cancel"), ask(stream=True))
    await leader.opened()
    leader.close()
    gate.set()
    async with follower:
        assert (await follower.completion()).text == "One two."
    assert await house.settled() > 0
    assert [record.status for record in house.notes.records] == [499, 200]


async def test_when_everyone_leaves_a_finishing_flight_is_paid_and_kept() -> None:
    gate = asyncio.Event()
    house = House({"one": ScriptedProvider([gate, *answer("Hello.")])})
    reply = await house.gateway.chat(caller(abandoned="finish"), ask())
    await asyncio.sleep(0)
    reply.close()
    gate.set()
    assert house.notes.records == [], "what it costs is not known yet"
    await house.flown()
    assert await house.settled() == ONE_CALL
    (record,) = house.notes.records
    assert (record.status, record.cost, len(record.attempts)) == (499, ONE_CALL, 1)
    _, again = await completion_of(house)
    assert again.source == "exact"


async def test_when_everyone_leaves_a_cancelling_flight_stops_and_settles_what_was_used() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider([*answer("A long story ")[:1], gate])
    house = House({"one": provider})
    reply = await house.gateway.chat(caller(abandoned="cancel"), ask(stream=True))
    await reply.opened()
    reply.close()
    await house.flown()
    assert provider.open == 0
    assert house.ledger.open_reservations() == 0
    assert await house.settled() > 0
    assert house.gateway.cache.size() == 0


async def test_a_newcomer_in_the_turn_the_last_reader_leaves_gets_a_flight_of_its_own() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider([gate], answer("Fresh."))
    house = House({"one": provider})
    first = await house.gateway.chat(caller(abandoned="cancel"), ask())
    while not provider.calls:
        await asyncio.sleep(0)
    first.close()
    text, newcomer = await completion_of(house, caller(abandoned="cancel"))
    assert (text, newcomer.source) == ("Fresh.", "live")
    assert len(provider.calls) == 2


class SlowStore(MemoryStore):
    """A store whose every answer was true some turns ago, as a remote one's is."""

    def peek(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        return None

    async def get(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        found = super().peek(key)
        for _ in range(5):
            await asyncio.sleep(0)
        return found

    async def put(self, entry: Entry, *, epoch: int) -> bool:
        for _ in range(5):
            await asyncio.sleep(0)
        return await super().put(entry, epoch=epoch)


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_staggered_identical_requests_and_a_slow_cache_make_one_call(turns: int) -> None:
    house = House(store=SlowStore(now=lambda: 0.0))
    first = asyncio.create_task(completion_of(house))
    for _ in range(turns):
        await asyncio.sleep(0)
    text, _ = await completion_of(house)
    await first
    assert text == "Hello."
    assert len(house.provider.calls) == 1


async def test_nothing_is_shared_between_tenants() -> None:
    house = House()
    await asyncio.gather(*(completion_of(house, Principal(tenant=name)) for name in ("acme", "bolt")))
    await house.flown()
    await completion_of(house, Principal(tenant="core"))
    assert len(house.provider.calls) == 3


async def test_a_caller_who_wants_no_sharing_gets_a_call_of_its_own() -> None:
    house = House()
    off = Wishes(coalesce="off", cache="no-cache")
    await asyncio.gather(completion_of(house, wishes=off), completion_of(house, wishes=off))
    assert len(house.provider.calls) == 2


async def test_only_if_cached_is_refused_when_nothing_is_there_and_costs_nothing() -> None:
    house = House()
    with pytest.raises(NotCached):
        await completion_of(house, wishes=Wishes(cache="only-if-cached"))
    assert house.provider.calls == []
    assert await house.settled() == 0


async def test_no_store_and_high_temperature_go_past_cache_and_flights() -> None:
    house = House()
    await completion_of(house, wishes=Wishes(cache="no-store"))
    await completion_of(house, temperature=0.9)
    await completion_of(house, temperature=0.9)
    assert len(house.provider.calls) == 3
    assert house.gateway.cache.size() == 0
    assert [record.cache_reason for record in house.notes.records] == ["no-store", "temperature", "temperature"]


async def test_no_cache_refreshes_what_is_stored() -> None:
    house = House({"one": ScriptedProvider(answer("Old."), answer("New."))})
    await completion_of(house)
    await house.flown()
    await completion_of(house, wishes=Wishes(cache="no-cache"))
    await house.flown()
    text, reply = await completion_of(house)
    assert (text, reply.source) == ("New.", "exact")


async def test_a_repeat_under_the_same_idempotency_key_gets_the_first_answer_and_is_paid_once() -> None:
    house = House()
    once = Wishes(cache="no-store", idempotency_key="order-7")
    text, first = await completion_of(house, wishes=once)
    again, second = await completion_of(house, wishes=once)
    assert text == again
    assert len(house.provider.calls) == 1
    assert (first.cost, second.cost) == (ONE_CALL, 0)
    with pytest.raises(Conflict):
        await completion_of(house, wishes=once, max_tokens=5)
    await completion_of(house, Principal(tenant="bolt"), once)
    assert len(house.provider.calls) == 2


async def test_a_failed_call_may_be_repeated_under_its_idempotency_key() -> None:
    house = House({"one": ScriptedProvider([Refused("no")], answer("Yes."))})
    once = Wishes(idempotency_key="order-8")
    with pytest.raises(AllFailed):
        await completion_of(house, wishes=once)
    assert (await completion_of(house, wishes=once))[0] == "Yes."


async def test_a_caller_whose_time_is_over_gets_a_timeout_and_harms_nobody() -> None:
    gate = asyncio.Event()
    house = House({"one": ScriptedProvider([gate, *answer("Hello.")])})
    patient = await house.gateway.chat(CALLER, ask())
    with pytest.raises(UpstreamTimeout):
        await completion_of(house, wishes=Wishes(timeout=0.001))
    gate.set()
    async with patient:
        assert (await patient.completion()).text == "Hello."


async def test_an_answer_that_was_cut_by_a_limit_is_not_kept() -> None:
    house = House({"one": ScriptedProvider(answer("Hel", finish="length"))})
    await completion_of(house)
    await house.flown()
    assert house.gateway.cache.size() == 0


async def test_a_closing_gateway_takes_no_new_call_and_finishes_those_under_way() -> None:
    gate = asyncio.Event()
    house = House({"one": ScriptedProvider([gate, *answer("Hello.")])})
    reply = await house.gateway.chat(CALLER, ask())
    await asyncio.sleep(0)
    closing = asyncio.create_task(house.gateway.close())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await house.gateway.chat(CALLER, ask("Something else"))
    gate.set()
    async with reply:
        assert (await reply.completion()).text == "Hello."
    await closing
    assert await house.settled() == ONE_CALL


async def test_permits_are_given_back_whatever_happens() -> None:
    house = House()
    one_at_a_time = caller(concurrency=1)
    for _ in range(3):
        await completion_of(house, one_at_a_time)
    reply = await house.gateway.chat(one_at_a_time, ask("Another"))
    with pytest.raises(GatewayError):
        await house.gateway.chat(one_at_a_time, ask("A third"))
    reply.close()
    await completion_of(house, one_at_a_time)


async def test_a_hit_is_the_same_completion_with_the_usage_the_provider_gave() -> None:
    house = House()
    answers: list[Completion] = []
    for _ in range(2):
        async with await house.gateway.chat(CALLER, ask()) as reply:
            answers.append(await reply.completion())
        await house.flown()
    assert (
        answers[0].reported == answers[1].reported == {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    )
