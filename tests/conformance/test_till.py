"""What every Till must do. To check your own: subclass TillConformance and give it a `make` fixture.

Behind that: what becomes of a till whose server has lost something. It is unknown then, and nothing counts as zero.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

import msgspec
import pytest

from headgate.budget.budget import Balance, Scope
from headgate.budget.postgres_till import SCHEMA, PostgresTill
from headgate.budget.redis import RedisTill
from headgate.budget.till import Ask, Ending, Filling, Gone, Granted, Overdue, Place, Refused, Till, Unknown, owner_of
from headgate.budget.till_memory import MemoryTill
from headgate.model.errors import Overloaded
from headgate.model.money import LARGEST
from headgate.storage.postgres import Postgres
from headgate.storage.redis import Redis, Script
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.redis import PATIENT, RedisCluster, RedisServer

NOON = 1_795_176_000.0
"""2026-11-20T12:00:00Z."""
HOUR = "hour:2026-11-20T12"
NEXT_HOUR = "hour:2026-11-20T13"
MINUTE_TOKENS = "tokens/minute:2026-11-20T12:00"
ACME = "t/acme"
TENANT = "tenant:acme"


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Make(Protocol):
    """Makes a till with a clock in unix seconds; all that one fixture makes hold together."""

    async def __call__(self, clock: Clock) -> Till: ...


def ask(
    id: str,
    amount: int,
    *further: Scope,
    cap: int | None = 100,
    least: int | None = None,
    tokens: int = 0,
    owner: str = ACME,
    lease: float = 60.0,
) -> Ask:
    account = owner.replace("t/", "tenant:")
    scopes = (Scope(account, HOUR, cap), Scope(account, "total"), *further)
    needed = amount if least is None else least
    return Ask(id=id, owner=owner, scopes=scopes, amount=amount, least=needed, tokens=tokens, lease=lease, epoch=0)


def filling(epoch: int = 1, *, anew: bool = True, number: int = 0, **fields: Any) -> Filling:
    given = {"windows": (HOUR, "total", MINUTE_TOKENS), "spent": {}, **fields}
    return Filling(epoch=epoch, anew=anew, number=number, **given)


def ending(id: str, number: int, amount: int = 0, *places: tuple[Place, int], owner: str = ACME) -> Ending:
    """A call that cost so much in this hour and in all."""
    account = owner.replace("t/", "tenant:")
    spent = (((account, HOUR), amount), ((account, "total"), amount), *places) if number else ()
    return Ending(id=id, owner=owner, number=number, spent=spent)


def tokens_of(cap: int) -> Scope:
    return Scope(TENANT, MINUTE_TOKENS, cap, tokens=True)


class TillConformance:
    """The guarantees in the docstrings of till.py, each as a test."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    async def till(self, make: Make, clock: Clock) -> AsyncIterator[Till]:
        till = await make(clock)
        await till.fill(ACME, filling())
        yield till
        await till.close()

    async def hour(self, till: Till) -> Balance | None:
        return await till.balance(ACME, (TENANT, HOUR))

    # What is not known.

    async def test_nothing_is_known_before_it_was_filled(self, make: Make, clock: Clock) -> None:
        till = await make(clock)
        assert await till.hold(ask("a", 10)) == Unknown()
        assert await till.extend("a", ACME, 60.0, None) == Unknown()
        assert await till.balance(ACME, (TENANT, HOUR)) is None
        assert await till.overdue(ACME, 10) == []
        assert await till.owners(10) == []
        await till.end([ending("a", 1, 10), ending("b", 0)])
        assert await till.hold(ask("a", 10)) == Unknown()

    async def test_a_window_that_was_never_filled_is_named(self, till: Till) -> None:
        further = (Scope(TENANT, NEXT_HOUR), Scope("user:acme/ann", NEXT_HOUR), Scope(TENANT, "day:2026-11-20"))
        assert await till.hold(ask("a", 10, *further)) == Unknown((NEXT_HOUR, "day:2026-11-20"))
        assert await self.hour(till) == Balance()
        assert await till.balance(ACME, (TENANT, NEXT_HOUR)) is None

    async def test_owners_are_known_apart(self, till: Till) -> None:
        assert await till.hold(ask("a", 10, owner="t/globex")) == Unknown()
        await till.fill("t/globex", filling(7))
        await till.hold(ask("a", 10, owner="t/globex"))
        assert await self.hour(till) == Balance()
        assert await till.hold(ask("a", 20)) == Granted(20, 1, (Balance(0, 20), Balance(0, 20)))

    # Holding.

    async def test_a_hold_is_on_every_scope(self, till: Till) -> None:
        ann = Scope("user:acme/ann", "total", 50)
        assert await till.hold(ask("a", 40, ann)) == Granted(40, 1, (Balance(0, 40),) * 3)
        assert await till.hold(ask("b", 5)) == Granted(5, 1, (Balance(0, 45),) * 2)
        assert await till.balance(ACME, ("user:acme/ann", "total")) == Balance(0, 40)

    async def test_scopes_of_tokens_hold_tokens(self, till: Till) -> None:
        granted = await till.hold(ask("a", 40, tokens_of(100), tokens=70))
        assert granted == Granted(40, 1, (Balance(0, 40), Balance(0, 40), Balance(0, 70)))
        assert await till.hold(ask("b", 1, tokens_of(100), tokens=31)) == Refused(granted.balances)
        await till.end([ending("a", 0)])
        assert await till.balance(ACME, (TENANT, MINUTE_TOKENS)) == Balance()

    async def test_a_hold_that_finds_no_room_on_one_scope_is_on_none(self, till: Till) -> None:
        await till.hold(ask("a", 60))
        refused = await till.hold(ask("b", 41, Scope("user:acme/ann", "total", 1_000)))
        assert refused == Refused((Balance(0, 60), Balance(0, 60), Balance()))
        assert await till.balance(ACME, ("user:acme/ann", "total")) == Balance()
        assert isinstance(await till.hold(ask("b", 40)), Granted)

    async def test_a_suspended_scope_refuses_what_costs_nothing(self, till: Till) -> None:
        assert isinstance(await till.hold(ask("a", 0, cap=-1)), Refused)
        assert isinstance(await till.hold(ask("b", 0, tokens_of(-1))), Refused)

    async def test_what_costs_nothing_fits_where_nothing_is_left(self, till: Till) -> None:
        await till.hold(ask("a", 100, tokens_of(5), tokens=5))
        assert isinstance(await till.hold(ask("b", 0, tokens_of(5))), Granted)

    async def test_what_takes_no_tokens_is_not_kept_waiting_by_those_of_others(self, till: Till) -> None:
        await till.hold(ask("a", 1, tokens_of(50), tokens=50))
        assert isinstance(await till.hold(ask("b", 1, tokens_of(10))), Granted)

    async def test_near_a_cap_an_eighth_of_what_is_left_is_held(self, till: Till) -> None:
        assert (await till.hold(ask("a", 100, least=1))).amount == 12
        assert (await till.hold(ask("b", 100, least=20))).amount == 20
        assert (await till.hold(ask("c", 3, least=1))).amount == 3
        assert await self.hour(till) == Balance(0, 35)

    async def test_a_hold_that_is_asked_for_again_is_answered_as_it_was(self, till: Till) -> None:
        first = await till.hold(ask("a", 90, least=10))
        assert await till.hold(ask("a", 90, least=10)) == first
        assert (await till.hold(ask("a", 5, cap=1))).amount == first.amount

    async def test_a_hold_that_has_ended_holds_nothing_again(self, till: Till) -> None:
        await till.hold(ask("a", 60))
        await till.end([ending("a", 0)])
        assert await till.hold(ask("a", 70)) == Granted(70, 1, (Balance(), Balance()))
        assert await self.hour(till) == Balance()

    async def test_a_release_that_comes_before_its_hold_keeps_it_from_holding(self, till: Till) -> None:
        await till.end([ending("a", 0)])
        await till.hold(ask("a", 60))
        assert await self.hour(till) == Balance()

    @pytest.mark.parametrize("amounts", [(-1, 0, 0), (1.5, 0, 0), (2**63, 0, 0), (1, 2, 0), (1, 1, -1)])
    async def test_what_is_no_amount_is_an_error(self, till: Till, amounts: tuple[int, int, int]) -> None:
        with pytest.raises(ValueError):
            await till.hold(ask("a", amounts[0], least=amounts[1], tokens=amounts[2]))

    async def test_a_scope_named_twice_is_an_error(self, till: Till) -> None:
        with pytest.raises(ValueError):
            await till.hold(ask("a", 1, Scope(TENANT, HOUR, 5)))

    async def test_names_are_taken_as_they_are(self, till: Till) -> None:
        odd = "user:acme/Zoë:{}* \n'\\h\x01"
        await till.hold(ask("id {x}:1", 10, Scope(odd, "total", 10)))
        await till.end([Ending(id="id {x}:1", owner=ACME, number=3, spent=(((odd, "total"), 7),))])
        assert await till.balance(ACME, (odd, "total")) == Balance(7, 0)

    async def test_no_number_of_holds_at_once_exceeds_a_cap(self, make: Make, clock: Clock, till: Till) -> None:
        tills = [till, await make(clock)]

        async def call(number: int) -> bool:
            mine = tills[number % 2]
            granted = await mine.hold(ask(f"call-{number}", 7, least=3))
            balance = await self.hour(mine)
            assert balance is not None
            assert balance.spent + balance.held <= 100
            if isinstance(granted, Granted) and number % 3 == 0:
                await mine.end([ending(f"call-{number}", number + 1, granted.amount)])
            return isinstance(granted, Granted)

        through = await asyncio.gather(*(call(number) for number in range(50)))
        balance = await self.hour(till)
        assert balance is not None
        assert 97 < balance.spent + balance.held <= 100
        assert any(through)
        assert not all(through)

    # The largest amounts.

    async def test_the_largest_amount_is_exact(self, till: Till) -> None:
        most = LARGEST
        assert (await till.hold(ask("a", most, cap=most))).balances[0] == Balance(0, most)
        assert isinstance(await till.hold(ask("b", 1, cap=most)), Refused)
        assert (await till.extend("a", ACME, 60.0, most - 1)).balances[0] == Balance(0, most - 1)
        assert isinstance(await till.hold(ask("c", 1, cap=most)), Granted)
        assert isinstance(await till.hold(ask("d", 1, cap=most)), Refused)
        assert (await till.hold(ask("e", most, cap=None, least=1))).amount == most // 8

    async def test_sums_may_be_larger_than_any_amount(self, till: Till) -> None:
        await till.hold(ask("a", LARGEST, cap=None))
        await till.hold(ask("b", LARGEST, cap=None))
        assert await self.hour(till) == Balance(0, 2 * LARGEST)
        await till.end([ending("a", 1, LARGEST), ending("b", 2, LARGEST)])
        assert await self.hour(till) == Balance(2 * LARGEST, 0)
        assert isinstance(await till.hold(ask("c", 0, cap=LARGEST)), Refused)

    # Extending.

    async def test_more_is_held_where_there_is_room(self, till: Till) -> None:
        await till.hold(ask("a", 40, tokens_of(5), tokens=5))
        granted = await till.extend("a", ACME, 60.0, 100)
        assert granted == Granted(100, 1, (Balance(0, 100), Balance(0, 100), Balance(0, 5)))
        assert await till.extend("a", ACME, 60.0, 101) == Refused(granted.balances)
        assert (await till.hold(ask("a", 1))).amount == 100

    async def test_less_is_held_when_less_is_needed(self, till: Till) -> None:
        await till.hold(ask("a", 80))
        assert await till.extend("a", ACME, 60.0, 30) == Granted(30, 1, (Balance(0, 30),) * 2)
        assert isinstance(await till.hold(ask("b", 70)), Granted)

    async def test_less_may_be_held_on_a_scope_whose_cap_is_exceeded(self, till: Till) -> None:
        await till.hold(ask("a", 80))
        await till.end([ending("late", 1, 500)])
        assert (await till.extend("a", ACME, 60.0, 79)).amount == 79
        assert isinstance(await till.extend("a", ACME, 60.0, 80), Refused)

    async def test_extending_again_changes_nothing_more(self, till: Till) -> None:
        await till.hold(ask("a", 40))
        assert await till.extend("a", ACME, 60.0, 50) == await till.extend("a", ACME, 60.0, 50)

    async def test_a_lease_begins_anew(self, till: Till, clock: Clock) -> None:
        await till.hold(ask("a", 40, lease=60.0))
        clock.now += 59.0
        assert (await till.extend("a", ACME, 60.0, None)).amount == 40
        clock.now += 59.0
        assert await till.overdue(ACME, 10) == []
        clock.now += 1.0
        assert await till.overdue(ACME, 10) == [Overdue("a", ACME, 40)]

    async def test_who_is_refused_more_keeps_the_lease_it_has(self, till: Till, clock: Clock) -> None:
        await till.hold(ask("a", 40, lease=60.0))
        assert isinstance(await till.extend("a", ACME, 600.0, 101), Refused)
        clock.now += 60.0
        assert await till.overdue(ACME, 10) == [Overdue("a", ACME, 40)]

    async def test_one_that_has_ended_or_never_was_is_gone(self, till: Till) -> None:
        await till.hold(ask("a", 40))
        await till.end([ending("a", 1, 10)])
        assert await till.extend("a", ACME, 60.0, 50) == Gone()
        assert await till.extend("nobody", ACME, 60.0, 50) == Gone()
        assert await self.hour(till) == Balance(10, 0)

    async def test_no_amount_to_extend_to_is_an_error(self, till: Till) -> None:
        await till.hold(ask("a", 40))
        with pytest.raises(ValueError):
            await till.extend("a", ACME, 60.0, -1)

    # Ending.

    async def test_what_was_spent_takes_the_place_of_what_was_held(self, till: Till) -> None:
        await till.hold(ask("a", 40))
        await till.hold(ask("b", 20))
        await till.end([ending("a", 1, 25), ending("b", 0)])
        assert await self.hour(till) == Balance(25, 0)
        assert await till.balance(ACME, (TENANT, "total")) == Balance(25, 0)

    async def test_more_may_be_spent_than_was_held_and_than_the_cap(self, till: Till) -> None:
        await till.hold(ask("a", 40))
        await till.end([ending("a", 1, 250)])
        assert await self.hour(till) == Balance(250, 0)
        assert isinstance(await till.hold(ask("b", 0)), Refused)

    async def test_an_ending_that_is_told_again_counts_once(self, till: Till) -> None:
        await till.hold(ask("a", 40))
        for _ in range(3):
            await till.end([ending("a", 1, 25), ending("a", 1, 25)])
            await till.end([ending("a", 0)])
        assert await self.hour(till) == Balance(25, 0)

    async def test_what_was_released_may_cost_something_later(self, till: Till) -> None:
        await till.hold(ask("a", 40))
        await till.end([ending("a", 0)])
        await till.end([ending("a", 1, 25)])
        await till.end([ending("a", 1, 25)])
        assert await self.hour(till) == Balance(25, 0)

    async def test_what_was_never_held_is_counted_all_the_same(self, till: Till) -> None:
        await till.end([ending("a", 1, 25), ending("b", 0)])
        assert await self.hour(till) == Balance(25, 0)

    async def test_what_the_till_was_filled_with_is_not_counted_again(self, till: Till) -> None:
        await till.fill(ACME, filling(2, number=10, spent={(TENANT, HOUR): 25, (TENANT, "total"): 30}))
        await till.end([ending("a", 9, 5), ending("b", 10, 5), ending("c", 11, 7)])
        assert await self.hour(till) == Balance(32, 0)
        assert await till.balance(ACME, (TENANT, "total")) == Balance(37, 0)

    async def test_an_ending_counts_where_it_was_not_counted(self, till: Till) -> None:
        """Told before a window was filled with what came before it, and told again afterwards."""
        late = ending("a", 8, 25, ((TENANT, NEXT_HOUR), 25))
        await till.end([late])
        await till.fill(ACME, filling(1, anew=False, number=7, windows=(NEXT_HOUR,), spent={(TENANT, NEXT_HOUR): 1}))
        for _ in range(2):
            await till.end([late])
            assert await self.hour(till) == Balance(25, 0)
            assert await till.balance(ACME, (TENANT, NEXT_HOUR)) == Balance(26, 0)

    async def test_many_end_together(self, till: Till) -> None:
        await till.fill("t/globex", filling(7))
        for number in range(20):
            await till.hold(ask(f"call-{number}", 2, owner=(ACME, "t/globex")[number % 2]))
        await till.end([ending(f"call-{n}", n + 1, 1, owner=(ACME, "t/globex")[n % 2]) for n in range(20)])
        assert await self.hour(till) == Balance(10, 0)
        assert await till.balance("t/globex", ("tenant:globex", HOUR)) == Balance(10, 0)

    async def test_no_endings_are_no_error(self, till: Till) -> None:
        await till.end([])

    # Leases.

    async def test_the_oldest_of_what_is_overdue_comes_first(self, till: Till, clock: Clock) -> None:
        for id, lease in (("b", 20.0), ("c", 30.0), ("a", 10.0), ("d", 40.0)):
            await till.hold(ask(id, int(lease), lease=lease))
        clock.now += 30.0
        late = [Overdue("a", ACME, 10), Overdue("b", ACME, 20), Overdue("c", ACME, 30)]
        assert await till.overdue(ACME, 10) == late
        assert await till.overdue(ACME, 2) == late[:2]
        await till.end([ending("a", 0)])
        assert await till.overdue(ACME, 10) == late[1:]

    async def test_what_is_overdue_is_held_until_it_is_ended(self, till: Till, clock: Clock) -> None:
        await till.hold(ask("a", 40, lease=10.0))
        clock.now += 1_000.0
        assert await self.hour(till) == Balance(0, 40)
        assert isinstance(await till.extend("a", ACME, 10.0, None), Granted)
        assert await till.overdue(ACME, 10) == []

    async def test_owners_for_whom_something_is_held_are_named_in_time(self, till: Till) -> None:
        names = {f"t/tenant-{number}" for number in range(5)}
        for name in names:
            await till.fill(name, filling())
            await till.hold(ask("a", 1, owner=name))
        named: set[str] = set()
        for _ in range(4):
            some = await till.owners(2)
            assert len(some) <= 2
            named |= set(some)
        assert named == names
        await till.end([ending("a", 0, owner=name) for name in names])
        left = [await till.owners(2) for _ in range(6)]
        assert left[-1] == []

    # Filling.

    async def test_what_it_is_filled_with_is_spent(self, till: Till) -> None:
        spent = {(TENANT, HOUR): 90, ("user:acme/ann", "total"): 5}
        assert await till.fill(ACME, filling(2, spent=spent))
        assert await self.hour(till) == Balance(90, 0)
        assert await till.balance(ACME, ("user:acme/ann", "total")) == Balance(5, 0)
        assert await till.balance(ACME, ("user:acme/bob", "total")) == Balance()
        assert isinstance(await till.hold(ask("a", 11)), Refused)
        assert await till.hold(ask("b", 10)) == Granted(10, 2, (Balance(90, 10), Balance(0, 10)))

    async def test_a_new_epoch_knows_nothing_of_the_one_before(self, till: Till) -> None:
        await till.hold(ask("a", 40))
        await till.hold(ask("b", 40))
        await till.end([ending("b", 1, 30)])
        await till.fill(ACME, filling(2, windows=(HOUR,)))
        assert await self.hour(till) == Balance()
        assert await till.extend("a", ACME, 60.0, None) == Gone()
        assert await till.hold(ask("c", 40)) == Unknown(("total",))
        assert await till.overdue(ACME, 10) == []
        await till.end([ending("b", 1, 30)])
        assert await self.hour(till) == Balance(30, 0)

    async def test_calls_that_are_open_in_the_journal_are_held(self, till: Till, clock: Clock) -> None:
        await till.hold(ask("a", 40))
        scopes = (Scope(TENANT, HOUR, 100), tokens_of(100))
        await till.fill(ACME, filling(2, spent={(TENANT, HOUR): 50}, open=[("a", scopes, 35, 20, 60.0)]))
        assert await self.hour(till) == Balance(50, 35)
        assert await till.balance(ACME, (TENANT, MINUTE_TOKENS)) == Balance(0, 20)
        assert await till.balance(ACME, (TENANT, "total")) == Balance()
        assert isinstance(await till.extend("a", ACME, 60.0, 51), Refused)
        assert await till.extend("a", ACME, 60.0, 50) == Granted(50, 2, (Balance(50, 50), Balance(0, 20)))
        clock.now += 60.0
        assert await till.overdue(ACME, 10) == [Overdue("a", ACME, 50)]
        await till.end([ending("a", 1, 20)])
        assert await self.hour(till) == Balance(70, 0)

    async def test_one_that_ended_before_the_till_was_filled_may_be_open_again(self, till: Till) -> None:
        """Its end was told between what the journal said and the filling, and is told once more."""
        await till.hold(ask("a", 40))
        await till.end([ending("a", 8, 25)])
        await till.fill(ACME, filling(2, number=7, open=[("a", ask("a", 40).scopes, 40, 0, 60.0)]))
        assert await self.hour(till) == Balance(0, 40)
        await till.end([ending("a", 8, 25)])
        assert await self.hour(till) == Balance(25, 0)

    async def test_only_the_first_and_a_later_epoch_is_filled(self, till: Till) -> None:
        assert not await till.fill(ACME, filling(1, spent={(TENANT, HOUR): 1}))
        assert await till.fill(ACME, filling(5))
        assert not await till.fill(ACME, filling(4, spent={(TENANT, HOUR): 1}))
        assert not await till.fill(ACME, filling(5, spent={(TENANT, HOUR): 1}))
        assert await self.hour(till) == Balance()

    async def test_who_fills_at_the_same_time_fills_one_after_the_other(self, make: Make, clock: Clock) -> None:
        tills = [await make(clock), await make(clock)]
        done = await asyncio.gather(
            *(
                tills[number % 2].fill(ACME, filling(1 + number % 5, spent={(TENANT, HOUR): number % 5}))
                for number in range(20)
            )
        )
        assert 1 <= sum(done) <= 5
        assert await self.hour(tills[0]) == Balance(4, 0)

    async def test_windows_are_added_to_an_epoch(self, till: Till) -> None:
        await till.hold(ask("a", 40))
        added = filling(1, anew=False, windows=(HOUR, NEXT_HOUR), spent={(TENANT, HOUR): 7, (TENANT, NEXT_HOUR): 9})
        assert await till.fill(ACME, added)
        assert await self.hour(till) == Balance(0, 40)
        assert await till.balance(ACME, (TENANT, NEXT_HOUR)) == Balance(9, 0)
        assert (await till.hold(ask("b", 3, Scope(TENANT, NEXT_HOUR, 12)))).amount == 3
        assert await till.fill(ACME, added)
        assert await till.balance(ACME, (TENANT, NEXT_HOUR)) == Balance(9, 3)

    async def test_windows_are_added_to_no_other_epoch(self, till: Till, make: Make, clock: Clock) -> None:
        await till.fill(ACME, filling(5))
        for epoch in (1, 4, 6):
            assert not await till.fill(ACME, filling(epoch, anew=False, windows=(NEXT_HOUR,)))
        assert not await till.fill("t/globex", filling(1, anew=False))
        assert await till.balance(ACME, (TENANT, NEXT_HOUR)) is None
        assert await till.balance("t/globex", ("tenant:globex", HOUR)) is None

    async def test_calls_are_open_in_windows_that_are_filled(self, till: Till) -> None:
        with pytest.raises(ValueError):
            await till.fill(ACME, filling(2, windows=("total",), open=[("a", ask("a", 1).scopes, 1, 0, 60.0)]))

    async def test_many_accounts_and_calls_are_filled_at_once(self, till: Till) -> None:
        spent = {(f"user:acme/{number}", "total"): number for number in range(3_000)}
        calls = [(f"call-{number}", (Scope(TENANT, "total"),), 1, 0, 60.0) for number in range(300)]
        assert await till.fill(ACME, filling(2, spent=spent, open=calls))
        assert await till.balance(ACME, ("user:acme/2999", "total")) == Balance(2_999, 0)
        assert await till.balance(ACME, (TENANT, "total")) == Balance(0, 300)

    # Windows that are over.

    async def test_a_window_is_kept_for_two_hours_after_its_end(self, till: Till, clock: Clock) -> None:
        clock.now += 3 * 3_600.0 - 1.0
        assert isinstance(await till.hold(ask("a", 40)), Granted)
        await till.end([ending("a", 1, 40)])
        assert await self.hour(till) == Balance(40, 0)

    async def test_a_window_that_has_long_been_over_is_not_filled(self, till: Till, clock: Clock) -> None:
        clock.now += 3 * 3_600.0
        assert await till.hold(ask("a", 40)) == Unknown((HOUR,))
        assert await self.hour(till) is None
        await till.fill(ACME, filling(1, anew=False, number=5, windows=(HOUR,), spent={(TENANT, HOUR): 8}))
        assert await self.hour(till) == Balance(8, 0)

    async def test_a_window_is_kept_for_as_long_as_something_is_held_in_it(self, till: Till, clock: Clock) -> None:
        await till.hold(ask("a", 40, lease=8_000.0))
        for _ in range(4):
            clock.now += 5_000.0
            await till.fill(ACME, filling(1, anew=False, windows=(NEXT_HOUR,)))
            assert isinstance(await till.extend("a", ACME, 8_000.0, None), Granted)
        await till.end([ending("a", 1, 25)])
        assert await self.hour(till) == Balance(25, 0)

    async def test_what_is_overdue_for_long_can_still_be_ended(self, till: Till, clock: Clock) -> None:
        await till.hold(ask("a", 40))
        clock.now += 4 * 3_600.0
        await till.fill(ACME, filling(1, anew=False, windows=(NEXT_HOUR,)))
        assert await till.overdue(ACME, 10) == [Overdue("a", ACME, 40)]
        assert await till.extend("a", ACME, 60.0, None) == Gone()
        await till.end([ending("a", 1, 25)])
        assert await till.overdue(ACME, 10) == []
        assert await till.balance(ACME, (TENANT, "total")) == Balance(25, 0)

    async def test_an_ending_is_remembered_for_an_hour(self, till: Till, clock: Clock) -> None:
        await till.hold(ask("a", 40))
        await till.end([ending("a", 1, 25)])
        clock.now += 3_599.0
        await till.end([ending("a", 1, 25)])
        assert await self.hour(till) == Balance(25, 0)


