"""One name for another, and one of a kind for another of the same kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from headgate.cache.guards.difference import Difference, difference
from headgate.cache.guards.lexicon import CONTENT
from headgate.cache.guards.pair import Gap, Pair
from headgate.cache.guards.parsed import Token

_KIND: Final = 0.2
_BOTH: Final = 0.1
_SINGLE: Final = 0.05
_GUARDS: Final = {"month": "date", "weekday": "date", "unit": "unit", "money": "currency", "tongue": "language"}
"""The guards that some kinds belong to; the others are entities where they are names, else alternatives."""


def alternatives(pair: Pair) -> Iterator[Difference]:
    """Two of one kind, one in each text, such as two countries or two colours."""
    one, other = _by_kind(pair.lonely), _by_kind(pair.others)
    for kind in sorted(one.keys() & other.keys()):
        here, there = one[kind], other[kind]
        guard = _GUARDS.get(kind, "entity" if here[0].about and here[0].about.name else "alternative")
        near = pair.apart(*here, *there) <= _KIND
        yield difference(guard, sorted(t.key for t in here), sorted(t.key for t in there), veto=near)


def _by_kind(tokens: tuple[Token, ...]) -> dict[str, list[Token]]:
    found = defaultdict(list)
    for token in tokens:
        for kind in token.kinds:
            found[kind].append(token)
    return found


def names(pair: Pair) -> Iterator[Difference]:
    """A name at the place of other words, whether or not anything is known of it.

    Between two names a little else may differ. Other words for one name are told apart only where nothing else does, and where they
    are one word ("the best phone", "the best Android") or the name begins as that of a person or a place does.
    """
    swaps = [_Swap(gap) for gap in pair.gaps]
    swaps = [swap for swap in swaps if swap.one and swap.other and swap.named and not swap.alike]
    for swap in swaps:
        # The same name may be replaced at several places.
        seen = _tokens(each for each in swaps if each.named == 2 or swap.named == 1)
        apart = pair.apart(*(token for token in (*pair.lonely, *pair.others) if token in seen))
        near = apart <= _BOTH if swap.named == 2 else swap.single and apart <= _SINGLE
        yield difference("entity", (token.key for token in swap.one), (token.key for token in swap.other), veto=near)


class _Swap:
    """The content of a gap: what it is on either side, and how many sides have a name."""

    def __init__(self, gap: Gap) -> None:
        self.one = [token for token in gap.one if token.weight == CONTENT]
        self.other = [token for token in gap.other if token.weight == CONTENT]
        sides = (self.one, self.other)
        continued = gap.before is not None and "person" in gap.before.kinds and len(self.one) == len(self.other) == 1
        self.named = 2 if continued else sum(any(token.named for token in side) for side in sides)

    @property
    def alike(self) -> bool:
        """Whether it is only two of a kind, of which `alternatives` tells."""
        return len(self.one) == len(self.other) == 1 and not set(self.one[0].kinds).isdisjoint(self.other[0].kinds)

    @property
    def single(self) -> bool:
        """Whether it is one word for one, or a side begins with a person or a place."""
        begins = {kind for side in (self.one, self.other) for kind in side[0].kinds}
        return len(self.one) == len(self.other) == 1 or not begins.isdisjoint({"person", "place"})


def _tokens(swaps: Iterable[_Swap]) -> set[Token]:
    return {token for swap in swaps for token in (*swap.one, *swap.other)}
