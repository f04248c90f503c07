"""The same words in another order: who does what to whom, from where to where, how many of which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from headgate.cache.guards.difference import Difference, difference
from headgate.cache.guards.lexicon import CONTENT, LIGHT
from headgate.cache.guards.pair import Pair
from headgate.cache.guards.parsed import Token

_LONELY: Final = 1
"""Tokens, the empty ones too, that either text may have alone for a moved content word to forbid the answer."""
_SWAPPED: Final = 0.2
_AND: Final = frozenset({"and", "or", "versus", "nor"})
_DIRECTIONS: Final = frozenset("from to for than before after over under above below against".split())
_OPPOSED: Final = ({"from", "to"}, {"before", "after"}, {"over", "under"}, {"above", "below"}, {"for", "against"})
_ARTICLES: Final = frozenset({"a", "an", "the", "s", "both"})


def order(pair: Pair) -> Iterator[Difference]:
    """Words that both have in another order, unless only the sides of an "and" or "or" have changed places.

    Natural rewordings move words too ("companies in India", "Indian companies"), but they change others with them: so it is a veto
    only where the words are the same, or where two names or numbers have changed places.
    """
    moved = [token for token in pair.moved if token.weight >= LIGHT]
    if not moved or _balanced(_plain(pair.one.tokens), _plain(pair.other.tokens)):
        return
    lonely = len(pair.lonely) + len(pair.others)
    heavy = any(token.weight == CONTENT for token in moved)
    near = lonely <= (_LONELY if heavy else 0) or _swapped(pair) or (heavy and pair.reckons)
    there = (token.key for token in pair.moved_other if token.weight >= LIGHT)
    yield difference("order", (token.key for token in moved), there, veto=near)


def ends(pair: Pair) -> Iterator[Difference]:
    """Where something comes from and where it goes: a thing that both speak of has the opposite small word before it, or two things
    have changed places around the same one ("a large for a medium")."""
    one, other = _ends(pair.one.tokens), _ends(pair.other.tokens)
    if not one or not other:
        return
    shared = {token.key for token in pair.one.tokens} & {token.key for token in pair.other.tokens}
    for key in sorted(one.keys() & other.keys()):
        if {one[key], other[key]} in _OPPOSED:
            yield difference("direction", [one[key], key], [other[key], key], veto=True)
    for key, before in sorted(one.items()):
        rivals = [
            rival for rival, there in sorted(other.items()) if there == before and rival in shared and rival != key
        ]
        if key in shared and key not in other and rivals and not one.keys() & set(rivals):
            yield difference("direction", [before, key], [before, rivals[0]], veto=True)


def _ends(tokens: Sequence[Token]) -> dict[str, str]:
    """The word of direction that each thing has before it, small words aside."""
    found, before = {}, ""
    for token in tokens:
        if token.key in _DIRECTIONS:
            before = token.key
        elif token.weight == CONTENT:
            if before:
                found[token.key] = before
            before = ""
    return found


def _swapped(pair: Pair) -> bool:
    """Whether names or numbers that both have come in another order, in texts that hardly differ otherwise."""
    moved = {token.key for token in pair.moved if token.named or token.kind == "number"}
    return (
        bool(moved)
        and pair.apart() <= _SWAPPED
        and _things(pair.one.tokens) != _things(pair.other.tokens)
        and (sorted(_things(pair.one.tokens)) == sorted(_things(pair.other.tokens)))
    )


def _things(tokens: Sequence[Token]) -> list[str]:
    return [token.key for token in tokens if token.named or token.kind == "number"]


def _plain(tokens: Sequence[Token]) -> list[str]:
    return [token.key for token in tokens if token.key not in _ARTICLES]


def _balanced(one: list[str], other: list[str]) -> bool:
    """Whether the one is the other with the sides of one conjunction exchanged, and what both sides share left where it is.

    "hot or cold climates" and "cold or hot climates"; "a love marriage or an arranged marriage" and the reverse.
    """
    if len(one) != len(other):
        return False
    start = 0
    while start < len(one) and one[start] == other[start]:
        start += 1
    end = len(one)
    while end > start and one[end - 1] == other[end - 1]:
        end -= 1
    here, there = one[start:end], other[start:end]
    return any(key in _AND and _exchanged(here, there, at, one[:start], one[end:]) for at, key in enumerate(here))


def _exchanged(here: list[str], there: list[str], at: int, before: list[str], after: list[str]) -> bool:
    """Whether `here` is X T and H Y, and `there` Y T and H X, where T also follows and H also precedes both."""
    for tail in range(at):
        if here[at - tail : at] != after[:tail]:
            break
        for head in range(len(here) - at - 1):
            if head and here[at + 1 : at + 1 + head] != before[-head:]:
                break
            first, second = here[: at - tail], here[at + 1 + head :]
            if there == second + here[at - tail : at + 1 + head] + first:
                return True
    return False
