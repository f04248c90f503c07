"""Tenants and keys: who gets in, for how long, and what is stored of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from headgate.model.errors import Conflict, InvalidRequest, NotFound, Overloaded, Unauthenticated
from headgate.model.tenancy import KeyRecord, Policy
from headgate.tenants.known import FRESH_SECONDS, MOST_KEYS, STALE_SECONDS
from headgate.tenants.memory import MemoryDirectory
from headgate.tenants.sqlite import SqliteDirectory
from headgate.tenants.tenants import Account, Tenants

DEFAULTS = Policy(rpm=120, concurrency=50)


class Times:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.wall = 1_795_176_000.0
        self.steady = 0.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


class CountingDirectory(MemoryDirectory):
    """Counts how often it is asked for a key, and can be made to wait, or to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None

    async def find(self, digest: str) -> tuple[KeyRecord, Account] | None:
        self.asked += 1
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return await super().find(digest)


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def directory() -> CountingDirectory:
    return CountingDirectory()


@pytest.fixture
def tenants(directory: CountingDirectory, times: Times) -> Tenants:
    return tenants_over(directory, times)


def tenants_over(directory: Any, times: Times, **options: Any) -> Tenants:
    return Tenants(directory, defaults=DEFAULTS, now=lambda: times.wall, monotonic=lambda: times.steady, **options)


async def test_a_key_opens_its_tenant_with_its_policy(tenants: Tenants) -> None:
    acme = await tenants.create("acme", policy={"rpm": 7})
    issued = await tenants.create_key(acme.id, user="ann", role="tenant_admin")
    caller = await tenants.authenticate(issued.key)
    assert (caller.tenant, caller.key, caller.role, caller.user) == (acme.id, issued.record.id, "tenant_admin", "ann")
    assert caller.policy == Policy(rpm=7, concurrency=50)


async def test_keys_are_long_and_only_their_digest_is_stored(tenants: Tenants, directory: CountingDirectory) -> None:
    acme = await tenants.create("acme")
    issued = await tenants.create_key(acme.id)
    assert issued.key.startswith("hg-")
    assert len(issued.key) >= 43
    assert issued.key not in repr(vars(directory))
    assert issued.key[3:] not in repr(vars(tenants))


async def test_one_key_has_another_digest_under_another_pepper(times: Times) -> None:
    digests = set()
    for pepper in ("one", "two"):
        tenants = tenants_over(MemoryDirectory(), times, pepper=pepper, random=lambda size: "x" * size)
        acme = await tenants.create("acme")
        digests.add((await tenants.create_key(acme.id)).record.digest)
    assert len(digests) == 2


@pytest.mark.parametrize("key", ["", "hg-wrong", "sk-whatever", "hg-\ud800"])
async def test_wrong_keys_open_nothing(tenants: Tenants, key: str) -> None:
    await tenants.ensure_admin()
    with pytest.raises(Unauthenticated):
        await tenants.authenticate(key)


async def test_an_expired_key_says_so_at_once(tenants: Tenants, times: Times) -> None:
    acme = await tenants.create("acme")
    issued = await tenants.create_key(acme.id, expires=times.wall + 1)
    await tenants.authenticate(issued.key)
    times.pass_by(1)
    with pytest.raises(Unauthenticated, match="expired"):
        await tenants.authenticate(issued.key)


async def test_a_known_key_is_looked_up_once_in_two_seconds(
    tenants: Tenants, directory: CountingDirectory, times: Times
) -> None:
    acme = await tenants.create("acme")
    issued = await tenants.create_key(acme.id)
    for _ in range(5):
        await tenants.authenticate(issued.key)
    assert directory.asked == 1
    times.pass_by(FRESH_SECONDS)
    await tenants.authenticate(issued.key)
    assert directory.asked == 2


async def test_callers_that_come_together_ask_once_and_one_hanging_up_stops_nobody(
    tenants: Tenants, directory: CountingDirectory
) -> None:
    acme = await tenants.create("acme")
    issued = await tenants.create_key(acme.id)
    directory.gate.clear()
    callers = [asyncio.create_task(tenants.authenticate(issued.key)) for _ in range(10)]
    while not directory.asked:
        await asyncio.sleep(0)
    callers[0].cancel()
    directory.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert {result.tenant for result in results[1:] if not isinstance(result, BaseException)} == {acme.id}
    assert directory.asked == 1


