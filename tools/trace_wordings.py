"""Turns one written question into the many ways in which people type it.

Invariant: an edit never touches a number, a product name, a negation or the order of two things, so the
meaning, and with it the answer label, stays what it was.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

_OPENINGS = (
    "Hi! ",
    "Hello. ",
    "Hey! ",
    "Quick question: ",
    "Sorry to bother you. ",
    "Good morning. ",
    "Hi there. ",
)
_CLOSINGS = (" Thanks!", " Thank you.", " Many thanks", " Cheers!", " Thanks in advance.")
_CONTRACTED = (
    ("What is ", "What's "),
    ("Where is ", "Where's "),
    ("I would like", "I'd like"),
    ("I am ", "I'm "),
    ("I cannot ", "I can't "),
    (" do not ", " don't "),
    (" does not ", " doesn't "),
)
_OTHER_WORDS = (
    ("How do I ", "How can I "),
    ("How do I ", "How would I "),
    ("How do I ", "How to "),
    ("How can I ", "How do I "),
    ("Where do I ", "Where can I "),
    ("Where can I ", "Where do I "),
    ("Can I ", "Could I "),
    ("Can I ", "May I "),
    ("Do you offer ", "Do you have "),
    ("I want to ", "I would like to "),
    ("Is there ", "Do you know if there is "),
    ("How much is ", "What's the price of "),
    (" choose ", " pick "),
    (" parcel", " package"),
    (" luggage", " baggage"),
    (" fee?", " charge?"),
    (" find ", " locate "),
)
_PLAIN_WORD = re.compile(r"\b[a-z]{6,}\b")
# Words that tell one side of a look-alike from another.
_NEVER_MISTYPED = re.compile(
    r"with(out)?$|before$|able$|activ|freeze|block|load$|grade$|month|year|refund|euros|dollars|pounds|debit"
    r"|credit|coming|outgoing|medium|product|staging|develop|voucher|points|fleece|savings|current|arrival"
    r"|departure|women|receive|airport|taxable"
)


class Draw:
    """Chooses with a seed; built on `random()` alone, whose sequence is the same in every Python version."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random.random() < probability

    def below(self, limit: float) -> float:
        """A number from zero up to, but without, `limit`."""
        return self._random.random() * limit

    def one(self, items: Sequence[T]) -> T:
        """One of the items, each equally likely."""
        return items[int(self.below(len(items)))]

    def ranked(self, items: Sequence[T], slope: float) -> T:
        """One of the items; the n-th is chosen with a weight of n ** -slope (Zipf)."""
        weights = [rank**-slope for rank in range(1, len(items) + 1)]
        left = self.below(sum(weights))
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        return items[-1]


def same_words(text: str) -> str:
    """The words alone: case, spaces and marks make no difference; numbers and their signs do."""
    return " ".join(re.findall(r"[\w€$£+\-.,]*\w", text.casefold()))


def reword(draw: Draw, text: str) -> str:
    """The question with one or two slips or courtesies; now and then it comes back unchanged."""
    for _ in range(1 if draw.chance(0.65) else 2):
        text = draw.one(_EDITS)(draw, text)
    return text


def greet(draw: Draw, text: str) -> str:
    """The question after a greeting or with thanks, letters untouched: for long prompts that contain code."""
    if draw.chance(0.5):
        return draw.one(_OPENINGS) + text
    return f"{text}\n\n{draw.one(_CLOSINGS).strip()}"


def _open(draw: Draw, text: str) -> str:
    return text if text.startswith((*_OPENINGS, "Please tell")) else draw.one(_OPENINGS) + text


def _close(draw: Draw, text: str) -> str:
    if text.endswith(_CLOSINGS):
        return text
    return (text if text.endswith(("?", "!", ".")) else text + ".") + draw.one(_CLOSINGS)


def _lower(_: Draw, text: str) -> str:
    return text.lower().rstrip("?!.")


def _marks(draw: Draw, text: str) -> str:
    if text.endswith(_CLOSINGS):
        return text
    return text.rstrip("?.! ") + draw.one(("??", "", " ?", "?!", "...", "???"))


def _please(draw: Draw, text: str) -> str:
    if not text.endswith("?") or "lease" in text or text.startswith(_OPENINGS):
        return text
    return text.rstrip("?") + " please?" if draw.chance(0.5) else f"Please tell me: {text}"


def _contract(draw: Draw, text: str) -> str:
    pairs = _CONTRACTED + tuple((short, full) for full, short in _CONTRACTED)
    return _replace(draw, text, pairs)


def _other_word(draw: Draw, text: str) -> str:
    return _replace(draw, text, _OTHER_WORDS)


def _replace(draw: Draw, text: str, pairs: Sequence[tuple[str, str]]) -> str:
    fitting = [pair for pair in pairs if pair[0] in text]
    if not fitting:
        return text
    old, new = draw.one(fitting)
    return text.replace(old, new, 1)


def _mistype(draw: Draw, text: str) -> str:
    words = [found for found in _PLAIN_WORD.finditer(text) if not _NEVER_MISTYPED.search(found.group())]
    if not words:
        return text
    word = draw.one(words)
    at = word.start() + 1 + int(draw.below(len(word.group()) - 2))
    if draw.chance(0.5):
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


_EDITS: tuple[Callable[[Draw, str], str], ...] = (
    _open,
    _close,
    _lower,
    _lower,
    _marks,
    _please,
    _contract,
    _other_word,
    _other_word,
    _mistype,
)
