"""Labels: what has turned out about answers that were served, or nearly were, and where that is kept.

A label says whether a stored answer would do for a question other than its own. It holds neither text: what is learnt from it are a
probability and a truth value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from headgate.model.tenancy import Namespace

Origin = Literal["check", "miss", "feedback"]


class Scope(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """What learns together: a tenant's questions of one kind. `digest` is `Question.scope`."""

    namespace: Namespace
    digest: bytes


class Label(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whether an entry's answer was right for a question that was not its own.

    confidence  probability of that before anything was learnt, by the prior alone
    origin      a check of a served hit, a miss whose answer was bought anyway, or what a user said
    served      whether the answer was served, by meaning
    uniform     whether pure chance chose it among what was served, or would have been if the tier did not only watch: these labels
                alone tell without bias how many answers are right
    at          when it was learnt, unix seconds
    own         the entry that the question has of its own since then; empty where it has none
    """

    scope: Scope
    entry: str
    confidence: float
    right: bool
    origin: Origin
    served: bool
    at: float
    uniform: bool = False
    own: str = ""


class Served(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An answer that a caller got and did not have made for it, so that what is said of it later can be understood.

    id          the request's
    entry       the stored answer's; of an answer that was shared while it was made, the request's that it was made for
    scope       of an answer found by meaning, and `confidence`: what the prior alone said of it
    """

    id: str
    tenant: str
    entry: str
    tier: Literal["exact", "semantic", "shared"]
    scope: Scope | None = None
    confidence: float = 1.0


class LabelLog(Protocol):
    """Where labels, and answers that were served by meaning, outlive the process. Guarantees: keeping one never waits, and what
    cannot be written is lost with a line in the log; old ones are forgotten, so the size is bounded."""

    def label(self, label: Label) -> None:
        """Keep one label."""
        ...

    def served(self, served: Served) -> None:
        """Keep one served answer, if it has a scope."""
        ...

    def past(self) -> tuple[Sequence[Label], Sequence[Served]]:
        """What earlier runs have kept, each oldest first. Ask once, at the start."""
        ...

    async def others(self) -> tuple[Sequence[Label], Sequence[Served]]:
        """What other replicas have kept since the start, or since this was asked last, oldest first; nothing where that cannot be told."""
        ...

    async def close(self) -> None:
        """Write what waits and let go."""
        ...
