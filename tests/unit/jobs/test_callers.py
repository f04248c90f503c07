"""Who a job is worked on for: the holder of its key, as it is when the job begins."""

from __future__ import annotations

import pytest

from headgate.fittings_jobs import FRESH_SECONDS, callers_of
from headgate.model.errors import Unauthenticated
from headgate.model.tenancy import Policy
from headgate.tenants.memory import MemoryDirectory
from headgate.tenants.tenants import ENVIRONMENTS_KEY, Tenants
from headgate.worker import Callers


class Times:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
async def tenants(times: Times) -> Tenants:
    found = Tenants(MemoryDirectory(), defaults=Policy(), now=times, monotonic=times)
    await found.ensure_admin()
    return found


@pytest.fixture
def callers(tenants: Tenants, times: Times) -> Callers:
    return callers_of(tenants, now=times, monotonic=times)


async def test_it_is_who_would_be_let_in_with_that_key(tenants: Tenants, callers: Callers) -> None:
    await tenants.organisations.put("holding")
    tenant = await tenants.create("acme", policy={"organisation": "holding", "rpm": 7})
    issued = await tenants.create_key(tenant.id, user="ann", role="tenant_admin")
    assert await callers(tenant.id, issued.record.id) == await tenants.authenticate(issued.key)


async def test_a_changed_policy_is_seen_soon(tenants: Tenants, callers: Callers, times: Times) -> None:
    tenant = await tenants.create("acme")
    key = (await tenants.create_key(tenant.id)).record.id
    assert (await callers(tenant.id, key)).policy.rpm == 120
    await tenants.update(tenant.id, policy={"rpm": 7})
    times.now += FRESH_SECONDS
    assert (await callers(tenant.id, key)).policy.rpm == 7


async def test_a_key_that_was_revoked_or_has_expired_is_nobodys(
    tenants: Tenants, callers: Callers, times: Times
) -> None:
    tenant = await tenants.create("acme")
    revoked = (await tenants.create_key(tenant.id)).record.id
    expiring = (await tenants.create_key(tenant.id, expires=times.now + 60.0)).record.id
    for key in (revoked, expiring):
        assert (await callers(tenant.id, key)).key == key
    await tenants.revoke_key(revoked)
    times.now += 60.0
    for key in (revoked, expiring):
        with pytest.raises(Unauthenticated):
            await callers(tenant.id, key)


async def test_a_key_is_its_own_tenants_and_goes_with_it(tenants: Tenants, callers: Callers) -> None:
    one, other = await tenants.create("one"), await tenants.create("other")
    key = (await tenants.create_key(one.id)).record.id
    with pytest.raises(Unauthenticated):
        await callers(other.id, key)
    await tenants.delete(one.id)
    with pytest.raises(Unauthenticated):
        await callers(one.id, key)


async def test_the_admin_key_of_the_environment_is_in_no_directory(callers: Callers) -> None:
    admin = await callers("default", ENVIRONMENTS_KEY)
    assert (admin.tenant, admin.role) == ("default", "admin")
