"""The setting of the budget race: who calls, what each budget is, and how they come to exist.

Every group of callers has a model of its own, so that the simulator's count of that model is what the group spent, whatever the
gateway says. Six tenants have a budget each (an organisation's is shared by two), and within it one group has a narrower one:
a user, a key, a feature, a model or a whole tenant.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.servers import headgate_config
from headgate.assembly import Books, open_books
from headgate.config import Config
from headgate.model.money import Price
from headgate.model.tenancy import Window

PRICE = Price(input=1_000_000_000, output=4_000_000_000)
"""1 and 4 USD for a million tokens, so a token is a whole number of nano-USD and no sum is rounded."""

MEAN_CALL = 750_000
"""Nano-USD that a call of the mix in race_callers.py costs in the mean, about."""

LARGEST_OUTPUT = 65_536


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Callers that pay from the same budgets, and the model of that name, which only they call. `key` tells two keys of a tenant
    apart."""

    name: str
    tenant: str
    callers: int
    user: str | None = None
    feature: str | None = None
    key: str = "first"

    @property
    def headers(self) -> dict[str, str]:
        """What its requests say of themselves."""
        named = {"x-headgate-user": self.user, "x-headgate-feature": self.feature}
        return {name: value for name, value in named.items() if value is not None}


class Budgeted(msgspec.Struct, frozen=True, kw_only=True):
    """A budget under which groups race: `calls` mean calls of each of their callers. Account names are completed with ids."""

    account: str
    window: Window
    groups: tuple[str, ...]
    calls: int


GROUPS = (
    Group(name="day", tenant="solo", callers=200),
    Group(name="ada", tenant="crowd", callers=50, user="ada"),
    Group(name="ben", tenant="crowd", callers=50, user="ben"),
    Group(name="crowd", tenant="crowd", callers=100, user="carol"),
    Group(name="east", tenant="east", callers=80),
    Group(name="west", tenant="west", callers=120),
    Group(name="keyed", tenant="keys", callers=60, key="capped"),
    Group(name="keys", tenant="keys", callers=90),
    Group(name="search", tenant="features", callers=50, feature="search"),
    Group(name="features", tenant="features", callers=75, feature="chat"),
    Group(name="dear", tenant="models", callers=50),
    Group(name="models", tenant="models", callers=75),
)

BUDGETS = (
    Budgeted(account="tenant:{solo}", window="day", groups=("day",), calls=16),
    Budgeted(account="user:{crowd}/ada", window="day", groups=("ada",), calls=8),
    Budgeted(account="user:{crowd}/ben", window="week", groups=("ben",), calls=8),
    Budgeted(account="tenant:{crowd}", window="month", groups=("ada", "ben", "crowd"), calls=16),
    Budgeted(account="tenant:{east}", window="total", groups=("east",), calls=8),
    Budgeted(account="organisation:union", window="day", groups=("east", "west"), calls=16),
    Budgeted(account="key:{keys}/{keys capped}", window="month", groups=("keyed",), calls=8),
    Budgeted(account="tenant:{keys}", window="total", groups=("keyed", "keys"), calls=16),
    Budgeted(account="feature:{features}/search", window="day", groups=("search",), calls=8),
    Budgeted(account="tenant:{features}", window="week", groups=("search", "features"), calls=16),
    Budgeted(account="model:{models}/dear", window="day", groups=("dear",), calls=8),
    Budgeted(account="tenant:{models}", window="day", groups=("dear", "models"), calls=16),
)

ORGANISATIONS = {"union": None, "branch": "union"}
"""What each lies in."""

MEMBERS = {"east": "union", "west": "branch"}
"""The tenants that belong to one."""


class Cap(msgspec.Struct, frozen=True, kw_only=True):
    """A budget as it was set: `name` for the report, nano-USD, and the groups whose calls count on it."""

    name: str
    amount: int
    groups: tuple[str, ...]


class Furnished(msgspec.Struct, frozen=True):
    """What the race is run with: an API key for each group, and the caps."""

    keys: Mapping[str, str]
    caps: tuple[Cap, ...]


def scaled(callers: int) -> tuple[Group, ...]:
    """The groups with so many callers in all, at least four in each."""
    share = callers / sum(group.callers for group in GROUPS)
    return tuple(msgspec.structs.replace(group, callers=max(4, round(group.callers * share))) for group in GROUPS)


def config(simulator_port: int) -> dict[str, Any]:
    """A gateway with a model for each group, whose only limits are the budgets. The cache has nothing to do: no question is asked
    twice."""
    made = headgate_config({group.name: simulator_port for group in GROUPS}, semantic=False)
    for model in made["models"].values():
        model |= {"price": {"input": "1", "output": "4"}, "max_output": LARGEST_OUTPUT}
    made["tenant_defaults"]["budget"] = {"hour": "none"}
    return made


async def furnish(written: Mapping[str, Any], data: Path, groups: tuple[Group, ...]) -> Furnished:
    """Make tenants, keys and budgets in a data directory that nobody serves from yet."""
    async with open_books(Config.model_validate(dict(written)), data) as books:
        for organisation, parent in ORGANISATIONS.items():
            await books.tenants.organisations.put(organisation, parent)
        ids: dict[str, str] = {}
        keys: dict[str, str] = {}
        issued: dict[str, str] = {}
        for group in groups:
            if group.tenant not in ids:
                ids[group.tenant] = await _tenant(books, group.tenant)
            place = f"{group.tenant} {group.key}"
            if place not in issued:
                made = await books.tenants.create_key(ids[group.tenant], name=group.key)
                ids[place], issued[place] = made.record.id, made.key
            keys[group.name] = issued[place]
        return Furnished(keys, tuple([await _cap(books, one, groups, ids) for one in BUDGETS]))


async def _tenant(books: Books, name: str) -> str:
    policy = {"organisation": MEMBERS[name]} if name in MEMBERS else {}
    return (await books.tenants.create(name, policy=policy)).id


async def _cap(books: Books, budget: Budgeted, groups: tuple[Group, ...], ids: Mapping[str, str]) -> Cap:
    callers = sum(group.callers for group in groups if group.name in budget.groups)
    amount = callers * budget.calls * MEAN_CALL
    await books.desk.set(budget.account.format_map(ids), budget.window, amount)
    name = budget.account.replace("{", "").replace("}", "")
    return Cap(name=f"{name}, {budget.window}", amount=amount, groups=budget.groups)
