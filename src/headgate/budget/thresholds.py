"""Thresholds: what the till and the journal said last of each place in this process, and who is to be told that a threshold was passed.

The journal takes the alert of a place and percent once, from whichever process comes first; that one tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from headgate.budget.budget import Alert, Balance, Scope
from headgate.budget.counters import is_live
from headgate.budget.postings import ENDINGS, Posting, Report, spent_of
from headgate.budget.till import Place
from headgate.budget.windows import kind_of
from headgate.model.money import LARGEST


class Thresholds:
    """The places of one process."""

    def __init__(
        self, put: Callable[[Posting], None], now: Callable[[], float], on_alert: Callable[[Alert], None]
    ) -> None:
        """`put` writes a posting behind; `on_alert` is told what nobody was told before."""
        self._put = put
        self._now = now
        self._on_alert = on_alert
        self._seen: dict[Place, Balance] = {}
        self._told: dict[Place, int] = {}

    def peek(self, account: str, window: str) -> Balance:
        """What is known last of a place."""
        return self._seen.get((account, window), Balance())

    def saw(self, scope: Scope, balance: Balance) -> None:
        """What the till says of a scope."""
        self._seen[scope.account, scope.window] = balance
        if scope.allowance is not None:
            self._passed(scope, balance.spent)

    def written(self, postings: Sequence[Posting], report: Report) -> None:
        """Look at what a batch has come to after each of its endings, and tell alerts that were written."""
        for place, (_, told) in report.sums.items():
            self._told[place] = max(told, self._told.get(place, 0))
        after = {place: spent for place, (spent, _) in report.sums.items()}
        passed: list[tuple[Scope, int]] = []
        for posting, written in zip(reversed(postings), reversed(report.written), strict=True):
            if not written.taken:
                continue
            if posting.act in ENDINGS:
                passed += [
                    (scope, after[scope.account, scope.window])
                    for scope in posting.scopes
                    if (scope.account, scope.window) in after
                ]
                _take_off(after, spent_of(posting))
        for scope, spent in reversed(passed):
            self._passed(scope, spent)
        for posting, written in zip(postings, report.written, strict=True):
            if posting.alert is not None and written.taken:
                self._on_alert(posting.alert)

    def prune(self, now: float) -> None:
        """Forget windows that are over."""
        for known in (self._seen, self._told):
            for place in [place for place in known if not is_live(place[1], now - 7_200.0)]:
                del known[place]

    def _passed(self, scope: Scope, spent: int) -> None:
        """Write an alert for each threshold that was passed and not been told."""
        allowance = scope.allowance
        limit = None if allowance is None else allowance.limit(scope.window)
        if allowance is None or limit is None or spent <= 0 or kind_of(scope.window) == "minute":
            return
        place = (scope.account, scope.window)
        for percent in sorted(allowance.alerts):
            if percent > self._told.get(place, 0) and spent * 100 >= percent * limit:
                self._told[place] = percent
                alert = Alert(
                    account=scope.account, window=scope.window, percent=percent, spent=min(spent, LARGEST), cap=limit
                )
                self._put(
                    Posting(
                        act="alert", id=f"{' '.join(place)} {percent}", at=self._now(), scopes=(scope,), alert=alert
                    )
                )


def _take_off(after: dict[Place, int], spent: Mapping[Place, int]) -> None:
    for place, amount in spent.items():
        if place in after:
            after[place] -= amount
