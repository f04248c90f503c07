"""Book: what the conformance suite cannot see from outside: which windows and ids are forgotten, and when."""

from __future__ import annotations

import pytest

from headgate.budget.book import Book
from headgate.budget.budget import Balance, Entry, Hold, Scope
from headgate.model.errors import Overloaded

NOON = 1_795_176_000.0
"""2026-11-20T12:00:00Z."""

HOUR = "hour:2026-11-20T12"


class Times:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def times() -> Times:
    return Times()


def hold(id: str, *windows: str, amount: int = 10) -> Hold:
    scopes = tuple(Scope("tenant:acme", window) for window in windows)
    return Hold(id=id, scopes=scopes, amount=amount, least=amount, lease=900.0, entry=Entry(tenant="acme"))


def spend(book: Book, id: str, *windows: str, amount: int = 4) -> None:
    book.reserve(hold(id, *windows))
    book.settle(id, (Entry(tenant="acme", amount=amount),))


def test_a_window_is_forgotten_some_time_after_it_was_seen_to_be_over(times: Times) -> None:
    book = Book(now=times, keep=3_600.0)
    spend(book, "a", HOUR, "total")
    for seconds, kept in ((3_599, 4), (1, 4), (3_599, 4), (1, 0)):
        times.now += seconds
        book.expire()
        assert book.balance("tenant:acme", HOUR) == Balance(kept)
    assert book.balance("tenant:acme", "total") == Balance(4)
    assert len(book.counters) == 1


def test_a_window_in_which_something_is_held_is_not_forgotten(times: Times) -> None:
    book = Book(now=times, keep=60.0)
    book.reserve(hold("a", HOUR))
    for _ in range(200):
        times.now += 60
        book.extend("a", 900.0)
        book.expire()
    assert book.balance("tenant:acme", HOUR) == Balance(held=10)
    book.release("a")
    book.expire()
    assert len(book.counters) == 0


def test_a_clock_that_leaps_ahead_must_stay_there_for_windows_to_be_forgotten(times: Times) -> None:
    book = Book(now=times, keep=3_600.0)
    spend(book, "a", HOUR)
    for leap in (10**8, 10**9, 3 * 10**8):
        times.now = NOON + leap
        book.expire()
        times.now = NOON
        book.expire()
    assert book.balance("tenant:acme", HOUR) == Balance(4)


def test_as_many_ended_ids_are_remembered_as_was_asked(times: Times) -> None:
    book = Book(now=times, remember=2)
    for id in ("a", "b", "c"):
        spend(book, id, "total", amount=1)
    book.reserve(hold("b", "total"))
    assert len(book) == 0
    book.reserve(hold("a", "total"))
    assert len(book) == 1


def test_open_reservations_are_remembered_however_many_have_ended(times: Times) -> None:
    book = Book(now=times, remember=2)
    book.reserve(hold("open", "total"))
    for number in range(10):
        spend(book, f"c{number}", "total", amount=0)
    assert book.reserve(hold("open", "total")) == 10
    assert book.balance("tenant:acme", "total") == Balance(held=10)


def test_the_id_of_a_lost_call_is_not_good_for_another(times: Times) -> None:
    book = Book(now=times)
    book.reserve(hold("a", "total"))
    book.dispatch("a")
    times.now += 900
    (lost,) = book.expire()
    assert (lost.hold.id, lost.amount) == ("a", 10)
    book.reserve(hold("a", "total"))
    with pytest.raises(Overloaded):
        book.dispatch("a")
    assert book.balance("tenant:acme", "total") == Balance(10)
