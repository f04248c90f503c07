"""`/admin/billing` and `/admin/statements`: where billing sinks stand, what they refused, and what a tenant owes for a month."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query, Response
from pydantic import Field

from headgate.assembly import Engine
from headgate.billing.shown import shown_event, shown_standing
from headgate.model.chat import Json
from headgate.model.errors import NotFound
from headgate.server.bodies import Body
from headgate.server.statements import Format, statement_page

MOST = 1_000


class RetryBody(Body):
    """Which parked events are to be sent again; without ids all of the sink's."""

    ids: list[str] | None = Field(None, description="Ids of events, as `parked` lists them.", max_length=MOST)


def add_billing(app: FastAPI, engine: Engine) -> None:
    """Add the paths."""
    outbox = engine.outbox

    async def known(sink: str) -> str:
        if sink not in [standing.sink for standing in await outbox.standings()]:
            raise NotFound(f"There is no billing sink {sink[:80]!r}, or it had nothing to tell yet.")
        return sink

    @app.get("/admin/billing", tags=["billing"])
    async def billing() -> Json:
        """Where each billing sink stands: what it was told, what waits, and what somebody must look at."""
        return {"object": "list", "data": [shown_standing(one) for one in await outbox.standings()]}

    @app.get("/admin/billing/{sink}/parked", tags=["billing"])
    async def parked(sink: str, limit: Annotated[int, Query(ge=1, le=MOST)] = 100) -> Json:
        """The oldest events of a sink that are not sent any more, each with the reason."""
        found = await outbox.parked(await known(sink), limit)
        return {"object": "list", "data": [shown_event(event) for event in found]}

    @app.post("/admin/billing/{sink}/retry", tags=["billing"])
    async def retry(sink: str, body: RetryBody | None = None) -> Json:
        """Send parked events again."""
        return {"retried": await outbox.retry(await known(sink), None if body is None else body.ids)}

    @app.get("/admin/statements/{tenant}", tags=["billing"], response_class=Response)
    async def statement(
        tenant: str,
        month: Annotated[str, Query(description="Such as 2026-11.")],
        format: Format = "html",
    ) -> Response:
        """What a tenant owes for a month of its own time zone, as CSV, as JSON or as a page to print."""
        tenants = engine.tenants
        found = tenant if tenant.startswith("t_") else (await tenants.called(tenant)).id
        page = await statement_page(engine.gateway.budget.ledger, tenants, found, month, format, now=engine.now())
        headers = {name.decode(): value.decode() for name, value in page.headers}
        return Response(page.body, headers=headers)
