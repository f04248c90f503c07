"""Tenants and organisations as operators see and change them: the same for `/admin/tenants` and for `headgate tenants`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headgate.budget.allowance import Allowance
from headgate.model.chat import Json
from headgate.model.errors import InvalidRequest
from headgate.model.tenancy import Tenant, Window
from headgate.server.budgets import Budgets, Limit, Payer
from headgate.tenants.organisations import Organisation
from headgate.tenants.tenants import Tenants

POLICY = (
    "allowed_models",
    "prefer",
    "tier",
    "abandoned",
    "coalesce",
    "shares",
    "organisation",
    "zone",
    "hit_percent",
    "customer",
    "residency",
)
"""The fields of a policy that are shown beside the rates, and beside how the cache treats it."""


def tenant_row(tenant: Tenant, budgets: Budgets) -> Json:
    """A tenant with its policy, and its caps in USD, None where there is no cap."""
    policy = tenant.policy
    return {
        "id": tenant.id,
        "name": tenant.name,
        "created": tenant.created,
        "budget": budgets.caps(tenant.id),
        "rpm": policy.rpm,
        "tpm": policy.tpm,
        "concurrency": policy.concurrency,
        "policy": {
            **{name: getattr(policy, name) for name in POLICY},
            "cache": msgspec.to_builtins(policy.cache),
        },
    }


def organisation_row(organisation: Organisation) -> Json:
    """An organisation and the one it lies in."""
    return {"name": organisation.name, "parent": organisation.parent, "created": organisation.created}


async def create_tenant(
    tenants: Tenants, budgets: Budgets, name: str, *, policy: dict[str, Any], limits: Mapping[Window, Limit], by: str
) -> Tenant:
    """A tenant that has its budgets from its first moment. Raises as `Tenants.create` and `Budgets.drafts`: then there is none."""

    async def prepare(id: str) -> None:
        payer = Payer(f"tenant:{id}", name, "UTC", id)
        await budgets.put(await _drafts(budgets, payer, limits), by=by)

    async with budgets.changing():
        return await tenants.create(name, policy=policy, prepare=prepare)


async def update_tenant(
    tenants: Tenants,
    budgets: Budgets,
    wanted: str,
    *,
    name: str | None,
    policy: dict[str, Any],
    limits: Mapping[Window, Limit],
    by: str,
) -> Tenant:
    """Change a tenant, by id or name, and its budgets, or nothing. Raises as `Tenants.update` and `Budgets.drafts`."""
    found = await tenants.called(wanted)
    payer = await budgets.payer(f"tenant:{found.id}")
    async with budgets.changing():
        drafts = await _drafts(budgets, payer, limits)
        tenant = await tenants.update(found.id, name=name, policy=policy)
        await budgets.put(drafts, by=by)
    return tenant


async def _drafts(budgets: Budgets, payer: Payer, limits: Mapping[Window, Limit]) -> list[Allowance]:
    try:
        return await budgets.drafts(payer, limits)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, param=f"budget.{error.param}".removesuffix(".cap")) from None
