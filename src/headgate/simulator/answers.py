"""Deterministic answers and token counts.

The counting rule: a text has ceil(UTF-8 bytes / 4) tokens, a message 3 more, an attachment 765 (85 with low detail).
Invariants: the same prompt always gets the same answer; an answer never has more tokens than `max_tokens`; unless it is
cut or structured it ends with ` [ref HASH]`, HASH being the first 12 hex digits of the SHA-256 of the last user turn.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from headgate.simulator.phrases import ACCENTED, CLOSERS, OPENERS, STEPS
from headgate.simulator.synthesis import Synthesis

MESSAGE_TOKENS = 3
ATTACHMENT_TOKENS = 765
SMALL_ATTACHMENT_TOKENS = 85
QUOTED = 48
LONG_TEXT = 32_768
LONG_PIECE = 16_384

_PIECE = re.compile(r"\s*\S{1,16}|\s+")


class Finish(enum.Enum):
    """Why an answer ends."""

    NATURAL = "natural"
    STOPPED = "stopped"
    LENGTH = "length"
    TOOL = "tool"


class Tool(msgspec.Struct, frozen=True):
    """A function that the caller offers, with the JSON schema of its arguments."""

    name: str
    schema: Any


class Ask(msgspec.Struct, frozen=True):
    """One call as understood, whatever the wire format.

    `turns` are all texts in order (they decide the answer), `question` the text of the last user turn, `tool` the
    function to call instead of answering, `shape` the JSON schema of a structured answer (`{}` for any object).
    """

    model: str
    turns: tuple[str, ...]
    question: str
    prompt_tokens: int
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    tool: Tool | None = None
    shape: Any = None
    stream: bool = False
    with_usage: bool = True
    cached_prefix: tuple[bytes, int] | None = None


class Quirks(msgspec.Struct, frozen=True):
    """What a fault changes about the content of an otherwise sound answer."""

    accented: bool = False
    huge_bytes: int = 0
    no_usage: bool = False


class Answer(msgspec.Struct, frozen=True):
    """One choice: a text, or the JSON arguments of a call of `tool`."""

    text: str
    tokens: int
    finish: Finish
    tool: str = ""
    stopped_at: str | None = None


def tokens(text: str) -> int:
    """How many tokens a text has."""
    return (len(text) if text.isascii() else len(text.encode())) + 3 >> 2


def reference(question: str) -> str:
    """The mark at the end of an answer that says which wording produced it."""
    return f"\n [ref {hashlib.sha256(question.encode()).hexdigest()[:12]}]"


def choose_tool(
    tools: Sequence[Tool], choice: Literal["auto", "none", "required"] | Tool, *, after_result: bool
) -> Tool | None:
    """The function that the model calls: the named or the first one; none once the result is there."""
    if after_result or choice == "none":
        return None
    if isinstance(choice, Tool):
        return choice
    return tools[0] if tools else None


def compose(ask: Ask, quirks: Quirks) -> list[Answer]:
    """The `n` answers to a call; raises ValueError when a schema is unusable."""
    seed = hashlib.sha256("\x1f".join(ask.turns).encode())
    answers = []
    for index in range(ask.n):
        digest = seed.digest()
        answers.append(_call(ask, ask.tool, digest) if ask.tool else _reply(ask, quirks, digest))
        seed.update(b"choice %d" % index)
    return answers


def cut(answer: Answer) -> list[tuple[str, int]]:
    """The text as a stream shows it, each piece with the tokens that it generates; together `answer.tokens`."""
    text = answer.text
    if len(text) > LONG_TEXT:
        parts = [text[place : place + LONG_PIECE] for place in range(0, len(text), LONG_PIECE)]
    else:
        parts = _PIECE.findall(text) or [""]
    name = tokens(answer.tool)
    shown = []
    size = counted = 0
    for part in parts:
        size += len(part.encode())
        total = min(answer.tokens, name + (size + 3 >> 2))
        shown.append((part, total - counted))
        counted = total
    return shown


def _call(ask: Ask, tool: Tool, digest: bytes) -> Answer:
    phrase = reference(ask.question).strip()
    arguments = msgspec.json.encode(Synthesis(tool.schema, digest, phrase).value()).decode()
    whole = tokens(arguments) + tokens(tool.name)
    if ask.max_tokens is None or whole <= ask.max_tokens:
        return Answer(arguments, whole, Finish.TOOL, tool.name)
    room = max(0, ask.max_tokens - tokens(tool.name))
    return Answer(_head(arguments, room), ask.max_tokens, Finish.LENGTH, tool.name)


def _reply(ask: Ask, quirks: Quirks, digest: bytes) -> Answer:
    mark = reference(ask.question)
    body = _structured(ask, digest, mark) if ask.shape is not None else _prose(ask.question, digest)
    if ask.shape is not None:
        mark = ""
    elif quirks.accented:
        body = ACCENTED + body
    if quirks.huge_bytes:
        return _huge(ask, body, mark, quirks.huge_bytes)
    return _bounded(ask, body, mark)


def _bounded(ask: Ask, body: str, mark: str) -> Answer:
    """Apply `stop`, then `max_tokens`; a text cut for length keeps its mark where there is room."""
    text, stopped_at = _stopped(body + mark, ask.stop)
    count = tokens(text)
    if ask.max_tokens is None or count <= ask.max_tokens:
        return Answer(text, count, Finish.STOPPED if stopped_at else Finish.NATURAL, stopped_at=stopped_at)
    room = ask.max_tokens - tokens(mark)
    kept = _head(body, room) + mark if mark and not stopped_at and room >= 0 else _head(text, ask.max_tokens)
    text, stopped_at = _stopped(kept, ask.stop)
    return Answer(text, tokens(text), Finish.STOPPED if stopped_at else Finish.LENGTH, stopped_at=stopped_at)


def _huge(ask: Ask, body: str, mark: str, size: int) -> Answer:
    """A text that ignores `max_tokens`, as a broken provider's may; what is billed still obeys it."""
    text = (body + " ") * (size // (len(body.encode()) + 1) + 1) + mark
    count = tokens(text)
    return Answer(text, min(count, ask.max_tokens or count), Finish.NATURAL)


def _prose(question: str, digest: bytes) -> str:
    words = question[:QUOTED].split()
    if len(question) > QUOTED and len(words) > 1:
        words[-1] = "..."
    sentences = [OPENERS[digest[0] % len(OPENERS)]]
    if words:
        sentences.append(f"You asked: {' '.join(words)}")
    first, stride = digest[1], 1 + 2 * (digest[2] % 4)
    sentences += [STEPS[(first + stride * step) % len(STEPS)] for step in range(1 + digest[3] % 4)]
    sentences.append(CLOSERS[digest[4] % len(CLOSERS)])
    return " ".join(sentences)


def _structured(ask: Ask, digest: bytes, mark: str) -> str:
    shape = ask.shape
    value = Synthesis(shape, digest, mark.strip()).value() if shape else {"answer": _prose(ask.question, digest) + mark}
    return msgspec.json.encode(value).decode()


def _stopped(text: str, stop: tuple[str, ...]) -> tuple[str, str | None]:
    found = [(place, end) for end in stop if end and (place := text.find(end)) >= 0]
    if not found:
        return text, None
    place, end = min(found)
    return text[:place], end


def _head(text: str, count: int) -> str:
    """The longest beginning of a text that has at most `count` tokens."""
    return text.encode()[: 4 * count].decode(errors="ignore")