class TestMemoryTill(TillConformance):
    @pytest.fixture
    def make(self, clock: Clock) -> Make:
        till = MemoryTill(clock=clock)

        async def make(clock: Clock) -> Till:
            return till

        return make

    async def test_it_forgets_what_it_is_told_to(self, till: MemoryTill) -> None:
        await till.fill("t/globex", filling())
        till.forget(ACME)
        assert await till.hold(ask("a", 40)) == Unknown()
        assert isinstance(await till.hold(ask("a", 40, owner="t/globex")), Granted)
        till.forget()
        assert await till.hold(ask("b", 40, owner="t/globex")) == Unknown()


class RedisConformance(TillConformance):
    """A till over a server that others have written to."""

    cluster = False

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    async def redis(self, url: str, redis_prefix: str) -> AsyncIterator[Redis]:
        redis = Redis(url, cluster=self.cluster, prefix=redis_prefix, timeout=PATIENT)
        yield redis
        await redis.close()

    @pytest.fixture
    async def make(self, url: str, redis: Redis) -> AsyncIterator[Make]:
        async with AsyncExitStack() as stack:

            async def make(clock: Clock) -> Till:
                own = Redis(url, cluster=self.cluster, prefix=redis.prefix, timeout=PATIENT)
                stack.push_async_callback(own.close)
                return RedisTill(own, clock=clock)

            yield make

    async def test_the_server_counts_leases_where_no_clock_is_given(self, redis: Redis) -> None:
        till = RedisTill(redis)
        await till.fill(ACME, filling(windows=("total",)))
        await till.hold(msgspec.structs.replace(ask("a", 1), scopes=(Scope(TENANT, "total"),)))
        assert await till.overdue(ACME, 10) == []
        await till.extend("a", ACME, 0.0, None)
        assert await till.overdue(ACME, 10) == [Overdue("a", ACME, 1)]

    # Eviction: any key may be gone, alone.

    async def evict(self, redis: Redis, *parts: str) -> None:
        assert await redis.do("DEL", redis.key(ACME, *parts)) == 1

    async def is_forgotten(self, till: Till) -> bool:
        return await till.hold(ask("new", 1)) == Unknown() and await self.hour(till) is None

    async def test_without_its_epoch_an_owner_is_unknown(self, till: Till, redis: Redis) -> None:
        await till.hold(ask("a", 40))
        await self.evict(redis, "money")
        assert await self.is_forgotten(till)
        assert not await till.fill(ACME, filling(1, anew=False, windows=(HOUR, "total")))
        assert await till.fill(ACME, filling(2))
        assert await till.extend("a", ACME, 60.0, None) == Gone()
        assert await till.hold(ask("a", 30)) == Granted(30, 2, (Balance(0, 30),) * 2)

    @pytest.mark.parametrize("by", ["hold", "extend", "end", "balance"])
    async def test_who_meets_a_window_that_was_evicted_makes_all_unknown(
        self, till: Till, redis: Redis, by: str
    ) -> None:
        await till.hold(ask("a", 40))
        await self.evict(redis, f"w:{HOUR}")
        if by == "hold":
            assert await till.hold(ask("b", 1)) == Unknown()
        elif by == "extend":
            assert await till.extend("a", ACME, 60.0, 50) == Unknown()
        elif by == "balance":
            assert await self.hour(till) is None
        else:
            await till.end([ending("a", 1, 25)])
        assert await till.balance(ACME, (TENANT, "total")) is None
        assert await self.is_forgotten(till)

    @pytest.mark.parametrize("by", ["hold", "extend", "end", "overdue"])
    async def test_who_meets_a_reservation_that_was_evicted_makes_all_unknown(
        self, till: Till, redis: Redis, clock: Clock, by: str
    ) -> None:
        await till.hold(ask("a", 40))
        await self.evict(redis, "r:a")
        clock.now += 60.0
        if by == "hold":
            assert await till.hold(ask("a", 40)) == Unknown()
        elif by == "extend":
            assert await till.extend("a", ACME, 60.0, 50) == Unknown()
        elif by == "overdue":
            assert await till.overdue(ACME, 10) == []
        else:
            await till.end([ending("a", 1, 25)])
        assert await self.is_forgotten(till)

    @pytest.mark.parametrize("by", ["end", "overdue"])
    async def test_who_meets_leases_that_were_evicted_makes_all_unknown(
        self, till: Till, redis: Redis, by: str
    ) -> None:
        await till.hold(ask("a", 40))
        await self.evict(redis, "open")
        await till.hold(ask("b", 40))
        if by == "end":
            await till.end([ending("a", 1, 25)])
        else:
            assert await till.overdue(ACME, 10) == []
        assert await self.is_forgotten(till)

    # Commands that are sent twice, the second time to a server that has lost what the first did.

    @pytest.mark.parametrize("method", ["hold", "extend", "finish", "add", "overdue", "balance"])
    async def test_what_is_sent_twice_is_done_once(
        self, url: str, redis_prefix: str, clock: Clock, method: str
    ) -> None:
        redis = Twice(url, method, cluster=self.cluster, prefix=redis_prefix)
        till = RedisTill(redis, clock=clock)
        assert await till.fill(ACME, filling())
        assert await till.hold(ask("a", 40)) == Granted(40, 1, (Balance(0, 40),) * 2)
        assert await till.extend("a", ACME, 60.0, 50) == Granted(50, 1, (Balance(0, 50),) * 2)
        await till.end([ending("a", 1, 25)])
        assert await till.fill(ACME, filling(1, anew=False, windows=(NEXT_HOUR,)))
        assert await till.overdue(ACME, 10) == []
        assert await self.hour(till) == Balance(25, 0)
        await redis.close()

    async def test_a_filling_that_arrives_once_more_after_everything_was_lost_fills_nothing(
        self, url: str, redis_prefix: str, clock: Clock
    ) -> None:
        """Else what was granted since the first time would be forgotten under an epoch that still is the journal's."""
        redis = Twice(url, "fill", cluster=self.cluster, prefix=redis_prefix)
        till = RedisTill(redis, clock=clock)

        async def lose() -> None:
            await till.hold(ask("a", 40))
            await redis.do("DEL", redis.key(ACME, "money"))

        redis.between = lose
        assert not await till.fill(ACME, filling())
        assert await self.is_forgotten(till)
        await redis.close()


