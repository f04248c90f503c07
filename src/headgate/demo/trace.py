"""The traffic that `headgate demo` replays, with the right answer's label beside every question.

Invariant: two requests deserve the same cached answer if and only if their tenant and `answer` are equal, so
a replay can count its own wrong answers. README.md in this folder says how the file was made.
"""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import Literal, get_args

import msgspec

Kind = Literal[
    "novel",
    "exact_repeat",
    "reworded",
    "lookalike_number",
    "lookalike_product",
    "lookalike_negated",
    "lookalike_direction",
    "hard",
    "burst",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

TENANTS = ("brackenhollow", "tollgrove", "kilnbase", "merrowline")
BUDGET_TENANT = "kilnbase"
"""The tenant with the dearest questions: give it a cap and it is reached."""

SECONDS = 20.0
MIDDLE = 10.0
"""Seconds after the start at which a provider may fail; between 9 and 12 no burst disturbs the picture."""


class TraceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question of one user, `t` seconds after the start of the trace."""

    t: float
    tenant: str
    text: str
    system: str
    answer: str
    kind: Kind
    stream: bool = False
    model: str = "auto"
    max_tokens: int | None = None

    @property
    def family(self) -> str:
        """The question without its side: look-alikes share it, and nothing else does."""
        return self.answer.partition("/")[0]


def load() -> list[TraceRequest]:
    """All requests of the bundled trace in the order of time; requests of a burst share their `t`."""
    packed = files("headgate.demo").joinpath("trace.jsonl.gz").read_bytes()
    return msgspec.json.Decoder(TraceRequest).decode_lines(gzip.decompress(packed))
