"""Who pays for a call that several share: its leader, all in equal parts, or each of them all of it."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.budget.budget import Entry, UsageQuery
from headgate.budget.memory import MemoryLedger
from headgate.model.errors import BudgetExceeded, Overloaded, RateLimited, Unavailable
from headgate.model.tenancy import Shares, Wishes
from headgate.providers.scripted import answer
from tests.crowds import PARCEL, Crowd, Reader
from tests.scenarios.house import caller
from tests.virtual_time import after, in_virtual_time

PRICE = 10 * 1_000 + 1 * 2_000
CEILING = 28_000 + 100 * 2_000
HOUR = "hour:1970-01-12T13"
ANN, BOB, CID = (Wishes(user=name) for name in ("ann", "bob", "cid"))
SPLIT = caller(shares="split", rpm=1_000, concurrency=1_000)
EACH = caller(shares="each", rpm=1_000, concurrency=1_000)


def slow(*pieces: str, seconds: float = 1.0, finish: str = "stop") -> list[Any]:
    """An answer that takes a while."""
    return [after(seconds), *answer(*(pieces or ("Hello.",)), finish=finish)]


async def ends(*readers: Reader) -> list[str]:
    return [await reader.end() for reader in readers]


async def billed(house: Crowd, *names: str) -> dict[str, int]:
    rows = await house.ledger.usage(UsageQuery(group_by=names))
    return {"/".join(row.group[name] for name in names): row.billed for row in rows}


async def spent(house: Crowd, account: str) -> int:
    return (await house.ledger.balance(account, HOUR)).spent


class TestSplit:
    @pytest.mark.parametrize(("callers", "parts"), [(1, []), (2, [6_000]), (7, [1_714] * 6), (9, [1_333] * 8)])
    @in_virtual_time
    async def test_all_who_read_the_call_pay_equal_parts_and_the_leader_what_is_left(
        self, callers: int, parts: list[int]
    ) -> None:
        house = Crowd(slow())
        readers = [house.come(PARCEL[0], SPLIT, stream=bool(number % 2)) for number in range(callers)]
        await ends(*readers)
        await house.at_rest()
        rows = await billed(house, "source")
        assert rows == {"live": PRICE - sum(parts)} | ({"coalesced": sum(parts)} if parts else {})
        assert [reader.reply.billed for reader in readers[1:] if reader.reply] == parts
        (row,) = await house.ledger.usage(UsageQuery())
        assert (row.requests, row.cost, row.billed) == (callers, PRICE, PRICE)
        assert await spent(house, "tenant:acme") == PRICE

    @in_virtual_time
    async def test_who_asks_the_same_in_other_words_shares_and_so_do_those_who_ask_it_as_they_do(self) -> None:
        house = Crowd(slow())
        texts = [PARCEL[0], PARCEL[0], PARCEL[1], PARCEL[1], PARCEL[2]]
        readers = [house.come(text, SPLIT, stream=text is PARCEL[1]) for text in texts]
        await ends(*readers)
        await house.at_rest()
        assert len(house.asked) == 1
        part = PRICE // 5
        assert await billed(house, "source") == {
            "live": PRICE - 4 * part,
            "coalesced": part,
            "coalesced-semantic": 3 * part,
        }
        assert await spent(house, "tenant:acme") == PRICE

    @in_virtual_time
    async def test_a_budget_counts_the_part_of_its_own_callers(self) -> None:
        house = Crowd(slow())
        for user in ("ann", "bob"):
            await house.allow(f"user:acme/{user}", 10 * CEILING)
        readers = [house.come(PARCEL[0], SPLIT, user) for user in (ANN, BOB, BOB, CID)]
        await ends(*readers)
        await house.at_rest()
        assert await spent(house, "user:acme/ann") == PRICE // 4
        assert await spent(house, "user:acme/bob") == PRICE // 2
        assert await spent(house, "tenant:acme") == PRICE
        assert sum((await billed(house, "user")).values()) == PRICE

    @in_virtual_time
    async def test_a_budget_made_later_in_the_window_knows_the_parts_of_before(self) -> None:
        house = Crowd(slow())
        await ends(*(house.come(PARCEL[0], SPLIT, user) for user in (ANN, BOB, BOB)))
        await house.at_rest()
        for user, parts in (("ann", 1), ("bob", 2)):
            await house.allow(f"user:acme/{user}", 10 * CEILING)
            assert await spent(house, f"user:acme/{user}") == parts * PRICE // 3

    @in_virtual_time
    async def test_readers_of_a_twin_with_budgets_of_their_own_pay_their_parts_from_them(self) -> None:
        house = Crowd(slow())
        for user in ("ann", "bob"):
            await house.allow(f"user:acme/{user}", 10 * CEILING)
        leader = house.come(PARCEL[0], SPLIT)
        readers = [house.come(PARCEL[1], SPLIT, user) for user in (ANN, BOB)]
        await ends(leader, *readers)
        await house.at_rest()
        assert [await spent(house, f"user:acme/{user}") for user in ("ann", "bob")] == [PRICE // 3] * 2
        assert await billed(house, "source") == {"live": PRICE // 3, "coalesced-semantic": 2 * PRICE // 3}

    @in_virtual_time
    async def test_a_caller_whose_budget_cannot_bear_a_part_is_refused_alone(self) -> None:
        house = Crowd(slow())
        await house.allow("user:acme/bob", CEILING // 2 - 1)
        readers = [house.come(PARCEL[0], SPLIT, user) for user in (ANN, BOB, CID)]
        assert (await ends(*readers))[::2] == ["whole", "whole"]
        assert isinstance(readers[1].error, BudgetExceeded)
        await house.at_rest()
        assert len(house.asked) == 1
        assert await billed(house, "user") == {"ann": PRICE // 2, "cid": PRICE // 2}
        assert await spent(house, "user:acme/bob") == 0

    @in_virtual_time
    async def test_parts_need_no_room_in_the_tenants_budget_beside_the_call_itself(self) -> None:
        house = Crowd(slow())
        await house.allow("tenant:acme", 2 * CEILING)
        readers = [house.come(PARCEL[0], SPLIT) for _ in range(50)]
        assert await ends(*readers) == ["whole"] * 50
        assert await spent(house, "tenant:acme") == PRICE

    @in_virtual_time
    async def test_who_was_given_a_part_of_a_stream_and_left_owes_its_share(self) -> None:
        first, *rest = answer("One ", "two.")
        house = Crowd([after(1), first, after(2), *rest])
        readers = [house.come(PARCEL[0], SPLIT, user, stream=True) for user in (ANN, BOB)]
        await after(1.5).wait()
        readers[1].leave()
        assert await readers[0].end() == "whole"
        await house.at_rest()
        price = PRICE + 2_000
        assert await billed(house, "user") == {"ann": price // 2, "bob": price // 2}
        assert [record.status for record in house.notes.records] == [499, 200]

    @in_virtual_time
    async def test_who_left_before_it_was_given_anything_owes_nothing(self) -> None:
        house = Crowd(slow())
        readers = [house.come(PARCEL[0], SPLIT, user) for user in (ANN, BOB, CID)]
        await after(0.5).wait()
        readers[1].leave()
        await ends(readers[0], readers[2])
        await house.at_rest()
        assert await billed(house, "user") == {"ann": PRICE // 2, "cid": PRICE // 2}

    @in_virtual_time
    async def test_a_leader_that_leaves_owes_its_own_part(self) -> None:
        house = Crowd(slow())
        readers = [house.come(PARCEL[0], SPLIT, user) for user in (ANN, BOB, CID)]
        await after(0.5).wait()
        readers[0].leave()
        await ends(*readers[1:])
        await house.at_rest()
        assert await billed(house, "user") == dict.fromkeys(("ann", "bob", "cid"), PRICE // 3)

    @in_virtual_time
    async def test_of_an_answer_that_breaks_off_the_leader_pays_what_it_cost(self) -> None:
        first, *_ = answer("One ", "two.")
        house = Crowd([after(1), first, after(2), Unavailable("cut")])
        readers = [house.come(PARCEL[0], SPLIT, user, stream=True) for user in (ANN, BOB)]
        assert "whole" not in await ends(*readers)
        await house.at_rest()
        (row,) = await house.ledger.usage(UsageQuery(group_by=("user",)))
        assert row.group == {"user": "ann"}
        assert row.billed == row.cost > 0

    @in_virtual_time
    async def test_a_twin_whose_flight_is_not_given_the_answer_pays_for_its_own(self) -> None:
        house = Crowd(slow(finish="length"), slow())
        readers = [house.come(text, SPLIT, user) for text, user in ((PARCEL[0], ANN), (PARCEL[1], BOB))]
        await ends(*readers)
        await house.at_rest()
        assert len(house.asked) == 2
        assert await billed(house, "user", "source") == {"ann/live": PRICE, "bob/live": PRICE}

    @in_virtual_time
    async def test_who_leads_a_flight_that_followed_in_vain_holds_no_part_beside_its_call(self) -> None:
        house = Crowd(slow(finish="length"), slow())
        await house.allow("user:acme/bob", 5 * CEILING // 4)
        readers = [house.come(text, SPLIT, user) for text, user in ((PARCEL[0], ANN), (PARCEL[1], BOB))]
        assert await ends(*readers) == ["whole", "whole"]
        await house.at_rest()
        assert await spent(house, "user:acme/bob") == PRICE

    @in_virtual_time
    async def test_followers_of_a_call_that_fails_share_the_one_they_make_together(self) -> None:
        house = Crowd([after(1), Unavailable("down")], slow())
        for user in ("bob", "cid"):
            await house.allow(f"user:acme/{user}", 10 * CEILING)
        readers = [house.come(PARCEL[0], SPLIT, user) for user in (ANN, BOB, BOB)]
        assert (await ends(*readers))[1:] == ["whole", "whole"]
        await house.at_rest()
        assert await spent(house, "user:acme/bob") == PRICE
        assert await spent(house, "tenant:acme") == PRICE

    @in_virtual_time
    async def test_who_comes_when_the_answer_is_there_pays_what_a_hit_costs(self) -> None:
        house, thrifty = Crowd(slow()), caller(shares="split", hit_percent=10)
        await ends(house.come(PARCEL[0], thrifty), house.come(PARCEL[0], thrifty))
        await ends(house.come(PARCEL[0], thrifty))
        await house.at_rest()
        assert await billed(house, "source") == {"live": PRICE // 2, "coalesced": PRICE // 2, "exact": PRICE // 10}
        assert await spent(house, "tenant:acme") == PRICE + PRICE // 10

    @in_virtual_time
    async def test_a_part_that_cannot_be_written_down_is_the_leaders(self) -> None:
        house = Crowd(slow(), ledger=Jammed())
        await ends(*(house.come(PARCEL[0], SPLIT, user) for user in (ANN, BOB)))
        assert await billed(house, "user") == {"ann": PRICE}


class TestEach:
    @in_virtual_time
    async def test_everybody_pays_the_price_and_is_told_what_was_saved(self) -> None:
        house = Crowd(slow())
        texts = [PARCEL[0], PARCEL[0], PARCEL[1], PARCEL[1]]
        readers = [house.come(text, EACH) for text in texts]
        await ends(*readers)
        await house.at_rest()
        rows = await house.ledger.usage(UsageQuery(group_by=("source",)))
        assert {row.group["source"]: (row.cost, row.billed, row.saved) for row in rows} == {
            "live": (PRICE, PRICE, 0),
            "coalesced": (0, PRICE, PRICE),
            "coalesced-semantic": (0, 2 * PRICE, 2 * PRICE),
        }
        assert await spent(house, "tenant:acme") == 4 * PRICE

    @in_virtual_time
    async def test_a_hit_still_costs_what_hits_cost(self) -> None:
        house = Crowd(slow())
        await ends(house.come(PARCEL[0], EACH))
        await ends(house.come(PARCEL[0], EACH))
        assert await billed(house, "source") == {"live": PRICE, "exact": 0}

    @pytest.mark.parametrize("shares", ["split", "each"])
    @in_virtual_time
    async def test_a_repeat_under_an_idempotency_key_is_paid_once(self, shares: Shares) -> None:
        house, once = Crowd(slow()), Wishes(idempotency_key="order-7")
        readers = [house.come(PARCEL[0], caller(shares=shares), once) for _ in range(2)]
        await ends(*readers)
        await house.at_rest()
        assert await billed(house, "source") == {"live": PRICE, "coalesced": 0}


class TestRates:
    """Sharing a call spares the provider, not the limits of the tenant."""

    @in_virtual_time
    async def test_each_follower_is_a_request_of_the_minute(self) -> None:
        house, few = Crowd(slow()), caller(rpm=3)
        readers = [house.come(PARCEL[0], few) for _ in range(5)]
        assert sorted(await ends(*readers)) == ["rate_limit_exceeded"] * 2 + ["whole"] * 3
        assert len(house.asked) == 1

    @in_virtual_time
    async def test_each_follower_is_a_request_at_the_same_time(self) -> None:
        house, few = Crowd(slow()), caller(concurrency=2)
        readers = [house.come(text, few) for text in (PARCEL[0], PARCEL[0], PARCEL[1])]
        assert (await ends(*readers))[:2] == ["whole", "whole"]
        assert isinstance(readers[2].error, RateLimited)

    @in_virtual_time
    async def test_the_tokens_of_a_shared_call_are_taken_once(self) -> None:
        house, who = Crowd(slow()), caller(tpm=200, shares="split")
        readers = [house.come(PARCEL[0], who) for _ in range(10)]
        assert set(await ends(*readers)) == {"whole"}
        assert house.gateway.budget.tokens("acme")[0] == 11


class Jammed(MemoryLedger):
    """A ledger that takes no notes."""

    def note(self, id: str, entry: Entry) -> None:
        raise Overloaded("The ledger cannot be written: disk full.", retry_after=1.0)
