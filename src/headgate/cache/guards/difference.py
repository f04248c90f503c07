"""A difference: one thing that two questions do not share, as every guard reports it. Invariant: both sides are short."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

SHORT: Final = 60
"""Characters of a side that are kept: enough to see what differs, and to count reasons."""


class Difference(msgspec.Struct, frozen=True, gc=False):
    """What a guard saw. `veto`: the stored answer is never served; `doubt`: evidence that the verdict weighs.

    `one` and `other` are what either text has and the other lacks, normalised, empty where it has nothing.
    """

    guard: str
    severity: Literal["veto", "doubt"]
    one: str
    other: str

    @property
    def reason(self) -> str:
        """Machine-readable, such as "number:14|30"."""
        return f"{self.guard}:{self.one}|{self.other}"


def difference(guard: str, one: Iterable[str], other: Iterable[str], *, veto: bool) -> Difference:
    """A difference between what is listed for either text."""
    return Difference(guard, "veto" if veto else "doubt", ",".join(one)[:SHORT], ",".join(other)[:SHORT])


def turned(seen: Difference) -> Difference:
    """The same, seen from the other side."""
    return Difference(seen.guard, seen.severity, seen.other, seen.one)
