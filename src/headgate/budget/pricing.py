"""Pricing: what models cost now, and how that is changed while calls are made.

The journal is the truth: a change of a price is a row of it, which wins over configuration and table until another row takes it
back. A dated price begins on its day. Whoever plans calls is told of both; a call under way keeps the price it was planned with.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from headgate.budget.budget import Repricing, Repricings
from headgate.budget.prices import PriceTable
from headgate.model.errors import InvalidRequest, NotFound
from headgate.model.ids import Ids
from headgate.model.money import DAY, KINDS, MOST_SEARCHES, Price, Rates

DEAREST = 10**15
"""Nano-USD for a million tokens, or for a call: a million dollars. With more, a broken report could exceed what a column holds."""

DEAREST_SEARCH = 10**12
LONGEST_NAME = 300


class Pricing:
    """Keeps a price table up to date, and changes it."""

    def __init__(
        self,
        table: PriceTable,
        repricings: Repricings,
        *,
        models: Mapping[str, tuple[str, str]] | None = None,
        providers: Collection[str] = (),
        on_change: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """`models`: each model that can be called, by its public name, as its provider's name and the provider's name for it.
        `providers`: all that are configured. `on_change` is called when prices may be others than before; `now` is the wall clock,
        unix seconds."""
        self.table = table
        self.models = dict(models or {})
        self._providers = tuple(providers)
        self._repricings = repricings
        self._on_change = on_change
        self._now = now
        self._new_id = new_id or Ids()
        self._read = 0
        self._day = now() // DAY
        self._reading = asyncio.Lock()

    def called(self, provider: str, model: str) -> str:
        """The public name of a provider's model; empty when it has none."""
        return next((name for name, path in self.models.items() if path == (provider, model)), "")

    async def refresh(self) -> None:
        """Let prices apply that were changed, here or by another process, or have begun since the last time."""
        async with self._reading:
            place, repricings = await self._repricings.repricings(self._read)
            for one in repricings:
                self.table.change(one.provider, one.model, one.price)
            day = self._now() // DAY
            if repricings or day != self._day:
                self._on_change()
            self._read, self._day = place, day

    async def set(self, provider: str, model: str, price: Price, *, by: str = "") -> None:
        """Let a model cost this from now on. Raises InvalidRequest for what cannot be a price, NotFound for a
        provider there is not."""
        await self._write(
            Repricing(id=self._new_id(), provider=provider, model=model, price=checked_price(price), by=by)
        )

    async def unset(self, provider: str, model: str, *, by: str = "") -> None:
        """Let a model cost again what configuration and table say. Raises NotFound when nothing else was set."""
        await self.refresh()
        if f"{provider}/{model}" not in self.table.changed():
            raise NotFound(f"No price was set for {provider}/{model}; it costs what configuration and table say.")
        await self._write(Repricing(id=self._new_id(), provider=provider, model=model, by=by))

    async def _write(self, repricing: Repricing) -> None:
        if repricing.provider not in self._providers:
            listed = ", ".join(self._providers) or "none"
            raise NotFound(f"There is no provider {repricing.provider[:80]!r}, only {listed}.", param="provider")
        if not 0 < len(repricing.model) <= LONGEST_NAME:
            raise InvalidRequest(f"A model's name has 1 to {LONGEST_NAME} characters.", param="model")
        await self._repricings.reprice(repricing)
        await self.refresh()


def checked_price(price: Price) -> Price:
    """The price. Raises InvalidRequest naming the field that cannot be."""
    for rates in (price, *price.tiers, *price.periods):
        _check_rates(rates)
    for name, amount, most in (
        ("call", price.call, DEAREST),
        ("search", price.search, DEAREST_SEARCH),
        ("searches", price.searches, MOST_SEARCHES),
    ):
        if type(amount) is not int or not 0 <= amount <= most:
            raise InvalidRequest(f"`{name}` must be from 0 to {most}.", param=name)
    above = [tier.above for tier in price.tiers]
    if above != sorted(set(above)) or any(each < 0 for each in above):
        raise InvalidRequest("`tiers` must begin above ascending numbers of tokens.", param="tiers")
    return price


def _check_rates(rates: Rates) -> None:
    for kind in KINDS:
        amount = getattr(rates, kind)
        if amount is not None and (type(amount) is not int or not 0 <= amount <= DEAREST):
            raise InvalidRequest(f"`{kind}` must be from 0 to {DEAREST // 10**9} USD for a million tokens.", param=kind)
