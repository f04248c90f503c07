"""Tab: parts that come to the price, whoever can bear what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.budget.memory import MemoryLedger
from headgate.budget.reservation import Budget, Reservation
from headgate.coalesce.tab import Share, Tab
from headgate.coalesce.trail import Trail
from headgate.model.chat import Completion
from headgate.model.errors import Overloaded
from headgate.model.money import Usage
from headgate.model.record import Source
from headgate.model.tenancy import Principal, Wishes

ANSWER = Completion(model="m", choices=[], usage=Usage(), reported={})


class Rows:
    """What shares write down."""

    def __init__(self) -> None:
        self.written: list[tuple[int, Source]] = []
        self.jammed = False

    def write(self, part: int, source: Source, trail: Trail, completion: Completion) -> None:
        if self.jammed:
            raise Overloaded("The ledger cannot be written.", retry_after=1.0)
        self.written.append((part, source))

    def share(self, tab: Tab, *, leads: bool = False, alike: bool = False) -> Share:
        """A reader on a tab whom nothing limits."""
        share = Share(self.write, None)
        share.leads, share.alike = leads, alike
        tab.add(share)
        return share


async def limited(rows: Rows, tab: Tab, bears: int, number: int) -> Share:
    """A reader on a tab that has so much on hold."""
    budget = Budget(MemoryLedger())

    async def hold(most: int) -> Reservation:
        who = Principal(tenant="acme")
        return await budget.part(f"call-{number}", who, Wishes(), route="auto", most=most).__aenter__()

    share = Share(rows.write, hold)
    tab.add(share)
    assert await share.bear(bears)
    return share


@given(cost=st.integers(0, 10**6), free=st.integers(0, 5), bears=st.lists(st.integers(0, 10**5), max_size=5))
async def test_parts_are_equal_as_far_as_each_can_bear_it_and_the_rest_is_the_leaders(
    cost: int, free: int, bears: list[int]
) -> None:
    rows, tab = Rows(), Tab()
    rows.share(tab, leads=True)
    for _ in range(free):
        rows.share(tab)
    for number, most in enumerate(bears):
        await limited(rows, tab, most, number)
    shared = tab.settle(Trail(cost=cost), ANSWER)
    sharing = 1 + free + sum(most > 0 for most in bears)
    part = cost // sharing
    assert sorted(amount for amount, _ in rows.written) == sorted(
        [part] * free + [min(part, most) for most in bears if most]
    )
    assert shared == sum(amount for amount, _ in rows.written) <= cost


def test_what_is_settled_is_owed_once() -> None:
    rows, tab = Rows(), Tab()
    share = rows.share(tab)
    assert [tab.settle(Trail(cost=10), ANSWER) for _ in range(2)] == [5, 0]
    assert (share.owes, tab.settled) == (5, True)


def test_readers_of_a_flight_that_takes_the_answer_share_its_leader_among_them() -> None:
    rows, tab, guest, other = Rows(), Tab(), Tab(), Tab()
    rows.share(tab, leads=True)
    rows.share(guest, leads=True)
    rows.share(guest)
    rows.share(other, leads=True)
    guest.follow(tab, lambda _: True)
    other.follow(tab, lambda _: False)
    assert tab.settle(Trail(cost=9), ANSWER) == 6
    assert rows.written == [(3, "coalesced-semantic")] * 2
    assert (guest.settled, other.settled) == (True, False)


async def test_who_leads_a_flight_that_follows_no_more_gives_back_what_it_held() -> None:
    rows, tab, guest = Rows(), Tab(), Tab()
    leader, reader = await limited(rows, guest, 5, 1), await limited(rows, guest, 5, 2)
    leader.leads = True
    guest.follow(tab, lambda _: True)
    guest.part(tab)
    assert (leader.holds, reader.holds, guest.follows) == (False, True, False)
    assert tab.settle(Trail(cost=10), ANSWER) == 0


def test_an_answer_that_a_budget_of_the_leaders_has_cut_is_shared_by_those_alone_who_have_that_budget_too() -> None:
    rows, tab = Rows(), Tab()
    rows.share(tab, alike=True)
    rows.share(tab)
    assert tab.settle(Trail(cost=10, personal=True), ANSWER) == 5


def test_what_cannot_be_written_is_not_owed() -> None:
    rows, tab = Rows(), Tab()
    share = rows.share(tab)
    rows.jammed = True
    assert tab.settle(Trail(cost=10), ANSWER) == 0
    assert share.owes is None


def test_who_has_gone_with_nothing_is_on_no_tab() -> None:
    rows, tab = Rows(), Tab()
    tab.remove(rows.share(tab))
    assert tab.settle(Trail(cost=10), ANSWER) == 0
