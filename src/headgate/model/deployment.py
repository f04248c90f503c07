"""Deployment: one model at one provider, with what it can do and what it costs."""

from __future__ import annotations

import msgspec

from headgate.model.money import Price


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be called.

    name            its public name, as callers and headers say it
    provider        the provider's name in the configuration
    model           the provider's own name for it
    price           None when no price is known
    prices          digest of the table, with its overrides, that the price is from; empty when none is known
    context_window  tokens that prompt and answer may have together
    max_output      most output tokens that it gives
    capabilities    of `tools`, `vision`, `json`
    region          where it works on what it is sent; None when nobody said
    """

    name: str
    provider: str
    model: str
    price: Price | None = None
    prices: str = ""
    context_window: int = 128_000
    max_output: int = 4_096
    capabilities: frozenset[str] = frozenset({"tools", "json"})
    region: str | None = None
