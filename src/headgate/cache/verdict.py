"""Verdict: may this stored answer be served for that question, and how sure are we?

Both questions are read by the built-in model, whatever model had found them near; the evidence of the pair goes through the prior, what
the tenant's labels have taught corrects it, and what comes out is a probability. It must reach the bar that keeps the wrong answers
under the rate that was promised, of all answers from stock of this scope (see `learning`). A guard's veto is never outvoted: it is the
floor under what was learnt from examples.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from headgate.cache.labels import Scope
from headgate.cache.learning import Learning
from headgate.cache.reading import Reader

if TYPE_CHECKING:
    from headgate.cache.cache import Candidate, Entry
    from headgate.cache.evidence import Evidence, Standing, Wording
    from headgate.cache.prior import Prior

FAR = 0.7
"""Cosine. What is further away is not read: of the right answers that were sure enough to be served, 99 in 100 were nearer."""

SAME_WORDS = 0.999
"""Probability of questions that differ in capitals, blanks and marks alone, and in nothing that a guard would see."""

READ = 5
"""Candidates that are read at most."""

TEACHING = 0.9
"""Probability. What may reach it is read although the bar is higher, for it will teach something when the question is answered."""

ROUNDING = 0.003
"""More than a similarity to a vector of signed bytes is ever off."""

ALONE_AT = 0.6
"""How near the nearest entry with another answer is taken to be at least: that nothing nearer is in stock tells little while little is."""


class Judgement(msgspec.Struct, frozen=True):
    """`confidence`: probability that the answer is right; `prior`: the same before anything was learnt; `bar`: what it had to be.

    `reason` is machine-readable: `confidence` where the number decided, `similarity` where the two are too far apart to be read,
    `withdrawn`, or what a guard saw, such as "number:14|30". `read`: whether both texts were read; where they were not, the confidence
    is that of pairs that seem alike, which is right on average and teaches nothing.
    """

    serve: bool
    confidence: float
    reason: str
    prior: float = 0.0
    bar: float = 0.0
    evidence: Evidence | None = None
    read: bool = True

    @property
    def doubted(self) -> bool:
        """Whether any guard that knows what it speaks of objects, if not enough to forbid it."""
        return self.evidence is not None and self.evidence.doubted


class Verdict(Protocol):
    """Guarantees: the same pair among the same neighbours gets the same judgement, as long as nothing is learnt.

    reads  identity of the model that reads the texts
    """

    identity: str
    reads: str

    def fits(self, text: str) -> bool:
        """Whether a judgement takes the whole text into account; one that does not fit must not be compared."""
        ...

    async def judge(
        self, scope: Scope, question: str, candidates: Sequence[Candidate], error_rate: float, sparing: bool = False
    ) -> Sequence[Judgement]:
        """A judgement on each candidate, in their order, for a promise of at most `error_rate`. Raises what the reader raises.

        `sparing`: what cannot be served may be judged unread. The similarities must be those of the model that reads.
        """
        ...


class _Pair(msgspec.Struct, frozen=True):
    """The question and a candidate that is near: its place among all, and what is known before either is read."""

    place: int
    entry: Entry
    similarity: float
    words: Wording
    standing: Standing


class CalibratedVerdict:
    """Reader, prior and what was learnt."""

    def __init__(self, reader: Reader, prior: Prior, learning: Learning, *, far: float = FAR) -> None:
        """`far`: the cosine from which on candidates are read; a lower one is for those who measure."""
        self.identity = f"{reader.identity} {prior.identity}"
        self.reads = reader.identity
        self.fits = reader.fits
        self._reader = reader
        self._prior = prior
        self._learning = learning
        self._far = far

    async def judge(
        self, scope: Scope, question: str, candidates: Sequence[Candidate], error_rate: float, sparing: bool = False
    ) -> Sequence[Judgement]:
        """Read what is near enough, all together, and judge each."""
        prior_bar = self._prior.bar if len(candidates) > 1 else self._prior.bar_alone
        bar = self._learning.bar(scope, error_rate, prior_bar)
        judged = [Judgement(False, 0.0, "similarity", bar=bar, read=False) for _ in candidates]
        pairs = self._near(scope, question, candidates)
        if not pairs:
            return judged
        guessed = self._guessed(scope, pairs, min(bar, TEACHING)) if sparing else {}
        open_ = [pair for pair in pairs if pair.place not in guessed]
        read = await self._read(question, open_) if open_ else {}
        for pair in pairs:
            evidence, prior = read.get(pair.place) or guessed[pair.place]
            judgement = self._judgement(scope, pair.entry.id, evidence, prior, bar)
            judged[pair.place] = msgspec.structs.replace(judgement, read=pair.place in read)
        return judged

    def _near(self, scope: Scope, question: str, candidates: Sequence[Candidate]) -> list[_Pair]:
        """The candidates that may be read, with what their words and their neighbours tell."""
        near = [place for place, one in enumerate(candidates) if one.similarity >= self._far and one.entry.text][:READ]
        if not near:
            return []
        from headgate.cache.evidence import wording

        families = [self._learning.family(scope, one.entry.id) for one in candidates]
        seeming = [one.seems or family for one, family in zip(candidates, families, strict=True)]
        cosines = [one.similarity for one in candidates]
        return [
            _Pair(
                place,
                candidates[place].entry,
                cosines[place],
                wording(question, candidates[place].entry.text or ""),
                standing(place, cosines, families, seeming),
            )
            for place in near
        ]

    def _guessed(self, scope: Scope, pairs: Sequence[_Pair], worth: float) -> dict[int, tuple[Evidence, float]]:
        """Evidence and prior of the pairs that need not be read, by place: a guard forbids them, or they would not be probable enough
        if the reader saw the best it ever saw of pairs so near. They are taken to look as such pairs usually do."""
        from headgate.cache.evidence import row, seen_as, supposed

        usual, rows, best = [], [], []
        for pair in pairs:
            sight = self._prior.sight(pair.similarity + ROUNDING)
            if sight is None:
                return {}
            usual.append(supposed(pair.similarity, sight.usual, pair.words, pair.standing))
            rows.append(row(usual[-1]))
            best.append(seen_as(rows[-1], sight.best))
        priors = self._priors([*usual, *usual], [*rows, *best])
        found = {}
        for pair, evidence, prior, most in zip(pairs, usual, priors, priors[len(pairs) :], strict=False):
            if evidence.veto is not None or self._learning.confidence(scope, pair.entry.id, most) < worth:
                found[pair.place] = evidence, prior
        return found

    async def _read(self, question: str, pairs: Sequence[_Pair]) -> dict[int, tuple[Evidence, float]]:
        """Evidence and prior of pairs, by place."""
        from headgate.cache.evidence import gather, row

        texts = [question, *(pair.entry.text or "" for pair in pairs)]
        asked, *stored = await asyncio.gather(*map(self._reader.read, texts))
        found = [
            gather(asked, reading, self._reader.rarity, pair.standing, pair.words)
            for pair, reading in zip(pairs, stored, strict=True)
        ]
        priors = self._priors(found, [row(evidence) for evidence in found])
        return {pair.place: said for pair, said in zip(pairs, zip(found, priors, strict=True), strict=True)}

    def _priors(self, found: Sequence[Evidence], rows: Sequence[Sequence[float]]) -> list[float]:
        fitted = zip(found, self._prior.probabilities(rows), strict=True)
        return [max(prior, SAME_WORDS) if evidence.same_words else prior for evidence, prior in fitted]

    def _judgement(self, scope: Scope, entry: str, evidence: Evidence, prior: float, bar: float) -> Judgement:
        confidence = self._learning.confidence(scope, entry, prior)
        reason = "confidence"
        if evidence.veto is not None:
            reason = evidence.veto.reason
        elif self._learning.withdrawn(scope, entry):
            reason = "withdrawn"
        serve = reason == "confidence" and confidence >= bar
        return Judgement(serve, confidence, reason, prior, bar, evidence)


def standing(place: int, cosines: Sequence[float], families: Sequence[str], seeming: Sequence[str] = ()) -> Standing:
    """Where one candidate stands among all that are near: those of its family speak for it, all others against it but those that share
    its name in `seeming`, where names are given."""
    from headgate.cache.evidence import Standing

    if len(cosines) < 2:
        return Standing()
    names = seeming or families
    others = [
        near
        for near, family, name in zip(cosines, families, names, strict=True)
        if family != families[place] and name != names[place]
    ]
    kin = [
        near
        for other, (near, family) in enumerate(zip(cosines, families, strict=True))
        if family == families[place] and other != place
    ]
    return Standing(cosines[place] - max([ALONE_AT, *others]), max(kin, default=0.0), float(len(kin)))
