"""`/admin`: tenants, keys, usage, health, and the API reference at `/docs`. Budgets are in admin_budgets.py.

People write these bodies, so they are pydantic models and FastAPI describes them; no call to a model passes here. The caller has been
authorised on the path before (`app.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import Field, StrictInt
from starlette.exceptions import HTTPException

from headgate.assembly import Engine
from headgate.model.chat import Json
from headgate.model.errors import InvalidRequest, MethodNotAllowed
from headgate.model.tenancy import WINDOWS, KeyRecord, Window
from headgate.server.admin_billing import add_billing
from headgate.server.admin_budgets import add_budgets, add_organisations
from headgate.server.admin_cache import add_cache
from headgate.server.admin_prices import add_prices
from headgate.server.admin_routes import add_routes
from headgate.server.bodies import Body, Usd, author
from headgate.server.budgets import Budgets, Limit, budgets_of
from headgate.server.edge import no_such_path
from headgate.server.reference import describe_calls
from headgate.server.tenants import create_tenant, tenant_row, update_tenant
from headgate.server.usage import query_of, usage_report
from headgate.tenants.tenants import IssuedKey, Tenants

GROUPS = "Of tenant, key, user, feature, route, model, source, day."


class CapsBody(Body):
    """Hard caps in USD by calendar window, in the tenant's zone. Null is no cap; a window left out stays as it is."""

    hour: Usd | None = None
    day: Usd | None = None
    week: Usd | None = None
    month: Usd | None = None
    total: Usd | None = None


class CacheBody(Body):
    """How the semantic cache treats a tenant's calls. Null is as the route or the configuration says; where a route says something too,
    the stricter counts."""

    mode: Literal["on", "shadow", "off"] | None = Field(
        None,
        description="It serves, only watches and records, or is not asked. Off for all in the configuration is off.",
    )
    max_error_rate: float | None = Field(
        None, ge=0, le=0.5, description="Share of the tenant's answers from the cache that may be wrong."
    )


class PolicyBody(Body):
    """How a tenant's calls are treated. A field given as null falls back to the default."""

    allowed_models: tuple[str, ...] | None = Field(None, description="Models and routes it may use; null is all.")
    prefer: tuple[str, ...] | None = Field(None, description="Deployments that go first when a route offers them.")
    tier: Literal["low", "medium", "high"] | None = Field(
        None, description="The tier of `auto`, whatever the router thinks."
    )
    abandoned: Literal["finish", "cancel"] | None = Field(
        None, description="What happens to a call that everyone has left."
    )
    coalesce: Literal["off", "exact", "semantic"] | None = Field(
        None,
        description="Which of its calls share one in flight: none, identical ones, or also those that mean the same. Where the"
        " configuration, the route or the caller says something too, the strictest counts.",
    )
    shares: Literal["leader", "split", "each"] | None = Field(
        None,
        description="Who pays for a call that several share: who asked first, all of them in equal parts, or each of them all of it.",
    )
    organisation: str | None = Field(None, description="Whose budgets its calls count against too.")
    zone: str | None = Field(
        None, description="Time zone of its windows, such as Europe/Berlin; new ones begin with it."
    )
    hit_percent: StrictInt | None = Field(
        None, description="What it pays for an answer from stock, in percent of what the call would have cost."
    )
    customer: str | None = Field(None, description="Its name at whoever bills it.")
    residency: tuple[str, ...] | None = Field(
        None, description="Regions whose models may see its data; null is as `tenant_defaults` say, else all."
    )
    cache: CacheBody | None = Field(None, description="How the semantic cache treats its calls.")


class TenantBody(Body):
    """A tenant to create."""

    name: str
    budget: CapsBody | None = None
    rpm: StrictInt | None = Field(None, description="Requests a minute.")
    tpm: StrictInt | None = Field(None, description="Tokens a minute.")
    concurrency: StrictInt | None = Field(None, description="Requests at the same time.")
    policy: PolicyBody | None = None


