"""Statements: a tenant's month, read from the journal: for a tenant itself (`GET /v1/statement`) and for an operator."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import msgspec

from headgate.billing.statement import Statement, StatementRow, csv_statement, html_statement, json_statement
from headgate.budget.budget import Statements, UsageQuery
from headgate.budget.windows import window_bounds
from headgate.model.errors import InvalidRequest, NotFound
from headgate.model.tenancy import Policy, Tenant
from headgate.model.zones import zone_of
from headgate.server.edge import JSON_TYPE, Header
from headgate.tenants.tenants import Tenants

Format = Literal["csv", "html", "json"]

_WRITERS = {"csv": csv_statement, "html": html_statement, "json": json_statement}

_HEADERS: dict[str, tuple[Header, ...]] = {
    "csv": ((b"content-type", b"text/csv; charset=utf-8"),),
    "json": (JSON_TYPE,),
    "html": (
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    ),
}


class Page(msgspec.Struct, frozen=True):
    """A written statement and what it is."""

    headers: tuple[Header, ...]
    body: bytes


async def statement_page(
    statements: Statements, tenants: Tenants, tenant: str, month: str, format: str, *, now: float
) -> Page:
    """The statement of a tenant by its id. Raises InvalidRequest for a month or a format there is not."""
    if format not in _HEADERS:
        raise InvalidRequest(f"A statement is written as csv, html or json, not as {format[:80]!r}.", param="format")
    statement = await statement_of(statements, await _tenant(tenants, tenant), month, now=now)
    body = _WRITERS[format](statement)
    shown = f'inline; filename="statement-{statement.month}.{format}"'.encode("ascii")
    safe = ((b"content-disposition", shown), (b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
    return Page((*_HEADERS[format], *safe), body)


async def statement_of(statements: Statements, tenant: Tenant, month: str, *, now: float) -> Statement:
    """A tenant's calls of one month, `2026-11`, in the days of its own zone. `now` in unix seconds. Raises InvalidRequest."""
    zone = tenant.policy.zone
    bounds = window_bounds(f"month:{month}@{zone}") if re.fullmatch("[0-9]{4}-[0-9]{2}", month) else None
    if bounds is None:
        raise InvalidRequest("`month` must be a month such as 2026-11.", param="month")
    place = zone_of(zone)
    return Statement(
        tenant=tenant.id,
        name=tenant.name,
        customer=tenant.policy.customer,
        month=month,
        zone=zone,
        since=datetime.fromtimestamp(bounds[0], place),
        until=datetime.fromtimestamp(bounds[1], place),
        made=datetime.fromtimestamp(now, UTC),
        open=now < bounds[1],
        rows=tuple(await _rows(statements, tenant.id, month, zone)),
    )


async def _rows(statements: Statements, tenant: str, month: str, zone: str) -> list[StatementRow]:
    rows = []
    day = date.fromisoformat(f"{month}-01")
    while day.isoformat().startswith(month):
        since, until = window_bounds(f"day:{day.isoformat()}@{zone}") or (0.0, 0.0)
        found = await statements.usage(
            UsageQuery(tenant=tenant, since=since, until=until, group_by=("model", "source"))
        )
        rows += [
            StatementRow(
                day=day.isoformat(),
                model=row.group["model"],
                source=row.group["source"],
                requests=row.requests,
                prompt_tokens=row.prompt_tokens,
                completion_tokens=row.completion_tokens,
                cached_tokens=row.cached_tokens,
                cost=row.cost,
                billed=row.billed,
                saved=row.saved,
            )
            for row in found
        ]
        day += timedelta(days=1)
    return rows


async def _tenant(tenants: Tenants, id: str) -> Tenant:
    """The tenant; of one that was deleted the id is left, and its rows in the journal."""
    try:
        return await tenants.get(id)
    except NotFound:
        return Tenant(id=id, name=id, policy=Policy(), created=0.0)