class Twice(Redis):
    """A connection that sends each script of one kind twice, as if the first answer had not been heard."""

    def __init__(self, url: str, method: str, **settings: Any) -> None:
        super().__init__(url, **settings)
        self._method = method
        self.between: Callable[[], Awaitable[None]] | None = None

    async def call(self, one: Script, keys: Sequence[str], *args: Any) -> Any:
        answer = await super().call(one, keys, *args)
        if args[0] == self._method:
            if self.between is not None:
                await self.between()
            answer = await super().call(one, keys, *args)
        return answer


class TestRedisTill(RedisConformance):
    @pytest.fixture
    def url(self, redis_server: RedisServer) -> str:
        return redis_server.url


class TestRedis7Till(RedisConformance):
    @pytest.fixture
    def url(self, redis7_server: RedisServer) -> str:
        return redis7_server.url


class TestRedisClusterTill(RedisConformance):
    cluster = True

    @pytest.fixture
    def url(self, redis_cluster: RedisCluster) -> str:
        return redis_cluster.url


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """One for all: each test is given its tables empty."""
    url = postgres_server.database()
    yield url
    postgres_server.drop(url)


class TestPostgresTill(TillConformance):
    @pytest.fixture
    def url(self, database: str) -> str:
        return database

    @pytest.fixture
    async def make(self, url: str) -> AsyncIterator[Make]:
        async with AsyncExitStack() as stack:

            async def open_one() -> Postgres:
                postgres = Postgres(url)
                stack.push_async_callback(postgres.close)
                return postgres

            async def make(clock: Clock) -> Till:
                return PostgresTill(await open_one(), clock=clock)

            postgres = await open_one()
            await postgres.migrate({"till": SCHEMA})
            await postgres.query(
                "TRUNCATE headgate_till_owners, headgate_till_windows, headgate_till_counters, headgate_till_reservations"
            )
            yield make


