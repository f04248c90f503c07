"""The index: flat is exact, the graph misses next to nothing, and what was removed is never found."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.index import Index, Vectors

DIMENSIONS = 384


def unit_vectors(count: int, dimensions: int = DIMENSIONS, *, seed: int = 1) -> Vectors:
    drawn = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def filled(vectors: Vectors, *, large: int) -> Index:
    index = Index(vectors.shape[1], large=large)
    for number, vector in enumerate(vectors):
        index.add(number, vector)
    return index


def brute_force(vectors: Vectors, query: Vectors, count: int) -> list[int]:
    return [int(number) for number in np.argsort(-(vectors @ query))[:count]]


@pytest.mark.parametrize("count", [1, 3, 10, 500])
def test_flat_is_brute_force(count: int) -> None:
    vectors = unit_vectors(200)
    index = filled(vectors, large=200)
    for query in unit_vectors(20, seed=2):
        near = index.nearest(query, count)
        assert [number for number, _ in near] == brute_force(vectors, query, count)
        assert [similarity for _, similarity in near] == pytest.approx(sorted(vectors @ query)[::-1][:count], abs=1e-5)


def test_nothing_is_near_in_an_empty_index() -> None:
    assert Index(4).nearest(unit_vectors(1, 4)[0], 3) == []


def test_most_of_the_ten_nearest_of_five_thousand_are_found_when_the_graph_holds_them() -> None:
    """Random vectors are all about equally far from each other: nothing is harder for a graph."""
    vectors = unit_vectors(5_000)
    index = filled(vectors, large=256)
    assert len(index) == 5_000
    queries = unit_vectors(50, seed=2)
    found = [
        len({number for number, _ in index.nearest(query, 10)} & set(brute_force(vectors, query, 10)))
        for query in queries
    ]
    assert sum(found) / (10 * len(queries)) >= 0.95


def test_similarities_are_the_same_in_matrix_and_graph() -> None:
    """Thresholds are a hundredth apart: half precision would cross them."""
    vectors = unit_vectors(300)
    index = filled(vectors, large=10)
    near = index.nearest(vectors[0], 300)
    assert near[0][0] == 0
    for number, similarity in near:
        assert similarity == pytest.approx(float(vectors[number] @ vectors[0]), abs=1e-5)


def test_what_moved_into_the_graph_can_be_removed_and_added_again() -> None:
    vectors = unit_vectors(100)
    index = filled(vectors, large=10)
    index.remove(0)
    index.remove(0)
    index.remove(12_345)
    assert len(index) == 99
    assert index.nearest(vectors[0], 1)[0][0] != 0
    index.add(500, vectors[0])
    number, similarity = index.nearest(vectors[0], 1)[0]
    assert number == 500
    assert similarity == pytest.approx(1.0, abs=1e-5)


def test_an_index_that_was_emptied_finds_nothing() -> None:
    index = filled(unit_vectors(50), large=10)
    for number in range(50):
        index.remove(number)
    assert len(index) == 0
    assert index.nearest(unit_vectors(1)[0], 5) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=60), st.integers(1, 20))
def test_any_sequence_of_additions_and_removals_leaves_what_a_dictionary_would(
    steps: list[tuple[bool, int]], large: int
) -> None:
    vectors = unit_vectors(16, 8)
    index = Index(8, large=large)
    held: set[int] = set()
    for adds, number in steps:
        if not adds:
            index.remove(number)
            held.discard(number)
        elif number not in held:
            index.add(number, vectors[number])
            held.add(number)
        assert len(index) == len(held)
    near = index.nearest(vectors[0], 16)
    assert {number for number, _ in near} == held
    assert [number for number, _ in near] == sorted(held, key=lambda number: -float(vectors[number] @ vectors[0]))


def test_the_graph_may_come_before_the_sentence_model() -> None:
    """Loaded in that order the two native libraries end the process; a warm start with many entries does load them so."""
    program = """
import numpy as np
from headgate.cache.index import Index
from headgate.cache.embedders import MiniLM
index = Index(4, large=1)
index.add(1, np.array([1, 0, 0, 0], np.float32))
index.add(2, np.array([0, 1, 0, 0], np.float32))
MiniLM.load()
print(index.nearest(np.array([1, 0, 0, 0], np.float32), 1)[0][0])
"""
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (0, "1\n"), outcome.stderr
