"""Nearest neighbours within one partition: flat while small, HNSW when large.

Flat is exact and, up to some thousands of vectors, faster than any graph: one matrix product. Above `LARGE` the vectors move into
an HNSW graph (Malkov & Yashunin 2016; M = 16, ef_construction = 200) of usearch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LARGE = 4_096
CONNECTIVITY, EXPANSION = 16, 200

Vectors = npt.NDArray[np.float32]


class Index:
    """Vectors by number, searched by cosine similarity; all are of unit length."""

    def __init__(self, dimensions: int, *, large: int = LARGE) -> None:
        """`large`: with how many vectors the graph takes over."""
        self._dimensions = dimensions
        self._large = large
        self._numbers: list[int] = []
        self._rows: dict[int, int] = {}
        self._matrix: Vectors = np.empty((16, dimensions), dtype=np.float32)
        self._graph: Any = None

    def __len__(self) -> int:
        return len(self._numbers) if self._graph is None else len(self._graph)

    def add(self, number: int, vector: Vectors) -> None:
        """Add a vector under a new number."""
        if self._graph is not None:
            self._graph.add(number, vector)
            return
        row = len(self._numbers)
        if row == self._large:
            self._graph = self._grown()
            self._graph.add(number, vector)
            return
        if row == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.empty_like(self._matrix)])
        self._matrix[row] = vector
        self._numbers.append(number)
        self._rows[number] = row

    def remove(self, number: int) -> None:
        """Forget a vector; an unknown number is ignored."""
        if self._graph is not None:
            if number in self._graph:
                self._graph.remove(number)
            return
        row = self._rows.pop(number, None)
        if row is None:
            return
        last = len(self._numbers) - 1
        moved = self._numbers[last]
        if row != last:
            self._matrix[row] = self._matrix[last]
            self._numbers[row] = moved
            self._rows[moved] = row
        self._numbers.pop()

    def nearest(self, vector: Vectors, count: int) -> list[tuple[int, float]]:
        """At most `count` numbers with their similarity, nearest first."""
        if self._graph is not None:
            found = self._graph.search(vector, count)
            return [(int(k), 1.0 - float(d)) for k, d in zip(found.keys, found.distances, strict=True)]
        size = len(self._numbers)
        if size == 0:
            return []
        similar = self._matrix[:size] @ vector
        if count == 1:
            best = int(similar.argmax())
            return [(self._numbers[best], float(similar[best]))]
        order = np.argsort(-similar)[:count]
        return [(self._numbers[row], float(similar[row])) for row in order]

    def _grown(self) -> Any:
        """The graph of all vectors, which leave the matrix; loaded only here, for most partitions never get so large."""
        from usearch.index import Index as Graph

        graph = Graph(ndim=self._dimensions, metric="cos", connectivity=CONNECTIVITY, expansion_add=EXPANSION)
        graph.add(np.array(self._numbers, dtype=np.uint64), self._matrix[: len(self._numbers)])
        self._numbers, self._rows = [], {}
        self._matrix = np.empty((0, self._dimensions), dtype=np.float32)
        return graph
