"""What is not shared for a while: for how long, and how many of them are remembered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.coalesce.apart import Apart


class Clock:
    time = 100.0

    def __call__(self) -> float:
        return self.time


def test_what_was_never_kept_is_not_apart() -> None:
    apart = Apart(clock=Clock())
    assert "a" not in apart
    assert None not in apart


def test_a_key_is_apart_until_its_time_is_over_and_not_at_its_end() -> None:
    clock = Clock()
    apart = Apart(keep=10.0, clock=clock)
    apart.keep("a")
    assert "a" in apart
    clock.time += 9.999
    assert "a" in apart
    assert "b" not in apart
    clock.time += 0.001
    assert "a" not in apart


def test_what_proves_useless_again_is_apart_from_then_on() -> None:
    clock = Clock()
    apart = Apart(keep=10.0, clock=clock)
    apart.keep("a")
    clock.time += 8.0
    apart.keep("a")
    clock.time += 8.0
    assert "a" in apart


def test_of_too_many_the_one_that_was_kept_longest_ago_is_shared_again() -> None:
    apart = Apart(most=2, clock=Clock())
    for key in ("a", "b", "a", "c"):
        apart.keep(key)
    assert [key in apart for key in "abc"] == [True, False, True]


steps = st.lists(st.tuples(st.sampled_from(["keep", "wait"]), st.integers(0, 4)), max_size=40)


@given(steps=steps)
def test_it_is_apart_exactly_when_it_was_kept_less_than_its_time_ago(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    apart = Apart(keep=5.0, clock=clock)
    kept: dict[int, float] = {}
    for what, number in steps:
        if what == "keep":
            apart.keep(number)
            kept[number] = clock.time
        else:
            clock.time += number
        for key in range(5):
            assert (key in apart) == (key in kept and clock.time - kept[key] < 5.0)
