"""A text as the guards compare it: typed tokens in the order in which they stand.

Invariant: two tokens have the same key exactly when they are the same for every guard, and reading is linear in the length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import msgspec

from headgate.cache.guards.lexicon import CONTENT, EMPTY, LIGHT, Word, lexicon, word
from headgate.cache.guards.pieces import Piece, folded, pieces
from headgate.cache.guards.values import (
    CURRENCIES,
    MULTIPLES,
    MULTIPLIERS,
    ORDINALS,
    PARTS,
    ROMAN,
    SMALL,
    UNITS,
    plain,
    spelled,
    times,
)

REMEMBERED: Final = 512
"""Characters of the longest text that is kept once it is read, and how many such texts are."""

_QUOTED = re.compile(r"[\"“”«»„](?=\S)([^\"“”«»„]{1,200})[\"“”«»„]|`([^`]{1,200})`")
_SHOUTED = {"us": "usa", "it": "it^", "who": "who^"}
"""Words that mean something else in capitals."""
_BEFORE_TONGUES = frozenset({"in", "into", "to", "speak", "learn", "learning", "from"})
_BEFORE_SECONDS = frozenset({"per", "a", "one", "each", "every", "any", "few"})


class Token(msgspec.Struct, frozen=True, gc=False):
    """One thing of a text.

    `kind` is "word", "number", or one of the kinds that are written for machines, such as "url"; `capital` says that it is written
    with a capital where that tells something; `unit` is a number's; `about` is what is known of a word.
    """

    key: str
    kind: str
    weight: int
    capital: bool = False
    sentence: int = 0
    about: Word | None = None
    unit: str = ""

    @property
    def named(self) -> bool:
        """Whether it is a proper name, by its capital or because it is known as one."""
        return self.capital or (self.about is not None and self.about.name)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of which kinds it is one."""
        return self.about.kinds if self.about else ()


class Parsed(msgspec.Struct, frozen=True, gc=False):
    """A text: its tokens, their keys, what it puts in quotation marks, how many numbers it has, and whether it names an amount."""

    tokens: tuple[Token, ...]
    keys: tuple[str, ...]
    quoted: frozenset[str]
    numbers: int
    amount: bool


def parsed(text: str) -> Parsed:
    """Read a text. Short ones are remembered, because one question meets several candidates."""
    return _remembered(text) if len(text) <= REMEMBERED else _read(text)


def _read(text: str) -> Parsed:
    text = folded(text)
    tokens = tuple(_tokens(pieces(text)))
    quoted = (first or second for first, second in _QUOTED.findall(text))
    keys = tuple([token.key for token in tokens])
    return Parsed(
        tokens,
        keys,
        frozenset(filter(None, (part.strip(" .,;:!?").lower() for part in quoted))),
        sum([token.kind == "number" for token in tokens]),
        not lexicon().amounts.isdisjoint(keys),
    )


_remembered = lru_cache(maxsize=REMEMBERED)(_read)


def _tokens(found: list[Piece]) -> Iterator[Token]:
    """Numbers with what belongs to them, phrases as one, words by their keys."""
    capitals = _capitals_tell(found)
    words = [piece.lower for piece in found]
    at = 0
    while at < len(found):
        piece = found[at]
        if piece.kind == "word":
            token, at = _word(found, words, at, capitals=capitals)
        elif piece.kind in {"number", "ratio"}:
            token, at = _number(piece.text, piece, words, at + 1)
        elif piece.kind in {"mark", "mixed"}:
            about = word(piece.lower)
            token = Token(
                about.key, "word" if piece.kind == "mark" else "mixed", about.weight, False, piece.sentence, about
            )
            at += 1
        else:
            token = Token(f"{piece.kind}:{piece.lower}", piece.kind, CONTENT, False, piece.sentence)
            at += 1
        yield token


