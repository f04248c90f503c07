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
from typing import Literal

import msgspec

from headgate.model.money import KINDS, Period, Price, Tier, from_usd, price_from_usd

Origin = Literal["changed", "model", "configured", "table"]
"""Where a price is from, the strongest first: set while the gateway ran, a model's own in the configuration, the configuration's
for `provider/model`, the table."""


class Listing(msgspec.Struct, frozen=True):
    """What is known of a model; `context_window` is in tokens, None when not listed."""

    price: Price
    context_window: int | None = None
    origin: Origin = "table"


class _Rates(msgspec.Struct, frozen=True, kw_only=True):
    """A price as the table writes it: rates in USD for a million tokens, `call` and `search` in USD for one, all as decimals."""

    input: str
    output: str
    cached_input: str | None = None
    cache_write: str | None = None
    cache_write_hour: str | None = None
    reasoning: str | None = None
    audio_input: str | None = None
    audio_cached: str | None = None
    audio_output: str | None = None
    image_input: str | None = None
    image_cached: str | None = None
    image_output: str | None = None
    video_input: str | None = None
    video_output: str | None = None
    citation: str | None = None
    above: int = 0
    begin: int = 0
    end: int = 0
    call: str = "0"
    search: str = "0"
    searches: int = 0
    since: str = ""
    tiers: tuple[_Rates, ...] = ()
    periods: tuple[_Rates, ...] = ()


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
    """Prices by provider and model. `as_of` is the snapshot's date, `digest` names its content with all that replaces it."""

    def __init__(
        self,
        raw: bytes,
        *,
        overrides: Mapping[str, Price] | None = None,
        models: Mapping[str, Price] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`raw` is the table as JSON; `overrides` are the configuration's prices by `provider/model`, `models` those by public
        name; `now`, unix seconds, picks dated prices."""
        table = msgspec.json.decode(raw, type=_Table)
        self.as_of = table.as_of
        self._raw = hashlib.sha256(raw).digest()
        self._overrides = dict(overrides or {})
        self._models = dict(models or {})
        self._changed: dict[str, Price] = {}
        self._providers = {provider.id: provider for provider in table.providers}
        self._now = now
        self.digest = self._digest()

    @classmethod
    def load(
        cls,
        *,
        overrides: Mapping[str, Price] | None = None,
        models: Mapping[str, Price] | None = None,
        now: Callable[[], float] = time.time,
    ) -> PriceTable:
        """The table that ships with this package."""
        raw = files("headgate.budget").joinpath("price_table.json").read_bytes()
        return cls(raw, overrides=overrides, models=models, now=now)

    def change(self, provider: str, model: str, price: Price | None) -> None:
        """Let a price win over every other from now on; None: no longer."""
        if price is None:
            self._changed.pop(f"{provider}/{model}", None)
        else:
            self._changed[f"{provider}/{model}"] = price
        self.digest = self._digest()

    def changed(self) -> tuple[str, ...]:
        """What was changed while the gateway ran, as `provider/model`."""
        return tuple(sorted(self._changed))

    def find(self, provider: str, model: str, name: str = "") -> Price | None:
        """What a model costs today, or None when nobody knows."""
        listing = self.listing(provider, model, name)
        return None if listing is None else listing.price

    def listing(self, provider: str, model: str, name: str = "") -> Listing | None:
        """Price and context window of a model, or None when no price is known.

        `provider` is a vendor's name (`openai`) or one that contains it (`my-openai`); `name` is the model's public name, if it
        has one.
        """
        path = f"{provider}/{model}"
        entry = self._entry(provider, model)
        window = None if entry is None else entry.window
        given: tuple[tuple[Origin, Price | None], ...] = (
            ("changed", self._changed.get(path)),
            ("model", self._models.get(name)),
            ("configured", self._overrides.get(path)),
        )
        for origin, price in given:
            if price is not None:
                return Listing(price, window, origin)
        return None if entry is None else Listing(_price(self._current(entry)), window)

    def _digest(self) -> str:
        replaced = [self._overrides, self._models, self._changed]
        return hashlib.sha256(self._raw + msgspec.json.encode(replaced, order="sorted")).hexdigest()[:16]

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
        **_nano(rates),
        call=from_usd(rates.call),
        search=from_usd(rates.search),
        searches=rates.searches,
        tiers=tuple(Tier(above=one.above, **_nano(one)) for one in rates.tiers),
        periods=tuple(Period(begin=one.begin, end=one.end, **_nano(one)) for one in rates.periods),
    )


def _nano(rates: _Rates) -> dict[str, int]:
    return {kind: price_from_usd(usd) for kind in KINDS if (usd := getattr(rates, kind)) is not None}
