"""A text cut into pieces: words, numbers, and whatever is written for machines.

Invariant: linear in the length of the text. It is split at blanks first; no pattern sees more than one part between blanks, and a
part longer than `PART` is taken whole.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import msgspec

PART: Final = 200
"""Characters."""

PIECE: Final = re.compile(
    r"(?P<url>(?:https?://|www\.)\S+|[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)*\.(?:com|org|net|edu|gov|io|dev)\b(?:/\S*)?)"
    r"|(?P<email>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)"
    r"|(?P<path>(?:~|\.{1,2})?/\w[\w.-]*/[\w./-]*|[a-z]:\\[\w\\.-]+)"
    r"|(?P<code>\w+(?:\.\w+)*\(\)|[^\W\d_]\w*_\w+|--[a-z][\w-]+)"
    r"|(?P<id>0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{13,}|\#\d+)"
    r"|(?P<date>\d{4}-\d{1,2}-\d{1,2}|\d{1,2}(?:/\d{1,2}/\d{2,4}|\.\d{1,2}\.\d{4})(?!\.?\d))"
    r"|(?P<time>\d{1,2}:\d{2}(?::\d{2})?)"
    r"|(?P<version>v\d+(?:\.\d+)*(?!\w)|\d+(?:\.\d+){2,})"
    r"|(?P<ratio>\d+/\d+(?![\d/]))"
    r"|(?P<number>(?:(?<![\w.])[+-])?[$€£¥₹₽₩]?(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?|(?<!\w)[$€£¥₹₽₩]?\.\d+)"
    r"(?P<suffix>[^\W\d_]{1,8}(?!\w)|%|[$€£¥₹₽₩])?"
    r"|(?P<mixed>[^\W_]*\d[^\W_]*)"
    r"|(?P<word>[^\W\d_]+(?:['.&-][^\W\d_]+)*(?:\+\+|\#)?|\.net\b)"
    r"|(?P<mark>[$€£¥₹₽₩%])",
    re.IGNORECASE,
)
"""Every kind of piece, tried in this order."""

_SCRIPT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
"""Chinese, Japanese and Korean have no blanks: each character is a part."""
_LETTERS_THEN_DIGITS = re.compile(r"([^\W\d_]{3,})(\d\w*)")
_ENDINGS = frozenset({"s", "m", "re", "ve", "ll", "d"})
_AS_ONE = frozenset({"nodejs", "reactjs", "angularjs", "vuejs", "aspnet"})
_ALIKE = {ord("’"): "'", ord("‘"): "'", ord("–"): "-", ord("—"): " ", ord("‑"): "-", ord("−"): "-"}
_OPEN = frozenset({"url", "path", "email"})
_ENDS = ".,;:!?)]}'\""
"""Marks that an address may hold, but not at its end."""


class Piece(msgspec.Struct, gc=False):
    """`text` as it was written, `kind` the group of `PIECE` it is, `suffix` what is glued to a number; `sentence` counts the
    sentences before it, and `first` says that it begins one."""

    text: str
    lower: str
    kind: str
    suffix: str
    sentence: int
    first: bool


def folded(text: str) -> str:
    """The text without accents, and with one form of each apostrophe, dash and width."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKD", text.translate(_ALIKE))
    return unicodedata.normalize("NFC", "".join(letter for letter in text if not "\u0300" <= letter <= "\u036f"))


def pieces(text: str) -> list[Piece]:
    """The pieces of a folded text in order."""
    found: list[Piece] = []
    sentence, first = 0, True
    for part in text.split():
        if part.isascii() and part.isalpha():
            found.append(Piece(part, part.lower(), "word", "", sentence, first))
            first = False
            continue
        before = len(found)
        for piece in (part,) if part.isascii() else _SCRIPT.findall(part):
            _cut(piece, sentence, first, found)
        first = first and len(found) == before
        if part[-1] in ".?!:" or part[-2:-1] in {".", "?", "!"}:
            sentence, first = sentence + (part[-1] != ":"), True
    return found


def _cut(part: str, sentence: int, first: bool, found: list[Piece]) -> None:
    """Append the pieces of what stands between two blanks."""
    if len(part) > PART:
        found.append(Piece(part, part.lower(), "id", "", sentence, first))
        return
    for match in PIECE.finditer(part):
        kind, text = match.lastgroup or "word", match.group()
        glued = _LETTERS_THEN_DIGITS.fullmatch(text) if kind == "mixed" else None
        if kind == "suffix":
            found.append(Piece(match["number"], match["number"], "number", match["suffix"].lower(), sentence, first))
        elif glued:
            _cut(glued[1], sentence, first, found)
            _cut(glued[2], sentence, False, found)
        elif kind == "word":
            for name in _words(text):
                found.append(Piece(name, name.lower(), kind, "", sentence, first))
                first = False
        else:
            lower = text.lower().rstrip(_ENDS) if kind in _OPEN else text.lower()
            found.append(Piece(text, lower, kind, "", sentence, first))
        first = False


def _words(name: str) -> list[str]:
    """A word with marks inside as the words it is: "India's" is India, "twenty-five" two words, "e-mail" and "U.S." one."""
    stem, mark, ending = name.rpartition("'")
    if mark and ending.lower() in _ENDINGS:
        name = stem
    if "." in name:
        parts = [part for part in name.split(".") if part]
        whole = "".join(parts)
        short = max((len(part) for part in parts[:-1]), default=0) <= 2
        return [whole if len(parts) > 1 else name] if short or whole.lower() in _AS_ONE else parts
    if "-" in name:
        parts = name.split("-")
        return ["".join(parts)] if len(parts[0]) == 1 else parts
    return [name]
