"""Prices as JSON: the same rows for the management API and the command line.

A kind of token without a price of its own is shown with the price that it is charged at, and as a fallback: nobody should learn from
a bill that cached tokens cost as much as fresh ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from headgate.budget.prices import Listing
from headgate.budget.pricing import Pricing
from headgate.model.chat import Json
from headgate.model.money import KINDS, Price, Rates, to_usd


def price_report(pricing: Pricing, provider: str | None = None, model: str | None = None) -> Json:
    """What models cost now. Without a provider or a model: all that can be called, and all whose price was changed.

    `model` is a public name or a provider's name for one; with both given it may be any that the table knows.
    """
    rows = [
        price_row(pricing, *each)
        for each in _listed(pricing)
        if (provider is None or each[0] == provider) and (model is None or model in (each[1], each[2]))
    ]
    if not rows and provider is not None and model is not None:
        rows = [price_row(pricing, provider, model)]
    table = pricing.table
    return {"object": "list", "currency": "USD", "as_of": table.as_of, "digest": table.digest, "data": rows}


def _listed(pricing: Pricing) -> Iterator[tuple[str, str, str]]:
    """Provider, its name for the model, and the public name, which is empty for a model that cannot be called by one."""
    for name, (provider, model) in pricing.models.items():
        yield provider, model, name
    called = {f"{provider}/{model}" for provider, model in pricing.models.values()}
    for path in pricing.table.changed():
        if path not in called:
            provider, _, model = path.partition("/")
            yield provider, model, ""


def price_row(pricing: Pricing, provider: str, model: str, name: str = "") -> Json:
    """One model's price. `prices` is null when nobody knows it."""
    listing = pricing.table.listing(provider, model, name)
    return {
        "name": name or None,
        "provider": provider,
        "model": model,
        "origin": None if listing is None else listing.origin,
        "overridden": listing is not None and listing.origin != "table",
        **_shown(listing),
    }


def _shown(listing: Listing | None) -> Json:
    price = Price(input=0, output=0) if listing is None else listing.price
    return {
        "prices": None if listing is None else _rates(price),
        "call_usd": to_usd(price.call),
        "search_usd": to_usd(price.search),
        "searches": price.searches,
        "tiers": [{"above": tier.above, "prices": _rates(tier)} for tier in price.tiers],
        "periods": [
            {"from": _clock(period.begin), "to": _clock(period.end), "prices": _rates(period)}
            for period in price.periods
        ],
    }


def _rates(rates: Rates) -> Json:
    """USD for a million tokens of each kind, and what stands in for those without a price."""
    shown: Json = {}
    for kind in KINDS:
        charged = rates.charged_as(kind)
        shown[kind] = {"usd": to_usd(getattr(rates, charged)), "fallback": charged != kind}
        if charged != kind:
            shown[kind]["charged_as"] = charged
    return shown


def _clock(second: int) -> str:
    return f"{second // 3600:02d}:{second // 60 % 60:02d}Z"
