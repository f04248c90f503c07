"""Reliability: how much better or worse one entry is than its questions make it look.

An entry is taken to be of one of three kinds. *Broad* ones fit more questions than they seem to and err less often; *hubs* lie near
to many questions and fit few; *plain* ones are what the rest is. Which kind an entry is of is learnt by Bayes' rule from its labels.
Without any, its probability is exactly what the prior says: the kinds share out the errors that are expected, they add none.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from headgate.cache.labels import Scope
from headgate.cache.tuning import Tuning

SUREST = 1e9
"""No odds between two kinds are longer than this, so that an entry can still change its reputation."""


class Kinds(msgspec.Struct, frozen=True, gc=False):
    """For a question that fits with some probability: how an unknown entry is likely to be of each kind, and how often each kind is
    wrong then."""

    plain: float
    broad: float
    hub: float
    plain_wrong: float
    broad_wrong: float
    hub_wrong: float


class Reputation(msgspec.Struct, gc=False):
    """What labels say of an entry: odds of `broad` and of `hub` against `plain`, as factors on what an unknown one has.

    `withdrawn`: its answer was wrong when it was served; `proofs`: labels since then, all right.
    """

    broad: float = 1.0
    hub: float = 1.0
    withdrawn: bool = False
    proofs: int = 0

    def learn(self, kinds: Kinds, right: bool) -> None:
        """Bayes' rule for one label of a question with these `kinds`."""
        plain, broad, hub = kinds.plain_wrong, kinds.broad_wrong, kinds.hub_wrong
        if right:
            plain, broad, hub = 1.0 - plain, 1.0 - broad, 1.0 - hub
        self.broad = min(max(self.broad * broad / plain, 1.0 / SUREST), SUREST)
        self.hub = min(max(self.hub * hub / plain, 1.0 / SUREST), SUREST)

    def wrong(self, kinds: Kinds) -> float:
        """Probability that its answer is wrong for a question with these `kinds`."""
        broad, hub = kinds.broad * self.broad, kinds.hub * self.hub
        wrong = kinds.plain * kinds.plain_wrong + broad * kinds.broad_wrong + hub * kinds.hub_wrong
        return wrong / (kinds.plain + broad + hub)


class Reliability:
    """The reputations of entries that have labels. Bounded: the one that was longest without a label is forgotten."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self._known: OrderedDict[tuple[Scope, str], Reputation] = OrderedDict()

    def probability(self, scope: Scope, entry: str, expected: float) -> float:
        """That this entry's answer is right, where one that is not known would be so with the probability `expected`."""
        known = self._known.get((scope, entry))
        return expected if known is None else 1.0 - known.wrong(self._kinds(expected))

    def withdrawn(self, scope: Scope, entry: str) -> bool:
        """Whether the entry must not be served by meaning."""
        known = self._known.get((scope, entry))
        return known is not None and known.withdrawn

    def learn(self, scope: Scope, entry: str, expected: float, *, right: bool, served: bool) -> None:
        """Learn from a label of a question that an unknown entry would fit with the probability `expected`."""
        known = self._known.get((scope, entry))
        if known is None:
            known = self._known[scope, entry] = Reputation()
        self._known.move_to_end((scope, entry))
        known.learn(self._kinds(expected), right)
        if not right:
            known.withdrawn = known.withdrawn or served
            known.proofs = 0
        elif known.withdrawn:
            known.proofs += 1
            known.withdrawn = known.proofs < self._tuning.proofs
        if len(self._known) > self._tuning.entries:
            self._known.popitem(last=False)

    def _kinds(self, expected: float) -> Kinds:
        """Hubs make their share of the expected errors, broad entries less than theirs, plain ones the rest."""
        tuning, wrong = self._tuning, 1.0 - expected
        hub_wrong = 1.0 - tuning.hub_right * expected
        hub = tuning.hub_share * wrong / hub_wrong
        broad_wrong = tuning.broad_wrong * wrong / (expected + tuning.broad_wrong * wrong)
        plain = 1.0 - tuning.broad - hub
        rest = wrong - hub * hub_wrong - tuning.broad * broad_wrong
        return Kinds(plain, tuning.broad, hub, rest / plain, broad_wrong, hub_wrong)
