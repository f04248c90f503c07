"""Guards: what two questions must share, however near their vectors are.

Embeddings hardly see numbers, negation or word order: "refund after 14 days" and "after 30 days", "from Lisbon to Berlin" and "from
Berlin to Lisbon" lie nearer than most true rewordings. Each guard compares one such thing as what it is, and has a name that
says why an answer was not served. They are written for English; in other languages the numbers still count.

    number       the same numbers, in digits or small words, and the same months and weekdays
    currency     the same currencies
    negation     both negated or both not
    alternative  of a few words that exclude each other (on and off, before and after, who and when) the same ones
    length       few enough content words to compare them one by one
    order        the content words and numbers that both have come in the same order
    word         not each has a content word that the other lacks (a slip of one letter is no other word), and no single
                 letter, which names a thing ("vitamin C"), stands in one alone

Every pattern is read from left to right without going back, and what is compared pairwise is bounded by `MOST`, so the time is
linear in the length of the texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST = 100
"""Content words that are compared with each other; two longer texts are never taken for the same question."""

_NUMBER = re.compile(r"(?:(?<![\w.])[+-])?\d+(?:[.,:/-]\d+)*")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W_]+)*(?:\+\+|#)?")
_TOKEN = re.compile(f"{_NUMBER.pattern}|{_WORD.pattern}")
_CURRENCY = re.compile(
    r"[$€£¥₹₽₩]|\b(?:usd|eur|gbp|jpy|inr|chf|cad|aud|cny|sek|nok|dkk|pln|dollars?|euros?|pounds?|yen|rupees?|francs?)\b",
    re.IGNORECASE,
)
_CODES = {
    "$": "usd", "dollar": "usd", "dollars": "usd", "€": "eur", "euro": "eur", "euros": "eur", "£": "gbp", "pound": "gbp",
    "pounds": "gbp", "¥": "jpy", "yen": "jpy", "₹": "inr", "rupee": "inr", "rupees": "inr", "franc": "chf", "francs": "chf",
    "₽": "rub", "₩": "krw",
}  # fmt: skip
_SMALL = (
    "zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_VALUES = {word: str(value) for value, word in zip((0, *range(2, 21)), _SMALL.split(), strict=True)} | {
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
    "hundred": "100", "thousand": "1000", "million": "1000000", "once": "1x", "twice": "2x", "half": "1/2",
}  # fmt: skip
_MONTHS = frozenset(
    "january february march april june july august september october november december "
    "monday tuesday wednesday thursday friday saturday sunday".split()
)
_NEGATIVE = frozenset(
    "not no without except never cannot nor neither none excluding unless dont doesnt didnt cant couldnt wont wouldnt isnt "
    "arent wasnt werent havent hasnt shouldnt".split()
)
_ALTERNATIVES = tuple(
    frozenset(group.split())
    for group in (
        "on off",
        "in out",
        "before after",
        "above below",
        "over under",
        "am pm",
        "morning afternoon evening",
        "who when where why",
    )
)
"""Words that other guards do not see, because they are otherwise empty, or because only the order of them is looked at."""
_GREETING = re.compile(r"\bgood (?:morning|afternoon|evening)\b")
_EMPTY = frozenset(
    "a an the i i'm i'd i've to of for my your our you me we us do does did is are was be been am can could may might "
    "would will shall should how what what's where where's which when who why please hi hello hey there thanks thank "
    "many cheers good morning afternoon evening u r n quick question sorry bother tell know need want like in on at it its "
    "it's that this these those and or have has get got just so any some about with by as if let's help find "
    "explain out also".split()
)
_DIRECTIONAL = frozenset(
    {"to", "from", "before", "after", "into", "over", "under", "above", "below", "than", "versus", "vs"}
)
_SLIP = 5
"""Words of at least so many letters are the same when one slip of the keyboard tells them apart."""


def differing(one: str, other: str) -> str | None:
    """Name the first guard that tells the two apart, or None when none does."""
    if numbers(one) != numbers(other):
        return "number"
    if currencies(one) != currencies(other):
        return "currency"
    words, others = _words(one), _words(other)
    if _negated(words) != _negated(others):
        return "negation"
    if _chosen(words, others):
        return "alternative"
    content, others_content = _content(one), _content(other)
    if max(len(content), len(others_content)) > MOST:
        return "length"
    if not _same_order(content, others_content):
        return "order"
    if _letters(content) != _letters(others_content):
        return "word"
    if _lacks(content, others_content) and _lacks(others_content, content):
        return "word"
    return None


def numbers(text: str) -> list[str]:
    """All numbers of a text and the months and weekdays it names, sorted; "1,000" is 1000, "two" is 2."""
    found = [_plain(match) for match in _NUMBER.findall(text)]
    for word in _words(text):
        if word in _VALUES:
            found.append(_VALUES[word])
        elif word in _MONTHS:
            found.append(word)
    return sorted(found)


def currencies(text: str) -> frozenset[str]:
    """The currencies that a text names, by code."""
    named = (match.lower() for match in _CURRENCY.findall(text))
    return frozenset(_CODES.get(name, name) for name in named)


def _words(text: str) -> list[str]:
    return _WORD.findall(_lower(text))


def _lower(text: str) -> str:
    return _GREETING.sub(" ", text.lower().replace("’", "'"))


def _plain(number: str) -> str:
    return number.replace(",", "") if _GROUPED.fullmatch(number) else number


def _negated(words: Sequence[str]) -> bool:
    """Whether the negations of a text leave one standing: two cancel each other."""
    return sum(map(_negates, words)) % 2 == 1


def _negates(word: str) -> bool:
    return word in _NEGATIVE or word.endswith("n't") or word.startswith("non-")


def _chosen(words: Sequence[str], others: Sequence[str]) -> bool:
    """Whether both name some of one group of alternatives, and not the same."""
    named, others_named = set(words), set(others)
    return any(
        (mine := group & named) and (theirs := group & others_named) and mine != theirs for group in _ALTERNATIVES
    )


def _content(text: str) -> list[str]:
    """The words that carry the meaning and the numbers, each once, in order of their first use."""
    tokens = map(_meaning, _TOKEN.findall(_lower(text)))
    return list(dict.fromkeys(token for token in tokens if token not in _EMPTY or token in _DIRECTIONAL))


def _meaning(token: str) -> str:
    """One form for each number, and one for all words that say no."""
    if _negates(token) and not token.startswith("non-"):
        return "not"
    return _VALUES.get(token) or _plain(token)


def _letters(content: Sequence[str]) -> set[str]:
    return {word for word in content if len(word) == 1 and word.isalpha()}


def _same_order(one: Sequence[str], other: Sequence[str]) -> bool:
    shared = set(one) & set(other)
    return [word for word in one if word in shared] == [word for word in other if word in shared]


def _lacks(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether `one` has a word that has no counterpart in `other`; words of direction are the order's business.

    A word that both have is nobody's counterpart: "share" is no slip for the "shared" that stands in both.
    """
    left = set(other) - set(one)
    return any(
        word not in _DIRECTIONAL and not any(_slip(word, candidate) for candidate in left)
        for word in set(one) - set(other)
    )


def _slip(one: str, other: str) -> bool:
    """Whether two words are one edit apart: a letter changed, added, lost, or two neighbours swapped; or only a plural s.

    In a word with a hyphen only the hyphen may be missing: "USB-A" and "USB-C" are no slip.
    """
    if f"{one}s" == other or f"{other}s" == one:
        return True
    if "-" in one or "-" in other:
        return one.replace("-", "") == other.replace("-", "")
    if min(len(one), len(other)) < _SLIP or abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    rest, others = one[start:], other[start:]
    if len(rest) == len(others):
        return rest[1:] == others[1:] or (rest[:2] == others[1::-1] and rest[2:] == others[2:])
    shorter, longer = sorted((rest, others), key=len)
    return longer[1:] == shorter
