"""Prices: what every known model costs, from a table that ships with the package.

Invariant: nothing is fetched. The table is a dated snapshot of genai-prices (MIT, made by tools/vendor_prices.py), and a
model that it lacks has no price: a call with a budget is then refused, not let through for nothing.

Matching is genai-prices': a name is looked up literally first, then by rules (prefixes, parts, patterns).
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.resources import files

import msgspec

from headgate.model.money import Price, Tier, from_usd, price_from_usd


class Listing(msgspec.Struct, frozen=True):
    """What the table knows of a model; `context_window` is in tokens, None when not listed."""

    price: Price
    context_window: int | None = None


class _Rates(msgspec.Struct, frozen=True, kw_only=True):
    """USD for a million tokens, as decimal strings; `call` is USD for one call."""

    input: str
    output: str
    cached_input: str | None = None
    cache_write: str | None = None
    audio_input: str | None = None
    audio_output: str | None = None
    above: int = 0
    call: str = "0"
    since: str = ""
    tiers: tuple[_Rates, ...] = ()


class _Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One condition on a name; exactly one of the fields is set."""

    equals: str | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    contains: str | None = None
    regex: str | None = None
    any: tuple[_Rule, ...] | None = msgspec.field(name="or", default=None)
    all: tuple[_Rule, ...] | None = msgspec.field(name="and", default=None)

    def fits(self, name: str) -> bool:
        if self.any is not None:
            return any(rule.fits(name) for rule in self.any)
        if self.all is not None:
            return all(rule.fits(name) for rule in self.all)
        if self.regex is not None:
            return re.search(self.regex, name) is not None
        return (
            name == self.equals
            or (self.starts_with is not None and name.startswith(self.starts_with))
            or (self.ends_with is not None and name.endswith(self.ends_with))
            or (self.contains is not None and self.contains in name)
        )


class _Model(msgspec.Struct, frozen=True, kw_only=True):
    names: tuple[str, ...]
    prices: tuple[_Rates, ...]
    rules: tuple[_Rule, ...] = ()
    window: int | None = None


class _Provider(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    models: tuple[_Model, ...]
    rule: _Rule | None = None
    also: tuple[str, ...] = ()

    def find(self, model: str) -> _Model | None:
        for name in dict.fromkeys((model, model.lower())):
            for entry in self.models:
                if name in entry.names:
                    return entry
            for entry in self.models:
                if any(rule.fits(name) for rule in entry.rules):
                    return entry
        return None


class _Table(msgspec.Struct, frozen=True):
    as_of: str
    providers: tuple[_Provider, ...]


class PriceTable:
    """Prices by provider and model. `as_of` is the snapshot's date, `digest` names its content and the overrides."""

    def __init__(
        self, raw: bytes, *, overrides: Mapping[str, Price] | None = None, now: Callable[[], float] = time.time
    ) -> None:
        """`raw` is the table as JSON; `overrides` are prices by `provider/model`; `now`, unix seconds, picks dated prices."""
        table = msgspec.json.decode(raw, type=_Table)
        self.as_of = table.as_of
        self._overrides = dict(overrides or {})
        self.digest = hashlib.sha256(raw + msgspec.json.encode(self._overrides, order="sorted")).hexdigest()[:16]
        self._providers = {provider.id: provider for provider in table.providers}
        self._now = now

    @classmethod
    def load(cls, *, overrides: Mapping[str, Price] | None = None, now: Callable[[], float] = time.time) -> PriceTable:
        """The table that ships with this package."""
        raw = files("headgate.budget").joinpath("price_table.json").read_bytes()
        return cls(raw, overrides=overrides, now=now)

    def find(self, provider: str, model: str) -> Price | None:
        """What a model costs today, or None when nobody knows."""
        listing = self.listing(provider, model)
        return None if listing is None else listing.price

    def listing(self, provider: str, model: str) -> Listing | None:
        """Price and context window of a model, or None when no price is known.

        `provider` is a vendor's name (`openai`) or one that contains it (`my-openai`).
        """
        override = self._overrides.get(f"{provider}/{model}")
        entry = self._entry(provider, model)
        window = None if entry is None else entry.window
        if override is not None:
            return Listing(override, window)
        return None if entry is None else Listing(_price(self._current(entry)), window)

    def _entry(self, provider: str, model: str) -> _Model | None:
        found = self._provider(provider)
        if found is None:
            return None
        for candidate in (found, *(self._providers[id] for id in found.also)):
            entry = candidate.find(model)
            if entry is not None:
                return entry
        return None

    def _provider(self, name: str) -> _Provider | None:
        lowered = name.lower()
        if lowered in self._providers:
            return self._providers[lowered]
        fitting = (p for p in self._providers.values() if p.rule is not None and p.rule.fits(lowered))
        return next(fitting, None)

    def _current(self, entry: _Model) -> _Rates:
        """The last price that has begun."""
        today = datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-%d")
        begun = [rates for rates in entry.prices if rates.since <= today]
        return begun[-1] if begun else entry.prices[0]


def _price(rates: _Rates) -> Price:
    return Price(
        **_nano(rates), call=from_usd(rates.call), tiers=tuple(Tier(above=t.above, **_nano(t)) for t in rates.tiers)
    )


def _nano(rates: _Rates) -> dict[str, int]:
    kinds = ("input", "output", "cached_input", "cache_write", "audio_input", "audio_output")
    return {kind: price_from_usd(usd) for kind in kinds if (usd := getattr(rates, kind)) is not None}