async def test_wrong_keys_are_remembered_but_not_without_end(tenants: Tenants, directory: CountingDirectory) -> None:
    async def refuse(key: str) -> None:
        with pytest.raises(Unauthenticated):
            await tenants.authenticate(key)

    await refuse("hg-0")
    await refuse("hg-0")
    assert directory.asked == 1
    for number in range(1, MOST_KEYS + 1):
        await refuse(f"hg-{number}")
    await refuse(f"hg-{MOST_KEYS}")
    assert directory.asked == MOST_KEYS + 1
    await refuse("hg-0")
    assert directory.asked == MOST_KEYS + 2


async def test_a_key_that_was_used_lately_works_for_an_hour_while_the_directory_cannot_be_asked(
    tenants: Tenants, directory: CountingDirectory, times: Times
) -> None:
    acme = await tenants.create("acme")
    used, unused = [(await tenants.create_key(acme.id)).key for _ in range(2)]
    await tenants.authenticate(used)
    directory.fault = Overloaded("The directory does not answer.", retry_after=1.0)
    times.pass_by(STALE_SECONDS)
    assert (await tenants.authenticate(used)).tenant == acme.id
    with pytest.raises(Overloaded):
        await tenants.authenticate(unused)
    times.pass_by(FRESH_SECONDS)
    with pytest.raises(Overloaded):
        await tenants.authenticate(used)


async def test_a_key_that_was_revoked_while_the_directory_could_not_be_asked_is_refused_when_it_can(
    tenants: Tenants, directory: CountingDirectory, times: Times
) -> None:
    issued = await tenants.create_key((await tenants.create("acme")).id)
    await tenants.authenticate(issued.key)
    await tenants_over(directory, times).revoke_key(issued.record.id)
    directory.fault = Overloaded("The directory does not answer.", retry_after=1.0)
    times.pass_by(FRESH_SECONDS)
    await tenants.authenticate(issued.key)
    directory.fault = None
    with pytest.raises(Unauthenticated):
        await tenants.authenticate(issued.key)


async def test_a_revoked_key_opens_nothing_at_once(tenants: Tenants) -> None:
    acme = await tenants.create("acme")
    issued = await tenants.create_key(acme.id)
    await tenants.authenticate(issued.key)
    await tenants.revoke_key(issued.record.id)
    with pytest.raises(Unauthenticated):
        await tenants.authenticate(issued.key)


async def test_rotation_gives_a_twin_and_a_grace_to_the_old(tenants: Tenants, times: Times) -> None:
    acme = await tenants.create("acme")
    old = await tenants.create_key(acme.id, name="ci", user="ann")
    new = await tenants.rotate_key(old.record.id, grace=60)
    assert (new.record.name, new.record.user, new.record.tenant) == ("ci", "ann", acme.id)
    assert (await tenants.authenticate(old.key)).key == old.record.id
    assert (await tenants.authenticate(new.key)).key == new.record.id
    times.pass_by(60)
    with pytest.raises(Unauthenticated):
        await tenants.authenticate(old.key)
    await tenants.revoke_key(new.record.id)
    with pytest.raises(Conflict):
        await tenants.rotate_key(new.record.id)


async def test_the_first_start_makes_an_admin_and_the_next_does_not(times: Times) -> None:
    directory = MemoryDirectory()
    key = await tenants_over(directory, times).ensure_admin()
    assert key is not None
    again = tenants_over(directory, times)
    assert await again.ensure_admin() is None
    caller = await again.authenticate(key)
    assert (caller.tenant, caller.role, caller.policy) == ("default", "admin", DEFAULTS)


async def test_a_given_admin_key_is_the_admin_and_is_not_stored(times: Times) -> None:
    directory = MemoryDirectory()
    tenants = tenants_over(directory, times, admin_key="chosen by the operator")
    assert await tenants.ensure_admin() is None
    assert (await tenants.authenticate("chosen by the operator")).role == "admin"
    assert await directory.keys() == []
    with pytest.raises(Unauthenticated):
        await tenants.authenticate("chosen by somebody else")


async def test_a_deleted_tenants_keys_open_nothing(tenants: Tenants) -> None:
    acme = await tenants.create("acme")
    issued = await tenants.create_key(acme.id)
    await tenants.authenticate(issued.key)
    await tenants.delete(acme.id)
    with pytest.raises(Unauthenticated):
        await tenants.authenticate(issued.key)
    with pytest.raises(NotFound):
        await tenants.get(acme.id)


async def test_the_default_tenant_cannot_be_deleted(tenants: Tenants) -> None:
    await tenants.ensure_admin()
    with pytest.raises(Conflict):
        await tenants.delete("default")


