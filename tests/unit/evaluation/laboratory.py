"""What the tests of this folder measure with: a cache that serves what a script says, over the real store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headgate.bench import Bench
from headgate.cache.cache import Entry, Hit, Miss, Question
from headgate.cache.checks import Checks, Ration
from headgate.cache.judge import Case
from headgate.cache.learning import Learning
from headgate.cache.memory import MemoryStore
from headgate.cache.tiers import Cache
from headgate.cache.treatment import CachePolicy, Treatment
from headgate.cache.verdict import Judgement
from headgate.evaluation.evaluation import Answer, Course, Request
from headgate.evaluation.model import plain_request
from headgate.evaluation.stream import Clock, Trial
from headgate.model.tenancy import Key

EVERY = Ration(share=1.0, chance=1.0)
"""Every hit by meaning is checked."""

NONE = Ration(share=0.0)


class Letters:
    """An embedder of bags of letters."""

    identity = "letters"
    dimensions = 27

    def fits(self, text: str) -> bool:
        return True

    async def embed(self, text: str) -> Any:
        counts = np.ones(self.dimensions, np.float32)
        for letter in text.lower():
            counts[ord(letter) - 96 if "a" <= letter <= "z" else 0] += 1
        return counts / np.linalg.norm(counts)

    async def close(self) -> None:
        return


class Mute:
    """A verdict that is never asked."""

    identity = "mute"
    reads = "nothing"

    def fits(self, text: str) -> bool:
        return True

    async def judge(self, *args: Any) -> list[Judgement]:
        raise AssertionError("the script decides")


class Scripted(Cache):
    """A cache whose semantic tier knows which questions are taken for which, and how sure it is; 0.9 and more is served."""

    def __init__(self, aliases: Mapping[str, tuple[str, float]], clock: Clock, **policy: Any) -> None:
        super().__init__(MemoryStore(now=clock), Letters(), Mute(), CachePolicy(**policy), now=clock, patience=30.0)
        self._aliases = aliases

    async def lookup(self, key: Key, question: Question | None, treated: Treatment) -> Hit | Miss:
        if question is None or question.text not in self._aliases:
            return Miss()
        text, confidence = self._aliases[question.text]
        near = await self._stored(key, question, text)
        if near is None:
            return Miss()
        judged = Judgement(serve=confidence >= 0.9, confidence=confidence, reason="script", prior=confidence)
        return Hit(near, "semantic", confidence, judgement=judged) if judged.serve else Miss(judged, near)

    async def _stored(self, key: Key, question: Question, text: str) -> Entry | None:
        near = await self.entries.nearest(key.namespace, question.partition, question.vector, 100)
        return next((one.entry for one in near if one.entry.text == text), None)


class SameWords:
    """A judge of texts: the same words are the same; of answers without a word in common nothing is said."""

    def __init__(self) -> None:
        self.asked: list[Case] = []

    async def same(self, case: Case) -> bool | None:
        self.asked.append(case)
        one, other = set(case.one.split()), set(case.other.split())
        return None if one.isdisjoint(other) else one == other


def ask(text: str, answer: str | int, *, at: float = 0.0, tenant: str = "mill", **more: Any) -> Request:
    """A request whose answer is a label where it is a number, else a text."""
    said = Answer(str(answer), label=isinstance(answer, int))
    return Request(at=at, tenant=tenant, chat=plain_request(text), answer=said, **more)


async def went(
    requests: list[Request],
    aliases: Mapping[str, tuple[str, float]] | None = None,
    *,
    ration: Ration = NONE,
    learning: Learning | None = None,
    judge: SameWords | None = None,
    **policy: Any,
) -> Course:
    """What becomes of these requests."""
    clock = Clock()
    cache = Scripted(aliases or {}, clock, **policy)
    trial = Trial(Bench(cache, learning, Checks(ration, now=clock), judge or SameWords()), clock)
    for request in requests:
        await trial.ask(request)
    course = trial.end()
    await cache.close()
    return course
