"""Learning: what labels teach about a scope and its entries, and how high the bar of a scope must be.

Four questions are answered here, at once and without waiting: how probable it is that this entry's answer is right (`confidence`),
how probable it must be (`bar`), whether the entry may be served by meaning at all (`withdrawn`), and which others have the same answer
(`family`). The prior decides where nothing
is known: a cold start is not starvation.

The promise is about all answers from stock. Exact ones are right, so those found by meaning may err more often, in proportion; but
never more than `Tuning.most` times, lest a scope full of repetitions serve nonsense to the few who word things anew.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from headgate.cache.accuracy import interval
from headgate.cache.drift import Drift, State
from headgate.cache.kinship import Kinship
from headgate.cache.labels import Label, Scope
from headgate.cache.recalibration import OFTEN, SELDOM, Recalibration
from headgate.cache.reliability import Reliability
from headgate.cache.tuning import Tuning

log = logging.getLogger(__name__)

NOTHING = 2.0
"""A bar that no probability reaches."""
LOWEST_RATE = 1e-4
"""No promise is taken to be stricter than this: what cannot be checked cannot be kept."""


class ScopeState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one scope.

    labels         labels that its recalibration stands on
    shift, slope   how the prior is corrected, in log-odds
    hits           answers from stock, lately, and how many of these were found `by_meaning`
    checked        served answers that were checked by pure chance, and how many of these were `wrong`
    accuracy       the share that was right, and its 95 % interval from `lowest` to `highest`; None where nothing was checked
    bar            the probability that an answer must have now; above 1 nothing is served
    drift          whether the scope keeps its promise
    """

    scope: Scope
    labels: int
    shift: float
    slope: float
    hits: float
    by_meaning: float
    checked: int
    wrong: int
    accuracy: float | None
    lowest: float
    highest: float
    bar: float
    drift: State


class _Conduct(msgspec.Struct, gc=False):
    """What a scope has served, how it was found, and what it is held to. `rate` is what it may err by meaning, drift aside, and
    `bar` what follows from that, as last asked for."""

    drift: Drift
    rate: float
    bar: float = NOTHING
    hits: float = 0.0
    by_meaning: float = 0.0
    checked: int = 0
    wrong: int = 0


