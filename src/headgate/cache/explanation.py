"""Explanation: why one question's answer would be served for another, or would not."""

from __future__ import annotations

from typing import Any

import msgspec

from headgate.cache.cache import Candidate, Entry
from headgate.cache.comparison import Comparison
from headgate.cache.labels import Scope
from headgate.cache.treatment import Treatment
from headgate.model.tenancy import Key, Mode, Namespace


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache thinks of two questions, the first of which is asked and the second stored.

    served      whether the second's answer would be served for the first
    confidence  how probable it is that this would be right, and `bar` how probable it must be
    reason      what decided: as in `Judgement`, or why one of the two is never compared
    similarity  cosine of their vectors
    error_rate  share of wrong answers that was accepted
    mode        of the semantic tier
    evidence    what the verdict saw of the pair (see `evidence.Evidence`), where it came to read it
    """

    served: bool
    confidence: float
    bar: float
    reason: str
    similarity: float
    error_rate: float
    mode: Mode
    evidence: dict[str, Any] | None = None


async def explained(comparison: Comparison, one: str, other: str, treated: Treatment) -> Explanation:
    """What becomes of the question `one` where only `other` is stored, and nothing was learnt of either. Raises what the embedder and
    the verdict raise."""
    vector, stored = await comparison.embedder.embed(one), await comparison.embedder.embed(other)
    nowhere = Namespace("")
    entry = Entry(id="", key=Key(nowhere, b""), answer=b"", stored=0.0, expires=0.0, text=other)
    candidate = Candidate(entry, float(vector @ stored))
    (judgement,) = await comparison.verdict.judge(Scope(nowhere, b""), one, [candidate], treated.error_rate)
    reason = comparison.unfit(one) or comparison.unfit(other)
    served = judgement.serve and judgement.confidence >= treated.min_confidence and treated.semantic == "on"
    return Explanation(
        served=served and reason is None,
        confidence=judgement.confidence,
        bar=judgement.bar,
        reason=reason or judgement.reason,
        similarity=candidate.similarity,
        error_rate=treated.error_rate,
        mode=treated.semantic,
        evidence=None if judgement.evidence is None else msgspec.to_builtins(judgement.evidence),
    )
