"""Signs of reckoning and comparing, which are no words: "a < b" and "a > b", "5 - 3" and "5 + 3"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from headgate.cache.guards.difference import Difference, difference

_SIGN: Final = re.compile(
    r"(?<=[\w)\]]\s)(?:[<>]=?|[=!]==?|&&|\|\||[+*/^=])(?=\s[\w(\[])|(?<=\d\s)-(?=\s\d)|(?<=\d)[+*/^-](?=\d+(?![\d/-]))|[≤≥≠]"
)
"""Between two operands; a dash only between numbers, for elsewhere it divides a sentence."""


def signs(one: str, other: str) -> Iterator[Difference]:
    """Both have such signs, and not the same. A text without any may have said it in words."""
    mine, theirs = _SIGN.findall(one), _SIGN.findall(other)
    if mine and theirs and mine != theirs:
        yield difference("code", mine, theirs, veto=True)
