"""BERT's uncased WordPiece tokeniser: text to the token ids that all-MiniLM-L6-v2 was trained on.

The one invariant: the ids equal those of the `BertNormalizer` + `BertPreTokenizer` + `WordPiece` pipeline that the
model ships with, and the work done for one text is bounded whatever its length. Algorithm: greedy longest match
first (Wu et al., 2016, "Google's Neural Machine Translation System", section 4.1; cleaning as in Devlin et al., 2018).
Classes of characters are those of Python's own Unicode tables; a mark added to Unicode in recent years may fall in
another class than in the tables of another implementation (it is an unknown piece in both).
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NORMALISER_VERSION: Final = "wp1"
"""Part of an embedder's identity: raise it when any text may come out as other ids than before."""

MAX_PIECES: Final = 128
"""Longest sequence that is produced, the two sentinels included; the rest of the text is not seen."""

MAX_CHARACTERS: Final = 2048
"""Characters looked at after leading blanks: far more than 128 pieces of any written language need."""

_LONGEST_WORD: Final = 100
_MEMO_WORDS: Final = 16_384
_MEMO_LONGEST: Final = 32

_BLANKS: Final = "\t\n\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_WORD: Final = re.compile(f"[^{_BLANKS}]+")
_BLANK_RUN: Final = re.compile(f"[{_BLANKS}]*")
_SPECIAL: Final = re.compile(r"(\[(?:PAD|UNK|CLS|SEP|MASK)\])")
_ASCII_PARTS: Final = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_CJK: Final = re.compile(
    "([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df"
    "\U0002a700-\U0002b81f\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f])"
)
_REMOVED: Final = frozenset({"Cc", "Cf", "Co", "Cs"})


class WordPiece:
    """A vocabulary and its tokeniser. Pure apart from a bounded memo of words already split."""

    def __init__(self, vocabulary: Iterable[str]) -> None:
        """Take the pieces in the order of their ids. KeyError when a sentinel is missing."""
        self._ids = {piece: number for number, piece in enumerate(vocabulary)}
        self._longest = max(map(len, self._ids))
        self._start, self._end, self.unknown = self._ids["[CLS]"], self._ids["[SEP]"], self._ids["[UNK]"]
        self._memo: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids with both sentinels, at most MAX_PIECES of them. Raises nothing, whatever the text."""
        return self._read(text)[0]

    def fits(self, text: str) -> bool:
        """True when the ids stand for the whole text: nothing cut off, no piece unknown.

        Where this is false two texts that differ may have the same ids.
        """
        ids, whole = self._read(text)
        return whole and self.unknown not in ids

    def _read(self, text: str) -> tuple[tuple[int, ...], bool]:
        begin = _BLANK_RUN.match(text).end()  # type: ignore[union-attr]  # the pattern matches the empty string
        seen = text[begin : begin + MAX_CHARACTERS]
        ids = [self._start]
        for word in _WORD.finditer(seen):
            ids.extend(self._word(word[0]))
            if len(ids) >= MAX_PIECES:
                break
        whole = len(ids) < MAX_PIECES and len(text) <= begin + MAX_CHARACTERS
        return (*ids[: MAX_PIECES - 1], self._end), whole

    def _word(self, raw: str) -> tuple[int, ...]:
        known = self._memo.get(raw)
        if known is not None:
            return known
        ids = tuple(piece for part in self._parts(raw) for piece in self._split(part))
        if len(raw) <= _MEMO_LONGEST:
            if len(self._memo) >= _MEMO_WORDS:
                self._memo.clear()
            self._memo[raw] = ids
        return ids

    def _parts(self, raw: str) -> Iterator[str]:
        """Sentinels written out in the text, then words and punctuation marks in their normal form."""
        for position, piece in enumerate(_SPECIAL.split(raw)):
            if position % 2:
                yield piece
            elif piece.isascii():
                yield from _ASCII_PARTS.findall(_without_controls(piece).lower())
            else:
                yield from _unicode_parts(piece)

    def _split(self, part: str) -> list[int]:
        """Greedy longest match; the whole part is one unknown piece when any of it has no match."""
        whole = self._ids.get(part)
        if whole is not None:
            return [whole]
        if len(part) > _LONGEST_WORD:
            return [self.unknown]
        ids, begin = [], 0
        while begin < len(part):
            prefix = "##" if begin else ""
            for end in range(min(len(part), begin + self._longest), begin, -1):
                number = self._ids.get(prefix + part[begin:end])
                if number is not None:
                    break
            else:
                return [self.unknown]
            ids.append(number)
            begin = end
        return ids


def _without_controls(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c for c in text if unicodedata.category(c) not in _REMOVED)


def _unicode_parts(text: str) -> Iterator[str]:
    """Clean, space out CJK, decompose and drop accents, lower-case one character at a time, cut at punctuation.

    `str.lower` on a whole word would apply the rule of the final sigma, which the model's own tokeniser does not.
    """
    spaced = _CJK.sub(r" \1 ", _without_controls(text.replace("\ufffd", "")))
    bare = (c for c in unicodedata.normalize("NFD", spaced) if unicodedata.category(c) != "Mn")
    lowered = "".join(c.lower() for c in bare)
    cut = "".join(f" {c} " if _is_punctuation(c) else c for c in lowered)
    return iter(cut.split())


def _is_punctuation(character: str) -> bool:
    if character.isascii():
        return not character.isalnum() and character != " "
    return unicodedata.category(character).startswith("P")
