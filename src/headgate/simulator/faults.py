"""Faults: the ways in which the simulator misbehaves on request.

A fault is written `name` or `name:amount`, for instance `429:2` or `cut:3`. The table `KINDS` is the whole list; the
command's help and the README are generated from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

MODEL_PREFIX = "sim-"


class Kind(msgspec.Struct, frozen=True):
    """One row of the table: what a fault does and what its amount means (no unit: it takes none)."""

    does: str
    unit: str = ""
    default: float = 0.0
    breaks: bool = True


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "400": Kind("answers 400 invalid_request_error"),
        "401": Kind("answers 401 with the vendor's invalid-key error"),
        "403": Kind("answers 403"),
        "404": Kind("answers 404 as if there were no such model"),
        "413": Kind("answers 413"),
        "429": Kind("answers 429 with Retry-After", "seconds to announce", 1),
        "500": Kind("answers 500"),
        "502": Kind("answers 502"),
        "503": Kind("answers 503"),
        "529": Kind("answers 529 overloaded"),
        "context-length": Kind("answers 400 as if the prompt were too long"),
        "no-money": Kind("answers as the vendor does when the account is empty"),
        "quota": Kind("answers as usual, and says that no request is left", "seconds until one is", 1, breaks=False),
        "hang": Kind("accepts the call and never answers"),
        "slow-first-byte": Kind("waits, then answers as usual", "seconds", 2, breaks=False),
        "stall": Kind("falls silent in the middle of the answer", "content chunks before", 3),
        "trickle": Kind("waits before each further chunk", "seconds", 1, breaks=False),
        "error-event": Kind("sends an error inside the answer, then ends it", "content chunks before", 0),
        "odd-sse": Kind("streams with BOM, CRLF, comments, strange fields and split data lines", breaks=False),
        "endless-line": Kind("sends a line without end", "mebibytes", 4),
        "gzip": Kind("compresses the answer, which nobody asked for"),
        "cut": Kind("resets the connection in the middle of the answer", "content chunks before", 3),
        "malformed-sse": Kind("sends an event that is not JSON, then goes on", "content chunks before", 3),
        "split-utf8": Kind("cuts chunks inside characters and inside lines", breaks=False),
        "truncated-json": Kind("promises more bytes than it sends, then closes"),
        "no-usage": Kind("answers without usage figures", breaks=False),
        "huge": Kind("answers with a very long text", "mebibytes", 8, breaks=False),
        "refuse": Kind(
            "resets the connection unanswered; with N also all others, and stops listening",
            "seconds down",
        ),
    }
)


class UnknownFaultError(ValueError):
    """The text names no fault, or its amount is not a number that the fault takes."""


class Fault(msgspec.Struct, frozen=True):
    """A fault to commit now, with its amount in the unit of its row in `KINDS`."""

    name: str
    amount: float

    @property
    def breaks(self) -> bool:
        """Whether the call counts as an error."""
        return KINDS[self.name].breaks


def parse_fault(text: str) -> Fault:
    """Read `name` or `name:amount`; raises UnknownFaultError with the list of names or the reason."""
    name, colon, amount = text.strip().partition(":")
    kind = KINDS.get(name)
    if kind is None:
        raise UnknownFaultError(f"unknown fault {text!r}; known faults: {', '.join(KINDS)}")
    if not colon:
        return Fault(name, kind.default)
    if not kind.unit:
        raise UnknownFaultError(f"fault {name!r} takes no amount, got {text!r}")
    try:
        number = float(amount)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1_000_000:
        raise UnknownFaultError(f"fault {text!r}: the amount ({kind.unit}) must be a number from 0 to 1000000")
    return Fault(name, number)


def fault_of_model(model: str) -> Fault | None:
    """The fault that a model name such as `sim-429` asks for; None for any other name."""
    if not model.startswith(MODEL_PREFIX):
        return None
    try:
        return parse_fault(model[len(MODEL_PREFIX) :])
    except UnknownFaultError:
        return None


def describe_faults() -> str:
    """The table of faults as text, one line each."""
    lines = []
    for name, kind in KINDS.items():
        form = f"{name}[:N]" if kind.unit else name
        amount = f" (N = {kind.unit}, default {kind.default:g})" if kind.unit else ""
        lines.append(f"{form:<20} {kind.does}{amount}")
    return "\n".join(lines)
