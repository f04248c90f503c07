"""Two texts side by side: which tokens both have at the same place, which have moved, and which stand in one alone.

Invariant: symmetric, and linear but for one step per token on numbers of as many bits as the other text has tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from headgate.cache.guards.lexicon import CONTENT
from headgate.cache.guards.parsed import Parsed, Token

_WEIGHTS: Final = (0, 1, 3)
"""What an empty, a light and a content token count for, when it is asked how much two texts share."""
_COMPARED: Final = 12
"""Words of either text that are compared letter by letter."""
_LETTERS: Final = 5
_MANY_LETTERS: Final = 7
"""Words of at least so many letters are the same when one slip of the keyboard tells them apart; when a letter is changed, it takes
more."""
_PROBLEM: Final = (8, 12)
"""Tokens that the shorter and the longer of two word problems have at least."""
_LONG: Final = 25
"""Tokens from which on a text with two numbers is a word problem also where it names no amount."""


class Gap(msgspec.Struct, frozen=True, gc=False):
    """What stands between two neighbouring tokens that both have: tokens of the one and of the other that nothing answers, and the
    token before them."""

    one: tuple[Token, ...]
    other: tuple[Token, ...]
    before: Token | None


class Pair(msgspec.Struct, frozen=True, gc=False):
    """`lonely` and `others` are the tokens that one text alone has, in order; `moved` and `moved_other` those that both have, at
    different places; `gaps` the lonely ones by place; `weight` and `lone` weigh all and the lonely ones."""

    one: Parsed
    other: Parsed
    lonely: tuple[Token, ...]
    others: tuple[Token, ...]
    moved: tuple[Token, ...]
    moved_other: tuple[Token, ...]
    gaps: tuple[Gap, ...]
    weight: int
    lone: int

    def apart(self, *seen: Token) -> float:
        """How much the two differ beyond the tokens in `seen`: 0 nothing else, 1 all."""
        apart = _weigh(seen)
        return max(self.lone - apart, 0) / max(self.weight - apart, 1)

    @property
    def reckons(self) -> bool:
        """Whether the texts are word problems: not short, with numbers, and naming an amount. In them each word counts."""
        shorter, longer = sorted((self.one, self.other), key=lambda text: len(text.keys))
        if (
            len(shorter.keys) < _PROBLEM[0]
            or len(longer.keys) < _PROBLEM[1]
            or max(shorter.numbers, longer.numbers) < 2
        ):
            return False
        return (shorter.amount and longer.amount) or len(shorter.keys) >= _LONG


def pair(one: Parsed, other: Parsed) -> Pair:
    """Put two texts side by side."""
    matched = aligned(one.keys, other.keys)
    here = _left(len(one.keys), {i for i, _ in matched})
    there = _left(len(other.keys), {j for _, j in matched})
    moving = _both([one.keys[i] for i in here], [other.keys[j] for j in there])
    gone, moved = _parted(one, here, moving.copy())
    came, moved_other = _parted(other, there, moving)
    _forgive(one, gone, other, came)
    lonely = tuple(one.tokens[i] for i in gone)
    others = tuple(other.tokens[j] for j in came)
    return Pair(
        one,
        other,
        lonely,
        others,
        tuple(one.tokens[i] for i in moved),
        tuple(other.tokens[j] for j in moved_other),
        _gaps(one, gone, other, came, matched) if gone and came else (),
        _weigh(one.tokens) + _weigh(other.tokens),
        _weigh(lonely) + _weigh(others),
    )


def _weigh(tokens: Iterable[Token]) -> int:
    return sum([_WEIGHTS[token.weight] for token in tokens])


def aligned(one: Sequence[str], other: Sequence[str]) -> list[tuple[int, int]]:
    """A longest common subsequence, as pairs of places in order.

    By bits (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004): a row of the table is one number, in which a zero says that
    the length grows there, so a row costs a few operations on whole numbers. What both begin and end with needs no table.
    """
    least = min(len(one), len(other))
    start = 0
    while start < least and one[start] == other[start]:
        start += 1
    end = 0
    while end < least - start and one[-1 - end] == other[-1 - end]:
        end += 1
    places: dict[str, int] = {}
    width = len(one) - start - end
    for at in range(width):
        places[one[start + at]] = places.get(one[start + at], 0) | (1 << at)
    full = (1 << width) - 1
    row, rows = full, []
    for key in other[start : len(other) - end]:
        hits = row & places.get(key, 0)
        row = ((row + hits) | (row - hits)) & full
        rows.append(row)
    found = [(at, at) for at in range(start)]
    found += _traced(rows, width, start)
    return found + [(len(one) - at, len(other) - at) for at in range(end, 0, -1)]


def _traced(rows: list[int], width: int, start: int) -> list[tuple[int, int]]:
    """The pairs that the rows of `aligned` stand for, followed back from the end."""
    found = []
    column, here = width, len(rows)
    while column and here:
        if rows[here - 1] >> (column - 1) & 1:
            column -= 1
            continue
        here -= 1
        if not here or rows[here - 1] >> (column - 1) & 1:
            column -= 1
            found.append((start + column, start + here))
    return found[::-1]


def _both(one: list[str], other: list[str]) -> Counter[str]:
    """What both have, as often as both have it."""
    return Counter() if set(one).isdisjoint(other) else Counter(one) & Counter(other)


def _left(length: int, matched: set[int]) -> list[int]:
    return [at for at in range(length) if at not in matched]


def _parted(text: Parsed, places: list[int], moving: Counter[str]) -> tuple[list[int], list[int]]:
    """Places that the other text lacks, and those that it has elsewhere."""
    gone, moved = [], []
    for at in places:
        key = text.keys[at]
        if moving[key]:
            moving[key] -= 1
            moved.append(at)
        else:
            gone.append(at)
    return gone, moved


def _forgive(one: Parsed, gone: list[int], other: Parsed, came: list[int]) -> None:
    """Take out the words of which one is a slip of the keyboard for the other."""
    words = [at for at in gone if _may_slip(one.tokens[at])][:_COMPARED]
    others = [at for at in came if _may_slip(other.tokens[at])][:_COMPARED]
    for at in words:
        for there in others:
            if slip(one.keys[at], other.keys[there]) and not _known(one.tokens[at], other.tokens[there]):
                gone.remove(at)
                came.remove(there)
                others.remove(there)
                break


def _may_slip(token: Token) -> bool:
    """A phrase is nobody's slip: "World War I" and "World War II"."""
    return token.kind == "word" and token.weight == CONTENT and len(token.key) >= _LETTERS and " " not in token.key


