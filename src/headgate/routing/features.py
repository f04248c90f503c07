"""Features: what can be seen of a question's difficulty without asking any model.

Each feature is a number from 0 to 1 that a person can check by reading the prompt. Counts stop at a small maximum, so no
single habit of writing decides by itself. At most `HEAD + TAIL` characters of the question are read, so the time does not
grow with the prompt; only its length does count in full.

The word lists are English. `foreign` says that the text is not, and the router then abstains instead of guessing.
"""

from __future__ import annotations

import math
import re

import msgspec

from headgate.model.chat import ChatRequest, Message

HEAD, TAIL = 3_000, 1_000
"""Characters read from the start and from the end of a long question: instructions stand at either."""

_WORD = re.compile(r"[a-z']+")
_NUMBER = re.compile(r"\d+")
_CODE = re.compile(
    r"```|\b(?:def|class|function|import|const|elif|printf|insert into|create table) \w|[;{}][ \t]*$|[=-]>|::|\(\)|[!=]=|</\w"
    r"|#include|\bselect\s.{1,200}?\sfrom\s|traceback|\.(?:py|js|ts|go|rs|java|cpp)\b",
    re.MULTILINE,
)
_MATH = re.compile(r"\\[a-z]+\{|\$[^$\n]{1,80}\$|[\^∑∫√≤≥≠π%]|\b[a-z] ?= ?[-\da-z]|[*/+] ?\d")
_ITEM = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)])\s+\S", re.MULTILINE)

_TROUBLE = re.compile(
    r"traceback|exception\b|\berror\b|stack ?trace|segfault|(?:does|do|did|is|was)(?:n't| not) (?:work|start|load|compile|open|run)|"
    r"\bcrash(?:es|ed)?\b|\bbroken\b|\bfails?\b|\bfailed\b"
)

_CLASSES = {
    "reasoning": "prove proof derive deduce infer explain why analyze analyse analysis compare contrast evaluate assess argue"
    " justify critique tradeoff tradeoffs optimize optimise design diagnose debug strategy implications hypothesis theorem"
    " reasoning investigate reconcile synthesize algorithm complexity",
    "math": "calculate compute solve equation integral derivative probability polynomial matrix vector sum product ratio percent"
    " percentage average total fraction triangle radius velocity modulo prime integer factorial remainder"
    " prove proof derive theorem",
    "code": "code function python javascript typescript java rust golang sql regex refactor compile compiler unittest bug"
    " bash script api recursion snippet program exception stacktrace kubernetes dockerfile",
    "constraint": "must exactly least most only without except unless every each never always ensure requirement requirements"
    " constraint constraints limit avoid within maximum minimum neither nor both",
    "condition": "if suppose assume given assuming otherwise whether when while unless not",
    "step": "first then next finally after before step steps second third lastly afterwards",
    "writing": "write draft essay story poem summarize summarise translate rewrite article report outline compose",
    "function": "the a an of to in is are was were and or for on with what how do does can i my you your it this that at by from"
    " be as we he she they his her have has will would if when which who where why not me there",
}
_CLASS_OF = {
    word: tuple(name for name, words in _CLASSES.items() if word in words.split())
    for words in _CLASSES.values()
    for word in words.split()
}
_OPENING = (
    "what what's whats where when who who's whose which how is are do does did can could will may should tell give show hi hello"
    " hey thanks thank i i'd please"
)
_OPENERS = frozenset(_OPENING.split())
_ASKING = frozenset("what what's whats where when who who's whose which how is are do does did can".split())


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen. All but `words`, `foreign` and `long` are from 0 to 1.

    words       English-looking words in what was read
    foreign     the text is mostly not English
    long        the question is longer than what was read
    length      logarithm of its length; 1 is some 3,000 characters or more
    plain       a short look-up in one sentence and everyday words, the first thing said
    questions   questions beyond the first
    asks        it is one that wants a fact: begins with a word such as "what", or ends in a question mark
    trouble     it shows an error, or says that something does not work
    """

    words: int = 0
    foreign: bool = False
    long: bool = False
    length: float = 0.0
    plain: float = 0.0
    numbers: float = 0.0
    code: float = 0.0
    math: float = 0.0
    reasoning: float = 0.0
    constraint: float = 0.0
    condition: float = 0.0
    step: float = 0.0
    writing: float = 0.0
    structure: float = 0.0
    questions: float = 0.0
    turns: float = 0.0
    tools: float = 0.0
    asks: bool = False
    trouble: bool = False


def asked(request: ChatRequest) -> str:
    """The text of the user's last turn, images and other parts left out; empty when there is none."""
    for message in reversed(request.messages):
        if message.role == "user":
            return _text(message)
    return ""


