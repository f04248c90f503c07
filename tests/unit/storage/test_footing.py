"""Whether a store is to be relied on."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.errors import Overloaded
from headgate.storage.footing import FAILURES, LONGEST, QUIET, SHORTEST, Footing


class Store:
    """A footing and a clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.footing = Footing("Redis", clock=lambda: self.now)

    def fall(self) -> None:
        for _ in range(FAILURES):
            self.footing.slipped("connection refused")

    def admits(self) -> bool:
        try:
            self.footing.admit()
        except Overloaded:
            return False
        return True


@pytest.fixture
def store() -> Store:
    return Store()


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_failures_in_a_row_open_it_and_an_answer_between_them_does_not(store) -> None:
    for _ in range(5):
        store.footing.slipped("lost")
        store.footing.slipped("lost")
        store.footing.held()
    assert store.admits()
    store.fall()
    assert not store.admits()
    assert store.footing.fault == "connection refused"


def test_while_it_is_open_everybody_is_refused_but_one_who_looks(store) -> None:
    store.fall()
    store.now += SHORTEST
    assert [store.admits() for _ in range(5)] == [True, False, False, False, False]


def test_those_who_were_under_way_when_it_opened_do_not_keep_it_open_for_longer(store) -> None:
    store.fall()
    for _ in range(100):
        store.footing.slipped("connection refused")
    store.now += SHORTEST
    assert store.admits()


def test_one_who_looks_and_never_tells_keeps_nobody_out_for_long(store) -> None:
    store.fall()
    for _ in range(3):
        store.now += SHORTEST
        assert store.admits()


def test_what_the_one_who_looks_meets_decides(store) -> None:
    store.fall()
    store.now += SHORTEST
    assert store.admits()
    store.footing.held()
    assert all(store.admits() for _ in range(5))
    assert store.footing.fault == ""


def test_looks_in_vain_come_ever_more_seldom_up_to_a_bound(store) -> None:
    store.fall()
    waits = []
    for _ in range(8):
        before = store.now
        while not store.admits():
            store.now += SHORTEST / 10
        waits.append(store.now - before)
        store.footing.slipped("still")
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(LONGEST, abs=SHORTEST)


def test_there_is_one_line_in_the_log_for_each_change(store, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    for _ in range(3):
        for _ in range(10):
            store.fall()
        store.footing.held()
        store.footing.held()
    assert lines(caplog) == ["Redis does not answer: connection refused", "Redis answers again"] * 3


def test_a_server_that_refuses_is_asked_on_and_told_of_once(store, caplog) -> None:
    for _ in range(50):
        refusal = store.footing.refused("it is full")
        store.footing.held()
        assert store.admits()
        store.now += 0.1
    assert refusal.retry_after
    assert store.footing.fault == "it is full"
    store.now += QUIET
    store.footing.held()
    assert store.footing.fault == ""
    assert lines(caplog) == ["Redis does not do its work: it is full", "Redis does its work again"]


def test_everyone_who_is_refused_gets_an_error_of_their_own(store) -> None:
    store.fall()
    with pytest.raises(Overloaded) as one:
        store.footing.admit()
    with pytest.raises(Overloaded) as other:
        store.footing.admit()
    assert one.value is not other.value


@given(st.lists(st.sampled_from(["admit", "held", "slipped", "refused", "wait"]), max_size=60))
def test_whatever_happens_it_lets_somebody_through_within_the_longest_wait(moves: list[str]) -> None:
    store = Store()
    for move in moves:
        if move == "admit":
            store.admits()
        elif move == "held":
            store.footing.held()
            assert store.admits()
        elif move == "wait":
            store.now += 0.3
        else:
            getattr(store.footing, move)("why")
            assert store.footing.fault or move == "slipped"
    store.now += LONGEST
    assert store.admits()
