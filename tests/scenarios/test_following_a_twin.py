"""Who asks the same in other words follows the call that is under way: what it gets, when it calls for itself, and who never meets."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from headgate.cache.cache import Selection
from headgate.cache.treatment import CachePolicy, RoutePolicy
from headgate.coalesce.sharing import Sharing
from headgate.coalesce.starts import MOST, SPREAD, Starts
from headgate.model.chat import Delta, Event
from headgate.model.errors import Rejected, Unavailable
from headgate.model.tenancy import CacheTerms, Principal, Wishes
from headgate.providers.scripted import Step, answer
from tests.crowds import PARCEL, REFUND, Crowd, Noting, Reader
from tests.scenarios.house import CALLER, caller
from tests.virtual_time import after, clock, in_virtual_time

FIRST, SECOND, *_ = PARCEL
NEVER = 100_000.0


def delta(text: str | None = None, finish: str | None = None, **more: Any) -> Event:
    said = {"content": text, **more} if text else more
    return Delta([{"index": 0, "delta": said, "finish_reason": finish}])


def broken(kind: str) -> list[Step]:
    """An answer that is for nobody but who asked for it."""
    if kind == "cut off":
        return [*answer("Hel", finish="length")]
    if kind == "refused":
        return [*answer("I would ", finish="content_filter")]
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "track", "arguments": "{}"}}
    done = answer("x")[-1]
    return [delta("Let me look. "), delta(finish="tool_calls", tool_calls=[call]), done]


FOR_NOBODY = pytest.mark.parametrize("kind", ["cut off", "refused", "calls a tool"])


async def ends(readers: list[Reader]) -> set[str]:
    return {await reader.end() for reader in readers}


class TestWhoFollows:
    @pytest.mark.parametrize("streams", [(True, False), (False, True), (True, True), (False, False)])
    @in_virtual_time
    async def test_gets_the_answer_of_the_call_under_way_in_its_own_form(self, streams: tuple[bool, bool]) -> None:
        one, *rest = answer("One ", "two.")
        house = Crowd([after(1), one, after(2), *rest])
        readers = [house.come(text, stream=stream) for text, stream in zip(PARCEL, streams, strict=False)]
        assert await ends(readers) == {"whole"}
        assert [(reader.text, reader.seconds) for reader in readers] == [("One two.", 2.0)] * 2
        assert [reader.source for reader in readers] == ["live", "coalesced-semantic"]
        assert house.asked == [FIRST]
        await house.at_rest()

    @in_virtual_time
    async def test_may_come_late_and_reads_what_was_said_before(self) -> None:
        one, *rest = answer("One ", "two.")
        house = Crowd([one, after(10), *rest])
        leader = house.come(FIRST, stream=True)
        await asyncio.sleep(8)
        late = house.come(SECOND, stream=True)
        await asyncio.sleep(1)
        assert late.text == "One "
        assert await ends([leader, late]) == {"whole"}
        assert late.events == leader.events

    @in_virtual_time
    async def test_has_followers_of_its_own_in_either_form(self) -> None:
        one, *rest = answer("One ", "two.")
        house = Crowd([after(1), one, after(2), *rest])
        readers = [house.come(text, stream=stream) for text in PARCEL for stream in (False, True, True)]
        assert await ends(readers) == {"whole"}
        assert {reader.text for reader in readers} == {"One two."}
        sources = [reader.source for reader in readers]
        assert (sources[0], set(sources[1:3]), set(sources[3:])) == ("live", {"coalesced"}, {"coalesced-semantic"})
        assert house.asked == [FIRST]
        await house.at_rest()

    @in_virtual_time
    async def test_a_reader_in_parts_that_comes_to_a_following_call_late_reads_all_of_it(self) -> None:
        one, two, *rest = answer("One ", "two.")
        house = Crowd([one, after(2), two, after(4), *rest])
        house.come(FIRST, stream=True)
        whole = house.come(SECOND)
        await asyncio.sleep(3)
        parts = house.come(SECOND, stream=True)
        await asyncio.sleep(0)
        await asyncio.sleep(0.5)
        assert parts.text == "One two."
        assert await ends([whole, parts]) == {"whole"}
        assert whole.text == parts.text
        assert len(house.asked) == 1

    @in_virtual_time
    async def test_pays_nothing_and_its_row_says_what_was_saved(self) -> None:
        house = Crowd([after(1), *answer("Hello.")])
        readers = [house.come(text) for text in PARCEL]
        await ends(readers)
        await house.at_rest()
        live, *others = sorted(house.notes.records, key=lambda record: record.cost, reverse=True)
        assert [record.cost for record in others] == [0, 0, 0]
        assert {record.saved for record in others} == {live.cost} == {await house.settled()}
        rows = {row.group["source"]: row.requests for row in await house.journal("source")}
        assert rows == {"live": 1, "coalesced-semantic": 3}

    @in_virtual_time
    async def test_its_answer_says_how_sure_that_is(self) -> None:
        house = Crowd([after(1), *answer("Hello.")])
        readers = [house.come(text) for text in PARCEL[:2]]
        await ends(readers)
        trail = readers[1].reply.trail  # type: ignore[union-attr]
        assert trail.confidence is not None
        assert 0.9 < trail.confidence < 1.0


class TestPatience:
    @pytest.mark.parametrize("stream", [True, False])
    @in_virtual_time
    async def test_who_hears_nothing_for_five_seconds_calls_for_itself(self, stream: bool) -> None:
        house = Crowd([asyncio.Event()], [after(6), *answer("Hello.")], flights={"starts": Starts()})
        leader = house.come(FIRST, stream=stream)
        twin = house.come(SECOND, stream=stream)
        assert (await twin.end(), twin.source) == ("whole", "live")
        assert 6.0 <= twin.seconds <= 6.2
        assert house.asked == [FIRST, SECOND]
        leader.leave()
        await house.flown()

    @in_virtual_time
    async def test_a_caller_may_have_less_patience(self) -> None:
        house = Crowd([after(4), *answer("Slow.")], answer("Quick."), flights={"starts": Starts()})
        leader = house.come(FIRST)
        hasty = house.come(SECOND, wishes=Wishes(patience=1.5))
        assert (await hasty.end(), hasty.text, hasty.source) == ("whole", "Quick.", "live")
        assert 1.5 <= hasty.seconds <= 1.7
        assert await leader.end() == "whole"

    @in_virtual_time
    async def test_whole_answers_are_waited_for_as_long_as_those_of_the_route_usually_take(self) -> None:
        house = Crowd([after(20), *answer("One.")], [after(40), *answer("Two.")])
        await house.come(REFUND[0]).end()
        readers = [house.come(text) for text in PARCEL]
        assert await ends(readers) == {"whole"}
        assert {reader.seconds for reader in readers} == {20.0}
        assert len(house.asked) == 2

    @in_virtual_time
    async def test_who_starts_over_does_not_go_back_to_the_call_that_it_waited_for_in_vain(self) -> None:
        """The same question, to the letter: the second call would find the first as its twin."""
        house = Crowd([asyncio.Event()], [after(6), *answer("Hello.")])
        house.come(FIRST)
        followers = [house.come(FIRST) for _ in range(20)]
        assert await ends(followers) == {"whole"}
        assert {reader.seconds for reader in followers} == {6.0}
        assert len(house.asked) == 2

    @in_virtual_time
    async def test_and_yet_others_find_and_follow_it(self) -> None:
        house = Crowd([asyncio.Event()], [after(8), *answer("Hello.")])
        house.come(FIRST)
        over = house.come(FIRST, wishes=Wishes(patience=1.0))
        await asyncio.sleep(6)
        house.gateway.flights._oldest = 5.5  # type: ignore[attr-defined]
        twin = house.come(SECOND)
        assert await ends([over, twin]) == {"whole"}
        assert (over.source, twin.source) == ("live", "coalesced-semantic")
        assert len(house.asked) == 2

    @in_virtual_time
    async def test_many_who_lose_patience_in_one_moment_do_not_start_in_one_moment(self) -> None:
        provider = Noting([asyncio.Event()], answer("Hello."))
        house = Crowd(providers={"one": provider}, flights={"starts": Starts()})
        everyone = caller(rpm=10_000, concurrency=10_000)
        house.come(FIRST, everyone)
        twins = [house.come(f"{FIRST}{'?' * number}", everyone) for number in range(1, 81)]
        assert await ends(twins) == {"whole"}
        alone = provider.times[1:]
        assert len(alone) >= MOST
        assert max(sum(0 <= other - first < SPREAD - 1e-9 for other in alone) for first in alone) <= MOST


class TestFailure:
    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize(
        "error", [Unavailable("down"), Rejected("against our rules", status=400, code="content_policy_violation")]
    )
    @in_virtual_time
    async def test_before_the_first_part_whatever_it_is_the_others_call_for_themselves(
        self, stream: bool, error: Any
    ) -> None:
        house = Crowd([after(1), error], answer("Hello."), flights={"starts": Starts()})
        leader, *twins = [house.come(text, stream=stream) for text in PARCEL[:3]]
        assert await leader.end() in ("all_deployments_failed", "content_policy_violation")
        assert await ends(twins) == {"whole"}
        assert {reader.source for reader in twins} <= {"live", "semantic"}
        await house.at_rest()

    @in_virtual_time
    async def test_after_it_a_stream_that_was_given_something_is_told_that_it_broke_off(self) -> None:
        house = Crowd([after(1), delta("One "), after(2), Unavailable("gone")], answer("Hello."))
        readers = [house.come(text, stream=True) for text in PARCEL]
        assert await ends(readers) == {"stream_interrupted"}
        assert {reader.text for reader in readers} == {"One "}
        assert len(house.asked) == 1
        await house.at_rest()

    @in_virtual_time
    async def test_and_who_was_given_nothing_calls_for_itself(self) -> None:
        house = Crowd([after(1), delta("One "), after(2), Unavailable("gone")], answer("Hello."))
        leader = house.come(FIRST, stream=True)
        twin = house.come(SECOND)
        assert (await leader.end(), await twin.end()) == ("stream_interrupted", "whole")
        assert (twin.text, twin.source) == ("Hello.", "live")
        await house.at_rest()

    @in_virtual_time
    async def test_a_stream_that_hears_of_the_parts_and_of_the_end_at_once_was_given_nothing_either(self) -> None:
        house = Crowd([after(1), delta("One "), Unavailable("gone")], answer("Hello."))
        leader, twin = house.come(FIRST, stream=True), house.come(SECOND, stream=True)
        assert (await leader.end(), await twin.end()) == ("stream_interrupted", "whole")
        assert (twin.text, twin.source) == ("Hello.", "live")

    @FOR_NOBODY
    @pytest.mark.parametrize("stream", [True, False])
    @in_virtual_time
    async def test_an_answer_that_is_for_nobody_else_is_not_given_to_who_was_given_none_of_it(
        self, kind: str, stream: bool
    ) -> None:
        house = Crowd([after(1), *broken(kind)], answer("Hello."), flights={"starts": Starts()})
        leader, twin = house.come(FIRST), house.come(SECOND, stream=stream)
        assert await ends([leader, twin]) == {"whole"}
        assert (twin.text, twin.source, house.asked) == ("Hello.", "live", [FIRST, SECOND])
        await house.at_rest()

    @FOR_NOBODY
    @in_virtual_time
    async def test_nor_when_that_turns_out_at_its_end(self, kind: str) -> None:
        first, *rest = broken(kind)
        house = Crowd([after(1), first, after(2), *rest], answer("Hello."), flights={"starts": Starts()})
        leader, twin = house.come(FIRST, stream=True), house.come(SECOND)
        assert await ends([leader, twin]) == {"whole"}
        assert (twin.text, twin.source, house.asked) == ("Hello.", "live", [FIRST, SECOND])

    @FOR_NOBODY
    @in_virtual_time
    async def test_who_was_given_some_of_it_is_given_the_rest(self, kind: str) -> None:
        first, *rest = broken(kind)
        house = Crowd([after(1), first, after(2), *rest], answer("Hello."))
        leader, twin = house.come(FIRST, stream=True), house.come(SECOND, stream=True)
        assert await ends([leader, twin]) == {"whole"}
        assert twin.events == leader.events
        assert len(house.asked) == 1

    @in_virtual_time
    async def test_those_who_follow_the_follower_hear_of_nothing(self) -> None:
        house = Crowd([after(1), Unavailable("down")], [after(2), *answer("Hello.")], flights={"starts": Starts()})
        leader = house.come(FIRST)
        twins = [house.come(SECOND) for _ in range(10)]
        assert await leader.end() == "all_deployments_failed"
        assert await ends(twins) == {"whole"}
        assert house.asked == [FIRST, SECOND]
        assert sorted(reader.source for reader in twins) == ["coalesced"] * 9 + ["live"]


class TestTheLeaderDecidesNothing:
    @pytest.mark.parametrize("abandoned", ["finish", "cancel"])
    @pytest.mark.parametrize("at", [0.5, 1.5])
    @in_virtual_time
    async def test_by_hanging_up(self, abandoned: Literal["finish", "cancel"], at: float) -> None:
        one, *rest = answer("One ", "two.")
        house = Crowd([after(1), one, after(2), *rest])
        who = caller(abandoned=abandoned)
        leader = house.come(FIRST, who, stream=True)
        twins = [house.come(SECOND, who, stream=stream) for stream in (True, False)]
        await asyncio.sleep(at)
        leader.leave()
        assert await ends(twins) == {"whole"}
        assert {reader.text for reader in twins} == {"One two."}
        assert house.asked == [FIRST]
        await house.at_rest()

    @in_virtual_time
    async def test_when_all_have_left_a_call_that_is_cancelled_is_left_by_its_followers_too(self) -> None:
        house = Crowd([delta("One "), asyncio.Event()])
        who = caller(abandoned="cancel")
        readers = [house.come(text, who, stream=True) for text in PARCEL]
        await asyncio.sleep(1)
        for reader in readers:
            reader.leave()
        await house.at_rest()
        assert clock() == 1.0

    @pytest.mark.parametrize("turns", range(20))
    @in_virtual_time
    async def test_nobody_follows_a_call_that_is_given_up(self, turns: int) -> None:
        """It is so before its task hears of it: in each turn of the loop there is the one or the other."""
        one, *rest = answer("One ", "two.")
        house = Crowd([one, after(5), *rest], answer("Hello."))
        who = caller(abandoned="cancel")
        first = house.come(FIRST, who, stream=True)
        await asyncio.sleep(1)
        twin = house.come(SECOND, who, stream=True)
        for _ in range(turns):
            await asyncio.sleep(0)
        first.reply.close()  # type: ignore[union-attr]
        assert (await twin.end(), twin.text) in {("whole", "One two."), ("whole", "Hello.")}

    @in_virtual_time
    async def test_by_its_timeout(self) -> None:
        house = Crowd([after(3), *answer("Hello.")])
        leader, twin = house.come(FIRST, wishes=Wishes(timeout=1.0)), house.come(SECOND)
        assert (await leader.end(), await twin.end()) == ("upstream_timeout", "whole")
        assert twin.source == "coalesced-semantic"

    @in_virtual_time
    async def test_by_its_budget(self) -> None:
        house = Crowd([after(1), *answer("Hello.")])
        await house.allow("user:acme/ann", 0)
        leader, twin = house.come(FIRST, wishes=Wishes(user="ann")), house.come(SECOND)
        assert (await leader.end(), await twin.end()) == ("budget_exceeded", "whole")
        assert twin.source == "live"

    @pytest.mark.parametrize("stream", [True, False])
    @in_virtual_time
    async def test_by_what_its_budget_has_left_of_an_answer(self, stream: bool) -> None:
        house = Crowd([after(1), *answer("Hel", finish="length")], answer("Hello."))
        for _ in range(50):
            house.gateway.budget.outputs.observe("acme", "auto", 10, limit=100)
        await house.allow("user:acme/ann", 100_000)
        leader, twin = house.come(FIRST, wishes=Wishes(user="ann"), stream=stream), house.come(SECOND, stream=stream)
        assert await ends([leader, twin]) == {"whole"}
        assert leader.reply is not None
        assert leader.reply.trail.personal
        assert (leader.text, twin.text, twin.source) == ("Hel", "Hello.", "live")


class TestWhoNeverMeets:
    async def apart(self, house: Crowd, one: Reader, other: Reader) -> None:
        assert await ends([one, other]) == {"whole"}
        assert len(house.asked) == 2
        assert {one.source, other.source} == {"live"}
        await house.at_rest()

    @in_virtual_time
    async def test_two_tenants(self) -> None:
        house = Crowd([after(1), *answer("Hello.")])
        await self.apart(house, house.come(FIRST), house.come(SECOND, Principal(tenant="bolt")))

    @pytest.mark.parametrize(
        ("policy", "wishes"),
        [
            ({}, Wishes(namespace="shop")),
            ({}, Wishes(coalesce="exact")),
            ({}, Wishes(coalesce="off")),
            ({}, Wishes(cache="no-cache")),
            ({}, Wishes(cache="no-store")),
            ({}, Wishes(cache="exact")),
            ({}, Wishes(strategy="bypass")),
            ({}, Wishes(max_error_rate=0.0)),
            ({}, Wishes(min_confidence=0.999)),
            ({"coalesce": "exact"}, Wishes()),
            ({"coalesce": "off"}, Wishes()),
            ({"cache": CacheTerms(mode="shadow")}, Wishes()),
            ({"cache": CacheTerms(mode="off")}, Wishes()),
        ],
    )
    @in_virtual_time
    async def test_who_does_not_want_to(self, policy: dict[str, Any], wishes: Wishes) -> None:
        house = Crowd([after(1), *answer("Hello.")])
        who = caller(**policy)
        await self.apart(house, house.come(FIRST, who), house.come(SECOND, who, wishes))

    @in_virtual_time
    async def test_who_does_not_want_to_is_followed_by_nobody_either(self) -> None:
        for wishes in (Wishes(coalesce="exact"), Wishes(cache="no-cache"), Wishes(strategy="bypass")):
            house = Crowd([after(1), *answer("Hello.")])
            await self.apart(house, house.come(FIRST, wishes=wishes), house.come(SECOND))

    @in_virtual_time
    async def test_who_wants_no_answer_by_meaning_gets_none_from_a_call_that_follows_one(self) -> None:
        """To the letter it asks what the follower asks."""
        house = Crowd([after(1), *answer("Hello.")])
        readers = [house.come(FIRST), house.come(SECOND), house.come(SECOND, wishes=Wishes(coalesce="exact"))]
        assert await ends(readers) == {"whole"}
        assert [reader.source for reader in readers] == ["live", "coalesced-semantic", "live"]

    @pytest.mark.parametrize(
        "more",
        [
            {"model": "one"},
            {"temperature": 0.1},
            {"max_tokens": 20},
            {"response_format": {"type": "json_object"}},
            {"tools": [{"type": "function", "function": {"name": "track"}}]},
        ],
    )
    @in_virtual_time
    async def test_two_that_ask_for_it_in_another_way(self, more: dict[str, Any]) -> None:
        house = Crowd([after(1), *answer("Hello.")])
        await self.apart(house, house.come(FIRST), house.come(SECOND, **more))

    @pytest.mark.parametrize(
        "before",
        [
            [{"role": "system", "content": "Answer as a pirate."}],
            [{"role": "user", "content": "I sell bicycles."}, {"role": "assistant", "content": "I see."}],
        ],
    )
    @in_virtual_time
    async def test_two_in_whose_conversations_something_else_was_said(self, before: list[dict[str, str]]) -> None:
        house = Crowd([after(1), *answer("Hello.")])
        other = house.come(SECOND, messages=[*before, {"role": "user", "content": SECOND}])
        await self.apart(house, house.come(FIRST), other)

    @in_virtual_time
    async def test_two_between_whom_something_was_invalidated(self) -> None:
        house = Crowd([after(2), *answer("Old.")], [after(2), *answer("New.")])
        one = house.come(FIRST)
        await asyncio.sleep(1)
        await house.gateway.cache.invalidate(Selection(tenant="acme"))
        other = house.come(SECOND)
        await self.apart(house, one, other)
        assert (one.text, other.text) == ("Old.", "New.")

    @in_virtual_time
    async def test_anybody_where_the_tier_only_watches(self) -> None:
        for more in ({"cache": CachePolicy(semantic="shadow")}, {"route": RoutePolicy(semantic="shadow")}):
            house = Crowd([after(1), *answer("Hello.")], **more)
            await self.apart(house, house.come(FIRST), house.come(SECOND))

    @in_virtual_time
    async def test_anybody_where_the_configuration_says_so(self) -> None:
        for sharing in (Sharing(mode="exact"), Sharing(routes={"auto": "exact"})):
            house = Crowd([after(1), *answer("Hello.")], sharing=sharing)
            await self.apart(house, house.come(FIRST), house.come(SECOND))

    @in_virtual_time
    async def test_two_that_mean_something_else(self) -> None:
        house = Crowd([after(1), *answer("Hello.")])
        await self.apart(house, house.come(PARCEL[0]), house.come(REFUND[0]))


class TestWhatIsLearnt:
    @in_virtual_time
    async def test_who_says_that_the_answer_was_wrong_for_it_takes_it_out_of_stock(self) -> None:
        house = Crowd([after(1), *answer("Wrong.")], answer("Right."))
        readers = [house.come(FIRST), house.come(SECOND)]
        await ends(readers)
        await house.flown()
        assert house.gateway.cache.size() == 1
        reply = readers[1].reply
        assert reply is not None
        heard = await house.gateway.feedback(CALLER, reply.id, correct=False)
        assert (heard.known, heard.withdrawn, heard.learned) == (True, True, True)
        assert house.gateway.cache.size() == 0
        (label,) = house.labels.past()[0]
        assert readers[0].reply is not None
        assert (label.entry, label.right, label.origin) == (readers[0].reply.id, False, "feedback")
        again = house.come(SECOND)
        assert (await again.end(), again.text) == ("whole", "Right.")

    @in_virtual_time
    async def test_a_word_on_it_before_it_is_in_stock_keeps_it_out(self) -> None:
        house = Crowd([after(1), *answer("Wrong.")], answer("Right."))
        readers = [house.come(FIRST), house.come(SECOND)]
        await asyncio.gather(*(reader.task for reader in readers))
        reply = readers[1].reply
        assert reply is not None
        assert (await house.gateway.feedback(CALLER, reply.id, correct=False)).known
        await house.flown()
        assert house.gateway.cache.size() == 0


class TestStock:
    @in_virtual_time
    async def test_who_comes_after_the_answer_finds_it_in_stock(self) -> None:
        house = Crowd([after(1), *answer("Hello.")])
        await ends([house.come(FIRST), house.come(SECOND)])
        await house.flown()
        later = house.come(PARCEL[2])
        assert (await later.end(), later.source) == ("whole", "semantic")
        assert len(house.asked) == 1
        await house.at_rest()

    @in_virtual_time
    async def test_a_question_whose_answers_are_for_nobody_else_is_followed_by_nobody_for_a_while(self) -> None:
        house = Crowd([*answer("Cut", finish="length")], [after(1), *answer("Cut", finish="length")])
        await house.come(FIRST).end()
        await house.flown()
        readers = [house.come(FIRST), house.come(SECOND)]
        assert await ends(readers) == {"whole"}
        assert house.asked == [FIRST, FIRST, SECOND]
        await house.at_rest()
