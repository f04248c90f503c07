"""Counters: what is spent and held, by window and account.

The window comes first, so a window that is over is forgotten in one step, and an account's name is kept once.
"""

from __future__ import annotations

from collections.abc import Collection

from headgate.budget.allowance import Allowance
from headgate.budget.budget import Alert, Scope
from headgate.budget.windows import window_end
from headgate.model.money import LARGEST

MOST_REMEMBERED = 10_000


class Counter:
    """One account in one window. `alarm`: the amount at which somebody is to be told next; `told`: percent last told."""

    __slots__ = ("alarm", "allowance", "held", "spent", "told")

    def __init__(self) -> None:
        self.spent = 0
        self.held = 0
        self.alarm = LARGEST
        self.told = 0
        self.allowance: Allowance | None = None


class Counters:
    """All counters of this process."""

    def __init__(self) -> None:
        self._windows: dict[str, dict[str, Counter]] = {}
        self._over: dict[str, float] = {}
        # By identity, for to hash scopes costs more than to look them up; each tuple is kept so that its identity stays its own.
        self._together: dict[int, tuple[tuple[Scope, ...], tuple[Counter, ...]]] = {}
        self._alerts: list[Alert] = []

    def __len__(self) -> int:
        return sum(map(len, self._windows.values()))

    def of(self, scope: Scope) -> Counter:
        """The counter of a scope, made when there is none. Where its allowance is another than before, what is spent may have
        passed a threshold of that one."""
        accounts = self._windows.get(scope.window)
        if accounts is None:
            accounts = self._windows[scope.window] = {}
        counter = accounts.get(scope.account)
        if counter is None:
            counter = accounts[scope.account] = Counter()
        if counter.allowance is not scope.allowance:
            counter.allowance = scope.allowance
            _arm(scope.window, counter)
            if counter.spent >= counter.alarm:
                self.passed(scope, counter)
        return counter

    def of_all(self, scopes: tuple[Scope, ...]) -> tuple[Counter, ...]:
        """The counters of a call's scopes, remembered: the same scopes come again and again within a minute.

        Raises ValueError when one is named twice.
        """
        known = self._together.get(id(scopes))
        if known is not None:
            return known[1]
        counters = tuple([self.of(scope) for scope in scopes])
        if len(set(counters)) < len(counters):
            raise ValueError("a scope is named twice")
        if len(self._together) >= MOST_REMEMBERED:
            self._together.clear()
        self._together[id(scopes)] = scopes, counters
        return counters

    def find(self, account: str, window: str) -> Counter | None:
        """The counter of an account in a window, if there is one."""
        return self._windows.get(window, {}).get(account)

    def passed(self, scope: Scope, counter: Counter) -> None:
        """Note an alert for each threshold that has been passed and not been told."""
        allowance = counter.allowance
        limit = None if allowance is None else allowance.limit(scope.window)
        if allowance is not None and limit is not None:
            for percent in sorted(allowance.alerts):
                if percent > counter.told and counter.spent * 100 >= percent * limit:
                    counter.told = percent
                    spent = min(counter.spent, LARGEST)
                    self._alerts.append(
                        Alert(account=scope.account, window=scope.window, percent=percent, spent=spent, cap=limit)
                    )
        _arm(scope.window, counter)

    def take_alerts(self) -> list[Alert]:
        """The alerts noted since this was asked last."""
        taken, self._alerts = self._alerts, []
        return taken

    def prune(self, now: float, keep: float, held: Collection[str]) -> None:
        """Forget windows `keep` seconds after they were first seen to be over, but none of `held`.

        From when that was seen, not from their end: a clock that leaps ahead and comes back makes nothing be forgotten.
        """
        before, self._over = self._over, {}
        self._together.clear()
        for window in tuple(self._windows):
            if is_live(window, now):
                continue
            since = min(before.get(window, now), now)
            if now - since >= keep and window not in held:
                del self._windows[window]
            else:
                self._over[window] = since


def is_live(window: str, oldest: float) -> bool:
    """Whether a window ends after the unix time `oldest`."""
    end = window_end(window)
    return end is None or end > oldest


def _arm(window: str, counter: Counter) -> None:
    """Set the amount at which the next threshold is passed."""
    allowance = counter.allowance
    limit = None if allowance is None else allowance.limit(window)
    counter.alarm = LARGEST
    if allowance is not None and limit is not None:
        untold = [percent for percent in allowance.alerts if percent > counter.told]
        if untold:
            counter.alarm = max(1, -(-min(untold) * limit // 100))
