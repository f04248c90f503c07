"""Allowances: who may spend what, as it is now, and how that is changed while calls are made.

The journal is the truth: a change is a row of it, and what is held here is what all changes of an account, window and unit
come to, one after the other. Of two that were made at once, by two processes, neither undoes the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from headgate.budget.allowance import Allowance, Rule, Unit, checked_allowance, level_of, tenant_of
from headgate.budget.budget import Action, Balance, Change, Changes
from headgate.budget.windows import TOKENS, window_id
from headgate.model.errors import InvalidRequest
from headgate.model.ids import Ids
from headgate.model.money import LARGEST, to_usd
from headgate.model.tenancy import WINDOWS, Caps, Window

Place = tuple[Window, Unit]
Which = tuple[str, Window, Unit]
"""Which allowance: an account, its kind of window and the unit."""


class Tally(Protocol):
    """Where spent money can be looked up."""

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent and held on a scope."""
        ...


class Allowances:
    """The present state, in this process. A tenant that has no word on a window has the default for it."""

    def __init__(self, defaults: Caps | None = None) -> None:
        """`defaults`: the caps of every tenant for which nothing else was said."""
        self.defaults = defaults or Caps()
        self.version = 0
        self._known: dict[str, dict[Place, Allowance]] = {}
        self.beneath: set[str] = set()
        """Tenants beneath which something was set: for a user, a key or a feature."""
        self._models: dict[str, dict[str, tuple[Allowance, ...]]] = {}

    def put(self, allowance: Allowance) -> None:
        """Let an allowance apply from now on."""
        places = self._known.setdefault(allowance.account, {})
        places[allowance.window, allowance.unit] = allowance
        level, _, name = allowance.account.partition(":")
        tenant, _, part = name.partition("/")
        if level == "model":
            self._models.setdefault(tenant, {})[part] = tuple(places.values())
        elif part:
            self.beneath.add(tenant)
        self.version += 1

    def find(self, account: str, window: Window, unit: Unit = "usd") -> Allowance | None:
        """What was set for an account, if anything was."""
        return self._known.get(account, {}).get((window, unit))

    def of(self, account: str) -> tuple[Allowance, ...]:
        """All that was set for an account."""
        return tuple(self._known.get(account, {}).values())

    def of_tenant(self, tenant: str) -> tuple[Allowance, ...]:
        """What applies to a tenant: one for every window in USD, set or by default, and what was set in tokens."""
        account = f"tenant:{tenant}"
        money = [self.find(account, window) or self.default(account, window) for window in WINDOWS]
        return (*money, *(one for one in self.of(account) if one.unit == "tokens"))

    def of_models(self, tenant: str) -> dict[str, tuple[Allowance, ...]]:
        """What was set for deployments within a tenant, by deployment."""
        return self._models.get(tenant, {})

    def default(self, account: str, window: Window) -> Allowance:
        """What a tenant has for which nothing was set."""
        return Allowance(account=account, window=window, cap=getattr(self.defaults, window))

    def all(self) -> Iterable[Allowance]:
        """All that were set, by account."""
        for account in sorted(self._known):
            yield from self._known[account].values()


def folded(changes: Iterable[Change], before: Mapping[Which, Allowance]) -> dict[Which, Allowance]:
    """The allowances that these changes concern as they are after them; `before` is how all were."""
    after: dict[Which, Allowance] = {}
    for change in changes:
        which = (change.allowance.account, change.allowance.window, change.allowance.unit)
        after[which] = _changed(after.get(which) or before.get(which), change)
    return after


def _changed(before: Allowance | None, change: Change) -> Allowance:
    """A change says what it changes, and what its author took the rest to be; the rest stays as it is."""
    after = change.allowance
    if before is None:
        return after
    if change.action == "set":
        return msgspec.structs.replace(after, suspended=before.suspended, created=before.created)
    if change.action == "top-up":
        extra = change.amount + (before.extra if before.extra_window == after.extra_window else 0)
        return msgspec.structs.replace(before, extra=min(extra, LARGEST), extra_window=after.extra_window)
    return msgspec.structs.replace(before, suspended=change.action == "suspend")


