"""Nearest neighbours within one partition: flat while small, HNSW when large.

Flat is exact and, for some thousands of vectors, faster than any graph: one matrix product. The newest `LARGE` vectors always lie
flat; when one more comes, the oldest of them moves into an HNSW graph (Malkov & Yashunin 2016) of usearch. So no call ever pays
for moving many, and a small partition never loads the library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LARGE = 4_096
CONNECTIVITY, EXPANSION, EXPANSION_SEARCH = 16, 200, 384
"""M and ef_construction as the paper calls them, and ef: with it, 98 of the 100 nearest of 5,000 random vectors are found; questions
are easier."""

Vectors = npt.NDArray[np.float32]
Near = tuple[int, float]


class Index:
    """Vectors by number, searched by cosine similarity; all are of unit length."""

    def __init__(self, dimensions: int, *, large: int = LARGE) -> None:
        """`large`: how many vectors lie flat at most."""
        self._dimensions = dimensions
        self._large = large
        self._numbers: list[int] = []
        self._rows: dict[int, int] = {}
        self._matrix: Vectors = np.empty((16, dimensions), dtype=np.float32)
        self._graph: Any = None

    def __len__(self) -> int:
        return len(self._numbers) + (0 if self._graph is None else len(self._graph))

    def add(self, number: int, vector: Vectors) -> None:
        """Add a vector under a new number."""
        if len(self._numbers) == self._large:
            self._move_oldest()
        row = len(self._numbers)
        if row == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.empty_like(self._matrix)])
        self._matrix[row] = vector
        self._numbers.append(number)
        self._rows[number] = row

    def remove(self, number: int) -> None:
        """Forget a vector; an unknown number is ignored."""
        row = self._rows.pop(number, None)
        if row is None:
            if self._graph is not None and number in self._graph:
                self._graph.remove(number)
            return
        last = len(self._numbers) - 1
        moved = self._numbers[last]
        if row != last:
            self._matrix[row] = self._matrix[last]
            self._numbers[row] = moved
            self._rows[moved] = row
        self._numbers.pop()

    def nearest(self, vector: Vectors, count: int) -> list[Near]:
        """At most `count` numbers with their similarity, nearest first."""
        near = self._in_matrix(vector, count)
        if self._graph is not None and len(self._graph):
            found = self._graph.search(vector, count, threads=1)
            near += [(int(k), 1.0 - float(d)) for k, d in zip(found.keys, found.distances, strict=True)]
            near.sort(key=lambda one: -one[1])
        return near[:count]

    def _in_matrix(self, vector: Vectors, count: int) -> list[Near]:
        size = len(self._numbers)
        if size == 0:
            return []
        similar = self._matrix[:size] @ vector
        best = np.argpartition(similar, size - count)[size - count :] if count < size else np.arange(size)
        order = best[np.argsort(-similar[best])]
        return [(self._numbers[row], float(similar[row])) for row in order]

    def _move_oldest(self) -> None:
        """Numbers are in `_rows` in the order in which they came."""
        number = next(iter(self._rows))
        vector = self._matrix[self._rows[number]].copy()
        self.remove(number)
        if self._graph is None:
            self._graph = _graph(self._dimensions)
        self._graph.add(number, vector, threads=1)


def _graph(dimensions: int) -> Any:
    """An empty graph, in full precision: what the library takes by itself is off by half a percent, as wide as thresholds are apart."""
    # First, because the process dies when onnxruntime is loaded after usearch (seen with 1.31 and 2.26); the other order is sound.
    import onnxruntime  # noqa: F401
    from usearch.index import Index as Graph

    return Graph(
        ndim=dimensions,
        metric="cos",
        dtype="f32",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION,
        expansion_search=EXPANSION_SEARCH,
    )
