"""Allowance: what one account may spend in one kind of window, and what happens when it would spend more.

Accounts are written `organisation:NAME`, `tenant:ID`, and beneath a tenant `user:TENANT/NAME`, `key:TENANT/ID`,
`feature:TENANT/TAG` and `model:TENANT/DEPLOYMENT`. An account has at most one allowance for each window and unit.

What happens when a call could exceed the cap:

    hard      it is refused
    soft      nothing but the alerts
    grace     it is refused once the cap is exceeded by `percent`
    degrade   a route with tiers goes to its cheapest; a call that leaves no such choice is refused
    overage   nothing is refused; what is beyond the cap is billed at `percent` of its cost
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from headgate.model.errors import InvalidRequest
from headgate.model.money import LARGEST
from headgate.model.tenancy import WINDOWS, Window

Unit = Literal["usd", "tokens"]
Rule = Literal["hard", "soft", "grace", "degrade", "overage"]
Level = Literal["organisation", "tenant", "user", "key", "feature", "model"]
LEVELS: tuple[Level, ...] = get_args(Level)
ALERTS = (50, 80, 100)
MOST_PERCENT = 10_000
MOST_ALERTS = 8
_PERSONAL = ("user:", "key:", "feature:")


class Allowance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One cap. `cap` is nano-USD or tokens; None counts without limiting.

    alerts      percents of the cap at which somebody is told, each once in a window
    suspended   every call is refused until it is resumed
    extra       added to the cap in the window `extra_window` alone: what was topped up
    created     unix seconds
    """

    account: str
    window: Window
    unit: Unit = "usd"
    cap: int | None = None
    rule: Rule = "hard"
    percent: int = 0
    alerts: tuple[int, ...] = ALERTS
    suspended: bool = False
    extra: int = 0
    extra_window: str = ""
    created: float = 0.0

    def limit(self, window: str) -> int | None:
        """The cap with what was topped up for the window of this id."""
        if self.cap is None or self.extra_window != window:
            return self.cap
        return min(self.cap + self.extra, LARGEST)

    def admits(self, window: str) -> int | None:
        """The most that settled and held may come to; None is no limit, -1 lets nothing in."""
        if self.suspended:
            return -1
        limit = self.limit(window)
        if limit is None or self.rule in ("soft", "overage"):
            return None
        return min(limit * (100 + self.percent) // 100, LARGEST) if self.rule == "grace" else limit


def personal(account: str) -> bool:
    """Whether an account is that of some callers of a tenant: a user, a key or a feature."""
    return account.startswith(_PERSONAL)


def level_of(account: str) -> Level:
    """The level of an account. Raises InvalidRequest when it is not written as one."""
    level, colon, name = account.partition(":")
    tenant, slash, part = name.partition("/")
    below = level in ("user", "key", "feature", "model")
    if (
        level not in LEVELS
        or not colon
        or not tenant
        or below != bool(slash)
        or (below and not part)
        or len(account) > 400
        or not account.isprintable()
    ):
        raise InvalidRequest(
            f"{account[:80]!r} is no account; write organisation:NAME, tenant:ID, user:TENANT/NAME, key:TENANT/ID,"
            " feature:TENANT/TAG or model:TENANT/DEPLOYMENT.",
            param="account",
        )
    return level


def tenant_of(account: str) -> str | None:
    """The tenant that an account is, or lies beneath; None for an organisation's."""
    level, _, name = account.partition(":")
    return None if level == "organisation" else name.partition("/")[0]


def checked_allowance(allowance: Allowance) -> Allowance:
    """The allowance. Raises InvalidRequest naming the field that cannot be."""
    level_of(allowance.account)
    if allowance.window not in WINDOWS:
        raise InvalidRequest(f"There is no window {allowance.window!r}, only {', '.join(WINDOWS)}.", param="window")
    if allowance.unit not in get_args(Unit):
        raise InvalidRequest(f"A budget counts usd or tokens, not {allowance.unit!r}.", param="unit")
    if allowance.rule not in get_args(Rule):
        raise InvalidRequest(f"There is no rule {allowance.rule!r}, only {', '.join(get_args(Rule))}.", param="rule")
    for name, amount in (("cap", allowance.cap), ("extra", allowance.extra)):
        if amount is not None and (type(amount) is not int or not 0 <= amount <= LARGEST):
            raise InvalidRequest(f"`{name}` must be from 0 to {LARGEST}, in whole nano-USD or tokens.", param=name)
    _check_percents(allowance)
    return allowance


def _check_percents(allowance: Allowance) -> None:
    least = {"grace": 1, "overage": 100}.get(allowance.rule)
    if least is None and allowance.percent:
        raise InvalidRequest(f"The rule {allowance.rule} takes no `percent`.", param="percent")
    if least is not None and not _is_percent(allowance.percent, least, MOST_PERCENT):
        raise InvalidRequest(
            f"The rule {allowance.rule} needs a whole `percent` from {least} to {MOST_PERCENT}.", param="percent"
        )
    if allowance.rule == "overage" and allowance.unit == "tokens":
        raise InvalidRequest("Tokens beyond a cap cannot be billed; use a budget in usd.", param="rule")
    if len(allowance.alerts) > MOST_ALERTS or not all(_is_percent(one, 1, 1_000) for one in allowance.alerts):
        raise InvalidRequest(f"`alerts` are at most {MOST_ALERTS} whole percents from 1 to 1000.", param="alerts")


def _is_percent(percent: int, least: int, most: int) -> bool:
    return type(percent) is int and least <= percent <= most
