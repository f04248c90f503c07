"""`/admin/budgets` and `/admin/organisations`: who may spend what, changed while calls are made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from pydantic import Discriminator, Field, JsonValue, StrictInt, Tag, ValidationInfo, field_validator

from headgate.budget.allowance import Rule, Unit
from headgate.model.chat import Json
from headgate.model.money import LARGEST
from headgate.model.tenancy import Window
from headgate.server.bodies import Body, Usd, author, nano_of
from headgate.server.budgets import MOST_LISTED, Budgets, Limit
from headgate.server.tenants import organisation_row
from headgate.tenants.tenants import Tenants

ACCOUNT = "A tenant's id or name, or organisation:NAME, user:TENANT/NAME, key:TENANT/ID, feature:TENANT/TAG, model:TENANT/NAME."
_AMOUNT: dict[str, JsonValue] = {"anyOf": [{"type": "string"}, {"type": "integer"}], "examples": ["10.00", 100_000]}


def _amount(value: Any, info: ValidationInfo) -> int:
    """Nano-USD, or tokens when the unit before it says so. A wrong unit has been told already."""
    if info.data.get("unit") != "tokens":
        return nano_of(value)
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ValueError(f"tokens are a whole number from 0 to {LARGEST}")
    return value


class CapBody(Body):
    """A budget in full. USD are written as "1.25", tokens as a whole number; null is no cap."""

    unit: Unit = "usd"
    currency: Literal["USD"] = "USD"
    cap: int | None = Field(json_schema_extra=_AMOUNT)
    rule: Rule = Field("hard", description="What happens when a call could exceed the cap.")
    percent: StrictInt = Field(
        0, description="grace: how far the cap may be exceeded; overage: what is billed of the cost beyond it."
    )
    alerts: tuple[StrictInt, ...] | None = Field(
        None, description="Percents of the cap at which somebody is told; as before when left out."
    )

    @field_validator("cap", mode="before")
    @classmethod
    def _counted(cls, value: Any, info: ValidationInfo) -> int | None:
        return None if value is None else _amount(value, info)

    def limit(self) -> Limit:
        """The same as a value."""
        return Limit(cap=self.cap, unit=self.unit, rule=self.rule, percent=self.percent, alerts=self.alerts)


Budget = Annotated[
    Annotated[Usd | None, Tag("[amount]")] | Annotated[CapBody, Tag("[budget]")],
    Discriminator(lambda value: "[budget]" if isinstance(value, (dict, CapBody)) else "[amount]"),
]


class BudgetsBody(Body):
    """Budgets by window. An amount is short for a hard cap in USD, null for none; a window left out stays as it is."""

    hour: Budget = None
    day: Budget = None
    week: Budget = None
    month: Budget = None
    total: Budget = None

    def limits(self) -> dict[Window, Limit]:
        """Those that were given."""
        given: dict[Window, Limit] = {}
        for window in ("hour", "day", "week", "month", "total"):
            if window in self.model_fields_set:
                asked = getattr(self, window)
                given[window] = asked.limit() if isinstance(asked, CapBody) else Limit(cap=asked)
        return given


class TopUpBody(Body):
    """What is added to a cap for its present window; to that of `total` for good."""

    account: str = Field(description=ACCOUNT)
    window: Literal["hour", "day", "week", "month", "total"]
    unit: Unit = "usd"
    currency: Literal["USD"] = "USD"
    amount: int = Field(json_schema_extra=_AMOUNT)

    @field_validator("amount", mode="before")
    @classmethod
    def _counted(cls, value: Any, info: ValidationInfo) -> int:
        return _amount(value, info)


class AccountBody(Body):
    """Whose budgets."""

    account: str = Field(description=ACCOUNT)


class OrganisationBody(Body):
    """The organisation that this one lies in; null for none."""

    parent: str | None = None


def add_budgets(app: FastAPI, budgets: Budgets) -> None:
    """Add the paths of `/admin/budgets`."""

    @app.get("/admin/budgets", tags=["budgets"])
    async def list_budgets(
        tenant: Annotated[str | None, Query(description="Only this tenant's, by id or name.")] = None,
        account: Annotated[str | None, Query(description=ACCOUNT)] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="At most so many accounts.")] = 1_000,
        offset: Annotated[int, Query(ge=0, description="Leave out the first ones.")] = 0,
    ) -> Json:
        """What every tenant may spend, has spent and has on hold, and every other account for which something was set."""
        found = await budgets.standings(tenant=tenant, account=account, limit=limit + 1, offset=offset)
        return {"object": "list", "data": found[:limit], "has_more": len(found) > limit}

    @app.get("/admin/budgets/changes", tags=["budgets"])
    async def list_changes(
        account: Annotated[str | None, Query(description=ACCOUNT)] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="At most so many.")] = 100,
    ) -> Json:
        """Who changed which budget when, newest first: rows of the journal. `by` is the key's id, or the command line."""
        return {"object": "list", "data": await budgets.changes(account=account, limit=limit)}

    @app.get("/admin/budgets/{account:path}", tags=["budgets"])
    async def show_budget(account: str) -> Json:
        """What one account may spend, has spent and has on hold in its present windows."""
        return await budgets.show(account)

    @app.put("/admin/budgets/{account:path}", tags=["budgets"])
    async def set_budget(account: str, body: BudgetsBody, request: Request) -> Json:
        """Set what an account may spend, in all windows given or in none. A window left out stays as it is."""
        return await budgets.set(account, body.limits(), by=author(request))

    @app.post("/admin/budgets/top-up", tags=["budgets"])
    async def top_up(body: TopUpBody, request: Request) -> Json:
        """Add to a cap for its present window; to that of `total` for good."""
        return await budgets.top_up(body.account, body.window, body.amount, unit=body.unit, by=author(request))

    @app.post("/admin/budgets/suspend", tags=["budgets"])
    async def suspend(body: AccountBody, request: Request) -> Json:
        """Refuse every call of an account until it is resumed."""
        return await budgets.suspend(body.account, by=author(request))

    @app.post("/admin/budgets/resume", tags=["budgets"])
    async def resume(body: AccountBody, request: Request) -> Json:
        """Let a suspended account spend again what its caps allow."""
        return await budgets.resume(body.account, by=author(request))


def add_organisations(app: FastAPI, tenants: Tenants, budgets: Budgets) -> None:
    """Add the paths of `/admin/organisations`."""
    organisations = tenants.organisations

    @app.get("/admin/organisations", tags=["organisations"])
    async def list_organisations() -> Json:
        """All organisations, by name."""
        return {"object": "list", "data": [organisation_row(one) for one in await organisations.all()]}

    @app.get("/admin/organisations/{name}", tags=["organisations"])
    async def show_organisation(name: str) -> Json:
        """One organisation, the tenants in it and in those beneath it, and the way up from it."""
        found = await organisations.called(name)
        above = await organisations.lineage(name)
        return {**organisation_row(found), "above": above[1:], "tenants": await tenants.members(name)}

    @app.put("/admin/organisations/{name}", tags=["organisations"])
    async def put_organisation(name: str, body: OrganisationBody | None = None) -> Json:
        """Make an organisation, or move it: it lies in its parent, whose budgets it then shares."""
        return organisation_row(await organisations.put(name, None if body is None else body.parent))

    @app.delete("/admin/organisations/{name}", status_code=204, tags=["organisations"])
    async def delete_organisation(name: str) -> Response:
        """Delete an organisation that nothing lies in and that has no budgets. What it spent stays in the journal."""
        await budgets.drop_organisation(name)
        return Response(status_code=204)
