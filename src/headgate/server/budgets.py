"""Budgets as operators see and change them: the same for `/admin/budgets` and for `headgate budgets`.

An account is written as in the journal, except that its tenant may be called by name: `acme` or `tenant:acme` is `tenant:t_4fk...`,
and `user:acme/alice` a user of it. What is set for several windows at once is set for all of them or for none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

from headgate.assembly import Books, Engine
from headgate.budget.allowance import ALERTS, Allowance, Rule, Unit, level_of, personal, tenant_of
from headgate.budget.allowances import Allowances, Desk, refuse_below
from headgate.budget.budget import Change, Changes, Statements, UsageQuery
from headgate.budget.terms import scope_of
from headgate.budget.windows import window_bounds, window_end
from headgate.model.chat import Json
from headgate.model.errors import Conflict, InvalidRequest, NotFound
from headgate.model.money import to_usd
from headgate.model.tenancy import WINDOWS, Tenant, Window
from headgate.tenants.tenants import Tenants

LONGEST = 256
"""Characters of a user or a feature, as in the headers that callers name them with."""

MOST_LISTED = 10_000

GROUP: dict[str, Literal["user", "key", "feature", "deployment"]] = {
    "user": "user",
    "key": "key",
    "feature": "feature",
    "model": "deployment",
}
"""What the journal's rows of an account beneath a tenant have in common."""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted for one window, as `Allowance`; without `alerts` they stay as they are."""

    cap: int | None
    unit: Unit = "usd"
    rule: Rule = "hard"
    percent: int = 0
    alerts: tuple[int, ...] | None = None


class Payer(msgspec.Struct, frozen=True):
    """An account that exists: its `name` as people write it, the zone of its windows, and its tenant's id if it has one."""

    account: str
    name: str
    zone: str
    tenant: str | None


