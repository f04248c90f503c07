"""Which entries are known to have the same answer."""

from __future__ import annotations

from headgate.cache.kinship import Kinship
from headgate.cache.labels import Scope
from headgate.model.tenancy import Namespace

SHOP = Scope(Namespace("acme"), b"shop")
STRANGE = Scope(Namespace("umbra"), b"shop")


def test_an_entry_of_which_nothing_is_known_has_no_kin() -> None:
    kinship = Kinship(most=10)
    assert kinship.family(SHOP, "one") != kinship.family(SHOP, "other")


def test_who_has_the_answer_of_another_has_its_kin_too() -> None:
    kinship = Kinship(most=10)
    kinship.join(SHOP, "second", "first")
    kinship.join(SHOP, "third", "second")
    assert len({kinship.family(SHOP, one) for one in ("first", "second", "third")}) == 1
    assert kinship.family(SHOP, "fourth") != kinship.family(SHOP, "first")


def test_who_is_kin_in_one_scope_is_a_stranger_in_another() -> None:
    kinship = Kinship(most=10)
    kinship.join(SHOP, "second", "first")
    assert kinship.family(STRANGE, "second") != kinship.family(STRANGE, "first")


def test_the_oldest_kin_is_forgotten_and_the_rest_stays() -> None:
    kinship = Kinship(most=2)
    for number in range(3):
        kinship.join(SHOP, f"new {number}", f"old {number}")
    assert [kinship.family(SHOP, f"new {number}") == f"old {number}" for number in range(3)] == [False, True, True]
