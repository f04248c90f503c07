"""A verdict for tests that are about something else: one similarity for all, and the guards."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.cache.cache import Candidate
from headgate.cache.guards.guards import differences
from headgate.cache.labels import Scope
from headgate.cache.verdict import Judgement


class Near:
    """Serves what is near enough and not vetoed; confidence is the similarity itself. A promise of no error at all is never given."""

    identity = "near"
    reads = "nothing"

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.rates: list[float] = []

    def fits(self, text: str) -> bool:
        return True

    async def judge(
        self, scope: Scope, question: str, candidates: Sequence[Candidate], error_rate: float, sparing: bool = False
    ) -> Sequence[Judgement]:
        self.rates.append(error_rate)
        return [self._judged(question, candidate, error_rate) for candidate in candidates]

    def _judged(self, question: str, candidate: Candidate, error_rate: float) -> Judgement:
        near = max(0.0, min(candidate.similarity, 1.0)) if candidate.entry.text is not None else 0.0
        vetoes = [one.guard for one in differences(question, candidate.entry.text or "") if one.severity == "veto"]
        reason = "similarity" if near < self.threshold or not vetoes else vetoes[0]
        return Judgement(error_rate > 0 and near >= self.threshold and not vetoes, near, reason, near, self.threshold)
