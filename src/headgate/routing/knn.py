"""The decider `knn`: what came of questions like this one, by tier.

For each tier, the outcomes of the tenant's nearest logged questions are averaged by similarity, each by inverse propensity, and shrunk to
what is believed before (a fitted uplift model, else the route's mean over all tenants), as if that were `MASS` outcomes. The lowest tier
is chosen that is very probably no worse than the best by more than `TOLERANCE`: the target is the uplift, P(the better tier's answer is
better), not the difficulty.

Invariants: neighbours are of the same tenant and route, and of others only a mean is known; without enough neighbours near enough, and
without a model that knows such questions, it abstains. A decision takes less than a millisecond with 50,000 outcomes, once the question
has been read.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from headgate.model.tenancy import Policy
from headgate.routing.deciders import Asked, Opinion
from headgate.routing.exploration import candidates
from headgate.routing.outcomes import Origin, Outcome
from headgate.routing.route import TIERS, Tier
from headgate.routing.uplift import Uplift

MOST = 50_000
"""Outcomes that are compared with, the newest."""
NEAREST = 200
FLOOR = 0.3
"""Similarity from which on a question is a neighbour. At 0.2 more is judged, and tasks that are unlike all that is known worse than by
chance; at 0.4 hardly anything is judged while outcomes are some thousands."""
LEAST = 5.0
"""Effective number of neighbours that a tier needs to be judged."""
MASS = 4.0
"""Outcomes that what is believed before is worth."""
FITTED = 10.0
"""And what a fitted model says of a question that it knows the like of."""
TOLERANCE = 0.05
SURE = 0.75
"""Probability of being no worse from which on a lower tier is chosen."""
CLIPPED = 10.0
"""The largest inverse propensity: one explored call must not outweigh all others."""
TRUST: Mapping[Origin, float] = {"feedback": 1.0, "judge": 1.0, "retry": 0.5}
"""How much an outcome says of the tier, by who has said it. Errors say something of the provider."""
CHARACTERS = 8_000
"""Of a question that are read. An embedder may read fewer."""
PATIENCE = 0.25
"""Seconds that a vector is waited for."""

Embed = Callable[[str], Awaitable[Any]]
"""The unit vector of a text, shape (d,), float32; of one that is too long, of its beginning. May raise anything."""


class _Known(msgspec.Struct, frozen=True, gc=False):
    """An outcome as it is compared with."""

    id: str
    place: tuple[str, str]
    tier: Tier
    worth: float
    weight: float


class Neighbours:
    """Outcomes by tenant and route, found by their questions' vectors."""

    def __init__(self, dimensions: int, *, most: int = MOST) -> None:
        """Vectors of other sizes are left out; at most `most` are kept."""
        self._dimensions = dimensions
        self._most = most
        self._cells: dict[tuple[str, str], Any] = {}
        self._known: dict[int, _Known] = {}
        self._number_of: dict[str, int] = {}
        self._next = 0
        self._means: dict[tuple[str, Tier], tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, outcome: Outcome) -> None:
        """Take in an outcome, or take back what was said of the same call before."""
        from headgate.routing.knn_cells import Cells  # late: numpy

        self._forget(self._number_of.get(outcome.id))
        trust = 0.0 if outcome.origin is None else TRUST.get(outcome.origin, 0.0)
        if outcome.outcome is None or not trust or len(outcome.vector) != self._dimensions:
            return
        weight = trust * min(CLIPPED, 1 / max(outcome.propensity, 1e-6))
        place = outcome.tenant, outcome.route
        known = _Known(outcome.id, place, outcome.tier, outcome.outcome, weight)
        self._next += 1
        self._known[self._next], self._number_of[outcome.id] = known, self._next
        self._count(known, 1)
        cells = self._cells.get(place)
        if cells is None:
            cells = self._cells[place] = Cells(self._dimensions)
        cells.add(self._next, outcome.vector)
        if len(self._known) > self._most:
            self._forget(next(iter(self._known)))

    def evidence(self, tenant: str, route: str, vector: Any) -> dict[Tier, tuple[float, float]]:
        """For each tier with neighbours: their weighted mean, and their effective number (Kish)."""
        import numpy as np  # loaded by now

        cells = self._cells.get((tenant, route))
        if cells is None:
            return {}
        numbers, similar = cells.near(vector)
        chosen = np.flatnonzero(similar >= FLOOR)
        if len(chosen) > NEAREST:
            chosen = chosen[np.argpartition(-similar[chosen], NEAREST)[:NEAREST]]
        sums: dict[Tier, list[float]] = {}
        for number, near in zip(numbers[chosen].tolist(), similar[chosen].tolist(), strict=True):
            known = self._known[number]
            weight = known.weight * (near - FLOOR) / (1 - FLOOR)
            total = sums.setdefault(known.tier, [0.0, 0.0, 0.0])
            total[0] += weight * known.worth
            total[1] += weight
            total[2] += weight * weight
        return {tier: (worth / mass, mass * mass / square) for tier, (worth, mass, square) in sums.items() if mass > 0}

    def mean(self, route: str, tier: Tier) -> float | None:
        """The mean outcome of a tier over all tenants; None where none is known."""
        worth, mass = self._means.get((route, tier), (0.0, 0.0))
        return worth / mass if mass > 1e-9 else None

    def _forget(self, number: int | None) -> None:
        known = None if number is None else self._known.pop(number, None)
        if number is None or known is None:
            return
        del self._number_of[known.id]
        self._count(known, -1)
        cells = self._cells[known.place]
        cells.drop(number)
        if not len(cells):
            del self._cells[known.place]

    def _count(self, known: _Known, sign: int) -> None:
        place = known.place[1], known.tier
        worth, mass = self._means.get(place, (0.0, 0.0))
        self._means[place] = worth + sign * known.weight * known.worth, mass + sign * known.weight