async def test_what_is_not_there_is_not_found(tenants: Tenants) -> None:
    for attempt in (
        tenants.get("x"),
        tenants.update("x", name="y"),
        tenants.delete("x"),
        tenants.create_key("x"),
        tenants.revoke_key("x"),
        tenants.rotate_key("x"),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_a_name_is_taken_once(tenants: Tenants) -> None:
    await tenants.create("acme")
    other = await tenants.create("other")
    with pytest.raises(Conflict):
        await tenants.create("acme")
    with pytest.raises(Conflict):
        await tenants.update(other.id, name="acme")


@pytest.mark.parametrize("name", ["", " acme", "acme ", "a/b", "a\n", "é", "x" * 65])
async def test_odd_names_are_refused(tenants: Tenants, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await tenants.create(name)
    assert caught.value.param == "name"


async def test_overrides_follow_changed_defaults_and_can_be_taken_back(times: Times) -> None:
    directory = MemoryDirectory()
    tenants = tenants_over(directory, times)
    acme = await tenants.create("acme", policy={"rpm": 7, "tpm": 5_000, "customer": "cus_1"})
    assert (acme.policy.tpm, acme.policy.customer) == (5_000, "cus_1")
    acme = await tenants.update(acme.id, policy={"tpm": None, "zone": "Europe/Berlin", "hit_percent": 20})
    assert (acme.policy.tpm, acme.policy.zone, acme.policy.hit_percent) == (None, "Europe/Berlin", 20)
    assert (acme.policy.coalesce, acme.policy.shares) == ("semantic", "leader")
    acme = await tenants.update(acme.id, policy={"coalesce": "off", "shares": "each"})
    assert (acme.policy.coalesce, acme.policy.shares) == ("off", "each")
    acme = await tenants.update(acme.id, policy={"rpm": None, "allowed_models": ["auto"], "tier": "low"})
    assert (acme.policy.rpm, acme.policy.allowed_models, acme.policy.tier) == (120, ("auto",), "low")
    stricter = Tenants(directory, defaults=Policy(rpm=1, concurrency=2))
    assert (await stricter.get(acme.id)).policy.rpm == 1
    assert [tenant.policy.concurrency for tenant in await stricter.list_tenants()] == [2]


@pytest.mark.parametrize(
    ("policy", "param"),
    [
        ({"rpn": 7}, "rpn"),
        ({"rpm": 0}, "rpm"),
        ({"rpm": "many"}, "policy"),
        ({"caps": {"day": 5}}, "caps"),
        ({"tpm": 0}, "tpm"),
        ({"tpm": 2**53}, "tpm"),
        ({"hit_percent": -1}, "hit_percent"),
        ({"hit_percent": 1_001}, "hit_percent"),
        ({"zone": "Europe/Atlantis"}, "zone"),
        ({"zone": "/etc/localtime"}, "zone"),
        ({"zone": ""}, "zone"),
        ({"customer": ""}, "customer"),
        ({"customer": "a\nb"}, "customer"),
        ({"customer": "x" * 256}, "customer"),
        ({"tier": "best"}, "policy"),
        ({"coalesce": "on"}, "policy"),
        ({"shares": "nobody"}, "policy"),
    ],
)
async def test_odd_policies_are_refused_naming_the_field(tenants: Tenants, policy: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await tenants.create("acme", policy=policy)
    assert caught.value.param == param


async def test_an_admin_key_belongs_to_the_default_tenant(tenants: Tenants) -> None:
    acme = await tenants.create("acme")
    with pytest.raises(InvalidRequest):
        await tenants.create_key(acme.id, role="admin")


async def test_another_process_is_heard_within_two_seconds(tmp_path: Path, times: Times) -> None:
    """A command line moves, revokes and deletes in the file that a server reads."""
    server = tenants_over(SqliteDirectory(tmp_path / "tenants.db"), times)
    await server.ensure_admin()
    tool = tenants_over(SqliteDirectory(tmp_path / "tenants.db"), times)
    acme = await tool.create("acme")
    issued = await tool.create_key(acme.id)
    assert (await server.authenticate(issued.key)).organisations == ()
    await tool.organisations.put("oslo")
    await tool.update(acme.id, policy={"organisation": "oslo", "rpm": 1})
    times.pass_by(FRESH_SECONDS)
    caller = await server.authenticate(issued.key)
    assert (caller.organisations, caller.policy.rpm) == (("oslo",), 1)
    await tool.organisations.put("north")
    await tool.organisations.put("oslo", "north")
    times.pass_by(FRESH_SECONDS)
    assert (await server.authenticate(issued.key)).organisations == ("oslo", "north")
    await tool.revoke_key(issued.record.id)
    times.pass_by(FRESH_SECONDS)
    with pytest.raises(Unauthenticated):
        await server.authenticate(issued.key)
    assert [record.revoked for record in await server.list_keys(acme.id)] == [times.wall - FRESH_SECONDS]
    await tool.close()
    await server.close()
