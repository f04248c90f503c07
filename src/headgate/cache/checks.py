"""Checks: which served answers are worth buying anew, to see whether they were right.

A check is a call that nobody asked for, so it is rationed: a share of a scope's requests, and the operator's money of a day. Some go
to hits by pure chance, which alone tells without bias how many answers are right. The rest go where they prevent most harm: the
expected number of wrong answers to come is how likely this one is to be wrong times how often it will be served again, and what was
served n times is likely to be served n times more.

Invariant: of a scope's requests, no more than its share is ever checked. Who is drawn depends on the request's id alone, so the same
traffic has the same checks.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import msgspec

from headgate.cache.labels import Scope

Reason = Literal["chance", "value"]

DAY = 86_400.0


class Ration(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What checks may cost.

    share    of a scope's requests
    money    nano-USD a day (UTC); None is no limit
    chance   share of the hits by meaning that are drawn by pure chance
    saved    checks that a scope may save up
    dear     the value that a check must have when only one is left (1 is a first hit that just reached the bar),
    cheap    and when as many are left as may be saved up
    scopes   that are remembered, and `questions` with what they were answered with
    """

    share: float = 0.0195
    money: int | None = None
    chance: float = 0.01
    saved: float = 20.0
    dear: float = 0.5
    cheap: float = 0.05
    scopes: int = 10_000
    questions: int = 100_000


class Checks:
    """Chooses. Nothing here waits, and nothing leaves the process."""

    def __init__(self, ration: Ration, *, seed: str = "", now: Callable[[], float] = time.time) -> None:
        """`seed` makes another draw of the same traffic; `now` is unix seconds."""
        self._ration = ration
        self._seed = seed
        self._now = now
        self._left: OrderedDict[Scope, float] = OrderedDict()
        self._times: OrderedDict[tuple[Scope, bytes, str], int] = OrderedDict()
        self._day = 0
        self._spent = 0

    def asked(self, scope: Scope) -> None:
        """Count a request of this scope: it earns its share of a check."""
        ration = self._ration
        self._left[scope] = min(self._left.get(scope, 0.0) + ration.share, ration.saved)
        self._left.move_to_end(scope)
        if len(self._left) > ration.scopes:
            self._left.popitem(last=False)

    def chosen(
        self, id: str, scope: Scope, question: bytes, entry: str, *, confidence: float, bar: float
    ) -> Reason | None:
        """Whether to check that `entry` was the right answer to this request, and why; if so, the check is taken off the ration.

        id          of the request
        question    a digest of its text
        confidence  with which the answer was served, and `bar` what it had to be
        """
        times = self._served_again(scope, question, entry)
        left, ration = self._left.get(scope, 0.0), self._ration
        if left < 1.0 or not self._affordable():
            return None
        reason: Reason = "chance"
        if self._drawn(id) >= ration.chance:
            reason = "value"
            doubt = (1.0 - confidence) / max(1.0 - bar, 1e-9)
            if doubt * times < self._price(left):
                return None
        self._left[scope] = left - 1.0
        del self._times[scope, question, entry]
        return reason

    def paid(self, amount: int) -> None:
        """Count what a check has cost, nano-USD."""
        self._affordable()
        self._spent += amount

    def _price(self, left: float) -> float:
        """The value that a check must have: the fewer are left, the higher."""
        ration = self._ration
        if ration.saved <= 1.0:
            return ration.cheap
        full = (left - 1.0) / (ration.saved - 1.0)
        return ration.dear * math.pow(ration.cheap / ration.dear, full)

    def _served_again(self, scope: Scope, question: bytes, entry: str) -> int:
        """How often this question has had this answer, this time included."""
        place = scope, question, entry
        times = self._times[place] = self._times.get(place, 0) + 1
        self._times.move_to_end(place)
        if len(self._times) > self._ration.questions:
            self._times.popitem(last=False)
        return times

    def _affordable(self) -> bool:
        """Whether there is money left of this day's."""
        day = int(self._now() // DAY)
        if day != self._day:
            self._day, self._spent = day, 0
        return self._ration.money is None or self._spent < self._ration.money

    def _drawn(self, id: str) -> float:
        """A number between 0 and 1 that the id decides."""
        digest = hashlib.blake2b(f"{self._seed} {id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64
