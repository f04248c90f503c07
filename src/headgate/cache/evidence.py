"""Evidence: what can be known of a pair of questions without asking a model whether they mean the same.

One invariant: evidence is symmetric. It does not matter which of the two was asked first, apart from what is said of the neighbourhood.

Three kinds. *Vectors*: how near the two are as wholes, and whether each word piece of one has a partner in the other, from the token
vectors of the same forward pass that made the whole's (the greedy alignment of BERTScore, Zhang et al. 2020): of "the price" and "the
price of gold", "gold" is left without one. *Words*: what they share and where they part, and what the guards object. *Neighbourhood*:
where the candidate stands among the others that are near, above all those that are known to have other answers.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, Final

import msgspec
import numpy as np

from headgate.cache.guards.guards import NAMES, Difference, differences
from headgate.cache.reading import Reading

VERSION: Final = "e1"
"""Raise it when any pair may come out with other evidence: the prior is fitted to it."""

UNKNOWN: Final = math.nan
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_MARK = re.compile(r"(?<=\w)[.,;:!?…]+(?=\s)")
_END: Final = " \t\r\n.!?…"
"""What may stand at the end of a text and say nothing."""
_LIGHT: Final = 0.15
"""What a word weighs that carries little meaning by itself, against 1 for any other."""
_EMPTY: Final = frozenset(
    "a an the i to of for my your our you me we us do does did is are was be been am can could may might would will shall should "
    "how what which who why where when in on at it its that this these those and or have has get got just so any some about with "
    "by as if".split()
)
_ASKING: Final = frozenset("who what where when why how which is can do should will".split())
_MOST_WORDS: Final = 80
"""Words that are aligned in order; two longer texts are compared without regard to what follows."""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """Where a candidate stands among the entries near to the question; all NaN where it stands alone.

    margin  its similarity less that of the nearest entry that has, or may have, another answer
    kin     similarity of the nearest other entry that is known to have the same answer; 0 where there is none
    kins    how many such entries are near
    """

    margin: float = UNKNOWN
    kin: float = UNKNOWN
    kins: float = UNKNOWN


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """What is known of a pair. Of what each side has without the other there is the smaller and the larger.

    similarity          cosine of the two texts' vectors
    opening             cosine of what the model sees at the start of the texts: their kind, more than their topic
    covered, (most)     share of a text's meaning that has a partner in the other
    lost, (most)        meaning of its weightiest piece without a partner
    worst               the least similar of all partners
    rare, (most)        the same as `lost`, weighed by how rare the piece is
    shared, contained   words in common, as a share of all and of the shorter text's
    only, (most)        words of its own
    length, shorter     ratio of the lengths in pieces; the smaller length
    sequence            share of words that come in the same order
    replaced, added     places where one has other words, or words that the other lacks
    asking              1 when both ask with the same word
    figures, figures_shared     numbers that only one has, that both have
    names               words with a capital that only one has
    negated             1 when only one is negated
    standing            see Standing
    differences         what the guards object
    same_words          whether the two differ in nothing but capitals, blanks and the marks of sentences, and no guard objects
    """

    similarity: float
    opening: float
    covered: float
    covered_most: float
    lost: float
    lost_most: float
    worst: float
    rare: float
    rare_most: float
    shared: float
    contained: float
    only: float
    only_most: float
    length: float
    shorter: float
    sequence: float
    replaced: float
    added: float
    asking: float
    figures: float
    figures_shared: float
    names: float
    negated: float
    standing: Standing = Standing()
    differences: tuple[Difference, ...] = ()
    same_words: bool = False

    @property
    def veto(self) -> Difference | None:
        """What forbids serving one for the other, however near they are."""
        first = self.differences[0] if self.differences else None
        return first if first is not None and first.severity == "veto" else None

    @property
    def doubted(self) -> bool:
        """Whether a guard objects, however mildly, that knows what it speaks of: a number, a name, a direction."""
        return any(difference.guard not in LOOSE for difference in self.differences)


LOOSE: Final = frozenset({"word", "order", "format", "detail"})
"""Guards that speak of words and their places, whatever these mean: hardly a rewording has none of them."""

_MEASURED: Final = Evidence.__struct_fields__[: Evidence.__struct_fields__.index("standing")]
_READ: Final = _MEASURED.index("shared")
SEEN: Final = _MEASURED[1:_READ]
"""What only who reads both texts can tell."""
FEATURES: Final = (*_MEASURED, *Standing.__struct_fields__, *(f"guard:{name}" for name in NAMES))
"""Names of the columns that `row` gives."""


def row(evidence: Evidence) -> list[float]:
    """The evidence as numbers, in the order of FEATURES; of each guard 2 for a veto, 1 for a doubt, 0 for nothing."""
    objections = dict.fromkeys(NAMES, 0.0)
    for difference in evidence.differences:
        weight = 2.0 if difference.severity == "veto" else 1.0
        objections[difference.guard] = max(objections[difference.guard], weight)
    measured = [getattr(evidence, name) for name in _MEASURED]
    standing = evidence.standing
    return [*measured, standing.margin, standing.kin, standing.kins, *objections.values()]


def seen_as(numbers: Sequence[float], seen: Sequence[float]) -> list[float]:
    """A `row` as it were if who read both texts had seen this: a value for each of SEEN."""
    return [numbers[0], *seen, *numbers[_READ:]]


class Wording(msgspec.Struct, frozen=True, gc=False):
    """What two texts' words tell: the fields of Evidence from `shared` to `negated`, what the guards object, and whether the words
    are the same."""

    measured: Sequence[float]
    differences: tuple[Difference, ...]
    same: bool


def wording(one: str, other: str) -> Wording:
    """Compare two texts by their words."""
    mine, theirs = _words(one), _words(other)
    return Wording(_of_words(mine, theirs), differences(one, other), mine.plain == theirs.plain)


def gather(
    one: Reading,
    other: Reading,
    rarity: Any,
    standing: Standing = Standing(),  # noqa: B008  # a frozen value
    words: Wording | None = None,
) -> Evidence:
    """All evidence about two texts. `rarity` is the reader's, shape (V,); `words` is their `wording`, where it is known already."""
    similarity, *seen = _of_vectors(one, other, rarity)
    return supposed(similarity, seen, words or wording(one.text, other.text), standing)