class TestPostgresTillBehindPgBouncer(TestPostgresTill):
    @pytest.fixture
    def url(self, database: str, pgbouncer: PgBouncer) -> str:
        return pgbouncer.through(database)


class TestRedisThatIsNotWhatItWas:
    """A server that was started again, or another that took its place."""

    @pytest.fixture
    async def connect(self) -> AsyncIterator[Callable[[RedisServer], Redis]]:
        async with AsyncExitStack() as stack:

            def connect(server: RedisServer) -> Redis:
                redis = Redis(server.url)
                stack.push_async_callback(redis.close)
                return redis

            yield connect

    async def spend(self, redis: Redis, id: str, number: int, amount: int) -> None:
        till = RedisTill(redis)
        assert isinstance(await till.hold(ask(id, amount)), Granted)
        await till.end([ending(id, number, amount)])

    async def is_unknown(self, redis: Redis) -> bool:
        till = RedisTill(redis)
        return (
            await till.hold(ask("new", 1)) == Unknown()
            and await till.balance(ACME, (TENANT, HOUR)) is None
            and not await till.fill(ACME, filling(1, anew=False, windows=(NEXT_HOUR,)))
            and not await till.fill(ACME, filling(1))
        )

    async def test_an_old_snapshot_is_not_taken_for_what_is_so(self, connect: Callable[[RedisServer], Redis]) -> None:
        with RedisServer() as server:
            redis = connect(server)
            await RedisTill(redis).fill(ACME, filling())
            await self.spend(redis, "a", 1, 30)
            server.command("SAVE")
            await self.spend(redis, "b", 2, 60)
            server.kill()
            server.restart()
            redis = connect(server)
            assert await redis.do("EXISTS", redis.key(ACME, "money")) == 1
            assert await self.is_unknown(redis)
            assert await RedisTill(redis).fill(ACME, filling(2, number=2, spent={(TENANT, HOUR): 90}))
            assert isinstance(await RedisTill(redis).hold(ask("c", 11)), Refused)

    async def test_a_replica_that_takes_over_is_not_taken_for_the_master_that_it_followed(
        self, connect: Callable[[RedisServer], Redis]
    ) -> None:
        with RedisServer() as master, RedisServer(replicaof=master) as replica:
            before, after = connect(master), connect(replica)
            await RedisTill(before).fill(ACME, filling())
            await self.spend(before, "a", 1, 30)
            assert await before.do("WAIT", 1, 5_000) == 1
            replica.command("REPLICAOF", "NO", "ONE")
            await self.spend(before, "b", 2, 60)
            assert await self.is_unknown(after)
            # The one that was the master follows it, forgets what it knew, and takes over in turn.
            master.command("REPLICAOF", "127.0.0.1", replica.port)
            master.wait_until(lambda: "master_link_status:up" in master.command("INFO", "replication"), "follows")
            master.command("REPLICAOF", "NO", "ONE")
            assert await self.is_unknown(before)

    async def test_a_replica_that_comes_or_goes_changes_nothing(self, connect: Callable[[RedisServer], Redis]) -> None:
        """But the very first one, with which a master takes another name."""
        with RedisServer() as master:
            redis = connect(master)
            with RedisServer(replicaof=master):
                await RedisTill(redis).fill(ACME, filling())
                await self.spend(redis, "a", 1, 30)
            with RedisServer(replicaof=master):
                await self.spend(redis, "b", 2, 60)
            assert await RedisTill(redis).balance(ACME, (TENANT, HOUR)) == Balance(90, 0)

    async def test_flushed_it_knows_nothing(self, connect: Callable[[RedisServer], Redis]) -> None:
        with RedisServer() as server:
            redis = connect(server)
            await RedisTill(redis).fill(ACME, filling())
            await self.spend(redis, "a", 1, 30)
            server.command("FLUSHALL")
            assert await RedisTill(redis).hold(ask("new", 1)) == Unknown()
            assert await RedisTill(redis).balance(ACME, (TENANT, HOUR)) is None

    async def test_without_memory_nothing_is_held_and_everything_ends(
        self, connect: Callable[[RedisServer], Redis]
    ) -> None:
        with RedisServer() as server:
            redis = connect(server)
            till = RedisTill(redis)
            await till.fill(ACME, filling())
            await till.hold(ask("a", 40))
            server.command("CONFIG", "SET", "maxmemory", "1kb")
            with pytest.raises(Overloaded):
                await till.hold(ask("b", 10))
            await till.end([ending("a", 1, 25)])
            server.command("CONFIG", "SET", "maxmemory", "0")
            assert await till.hold(ask("b", 10)) == Granted(10, 1, (Balance(25, 10),) * 2)


async def test_postgres_knows_after_an_orderly_end_what_it_knew_and_after_a_crash_nothing() -> None:
    with PostgresServer() as server:
        url = server.database()
        for ends, known in ((server.restart, True), (server.kill, False)):
            postgres = Postgres(url)
            await postgres.migrate({"till": SCHEMA})
            till = PostgresTill(postgres)
            await till.fill(ACME, filling())
            await till.hold(ask("a", 40, lease=0.0))
            assert await till.overdue(ACME, 10) == [Overdue("a", ACME, 40)]
            await postgres.close()
            ends()
            server.restart()
            postgres = Postgres(url)
            found = await PostgresTill(postgres).hold(ask("b", 10))
            await postgres.close()
            assert found == (Granted(10, 1, (Balance(0, 50),) * 2) if known else Unknown())


def test_an_owner_is_a_tenant_or_an_organisation() -> None:
    assert owner_of("tenant:acme") == owner_of("user:acme/ann") == owner_of("model:acme/big/one") == ACME
    assert owner_of("organisation:all") == "o/all"
