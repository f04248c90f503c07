"""Terms: what applies to one caller's calls, out of all that has been set.

A call counts on its organisations, its tenant, its user, its key, its feature and, per deployment, its model. A tenant's windows
are always counted, so that a cap set in the middle of one knows what was spent; every other account from the time that something
is set for it. A tenant that gets another zone begins new windows with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec

from headgate.budget.allowance import Allowance
from headgate.budget.allowances import Allowances
from headgate.budget.budget import Scope
from headgate.budget.windows import TOKENS, window_id
from headgate.model.tenancy import Principal, Wishes

MOST_REMEMBERED = 20_000
PERSONAL = ("user", "key", "feature")


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The scopes of a call.

    models     further scopes, by the deployment that is called
    capped     whether money is limited at all: then a model without a price cannot be called
    degrading  scopes whose rule lets a route fall back to its cheapest tier instead of refusing
    personal   accounts beneath the tenant that limit the call: other callers of the tenant need not have them
    alone      scopes of such accounts, whether they limit anything or only count
    joined     what `scopes_of` has answered so far
    """

    scopes: tuple[Scope, ...]
    models: dict[str, tuple[Scope, ...]]
    capped: bool
    degrading: tuple[Scope, ...] = ()
    personal: tuple[str, ...] = ()
    alone: tuple[Scope, ...] = ()
    joined: dict[tuple[tuple[str, ...], bool], tuple[Scope, ...]] = {}

    def alone_of(self, *, tiered: bool) -> tuple[Scope, ...]:
        """Scopes that are not the tenant's, as `scopes_of` has them."""
        return self.alone if tiered else tuple(map(_strict, self.alone))

    def scopes_of(self, deployments: Iterable[str], *, tiered: bool) -> tuple[Scope, ...]:
        """All scopes of a call that may go to these deployments; where there is no cheaper tier, degrading ones refuse."""
        if not self.models and (tiered or not self.degrading):
            return self.scopes
        place = (tuple(dict.fromkeys(deployments)), tiered)
        scopes = self.joined.get(place)
        if scopes is None:
            scopes = (*self.scopes, *(scope for name in place[0] for scope in self.models.get(name, ())))
            scopes = self.joined[place] = scopes if tiered else tuple(map(_strict, scopes))
        return scopes


class Scoping:
    """Works out terms; remembers them for as long as the windows and the allowances stay the same."""

    def __init__(self, allowances: Allowances, *, now: Callable[[], float] = time.time) -> None:
        self._allowances = allowances
        self._now = now
        self._state = (-1, -1)
        self._known: dict[tuple[object, ...], Terms] = {}

    def terms(self, caller: Principal, wishes: Wishes) -> Terms:
        """What applies to a call of this caller, now."""
        at = self._now()
        state = (int(at // 60), self._allowances.version)
        if state != self._state or len(self._known) >= MOST_REMEMBERED:
            self._state, self._known = state, {}
        policy = caller.policy
        # Callers invent users and features; only those for which something was set make a difference.
        personal = self._personal(caller, wishes) if caller.tenant in self._allowances.beneath else ()
        place = (caller.tenant, caller.organisations, policy.zone, policy.tpm, personal)
        found = self._known.get(place)
        if found is None:
            found = self._known[place] = self._work_out(caller, personal, at)
        return found

    def _personal(self, caller: Principal, wishes: Wishes) -> tuple[str, ...]:
        """The accounts of this caller beneath its tenant for which something was set."""
        names = zip(PERSONAL, (wishes.user or caller.user, caller.key, wishes.feature), strict=True)
        accounts = [f"{level}:{caller.tenant}/{name}" for level, name in names if name]
        return tuple(account for account in accounts if self._allowances.of(account))

    def _work_out(self, caller: Principal, personal: tuple[str, ...], at: float) -> Terms:
        known, tenant, zone = self._allowances, caller.tenant, caller.policy.zone
        above = [one for name in dict.fromkeys(caller.organisations) for one in known.of(f"organisation:{name}")]
        scopes = [scope_of(one, at, "UTC") for one in above]
        scopes += [scope_of(one, at, zone) for one in known.of_tenant(tenant)]
        mine = [scope_of(one, at, zone) for account in personal for one in known.of(account)]
        scopes += mine
        if caller.policy.tpm is not None:
            minute = TOKENS + window_id("minute", at)
            scopes.append(Scope(f"tenant:{tenant}", minute, caller.policy.tpm, tokens=True))
        models = {
            deployment: tuple(
                msgspec.structs.replace(scope_of(one, at, zone), deployment=deployment) for one in allowances
            )
            for deployment, allowances in known.of_models(tenant).items()
        }
        everything = (*scopes, *(scope for some in models.values() for scope in some))
        return Terms(
            scopes=tuple(scopes),
            models=models,
            capped=any(_limits_money(scope) for scope in everything),
            degrading=tuple(scope for scope in everything if _degrades(scope)),
            personal=tuple(scope.account for scope in mine if _limits_money(scope)),
            alone=tuple(mine),
        )


def scope_of(allowance: Allowance, at: float, zone: str) -> Scope:
    """The scope of an allowance in the window that holds the unix time `at`. A degrading one limits nothing by itself."""
    tokens = allowance.unit == "tokens"
    window = (TOKENS if tokens else "") + window_id(allowance.window, at, zone)
    cap = allowance.admits(window)
    if allowance.rule == "degrade" and not allowance.suspended:
        cap = None
    return Scope(allowance.account, window, cap, None if allowance.cap is None else allowance, None, tokens)


def _degrades(scope: Scope) -> bool:
    return scope.allowance is not None and scope.allowance.rule == "degrade"


def _limits_money(scope: Scope) -> bool:
    return not scope.tokens and (scope.cap is not None or _degrades(scope))


def _strict(scope: Scope) -> Scope:
    if not _degrades(scope) or scope.allowance is None:
        return scope
    return msgspec.structs.replace(scope, cap=scope.allowance.admits(scope.window))
