"""Difficulty: from features to a task and a tier, with a probability, or an honest abstention.

A proportional-odds logistic model (McCullagh 1980): one weighted sum and two cut points give the probabilities of the
three tiers. The invariant: the low tier is earned. A prompt without any sign lands in the middle, because a scorer that
sends what it does not understand to the cheap model fails exactly where it matters.

The weights are few and rounded. Logistic fits on half of three public sets of graded answers (was only the stronger of
two models right?) gave the signs and sizes of length, condition, numbers, writing and code, and showed that on kinds of
question they have not seen such features order little better than chance; `benchmarks/routing_quality.py` prints it.
Weights that those exam questions say nothing about are judgement, and kept at or below the fitted ones' size; the final
values were looked at on all rows of the sets, so what the script prints of them is no clean holdout.
"""

from __future__ import annotations

import math

from headgate.routing.deciders import Asked, Opinion
from headgate.routing.features import Features
from headgate.routing.route import Intent, Task

WEIGHTS = {
    "length": 1.6,  # fitted; the best single sign, and a baseline that keyword lists seldom beat
    "plain": -2.2,  # fitted sign; the only evidence of ease, so it must outweigh a sentence's length
    "numbers": 0.3,  # fitted
    "code": 1.0,  # fitted between -0.4 and 0.5; raised, because wrong code costs the reader most
    "math": 0.6,  # fitted on whether the weaker model fails
    "reasoning": 1.2,  # judged: "why", "compare", "prove" ask for an argument
    "constraint": 0.4,  # judged: each demand is one more way to be wrong
    "condition": 1.2,  # fitted; "if", "unless" and "suppose" are the strongest words there are
    "step": 0.2,  # fitted near zero
    "writing": 0.6,  # fitted
    "structure": 0.6,  # fitted on whether the weaker model fails; lists and numbered demands
    "questions": 0.4,  # judged: several questions in one
    "turns": 0.4,  # judged: a long conversation has more to keep in mind
    "tools": 0.4,  # judged: choosing a tool and its arguments
}
LOW, HIGH = -0.8, 1.9
"""Cut points of the sum. Between them lies the middle: single words, everyday requests, exam questions."""

_NAMES = tuple(WEIGHTS)
_SIZES = tuple(WEIGHTS.values())
_SIGNS = tuple(name for name in _NAMES if name not in ("length", "plain"))
FEW_WORDS = 3
LONG = 0.85
"""Feature `length` of some 900 characters: a text so long that shows no sign was not understood."""


def score(seen: Features) -> float:
    """The weighted sum: higher is harder."""
    return sum(size * value for size, value in zip(_SIZES, _values(seen), strict=True))


def task_of(seen: Features, *, image: bool) -> Task:
    """What kind of question it is; `chat` when nothing says otherwise."""
    if image:
        return "vision"
    if seen.code > 0.6:
        return "code"
    if seen.reasoning + seen.math >= 1 or seen.condition > 0.7:
        return "reasoning"
    return "chat"


class FeatureDecider:
    """The decider `features`."""

    async def opinion(self, asked: Asked) -> Opinion:
        """See Decider."""
        return graded(asked.seen)


def graded(seen: Features) -> Opinion:
    """The tier that a question deserves; an abstention when the features say too little."""
    doubt = _doubt(seen)
    if doubt:
        return Opinion(tier=None, reason=doubt)
    total = score(seen)
    low, high = _logistic(LOW - total), _logistic(total - HIGH)
    middle = 1 - low - high
    tier, confidence = ("low", low) if total < LOW else ("high", high) if total > HIGH else ("medium", middle)
    return Opinion(
        tier=tier,  # type: ignore[arg-type]
        confidence=confidence,
        reason=_reason(seen),
        intent=intent_of(seen),
        complexity=middle / 2 + high,
    )


def intent_of(seen: Features) -> Intent:
    """What the caller wants; `chat` when nothing says otherwise."""
    if seen.trouble:
        return "error"
    if seen.reasoning + seen.math + seen.condition + seen.constraint >= 0.5 or seen.code > 0.6:
        return "analysis"
    return "retrieval" if seen.plain > 0.5 and seen.asks else "chat"


def _doubt(seen: Features) -> str | None:
    """Why the model is out of its depth, or None."""
    if seen.foreign:
        return "foreign"
    signs = any(getattr(seen, name) for name in _SIGNS)
    if seen.words < FEW_WORDS and not seen.plain and not signs:
        return "few"
    if (seen.long or seen.length >= LONG) and not signs:
        return "long"
    return None


def _reason(seen: Features) -> str:
    """The two features that moved the sum most."""
    moved = [
        (abs(size * value), name) for size, value, name in zip(_SIZES, _values(seen), _NAMES, strict=True) if value
    ]
    moved.sort(reverse=True)
    return "+".join(name for _, name in moved[:2])


def _values(seen: Features) -> list[float]:
    return [getattr(seen, name) for name in _NAMES]


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
