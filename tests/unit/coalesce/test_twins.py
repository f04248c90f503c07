"""Questions in flight: who is found by whom, and who is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.cache import Question
from headgate.coalesce.coalesce import Flight
from headgate.coalesce.twins import COMPANY, MOST, Asking, Twins

FAR = 0.7


def question(angle: float) -> Question:
    """One that is as near to another as the cosine of the angle between them, in degrees."""
    radians = np.radians(angle)
    vector = np.array([np.cos(radians), np.sin(radians)], np.float32)
    return Question(f"question at {angle:g}", vector, b"partition", b"scope")


def entered(twins: Twins, *angles: float, place: Hashable = "here") -> list[Asking]:
    """Flights with these questions, in this order."""
    return [twins.enter(Flight(f"flight-{angle:g}"), question(angle), place) for angle in angles]


async def test_those_that_entered_before_are_found_the_nearest_first() -> None:
    twins = Twins()
    far, near, nearer, asking, _ = entered(twins, 80.0, 30.0, 10.0, 0.0, 5.0)
    assert [one for _, one in twins.near(asking, FAR)] == [nearer, near]
    assert twins.near(far, FAR) == []


async def test_nothing_is_found_in_another_place() -> None:
    twins = Twins()
    entered(twins, 0.0, place="there")
    (asking,) = entered(twins, 0.0)
    assert twins.near(asking, FAR) == []


async def test_no_more_are_looked_at_than_can_be_compared() -> None:
    twins = Twins()
    *_, asking = entered(twins, *(step / 10 for step in range(MOST + 20)))
    assert len(twins.near(asking, FAR)) == MOST


async def test_only_who_leads_is_found_after_all_have_decided() -> None:
    twins = Twins()
    leader, follower, asking = entered(twins, 0.0, 1.0, 2.0)
    twins.decide(leader, None)
    leading = asyncio.ensure_future(twins.leading(twins.near(asking, FAR)))
    await asyncio.sleep(0)
    assert not leading.done(), "one that came before has yet to decide"
    twins.decide(follower, leader)
    assert [one for _, one in await leading] == [leader]


async def test_who_gives_up_waiting_takes_the_decision_from_nobody() -> None:
    twins = Twins()
    leader, asking = entered(twins, 0.0, 1.0)
    waiting = asyncio.ensure_future(twins.leading(twins.near(asking, FAR)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    twins.decide(leader, None)
    assert leader.leads.result() is True


async def test_one_that_leaves_without_a_decision_leads_nobody() -> None:
    twins = Twins()
    older, asking = entered(twins, 0.0, 1.0)
    near = twins.near(asking, FAR)
    twins.leave(older)
    assert await twins.leading(near) == []


async def test_a_decision_is_final() -> None:
    twins = Twins()
    other, one = entered(twins, 0.0, 1.0)
    twins.decide(one, None)
    twins.decide(one, other)
    assert one.leads.result() is True
    assert twins.company(other, one, FAR) == []
    twins.leave(one)
    twins.leave(other)
    assert len(twins) == 0


async def test_the_nearest_of_those_that_share_an_answer_are_the_company_of_who_comes_next() -> None:
    twins = Twins()
    leader, *followers, asking = entered(twins, 90.0, 80.0, *(float(angle) for angle in range(40, 40 + COMPANY)), 30.0)
    assert twins.company(asking, leader, FAR) == []
    twins.decide(leader, None)
    for follower in followers:
        twins.decide(follower, leader)
    assert [one.text for one in twins.company(asking, leader, FAR)] == [
        f"question at {angle}" for angle in range(40, 40 + COMPANY)
    ]


@given(
    st.lists(st.tuples(st.sampled_from(["enter", "lead", "follow", "leave"]), st.integers(0, 20), st.integers(0, 90)))
)
def test_what_is_found_is_what_has_entered_and_neither_left_nor_follows(steps: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        twins, here, all_ = Twins(), list[Asking](), list[Asking]()
        for step, which, angle in steps:
            if step == "enter" or not here:
                one = twins.enter(Flight(f"{len(all_)}"), question(angle), which % 2)
                here.append(one)
                all_.append(one)
                found = {other.flight.id for _, other in twins.near(one, FAR)}
                expected = {
                    other.flight.id
                    for other in here
                    if other is not one
                    and other.place == one.place
                    and float(other.question.vector @ one.question.vector) >= FAR
                }
                assert found == expected
                continue
            one = here[which % len(here)]
            if step == "leave":
                twins.leave(one)
            else:
                twins.decide(one, None if step == "lead" else all_[0])
            if step == "leave" or not one.leads.result():
                here.remove(one)
            assert len(twins) == len(here)
        for one in here:
            twins.leave(one)
        assert len(twins) == 0

    asyncio.run(run())
