"""Guards: what two questions must share, however near their vectors are.

Embeddings hardly see numbers, negation or word order: "refund after 14 days" and "after 30 days", "from Lisbon to Berlin" and "from
Berlin to Lisbon" lie nearer than most true rewordings. Each guard compares one such thing as what it is:

    number             the same numbers as often, in digits or words
    unit, currency, percent   of the same number the same unit; the same currencies
    date, time, version, id, email, url, path, code, quote   the same ones
    negation           both negated or both not
    direction          not one word in the one and its opposite in the other: more and fewer, before and after
    alternative        not two colours, animals or subjects, one in each
    entity             not one name, place, maker or product in the place of another
    language, format   an answer in the same language and form
    question           not who for when
    letter             the same single letters, which name a thing ("vitamin C")
    order              the same words in the same order, but for "A or B"
    detail             in a text to reckon with, such as a word problem, every word of the other
    word               not each has a content word that the other lacks, at the same place
    length             short enough to be compared, or the same

A difference is a veto where little else tells the two apart, so that nothing but the guard can see it; in texts that share less it is
a doubt, for the vectors differ as well, and there the guards separate no better than chance (measured on natural questions).
They are written for English; in other languages numbers, names, order and machine-written things still count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from headgate.cache.guards.difference import Difference, difference, turned
from headgate.cache.guards.eligibility import unfit
from headgate.cache.guards.entities import alternatives, names
from headgate.cache.guards.format import formats
from headgate.cache.guards.numbers import currencies, numbers, typed, units
from headgate.cache.guards.order import ends, order
from headgate.cache.guards.pair import Pair, pair
from headgate.cache.guards.parsed import Parsed, parsed
from headgate.cache.guards.signs import signs
from headgate.cache.guards.words import details, letters, negation, opposites, questions, quotes, words

__all__ = ["GUARDS", "LONGEST", "MOST", "NAMES", "VERSION", "Difference", "differences", "unfit"]

VERSION: Final = "g2"
"""Part of the partition: raised when any pair may be judged differently."""

LONGEST: Final = 8_000
"""Characters of a text that is compared."""

MOST: Final = 2_000
"""Tokens of a text that is compared; two longer texts are never taken for the same question unless they are the same."""

NAMES: Final = tuple(
    "alternative code currency date detail direction email entity format id language length letter negation number order path "
    "percent question quote time unit url version word".split()
)
"""What a Difference may be named by."""

GUARDS: Final[tuple[Callable[[Pair], Iterator[Difference]], ...]] = (
    numbers,
    units,
    currencies,
    typed,
    negation,
    opposites,
    ends,
    alternatives,
    names,
    formats,
    questions,
    letters,
    quotes,
    order,
    details,
    words,
)


def differences(one: str, other: str) -> tuple[Difference, ...]:
    """All that tells the two apart, vetoes first. Symmetric but for the sides, bounded in time; never raises."""
    if one == other:
        return ()
    if max(len(one), len(other)) > LONGEST:
        return _too_long(one, other)
    first, second = parsed(one), parsed(other)
    if max(len(first.keys), len(second.keys)) > MOST:
        return _too_long(one, other)
    found = dict.fromkeys(signs(one, other))
    if first.keys != second.keys or first != second:
        # Where an alignment has a choice, it must not depend on which of the two was asked first.
        seen = _seen(first, second) if first.keys <= second.keys else map(turned, _seen(second, first))
        found.update(dict.fromkeys(seen))
    return tuple(sorted(found, key=lambda one: one.severity != "veto"))


def _seen(one: Parsed, other: Parsed) -> Iterator[Difference]:
    two = pair(one, other)
    for guard in GUARDS:
        yield from guard(two)


def _too_long(one: str, other: str) -> tuple[Difference, ...]:
    if one.strip().rstrip(".?! ").casefold() == other.strip().rstrip(".?! ").casefold():
        return ()
    return (difference("length", [str(len(one))], [str(len(other))], veto=True),)
