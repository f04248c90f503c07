"""Organisations: who belongs where, and what that means for a caller."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.errors import Conflict, InvalidRequest, NotFound
from headgate.model.tenancy import Policy
from headgate.tenants.memory import MemoryDirectory
from headgate.tenants.organisations import Organisation, check_place, lineage
from headgate.tenants.tenants import Tenants

NAMES = "abcdef"


@pytest.fixture
def tenants() -> Tenants:
    return Tenants(MemoryDirectory(), defaults=Policy(), now=lambda: 5.0, monotonic=lambda: 0.0)


async def test_a_caller_brings_along_its_organisations_nearest_first(tenants: Tenants) -> None:
    for name, parent in (("world", None), ("europe", "world"), ("oslo", "europe")):
        await tenants.organisations.put(name, parent)
    acme = await tenants.create("acme", policy={"organisation": "oslo"})
    key = (await tenants.create_key(acme.id)).key
    assert (await tenants.authenticate(key)).organisations == ("oslo", "europe", "world")


async def test_a_change_applies_to_the_next_call(tenants: Tenants) -> None:
    for name in ("north", "south", "oslo"):
        await tenants.organisations.put(name)
    acme = await tenants.create("acme", policy={"organisation": "oslo"})
    key = (await tenants.create_key(acme.id)).key
    assert (await tenants.authenticate(key)).organisations == ("oslo",)
    await tenants.organisations.put("oslo", "north")
    assert (await tenants.authenticate(key)).organisations == ("oslo", "north")
    await tenants.update(acme.id, policy={"organisation": "south"})
    assert (await tenants.authenticate(key)).organisations == ("south",)
    await tenants.update(acme.id, policy={"organisation": None})
    assert (await tenants.authenticate(key)).organisations == ()


async def test_a_given_admin_key_has_the_organisations_of_the_default_tenant(tenants: Tenants) -> None:
    chosen = Tenants(MemoryDirectory(), defaults=Policy(), admin_key="chosen")
    await chosen.ensure_admin()
    await chosen.organisations.put("north")
    await chosen.update("default", policy={"organisation": "north"})
    assert (await chosen.authenticate("chosen")).organisations == ("north",)


async def test_members_are_those_of_an_organisation_and_of_all_beneath_it(tenants: Tenants) -> None:
    for name, parent in (("world", None), ("europe", "world"), ("oslo", "europe"), ("asia", "world")):
        await tenants.organisations.put(name, parent)
    ids = {
        name: (await tenants.create(f"in {name}", policy={"organisation": name})).id
        for name in ("world", "oslo", "asia")
    }
    await tenants.create("in none")
    assert set(await tenants.members("world")) == set(ids.values())
    assert await tenants.members("europe") == (ids["oslo"],)
    assert await tenants.members("nowhere") == ()


async def test_the_zone_of_a_tenant_is_its_policys(tenants: Tenants) -> None:
    acme = await tenants.create("acme", policy={"zone": "Asia/Kathmandu"})
    assert (await tenants.zone(acme.id), await tenants.zone("nobody")) == ("Asia/Kathmandu", "UTC")
    await tenants.update(acme.id, policy={"zone": "Europe/Berlin"})
    assert await tenants.zone(acme.id) == "Europe/Berlin"


async def test_an_unknown_organisation_is_refused_naming_one_nearly_so_called(tenants: Tenants) -> None:
    await tenants.organisations.put("north")
    acme = await tenants.create("acme")
    for attempt in (
        tenants.create("globex", policy={"organisation": "nort"}),
        tenants.update(acme.id, policy={"organisation": "nort"}),
    ):
        with pytest.raises(NotFound, match="did you mean north") as caught:
            await attempt
        assert caught.value.param == "organisation"
    assert [one.name for one in await tenants.list_tenants()] == ["acme"]


@pytest.mark.parametrize("name", ["", " a", "a/b", "a:b", "x" * 65, "\n"])
async def test_odd_names_are_refused(tenants: Tenants, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await tenants.organisations.put(name)
    assert await tenants.organisations.all() == []


async def test_moving_keeps_the_day_it_was_made(tenants: Tenants) -> None:
    directory = MemoryDirectory()
    moments = iter([1.0, 2.0, 3.0])
    registry = Tenants(directory, defaults=Policy(), now=lambda: next(moments)).organisations
    await registry.put("a")
    await registry.put("b")
    assert await registry.put("b", "a") == Organisation(name="b", parent="a", created=2.0)


async def test_what_is_not_there_cannot_be_deleted(tenants: Tenants) -> None:
    with pytest.raises(NotFound):
        await tenants.organisations.drop("north")


async def test_what_limits_a_tenant_is_there_before_it_is(tenants: Tenants) -> None:
    async def prepare(id: str) -> None:
        prepared.append((id, await tenants.list_tenants()))

    prepared: list[tuple[str, list[object]]] = []
    made = await tenants.create("acme", prepare=prepare)
    assert prepared == [(made.id, [])]

    async def fail(_: str) -> None:
        raise Conflict("no")

    with pytest.raises(Conflict):
        await tenants.create("globex", prepare=fail)
    assert await tenants.list_tenants() == [made]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.none() | st.sampled_from(NAMES)), max_size=40))
def test_whatever_is_moved_where_every_way_up_ends(moves: list[tuple[str, str | None]]) -> None:
    known: dict[str, Organisation] = {}
    for name, parent in moves:
        wanted = Organisation(name=name, parent=parent)
        try:
            check_place(known.values(), wanted)
        except (Conflict, NotFound):
            continue
        known[name] = wanted
    for name in known:
        way = lineage(known.values(), name)
        assert len(way) == len(set(way)) <= len(known)
