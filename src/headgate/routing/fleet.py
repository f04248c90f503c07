"""Fleet: the state of every deployment. Planning asks it for an order, dispatch for the right to make an attempt.

It joins what is known from five sides: breakers (breaker.py), scores of latency and errors (scores.py), the provider's own limits
(buckets.py), how much it can do at a time (concurrency.py), and how it compares with those that could be called in its place.

The invariants: a `Place` is given out only where breaker, bucket and gate allow it, and takes effect on all three until it ends; at
most half of a plan's deployments are set back because of how they compare (Envoy's `max_ejection_percent`), those that are refused
anyway included; what is set back is tried last, never refused.
"""

from __future__ import annotations

import random as randomness
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from headgate.model.errors import OutOfMoney, Refused, Throttled, UpstreamError
from headgate.model.quota import Quota
from headgate.routing.breaker import Breakers
from headgate.routing.buckets import Bucket, Taken
from headgate.routing.concurrency import MOST, Gate
from headgate.routing.scores import Score

OUT_OF_MONEY = 1_800.0
"""Seconds for which a deployment is left alone whose provider wants to be paid first."""
MOST_SET_BACK = 0.5
COMPARABLE = 10.0
"""Attempts of late from which on a deployment is compared with others."""
WORSE = 0.2
"""By so much more of its attempts must fail than of the median's for it to be set back."""
CLEARLY = 2.0
"""Of two deployments that share a load, the one whose turn it is yields when it would take so many times as long."""
AGAIN = 60.0
"""Seconds after which the same alarm is told again."""
COOLING = 2
"""The rank of a deployment whose provider asked to be left alone."""
HELD = 12
"""Attempts that a server with empty memory for prompts holds at a time."""

