"""Words that turn a question around, and the words that nothing answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from headgate.cache.guards.difference import Difference, difference
from headgate.cache.guards.lexicon import CONTENT
from headgate.cache.guards.pair import Pair
from headgate.cache.guards.parsed import Parsed, Token, parsed

_NEGATED: Final = 0.15
_OPPOSED: Final = 0.25
_ASKED: Final = 0.05
_LETTER: Final = 0.1
_QUOTED: Final = 0.15
_ASKING: Final = frozenset({"who", "when", "where", "why", "how"})
"""Each asks for something else. "What" and "which" may stand for any of them."""


def negation(pair: Pair) -> Iterator[Difference]:
    """The negations of one text leave one standing, those of the other none: two cancel each other."""
    one, other = _negations(pair.one), _negations(pair.other)
    if one % 2 != other % 2:
        seen = [token for token in (*pair.lonely, *pair.others) if token.key == "not"]
        yield difference("negation", ["not"] * (one % 2), ["not"] * (other % 2), veto=pair.apart(*seen) <= _NEGATED)


def _negations(text: Parsed) -> int:
    """Without those that only offer a choice: "or not"."""
    keys = text.keys
    return sum(key == "not" and not (at and keys[at - 1] == "or") for at, key in enumerate(keys))


def opposites(pair: Pair) -> Iterator[Difference]:
    """A word that only one has, and its opposite that only the other has; small words such as "in" and "out" at the same place."""
    for token, met in (*_opposed(pair.lonely, pair.others), *_opposed_small(pair)):
        near = pair.apart(token, *met) <= _OPPOSED
        yield difference("direction", [token.key], _keys(met), veto=near)


def _opposed(one: Iterable[Token], other: Iterable[Token]) -> Iterator[tuple[Token, list[Token]]]:
    there = {token.key: token for token in other if token.weight == CONTENT}
    for token in one:
        if token.about and token.weight == CONTENT and (met := token.about.opposites & there.keys()):
            yield token, [there[key] for key in sorted(met)]


def _opposed_small(pair: Pair) -> Iterator[tuple[Token, list[Token]]]:
    for gap in pair.gaps:
        for token in gap.one:
            met = [there for there in gap.other if token.about and there.key in token.about.opposites]
            if met and (token.weight < CONTENT or any(there.weight < CONTENT for there in met)):
                yield token, met


def questions(pair: Pair) -> Iterator[Difference]:
    """Another word of asking in the same place."""
    for gap in pair.gaps:
        one = [token for token in gap.one if token.key in _ASKING]
        other = [token for token in gap.other if token.key in _ASKING]
        if one and other:
            near = pair.apart(*one, *other) <= _ASKED
            yield difference("question", _keys(one), _keys(other), veto=near)


def letters(pair: Pair) -> Iterator[Difference]:
    """Single letters name things: "vitamin C", "plan B"."""
    one, other = _letters(pair.lonely), _letters(pair.others)
    if one or other:
        yield difference("letter", _keys(one), _keys(other), veto=pair.apart(*one, *other) <= _LETTER)


def _letters(tokens: Iterable[Token]) -> list[Token]:
    return [token for token in tokens if len(token.key) == 1 and token.key.isascii() and token.weight == CONTENT]


def quotes(pair: Pair) -> Iterator[Difference]:
    """Other words in quotation marks."""
    one, other = sorted(pair.one.quoted - pair.other.quoted), sorted(pair.other.quoted - pair.one.quoted)
    if one and other:
        inside = {key for quoted in (*one, *other) for key in parsed(quoted).keys}
        seen = [token for token in (*pair.lonely, *pair.others) if token.key in inside]
        if seen:
            yield difference("quote", one, other, veto=pair.apart(*seen) <= _QUOTED)


def details(pair: Pair) -> Iterator[Difference]:
    """In a text to reckon with every word counts."""
    if pair.reckons:
        one, other = _content(pair.lonely), _content(pair.others)
        if one or other:
            yield difference("detail", _keys(one), _keys(other), veto=True)


def words(pair: Pair) -> Iterator[Difference]:
    """Each has content words that the other lacks, at the same place."""
    for gap in pair.gaps:
        one, other = _spoken(gap.one), _spoken(gap.other)
        if one and other:
            yield difference("word", _keys(one), _keys(other), veto=False)


def _content(tokens: Iterable[Token]) -> list[Token]:
    return [token for token in tokens if token.weight == CONTENT]


def _spoken(tokens: Iterable[Token]) -> list[Token]:
    return [token for token in tokens if token.weight == CONTENT and token.kind == "word"]


def _keys(tokens: Iterable[Token]) -> list[str]:
    return [token.key for token in tokens]