class KnnDecider:
    """The decider `knn`."""

    def __init__(
        self,
        embed: Embed,
        neighbours: Neighbours,
        *,
        fitted: Mapping[str, Uplift] | None = None,
        sees: Callable[[Policy], bool] = lambda _: True,
    ) -> None:
        """`fitted`: models of uplift, by route; `sees`: whether the embedder may see what a tenant of this policy asks."""
        self._embed = embed
        self._sees = sees
        self._neighbours = neighbours
        self._fitted = dict(fitted or {})

    async def opinion(self, asked: Asked) -> Opinion:
        """See Decider. Raises what the embedder raises, and TimeoutError."""
        if not asked.text:
            return Opinion(tier=None, reason="textless")
        if not self._sees(asked.policy):
            return Opinion(tier=None, reason="residency")
        async with asyncio.timeout(PATIENCE):
            vector = await self._embed(asked.text[:CHARACTERS])
        return self.judged(asked, vector)

    def judged(self, asked: Asked, vector: Any) -> Opinion:
        """The opinion on a question with this vector."""
        route = asked.route
        tiers = tuple(candidates(route, asked.policy))
        evidence = self._neighbours.evidence(asked.tenant, route.name, vector)
        fitted = self._fitted.get(route.name)
        uplift = None if fitted is None else fitted.estimate(vector, len(asked.text))
        beliefs = {}
        for tier in tiers:
            before = self._before(route.name, tier, tiers, fitted, uplift)
            mean, count = evidence.get(tier, (0.0, 0.0))
            if before is not None and (count >= LEAST or uplift is not None):
                beliefs[tier] = _Belief.of(mean, count, before, MASS if uplift is None else FITTED)
        return _opinion(beliefs)

    def _before(
        self, route: str, tier: Tier, tiers: tuple[Tier, ...], fitted: Uplift | None, uplift: float | None
    ) -> float | None:
        """What is believed of a tier's answer before the tenant's own outcomes count. A fitted model knows two: what lies between the
        lowest and the highest is taken to lie between in quality, too."""
        if fitted is None or uplift is None:
            return self._neighbours.mean(route, tier)
        step = (len(tiers) - 1 - tiers.index(tier)) / max(1, len(tiers) - 1)
        return max(0.0, min(1.0, fitted.file.rich - uplift * step))


class _Belief(msgspec.Struct, frozen=True, gc=False):
    """The expected outcome of a tier, and its variance."""

    mean: float
    variance: float

    @classmethod
    def of(cls, mean: float, count: float, before: float, mass: float) -> _Belief:
        """Of so many outcomes, shrunk to what was believed before, which counts as `mass` of them."""
        total = count + mass
        mean = (count * mean + mass * before) / total
        return cls(mean, max(mean * (1 - mean), 0.02) / total)


def _opinion(beliefs: Mapping[Tier, _Belief]) -> Opinion:
    """The lowest tier that is very probably good enough; the best one where none below is."""
    if len(beliefs) < 2:
        return Opinion(tier=None, reason="few")
    tiers = [tier for tier in TIERS if tier in beliefs]
    best = max(tiers, key=lambda tier: (beliefs[tier].mean, -TIERS.index(tier)))
    doubt = 0.0
    for tier in tiers[: tiers.index(best)]:
        enough = _enough(beliefs[tier], beliefs[best])
        if enough >= SURE:
            return Opinion(tier=tier, confidence=enough, reason=_reason(beliefs[tier], beliefs[best]))
        doubt = max(doubt, enough)
    return Opinion(tier=best, confidence=1 - doubt, reason=_reason(beliefs[tiers[0]], beliefs[best]))


def _enough(one: _Belief, best: _Belief) -> float:
    """P(one's answer is no worse than the best's by more than the tolerance), by the normal approximation."""
    away = (one.mean - best.mean + TOLERANCE) / math.sqrt(one.variance + best.variance)
    return 0.5 * (1 + math.erf(away / math.sqrt(2)))


def _reason(one: _Belief, best: _Belief) -> str:
    """By how much the best is better, in steps of a tenth, so that the values are few."""
    return f"uplift:{round(best.mean - one.mean, 1):.1f}"
