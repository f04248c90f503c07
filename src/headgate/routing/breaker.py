"""Breakers: which deployments are worth trying now.

One breaker for each deployment, in the three states of Nygard's circuit breaker ("Release It!", 2007):

    closed     calls pass; failures in a row, or a share of failures in the last seconds, open it
    open       calls are refused for a time that doubles with every opening in a row, with jitter, up to a maximum
    half_open  that time is over: one call passes as a probe; its success closes, its failure opens again

Beside it, `cooling`: a provider that answered with Retry-After is left alone by all callers until then.

What other processes have met can be `heard` here: it opens for no longer than they say, and closes nothing, for a way to a provider
that is well for one may be broken for another. So a process trusts a success of its own of a moment ago more than what it hears.

The invariants: while open or cooling nothing is allowed; while half open at most one probe is out; a state changes only
through `observe`, `shut` and `heard`, or by the end of the open time; what was heard is not told on. A probe that never reports (its caller went away) stops counting
after `probe_lease`. Panic rule (after Envoy's panic threshold): when every deployment of a plan is refused, the least bad
is tried all the same, because a breaker that is wrong must not turn a slow provider into an outage of our own.
"""

from __future__ import annotations

import random as randomness
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from headgate.routing.window import SlidingPair

State = Literal["closed", "open", "half_open"]
OnChange = Callable[[str, State, State], None]
Met = Literal["open", "closed", "shut", "cooling"]
OnMet = Callable[[str, Met, float], None]

FRESH = 2.0
"""Seconds for which a success of our own weighs more than what others say."""
LONGER = 1.0
"""By so many seconds a Retry-After must reach further than what others were told, for them to be told again."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When breakers open and for how long. Times are in seconds.

    failures      so many in a row open it
    share         or this share of failures, of at least `calls` in the last `window`
    open_time     of the first opening; doubles up to `most_open`, each time lengthened by up to a fifth at random
    probe_lease   after which a probe that has not reported no longer counts
    most_cooling  longest Retry-After that is believed
    most_shut     longest time for which one may be shut
    """

    failures: int = 5
    share: float = 0.5
    calls: int = 20
    window: float = 30.0
    open_time: float = 5.0
    most_open: float = 120.0
    probe_lease: float = 60.0
    most_cooling: float = 600.0
    most_shut: float = 1_800.0


class _Breaker:
    """The state of one deployment."""

    __slots__ = (
        "cooling",
        "counts",
        "in_row",
        "openings",
        "panic",
        "probe",
        "since",
        "state",
        "succeeded",
        "told",
        "until",
    )

    def __init__(self, window: float) -> None:
        self.state: State = "closed"
        self.counts = SlidingPair(window)
        self.in_row = 0
        self.openings = 0
        self.since = float("-inf")
        self.until = 0.0
        self.probe = float("-inf")
        self.panic = float("-inf")
        self.cooling = self.told = float("-inf")
        self.succeeded = float("-inf")