def _word(found: list[Piece], words: list[str], at: int, *, capitals: bool) -> tuple[Token, int]:
    """The token that begins with a word, and where the next one begins."""
    piece, lower = found[at], words[at]
    if lower in _NUMERIC and (counted := _counted(piece, words, at)):
        return counted
    upper = piece.text[1:] != lower[1:] or (not piece.first and piece.text[:1] != lower[:1])
    capital = capitals and upper and lower != "i"
    end = _phrase(words, at)
    if end > at + 1:
        about = word(" ".join(words[at:end]))
    elif capitals and lower in _SHOUTED and piece.text[1:].isupper():
        about = word(_SHOUTED[lower])
    elif at and lower in lexicon().tongues and words[at - 1] in _BEFORE_TONGUES:
        about = word(f"{lower} language")
    elif lower == "may" and _dated(words, at):
        about = word("the month may")
    else:
        about = word(lower)
    return Token(about.key, "word", about.weight, capital, piece.sentence, about), end


def _dated(words: list[str], at: int) -> bool:
    """Whether a number stands before or behind, as in "2 May" and "May 2nd"."""
    beside = (*words[max(at - 1, 0) : at], *words[at + 1 : at + 2])
    return any(one[:1].isdigit() for one in beside)


def _phrase(words: list[str], at: int) -> int:
    """Where the longest known phrase that begins here ends: after one word when there is none."""
    for tail in lexicon().phrases.get(words[at], ()):
        end = at + 1 + len(tail)
        if tuple(words[at + 1 : end]) == tail:
            return end
    return at + 1


_NUMERIC = frozenset({*SMALL, *MULTIPLES, *ORDINALS, *PARTS, *MULTIPLIERS, *ROMAN, "second"}) - {"k"}


def _counted(piece: Piece, words: list[str], at: int) -> tuple[Token, int] | None:
    """The number that a word begins: "twenty-five", "a third of", "first", "twice"; None where it only looks like one."""
    lower = words[at]
    following = words[at + 1] if at + 1 < len(words) else ""
    if lower == "one" and following in PARTS:
        return _numeric(f"1/{PARTS[following]}", piece), at + 2
    if lower in PARTS and following == "of":
        return _numeric(f"1/{PARTS[lower]}", piece), at + 1
    if lower in SMALL or lower in MULTIPLES:
        value, end = spelled(words, at)
        return _number(value, piece, words, end) if end > at else None
    if lower == "second" and not (at and (words[at - 1] in _BEFORE_SECONDS or words[at - 1][-1:].isdigit())):
        return _numeric("2th", piece), at + 1
    if lower in ORDINALS:
        return _numeric(f"{ORDINALS[lower]}th", piece), at + 1
    named = MULTIPLIERS.get(lower) or ROMAN.get(lower)
    return (_numeric(named, piece), at + 1) if named else None


def _numeric(value: str, piece: Piece, unit: str = "") -> Token:
    return Token(f"#{value}", "number", CONTENT, False, piece.sentence, None, unit)


def _number(text: str, piece: Piece, words: list[str], at: int) -> tuple[Token, int]:
    """A number with the parts, multiples and the unit that follow from `words[at]` on, and where the next token begins."""
    unit = CURRENCIES.get(text.lstrip("+-")[:1], "")
    value = text if piece.kind == "ratio" else plain(text)
    suffix = piece.suffix
    following = words[at] if at < len(words) else ""
    if suffix in MULTIPLES:
        value = times(value, MULTIPLES[suffix])
    elif suffix in UNITS:
        unit = UNITS[suffix]
    elif suffix:
        value += "th" if suffix in {"st", "nd", "rd"} else suffix
    elif following in MULTIPLES and len(following) > 1:
        value, at = times(value, MULTIPLES[following]), at + 1
    elif following in PARTS and "/" not in value and (value == "1") != following.endswith("s"):
        value, at = f"{value}/{PARTS[following]}", at + 1
    following = words[at] if at < len(words) else ""
    if not unit and not suffix and following in UNITS:
        unit = UNITS[following]
    return _numeric(value, piece, unit), at


def _capitals_tell(found: list[Piece]) -> bool:
    """Whether capitals mean something: not in a text that is all capitals, or that begins every word with one."""
    rest = [piece for piece in found if piece.kind == "word" and not piece.first]
    if not any(piece.text[:1].islower() for piece in rest):
        return len(rest) < 2
    telling = [piece for piece in rest if word(piece.lower).weight not in {EMPTY, LIGHT}]
    upper = sum(piece.text[:1].isupper() for piece in telling)
    return len(telling) < 5 or upper < 0.8 * len(telling)
