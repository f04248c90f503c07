"""How long a follower waits: never less than everyone does, and for whole answers as long as those of the route are known to take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.coalesce.patience import LEAST, ROUTES, Patience

seconds = st.floats(0.0, 1e4)


def test_nothing_is_known_of_a_route_at_first() -> None:
    patience = Patience()
    assert patience.of("auto", stream=True) == patience.of("auto", stream=False) == LEAST == 5.0


def test_a_stream_has_to_begin_in_the_same_time_however_long_its_answers_take() -> None:
    patience = Patience()
    patience.observe("auto", 60.0)
    assert patience.of("auto", stream=True) == LEAST


def test_the_first_answer_is_taken_with_half_of_it_as_its_deviation_as_tcp_does() -> None:
    patience = Patience()
    patience.observe("auto", 10.0)
    assert patience.of("auto", stream=False) == 10.0 + 4 * 5.0


def test_further_answers_move_mean_and_deviation_by_the_gains_of_rfc_6298() -> None:
    patience = Patience()
    patience.observe("auto", 10.0)
    patience.observe("auto", 18.0)
    deviation = 5.0 * 3 / 4 + abs(10.0 - 18.0) / 4
    mean = 10.0 * 7 / 8 + 18.0 / 8
    assert patience.of("auto", stream=False) == pytest.approx(mean + 4 * deviation)


def test_answers_that_all_take_the_same_are_waited_for_little_longer() -> None:
    patience = Patience()
    for _ in range(100):
        patience.observe("auto", 20.0)
    assert patience.of("auto", stream=False) == pytest.approx(20.0)


def test_quick_answers_make_nobody_wait_less_than_the_least() -> None:
    patience = Patience(least=2.0)
    for _ in range(10):
        patience.observe("auto", 0.01)
    assert patience.of("auto", stream=False) == 2.0


def test_a_route_says_nothing_of_another() -> None:
    patience = Patience()
    patience.observe("slow", 100.0)
    assert patience.of("quick", stream=False) == LEAST


def test_of_too_many_routes_the_oldest_is_forgotten() -> None:
    patience = Patience()
    for number in range(ROUTES + 1):
        patience.observe(f"route {number}", 100.0)
    assert patience.of("route 0", stream=False) == LEAST
    assert patience.of("route 1", stream=False) > LEAST


@given(took=st.lists(seconds, max_size=30), stream=st.booleans())
def test_it_is_never_less_than_the_least_nor_endless(took: list[float], stream: bool) -> None:
    patience = Patience()
    for one in took:
        patience.observe("auto", one)
    # The mean is at most the longest, and so is the deviation.
    assert LEAST <= patience.of("auto", stream=stream) <= max([LEAST, *(5 * one for one in took)]) * (1 + 1e-9)
