"""Outcomes: which tier a question was given, by what chance, and what came of it. What the decider `knn` learns from.

Invariant: no text. A question is its vector in signed bytes and the numbers that were seen of it. What a row leaves out when the call is
made can never be known later, so the candidates and the propensity are in it from the first call on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from headgate.routing.route import DeciderName, Task, Tier

Origin = Literal["feedback", "judge", "retry", "error"]
"""Who says what an answer was worth: somebody who read it; a model that compared it; that the same user asked nearly the same again soon
after (0), or did not (1); or that there was none."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call of a route with tiers.

    id          the call's; the same as of its row in the journal and of its answer in the cache
    at          unix seconds
    candidates  the deployments that stood for each tier that could have been chosen, best first
    tier        the one that was
    propensity  probability, over 0 to 1, with which it was chosen among the candidates
    decider     who has decided; None where all abstained
    version     of the features, and `features`: their values in its order
    vector      the question's, int8 (`knn_cells.quantised`); empty where no model reads questions
    deployment  that answered; None where none did
    cost        nano-USD
    latency     seconds until the answer was whole
    outcome     0 useless to 1 all that was wanted; None as long as nobody has said
    origin      who has
    """

    id: str
    at: float
    tenant: str
    route: str
    candidates: dict[Tier, tuple[str, ...]]
    tier: Tier
    propensity: float
    decider: DeciderName | None = None
    task: Task = "chat"
    version: int = 0
    features: tuple[float, ...] = ()
    vector: bytes = b""
    deployment: str | None = None
    cost: int = 0
    latency: float = 0.0
    outcome: float | None = None
    origin: Origin | None = None


class OutcomeLog(Protocol):
    """Where outcomes outlive the process. Guarantees: keeping one never waits and never raises; what cannot be written is lost, with a
    line in the log and counted in `lost`; the oldest are forgotten, so the size is bounded."""

    @property
    def lost(self) -> int:
        """Outcomes that could not be kept."""
        ...

    def keep(self, outcome: Outcome) -> None:
        """Keep one, in the place of an earlier one of its id, whose order it inherits."""
        ...

    def past(self) -> Sequence[Outcome]:
        """What earlier runs have kept, oldest first. Ask once, at the start."""
        ...

    async def others(self) -> Sequence[Outcome]:
        """What other replicas have kept since the start, or since this was asked last, oldest first; nothing where that cannot be told."""
        ...

    async def close(self) -> None:
        """Write what waits and let go."""
        ...
