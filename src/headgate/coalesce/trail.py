"""Trail: how a flight gets its answer, as far as is known."""

from __future__ import annotations

import msgspec

from headgate.model.record import Attempt, CacheOutcome, Source
from headgate.routing.route import Decision


class Trail(msgspec.Struct, kw_only=True):
    """What is known so far about how a flight gets its answer; grows as the flight goes on. Times in seconds."""

    source: Source = "live"
    cache: CacheOutcome = "bypass"
    cache_reason: str | None = None
    confidence: float | None = None
    judged: float | None = None
    """How probable it seemed that the nearest stored answer is right, where there was one and it was not served."""
    entry: str | None = None
    partition: bytes | None = None
    """Of an answer that was not made for this question: what it may be compared within."""
    prior: float | None = None
    """Of one that was found by meaning: how probable it was that it is right before anything was learnt."""
    lookup: float | None = None
    route_reason: str | None = None
    route_confidence: float | None = None
    decision: Decision | None = None
    """Of a call that was routed: what kind of question it seems to be, which tier it got, and who said so."""
    model: str | None = None
    deployment: str | None = None
    attempts: list[Attempt] = []
    waited: float = 0.0
    """Seconds spent waiting for providers: for the first part of the answer, and for attempts that failed."""
    cost: int = 0
    worth: int = 0
    """What the answer would cost if it were bought, nano-USD: what each follower and each hit saves."""
    ceiling: int = 0
    """What is held for the answer while it is under way, nano-USD: `worth` will not be more."""
    routed: int = 0
    """What routing saved on it, nano-USD."""
    limit: int | None = None
    """Output tokens a choice that were asked for, where the budget left room for fewer than the caller allowed."""
    overflow: str | None = None
    """What was done about a prompt that was too long: `larger`, `pruned:12` or `condensed:8`."""
    shortened: bool = False
    """Whether the answer is to a shortened conversation: it is not kept, nor shared with whoever means the same."""
    personal: bool = False
    """Whether it is shorter or from a cheaper model than usual because of a user's, a key's or a feature's budget: such an answer
    is neither kept nor shared, for others need not have that budget."""

    @property
    def own(self) -> bool:
        """Whether the answer is for its question alone, so that nobody who asks otherwise may be given it: neither kept nor poured."""
        return self.personal or self.shortened
