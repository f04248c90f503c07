"""Rephrasing: the same question in another dress, to see whether a decision flips that should not.

Four ways, each after what people do: other case, other punctuation, politeness around it, typing errors. Drawn from the text itself,
so the same text is always rephrased in the same way.
"""

from __future__ import annotations

import random
from collections.abc import Callable

_BEFORE = ("Hi, could you please help me with this? ", "Good morning! ", "I have a question: ")
_AFTER = (" Thanks a lot!", " Thank you in advance.", " Please answer carefully, thanks.")
TYPOS = 25
"""Letters on one typing error."""


def cased(text: str) -> str:
    """Without capitals."""
    return text.lower()


def punctuated(text: str) -> str:
    """Without the marks at the ends of sentences, and the last one doubled where there was one."""
    bare = text.rstrip().rstrip("?.!:")
    return bare.replace(". ", ", ").replace("; ", ", ") + ("??" if "?" in text else "")


def polite(text: str) -> str:
    """With a greeting and thanks."""
    chance = random.Random(text)
    return chance.choice(_BEFORE) + text + chance.choice(_AFTER)


def mistyped(text: str) -> str:
    """With neighbouring letters swapped, one pair in every `TYPOS` letters."""
    chance, letters = random.Random(text), list(text)
    for start in range(0, len(letters) - 1, TYPOS):
        at = min(start + chance.randrange(TYPOS), len(letters) - 2)
        if letters[at].isalpha() and letters[at + 1].isalpha():
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
    return "".join(letters)


WAYS: dict[str, Callable[[str], str]] = {
    "case": cased,
    "punctuation": punctuated,
    "politeness": polite,
    "typos": mistyped,
}
