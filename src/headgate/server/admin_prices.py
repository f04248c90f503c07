"""`/admin/prices`: what models cost, and prices of one's own, changed while calls are made."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import model_validator

from headgate.budget.pricing import Pricing
from headgate.config import PriceConfig
from headgate.model.chat import Json
from headgate.server.bodies import author
from headgate.server.prices import price_report, price_row


class PriceBody(PriceConfig):
    """A price in full, in USD for a million tokens; `call` and `search` in USD for one. What is left out falls back."""

    @model_validator(mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        """A float is taken by its shortest decimal text."""
        return _as_text(value)

    @model_validator(mode="after")
    def _chargeable(self) -> PriceBody:
        """Left to `Pricing`, whose error names the field."""
        return self


def _as_text(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {name: _as_text(inner) for name, inner in value.items()}
    return [_as_text(inner) for inner in value] if isinstance(value, list) else value


def add_prices(app: FastAPI, pricing: Pricing) -> None:
    """Add the paths of `/admin/prices`."""

    @app.get("/admin/prices", tags=["prices"])
    async def list_prices(
        provider: Annotated[str | None, Query(description="Only this provider's.")] = None,
        model: Annotated[str | None, Query(description="Only this model, by public name or the provider's.")] = None,
    ) -> Json:
        """What every model costs now, where that is from, and which kinds of tokens have no price of their own."""
        await pricing.refresh()
        return price_report(pricing, provider, model)

    @app.put("/admin/prices/{provider}/{model:path}", tags=["prices"])
    async def set_price(provider: str, model: str, body: PriceBody, request: Request) -> Json:
        """Let a model cost this from now on, whatever configuration and table say. Calls under way keep their price."""
        await pricing.set(provider, model, body.price(), by=author(request))
        return price_row(pricing, provider, model, pricing.called(provider, model))

    @app.delete("/admin/prices/{provider}/{model:path}", tags=["prices"])
    async def unset_price(provider: str, model: str, request: Request) -> Json:
        """Let a model cost again what configuration and table say."""
        await pricing.unset(provider, model, by=author(request))
        return price_row(pricing, provider, model, pricing.called(provider, model))
