"""Trees: many small decision trees evaluated together, by bits, without walking any of them.

Invariant: the sum is that of the leaves that walking each tree would reach.

After QuickScorer (Lucchese et al. 2015): a tree is a set of leaves, one bit each from left to right. A node that sends a row to the
right takes the leaves on its left away, whatever is asked elsewhere; of what is left in the end, the leftmost leaf is the one reached.
All nodes that ask for one feature take away leaves by nothing but the rank of its value among their thresholds, so that one line of
a table holds what they all leave over in all trees: a row costs as many lines as there are features, and a handful of calls.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

MOST_LEAVES: Final = 64
_KINDS: Final = (np.uint8, np.uint16, np.uint32, np.uint64)


class _Node(msgspec.Struct, frozen=True, gc=False):
    """`leaves` are those on its left, as bits; `absent` says whether a row without a value goes left."""

    tree: int
    threshold: float
    absent: bool
    leaves: int


class Trees:
    """An ensemble. Pure."""

    def __init__(self, arrays: Mapping[str, Sequence[Any]]) -> None:
        """`arrays`, plain lists, one element for each inner node: `feature`, `threshold` (a value up to it goes left), `absent` (whether
        NaN does), `left`, `right` (a node, or -1 - leaf); and `leaf`, `root` (a node or leaf for each tree).

        Raises ValueError when a tree has more than MOST_LEAVES leaves, or none of them has a node.
        """
        nodes: dict[int, list[_Node]] = defaultdict(list)
        found = [list(_planted(arrays, tree, nodes)) for tree in range(len(arrays["root"]))]
        most = max(map(len, found))
        if most > MOST_LEAVES:
            raise ValueError(f"a tree has {most} leaves")
        self._bits = next(kind for kind in _KINDS if np.iinfo(kind).bits >= most)
        self._values = np.zeros((len(found), most), np.float32)
        for tree, values in enumerate(found):
            self._values[tree, : len(values)] = values
        self._first = np.arange(len(found)) * most
        self._asked: list[tuple[int, list[float], int]] = []
        lines: list[NDArray[Any]] = []
        for feature in sorted(nodes):
            thresholds = sorted({node.threshold for node in nodes[feature]})
            self._asked.append((feature, thresholds, sum(map(len, lines))))
            lines.append(self._lines(thresholds, nodes[feature]))
        self._table = np.concatenate(lines)

    def _lines(self, thresholds: list[float], nodes: Sequence[_Node]) -> NDArray[Any]:
        """What one feature leaves over, by how many thresholds are under its value; and, last, where it has none."""
        full = np.iinfo(self._bits).max
        lines = np.full((len(thresholds) + 2, len(self._values)), full, self._bits)
        for node in nodes:
            kept = self._bits(full ^ node.leaves)
            lines[bisect_left(thresholds, node.threshold) + 1 : -1, node.tree] &= kept
            if not node.absent:
                lines[-1, node.tree] &= kept
        return lines

    def sums(self, rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        """For each row, the sum of the leaves that it reaches, shape (n,). Values count as float32."""
        places = [
            [
                begin + (len(thresholds) + 1 if isnan(value := row[feature]) else bisect_left(thresholds, value))
                for feature, thresholds, begin in self._asked
            ]
            for row in np.asarray(rows, np.float32).tolist()
        ]
        left = np.bitwise_and.reduce(self._table[np.array(places).T], axis=0)
        leaf = np.bitwise_count((left & (~left + self._bits(1))) - self._bits(1))
        total: NDArray[np.float64] = self._values.ravel()[self._first + leaf].sum(1, dtype=np.float64)
        return total


def _planted(arrays: Mapping[str, Sequence[Any]], tree: int, nodes: dict[int, list[_Node]]) -> Iterator[float]:
    """The values of a tree's leaves from left to right; its nodes are added to those of their features."""
    count = 0

    def walk(place: int) -> Iterator[float]:
        nonlocal count
        if place < 0:
            count += 1
            yield arrays["leaf"][-1 - place]
            return
        first = count
        yield from walk(arrays["left"][place])
        leaves = (1 << count) - (1 << first)
        nodes[arrays["feature"][place]].append(_Node(tree, arrays["threshold"][place], arrays["absent"][place], leaves))
        yield from walk(arrays["right"][place])

    yield from walk(arrays["root"][tree])
