"""What is known about words: which are empty, which negate, which exclude each other, which are proper names.

Invariant: every form of a word has one key, and two words have the same key only if a question may have either.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import resources
from typing import Final

import msgspec

EMPTY: Final = 0
LIGHT: Final = 1
CONTENT: Final = 2


class Word(msgspec.Struct, frozen=True, gc=False):
    """One word as the guards see it.

    `key` is the same for all its forms and names; `weight` is EMPTY, LIGHT (says little alone, as "need") or CONTENT; `kinds` are the
    kinds of which it is one, as "colour"; `opposites` are keys that exclude it; `name` says that it is a known proper name.
    """

    key: str
    weight: int
    kinds: tuple[str, ...] = ()
    opposites: frozenset[str] = frozenset()
    negates: bool = False
    name: bool = False


class Lexicon:
    """Both word lists, read once. Pure once made."""

    def __init__(self, words: str, names: str) -> None:
        """`words` and `names` are the texts of the two files; each says its format at its top."""
        self._keys: dict[str, str] = {}
        self._bases: dict[str, str] = {}
        self._kinds: dict[str, tuple[str, ...]] = {}
        self._opposites: dict[str, frozenset[str]] = {}
        self._names: set[str] = set()
        self.tongues: set[str] = set()
        self.phrases: dict[str, tuple[tuple[str, ...], ...]] = {}
        listed = dict(_sections(words))
        self._empty = frozenset(listed.pop("empty"))
        self._light = frozenset(listed.pop("light"))
        self._negative = frozenset(listed.pop("negative"))
        for phrase in self._empty:
            self._phrase(phrase)
        opposite = listed.pop("opposite")
        same = listed.pop("same")
        amounts = listed.pop("amount")
        for kind, entries in _sections(names):
            self._add(kind, entries, name=True)
        self._add("", same, name=False)
        for kind, entries in listed.items():
            self._add(kind.removeprefix("kind "), entries, name=False)
        self.amounts = frozenset(map(self.key, amounts))
        for entry in opposite:
            self._oppose([[self.word(word.strip()).key for word in side.split(",")] for side in entry.split("/")])

    def word(self, lower: str) -> Word:
        """All that is known about a word, or a phrase with single blanks, in lower case."""
        negates = lower in self._negative or lower.endswith("n't")
        key = "not" if negates else self.key(lower)
        weight = EMPTY if lower in self._empty else LIGHT if lower in self._light else CONTENT
        opposites = self._opposites.get(key, frozenset())
        return Word(key, weight, self._kinds.get(key, ()), opposites, negates, key in self._names)

    def key(self, lower: str) -> str:
        """One form for all forms of a word."""
        found = self._keys.get(lower) or self._keys.get(lower.removesuffix("s"))
        if found is not None:
            return found
        if lower in self._empty or lower in self._light:
            return lower
        base = stem(lower)
        return self._bases.get(base, base)

    def _add(self, kind: str, entries: list[str], *, name: bool) -> None:
        for entry in entries:
            first, _, rest = entry.partition(" = ")
            # A word of several kinds keeps the key that it had first, with its other names.
            key = self._keys.get(first) or (first if name or " " in first else stem(first))
            for form in (first, *filter(None, rest.split(", "))):
                self._keys.setdefault(form, key)
                self._phrase(form)
            if not name:
                self._bases.setdefault(stem(first), key)
            if kind and kind not in self._kinds.get(key, ()):
                self._kinds[key] = (*self._kinds.get(key, ()), kind)
            if first.endswith(" language"):
                self.tongues.add(first.removesuffix(" language"))
            if name:
                self._names.add(key)

    def _phrase(self, form: str) -> None:
        """Remember a form of several words; of those that begin alike the longest comes first."""
        head, *tail = form.split()
        if tail:
            known = {*self.phrases.get(head, ()), tuple(tail)}
            self.phrases[head] = tuple(sorted(known, key=len, reverse=True))

    def _oppose(self, sides: list[list[str]]) -> None:
        for here, side in enumerate(sides):
            others = {word for there, words in enumerate(sides) if there != here for word in words}
            for word in side:
                self._opposites[word] = self._opposites.get(word, frozenset()) | (others - {word})


@cache
def lexicon() -> Lexicon:
    """The shipped lists; read at the first question, not when the package is imported."""
    folder = resources.files(__package__)
    return Lexicon(folder.joinpath("words.txt").read_text("utf-8"), folder.joinpath("names.txt").read_text("utf-8"))


@lru_cache(maxsize=16_384)
def word(lower: str) -> Word:
    """As `Lexicon.word`, remembered: most questions have the same few thousand words."""
    return lexicon().word(lower)


def stem(lower: str) -> str:
    """A word without the commonest endings. Crude on purpose: what two forms of a word share, not a word."""
    if len(lower) <= 3 or not lower.isascii():
        return lower
    base = lower
    if base.endswith("ies") and len(base) > 4:
        base = base[:-2]
    elif base.endswith(("sses", "shes", "ches", "xes", "zes")):
        base = base[:-2]
    elif base.endswith("s") and not base.endswith(("ss", "us", "is")):
        base = base[:-1]
    for ending in ("ing", "ed"):
        if base.endswith(ending) and len(base) - len(ending) >= 3 and _has_vowel(base[: -len(ending)]):
            base = base.removesuffix(ending)
            if base[-1] == base[-2] and base[-1] not in "lsz":
                base = base[:-1]
            break
    if base.endswith("e") and len(base) > 3:
        base = base[:-1]
    return base[:-1] + "i" if base.endswith("y") and len(base) > 3 else base


def _has_vowel(letters: str) -> bool:
    return any(vowel in letters for vowel in "aeiouy")


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """The sections of a list: their names and their entries."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for section in "\n".join(lines).split("[")[1:]:
        title, _, body = section.partition("]")
        yield title, [entry for entry in (" ".join(part.split()) for part in body.split(";")) if entry]
