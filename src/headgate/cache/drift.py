"""Drift: does a scope still keep its promise?

Every label of an answer that was served is a bet against the promise. A player who stakes on "the error rate is m times what was
promised" multiplies his money by m at each wrong answer and loses a little at each right one; while the promise holds, no such game
is better than fair, so by Ville's inequality the money ever reaches 1 / alpha with probability alpha at most, however long one
looks (Ville 1939; Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 2024). As a change
may come late, a part of the money is only staked at each later label (Shin, Ramdas and Rinaldo, "E-detectors", 2024).

An alarm tightens the scope by a step; a bet the other way, which wins while errors are rarer than promised, loosens it again.
"""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["ok", "tightened", "strict", "off"]
STATES: tuple[State, ...] = ("ok", "tightened", "strict", "off")
TIGHTNESS = {"ok": 1.0, "tightened": 0.5, "strict": 0.25, "off": 0.0}
"""What part of its error rate is left to a scope in each state."""

MULTIPLES = (2.0, 4.0, 8.0, 16.0)
"""The error rates, in multiples of the promised one, that the players bet on; each has a quarter of the money."""
HIGHEST = 0.75
"""No bet is on a higher error rate than this."""


class Alarm:
    """Evidence, as odds, that errors are more frequent than promised. Starts at 1; to see it at 1 / alpha or more, ever, has the
    probability alpha at most while the promise holds."""

    def __init__(self) -> None:
        self._staked = [0.0] * len(MULTIPLES)
        self._labels = 0
        self._kept = 1.0

    @property
    def evidence(self) -> float:
        """What the players have now, staked and not."""
        return self._kept + sum(self._staked) / len(MULTIPLES)

    def add(self, wrong: bool, promised: float) -> None:
        """One label; `promised` is the error rate that held for it, between 0 and 1, known before."""
        self._labels += 1
        # 1/2 + 1/6 + 1/12 + ... = 1: what is staked at the n-th label is 1 / (n (n + 1)).
        fresh = 1.0 / (self._labels * (self._labels + 1))
        self._kept -= fresh
        for place, multiple in enumerate(MULTIPLES):
            rate = min(multiple * promised, max(HIGHEST, promised))
            growth = rate / promised if wrong else (1.0 - rate) / (1.0 - promised)
            self._staked[place] = (self._staked[place] + fresh) * growth


class Relief:
    """Evidence, as odds, that errors are rarer than a rate: a bet on a quarter of it."""

    def __init__(self) -> None:
        self.evidence = 1.0

    def add(self, wrong: bool, rate: float) -> None:
        """One label; `rate` between 0 and 1. What was lost before is forgotten: only the clean stretch at the end counts."""
        self.evidence = max(1.0, self.evidence * (0.25 if wrong else (1.0 - rate / 4.0) / (1.0 - rate)))


class Drift(msgspec.Struct, gc=False):
    """One scope's state, and the evidence for the next."""

    state: State
    alarm: Alarm
    relief: Relief

    @classmethod
    def calm(cls) -> Drift:
        """A scope of which nothing bad is known."""
        return cls("ok", Alarm(), Relief())

    @property
    def tightness(self) -> float:
        """What part of its error rate is left to the scope; 0: nothing may be served by meaning."""
        return TIGHTNESS[self.state]

    def add(self, wrong: bool, promised: float, *, false_alarm: float, slack: float, relief: float) -> bool:
        """One label of an answer that was served, or would have been. Returns whether the state has changed.

        promised     error rate that holds for it, between 0 and 1
        false_alarm  probability of an alarm while the promise is kept
        slack        a tightened scope is loosened when its errors are shown to be rarer than so many times the promised rate,
        relief       with this evidence
        """
        place = STATES.index(self.state)
        self.alarm.add(wrong, promised)
        if self.alarm.evidence >= 1.0 / false_alarm and place < len(STATES) - 1:
            return self._enter(place + 1)
        if place:
            self.relief.add(wrong, min(slack * promised, HIGHEST))
            if self.relief.evidence >= relief:
                return self._enter(place - 1)
        return False

    def _enter(self, place: int) -> bool:
        self.state, self.alarm, self.relief = STATES[place], Alarm(), Relief()
        return True
