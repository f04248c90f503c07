"""Book: what the conformance suite cannot see from outside: windows, memory bounds and the calendar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.budget.book import Book
from headgate.budget.budget import Balance, Entry, Hold, Scope, window_end, window_id
from headgate.model.tenancy import Window


def hold(id: str, *windows: str, amount: int = 10) -> Hold:
    scopes = tuple(Scope("tenant:acme", window) for window in windows)
    return Hold(id=id, scopes=scopes, amount=amount, lease=900.0, entry=Entry(tenant="acme"))


@given(st.integers(1_000_000_000, 4_000_000_000), st.sampled_from(["hour", "day", "month"]))
def test_a_window_ends_where_the_next_begins(at: int, window: Window) -> None:
    id = window_id(window, at)
    end = window_end(id)
    assert end is not None
    assert at < end
    assert window_id(window, end - 1e-3) == id != window_id(window, end)


@pytest.mark.parametrize("window", ["total", "", "hour", "hour:never", "week:2026-11", "month:2026-13"])
def test_other_windows_never_end(window: str) -> None:
    assert window_end(window) is None


def test_old_windows_are_forgotten_unless_something_is_held_there() -> None:
    times = [1_795_176_000.0]
    book = Book(now=lambda: times[0], keep=3_600.0)
    book.reserve(hold("a", "hour:2026-11-20T12", "total"))
    book.settle("a", 4)
    book.reserve(hold("b", "hour:2026-11-20T11"))
    times[0] += 7_000
    book.expire()
    assert book.balance("tenant:acme", "hour:2026-11-20T12") == Balance(4)
    times[0] += 500
    book.expire()
    assert book.balance("tenant:acme", "hour:2026-11-20T12") == Balance()
    assert book.balance("tenant:acme", "total") == Balance(4)


def test_as_many_ended_ids_are_remembered_as_was_asked() -> None:
    book = Book(now=lambda: 0.0, remember=2)
    for id in ("a", "b", "c"):
        book.reserve(hold(id, "total"))
        book.settle(id, 1)
    assert not book.reserve(hold("b", "total"))
    assert book.reserve(hold("a", "total"))


def test_one_scope_cannot_be_named_twice() -> None:
    book = Book(now=lambda: 0.0)
    with pytest.raises(ValueError, match="twice"):
        book.reserve(hold("a", "total", "total"))
    assert len(book) == 0