class TenantChange(Body):
    """What is to change; what is left out stays."""

    name: str | None = None
    budget: CapsBody | None = None
    rpm: StrictInt | None = None
    tpm: StrictInt | None = None
    concurrency: StrictInt | None = None
    policy: PolicyBody | None = None


class KeyBody(Body):
    """A key to create. `expires` is unix seconds or an ISO time."""

    tenant: str = Field(description="The tenant's id or name.")
    name: str | None = None
    role: Literal["admin", "tenant_admin", "caller"] = "caller"
    user: str | None = Field(None, description="The end user all of this key's calls are counted for.")
    expires: datetime | None = None


class RotateBody(Body):
    """`grace`: seconds that the old key goes on working."""

    grace: float = Field(0.0, ge=0, le=31_536_000, strict=True)


def management(engine: Engine) -> FastAPI:
    """The application behind `/admin` and `/docs`."""
    app = FastAPI(
        title="Headgate",
        version="1",
        description="An AI gateway for multi-tenant products. Send `Authorization: Bearer <key>`; /admin needs the admin key.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_errors(app)
    budgets = budgets_of(engine)
    _add_tenants(app, engine.tenants, budgets)
    _add_keys(app, engine.tenants)
    add_organisations(app, engine.tenants, budgets)
    add_budgets(app, budgets)
    _add_reports(app, engine)
    add_prices(app, engine.pricing)
    add_cache(app, engine)
    add_routes(app, engine)
    add_billing(app, engine)
    page = files("headgate.server").joinpath("docs.html").read_text(encoding="utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page)

    describe_calls(app)
    return app


def _add_tenants(app: FastAPI, tenants: Tenants, budgets: Budgets) -> None:
    @app.post("/admin/tenants", status_code=201, tags=["tenants"])
    async def create(body: TenantBody, request: Request) -> Json:
        """Create a tenant with its budgets."""
        terms: dict[str, Any] = {"policy": _policy(body), "limits": _limits(body), "by": author(request)}
        return tenant_row(await create_tenant(tenants, budgets, body.name, **terms), budgets)

    @app.get("/admin/tenants", tags=["tenants"])
    async def list_tenants() -> Json:
        """All tenants, oldest first."""
        return {"object": "list", "data": [tenant_row(one, budgets) for one in await tenants.list_tenants()]}

    @app.get("/admin/tenants/{tenant}", tags=["tenants"])
    async def show_tenant(tenant: str) -> Json:
        """One tenant, by id or name."""
        return tenant_row(await tenants.called(tenant), budgets)

    @app.patch("/admin/tenants/{tenant}", tags=["tenants"])
    async def change(tenant: str, body: TenantChange, request: Request) -> Json:
        """Change a tenant and its budgets; what is left out stays."""
        terms: dict[str, Any] = {"policy": _policy(body), "limits": _limits(body), "by": author(request)}
        return tenant_row(await update_tenant(tenants, budgets, tenant, name=body.name, **terms), budgets)

    @app.delete("/admin/tenants/{tenant}", status_code=204, tags=["tenants"])
    async def delete_tenant(tenant: str) -> Response:
        """Delete a tenant and its keys; the journal keeps what it spent, and its id is never used again."""
        await tenants.delete((await tenants.called(tenant)).id)
        return Response(status_code=204)


def _add_keys(app: FastAPI, tenants: Tenants) -> None:
    @app.post("/admin/keys", status_code=201, tags=["keys"])
    async def create_key(body: KeyBody) -> Json:
        """Create a key. The answer is the only time it is shown."""
        tenant = await tenants.called(body.tenant)
        expires = None if body.expires is None else _utc(body.expires).timestamp()
        return _issued(
            await tenants.create_key(tenant.id, name=body.name, role=body.role, user=body.user, expires=expires)
        )

    @app.get("/admin/keys", tags=["keys"])
    async def list_keys(tenant: str | None = None) -> Json:
        """The keys of a tenant, or all; never the keys themselves."""
        chosen = None if tenant is None else (await tenants.called(tenant)).id
        return {"object": "list", "data": [_key(record) for record in await tenants.list_keys(chosen)]}

    @app.delete("/admin/keys/{key}", tags=["keys"])
    async def revoke_key(key: str) -> Json:
        """Revoke a key for good, by its id."""
        return _key(await tenants.revoke_key(key))

    @app.post("/admin/keys/{key}/rotate", status_code=201, tags=["keys"])
    async def rotate_key(key: str, body: RotateBody | None = None) -> Json:
        """A new key like this one, which stops working after `grace` seconds."""
        return _issued(await tenants.rotate_key(key, grace=0.0 if body is None else body.grace))


def _add_reports(app: FastAPI, engine: Engine) -> None:
    tenants, ledger = engine.tenants, engine.gateway.budget.ledger

    @app.get("/admin/usage", tags=["usage"])
    async def usage(
        request: Request,
        tenant: str | None = None,
        since: Annotated[str | None, Query(alias="from", description="Unix seconds or an ISO date.")] = None,  # noqa: ARG001
        until: Annotated[str | None, Query(alias="to", description="As `from`; exclusive.")] = None,  # noqa: ARG001
        group_by: Annotated[str | None, Query(description=GROUPS)] = None,  # noqa: ARG001
    ) -> Json:
        """The journal, summed."""
        chosen = None if tenant is None else (await tenants.called(tenant)).id
        known = ("tenant", "from", "to", "group_by")
        return await usage_report(ledger, chosen, query_of(request.scope["query_string"], known))

    @app.get("/admin/health", tags=["health"])
    async def health() -> Json:
        """Stores and deployments."""
        faults = await engine.faults()
        stores = {name: fault or "ok" for name, fault in faults.items()}
        return {"stores": stores, "deployments": engine.gateway.routing.health()}


def _utc(moment: datetime) -> datetime:
    """A time without a zone is in UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _policy(body: TenantBody | TenantChange) -> dict[str, Any]:
    """The fields of a policy that a body speaks of."""
    policy = {} if body.policy is None else body.policy.model_dump(exclude_unset=True)
    policy.update(body.model_dump(include={"rpm", "tpm", "concurrency"}, exclude_unset=True))
    return policy


def _limits(body: TenantBody | TenantChange) -> dict[Window, Limit]:
    """The caps that a body speaks of."""
    given = {} if body.budget is None else body.budget.model_dump(exclude_unset=True)
    return {window: Limit(cap=given[window]) for window in WINDOWS if window in given}


def _key(record: KeyRecord) -> Json:
    names = ("id", "tenant", "name", "role", "user", "created", "expires", "revoked")
    return {name: getattr(record, name) for name in names}


def _issued(issued: IssuedKey) -> Json:
    return {**_key(issued.record), "key": issued.key}


def _add_errors(app: FastAPI) -> None:
    """Errors leave the application, so that app.py writes them as it does all others."""

    @app.exception_handler(Exception)
    async def leaves(_: Request, error: Exception) -> Response:
        raise error

    @app.exception_handler(RequestValidationError)
    async def unreadable(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:] if not str(part).startswith("["))
        message = first["msg"].removeprefix("Value error, ")
        text = f"`{place}`: {message}." if place else f"The body is not as it should be: {message}."
        raise InvalidRequest(text, param=place or None)

    @app.exception_handler(HTTPException)
    async def lost(request: Request, error: HTTPException) -> Response:
        path = request.scope["path"]
        if error.status_code == 405:
            allow = (error.headers or {}).get("Allow", "")
            raise MethodNotAllowed(f"{path[:200]} does not take {request.method}.", allow=allow)
        if error.status_code == 404:
            raise no_such_path(path)
        raise InvalidRequest(f"{error.detail}.")