def _known(*tokens: Token) -> bool:
    """Whether all are known words, which are two words however alike they look."""
    return all(token.about and (token.about.kinds or token.about.opposites) for token in tokens)


def slip(one: str, other: str) -> bool:
    """Whether two words that begin alike are one edit apart: a letter added or lost, two neighbours swapped, or, in longer words, a
    letter changed. Two short words with one letter changed are mostly two words: "heart" and "heard"."""
    least = min(len(one), len(other))
    if least < _LETTERS or abs(len(one) - len(other)) > 1 or one[0] != other[0]:
        return False
    start = 1
    while start < least and one[start] == other[start]:
        start += 1
    rest, others = one[start:], other[start:]
    if len(rest) == len(others):
        changed = len(one) >= _MANY_LETTERS and rest[1:] == others[1:]
        return changed or (rest[:2] == others[1::-1] and rest[2:] == others[2:])
    shorter, longer = sorted((rest, others), key=len)
    return longer[1:] == shorter


def _gaps(
    one: Parsed, gone: list[int], other: Parsed, came: list[int], matched: list[tuple[int, int]]
) -> tuple[Gap, ...]:
    """The gaps in which both have something."""
    found, here, there = [], 0, 0
    before = None
    for i, j in [*matched, (len(one.keys), len(other.keys))]:
        first, second = here, there
        while here < len(gone) and gone[here] < i:
            here += 1
        while there < len(came) and came[there] < j:
            there += 1
        if first < here and second < there:
            left = tuple(one.tokens[at] for at in gone[first:here])
            found.append(Gap(left, tuple(other.tokens[at] for at in came[second:there]), before))
        before = one.tokens[i] if i < len(one.tokens) else None
    return tuple(found)
