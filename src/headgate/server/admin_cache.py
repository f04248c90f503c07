"""`/admin/cache`: what is in stock, what it weighs, why an answer is served or not, and taking answers out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query
from pydantic import Field

from headgate.assembly import Engine
from headgate.cache.cache import Selection
from headgate.model.chat import Json
from headgate.model.errors import NotFound
from headgate.model.tenancy import CacheTerms, Wishes
from headgate.server.bodies import Body
from headgate.server.invalidation import selection_of
from headgate.server.shown_entries import (
    entry_row,
    explanation_row,
    learning_report,
    stock_report,
    tiers_report,
)

MOST = 1_000
LONGEST = 4_000


class InvalidateBody(Body):
    """Which of a tenant's entries are to go: those that fit every field that is given, of the tags one is enough; or `all`."""

    tenant: str = Field(description="The tenant's id or name.")
    tags: list[str] | None = None
    user: str | None = None
    namespace: str | None = None
    model: str | None = Field(None, description="What was asked for.")
    entry: str | None = Field(None, description="An id, as `x-headgate-entry` tells it.")
    all: bool | None = None


class ExplainBody(Body):
    """Two questions: the one that is asked, and the other that is in stock."""

    one: str = Field(min_length=1, max_length=LONGEST)
    other: str = Field(min_length=1, max_length=LONGEST)
    tenant: str | None = Field(None, description="Whose policy counts, by id or name.")
    route: str | None = Field(None, description="The route whose settings count.")


def add_cache(app: FastAPI, engine: Engine) -> None:
    """Add the paths."""
    cache, tenants = engine.gateway.cache, engine.tenants

    @app.get("/admin/cache", tags=["cache"])
    async def stock(
        tenant: Annotated[
            str | None, Query(description="Only this one's, by id or name, and what was learnt of it.")
        ] = None,
    ) -> Json:
        """What is in stock for whom, how calls are treated, whether the cache's parts work, and what it has learnt."""
        chosen = await tenants.list_tenants() if tenant is None else [await tenants.called(tenant)]
        report = {**stock_report(cache.entries, chosen), **tiers_report(cache)}
        if engine.gateway.checking is not None:
            only = None if tenant is None else chosen[0].id
            report["learning"] = learning_report(engine.gateway.checking.learning, only)
        return report

    @app.get("/admin/cache/entries", tags=["cache"])
    async def entries(
        *,
        tenant: Annotated[str, Query(description="The tenant's id or name.")],
        tag: str | None = None,
        user: str | None = None,
        namespace: str | None = None,
        model: str | None = None,
        skip: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
    ) -> Json:
        """A tenant's entries, newest first."""
        found = (await tenants.called(tenant)).id
        selection = Selection(
            tenant=found, tags=() if tag is None else (tag,), user=user, namespace=namespace, model=model
        )
        chosen = await cache.entries.selected(selection, skip=skip, count=limit)
        return {"object": "list", "data": [entry_row(one) for one in chosen]}

    @app.delete("/admin/cache/entries/{entry}", tags=["cache"])
    async def remove(entry: str, tenant: Annotated[str, Query(description="Whose it is, by id or name.")]) -> Json:
        """Take one answer out of stock."""
        removed = await cache.invalidate(Selection(tenant=(await tenants.called(tenant)).id, entry=entry))
        if not removed:
            raise NotFound(f"This tenant has no entry {entry[:80]!r}.")
        return {"removed": removed}

    @app.post("/admin/cache/invalidate", tags=["cache"])
    async def invalidate(body: InvalidateBody) -> Json:
        """Take answers out of stock, also those that are on their way into it."""
        asked: dict[str, Any] = body.model_dump(exclude_unset=True, exclude={"tenant"})
        found = (await tenants.called(body.tenant)).id
        return {"removed": await cache.invalidate(selection_of(found, asked))}

    @app.post("/admin/cache/explain", tags=["cache"])
    async def explain(body: ExplainBody) -> Json:
        """Would the answer to the other question be served for the one, and why?"""
        terms = CacheTerms() if body.tenant is None else cache.terms((await tenants.called(body.tenant)).policy)
        treated = cache.treatment(body.route or "", terms, Wishes())
        return explanation_row(body.one, body.other, await cache.explain(body.one, body.other, treated))
