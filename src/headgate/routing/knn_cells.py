"""Cells: vectors that are near each other lie together, so that a neighbourhood is found by looking at few of them.

An inverted file (Jegou et al., "Product Quantization for Nearest Neighbor Search", 2011, section IV) whose cells split in two when they
are full, so that it grows by appending. Vectors lie in signed bytes.

Invariant: what was added is found by its own vector until it is dropped, and who looks sees only whole rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FULL = 384
"""Vectors of a cell at which it splits."""
FIRST = 6
"""Vectors that a new cell has room for."""
PROBED = 6
"""Cells that are looked into. Of 50,000 vectors that is some 1,500."""
ROUNDS = 3
"""Steps of Lloyd's algorithm when a cell splits."""
STEPS = 127

Floats = NDArray[np.float32]
Bytes = NDArray[np.int8]


def quantised(vector: Floats) -> bytes:
    """The vector, shape (d,), as d signed bytes; the largest component is 127. Empty for one without a direction."""
    largest = float(np.max(np.abs(vector), initial=0.0))
    if not 0.0 < largest < float("inf"):
        return b""
    rounded: Bytes = np.rint(np.asarray(vector) * (STEPS / largest)).astype(np.int8)
    return rounded.tobytes()


def restored(stored: bytes | Sequence[bytes]) -> Floats:
    """Unit vectors in float32, shape (d,) or (n, d), of what `quantised` made; no row may be empty."""
    rows = [stored] if isinstance(stored, bytes) else stored
    table = np.frombuffer(b"".join(rows), np.int8).reshape(len(rows), -1).astype(np.float32)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), np.float32(1e-9))
    found: Floats = table[0] if isinstance(stored, bytes) else table
    return found


class Cells:
    """Vectors of one size with the number that each was added as."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._centres: Floats = np.zeros((0, dimensions), np.float32)
        self._cells: list[_Cell] = []
        self._cell_of: dict[int, _Cell] = {}

    def __len__(self) -> int:
        return len(self._cell_of)

    def add(self, number: int, stored: bytes) -> None:
        """Add what `quantised` made under a number that is not in use. Raises ValueError for another size."""
        if len(stored) != self._dimensions:
            raise ValueError(f"{len(stored)} dimensions, not {self._dimensions}")
        vector = restored(stored)
        if not self._cells:
            self._put([_Cell(self._dimensions)], vector[None])
        at = int(np.argmax(_products(self._centres, vector)))
        cell = self._cells[at]
        cell.append(number, np.frombuffer(stored, np.int8))
        self._cell_of[number] = cell
        if cell.size >= FULL:
            self._split(at)

    def drop(self, number: int) -> None:
        """Forget one; a number that is not there is nothing."""
        cell = self._cell_of.pop(number, None)
        if cell is not None:
            cell.remove(number)

    def near(self, vector: Floats) -> tuple[NDArray[np.int64], Floats]:
        """The numbers of those that lie around a unit vector, in no order, and their similarity to it."""
        count = len(self._cells)
        if not count:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        probed = range(count)
        if count > PROBED:
            probed = np.argpartition(-_products(self._centres, vector), PROBED)[:PROBED].tolist()
        cells = [self._cells[at] for at in probed]
        rows = np.concatenate([one.rows[: one.size] for one in cells]).astype(np.float32)
        lengths = np.concatenate([one.lengths[: one.size] for one in cells])
        return np.concatenate([one.numbers[: one.size] for one in cells]), _products(rows, vector) / lengths

    def _split(self, at: int) -> None:
        """Two cells in the place of one, by 2-means from its two ends along the direction in which it is widest."""
        full = self._cells[at]
        table = full.rows[: full.size].astype(np.float32) / full.lengths[: full.size, None]
        away = table - table.mean(0)
        far = _products(away, away[int(np.argmax(np.einsum("ij,ij->i", away, away)))])
        right = far > np.median(far)
        for _ in range(ROUNDS):
            if right.all() or not right.any():
                break
            one, other = table[right].mean(0), table[~right].mean(0)
            right = _products(table, one - other) > (one @ one - other @ other) / 2
        if right.all() or not right.any():
            # All the same: there is no other way to tell them apart, and each half is as good.
            right = np.arange(full.size) % 2 == 0
        halves, centres = [], []
        for chosen in (right, ~right):
            half = _Cell(self._dimensions)
            for row in np.flatnonzero(chosen):
                half.append(int(full.numbers[row]), full.rows[row])
                self._cell_of[int(full.numbers[row])] = half
            halves.append(half)
            centres.append(_unit(table[chosen].mean(0)))
        self._cells[at], self._centres[at] = halves[0], centres[0]
        self._put(halves[1:], np.array(centres[1:]))

    def _put(self, cells: list[_Cell], centres: Floats) -> None:
        self._cells += cells
        self._centres = np.concatenate([self._centres, centres.astype(np.float32)])


class _Cell:
    """Up to FULL vectors, side by side. Room doubles as it is needed: most tenants have few."""

    def __init__(self, dimensions: int) -> None:
        self.size = 0
        self.rows: Bytes = np.zeros((FIRST, dimensions), np.int8)
        self.lengths: Floats = np.ones(FIRST, np.float32)
        self.numbers: NDArray[np.int64] = np.zeros(FIRST, np.int64)

    def append(self, number: int, row: Bytes) -> None:
        if self.size == len(self.numbers):
            self.rows = np.concatenate([self.rows, np.zeros_like(self.rows)])
            self.lengths = np.concatenate([self.lengths, np.ones_like(self.lengths)])
            self.numbers = np.concatenate([self.numbers, np.zeros_like(self.numbers)])
        wide = row.astype(np.float32)
        self.rows[self.size] = row
        self.lengths[self.size] = max(1e-9, float(np.sqrt(wide @ wide)))
        self.numbers[self.size] = number
        self.size += 1

    def remove(self, number: int) -> None:
        """The last takes its place."""
        at = int(np.flatnonzero(self.numbers[: self.size] == number)[0])
        last = self.size - 1
        self.rows[at], self.lengths[at], self.numbers[at] = self.rows[last], self.lengths[last], self.numbers[last]
        self.size = last


def _products(table: Floats, vector: Floats) -> Floats:
    """`table @ vector`, not by BLAS: on a busy machine its threads wait for each other a hundred times as long as so few rows take."""
    found: Floats = np.einsum("ij,j->i", table, vector)
    return found


def _unit(vector: Floats) -> Floats:
    return vector / np.float32(max(1e-9, float(np.linalg.norm(vector))))
