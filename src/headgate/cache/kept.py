"""What the shelf keeps, as values: how much of it, where an entry lies, what is written down of it, and what it weighs."""

from __future__ import annotations

from typing import Protocol

import msgspec

from headgate.model.tenancy import Namespace

LARGEST = 16
"""An entry of more than this part of its tenant's bytes is not kept: too many others would go for it."""
ENTRY_BYTES = 90
"""What an entry takes beside its pack: its row of `Slots`, and its places in registers, ranking and calendar."""
VECTOR_BYTES = 250
"""What a vector takes beside its bytes in a large index: links, and where it lies."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How much is kept.

    entries    of one tenant
    weight     bytes of one tenant
    total      bytes of all tenants
    stale_for  seconds for which an entry is kept past its time
    """

    entries: int
    weight: int
    total: int
    stale_for: float


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where entries lie that may be compared with each other; without a partition, those that are only found exactly."""

    namespace: Namespace
    partition: bytes | None


class Make(msgspec.Struct, frozen=True, gc=False):
    """Who made an answer, and what was asked for: few pairs for very many entries, so each is kept once."""

    deployment: str
    model: str


class Kept(msgspec.Struct, frozen=True, gc=False):
    """What is written down of an entry, so that it may be put on a shelf again. `number` is never another's."""

    number: int
    place: Place
    make: Make
    pack: bytes
    vector: bytes | None


class Scribe(Protocol):
    """Who is told of what comes and goes. Neither call waits or raises."""

    def kept(self, kept: Kept) -> None:
        """An entry is on the shelf."""
        ...

    def gone(self, number: int) -> None:
        """It is not any more."""
        ...


def weigh(size: int, dimensions: int) -> int:
    """Bytes that an entry takes in memory, of the `size` of its pack and the `dimensions` of its vector, 0 without one."""
    return size + ENTRY_BYTES + (dimensions and dimensions + VECTOR_BYTES)
