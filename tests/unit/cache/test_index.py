"""The index: flat is exact, the graph misses next to nothing, what was removed is never found, and its memory comes back."""

from __future__ import annotations

import subprocess
import sys
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.cache.flat import Floats
from headgate.cache.graph import Graph
from headgate.cache.index import SLOT, Build, Index
from headgate.cache.quantise import quantised, restored

DIMENSIONS = 384
PLENTY = 10**9


@pytest.fixture(autouse=True, scope="module")
def library() -> None:
    """Graphs are not made before their library is loaded; here nobody wants to wait for that."""
    Graph(4)


def unit_vectors(count: int, dimensions: int = DIMENSIONS, *, seed: int = 1) -> Floats:
    drawn = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def questions(count: int, *, seed: int = 1) -> Floats:
    """Vectors as questions have them: in bundles, and of fewer directions than numbers."""
    random = np.random.default_rng(seed)
    topics = np.random.default_rng(7).standard_normal((200, 40))
    spread = np.random.default_rng(8).standard_normal((40, DIMENSIONS))
    drawn = topics[random.integers(0, 200, count)] + 0.7 * random.standard_normal((count, 40))
    vectors = (drawn @ spread + 0.5 * random.standard_normal((count, DIMENSIONS))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def empty(dimensions: int = DIMENSIONS, *, slots: int = 10_000, small: int = 64, flood: int = PLENTY) -> Index:
    return Index(dimensions, array("I", bytes(4 * slots)), small=small, flood=flood)


def filled(vectors: Floats, *, small: int = 64, flood: int = PLENTY) -> Index:
    index = empty(vectors.shape[1], slots=len(vectors) + 1_000, small=small, flood=flood)
    for slot, vector in enumerate(vectors):
        index.add(slot, quantised(vector))
    return index


def stored(vectors: Floats) -> Floats:
    """What an index knows of them."""
    return np.stack([restored(quantised(vector)) for vector in vectors])


def brute_force(vectors: Floats, query: Floats, count: int) -> list[int]:
    return [int(slot) for slot in np.argsort(-(stored(vectors) @ query))[:count]]


def slots(near: list[tuple[int, float]]) -> list[int]:
    return [slot for slot, _ in near]


@pytest.mark.parametrize("count", [1, 3, 10, 500])
def test_flat_is_brute_force(count: int) -> None:
    vectors = unit_vectors(200)
    index = filled(vectors, small=200)
    known = stored(vectors)
    for query in unit_vectors(20, seed=2):
        near = index.nearest(query, count)
        assert slots(near) == brute_force(vectors, query, count)
        assert [similarity for _, similarity in near] == pytest.approx(sorted(known @ query)[::-1][:count], abs=1e-5)


def test_nothing_is_near_in_an_empty_index() -> None:
    assert empty(4).nearest(unit_vectors(1, 4)[0], 3) == []


def test_nearly_every_nearest_question_of_five_thousand_is_found_in_the_graph() -> None:
    vectors = questions(5_000)
    index = filled(vectors)
    assert len(index) == 5_000
    asked, known = questions(200, seed=2), stored(vectors)
    right = sum(index.nearest(query, 1)[0][0] == int(np.argmax(known @ query)) for query in asked)
    assert right / len(asked) >= 0.98


def test_similarities_are_exact_wherever_a_vector_lies() -> None:
    """A verdict weighs hundredths. Half precision, or bytes compared with bytes, would be off by thousandths."""
    vectors = questions(400)
    flat, graph = filled(vectors, small=400), filled(vectors, small=8)
    for query in questions(20, seed=2):
        near = dict(flat.nearest(query, 400))
        for slot, similarity in graph.nearest(query, 20):
            assert similarity == pytest.approx(near[slot], abs=1e-6)
            assert similarity == pytest.approx(float(vectors[slot] @ query), abs=0.003)


def test_what_moved_into_the_graph_can_be_removed_and_its_slot_taken_again() -> None:
    vectors = unit_vectors(300)
    index = filled(vectors)
    index.remove(0)
    assert len(index) == 299
    assert index.nearest(vectors[0], 1)[0][0] != 0
    index.add(0, quantised(vectors[1]))
    assert set(slots(index.nearest(vectors[1], 2))) == {0, 1}
    assert index.nearest(vectors[0], 1)[0][0] != 0


def test_an_index_that_was_emptied_finds_nothing_and_takes_nothing() -> None:
    index = filled(unit_vectors(500))
    for slot in range(500):
        index.remove(slot)
    assert len(index) == 0
    assert index.nearest(unit_vectors(1)[0], 5) == []
    assert index.memory < 1_000


def built(index: Index) -> None:
    build = index.begin()
    index.finish(build, build.run(lambda: True))


def test_removing_most_of_a_large_index_gives_its_memory_back() -> None:
    vectors = questions(6_000)
    index = empty(small=1_024)
    # At once, for a graph that is built is smaller than one that has grown.
    for slot, vector in enumerate(vectors):
        index.add(slot, quantised(vector))
    before = index.memory
    for slot in range(4_500):
        index.remove(slot)
    assert index.wants_build
    built(index)
    assert not index.wants_build
    assert index.memory <= before
    for slot in range(4_500, 5_900):
        index.remove(slot)
    assert index.memory < before / 100
    assert sorted(slots(index.nearest(vectors[5_950], 200))) == list(range(5_900, 6_000))


def test_a_flood_lies_flat_and_is_exact_until_it_was_built() -> None:
    vectors = questions(700)
    index = empty(flood=600)
    for slot, vector in enumerate(vectors):
        index.lay(slot, quantised(vector))
    assert index.wants_build
    build = index.begin()
    assert not index.wants_build
    for query in questions(20, seed=2):
        assert slots(index.nearest(query, 5)) == brute_force(vectors, query, 5)
    index.finish(build, build.run(lambda: True))
    assert len(index) == 700
    asked = questions(100, seed=3)
    right = sum(index.nearest(query, 1)[0][0] == brute_force(vectors, query, 1)[0] for query in asked)
    assert right >= 98


def test_what_comes_and_goes_during_a_build_is_as_if_there_were_none() -> None:
    vectors = questions(900)
    index = filled(vectors[:700])
    build = index.begin()
    for slot in range(100):
        index.remove(slot)
    for slot in range(700, 800):
        index.add(slot, quantised(vectors[slot]))
    for slot in range(50):
        # A slot of which the build still reads the former vector.
        index.add(slot, quantised(vectors[800 + slot]))
    assert len(index) == 750
    during = [slots(index.nearest(query, 10)) for query in vectors[:40]]
    index.finish(build, build.run(lambda: True))
    assert len(index) == 750
    now = np.concatenate([vectors[800:850], vectors[50:800]])
    for query, near in zip(vectors[:40], during, strict=True):
        exact = [slot for slot in brute_force(now, query, 70) if not 50 <= slot < 100][:10]
        assert len(set(near) & set(exact)) >= 9
        assert len(set(slots(index.nearest(query, 10))) & set(exact)) >= 9


def test_a_build_that_is_not_wanted_any_more_changes_nothing() -> None:
    vectors = questions(300)
    index = filled(vectors)
    build = index.begin()
    index.remove(3)
    index.add(300, quantised(vectors[3]))
    index.finish(build, build.run(lambda: False))
    assert len(index) == 300
    assert index.nearest(vectors[3], 1)[0][0] == 300


class Model(RuleBasedStateMachine):
    """An index against a dictionary, with a build that may begin and end at any time."""

    vectors = unit_vectors(24, 8)

    @initialize(small=st.integers(1, 12))
    def begin(self, small: int) -> None:
        self.index = empty(8, slots=24, small=small)
        self.held: dict[int, int] = {}
        self.build: Build | None = None

    @rule(slot=st.integers(0, 23), vector=st.integers(0, 23))
    def add(self, slot: int, vector: int) -> None:
        if slot not in self.held:
            self.index.add(slot, quantised(self.vectors[vector]))
            self.held[slot] = vector

    @rule(slot=st.integers(0, 23))
    def remove(self, slot: int) -> None:
        if slot in self.held:
            self.index.remove(slot)
            del self.held[slot]

    @precondition(lambda self: self.build is None)
    @rule()
    def freeze(self) -> None:
        self.build = self.index.begin()

    @precondition(lambda self: self.build is not None)
    @rule(wanted=st.booleans())
    def thaw(self, wanted: bool) -> None:
        assert self.build is not None
        self.index.finish(self.build, self.build.run(lambda: wanted))
        self.build = None

    @invariant()
    def holds_what_the_dictionary_holds(self) -> None:
        assert len(self.index) == len(self.held)
        near = self.index.nearest(self.vectors[0], 30)
        assert dict(near) == pytest.approx(
            {
                slot: float(restored(quantised(self.vectors[vector])) @ self.vectors[0])
                for slot, vector in self.held.items()
            },
            abs=1e-5,
        )


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_flat_search_of_any_size_is_brute_force(size: int, count: int, seed: int) -> None:
    vectors = unit_vectors(size, 16, seed=seed)
    query = unit_vectors(1, 16, seed=seed + 1)[0]
    found = filled(vectors, small=100).nearest(query, count)
    assert [similarity for _, similarity in found] == pytest.approx(
        sorted(stored(vectors) @ query)[::-1][:count], abs=1e-5
    )


def test_a_graph_comes_back_from_its_file(tmp_path: Path) -> None:
    vectors = questions(300)
    index = filled(vectors)
    index.remove(7)
    graph = index.settled()
    assert graph is not None
    graph.save(tmp_path / "graph")
    again = empty()
    again.take(Graph.load(tmp_path / "graph", DIMENSIONS))
    assert len(again) == len(graph)
    held = sorted(key & SLOT for key in graph.keys().tolist())
    assert 7 not in held
    assert again.nearest(vectors[held[0]], 1)[0][0] == held[0]


def test_the_first_graph_waits_for_its_library_and_nobody_waits_for_the_graph() -> None:
    program = """
import sys, time
from array import array
import numpy as np
from headgate.cache.graph import is_ready
from headgate.cache.index import Index
from headgate.cache.quantise import quantised
rows = np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32)
index = Index(4, array("I", [0] * 40), small=8)
for slot in range(20):
    index.add(slot, quantised(rows[slot]))
print(index.settled() is None, len(index))
while not is_ready():
    time.sleep(0.01)
for slot in range(20, 40):
    index.add(slot, quantised(rows[slot]))
print(len(index.settled()), len(index))
"""
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (0, "True 20\n40 40\n"), outcome.stderr


def test_the_graph_may_come_before_the_sentence_model() -> None:
    """Loaded in that order the two native libraries end the process; a warm start with many entries does load them so."""
    program = """
import numpy as np
from array import array
from headgate.cache.graph import Graph
from headgate.cache.index import Index
from headgate.cache.quantise import quantised
from headgate.cache.embedders import MiniLM
Graph(4)
index = Index(4, array("I", [0] * 3), small=1)
index.add(1, quantised(np.array([1, 0, 0, 0], np.float32)))
index.add(2, quantised(np.array([0, 1, 0, 0], np.float32)))
MiniLM.load()
print(index.nearest(np.array([1, 0, 0, 0], np.float32), 1)[0][0])
"""
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (0, "1\n"), outcome.stderr