OnAlarm = Callable[[str, str], None]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is configured of one deployment.

    weight       its share of a load among equals
    rpm, tpm     requests and tokens a minute that its provider takes; None: as its answers say
    concurrency  attempts at the same time that are never exceeded
    """

    weight: float = 1.0
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int = MOST


class Refusal(msgspec.Struct, frozen=True):
    """Why there is no place: `label` and `status` for the list of attempts, and seconds until it may be worth asking again."""

    label: str
    status: int
    wait: float = 0.0


class _Member:
    """One deployment."""

    __slots__ = ("bucket", "gate", "limits", "score")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bucket = Bucket(limits.rpm, limits.tpm)
        self.gate = Gate(limits.concurrency)
        self.score = Score()


class Place:
    """The right to make one attempt. Report what comes of it, then `leave`; leaving without a report says nothing of the deployment."""

    def __init__(self, fleet: Fleet, name: str, member: _Member, taken: Taken, *, probe: bool, trial: bool) -> None:
        """Made by `Fleet.enter`."""
        self._fleet = fleet
        self._name = name
        self._member = member
        self._taken = taken
        self._probe = probe
        self._reported = self._left = False
        self.trial = probe or trial
        """Whether it is tried although its breaker is not closed: then once must do."""

    def told(self, quota: Quota | None) -> None:
        """What the provider said of its limits."""
        if quota is not None:
            self._member.bucket.told(quota, self._taken, self._fleet.clock())

    def answered(self, seconds: float, *, stream: bool) -> None:
        """An answer began after so many seconds; whole, unless it streams."""
        self._member.score.answered(seconds, self._fleet.clock(), stream=stream)
        self._member.gate.answered(seconds)

    def succeeded(self, tokens: int) -> None:
        """The answer is whole, and took so many tokens."""
        self._reported = True
        self._member.bucket.used(self._taken, tokens, self._fleet.clock())
        self._fleet.breakers.observe(self._name, failed=False)

    def failed(self, error: UpstreamError) -> None:
        """The attempt broke."""
        self._reported = True
        fleet, member = self._fleet, self._member
        if isinstance(error, Refused):
            fleet.alarm(self._name, error.label)
        if isinstance(error, OutOfMoney):
            fleet.breakers.shut(self._name, OUT_OF_MONEY)
            return
        if error.blames:
            member.gate.pushed_back()
            # A throttled deployment is well: its score is not to suffer for its being in demand.
            if not isinstance(error, Throttled):
                member.score.failed(fleet.clock())
        fleet.breakers.observe(self._name, failed=error.blames, retry_after=error.retry_after)

    def not_sent(self) -> None:
        """The attempt was not made after all."""
        self._member.bucket.returned(self._taken, self._fleet.clock())

    def leave(self) -> None:
        """Give the place back, once."""
        if self._left:
            return
        self._left = True
        if self._probe and not self._reported:
            self._fleet.breakers.forgo(self._name)
        self._member.gate.leave()


class Fleet:
    """All deployments; one that nothing is configured of has no limits but those that are found out."""

    def __init__(
        self,
        breakers: Breakers | None = None,
        limits: Mapping[str, Limits] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
        on_alarm: OnAlarm | None = None,
    ) -> None:
        """`random` gives 0..1. `on_alarm(name, reason)`: a provider refuses our credentials, or wants money; told once a minute."""
        self.breakers = breakers or Breakers(clock=clock, random=random)
        self.clock = clock
        self._limits = dict(limits or {})
        self._random = random
        self._on_alarm = on_alarm
        self._alarmed: dict[tuple[str, str], float] = {}
        self._members: dict[str, _Member] = {}

    # What planning asks.

    def ranks(self, names: Iterable[str]) -> dict[str, int]:
        """How healthy each deployment of a plan is: 0 well, 1 set back or refused by its breaker, 2 told to be left alone."""
        ranks = {name: self.breakers.rank(name) for name in names}
        if len(ranks) > 1:
            for name in self._outliers(ranks):
                ranks[name] = 1
        return ranks

    def ordered(self, names: Sequence[str], pools: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
        """The same names, those of each pool in the order in which they are to be tried now: the load is shared by weight, but not
        with one that would take much longer (power of two choices; Mitzenmacher 2001). All others keep their places."""
        order = list(names)
        for pool in pools:
            places = [index for index, name in enumerate(order) if name in pool]
            for index, name in zip(places, self._drawn([order[place] for place in places]), strict=True):
                order[index] = name
        return tuple(order)

    # What dispatch asks.

    async def enter(self, name: str, *, tokens: int, patience: float, panic: bool = False) -> Place | Refusal:
        """A place for an attempt of so many tokens, after at most `patience` seconds in line. `panic`: whatever its breaker says.

        Whoever gets one must `leave` it.
        """
        member = self._member(name)
        refusal = self._refusal(name, member, tokens, panic=panic)
        if refusal is None and not member.gate.enter():
            if not await member.gate.wait(patience):
                return Refusal("deployment_busy", 503, 1.0)
            # Much may have changed while this waited.
            refusal = self._refusal(name, member, tokens, panic=panic)
            if refusal is not None:
                member.gate.leave()
        if refusal is not None:
            return refusal
        probe = not panic and self.breakers.state(name) == "half_open"
        if probe:
            self.breakers.allow(name)
        return Place(self, name, member, member.bucket.take(tokens, self.clock()), probe=probe, trial=panic)

    def least_bad(self, names: Iterable[str]) -> str | None:
        """The panic rule: which of the deployments that breakers refuse is tried all the same; None when all are to be left alone."""
        return self.breakers.least_bad(names)

    def usual(self, name: str, *, stream: bool) -> float | None:
        """The time within which 95 % of a deployment's answers begin; None while too little is known."""
        return self._member(name).score.usual(stream=stream)

    def alarm(self, name: str, reason: str) -> None:
        """Somebody should look at this deployment."""
        now = self.clock()
        if self._on_alarm is not None and now >= self._alarmed.get((name, reason), float("-inf")) + AGAIN:
            self._alarmed[name, reason] = now
            self._on_alarm(name, reason)

    def filled(self, name: str, share: float | None) -> None:
        """How full a server's memory for prompts is, 0..1: the fuller, the fewer attempts it is given. None: nobody knows."""
        self._member(name).gate.bind(None if share is None else max(1, round(HELD * (1.0 - min(1.0, max(0.0, share))))))

    def health(self, name: str) -> dict[str, Any]:
        """What `/admin/health` shows of one deployment."""
        now, member = self.clock(), self._member(name)
        return {
            **self.breakers.health(name),
            "latency": round(member.score.latency(now), 4),
            "errors": round(member.score.errors(now), 4),
            "inside": member.gate.inside,
            "limit": member.gate.limit,
            "wait": round(member.bucket.wait(0, now), 3),
        }

    def _member(self, name: str) -> _Member:
        found = self._members.get(name)
        if found is None:
            found = self._members[name] = _Member(self._limits.get(name, Limits()))
        return found

    def _refusal(self, name: str, member: _Member, tokens: int, *, panic: bool) -> Refusal | None:
        """Why nothing may go to a deployment now; nothing changes by asking."""
        rank = self.breakers.rank(name)
        if rank == COOLING:
            return Refusal("cooling_down", 429, self.breakers.cooling(name))
        if rank and not panic:
            return Refusal("breaker_open", 503)
        wait = member.bucket.wait(tokens, self.clock())
        return Refusal("quota_used_up", 429, wait) if wait > 0 else None

    def _outliers(self, ranks: Mapping[str, int]) -> list[str]:
        """Those of which clearly more attempts fail than of their peers, worst first, as long as half of all are left."""
        now = self.clock()
        known = [(name, self._member(name).score) for name in ranks]
        errors = {name: score.errors(now) for name, score in known if score.calls(now) >= COMPARABLE}
        allowed = int(MOST_SET_BACK * len(ranks)) - sum(rank > 0 for rank in ranks.values())
        if len(errors) < 2 or allowed <= 0:
            return []
        usual = sorted(errors.values())[(len(errors) - 1) // 2]
        worst = sorted(errors, key=lambda name: -errors[name])
        return [name for name in worst if not ranks[name] and errors[name] > usual + WORSE][:allowed]

    def _drawn(self, names: list[str]) -> list[str]:
        """A pool in the order in which it is tried: the first is drawn by weight and yields to a second that is clearly less busy."""
        left, order = list(names), []
        while left:
            order.append(left.pop(self._draw(left)))
        if len(order) > 1 and self._busy(order[0]) > CLEARLY * self._busy(order[1]):
            order[0], order[1] = order[1], order[0]
        return order

    def _draw(self, names: list[str]) -> int:
        point = self._random() * sum(self._weight(name) for name in names)
        for index, name in enumerate(names):
            point -= self._weight(name)
            if point < 0:
                return index
        return len(names) - 1

    def _weight(self, name: str) -> float:
        return self._limits.get(name, Limits()).weight

    def _busy(self, name: str) -> float:
        """How long an answer is likely to take to begin there: its latency, its load and its failures."""
        now, member = self.clock(), self._member(name)
        load = 1.0 + member.gate.inside / self._weight(name)
        return (member.score.latency(now) + 0.001) * load / (1.0 - min(0.95, member.score.errors(now)))