def has_image(request: ChatRequest) -> bool:
    """True when any turn carries an image."""
    return any(
        part.image_url is not None
        for message in request.messages
        if isinstance(message.content, tuple)
        for part in message.content
    )


def features(request: ChatRequest) -> Features:
    """Look at a request. Pure; the time is bounded whatever the size of the prompt."""
    text = asked(request)
    read = text if len(text) <= HEAD + TAIL else f"{text[:HEAD]}\n{text[-TAIL:]}"
    lower = read.lower()
    words = _WORD.findall(lower)
    counts = _counted(words)
    turns = sum(message.role == "user" for message in request.messages) - 1
    marks, questions, items = _marks(lower), read.count("?"), len(_ITEM.findall(read))
    return Features(
        words=len(words),
        foreign=_foreign(read, words, counts["function"]),
        long=len(text) > len(read),
        length=min(1.0, math.log1p(len(text)) / 8),
        plain=_plain(read, words, items, turns),
        numbers=_share(len(_NUMBER.findall(read)), 8),
        code=_share(marks[0] + counts["code"], 3),
        math=_share(marks[1] + counts["math"], 4),
        reasoning=_share(counts["reasoning"], 2),
        constraint=_share(counts["constraint"], 4),
        condition=_share(counts["condition"], 4),
        step=_share(counts["step"], 3),
        writing=_share(counts["writing"], 2),
        structure=_share(items, 5),
        questions=_share(questions - 1, 3),
        turns=_share(turns, 5),
        tools=1.0 if request.tools else 0.0,
        asks=bool(words) and (words[0] in _ASKING or questions > 0),
        trouble=_TROUBLE.search(lower) is not None,
    )


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content or () if part.text)


def _counted(words: list[str]) -> dict[str, int]:
    counts = dict.fromkeys(_CLASSES, 0)
    for word in words:
        for name in _CLASS_OF.get(word, ()):
            counts[name] += 1
    return counts


def _marks(lower: str) -> tuple[int, int]:
    """Signs of code and of mathematics that are not words."""
    return len(_CODE.findall(lower)), len(_MATH.findall(lower))


def _share(count: int, most: int) -> float:
    return 0.0 if count <= 0 else min(1.0, count / most)


def _plain(read: str, words: list[str], items: int, turns: int) -> float:
    """1 for a look-up of up to eight words, falling to 0 at twenty-four.

    The long words of a trade, whichever trade, take from it, so that chemistry or law is not plain for want of a keyword.
    A follow-up counts half: it leans on what was said before.
    """
    if not words or items or words[0] not in _OPENERS or read.count("?") > 1 or "\n" in read.strip():
        return 0.0
    short = max(0.0, min(1.0, (24 - len(words)) / 16))
    return short * (1 - _dense(words)) * (0.5 if turns > 0 else 1.0)


def _dense(words: list[str]) -> float:
    """0 at everyday English's 4.2 letters a word, 1 at 6.2; nothing below four words, where one word would decide."""
    if len(words) < 4:
        return 0.0
    return max(0.0, min(1.0, (sum(map(len, words)) / len(words) - 4.2) / 2))


def _foreign(read: str, words: list[str], functional: int) -> bool:
    """Letters outside English, or words with hardly an English function word among them."""
    if not read.isascii():
        other = sum(not char.isascii() and char.isalpha() for char in read)
        if other * 5 > sum(map(len, words)):
            return True
    return len(words) >= 8 and functional * 10 < len(words)
