"""Vectors one after the other, each compared with every question: exact, and as fast as a graph for a thousand of them.

Invariant: a row is the slot, the length and the bytes of one vector, and rows lie without gaps in one run of bytes: most partitions
hold a single question of a conversation, and three objects for each would weigh more than the vector.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headgate.cache.graph import Rows

Floats = NDArray[np.float32]
Near = tuple[int, float]

_HEAD = struct.Struct("<If")
_BLOCK = 1_024
"""Rows that are looked at together, for their float32 form to stay in the processor's cache."""
_NOWHERE = -2.0
"""Less than any cosine."""


class Flat:
    """Vectors of signed bytes (`quantise`) by slot; a *place* is where one lies, and changes when others are removed."""

    __slots__ = ("_rows", "dimensions")

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._rows = bytearray()

    def __len__(self) -> int:
        return len(self._rows) // self._width

    @property
    def _width(self) -> int:
        return _HEAD.size + self.dimensions

    @property
    def memory(self) -> int:
        """Bytes that it takes."""
        return self._rows.__sizeof__()

    def slots(self) -> NDArray[np.uint64]:
        """The slots of all vectors, in the order in which they lie."""
        return self._table()["slot"].astype(np.uint64)

    def rows(self) -> Rows:
        """All vectors, shape (n, dimensions), as they lie: nothing may be added or removed while this is held."""
        found: Rows = self._table()["row"]
        return found

    def _table(self) -> NDArray[Any]:
        return np.frombuffer(self._rows, _row_type(self.dimensions))

    def at(self, place: int) -> int | None:
        """The slot of the vector that lies there, if one does."""
        start = place * self._width
        if start >= len(self._rows):
            return None
        slot: int = _HEAD.unpack_from(self._rows, start)[0]
        return slot

    def add(self, slot: int, row: bytes) -> int:
        """Add a vector that is not all zeros. Returns its place."""
        values = np.frombuffer(row, np.int8).astype(np.float32)
        self._rows += _HEAD.pack(slot, float(np.sqrt(values @ values)))
        self._rows += row
        return len(self) - 1

    def remove(self, place: int) -> int:
        """Remove what lies there; the last one takes its place. Returns that one's slot."""
        width = self._width
        last = self._rows[-width:]
        self._rows[place * width : (place + 1) * width] = last
        del self._rows[-width:]
        slot: int = _HEAD.unpack_from(last)[0]
        return slot

    def pop(self, count: int) -> tuple[NDArray[np.uint64], Rows]:
        """Take the last ones out."""
        taken = bytes(self._rows[-count * self._width :])
        del self._rows[-count * self._width :]
        table = np.frombuffer(taken, _row_type(self.dimensions))
        return table["slot"].astype(np.uint64), np.ascontiguousarray(table["row"])

    def nearest(self, vector: Floats, count: int, gone: Collection[int] = ()) -> list[Near]:
        """At most `count` slots with their similarity, nearest first, without those that are `gone`."""
        table = self._table()
        size = len(table)
        if not size:
            return []
        similar = _similarities(table, vector)
        if gone:
            similar[np.isin(table["slot"], np.fromiter(gone, np.uint32, len(gone)))] = _NOWHERE
        best = np.argpartition(similar, size - count)[size - count :] if count < size else np.arange(size)
        best = best[np.argsort(-similar[best])]
        found = zip(table["slot"][best].tolist(), similar[best].tolist(), strict=True)
        return [one for one in found if one[1] > _NOWHERE]


def _similarities(table: NDArray[Any], vector: Floats) -> Floats:
    similar: Floats = np.empty(len(table), np.float32)
    for start in range(0, len(table), _BLOCK):
        rows = table["row"][start : start + _BLOCK].astype(np.float32)
        # Not `@`: with more than a few rows that is done by several threads, which wait for each other on a busy machine.
        np.vecdot(rows, vector, out=similar[start : start + _BLOCK])
    similar /= table["length"]
    return similar


@functools.cache
def _row_type(dimensions: int) -> np.dtype[Any]:
    return np.dtype([("slot", "<u4"), ("length", "<f4"), ("row", np.int8, (dimensions,))])
