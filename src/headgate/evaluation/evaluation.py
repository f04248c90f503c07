"""Evaluation: what is asked of the cache to see how good it is, and what is measured.

Three kinds of material. *Pairs* are two questions and whether one answer does for both. A *stream* is requests in the order of time,
each with the label of the answer that it deserves. A *log* is real traffic: what was asked, what was answered, what it cost. Each
is put to the real cache, request by request; only the clock and the model are played.

The invariant: a figure says what it is a share of, and is None where there was nothing to count.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headgate.cache.accuracy import interval
from headgate.cache.cache import Hit, Miss
from headgate.evaluation.curves import Judged
from headgate.model.chat import ChatRequest

Half = Literal["first", "second"]
Source = Literal["exact", "semantic", "model"]

FAR_AWAY = "similarity"
"""Why a candidate was not served that the verdict has not read."""


class Pair(msgspec.Struct, frozen=True, gc=False):
    """Two questions, and whether one answer does for both; `kind` sorts them in the report."""

    a: str
    b: str
    same: bool
    kind: str = ""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What the model says to a request. `label`: the text only names the answer, so two are the same when it is equal."""

    text: str
    label: bool


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request: when (seconds), whose, what, the answer it deserves, and what that costs to make.

    `cost` is nano-USD, None where no price is known; `tokens` are those of prompt and answer, estimated where the log has none.
    """

    at: float
    tenant: str
    chat: ChatRequest
    answer: Answer
    cost: int | None = None
    tokens: int = 0


class Share(msgspec.Struct, frozen=True, gc=False):
    """So many of so many."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """Between 0 and 1; None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where it lies with 95 % (Clopper and Pearson), were the cases independent."""
        return interval(self.count, self.of) if self.of else None


class Ruling(msgspec.Struct, frozen=True, gc=False):
    """What the cache made of a pair: whether it serves, and how sure it is: 0 where nothing was near, or a guard forbids it. `judged`:
    whether a probability decided."""

    served: bool
    confidence: float
    same: bool
    kind: str = ""
    judged: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request.

    source    where its answer came from
    right     whether that was the answer it deserves, always so when the model was asked; None where nobody can tell
    repeat    exact match alone would have had an answer; `known`: a perfect cache would have had the right one, None where
              answers have no labels
    judged    confidence and truth of the candidate that the verdict was asked about, if there was one
    checked   the model was called beside a hit, to see whether it was right
    seconds   how long the lookup took, embedding and verdict included
    near      the stored question whose answer it got by meaning
    """

    request: Request
    source: Source
    right: bool | None
    repeat: bool
    known: bool | None
    judged: Judged | None
    checked: bool
    seconds: float
    near: str | None = None


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """A stream from its first request to its last. `entries` and `weight`: what is stored at the end, and how many bytes of memory
    that takes beside texts and answers. `estimated`: whether an answer is right was judged from what it says, not known."""

    outcomes: list[Outcome]
    entries: int
    weight: int
    estimated: bool = False


def stated(found: Hit | Miss) -> float | None:
    """The probability that decided whether to serve; None where none did: the candidate was too far away to be read, or a guard
    forbids it whatever the probability."""
    judgement = found.judgement
    if judgement is None or judgement.reason == FAR_AWAY:
        return None
    vetoed = judgement.evidence is not None and judgement.evidence.veto is not None
    return None if vetoed else judgement.confidence
