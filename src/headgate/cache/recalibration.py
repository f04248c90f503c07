"""Recalibration: what the prior's probabilities are worth in one scope, learnt from its labels and from those of its relatives.

In log-odds, the true probability is taken to be `shift + slope * prior` (Platt scaling). The two numbers of a scope are a Gaussian
step away from its tenant's, those from the gateway's, and those from (0, 1): a tree of Gaussians. A scope's labels are summed up as
a Gaussian too (Laplace's approximation at the maximum, found by Newton's method), and beliefs travel along the tree as messages
(Pearl 1988; exact for Gaussians). So every label counts once however many levels it teaches, a scope without labels believes what
its relatives do, and no tenant, whatever it labels, can push the others further than one tenant's step.
"""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict

import msgspec

from headgate.cache.labels import Scope
from headgate.cache.tuning import Tuning

CERTAIN = 1e-6
"""No probability is nearer to 0 or 1 than this."""
STEPS = 8
CLOSE = 1e-4
LONGEST_STEP = 1.0
"""Newton's method: most steps, when it stops, and how far one step goes in either number."""
OFTEN = 1 / 16
SELDOM = 1 / 2
"""New labels, as a share of a scope's, after which its curve is fitted anew: as they come, and when many are taken in at once."""


def log_odds(probability: float) -> float:
    """log(p / (1 - p)); NaN is taken for 0."""
    bounded = min(max(probability, CERTAIN), 1.0 - CERTAIN) if not math.isnan(probability) else CERTAIN
    return math.log(bounded / (1.0 - bounded))


def probable(odds: float) -> float:
    """The probability with these log-odds."""
    if odds >= 0:
        return 1.0 / (1.0 + math.exp(-odds))
    grown = math.exp(odds)
    return grown / (1.0 + grown)


class Curve(msgspec.Struct, frozen=True, gc=False):
    """How the prior is corrected, in log-odds."""

    shift: float = 0.0
    slope: float = 1.0

    def __call__(self, probability: float) -> float:
        """The corrected probability."""
        return probable(self.shift + self.slope * log_odds(probability))


class Belief(msgspec.Struct, frozen=True, gc=False):
    """A Gaussian over (shift, slope) by its precision matrix ((pp, pq), (pq, qq)) and precision times mean (p, q). All zero: no
    belief at all."""

    p: float = 0.0
    q: float = 0.0
    pp: float = 0.0
    pq: float = 0.0
    qq: float = 0.0

    def plus(self, other: Belief) -> Belief:
        """Both together."""
        return Belief(self.p + other.p, self.q + other.q, self.pp + other.pp, self.pq + other.pq, self.qq + other.qq)

    def minus(self, other: Belief) -> Belief:
        """Without what the other had added."""
        return Belief(self.p - other.p, self.q - other.q, self.pp - other.pp, self.pq - other.pq, self.qq - other.qq)

    def told(self, step: tuple[float, float]) -> Belief:
        """What it says of a relative that is a Gaussian step of these two precisions away."""
        t, u = step
        pp, pq, qq = _inverse(self.pp + t, self.pq, self.qq + u)
        return Belief(
            t * (pp * self.p + pq * self.q),
            u * (pq * self.p + qq * self.q),
            t - t * t * pp,
            -t * u * pq,
            u - u * u * qq,
        )

    def mean(self) -> tuple[float, float]:
        """The most probable shift and slope; needs a positive definite precision."""
        pp, pq, qq = _inverse(self.pp, self.pq, self.qq)
        return pp * self.p + pq * self.q, pq * self.p + qq * self.q


def _inverse(pp: float, pq: float, qq: float) -> tuple[float, float, float]:
    determinant = pp * qq - pq * pq
    return qq / determinant, -pq / determinant, pp / determinant


class _Window:
    """A scope's newest labels, what they say together, and what it has told its tenant of that."""

    __slots__ = ("_labels", "_next", "curve", "fresh", "said", "size", "told", "version")

    def __init__(self, size: int) -> None:
        self._labels = array("d")
        self._next = 0
        self.size = size
        self.fresh = 0
        self.said = Belief()
        self.told = Belief()
        self.curve = Curve()
        self.version = -1

    def __len__(self) -> int:
        return len(self._labels) // 2

    def add(self, odds: float, weight: float) -> None:
        """One label: the prior's log-odds; its weight is negative where the answer was wrong."""
        if len(self) < self.size:
            self._labels.extend((odds, weight))
        else:
            self._labels[2 * self._next] = odds
            self._labels[2 * self._next + 1] = weight
            self._next = (self._next + 1) % self.size
        self.fresh += 1

    def due(self, share: float) -> bool:
        """Whether what is new is so much of all labels that they must be looked at again."""
        return self.fresh > share * len(self)

    def fit(self, prior: Belief) -> None:
        """Find the most probable curve under `prior`, and what the labels alone say near it."""
        shift, slope = prior.plus(self.said).mean()
        for _ in range(STEPS):
            said = self._slopes(shift, slope)
            near = Belief(
                prior.p - prior.pp * shift - prior.pq * slope + said.p,
                prior.q - prior.pq * shift - prior.qq * slope + said.q,
                prior.pp + said.pp,
                prior.pq + said.pq,
                prior.qq + said.qq,
            )
            along, across = (max(-LONGEST_STEP, min(one, LONGEST_STEP)) for one in near.mean())
            shift, slope = shift + along, slope + across
            if abs(along) + abs(across) < CLOSE:
                break
        said = self._slopes(shift, slope)
        self.said = Belief(
            said.p + said.pp * shift + said.pq * slope,
            said.q + said.pq * shift + said.qq * slope,
            said.pp,
            said.pq,
            said.qq,
        )
        self.fresh = 0

    def _slopes(self, shift: float, slope: float) -> Belief:
        """Gradient and negative second derivatives of the labels' log-likelihood, at a point."""
        p = q = pp = pq = qq = 0.0
        labels = self._labels
        for place in range(0, len(labels), 2):
            odds, weight = labels[place], labels[place + 1]
            expected = probable(shift + slope * odds)
            error = weight * (1.0 - expected) if weight > 0 else weight * expected
            spread = abs(weight) * expected * (1.0 - expected)
            p += error
            q += error * odds
            pp += spread
            pq += spread * odds
            qq += spread * odds * odds
        return Belief(p, q, pp, pq, qq)


