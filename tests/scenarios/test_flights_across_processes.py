"""Who asks the same of several replicas at a time shares one call: who leads, who follows, who leaves, what breaks and who pays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headgate.budget.budget import UsageQuery
from headgate.cache.cache import Selection
from headgate.coalesce.redis import RedisRelay
from headgate.model.errors import Rejected, Unavailable
from headgate.model.tenancy import Principal, Wishes
from headgate.providers.scripted import answer
from headgate.storage.redis import Redis
from tests.crowds import PARCEL, REFUND, Reader
from tests.replicas import Replicas
from tests.scenarios.house import caller
from tests.servers.redis import PATIENT
from tests.virtual_time import after, clock, in_virtual_time
from tests.waiting import until

PRICE = 10 * 1_000 + 1 * 2_000
CANCELS = caller(abandoned="cancel", rpm=1_000, concurrency=1_000)
ANYBODY = caller(rpm=10_000, concurrency=10_000)


def slow(*pieces: str, seconds: float = 1.0) -> list[Any]:
    """An answer that begins after a while and then takes as long for each further piece."""
    events, steps = answer(*(pieces or ("Hello.",))), []
    for event in events[: len(pieces) or 1]:
        steps += [after(seconds * (len(steps) // 2 + 1)), event]
    return [*steps, *events[len(pieces) or 1 :]]


async def ends(*readers: Reader) -> list[str]:
    return [await reader.end() for reader in readers]


class TestOneCall:
    @pytest.mark.parametrize("count", [2, 4])
    @pytest.mark.parametrize("gap", [0.0, 0.1])
    @in_virtual_time
    async def test_identical_requests_on_several_replicas_make_one_call(self, count: int, gap: float) -> None:
        place = Replicas(slow("Good ", "day."), count=count, way=0.001)
        readers = []
        for number in range(12):
            readers.append(place.come(number % count, ANYBODY, stream=bool(number // count % 2)))
            await asyncio.sleep(gap)
        assert await ends(*readers) == ["whole"] * 12
        assert {reader.text for reader in readers} == {"Good day."}
        await place.at_rest()
        assert sum(place.calls) == 1
        sources = [record.source for house in place.houses for record in house.notes.records]
        assert sorted(sources) == ["coalesced"] * 11 + ["live"]

    @in_virtual_time
    async def test_a_stream_comes_to_other_replicas_as_it_is_made(self) -> None:
        place = Replicas(slow("One ", "two ", "three."), way=0.001)
        leader = place.come(0, stream=True)
        await asyncio.sleep(0.5)
        follower = place.come(1, stream=True)
        await asyncio.sleep(1.0)
        assert follower.text == leader.text == "One "
        await asyncio.sleep(1.0)
        assert follower.text == leader.text == "One two "
        assert await ends(leader, follower) == ["whole"] * 2
        assert follower.text == "One two three."
        assert follower.events == leader.events

    @in_virtual_time
    async def test_who_comes_in_the_middle_reads_it_from_the_beginning(self) -> None:
        place = Replicas(slow("One ", "two ", "three."), way=0.001)
        leader = place.come(0, stream=True)
        await asyncio.sleep(2.5)
        follower = place.come(1, stream=True)
        await asyncio.sleep(0.1)
        assert follower.text == "One two "
        assert await ends(leader, follower) == ["whole"] * 2
        assert follower.text == "One two three."

    @in_virtual_time
    async def test_a_follower_knows_of_the_answer_what_its_leader_knows(self) -> None:
        place = Replicas(slow())
        leader, follower = place.come(0), place.come(1)
        await ends(leader, follower)
        await place.at_rest()
        (theirs,), (ours,) = (house.notes.records for house in place.houses)
        assert (ours.model, ours.deployment, ours.usage, ours.route_reason) == (
            theirs.model, theirs.deployment, theirs.usage, theirs.route_reason
        )  # fmt: skip
        assert (ours.source, ours.cost, ours.saved, ours.attempts) == ("coalesced", 0, PRICE, ())

    @in_virtual_time
    async def test_a_long_stream_is_told_in_few_pages(self) -> None:
        events = answer(*["ab"] * 1_000)
        script: list[Any] = []
        for number, event in enumerate(events[:1_000]):
            script += [after(0.5 + number * 0.001), event]
        place = Replicas([*script, *events[1_000:]], way=0.0005)
        leader, follower = place.come(0, stream=True), place.come(1, stream=True)
        await ends(leader, follower)
        assert follower.text == leader.text == "ab" * 1_000
        assert 10 <= place.wires[0].pages <= 22

    @in_virtual_time
    async def test_of_what_nobody_follows_nothing_is_told_but_the_end(self) -> None:
        place = Replicas(slow("One ", "two."))
        await place.come(0, stream=True).end()
        await place.at_rest()
        assert place.wires[0].pages == 1
        assert place.wires[0].asked == {"join": 1, "tell": 1, "read": 0, "leave": 0}

    @in_virtual_time
    async def test_a_caller_waits_for_one_question_to_the_relay_and_for_nothing_else(self) -> None:
        place = Replicas(slow(), way=0.2)
        reader = place.come(0)
        assert await reader.end() == "whole"
        assert reader.seconds == pytest.approx(2 * 0.2 + 1.0 - 2 * 0.2)
        await place.at_rest()


class TestApart:
    @in_virtual_time
    async def test_tenants_share_nothing(self) -> None:
        place = Replicas(slow())
        readers = [place.come(at, Principal(tenant=name)) for at, name in enumerate(("acme", "bolt"))]
        await ends(*readers)
        assert place.calls == [1, 1]

    @in_virtual_time
    async def test_nor_does_who_wants_a_call_of_its_own(self) -> None:
        place = Replicas(slow())
        off = Wishes(coalesce="off")
        await ends(place.come(0, wishes=off), place.come(1, wishes=off))
        assert place.calls == [1, 1]
        assert place.wires[0].asked["join"] == 0

    @in_virtual_time
    async def test_who_does_not_want_what_is_stored_follows_what_is_in_flight_and_nothing_that_is_over(self) -> None:
        place = Replicas(slow())
        fresh = Wishes(cache="no-cache")
        readers = [place.come(0, wishes=fresh), place.come(1, wishes=fresh)]
        await ends(*readers)
        assert place.calls == [1, 0]
        await place.come(1, wishes=fresh).end()
        assert place.calls == [1, 1]

    @in_virtual_time
    async def test_who_just_missed_the_stored_answer_finds_the_flight(self) -> None:
        place = Replicas(slow(seconds=1.0))
        await place.come(0).end()
        await place.houses[0].flown()
        log = place.wires[0].logs[0]
        found = await place.wires[1].join("acme", log.place)
        assert not found.leads
        assert len(await place.wires[1].read(found, 0) or ()) == 1

    @in_virtual_time
    async def test_an_invalidation_parts_them(self) -> None:
        place = Replicas(slow())
        first = place.come(0)
        await asyncio.sleep(0.5)
        await place.houses[0].gateway.cache.invalidate(Selection(tenant="acme"))
        second = place.come(1)
        await ends(first, second)
        assert place.calls == [1, 1]


class TestWhoLeaves:
    @in_virtual_time
    async def test_followers_on_other_replicas_keep_a_flight_that_its_own_callers_have_left(self) -> None:
        place = Replicas(slow("One ", "two."), way=0.001)
        leader, follower = place.come(0, CANCELS, stream=True), place.come(1, CANCELS, stream=True)
        await asyncio.sleep(1.5)
        leader.leave()
        assert await follower.end() == "whole"
        assert follower.text == "One two."
        assert place.calls == [1, 0]
        await place.at_rest()

    @in_virtual_time
    async def test_when_the_last_of_these_leaves_it_is_given_up(self) -> None:
        place = Replicas([after(50.0), *answer("Never.")], way=0.001, drain=3.0)
        leader, follower = place.come(0, CANCELS), place.come(1, CANCELS)
        await asyncio.sleep(0.5)
        leader.leave()
        await asyncio.sleep(0.5)
        assert place.houses[0].scripted.open == 1
        follower.leave()
        await place.at_rest()
        assert clock() < 2.0

    @in_virtual_time
    async def test_who_leaves_while_it_asks_leaves_nothing_to_wait_for(self) -> None:
        place = Replicas(slow(), way=0.2)
        first = place.come(0, CANCELS)
        await asyncio.sleep(0.1)
        first.leave()
        await asyncio.sleep(1.0)
        second = place.come(1, CANCELS)
        assert await second.end() == "whole"
        assert second.seconds < 1.0
        assert place.calls == [0, 1]

    @in_virtual_time
    async def test_a_follower_that_died_is_waited_for_no_longer_than_its_lease(self) -> None:
        place = Replicas([after(100.0), *answer("Never.")], way=0.001, follower_patience=60.0)
        leader, follower = place.come(0, CANCELS), place.come(1, CANCELS)
        await asyncio.sleep(0.5)
        place.wires[1].cut = True
        leader.leave()
        await place.houses[0].at_rest()
        assert 5.0 < clock() < 10.0
        follower.leave()


class TestWhatBreaks:
    @in_virtual_time
    async def test_without_the_relay_each_replica_answers_by_itself_at_once(self) -> None:
        place = Replicas(slow())
        for wire in place.wires:
            wire.cut = True
        readers = [place.come(number % 2) for number in range(6)]
        assert await ends(*readers) == ["whole"] * 6
        assert place.calls == [1, 1]
        assert {reader.seconds for reader in readers} == {1.0}

    @in_virtual_time
    async def test_when_it_is_lost_before_the_first_part_who_followed_answers_by_itself(self) -> None:
        place = Replicas(slow("One ", "two."), way=0.001)
        readers = [place.come(at, stream=True) for at in (0, 1)]
        await asyncio.sleep(0.5)
        for wire in place.wires:
            wire.cut = True
        assert await ends(*readers) == ["whole"] * 2
        assert place.calls == [1, 1]
        await place.at_rest()

    @in_virtual_time
    async def test_when_it_is_lost_in_the_middle_who_reads_a_stream_is_told_so_and_others_answer_by_themselves(
        self,
    ) -> None:
        place = Replicas(slow("One ", "two."), [after(0.1), *answer("Mine.")], slow("One "), count=3, way=0.001)
        leader, whole, streamed = place.come(0, stream=True), place.come(1), place.come(2, stream=True)
        await asyncio.sleep(1.5)
        for wire in place.wires:
            wire.cut = True
        assert await ends(leader, whole, streamed) == ["whole", "whole", "stream_interrupted"]
        assert (leader.text, whole.text, streamed.text) == ("One two.", "Mine.", "One ")
        assert place.calls == [1, 1, 0]

    @in_virtual_time
    async def test_a_short_break_is_not_noticed(self) -> None:
        place = Replicas(slow("One ", "two ", "three."), way=0.001)
        leader, follower = place.come(0, stream=True), place.come(1, stream=True)
        await asyncio.sleep(1.5)
        for wire in place.wires:
            wire.cut = True
        await asyncio.sleep(3.0)
        for wire in place.wires:
            wire.cut = False
        assert await ends(leader, follower) == ["whole"] * 2
        assert follower.text == "One two three."

    @in_virtual_time
    async def test_when_a_leader_dies_before_the_first_part_one_of_the_others_takes_over(self) -> None:
        place = Replicas([after(1_000.0)], slow(), slow(), slow(), count=4, way=0.001)
        dying = place.come(0)
        await asyncio.sleep(0.1)
        others = [place.come(at, stream=bool(at % 2)) for at in (1, 2, 3)]
        await asyncio.sleep(0.1)
        place.wires[0].cut = True
        assert await ends(*others) == ["whole"] * 3
        assert sum(place.calls[1:]) == 1
        assert max(reader.seconds for reader in others) < 7.0
        dying.leave()

    @in_virtual_time
    async def test_when_a_patient_follower_finds_the_leader_gone_it_takes_over(self) -> None:
        place = Replicas([after(1_000.0)], slow(), slow(), count=3, way=0.001, follower_patience=60.0)
        dying = place.come(0)
        await asyncio.sleep(0.1)
        others = [place.come(at) for at in (1, 2)]
        await asyncio.sleep(0.1)
        place.wires[0].cut = True
        assert await ends(*others) == ["whole"] * 2
        assert sum(place.calls[1:]) == 1
        assert max(reader.seconds for reader in others) < 14.0
        dying.leave()

    @in_virtual_time
    async def test_when_it_dies_after_the_first_part_who_was_given_it_is_told_so(self) -> None:
        place = Replicas([*slow("One ")[:2], after(1_000.0)], slow(), way=0.001)
        dying, follower = place.come(0, stream=True), place.come(1, stream=True)
        await asyncio.sleep(1.5)
        place.wires[0].cut = True
        assert await follower.end() == "stream_interrupted"
        assert follower.text == "One "
        assert follower.seconds < 13.0
        dying.leave()


class TestWhatFails:
    @in_virtual_time
    async def test_what_fails_before_the_first_part_is_tried_once_more_by_all_together(self) -> None:
        place = Replicas([after(1.0), Unavailable("down")], slow(), slow(), slow(), count=4, way=0.001)
        readers = [place.come(0)]
        await asyncio.sleep(0.1)
        readers += [place.come(at) for at in (1, 2, 3)]
        assert await ends(*readers) == ["all_deployments_failed", *["whole"] * 3]
        assert sum(place.calls[1:]) == 1
        await place.at_rest()

    @in_virtual_time
    async def test_and_then_each_replica_tries_for_itself(self) -> None:
        down = [after(3.0), Unavailable("down")]
        place = Replicas([after(1.0), Unavailable("down")], down, down, down, count=4, way=0.001)
        readers = [place.come(0)]
        await asyncio.sleep(0.1)
        readers += [place.come(at) for at in (1, 2, 3)]
        await asyncio.sleep(1.5)
        assert sum(place.calls) == 2
        assert await ends(*readers) == ["all_deployments_failed"] * 4
        assert place.calls == [1, 1, 1, 1]

    @in_virtual_time
    async def test_a_request_that_is_wrong_is_refused_to_all_by_one_call(self) -> None:
        wrong = [after(1.0), Rejected("No such tool.", status=422, param="tools", code="bad_tool")]
        place = Replicas(wrong, count=4)
        readers = [place.come(at) for at in range(4)]
        assert await ends(*readers) == ["bad_tool"] * 4
        assert sum(place.calls) == 1
        bodies = [reader.error.body() for reader in readers if reader.error]
        assert bodies == [bodies[0]] * 4
        assert {(type(reader.error), reader.error.status) for reader in readers if reader.error} == {(Rejected, 422)}

    @in_virtual_time
    async def test_a_leaders_own_budget_concerns_nobody_else(self) -> None:
        place = Replicas(slow())
        await place.houses[0].allow("user:acme/poor", 0)
        await place.houses[1].allow("user:acme/poor", 0)
        poor = place.come(0, wishes=Wishes(user="poor"))
        rich = place.come(1)
        assert await ends(poor, rich) == ["budget_exceeded", "whole"]
        await place.at_rest()

    @in_virtual_time
    async def test_an_answer_that_breaks_off_breaks_off_for_all_who_have_a_part_of_it(self) -> None:
        broken = [*slow("One ")[:2], after(2.0), Unavailable("cut off")]
        place = Replicas(broken, slow(), slow("Mine."), count=3, way=0.001)
        leader, streamed, whole = place.come(0, stream=True), place.come(1, stream=True), place.come(2)
        assert await ends(leader, streamed, whole) == ["stream_interrupted", "stream_interrupted", "whole"]
        assert (leader.text, streamed.text) == ("One ", "One ")


class TestWhoPays:
    @pytest.mark.parametrize(
        ("shares", "percent", "owed"),
        [("leader", 0, 0), ("leader", 50, PRICE // 2), ("each", 0, PRICE), ("split", 0, 0), ("split", 50, PRICE // 2)],
    )
    @pytest.mark.parametrize("stream", [False, True])
    @in_virtual_time
    async def test_a_follower_owes_what_one_in_the_same_process_would(
        self, shares: Any, percent: int, owed: int, stream: bool
    ) -> None:
        """Only where callers split the price each process is for itself: followers elsewhere owe what a hit costs."""
        place = Replicas(slow(), count=4)
        by = caller(shares=shares, hit_percent=percent)
        readers = [place.come(at, by, stream=stream) for at in range(4)]
        await ends(*readers)
        await place.at_rest()
        bills = []
        for house in place.houses:
            (row,) = await house.ledger.usage(UsageQuery(group_by=("source",)))
            bills.append((row.group["source"], row.cost, row.billed))
        assert bills == [("live", PRICE, PRICE), *[("coalesced", 0, owed)] * 3]
        assert [reader.reply.saved for reader in readers[1:] if reader.reply] == [PRICE] * 3

    @pytest.mark.parametrize("stream", [False, True])
    @in_virtual_time
    async def test_who_shares_a_price_in_one_process_holds_nothing_for_one_that_is_paid_in_another(
        self, stream: bool
    ) -> None:
        place = Replicas(slow("Hello.", "And good-bye."), count=2)
        for house in place.houses:
            for user in ("ann", "bob", "cid"):
                await house.allow(f"user:acme/{user}", 1_000_000)
        by = caller(shares="split", rpm=1_000, concurrency=1_000)
        leader = place.come(0, by, stream=stream)
        await asyncio.sleep(0.1)
        others = [
            place.come(1, by, Wishes(user=user), stream=stream, text=text)
            for user, text in (("ann", PARCEL[0]), ("bob", PARCEL[0]), ("cid", PARCEL[1]))
        ]
        await asyncio.sleep(1.2)
        assert place.houses[1].ledger.open_reservations() == 0
        assert await ends(leader, *others) == ["whole"] * 4
        await place.at_rest()
        assert [reader.source for reader in others] == ["coalesced", "coalesced", "coalesced-semantic"]
        assert place.calls == [1, 0]
        (ours,), (theirs,) = [await house.ledger.usage(UsageQuery()) for house in place.houses]
        assert ours.billed == ours.cost > 0
        assert (theirs.billed, theirs.cost) == (0, 0)


@pytest.fixture(params=["redis_server", "redis_cluster"])
async def relays(request: pytest.FixtureRequest, redis_prefix: str) -> AsyncIterator[list[RedisRelay]]:
    """Those of four replicas, over a server and over a cluster."""
    url, cluster = request.getfixturevalue(request.param).url, request.param == "redis_cluster"
    opened = [Redis(url, cluster=cluster, prefix=redis_prefix, timeout=PATIENT) for _ in range(4)]
    made = [RedisRelay(redis, f"replica-{number}") for number, redis in enumerate(opened)]
    yield made
    for relay, redis in zip(made, opened, strict=True):
        await relay.close()
        await redis.close()


class TestOverRedis:
    async def test_identical_requests_on_four_replicas_make_one_call(self, relays: list[RedisRelay]) -> None:
        first, rest = asyncio.Event(), asyncio.Event()
        events = answer("Good ", "day.")
        place = Replicas([first, events[0], rest, *events[1:]], relays=relays)
        readers = [place.come(number % 4, ANYBODY, stream=number // 4 != 1) for number in range(12)]
        await until(lambda: sum(len(wire.logs) for wire in place.wires) == 4)
        first.set()
        streaming = readers[:4] + readers[8:]
        await until(lambda: all(reader.text == "Good " for reader in streaming))
        late = [place.come(at, ANYBODY, stream=True) for at in range(4)]
        await until(lambda: all(reader.text == "Good " for reader in late))
        rest.set()
        assert await ends(*readers, *late) == ["whole"] * 16
        assert {reader.text for reader in readers + late} == {"Good day."}
        await place.at_rest()
        assert sum(place.calls) == 1
        rows = [row for house in place.houses for row in await house.ledger.usage(UsageQuery(group_by=("source",)))]
        assert {row.group["source"] for row in rows} == {"live", "coalesced"}
        assert sum(row.requests for row in rows) == 16
        assert sum(row.billed for row in rows) == sum(row.cost for row in rows) == 10 * 1_000 + 2 * 2_000

    async def test_followers_keep_what_its_own_callers_have_left_and_when_they_leave_it_ends(
        self, relays: list[RedisRelay]
    ) -> None:
        begin, never = asyncio.Event(), asyncio.Event()
        place = Replicas([begin, answer("One ")[0], never], relays=relays)
        leader = place.come(0, CANCELS, stream=True)
        await until(lambda: place.calls[0] == 1)
        followers = [place.come(at, CANCELS, stream=True) for at in (1, 2, 3)]
        await until(lambda: sum(len(wire.logs) for wire in place.wires) == 4)
        begin.set()
        await until(lambda: all(reader.text == "One " for reader in followers))
        leader.leave()
        followers[0].leave()
        await asyncio.gather(leader.task, followers[0].task, return_exceptions=True)
        assert place.houses[0].scripted.open == 1
        for reader in followers[1:]:
            reader.leave()
        await until(lambda: place.houses[0].scripted.open == 0)
        await place.at_rest()
        assert place.calls == [1, 0, 0, 0]

    async def test_a_miss_that_leads_waits_for_one_round_trip(self, relays: list[RedisRelay]) -> None:
        done = asyncio.Event()
        place = Replicas([done, *answer("Hello.")], relays=relays)
        redis, heard = relays[0]._redis, asyncio.Event()
        relays[0].hear("nothing", heard.set)
        reader = place.come(0)
        await until(lambda: place.calls[0] == 1 and heard.is_set())
        await redis.probe()  # what the subscription's beginning led to is over
        other = place.come(0, text=REFUND[0])
        before = redis.round_trips
        await until(lambda: place.calls[0] == 2)
        assert redis.round_trips == before + 1
        done.set()
        assert await ends(reader, other) == ["whole"] * 2
