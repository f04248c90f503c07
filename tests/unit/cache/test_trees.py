"""Trees by bits: the same sums as walking every tree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.trees import MOST_LEAVES, Trees

Tree = float | tuple[int, float, bool, Any, Any]
"""A leaf, or (feature, threshold, whether what is absent goes left, left, right)."""

FEATURES = 3
VALUES = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, math.nan])
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.sampled_from([-2.0, -0.5, 0.0, 1.0, 4.0]),
    lambda below: st.tuples(
        st.integers(0, FEATURES - 1), st.sampled_from([0.0, 0.25, 0.5]), st.booleans(), below, below
    ),
    max_leaves=20,
)


def planted(trees: list[Tree]) -> Trees:
    """The trees in the form of a fitted prior."""
    arrays: dict[str, list[Any]] = {
        name: [] for name in ("feature", "threshold", "absent", "left", "right", "leaf", "root")
    }

    def put(tree: Tree) -> int:
        if not isinstance(tree, tuple):
            arrays["leaf"].append(tree)
            return -len(arrays["leaf"])
        place = len(arrays["feature"])
        for name, value in zip(("feature", "threshold", "absent", "left", "right"), (*tree[:3], 0, 0), strict=True):
            arrays[name].append(value)
        arrays["left"][place], arrays["right"][place] = put(tree[3]), put(tree[4])
        return place

    arrays["root"] = [put(tree) for tree in trees]
    return Trees(arrays)


def walked(tree: Tree, row: list[float]) -> float:
    while isinstance(tree, tuple):
        feature, threshold, absent, left, right = tree
        value = row[feature]
        tree = left if (absent if math.isnan(value) else value <= threshold) else right
    return tree


@given(
    st.lists(TREES, min_size=1, max_size=8),
    st.lists(st.lists(VALUES, min_size=FEATURES, max_size=FEATURES), min_size=1, max_size=6),
)
def test_a_row_reaches_the_leaves_that_walking_would_reach(trees: list[Tree], rows: list[list[float]]) -> None:
    assert planted([*trees, (0, 0.5, True, 1.0, 2.0)]).sums(rows).tolist() == [
        sum(walked(tree, row) for tree in trees) + walked((0, 0.5, True, 1.0, 2.0), row) for row in rows
    ]


def test_a_value_counts_as_the_float32_that_the_trees_were_fitted_to() -> None:
    threshold = float(np.float32(0.1))
    assert planted([(0, threshold, False, 1.0, 2.0)]).sums([[0.1]]).tolist() == [1.0]


def test_a_tree_of_as_many_leaves_as_there_are_bits_is_the_largest() -> None:
    def chain(leaves: int) -> Tree:
        return (0, float(leaves), False, float(leaves), chain(leaves - 1)) if leaves > 1 else 0.5

    largest = chain(MOST_LEAVES)
    # The thresholds fall: a row goes right until its value is over the last of them, or left at once.
    assert planted([largest]).sums([[1.0], [1_000.0], [math.nan]]).tolist() == [float(MOST_LEAVES), 0.5, 0.5]
    with pytest.raises(ValueError, match="65 leaves"):
        planted([chain(MOST_LEAVES + 1)])