class _Pool:
    """A tenant: what its scopes have told it, what it has told the gateway of that, and how many scopes it has."""

    __slots__ = ("heard", "scopes", "told")

    def __init__(self) -> None:
        self.heard = Belief()
        self.told = Belief()
        self.scopes = 0


class Recalibration:
    """The curves of all scopes. Bounded: the scope that was longest without a label is forgotten, with all it had told."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self._step = (tuning.shift_sd**-2, tuning.slope_sd**-2)
        near = tuning.gateway_sd**-2
        # Around a shift of 0 and a slope of 1.
        self._gateway = Belief(0.0, near * self._step[1], near * self._step[0], 0.0, near * self._step[1])
        self._pools: dict[str, _Pool] = {}
        self._windows: OrderedDict[Scope, _Window] = OrderedDict()
        self._version = 0

    def curve(self, scope: Scope) -> Curve:
        """How the prior is corrected in this scope."""
        window = self._windows.get(scope)
        if window is None:
            return self._bounded(self._expected(scope.namespace.tenant, Belief()))
        if window.version != self._version:
            prior = self._expected(scope.namespace.tenant, window.told)
            window.curve = self._bounded(prior.plus(window.said))
            window.version = self._version
        return window.curve

    def labels(self, scope: Scope) -> int:
        """How many labels the curve of this scope stands on, beside its relatives'."""
        window = self._windows.get(scope)
        return 0 if window is None else len(window)

    def add(self, scope: Scope, prior: float, right: bool, weight: float, *, share: float = OFTEN) -> None:
        """Learn that a candidate of this prior probability was right, or wrong. The curve is fitted anew when new labels are more
        than such a `share` of all: amortised, a label is a few dozen steps of work."""
        tenant = scope.namespace.tenant
        window = self._windows.get(scope)
        if window is None:
            window = self._windows[scope] = _Window(self._tuning.window)
            self._pools.setdefault(tenant, _Pool()).scopes += 1
        self._windows.move_to_end(scope)
        window.add(log_odds(prior), weight if right else -weight)
        if window.due(share):
            window.fit(self._expected(tenant, window.told))
            self._tell(tenant, window, window.said.told(self._step))
        if len(self._windows) > self._tuning.scopes:
            self._forget_oldest()

    def _expected(self, tenant: str, own: Belief) -> Belief:
        """What a tenant's scope is believed to be like without its `own` word."""
        pool = self._pools.get(tenant)
        if pool is None:
            return self._gateway.told(self._step).told(self._step)
        above = self._gateway.minus(pool.told).told(self._step)
        return above.plus(pool.heard.minus(own)).told(self._step)

    def _tell(self, tenant: str, window: _Window, news: Belief) -> None:
        """Replace what a scope has told its tenant, and what that has told the gateway."""
        pool = self._pools[tenant]
        pool.heard = pool.heard.minus(window.told).plus(news)
        window.told = news
        onward = self._muted(pool.heard.told(self._step))
        self._gateway = self._gateway.minus(pool.told).plus(onward)
        pool.told = onward
        self._version += 1

    def _muted(self, word: Belief) -> Belief:
        """A tenant's word to the gateway, its mean within bounds: whoever labels nonsense harms itself alone."""
        tuning = self._tuning
        # A trace of the prior, for what the word says nothing of.
        shift, slope = word.plus(Belief(0.0, 1e-3, 1e-3, 0.0, 1e-3)).mean()
        far, steep = tuning.loudest * tuning.shift_sd, tuning.loudest * tuning.slope_sd
        if abs(shift) <= far and abs(slope - 1.0) <= steep:
            return word
        shift = max(-far, min(shift, far))
        slope = 1.0 + max(-steep, min(slope - 1.0, steep))
        return msgspec.structs.replace(word, p=word.pp * shift + word.pq * slope, q=word.pq * shift + word.qq * slope)

    def _forget_oldest(self) -> None:
        scope, window = self._windows.popitem(last=False)
        tenant = scope.namespace.tenant
        self._tell(tenant, window, Belief())
        pool = self._pools[tenant]
        pool.scopes -= 1
        if not pool.scopes:
            self._gateway = self._gateway.minus(pool.told)
            del self._pools[tenant]

    def _bounded(self, belief: Belief) -> Curve:
        """The most probable curve within its bounds: where the slope is at its bound, the shift that goes best with it."""
        shift, slope = belief.mean()
        if slope < self._tuning.least_slope:
            slope = self._tuning.least_slope
            shift = (belief.p - belief.pq * slope) / belief.pp
        most = self._tuning.most_shift
        return Curve(max(-most, min(shift, most)), slope)
