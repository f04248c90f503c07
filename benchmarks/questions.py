"""The questions that are asked: short natural ones that all differ, and the one long one whose number changes.

Everything is put together from the word lists below, in an order that a fixed stride makes look shuffled; the same place
always gives the same question.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.servers import MODEL

MARK = "000000000000"
NUMBERED = (
    "How do I move two-factor sign-in to my new phone without losing access to my team account, given that the old one is "
    f"already wiped and the codes still go there? I am the only owner. Reference {MARK}."
)
# Shares no factor with COUNT, so that multiples of it visit every question once.
STRIDE = 7_919

_OPENINGS = (
    "How do I {act} {thing} {case}?",
    "What is the best way to {act} {thing} {case}?",
    "Why does it fail when I {act} {thing} {case}?",
    "Who is allowed to {act} {thing} {case}?",
    "How long does it take to {act} {thing} {case}?",
    "Is there a fee to {act} {thing} {case}?",
    "Can you explain the steps to {act} {thing} {case}?",
)
_ACTS = (
    "export", "archive", "restore", "rename", "share", "translate", "print", "schedule", "duplicate", "approve",
    "merge", "encrypt", "publish", "withdraw", "review", "compare", "measure", "insure", "repair", "label",
    "forecast", "photograph", "transfer",
)  # fmt: skip
_THINGS = (
    "the quarterly sales report", "my travel booking", "a customer invoice", "the payroll file", "our support inbox",
    "a vaccination record", "the garden irrigation plan", "my university transcript", "an employment contract",
    "the warehouse stock list", "a wedding guest list", "the bicycle fleet", "our recipe collection",
    "a court summons", "the solar panel readings", "my chess tournament results", "the museum catalogue",
    "a software licence", "the school timetable", "a rental agreement", "the orchestra's sheet music",
    "our fishing permits", "a podcast episode", "the city parking map", "my savings account", "a clinical trial protocol",
    "the theatre lighting plot", "a shipping container", "our volunteer rota",
)  # fmt: skip
_CASES = (
    "from a tablet", "before the deadline on Friday", "without an administrator", "for a colleague in Lisbon",
    "after the subscription has ended", "when the internet is down", "in two languages", "for more than fifty people",
    "while travelling abroad", "with an expired password", "on behalf of my mother", "using only the keyboard",
    "after a power cut", "during the annual audit", "for the first time", "with a shared device", "across three time zones",
    "when the owner has left the company", "on a very small budget",
)  # fmt: skip

COUNT = len(_OPENINGS) * len(_ACTS) * len(_THINGS) * len(_CASES)


def question(place: int) -> str:
    """The question at `place`; all places from 0 to COUNT - 1 differ."""
    rest = place * STRIDE % COUNT
    rest, case = divmod(rest, len(_CASES))
    rest, thing = divmod(rest, len(_THINGS))
    opening, act = divmod(rest, len(_ACTS))
    return _OPENINGS[opening].format(act=_ACTS[act], thing=_THINGS[thing], case=_CASES[case])


def chat_body(text: str, *, model: str = MODEL, stream: bool = False, max_tokens: int | None = None) -> bytes:
    """The JSON body of a chat completion with one user turn."""
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if stream:
        body["stream"] = True
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    return msgspec.json.encode(body)


class Supply:
    """Hands out questions and numbers so that none is handed out twice in a run."""

    def __init__(self, folder: Path) -> None:
        self.numbered = folder / "numbered.txt"
        self.numbered.write_bytes(chat_body(NUMBERED) + b"\n")
        self.fixed = folder / "fixed.txt"
        self.fixed.write_bytes(chat_body(NUMBERED.replace(MARK, "one and only")) + b"\n")
        self._folder = folder
        self._number = 0
        self._place = 0

    def numbers(self, count: int = 10_000_000) -> int:
        """The first of `count` numbers that nobody else gets."""
        first = self._number
        self._number += count
        return first

    def bodies(self, count: int) -> list[bytes]:
        """Bodies with `count` natural questions that nobody else gets."""
        return [chat_body(text) for text in self._texts(count)]

    def file(self, count: int) -> Path:
        """The same in a file, one body a line."""
        written = self._folder / f"questions-{self._place}.txt"
        written.write_bytes(b"\n".join(self.bodies(count)) + b"\n")
        return written

    def _texts(self, count: int) -> Iterator[str]:
        if self._place + count > COUNT:
            raise ValueError(f"only {COUNT:,} natural questions exist")
        first = self._place
        self._place += count
        return (question(place) for place in range(first, first + count))