class Learning:
    """Everything learnt, in memory. Each call is quick: amortised, nothing depends on how much is known."""

    def __init__(self, tuning: Tuning | None = None, *, error_rate: float = 0.01) -> None:
        """`error_rate` is what a scope is held to before anybody has asked for its bar."""
        self._tuning = tuning or Tuning()
        self._error_rate = error_rate
        self._recalibration = Recalibration(self._tuning)
        self._reliability = Reliability(self._tuning)
        self._kinship = Kinship(most=self._tuning.entries)
        self._conduct: OrderedDict[Scope, _Conduct] = OrderedDict()
        self._weights = {
            "check": self._tuning.check_weight,
            "miss": self._tuning.miss_weight,
            "feedback": self._tuning.feedback_weight,
        }

    def confidence(self, scope: Scope, entry: str, prior: float) -> float:
        """Probability that this entry's answer is right, where the prior alone says `prior`."""
        expected = self._recalibration.curve(scope)(prior)
        return self._reliability.probability(scope, entry, expected)

    def withdrawn(self, scope: Scope, entry: str) -> bool:
        """Whether the entry was wrong when it was served, and has not been proven since."""
        return self._reliability.withdrawn(scope, entry)

    def family(self, scope: Scope, entry: str) -> str:
        """What the entry shares with all that are known to have the same answer, and with no other."""
        return self._kinship.family(scope, entry)

    def bar(self, scope: Scope, error_rate: float, prior_bar: Callable[[float], float]) -> float:
        """Lowest probability that may be served by meaning, so that of all answers from stock no more than `error_rate` are wrong.

        `prior_bar` tells the lowest probability that keeps the errors among what is served by meaning under a rate. The result is
        above 1 where nothing may be served.
        """
        conduct, tuning = self._of(scope), self._tuning
        share = (conduct.hits + tuning.found * tuning.mix) / (conduct.by_meaning + tuning.found)
        rate = max(error_rate * min(share, tuning.most), LOWEST_RATE)
        tightness = conduct.drift.tightness
        # A scope that is off goes on judging: what it would have served tells when it may serve again.
        bar = prior_bar(rate * (tightness or 0.25) / (1.0 - tuning.prevented))
        # Callers differ in what they accept. The scope is held to the laxest of late: a strict one must not make it fail.
        conduct.rate *= tuning.fading
        if rate >= conduct.rate:
            conduct.rate, conduct.bar = rate, bar
        # Nobody can promise that nothing is ever wrong.
        return bar if tightness and error_rate > 0.0 else NOTHING

    def last_bar(self, scope: Scope) -> float:
        """What `bar` said last to the laxest of the callers; above 1 where it was never asked."""
        conduct = self._conduct.get(scope)
        return NOTHING if conduct is None else conduct.bar

    def served(self, scope: Scope, tier: Literal["exact", "semantic"]) -> None:
        """Count an answer from stock."""
        conduct = self._of(scope)
        conduct.hits += 1.0
        conduct.by_meaning += tier == "semantic"
        if conduct.hits > self._tuning.memory:
            conduct.hits /= 2.0
            conduct.by_meaning /= 2.0

    def learn(self, label: Label) -> None:
        """Take in a label; a change of the scope's drift is told in the log."""
        if self._learn(label):
            drift = self._of(label.scope).drift
            space = label.scope.namespace
            log.warning(
                "wrong answers from the semantic cache of tenant %s%s: it is now %s",
                space.tenant,
                f", namespace {space.name}" if space.name else "",
                drift.state,
            )

    def recall(self, labels: Iterable[Label]) -> None:
        """Take in labels of an earlier run, oldest first."""
        for label in labels:
            self._learn(label, SELDOM)

    def _learn(self, label: Label, share: float = OFTEN) -> bool:
        """Whether the drift has changed. Everything that is compared with the label is what was believed before it."""
        scope, right = label.scope, label.right
        expected = self._recalibration.curve(scope)(label.confidence)
        changed = label.origin != "feedback" and self._watch(
            label, self.confidence(scope, label.entry, label.confidence)
        )
        self._recalibration.add(scope, label.confidence, right, self._weights[label.origin], share=share)
        self._reliability.learn(scope, label.entry, expected, right=right, served=label.served)
        if right and label.own:
            self._kinship.join(scope, label.own, label.entry)
        return changed

    def _watch(self, label: Label, confidence: float) -> bool:
        """What a label of something that was served, or would have been, says about the promise."""
        conduct = self._of(label.scope)
        off = not conduct.drift.tightness
        if not (label.served or label.uniform or (off and confidence >= conduct.bar)):
            return False
        if label.uniform:
            conduct.checked += 1
            conduct.wrong += not label.right
        # What chance has chosen errs at the promised rate; other checks look where errors are likely, up to what the bar lets in.
        doubt = 0.0 if label.uniform else 1.0 - max(confidence, min(conduct.bar, 1.0))
        promised = min(max(conduct.rate, doubt), 0.5)
        tuning = self._tuning
        return conduct.drift.add(
            not label.right,
            promised,
            false_alarm=tuning.false_alarm,
            slack=tuning.slack,
            relief=tuning.relief,
        )

    def state(self, scope: Scope) -> ScopeState:
        """What is known of a scope; of a strange one, what is believed."""
        conduct = self._conduct.get(scope) or self._unknown()
        curve = self._recalibration.curve(scope)
        checked, wrong = conduct.checked, conduct.wrong
        low, high = interval(checked - wrong, checked) if checked else (0.0, 1.0)
        return ScopeState(
            scope=scope,
            labels=self._recalibration.labels(scope),
            shift=curve.shift,
            slope=curve.slope,
            hits=conduct.hits,
            by_meaning=conduct.by_meaning,
            checked=checked,
            wrong=wrong,
            accuracy=(checked - wrong) / checked if checked else None,
            lowest=low,
            highest=high,
            bar=conduct.bar if conduct.drift.tightness else NOTHING,
            drift=conduct.drift.state,
        )

    def states(self, tenant: str | None = None) -> list[ScopeState]:
        """All scopes that have served anything or have labels, of one tenant or of all."""
        return [self.state(scope) for scope in self._conduct if tenant in (None, scope.namespace.tenant)]

    def drifts(self) -> dict[State, int]:
        """How many scopes are in each state of drift."""
        return dict(Counter(conduct.drift.state for conduct in self._conduct.values()))

    def accuracy(self) -> tuple[int, int]:
        """Of the served answers that were checked by pure chance: how many were right, and how many there were."""
        checked = sum(conduct.checked for conduct in self._conduct.values())
        return checked - sum(conduct.wrong for conduct in self._conduct.values()), checked

    def _of(self, scope: Scope) -> _Conduct:
        conduct = self._conduct.get(scope)
        if conduct is None:
            conduct = self._conduct[scope] = self._unknown()
            if len(self._conduct) > self._tuning.scopes:
                self._conduct.popitem(last=False)
        else:
            self._conduct.move_to_end(scope)
        return conduct

    def _unknown(self) -> _Conduct:
        return _Conduct(Drift.calm(), self._error_rate)