class Budgets:
    """What accounts may spend: shown and changed. Changes of one process never lose each other's."""

    def __init__(
        self,
        tenants: Tenants,
        desk: Desk,
        allowances: Allowances,
        *,
        statements: Statements,
        changes: Changes,
        refresh: Callable[[], Awaitable[None]],
        deployments: Collection[str],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`refresh` brings `allowances` up to date; `deployments` are the names of those there are; `now` is in unix seconds."""
        self._tenants = tenants
        self._desk = desk
        self._allowances = allowances
        self._statements = statements
        self._journal = changes
        self._refresh = refresh
        self._deployments = deployments
        self._now = now
        self._lock = asyncio.Lock()

    async def payer(self, text: str) -> Payer:
        """Whose account this is. Raises InvalidRequest when it is written wrongly, NotFound when there is none."""
        try:
            return await self._found(text)
        except NotFound as error:
            raise NotFound(error.message, param="account") from None

    async def _found(self, text: str) -> Payer:
        if ":" not in text:
            return _payer_of(await self._tenants.called(text))
        level, name = level_of(text), text.partition(":")[2]
        if level == "organisation":
            found = await self._tenants.organisations.called(name)
            return Payer(f"organisation:{found.name}", text, "UTC", None)
        called, _, part = name.partition("/")
        tenant = await self._tenants.called(called)
        if level == "tenant":
            return _payer_of(tenant)
        await self._check_part(level, tenant, part)
        return _payer_beneath(f"{level}:{tenant.id}/{part}", tenant)

    async def _check_part(self, level: str, tenant: Tenant, part: str) -> None:
        """Callers invent users and features; keys and deployments exist or do not."""
        if level == "key" and all(one.id != part for one in await self._tenants.list_keys(tenant.id)):
            raise NotFound(f"The tenant {tenant.name} has no key {part[:80]!r}.")
        if level == "model" and part not in self._deployments:
            names = ", ".join(sorted(self._deployments)[:20])
            raise NotFound(f"There is no model {part[:80]!r}, only {names}.")
        if len(part) > LONGEST or not part.isprintable():
            raise InvalidRequest(f"A {level} is named by at most {LONGEST} printable characters.", param="account")

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """One change at a time in this process, made to what is so now; it applies here when it is over."""
        async with self._lock:
            await self._refresh()
            try:
                yield
            finally:
                await self._refresh()

    async def drafts(self, payer: Payer, limits: Mapping[Window, Limit]) -> list[Allowance]:
        """What `put` may write. Raises InvalidRequest naming window and field; nothing is changed. Only while `changing`."""
        drafts = []
        for window, limit in limits.items():
            known = self._allowances.find(payer.account, window, limit.unit)
            alerts = (ALERTS if known is None else known.alerts) if limit.alerts is None else limit.alerts
            wanted = Allowance(
                account=payer.account,
                window=window,
                unit=limit.unit,
                cap=limit.cap,
                rule=limit.rule,
                percent=limit.percent,
                alerts=alerts,
            )
            try:
                drafts.append(await self._desk.draft(wanted, zone=payer.zone))
                if known is None:
                    refuse_below(await self._uncounted(payer, wanted), wanted)
            except InvalidRequest as error:
                raise InvalidRequest(error.message, param=f"{window}.{error.param}") from None
        return drafts

    async def put(self, drafts: list[Allowance], *, by: str) -> None:
        """Let drafts apply. Only while `changing`; `by` says who did it."""
        await self._desk.put(drafts, by=by)

    async def set(self, account: str, limits: Mapping[Window, Limit], *, by: str) -> Json:
        """Set what an account may spend in these windows, in all or none; its standing. Raises as `payer` and `drafts`."""
        payer = await self.payer(account)
        async with self.changing():
            await self.put(await self.drafts(payer, limits), by=by)
        return await self._standing(payer)

    async def top_up(self, account: str, window: Window, amount: int, *, unit: Unit = "usd", by: str) -> Json:
        """Add to a cap for its present window. Raises InvalidRequest, also where there is no cap."""
        payer = await self.payer(account)
        async with self.changing():
            await self._desk.top_up(payer.account, window, amount, unit=unit, zone=payer.zone, by=by)
        return await self._standing(payer)

    async def suspend(self, account: str, *, by: str) -> Json:
        """Refuse all calls of an account until it is resumed."""
        payer = await self.payer(account)
        async with self.changing():
            await self._desk.suspend(payer.account, by=by)
        return await self._standing(payer)

    async def resume(self, account: str, *, by: str) -> Json:
        """Let an account spend again."""
        payer = await self.payer(account)
        async with self.changing():
            await self._desk.resume(payer.account, by=by)
        return await self._standing(payer)

    async def show(self, account: str) -> Json:
        """What an account may spend, has spent and has on hold."""
        return await self._standing(await self.payer(account))

    async def standings(
        self, *, tenant: str | None = None, account: str | None = None, limit: int | None = None, offset: int = 0
    ) -> list[Json]:
        """The standing of every tenant, then of every other account for which something was set; or only those of a tenant, or one.

        At most `limit` of them, behind the first `offset`.
        """
        payers = await self._payers(tenant) if account is None else [await self.payer(account)]
        if account is not None and tenant is not None:
            owner = (await self._tenants.called(tenant)).id
            payers = [one for one in payers if one.tenant == owner]
        chosen = payers[offset:] if limit is None else payers[offset : offset + limit]
        return [await self._standing(one) for one in chosen]

    async def _payers(self, tenant: str | None) -> list[Payer]:
        known = await self._tenants.list_tenants() if tenant is None else [await self._tenants.called(tenant)]
        tenants = {one.id: one for one in known}
        payers = [_payer_of(one) for one in known]
        organisations = {one.name for one in await self._tenants.organisations.all()} if tenant is None else set()
        for name in dict.fromkeys(one.account for one in self._allowances.all()):
            level, owner = level_of(name), tenant_of(name)
            if owner in tenants and level != "tenant":
                payers.append(_payer_beneath(name, tenants[owner]))
            elif owner is None and name.partition(":")[2] in organisations:
                payers.append(Payer(name, name, "UTC", None))
        return payers

    async def changes(self, *, account: str | None = None, limit: int = 100) -> list[Json]:
        """The newest changes, of all accounts or of one, newest first. The account may be one that is gone, by its id."""
        changes = (await self._journal.changes())[1]
        if account is not None:
            try:
                wanted = (await self.payer(account)).account
            except NotFound:
                wanted = account if ":" in account else f"tenant:{account}"
                if all(one.allowance.account != wanted for one in changes):
                    raise
            changes = [one for one in changes if one.allowance.account == wanted]
        return [_change(one) for one in reversed(changes[-limit:])]

    def caps(self, tenant: str) -> Json:
        """A tenant's caps in USD by window; None where there is none."""
        allowed = {one.window: one.cap for one in self._allowances.of_tenant(tenant) if one.unit == "usd"}
        return {window: _written(allowed[window], "usd") for window in WINDOWS}

    async def drop_organisation(self, name: str) -> None:
        """Delete an organisation. Raises NotFound, and Conflict while something lies in it or its budgets would outlive it."""
        async with self.changing():
            kept = self._allowances.of(f"organisation:{name}")
            if any(one.cap is not None or one.suspended for one in kept):
                raise Conflict(f"The organisation {name} still has budgets; take their caps away and resume it first.")
            await self._tenants.organisations.drop(name)

    async def _standing(self, payer: Payer) -> Json:
        if level_of(payer.account) == "tenant" and payer.tenant is not None:
            allowed = self._allowances.of_tenant(payer.tenant)
        else:
            allowed = self._allowances.of(payer.account)
        rows: dict[Unit, Json] = {"usd": {}, "tokens": {}}
        for one in sorted(allowed, key=lambda each: WINDOWS.index(each.window)):
            rows[one.unit][one.window] = await self._row(one, payer.zone)
        shown = {"account": payer.account, "tenant": payer.tenant, "name": payer.name}
        return {**shown, "windows": rows["usd"], "tokens": rows["tokens"]}

    async def _row(self, allowance: Allowance, zone: str) -> Json:
        window = scope_of(allowance, self._now(), zone).window
        balance = await self._statements.balance(allowance.account, window)
        limit = allowance.limit(window)
        left = None if limit is None else max(0, limit - balance.spent - balance.held)
        amounts = {"spent": balance.spent, "held": balance.held, "left": left}
        return {
            **_terms(allowance, window),
            **_amounts(amounts, allowance.unit),
            "id": window,
            "ends": window_end(window),
        }

    async def _uncounted(self, payer: Payer, wanted: Allowance) -> int:
        """What an account that has not been counted until now has spent in the present window, as far as it is in the journal."""
        level = level_of(payer.account)
        if level == "tenant" and wanted.unit == "usd":
            return 0
        bounds = window_bounds(scope_of(wanted, self._now(), payer.zone).window) or (None, None)
        field, value = GROUP.get(level), payer.account.partition("/")[2]
        spent = 0
        for tenant in await self._paying(payer):
            group = ("source",) if field is None else ("source", field)
            query = UsageQuery(tenant=tenant, since=bounds[0], until=bounds[1], group_by=group)
            for row in await self._statements.usage(query):
                live = row.group["source"] == "live"
                if field is not None and row.group[field] != value:
                    continue
                if wanted.unit == "tokens":
                    spent += (row.prompt_tokens + row.completion_tokens) if live else 0
                else:
                    owed = row.cost if live else row.billed
                    spent += owed - (row.shared if live == personal(payer.account) else 0)
        return spent

    async def _paying(self, payer: Payer) -> tuple[str, ...]:
        if payer.tenant is not None:
            return (payer.tenant,)
        return await self._tenants.members(payer.account.partition(":")[2])


def budgets_of(stores: Engine | Books) -> Budgets:
    """The budgets of a running gateway, or of a data directory."""
    if isinstance(stores, Books):
        return Budgets(
            stores.tenants,
            stores.desk,
            stores.allowances,
            statements=stores.statements,
            changes=stores.changes,
            refresh=stores.refresh,
            deployments=stores.deployments,
        )
    budget = stores.gateway.budget
    return Budgets(
        stores.tenants,
        stores.desk,
        budget.allowances,
        statements=budget.ledger,
        changes=budget.ledger,
        refresh=budget.refresh,
        deployments=tuple(stores.gateway.routing.health()),
        now=stores.now,
    )


def _payer_of(tenant: Tenant) -> Payer:
    return Payer(f"tenant:{tenant.id}", tenant.name, tenant.policy.zone, tenant.id)


def _payer_beneath(account: str, tenant: Tenant) -> Payer:
    level, part = account.partition(":")[0], account.partition("/")[2]
    return Payer(account, f"{level}:{tenant.name}/{part}", tenant.policy.zone, tenant.id)


def _terms(allowance: Allowance, window: str) -> Json:
    """The cap, what was topped up for the window of this id, and the rule."""
    extra = allowance.extra if allowance.extra_window == window else 0
    return {
        **_amounts({"cap": allowance.cap, "extra": extra}, allowance.unit),
        "rule": allowance.rule,
        "percent": allowance.percent,
        "alerts": list(allowance.alerts),
        "suspended": allowance.suspended,
    }


def _change(change: Change) -> Json:
    allowance = change.allowance
    topped = {"amount": change.amount} if change.action == "top-up" else {}
    return {
        "id": change.id,
        "at": change.at,
        "by": change.by,
        "action": change.action,
        "account": allowance.account,
        "window": allowance.window,
        "unit": allowance.unit,
        **_amounts(topped, allowance.unit),
        **_terms(allowance, allowance.extra_window),
    }


def _amounts(amounts: Mapping[str, int | None], unit: Unit) -> Json:
    return {f"{name}_{unit}": _written(amount, unit) for name, amount in amounts.items()}


def _written(amount: int | None, unit: Unit) -> str | int | None:
    """Money as decimal text, tokens as a whole number."""
    return to_usd(amount) if amount is not None and unit == "usd" else amount
