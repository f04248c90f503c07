"""A large partition's vectors in a graph: HNSW (Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
hierarchical navigable small world graphs", 2016) by usearch.

Invariant: a graph is used by one thread at a time, or by several that only read it; the library keeps one scratch space for the
callers of one thread. A key is never used twice, so one that was removed is told from all others for as long as its vector lies
there. That is until there are some together: the library's first addition after a removal takes as long as a thousand others. What
removals leave empty is taken by later additions, and given back to the system only with the whole graph (see `index.Build`).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONNECTIVITY, EXPANSION, EXPANSION_SEARCH = 16, 200, 64
"""M and ef_construction as the paper calls them, and ef. Of 20,000 real questions, 99 of 100 nearest are found; 98 after
each of them was replaced twice."""
_TOGETHER = 128
"""Removals that are made together."""
_MOST_SEARCHED = 1_000
"""Vectors that are asked for at most when some of the nearest were removed."""

Rows = NDArray[np.int8]
Keys = NDArray[np.uint64]


class _Library:
    """Loads what graphs are made with, once."""

    def __init__(self) -> None:
        self._loading: threading.Thread | None = None
        self._loaded = False

    def is_loaded(self) -> bool:
        if not self._loaded and self._loading is None:
            self._loading = threading.Thread(target=self.load, name="graphs", daemon=True)
            self._loading.start()
        return self._loaded

    def load(self) -> None:
        # In this order, because the process dies when onnxruntime is loaded after usearch (seen with 1.31 and 2.26).
        import onnxruntime  # noqa: F401
        import usearch.index  # noqa: F401

        self._loaded = True


_library = _Library()


def is_ready() -> bool:
    """Whether a graph can be made without waiting for the library, which takes a tenth of a second to load. If it cannot, a thread
    begins to load it."""
    return _library.is_loaded()


class Graph:
    """Vectors of signed bytes by key, near by cosine: that of the bytes themselves, whatever their length."""

    def __init__(self, dimensions: int) -> None:
        _library.load()
        from usearch.index import Index

        self._index: Any = Index(
            ndim=dimensions,
            metric="cos",
            dtype="i8",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION,
            expansion_search=EXPANSION_SEARCH,
        )
        self.dimensions = dimensions
        self.gone: set[int] = set()
        """Keys that are removed while their vectors still lie there."""
        self._empty = 0

    def __len__(self) -> int:
        return len(self._index) - len(self.gone)

    @property
    def wasted(self) -> int:
        """Vectors that there is room for, and that are not held."""
        return self._empty + len(self.gone)

    @property
    def memory(self) -> int:
        """Bytes that it has asked the system for; it may not have touched all of them yet."""
        return int(self._index.memory_usage)

    def add(self, keys: Keys, rows: Rows) -> None:
        """Add vectors, shape (n, dimensions), under keys that were never used."""
        self._index.add(keys, rows, threads=1)
        self._empty = max(0, self._empty - len(keys))

    def tidy(self, most: int = 2 * _TOGETHER) -> None:
        """Let vectors go whose keys are `gone`, when there are enough of them, and no more than so many."""
        if len(self.gone) >= min(_TOGETHER, most):
            keys = [self.gone.pop() for _ in range(min(most, len(self.gone)))]
            for key in keys:
                self._index.remove(key, threads=1)
            self._empty += len(keys)

    def nearest(self, row: Rows, count: int) -> Keys:
        """The keys of at most `count` vectors near this one, nearest first."""
        wanted = count
        while True:
            keys: Keys = self._index.search(row, wanted, threads=1).keys
            if self.gone:
                keys = np.array([key for key in keys.tolist() if key not in self.gone], dtype=np.uint64)
            if len(keys) >= count or wanted >= min(len(self._index), _MOST_SEARCHED):
                return keys[:count]
            wanted *= 4

    def keys(self, without: frozenset[int] | set[int] | None = None) -> Keys:
        """The keys that it holds, in no order; `without` stands for what is gone now."""
        found: Keys = self._index.keys[:]
        gone = self.gone if without is None else without
        return found[~np.isin(found, np.fromiter(gone, np.uint64, len(gone)))] if gone else found

    def rows(self, keys: Keys) -> Rows:
        """The vectors of keys that it holds, shape (n, dimensions)."""
        found: Rows = np.asarray(self._index.get(keys), dtype=np.int8).reshape(len(keys), self.dimensions)
        return found

    def save(self, path: Path) -> None:
        """Write it to a file. The interpreter stands still meanwhile: 0.1 s for 100,000. Raises OSError or RuntimeError."""
        self._index.save(path)

    @classmethod
    def load(cls, path: Path, dimensions: int) -> Graph:
        """Read a file that `save` has written; nothing else, for the library does not look closely. Raises RuntimeError."""
        graph = cls(dimensions)
        graph._index.load(path)
        return graph
