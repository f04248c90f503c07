"""Flights that fail, hang, grow old or bring what is for nobody else: what becomes of those who had joined them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headgate.cache.cache import Entry
from headgate.cache.memory import MemoryStore
from headgate.coalesce.apart import KEEP
from headgate.coalesce.coalesce import LONGEST, OLDEST
from headgate.coalesce.sharing import Sharing
from headgate.coalesce.starts import MOST, SPREAD, Starts
from headgate.model.errors import GatewayError, Rejected, Unavailable
from headgate.model.tenancy import Principal, Wishes
from headgate.providers.scripted import answer
from tests.crowds import PARCEL, Crowd, Meanings, Noting, Reader
from tests.scenarios.house import caller
from tests.virtual_time import after, in_virtual_time

QUESTION = PARCEL[0]
NEVER = 100_000.0


class SlowStore(MemoryStore):
    """A store that takes five seconds to keep an answer."""

    async def put(self, entry: Entry, *, epoch: int) -> bool:
        await asyncio.sleep(5)
        return await super().put(entry, epoch=epoch)


def crowd(*scripts: Any, **more: Any) -> Crowd:
    """One that shares what is the same to the letter, and nothing else."""
    return Crowd(*scripts, **{"embedder": None, **more})


async def ends(readers: list[Reader]) -> set[str]:
    return {await reader.end() for reader in readers}


class TestPatience:
    @pytest.mark.parametrize("stream", [True, False])
    @in_virtual_time
    async def test_followers_of_a_call_that_says_nothing_start_over_together_after_five_seconds(
        self, stream: bool
    ) -> None:
        house = crowd([asyncio.Event()], [after(6), *answer("Hello.")])
        leader = house.come(QUESTION, stream=stream)
        followers = [house.come(QUESTION, stream=stream) for _ in range(20)]
        assert await ends(followers) == {"whole"}
        assert {reader.text for reader in followers} == {"Hello."}
        assert {reader.seconds for reader in followers} == {6.0}
        assert house.asked == [QUESTION] * 2
        assert sorted(reader.source for reader in followers) == ["coalesced"] * 19 + ["live"]
        leader.leave()
        await house.at_rest()

    @in_virtual_time
    async def test_the_five_seconds_count_from_when_a_follower_comes_whatever_else_it_hears(self) -> None:
        """That the call is about to be made, and what it may cost, is no part of an answer. The sixth is that of its own vector."""
        house = crowd([asyncio.Event()], answer("Hello."), embedder=Meanings(1.0))
        house.come(QUESTION, caller(shares="split"))
        follower = house.come(QUESTION, caller(shares="split"))
        assert (await follower.end(), follower.seconds) == ("whole", 6.0)

    @in_virtual_time
    async def test_a_call_in_which_a_part_has_come_is_not_given_up_however_long_the_next_one_takes(self) -> None:
        one, two, *rest = answer("One ", "two.")
        house = crowd([one, after(50), two, *rest])
        readers = [house.come(QUESTION, stream=True) for _ in range(3)]
        assert await ends(readers) == {"whole"}
        assert {(reader.text, reader.seconds) for reader in readers} == {("One two.", 50.0)}
        assert len(house.asked) == 1

    @in_virtual_time
    async def test_a_caller_may_have_less_patience_or_more(self) -> None:
        house = crowd([after(8), *answer("Slow.")], [after(0.2), *answer("Quick.")])
        house.come(QUESTION)
        hasty, usual, calm = [house.come(QUESTION, wishes=Wishes(patience=patience)) for patience in (0.5, None, NEVER)]
        assert await ends([hasty, usual, calm]) == {"whole"}
        assert (hasty.text, hasty.seconds) == ("Quick.", 0.5)
        assert (usual.text, usual.source, usual.seconds) == ("Quick.", "exact", 5.0)
        assert (calm.text, calm.source, calm.seconds) == ("Slow.", "coalesced", 8.0)

    @in_virtual_time
    async def test_the_callers_own_timeout_comes_before_its_patience(self) -> None:
        house = crowd([after(8), *answer("Slow.")])
        leader = house.come(QUESTION)
        follower = house.come(QUESTION, wishes=Wishes(timeout=2.0))
        assert (await follower.end(), follower.seconds) == ("upstream_timeout", 2.0)
        assert await leader.end() == "whole"
        assert len(house.asked) == 1

    @in_virtual_time
    async def test_whole_answers_are_waited_for_as_long_as_those_of_the_route_usually_take(self) -> None:
        house = crowd([after(20), *answer("One.")], [after(40), *answer("Two.")], [asyncio.Event()])
        assert await house.come("The first question").end() == "whole"
        readers = [house.come(QUESTION) for _ in range(5)]
        assert await ends(readers) == {"whole"}
        assert {reader.seconds for reader in readers} == {20.0}, "twenty seconds are nothing unusual here"
        assert len(house.asked) == 2

    @in_virtual_time
    async def test_a_stream_has_to_begin_within_five_seconds_whatever_whole_answers_take(self) -> None:
        house = crowd([after(20), *answer("One.")], [asyncio.Event()], [after(26), *answer("Two.")])
        assert await house.come("The first question").end() == "whole"
        house.come(QUESTION, stream=True)
        follower = house.come(QUESTION, stream=True)
        assert (await follower.end(), follower.text, follower.seconds) == ("whole", "Two.", 6.0)

    @in_virtual_time
    async def test_when_the_second_call_says_nothing_either_each_makes_one_of_its_own(self) -> None:
        house = crowd([asyncio.Event()], [asyncio.Event()], answer("Hello."), flights={"starts": Starts()})
        readers = [house.come(QUESTION, wishes=Wishes(cache="no-cache")) for _ in range(12)]
        leader, second, *others = readers
        assert await ends(others) == {"whole"}
        assert {reader.source for reader in others} == {"live"}
        assert all(10.0 + SPREAD <= reader.seconds <= 10.0 + 2 * SPREAD for reader in others)
        assert leader.ends == second.ends == []


class TestWhoIsNotJoined:
    @in_virtual_time
    async def test_a_call_that_is_old_is_not_joined_and_the_next_one_is(self) -> None:
        one, *rest = answer("Hello.")
        house = crowd([one, after(OLDEST + 20), *rest])
        first = house.come(QUESTION, stream=True)
        await asyncio.sleep(OLDEST)
        young = house.come(QUESTION, stream=True)
        await asyncio.sleep(0.001)
        late, later = house.come(QUESTION, stream=True), house.come(QUESTION, stream=True)
        assert await ends([first, young, late, later]) == {"whole"}
        assert [reader.source for reader in (first, young, late, later)] == ["live", "coalesced", "live", "coalesced"]
        await house.at_rest()

    @in_virtual_time
    async def test_a_call_that_has_said_much_is_not_joined(self) -> None:
        much, *rest = answer("a" * LONGEST, "b")
        house = crowd([much, after(2), *rest], answer("Another."))
        first = house.come(QUESTION, stream=True)
        await asyncio.sleep(1)
        late = house.come(QUESTION, stream=True)
        assert await ends([first, late]) == {"whole"}
        assert late.source == "live"

    @in_virtual_time
    async def test_an_answer_that_is_whole_and_not_in_stock_yet_is_joined_however_long_and_old_it_is(self) -> None:
        house = crowd(
            [after(70), *answer("a" * 300, "b")],
            answer("Another."),
            flights={"longest": 200},
            store=SlowStore(now=lambda: 0.0),
        )
        first = house.come(QUESTION)
        await first.task
        await asyncio.sleep(1)
        late = house.come(QUESTION)
        assert (await late.end(), late.source) == ("whole", "coalesced")
        assert len(house.asked) == 1
        await house.at_rest()

    @in_virtual_time
    async def test_no_more_follow_than_are_allowed_and_the_next_ones_share_another_call(self) -> None:
        house = crowd([after(1), *answer("Hello.")], flights={"max_followers": 4})
        readers = [house.come(QUESTION) for _ in range(15)]
        assert await ends(readers) == {"whole"}
        assert len(house.asked) == 3

    @in_virtual_time
    async def test_a_call_that_is_given_up_is_not_joined(self) -> None:
        house = crowd([asyncio.Event()], answer("Hello."))
        first = house.come(QUESTION, caller(abandoned="cancel"))
        await asyncio.sleep(1)
        first.leave()
        await asyncio.sleep(0)
        next_one = house.come(QUESTION, caller(abandoned="cancel"))
        assert (await next_one.end(), next_one.source) == ("whole", "live")
        await house.at_rest()


class TestAnswersThatAreForNobodyElse:
    @in_virtual_time
    async def test_a_question_whose_answer_was_cut_off_is_not_waited_for_again_for_two_minutes(self) -> None:
        house = crowd([after(1), *answer("Cut", finish="length")])
        together = [house.come(QUESTION) for _ in range(3)]
        assert await ends(together) == {"whole"}
        assert len(house.asked) == 1
        await house.flown()
        apart = [house.come(QUESTION) for _ in range(3)]
        assert await ends(apart) == {"whole"}
        assert {reader.source for reader in apart} == {"live"}
        assert len(house.asked) == 4
        other = [house.come("Something else?") for _ in range(3)]
        await ends(other)
        assert len(house.asked) == 5, "another question is shared"
        await house.flown()

    @in_virtual_time
    async def test_it_is_shared_again_when_that_time_is_over(self) -> None:
        house = crowd([after(1), *answer("Cut", finish="length")])
        await house.come(QUESTION).end()
        await house.flown()
        await asyncio.sleep(KEEP)
        again = [house.come(QUESTION) for _ in range(3)]
        assert await ends(again) == {"whole"}
        assert len(house.asked) == 2

    @in_virtual_time
    async def test_another_tenants_question_is_not_apart(self) -> None:
        house = crowd([after(1), *answer("Cut", finish="length")])
        await house.come(QUESTION).end()
        await house.flown()
        other = [house.come(QUESTION, Principal(tenant="bolt")) for _ in range(3)]
        assert await ends(other) == {"whole"}
        assert len(house.asked) == 2

    @in_virtual_time
    async def test_a_whole_answer_sets_nobody_apart(self) -> None:
        house = crowd([after(1), *answer("Hello.")])
        await house.come(QUESTION, wishes=Wishes(cache="no-cache")).end()
        await house.flown()
        again = [house.come(QUESTION, wishes=Wishes(cache="no-cache")) for _ in range(3)]
        assert await ends(again) == {"whole"}
        assert len(house.asked) == 2


class TestTheLeaderDecidesNothing:
    @pytest.mark.parametrize("abandoned", ["finish", "cancel"])
    @pytest.mark.parametrize("at", [0.0, 0.5, 1.5])
    @in_virtual_time
    async def test_by_hanging_up(self, abandoned: str, at: float) -> None:
        one, *rest = answer("One ", "two.")
        house = crowd([after(1), one, after(2), *rest])
        who = caller(abandoned=abandoned)
        leader = house.come(QUESTION, who, stream=True)
        followers = [house.come(QUESTION, who, stream=stream) for stream in (True, False)]
        await asyncio.sleep(at)
        leader.leave()
        assert await ends(followers) == {"whole"}
        assert {reader.text for reader in followers} == {"One two."}
        assert len(house.asked) == 1
        await house.at_rest()

    @in_virtual_time
    async def test_by_its_timeout(self) -> None:
        house = crowd([after(3), *answer("Hello.")])
        leader = house.come(QUESTION, wishes=Wishes(timeout=1.0))
        follower = house.come(QUESTION)
        assert (await leader.end(), leader.seconds) == ("upstream_timeout", 1.0)
        assert (await follower.end(), follower.source) == ("whole", "coalesced")

    @in_virtual_time
    async def test_by_its_budget(self) -> None:
        house = crowd([after(1), *answer("Hello.")])
        await house.allow("user:acme/ann", 0)
        leader = house.come(QUESTION, wishes=Wishes(user="ann"))
        followers = [house.come(QUESTION, wishes=Wishes(user=f"bob-{number}")) for number in range(5)]
        assert await leader.end() == "budget_exceeded"
        assert await ends(followers) == {"whole"}
        assert len(house.asked) == 1
        await house.at_rest()

    @in_virtual_time
    async def test_those_who_have_the_same_budget_as_the_leader_are_refused_and_no_call_is_made(self) -> None:
        house = crowd()
        await house.allow("tenant:acme", 0)
        readers = [house.come(QUESTION) for _ in range(5)]
        assert await ends(readers) == {"budget_exceeded"}
        assert house.asked == []
        await house.at_rest()

    @in_virtual_time
    async def test_what_the_provider_says_of_the_request_itself_is_said_to_all_who_made_it_and_asked_once(self) -> None:
        house = crowd([after(1), Rejected("against our rules", status=400, code="content_policy_violation")])
        readers = [house.come(QUESTION) for _ in range(5)]
        assert await ends(readers) == {"content_policy_violation"}
        assert len(house.asked) == 1


class TestFailure:
    @pytest.mark.parametrize("stream", [True, False])
    @in_virtual_time
    async def test_before_the_first_part_all_followers_share_one_more_call(self, stream: bool) -> None:
        house = crowd([after(1), Unavailable("down")], [after(2), *answer("Hello.")])
        leader = house.come(QUESTION, stream=stream)
        followers = [house.come(QUESTION, stream=stream) for _ in range(30)]
        assert await leader.end() == "all_deployments_failed"
        assert await ends(followers) == {"whole"}
        assert {(reader.text, reader.seconds) for reader in followers} == {("Hello.", 2.0)}
        assert len(house.asked) == 2
        await house.at_rest()

    @in_virtual_time
    async def test_if_that_fails_too_each_follower_calls_for_itself_and_no_more_than_a_few_start_at_once(self) -> None:
        """A thousand of them: the bound holds of every stretch of time, and no two wait the same time."""
        provider = Noting([after(1), Unavailable("down")], [after(2), Unavailable("down")], answer("Hello."))
        house = crowd(providers={"one": provider}, flights={"starts": Starts(), "max_followers": 2_000})
        everyone = caller(rpm=100_000, concurrency=100_000)
        no_stock = Wishes(cache="no-cache")
        leader = house.come(QUESTION, everyone, no_stock)
        followers = [house.come(QUESTION, everyone, no_stock) for _ in range(1_001)]
        assert await leader.end() == "all_deployments_failed"
        outcomes = [await reader.end() for reader in followers]
        assert outcomes.count("all_deployments_failed") == 1, "who led the second call has had what it paid for"
        assert outcomes.count("whole") == 1_000
        alone = provider.times[2:]
        assert len(alone) == 1_000
        assert max(sum(0 <= other - first < SPREAD - 1e-9 for other in alone) for first in alone) <= MOST
        assert len(set(alone)) > 990
        assert house.ledger.open_reservations() == 0

    @in_virtual_time
    async def test_an_answer_that_came_into_stock_meanwhile_is_taken_from_there(self) -> None:
        house = crowd(
            [after(1), Unavailable("down")],
            [after(2), Unavailable("down")],
            answer("Hello."),
            flights={"starts": Starts()},
        )
        readers = [house.come(QUESTION, caller(concurrency=1_000)) for _ in range(102)]
        outcomes = [await reader.end() for reader in readers]
        assert outcomes.count("whole") == 100
        assert len(house.asked) <= 2 + MOST
        await house.at_rest()

    @in_virtual_time
    async def test_after_the_first_part_everyone_who_was_given_it_is_told_that_it_broke_off(self) -> None:
        one, *_ = answer("One ", "two.")
        house = crowd([after(1), one, after(2), Unavailable("gone")])
        readers = [house.come(QUESTION, stream=True) for _ in range(10)]
        assert await ends(readers) == {"stream_interrupted"}
        assert {reader.text for reader in readers} == {"One "}
        assert len(house.asked) == 1
        await house.at_rest()
        again = house.come(QUESTION, stream=True)
        await again.end()
        assert len(house.asked) == 2, "what broke off is not kept"

    @in_virtual_time
    async def test_the_failed_call_is_paid_by_its_leader_and_the_second_by_who_led_that(self) -> None:
        one, *_ = answer("One ")
        house = crowd([one, Unavailable("gone")], answer("Hello."))
        broken = [house.come(QUESTION, stream=True) for _ in range(3)]
        assert await ends(broken) == {"stream_interrupted"}
        costs = [reader.reply.cost for reader in broken if reader.reply is not None]
        assert costs[0] > 0
        assert costs[1:] == [0, 0]
        assert await house.settled() == costs[0]


class TestClosing:
    @in_virtual_time
    async def test_followers_of_a_call_that_is_cut_short_by_the_end_are_told_so_and_leave_it_once(self) -> None:
        house = crowd([asyncio.Event()])
        readers = [house.come(QUESTION) for _ in range(5)]
        await asyncio.sleep(1)
        flight = readers[0].reply._flight  # type: ignore[union-attr]
        assert flight.readers == 5
        await house.gateway.flights.drain(0.5)
        assert await ends(readers) == {"overloaded"}
        assert flight.readers == 0
        await house.at_rest()

    @in_virtual_time
    async def test_an_impatient_follower_that_cannot_start_over_does_not_take_another_readers_place(self) -> None:
        house = crowd([after(4), *answer("Hello.")])
        patient = house.come(QUESTION, caller(abandoned="cancel"), Wishes(patience=NEVER))
        calm = house.come(QUESTION, caller(abandoned="cancel"), Wishes(patience=NEVER))
        hasty = house.come(QUESTION, caller(abandoned="cancel"), Wishes(patience=2.0))
        await asyncio.sleep(1)
        patient.leave()
        closing = asyncio.create_task(house.gateway.flights.drain(10.0))
        assert await hasty.end() == "overloaded"
        assert (await calm.end(), calm.text) == ("whole", "Hello.")
        await closing

    @in_virtual_time
    async def test_a_call_that_comes_too_late_is_recorded_all_the_same(self) -> None:
        house = crowd()
        await house.gateway.flights.drain(0.0)
        late = house.come(QUESTION)
        assert await late.end() == "overloaded"
        assert late.error is not None
        assert [(record.id, record.status) for record in house.notes.records] == [(late.error.request_id, 503)]


class TestWhoSharesNothing:
    @pytest.mark.parametrize(
        ("sharing", "policy", "wishes"),
        [
            (Sharing(mode="off"), {}, Wishes()),
            (Sharing(routes={"auto": "off"}), {}, Wishes()),
            (Sharing(), {"coalesce": "off"}, Wishes()),
            (Sharing(), {}, Wishes(coalesce="off")),
        ],
    )
    @in_virtual_time
    async def test_where_anybody_says_so_each_makes_its_own_call(
        self, sharing: Sharing, policy: dict[str, Any], wishes: Wishes
    ) -> None:
        house = crowd([after(1), *answer("Hello.")], sharing=sharing)
        readers = [house.come(QUESTION, caller(**policy), wishes) for _ in range(3)]
        assert await ends(readers) == {"whole"}
        assert len(house.asked) == 3

    @in_virtual_time
    async def test_who_asks_only_for_what_is_cached_waits_for_nobody(self) -> None:
        house = crowd([after(1), *answer("Hello.")])
        asking = house.come(QUESTION)
        await asyncio.sleep(0.5)
        only = house.come(QUESTION, wishes=Wishes(cache="only-if-cached"))
        assert (await only.end(), only.seconds) == ("not_cached", 0.0)
        assert await asking.end() == "whole"

    @in_virtual_time
    async def test_an_error_is_each_callers_own(self) -> None:
        """All are told the same; the id under which they ask about it differs."""
        house = crowd([after(1), Rejected("no")])
        readers = [house.come(QUESTION) for _ in range(3)]
        await ends(readers)
        told: list[GatewayError] = [reader.error for reader in readers if reader.error is not None]
        assert {error.request_id for error in told} == {None}
        assert len({reader.reply.id for reader in readers if reader.reply is not None}) == 3
