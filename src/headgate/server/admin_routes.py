"""`/admin/route`: where a request would go, and why. Nothing is sent anywhere."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI
from pydantic import Field

from headgate.assembly import Engine
from headgate.budget.estimate import measure
from headgate.model.chat import ChatRequest, Json
from headgate.model.tenancy import DEFAULT_TENANT, Principal
from headgate.server.bodies import Body
from headgate.server.shown_routes import explanation_row, request_of

LONGEST = 100_000


class RouteBody(Body):
    """A request that might come: one question, or all turns of a conversation."""

    prompt: Annotated[str, Field(min_length=1, max_length=LONGEST)] | None = None
    messages: list[Json] | None = Field(None, description="In place of `prompt`: OpenAI's messages.")
    model: str = Field("auto", description="A route, or a model.")
    metadata: dict[str, str] | None = Field(None, description="The request's own, which rules may look at.")
    tenant: str | None = Field(None, description="Who asks, by id or name. Default: nobody with a policy of its own.")
    user: str | None = Field(None, description="For which end user.")


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add the path."""
    gateway, tenants = engine.gateway, engine.tenants

    @app.post("/admin/route/explain", tags=["routing"])
    async def explain(body: RouteBody) -> Json:
        """What kind of question it is, which tier it deserves and who says so, and which models would be tried. A dry run: no model is
        asked, the classifier neither; what it labelled before it still knows."""
        request = ChatRequest.parse(request_of(body.model, body.prompt, body.messages, body.metadata))
        caller = Principal(tenant=DEFAULT_TENANT)
        if body.tenant is not None:
            found = await tenants.called(body.tenant)
            caller = Principal(tenant=found.id, policy=found.policy)
        size = measure(request)
        expected = gateway.budget.outputs.expected(caller.tenant, body.model)
        return explanation_row(
            await gateway.routing.explain(
                request, caller, user=body.user, likely=size.likely, most=size.most, expected=expected
            )
        )