class Breakers:
    """The breakers of all deployments; unknown names start closed."""

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
        on_change: OnChange | None = None,
    ) -> None:
        """`random` gives 0..1; `on_change(name, before, after)` is called once for every change of state."""
        self._rules = Rules() if rules is None else rules
        self._clock = clock
        self._random = random
        self._on_change = on_change
        self.on_met: OnMet | None = None
        """Called with what this process has met: `open`, `shut` and `cooling` with the seconds that others should know, `closed` with 0."""
        self._breakers: dict[str, _Breaker] = {}

    def allow(self, name: str) -> bool:
        """May it be called now? True while half open means: you are the probe, so report with `observe`."""
        now = self._clock()
        one = self._at(name, now)
        if one.cooling > now or one.state == "open":
            return False
        if one.state == "half_open":
            if one.probe > now:
                return False
            one.probe = now + self._rules.probe_lease
        return True

    def observe(self, name: str, failed: bool, retry_after: float | None = None) -> None:
        """Report how a call ended. `retry_after` (seconds) as the provider gave it, whatever `failed` says.

        While open, late results of calls that began earlier change nothing; only a panic try's success closes. While half
        open, any result counts as the probe's: calls carry no mark, and a late one is as good a sign.
        """
        now = self._clock()
        one = self._at(name, now)
        if not failed:
            one.succeeded = now
        if retry_after is not None and retry_after > 0:
            self._cool(name, one, now, retry_after)
        if one.state == "closed":
            self._count(name, one, now, failed)
        elif one.state == "half_open" and failed:
            self._open(name, one, now)
        elif not failed and (one.state == "half_open" or one.panic > now):
            self._close(name, one, now)

    def forgo(self, name: str) -> None:
        """The call that was allowed was not made, or nobody waited for its end: if it was the probe, another may be."""
        self._at(name, self._clock()).probe = float("-inf")

    def shut(self, name: str, seconds: float) -> None:
        """Open it at once and for so long, for a reason that no further failure is needed to prove. Then it is half open."""
        now = self._clock()
        one = self._at(name, now)
        until = now + min(seconds, self._rules.most_shut) * (1 + self._random() / 5)
        if one.state != "open":
            one.openings += 1
            self._change(name, one, "open")
        one.until = max(one.until, until)
        one.panic = float("-inf")
        self._met(name, "shut", seconds)

    def heard(self, name: str, what: Met, seconds: float) -> None:
        """Another process has met this. An opening ends a little before the time it was told for, at random, so that not all probe at
        once; `closed` lets this process probe now."""
        now, rules = self._clock(), self._rules
        one = self._at(name, now)
        if what == "cooling":
            one.cooling = max(one.cooling, now + min(seconds, rules.most_cooling))
            one.told = max(one.told, one.cooling)
        elif what == "closed":
            one.until = min(one.until, now)
        elif what == "shut" or not (one.succeeded > now - FRESH or (one.state == "half_open" and one.probe > now)):
            longest = rules.most_shut if what == "shut" else rules.most_open * 1.2
            if one.state != "open":
                self._change(name, one, "open")
            one.until = max(one.until, now + min(seconds, longest) * (1 - self._random() / 5))

    def least_bad(self, names: Iterable[str]) -> str | None:
        """The panic rule: which of the refused deployments to try all the same, None when all are cooling.

        A Retry-After is an instruction, an open breaker only a guess, so cooling ones are left alone. The pick is the
        one whose open time ends first; its success then closes its breaker.
        """
        now = self._clock()
        refused = [(self._at(name, now), name) for name in names]
        open_ones = [(one.until, index) for index, (one, _) in enumerate(refused) if one.cooling <= now]
        if not open_ones:
            return None
        one, name = refused[min(open_ones)[1]]
        one.panic = now + self._rules.probe_lease
        return name

    def state(self, name: str) -> State:
        """The state now."""
        return self._at(name, self._clock()).state

    def cooling(self, name: str) -> float:
        """Seconds until the provider's Retry-After is over; 0 when it has none."""
        return max(0.0, self._at(name, now := self._clock()).cooling - now)

    def rank(self, name: str) -> int:
        """How healthy: 0 it would be allowed, 1 its breaker refuses, 2 it is cooling."""
        now = self._clock()
        one = self._at(name, now)
        if one.cooling > now:
            return 2
        return int(one.state == "open" or (one.state == "half_open" and one.probe > now))

    def health(self, name: str) -> dict[str, Any]:
        """What `/admin/health` shows of one deployment."""
        now = self._clock()
        one = self._at(name, now)
        one.counts.forget(now)
        return {
            "state": one.state,
            "cooling": round(max(0.0, one.cooling - now), 3),
            "calls": one.counts.first,
            "failures": one.counts.second,
        }

    def _at(self, name: str, now: float) -> _Breaker:
        one = self._breakers.get(name)
        if one is None:
            one = self._breakers[name] = _Breaker(self._rules.window)
        if one.state == "open" and now >= one.until:
            one.probe = float("-inf")
            self._change(name, one, "half_open")
        return one

    def _count(self, name: str, one: _Breaker, now: float, failed: bool) -> None:
        one.counts.add(now, 1, int(failed))
        one.in_row = one.in_row + 1 if failed else 0
        rules = self._rules
        bad_share = one.counts.first >= rules.calls and one.counts.second >= rules.share * one.counts.first
        if failed and (one.in_row >= rules.failures or bad_share):
            self._open(name, one, now)

    def _open(self, name: str, one: _Breaker, now: float) -> None:
        """Openings count as in a row until the breaker has stayed closed for the longest open time."""
        if one.state == "closed" and now - one.since > self._rules.most_open:
            one.openings = 0
        # Bounded exponent: 2.0**n overflows for a breaker that has failed for days.
        wait = min(self._rules.most_open, self._rules.open_time * 2.0 ** min(one.openings, 30))
        one.openings += 1
        one.until = now + wait * (1 + self._random() / 5)
        self._change(name, one, "open")
        self._met(name, "open", one.until - now)

    def _close(self, name: str, one: _Breaker, now: float) -> None:
        one.since = now
        one.in_row = 0
        one.panic = float("-inf")
        one.counts.clear()
        self._change(name, one, "closed")
        self._met(name, "closed", 0.0)

    def _cool(self, name: str, one: _Breaker, now: float, seconds: float) -> None:
        """Many calls are told the same at once; others are told of it once."""
        one.cooling = max(one.cooling, now + min(seconds, self._rules.most_cooling))
        if one.cooling >= one.told + LONGER:
            one.told = one.cooling
            self._met(name, "cooling", one.cooling - now)

    def _met(self, name: str, what: Met, seconds: float) -> None:
        if self.on_met is not None:
            self.on_met(name, what, seconds)

    def _change(self, name: str, one: _Breaker, state: State) -> None:
        before, one.state = one.state, state
        if self._on_change is not None:
            self._on_change(name, before, state)