def supposed(similarity: float, seen: Sequence[float], words: Wording, standing: Standing) -> Evidence:
    """The evidence about two texts if who read them saw this: `seen` has a value for each of SEEN."""
    same = words.same and not words.differences
    fields: tuple[Any, ...] = (similarity, *seen, *words.measured, standing, words.differences, same)
    return Evidence(*fields)


def _of_vectors(one: Reading, other: Reading, rarity: Any) -> Sequence[float]:
    """From `similarity` to `rare_most`; a text without a single piece has no partners."""
    similarity = float(one.vector @ other.vector)
    opening = float(one.opening @ other.opening)
    if not len(one.pieces) or not len(other.pieces):
        return similarity, opening, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0
    mine, theirs = one.tokens.astype(np.float32), other.tokens.astype(np.float32)
    partners = mine @ theirs.T
    near = partners.max(1), partners.max(0)
    covered, lost, rare = zip(
        _covered(near[0], mine, one, rarity), _covered(near[1], theirs, other, rarity), strict=True
    )
    worst = float(min(near[0].min(), near[1].min()))
    return similarity, opening, min(covered), max(covered), min(lost), max(lost), worst, min(rare), max(rare)


def _covered(near: Any, tokens: Any, reading: Reading, rarity: Any) -> tuple[float, float, float]:
    """How well one side's pieces are covered by their partners. A piece weighs as much as it shapes the whole text's vector."""
    weights = np.maximum(tokens @ reading.vector, 0.0)
    weights /= max(float(weights.sum()), 1e-9)
    lacking = 1.0 - near
    heaviest = float((lacking * weights).max()) * math.sqrt(len(near))
    rarest = float((lacking * rarity[list(reading.pieces)]).max())
    return float(near @ weights), heaviest, rarest


class _Words(msgspec.Struct, frozen=True, gc=False):
    """A text's words in small letters, those that say something, its numbers and its capitalised words; and the whole of it without
    what only writing needs. Other signs may be what it is about: "5 - 3", "a < b"."""

    plain: str
    sequence: tuple[str, ...]
    all: frozenset[str]
    weight: float
    figures: frozenset[str]
    names: frozenset[str]
    asking: str
    negated: bool


@functools.lru_cache(maxsize=2_048)
def _words(text: str) -> _Words:
    found = _WORD.findall(text)[: 4 * _MOST_WORDS]
    sequence = tuple(word.lower() for word in found)
    return _Words(
        " ".join(_MARK.sub("", text.rstrip(_END)).casefold().split()),
        sequence,
        frozenset(sequence),
        _weight(frozenset(sequence)),
        frozenset(word for word in sequence if word.isdigit()),
        frozenset(word.lower() for word in found[1:] if word[0].isupper()),
        next((word for word in sequence if word in _ASKING), ""),
        any(word in ("not", "no", "never", "without") or word.endswith(("n't", "n’t")) for word in sequence),
    )


def _weight(words: frozenset[str]) -> float:
    return len(words) - (1.0 - _LIGHT) * len(words & _EMPTY)


def _of_words(one: _Words, other: _Words) -> Sequence[float]:
    """From `shared` to `negated`."""
    common = _weight(one.all & other.all)
    either = max(one.weight + other.weight - common, 1e-9)
    only = sorted((one.weight - common, other.weight - common))
    lengths = sorted((len(one.sequence), len(other.sequence)))
    first, second = sorted((one.sequence[:_MOST_WORDS], other.sequence[:_MOST_WORDS]))
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    parts = [tag for tag, *_ in matcher.get_opcodes() if tag != "equal"]
    replaced = sum(tag == "replace" for tag in parts)
    return (
        common / either,
        common / max(min(one.weight, other.weight), 1e-9),
        *only,
        lengths[0] / max(lengths[1], 1),
        float(lengths[0]),
        matcher.ratio(),
        float(replaced),
        float(len(parts) - replaced),
        float(one.asking == other.asking),
        float(len(one.figures ^ other.figures)),
        float(len(one.figures & other.figures)),
        float(len(one.names - other.all) + len(other.names - one.all)),
        float(one.negated != other.negated),
    )
