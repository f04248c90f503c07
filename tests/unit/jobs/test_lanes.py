"""Whose job is next, and how many may wait."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.jobs.jobs import Waiting
from headgate.jobs.lanes import Bounds, Lanes
from headgate.model.errors import Overloaded, RateLimited


def lanes(**bounds: int) -> Lanes:
    return Lanes(Bounds(**bounds))


def waits(among: Lanes, *names: str) -> None:
    """Jobs such as `a1`: the first one of the tenant `a`."""
    for name in names:
        among.let_in(name[0], 10)
        among.put(Waiting(name[0], name, 10, 0.0))


def taken(among: Lanes, count: int = 99, now: float = 0.0) -> list[str]:
    found = []
    while len(found) < count and (waiting := among.take(now)) is not None:
        found.append(waiting.id)
    return found


def test_a_tenants_jobs_come_in_their_order() -> None:
    among = lanes()
    waits(among, "a1", "a2", "a3")
    assert taken(among) == ["a1", "a2", "a3"]


def test_tenants_take_turns_however_many_jobs_one_of_them_has() -> None:
    among = lanes()
    waits(among, "a1", "a2", "a3", "a4", "b1", "b2", "c1")
    assert taken(among) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_who_has_the_fewest_at_work_is_next() -> None:
    among = lanes(at_work=4)
    waits(among, "a1", "a2", "a3", "a4")
    assert taken(among) == ["a1", "a2", "a3"]
    waits(among, "b1", "b2")
    assert taken(among) == ["b1"]
    among.done(Waiting("a", "a1", 10, 0.0))
    assert taken(among) == []
    among.done(Waiting("a", "a2", 10, 0.0))
    assert taken(among) == ["a4"]
    among.done(Waiting("a", "a3", 10, 0.0))
    assert taken(among) == ["b2"]


def test_the_last_free_place_is_for_somebody_who_has_none() -> None:
    among = lanes(at_work=3)
    waits(among, "a1", "a2", "a3")
    assert taken(among) == ["a1", "a2"]
    waits(among, "b1", "b2")
    assert taken(among) == ["b1"]


def test_with_a_single_place_everybody_gets_it_in_turn() -> None:
    among = lanes(at_work=1)
    waits(among, "a1", "a2", "b1")
    order = []
    while (waiting := among.take(0.0)) is not None:
        order.append(waiting.id)
        assert among.take(0.0) is None
        among.done(waiting)
    assert order == ["a1", "b1", "a2"]


def test_a_tenant_may_have_so_many_open_jobs_and_another_is_not_touched_by_it() -> None:
    among = lanes(open_of_a_tenant=2)
    waits(among, "a1", "a2")
    taken(among, 1)
    with pytest.raises(RateLimited) as refused:
        among.let_in("a", 10)
    assert refused.value.retry_after == 1.0
    waits(among, "b1")
    among.done(Waiting("a", "a1", 10, 0.0))
    among.let_in("a", 10)


@pytest.mark.parametrize("bounds", [{"open": 2}, {"bytes": 25}])
def test_all_together_may_have_so_many_and_so_many_bytes(bounds: dict[str, int]) -> None:
    among = lanes(**bounds)
    waits(among, "a1", "b1")
    with pytest.raises(Overloaded) as refused:
        among.let_in("c", 10)
    assert refused.value.retry_after == 1.0
    among.take(0.0)
    with pytest.raises(Overloaded):
        among.let_in("c", 10)
    among.done(Waiting("a", "a1", 10, 0.0))
    among.let_in("c", 10)


def test_a_place_that_was_kept_and_not_used_is_free_again() -> None:
    among = lanes(open=1)
    among.let_in("a", 10)
    among.leave("a", 10)
    waits(among, "b1")
    assert among.counts() == {("b", "queued"): 1.0, ("b", "in_flight"): 0.0}


def test_what_was_accepted_before_a_restart_comes_back_whatever_the_bounds() -> None:
    among = lanes(open=1, open_of_a_tenant=1, bytes=10)
    among.learn((), [Waiting("a", f"a{number}", 10, 0.0) for number in range(3)])
    assert taken(among) == ["a0", "a1", "a2"]


def queue(*names: str) -> list[Waiting]:
    return [Waiting(name[0], name, 10, 0.0) for name in names]


def test_what_others_have_submitted_waits_here_as_well_and_counts() -> None:
    among = lanes(open=3)
    waits(among, "a1")
    among.learn(among.waiting(), queue("b1", "a1", "a2"))
    with pytest.raises(Overloaded):
        among.let_in("c", 10)
    assert taken(among) == ["a1", "b1", "a2"]


def test_what_others_have_begun_waits_here_no_more_and_what_is_at_work_here_stays() -> None:
    among = lanes()
    waits(among, "a1", "a2", "b1")
    assert taken(among, 1) == ["a1"]
    among.learn(among.waiting(), queue("a2"))
    assert among.counts() == {("a", "queued"): 1.0, ("a", "in_flight"): 1.0}
    among.learn(among.waiting(), queue("a1", "a2"))
    assert taken(among) == ["a2"]


def test_what_came_in_while_somebody_looked_is_not_taken_for_begun_and_waits_once() -> None:
    among = lanes(open_of_a_tenant=3)
    waits(among, "a1")
    before = among.waiting()
    waits(among, "a2")
    among.let_in("a", 10)
    among.learn(before, queue("a1", "a3"))
    among.put(queue("a3")[0])
    assert among.counts()["a", "queued"] == 3.0
    assert taken(among) == ["a1", "a2", "a3"]
    for waiting in queue("a1", "a2", "a3"):
        among.done(waiting)
    assert among.counts() == {}


def test_a_lane_that_rests_does_so_whatever_is_learnt() -> None:
    among = lanes()
    waits(among, "a1", "a2")
    first = among.take(0.0)
    assert first is not None
    among.put_back(first, 5.0)
    among.learn(among.waiting(), queue("a1", "a2", "a3"))
    assert taken(among, now=1.0) == []
    assert taken(among, now=5.0) == ["a2", "a1", "a3"]


def test_a_job_that_is_put_back_waits_behind_the_others_and_its_lane_rests() -> None:
    among = lanes()
    waits(among, "a1", "a2", "b1")
    first = among.take(0.0)
    assert first is not None
    among.put_back(first, 5.0)
    assert among.pause(1.0) == 4.0
    assert taken(among, now=1.0) == ["b1"]
    assert among.pause(5.0) is None
    assert taken(among, now=5.0) == ["a2", "a1"]


def test_the_states_of_all_jobs_can_be_counted() -> None:
    among = lanes()
    waits(among, "a1", "a2", "b1")
    taken(among, 1)
    assert among.counts() == {
        ("a", "queued"): 1.0,
        ("a", "in_flight"): 1.0,
        ("b", "queued"): 1.0,
        ("b", "in_flight"): 0.0,
    }
    taken(among)
    for tenant, id in (("a", "a1"), ("a", "a2"), ("b", "b1")):
        among.done(Waiting(tenant, id, 10, 0.0))
    assert among.counts() == {}


STEPS = st.lists(st.tuples(st.sampled_from(["submit", "take", "done", "back", "pass"]), st.sampled_from("abc")))


@given(STEPS, st.integers(1, 4))
def test_whatever_happens_every_job_is_taken_again_until_it_is_done_and_bounds_hold(
    steps: list[tuple[str, str]], places: int
) -> None:
    among, now, count = lanes(at_work=places, open=6, open_of_a_tenant=4), 0.0, 0
    at_work: list[Waiting] = []
    open_jobs: set[str] = set()
    for step, tenant in steps:
        if step == "submit":
            count += 1
            mine = sum(id[0] == tenant for id in open_jobs)
            try:
                waits(among, f"{tenant}{count}")
            except (RateLimited, Overloaded):
                assert mine == 4 or len(open_jobs) == 6
            else:
                assert mine < 4
                assert len(open_jobs) < 6
                open_jobs.add(f"{tenant}{count}")
        elif step == "take" and (waiting := among.take(now)) is not None:
            at_work.append(waiting)
        elif step == "done" and at_work:
            done = at_work.pop(0)
            among.done(done)
            open_jobs.remove(done.id)
        elif step == "back" and at_work:
            among.put_back(at_work.pop(), now + 1)
        elif step == "pass":
            now += 1
        assert len(at_work) <= places
        assert sum(among.counts().values()) == len(open_jobs)
    finished = Counter(one.id for one in at_work)
    while at_work:
        among.done(at_work.pop())
    while (waiting := among.take(now + 2)) is not None:
        finished[waiting.id] += 1
        among.done(waiting)
    assert finished == Counter(open_jobs)
