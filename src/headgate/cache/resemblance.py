"""Resemblance: which questions seem to have one answer, though nobody was sure enough to give one's answer to the other.

Of a candidate that lies between two others the verdict thinks the less the nearer these are, for they may have other answers. Questions
that came together and were answered side by side would so keep everyone who means the same from being given any of their answers. What
only seems to be the same is therefore no reason against; it is none in favour either: that takes answers that were compared (`kinship`).

One invariant: a name never joins questions of different scopes. Bounded: the oldest are forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence

from headgate.cache.cache import Candidate, Judged
from headgate.cache.kinship import Kinship
from headgate.cache.labels import Scope

SEEMS = 0.6
"""Probability from which on one resembles another. With less, more of a burst share an answer and more of these are wrong."""

MOST = 10_000


class Resemblance:
    """Names of questions by the ids of their entries, which are those of the flights that answer them; at first each has its own."""

    def __init__(self, *, most: int = MOST) -> None:
        """At most so many are remembered to resemble another."""
        self._names = Kinship(most=most)

    def named(self, scope: Scope, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates by the names of whom they resemble."""
        return [Candidate(one.entry, one.similarity, self._names.family(scope, one.entry.id)) for one in candidates]

    def note(self, scope: Scope, id: str, judged: Sequence[Judged]) -> None:
        """A question will be answered under this `id`, for of these none was sure enough. It takes the name of the most probable, given
        first, to which no guard objects, if that is probable at all."""
        like = next((one for one in judged if one.judgement.reason == "confidence"), None)
        if like is not None and like.judgement.confidence >= SEEMS:
            self._names.join(scope, id, like.entry.id)