class Desk:
    """Changes allowances: checks, and writes a row of the journal. Who counts reads it from there."""

    def __init__(
        self,
        allowances: Allowances,
        changes: Changes,
        tally: Tally,
        *,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """`allowances` must be up to date; `now` is the store's clock."""
        self._allowances = allowances
        self._changes = changes
        self._tally = tally
        self._now = now
        self._new_id = new_id or Ids()

    async def set(
        self,
        account: str,
        window: Window,
        cap: int | None,
        *,
        unit: Unit = "usd",
        rule: Rule = "hard",
        percent: int = 0,
        alerts: tuple[int, ...] | None = None,
        zone: str = "UTC",
        by: str = "",
    ) -> Allowance:
        """Set what an account may spend in a window; a cap of None is none, and without `alerts` they stay.

        `zone` is that of the account's windows. Raises InvalidRequest, also for a cap below what has been spent.
        """
        kept = self._before(account, window, unit).alerts if alerts is None else alerts
        wanted = Allowance(account=account, window=window, unit=unit, cap=cap, rule=rule, percent=percent, alerts=kept)
        drafted = await self.draft(wanted, zone=zone)
        await self.put([drafted], by=by)
        return drafted

    async def draft(self, wanted: Allowance, *, zone: str = "UTC") -> Allowance:
        """The allowance as `put` may write it: checked as `set` does, and as suspended as it is now. Nothing is changed."""
        checked_allowance(wanted)
        account, window, unit = wanted.account, wanted.window, wanted.unit
        before, present = self._before(account, window, unit), _place(window, unit, self._now(), zone)
        limit = before.limit(present)
        if limit is None or (wanted.cap is not None and wanted.cap < limit):
            refuse_below((await self._tally.balance(account, present)).spent, wanted)
        created = before.created or self._now()
        return msgspec.structs.replace(wanted, suspended=before.suspended, created=created)

    async def put(self, drafts: Iterable[Allowance], *, by: str = "") -> None:
        """Let drafts apply from now on."""
        for drafted in drafts:
            await self._write("set", drafted, by)

    async def top_up(
        self, account: str, window: Window, amount: int, *, unit: Unit = "usd", zone: str = "UTC", by: str = ""
    ) -> Allowance:
        """Add to what an account may spend in its present window; in `total` for good. Raises InvalidRequest."""
        before = self._before(account, window, unit)
        if type(amount) is not int or not 0 < amount <= LARGEST:
            raise InvalidRequest("A top-up is an amount above nothing.", param="amount")
        if before.cap is None:
            raise InvalidRequest(f"{account} has no cap for {window}, so there is nothing to top up.", param="window")
        present = _place(window, unit, self._now(), zone)
        extra = (before.extra if before.extra_window == present else 0) + amount
        if before.cap + extra > LARGEST:
            raise InvalidRequest("The cap would be beyond every amount of money.", param="amount")
        wanted = msgspec.structs.replace(
            before, extra=extra, extra_window=present, created=before.created or self._now()
        )
        return await self._write("top-up", wanted, by, amount)

    async def suspend(self, account: str, *, by: str = "") -> list[Allowance]:
        """Refuse every call of an account until it is resumed."""
        return await self._switch(account, suspended=True, by=by)

    async def resume(self, account: str, *, by: str = "") -> list[Allowance]:
        """Let an account spend again what its caps allow."""
        return await self._switch(account, suspended=False, by=by)

    async def _switch(self, account: str, *, suspended: bool, by: str) -> list[Allowance]:
        """The switch is an allowance's, so an account that has none gets one without a cap."""
        level_of(account)
        chosen = self._allowances.of(account) or (self._before(account, "total", "usd"),)
        switched = [one for one in chosen if one.suspended != suspended]
        return [
            await self._write(
                "suspend" if suspended else "resume",
                msgspec.structs.replace(one, suspended=suspended, created=one.created or self._now()),
                by,
            )
            for one in switched
        ]

    def _before(self, account: str, window: Window, unit: Unit) -> Allowance:
        level = level_of(account)
        if window not in WINDOWS:
            raise InvalidRequest(f"There is no window {window!r}, only {', '.join(WINDOWS)}.", param="window")
        found = self._allowances.find(account, window, unit)
        if found is not None:
            return found
        if level == "tenant" and unit == "usd":
            return self._allowances.default(account, window)
        return Allowance(account=account, window=window, unit=unit)

    async def _write(self, action: Action, wanted: Allowance, by: str, amount: int = 0) -> Allowance:
        change = Change(id=self._new_id(), at=self._now(), action=action, allowance=wanted, by=by, amount=amount)
        await self._changes.change(change)
        return wanted


def refuse_below(spent: int, wanted: Allowance) -> None:
    """Raises InvalidRequest when the cap is below what is spent in its present window."""
    if wanted.cap is not None and wanted.cap < spent:
        what = f"{spent} tokens are" if wanted.unit == "tokens" else f"{to_usd(spent)} USD is"
        when = "spent in all" if wanted.window == "total" else f"spent in this {wanted.window}"
        raise InvalidRequest(f"{what} {when}, more than the new cap. To stop the spending, suspend it.", param="cap")


async def standing(tally: Tally, allowance: Allowance, zone: str, at: float) -> Balance:
    """What is spent and held of an allowance in the window that holds the unix time `at`; `zone` is its tenant's."""
    place = "UTC" if tenant_of(allowance.account) is None else zone
    return await tally.balance(allowance.account, _place(allowance.window, allowance.unit, at, place))


def _place(window: Window, unit: Unit, at: float, zone: str) -> str:
    try:
        return (TOKENS if unit == "tokens" else "") + window_id(window, at, zone)
    except ValueError as error:
        raise InvalidRequest(f"{error}.", param="zone") from None
