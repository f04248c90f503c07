"""What a provider has refused is remembered for a moment, each tenant's own."""

from __future__ import annotations

from headgate.cache.refused import Refusals
from headgate.model.errors import Rejected
from headgate.model.tenancy import Key, Namespace

NO = Rejected("no", status=422)


def key(name: str, tenant: str = "acme") -> Key:
    return Key(Namespace(tenant), name.encode())


def told(refusals: Refusals, name: str, tenant: str = "acme") -> bool:
    found = refusals.find(key(name, tenant))
    return isinstance(found, Rejected) and (found.message, found.status) == ("no", 422)


class Clock:
    time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_refusal_is_found_until_its_time_is_over() -> None:
    clock = Clock()
    refusals = Refusals(keep=30.0, now=clock)
    assert not refusals
    refusals.keep(key("a"), NO)
    clock.time += 29.9
    assert refusals
    assert told(refusals, "a")
    assert refusals.find(key("b")) is None
    clock.time += 0.1
    assert refusals.find(key("a")) is None
    assert not refusals


def test_keeping_it_again_begins_its_time_anew() -> None:
    clock = Clock()
    refusals = Refusals(keep=30.0, now=clock)
    refusals.keep(key("a"), NO)
    refusals.keep(key("b"), NO)
    clock.time += 20.0
    refusals.keep(key("a"), NO)
    clock.time += 20.0
    assert refusals.find(key("b")) is None
    assert told(refusals, "a")


def test_nothing_is_found_by_another_tenant_or_forgotten_for_it() -> None:
    refusals = Refusals(keep=30.0, now=Clock())
    refusals.keep(key("a"), NO)
    assert refusals.find(key("a", "bolt")) is None
    refusals.forget("bolt")
    assert told(refusals, "a")
    refusals.forget("acme")
    assert not refusals


def test_a_tenants_oldest_makes_room() -> None:
    refusals = Refusals(keep=30.0, most=2, now=Clock())
    refusals.keep(key("a", "bolt"), NO)
    for name in ("a", "b", "c"):
        refusals.keep(key(name), NO)
    assert refusals.find(key("a")) is None
    assert told(refusals, "c")
    assert told(refusals, "a", "bolt")


def test_no_time_keeps_nothing() -> None:
    refusals = Refusals(keep=0.0, now=Clock())
    refusals.keep(key("a"), NO)
    assert not refusals


def test_tenants_who_never_come_back_are_forgotten() -> None:
    clock = Clock()
    refusals = Refusals(keep=30.0, tenants=3, now=clock)
    for tenant in ("a", "b", "c", "d"):
        refusals.keep(key("x", tenant), NO)
    assert [told(refusals, "x", tenant) for tenant in ("a", "b", "c", "d")] == [False, True, True, True]
    clock.time += 20.0
    refusals.keep(key("y", "b"), NO)
    clock.time += 20.0
    refusals.keep(key("x", "e"), NO)
    assert [told(refusals, "y", tenant) for tenant in ("b", "c")] == [True, False]
    clock.time += 30.0
    refusals.keep(key("z", "f"), NO)
    refusals.forget("f")
    assert not refusals


def test_the_error_that_is_kept_holds_on_to_no_call() -> None:
    refusals = Refusals(keep=30.0, now=Clock())
    try:
        raise Rejected("no", status=422, code="odd")
    except Rejected as error:
        refusals.keep(key("a"), error)
    found = refusals.find(key("a"))
    assert found is not None
    assert (found.__traceback__, found.code) == (None, "odd")
