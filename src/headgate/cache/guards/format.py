"""The language and the form in which an answer is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from headgate.cache.guards.difference import Difference, difference
from headgate.cache.guards.pair import Pair
from headgate.cache.guards.parsed import Parsed

_NEAR: Final = 0.1
_LEADING: Final = frozenset({"in", "as", "into", "with", "using"})
_BETWEEN: Final = frozenset(
    {"a", "an", "the", "bullet", "simpl", "short", "one", "few", "plain", "layman", "own", "my", "your"}
)
_FORMS: Final = frozenset(
    "json xml yaml csv html markdown latex pdf tabl list point bullet step word sentenc lin paragraph essay poem rhym haiku email "
    "letter tweet summari outlin diagram chart graph cod term prose detail brief short".split()
)


def formats(pair: Pair) -> Iterator[Difference]:
    """The answer is wanted in another form or language, or in one where the other text does not say."""
    one, other = wanted(pair.one), wanted(pair.other)
    if one != other:
        here, there = sorted(one - other), sorted(other - one)
        seen = [token for token in (*pair.lonely, *pair.others) if token.key in one ^ other]
        guard = "language" if any(key.endswith(" language") for key in here + there) else "format"
        yield difference(guard, here, there, veto=bool(seen) and pair.apart(*seen) <= _NEAR)


def wanted(text: Parsed) -> set[str]:
    """Forms and languages that stand behind "in", "as" and the like."""
    found = set()
    leading = False
    for token in text.tokens:
        if token.key in _LEADING:
            leading = True
        elif leading and (token.key in _FORMS or "tongue" in token.kinds):
            found.add(token.key)
            leading = False
        elif token.kind != "number" and token.key not in _BETWEEN:
            leading = False
    return found
