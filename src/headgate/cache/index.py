"""Nearest neighbours within one partition: flat while small, a graph when large.

Vectors are signed bytes throughout (`quantise`), and every similarity that is handed out is the question's float32 vector times the
stored one at unit length: off by less than 0.002 from that of the original vectors, wherever the stored one lies. Flat search is
exact. What is added lies flat at first; in a partition of more than `SMALL`, each addition also moves two vectors into the graph,
so no call pays for many and none is missed meanwhile.

Work of another size is done by a thread, in a `Build`: a new graph of everything, when many vectors came at once or most of the old
graph is empty. What it reads stands still meanwhile: additions lie flat, removals are noted and made good afterwards.

A key of the graph is a *stamp*, which grows with each move, and the slot.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

import numpy as np

from headgate.cache.flat import Flat, Floats, Near
from headgate.cache.graph import Graph, Keys, Rows, is_ready
from headgate.cache.quantise import quantised

SMALL = 1_024
"""Vectors that may lie flat without a graph: a search among them takes 0.06 ms, less than one in a graph."""
FLOOD = 8_192
"""When more than this lie flat, a thread makes a graph of them."""
_MOVES = 2
_CHUNK = 128
"""Vectors that a build adds between two looks at whether it is still wanted: 30 ms."""
_SEARCHED = 10
"""How many of the graph's vectors are compared exactly, at least."""
_STAMP = 32
"""Bits of the slot in a key."""
SLOT = (1 << _STAMP) - 1
"""What is the slot in a key."""


class Index:
    """Vectors by slot, searched by cosine similarity. All have the same number of dimensions."""

    __slots__ = ("_build", "_flat", "_flood", "_graph", "_places", "_small", "_stamp", "gave_up")

    def __init__(self, dimensions: int, places: array[int], *, small: int = SMALL, flood: int = FLOOD) -> None:
        """`places` is written by this index: where the vector of a slot lies flat, or its stamp in the graph. It is indexed by slot and
        may be shared with other indexes of other slots."""
        self._places = places
        self._small = small
        self._flood = flood
        self._flat = Flat(dimensions)
        self._graph: Graph | None = None
        self._build: Build | None = None
        self._stamp = 0
        self.gave_up = False
        """Whether a build has failed; then none is tried again."""

    def __len__(self) -> int:
        older = 0 if self._build is None else len(self._build)
        return len(self._flat) + older + (0 if self._graph is None else len(self._graph))

    @property
    def dimensions(self) -> int:
        """Of every vector in here."""
        return self._flat.dimensions

    @property
    def memory(self) -> int:
        """Bytes that it takes, about; of a graph, what it has asked the system for."""
        older = 0 if self._build is None else self._build.flat.memory
        return self._flat.memory + older + (0 if self._graph is None else self._graph.memory)

    @property
    def wants_build(self) -> bool:
        """Whether there is work for a thread: too many vectors lie flat, or more than half of the graph is empty."""
        if self._build is not None or self.gave_up:
            return False
        graph = self._graph
        return len(self._flat) > self._flood or (graph is not None and graph.wasted > max(len(graph), self._small))

    def add(self, slot: int, row: bytes) -> None:
        """Add a vector in the form of `quantise.quantised` under a slot that is not in here."""
        self.lay(slot, row)
        if self._build is not None or self.wants_build:
            return
        if self._graph is None and len(self._flat) > self._small and is_ready():
            self._graph = Graph(self.dimensions)
        if self._graph is not None:
            self._move(self._graph)

    def _move(self, graph: Graph) -> None:
        """Some of what lies flat into the graph."""
        graph.tidy()
        slots, rows = self._flat.pop(min(_MOVES, len(self._flat)))
        self._stamp += 1
        for slot in slots.tolist():
            self._places[slot] = self._stamp
        graph.add(_keys(self._stamp, slots), rows)

    def lay(self, slot: int, row: bytes) -> None:
        """As `add`, for one of very many that come at once: it lies flat until there is time."""
        self._places[slot] = self._flat.add(slot, row)

    def remove(self, slot: int) -> None:
        """Remove a vector that is in here."""
        place = self._places[slot]
        if self._flat.at(place) == slot:
            self._places[self._flat.remove(place)] = place
        elif self._build is not None and self._build.flat.at(place) == slot:
            self._build.gone.add(slot)
        elif self._graph is not None:
            self._graph.gone.add(place << _STAMP | slot)
            if self._build is None:
                self._graph.tidy()
                self._shrink(self._graph)

    def _shrink(self, graph: Graph) -> None:
        """Do without a graph that holds few: they lie flat again, and its memory is free."""
        if 4 * len(graph) <= self._small:
            self._graph = None
            keys = graph.keys()
            for key, row in zip(keys.tolist(), graph.rows(keys), strict=True):
                self.lay(key & SLOT, row.tobytes())

    def nearest(self, vector: Floats, count: int) -> list[Near]:
        """At most `count` slots with their similarity to a vector of unit length and shape (dimensions,), nearest first."""
        found = self._flat.nearest(vector, count)
        if self._build is not None:
            found += self._build.flat.nearest(vector, count, self._build.gone)
        if self._graph is not None and len(self._graph):
            found += _in_graph(self._graph, vector, count)
        found.sort(key=lambda one: -one[1])
        return found[:count]

    def begin(self) -> Build:
        """Have the vectors stand still for a build, which is ended with `finish`."""
        self._stamp += 1
        build = self._build = Build(self._graph, self._flat, self._stamp)
        self._flat = Flat(self.dimensions)
        return build

    def finish(self, build: Build, graph: Graph | None) -> None:
        """End the build: search the graph that it made from now on. Without one, go on with what there was."""
        self._build = None
        if graph is None:
            for slot, row in zip(build.flat.slots().tolist(), build.flat.rows(), strict=True):
                if slot not in build.gone:
                    self.lay(slot, row.tobytes())
            return
        if self._graph is not None:
            graph.gone |= self._graph.gone - build.without
        graph.gone |= {build.stamp << _STAMP | slot for slot in build.gone}
        slots = build.flat.slots()
        held = slots[~np.isin(slots, np.fromiter(build.gone, np.uint64, len(build.gone)))]
        np.frombuffer(self._places, np.uint32)[held] = build.stamp
        self._graph = graph

    def settled(self) -> Graph | None:
        """The graph as it is to be kept on disk, without anything that was removed. No build may be under way."""
        if self._graph is not None:
            self._graph.tidy(len(self._graph.gone))
        return self._graph

    def take(self, graph: Graph) -> None:
        """Begin with a graph that was kept on disk."""
        self._graph = graph
        keys = graph.keys()
        stamps = keys >> np.uint64(_STAMP)
        self._stamp = int(stamps.max(initial=0))
        np.frombuffer(self._places, np.uint32)[keys & np.uint64(SLOT)] = stamps


class Build:
    """A new graph from an old one and the vectors beside it, made by a thread of its own while both are only read."""

    def __init__(self, graph: Graph | None, flat: Flat, stamp: int) -> None:
        """`stamp` is for the vectors that lie flat."""
        self._graph = graph
        self.flat = flat
        self.stamp = stamp
        self.gone: set[int] = set()
        """Slots of vectors that lie flat and are removed."""
        self.without = frozenset[int]() if graph is None else frozenset(graph.gone)
        """Keys of the old graph that are left out."""

    def __len__(self) -> int:
        return len(self.flat) - len(self.gone)

    def run(self, wanted: Callable[[], bool]) -> Graph | None:
        """The graph, or None when it is not `wanted` any more."""
        new = Graph(self.flat.dimensions)
        for keys, rows in self._vectors():
            if not wanted():
                return None
            new.add(keys, rows)
        return new

    def _vectors(self) -> Iterator[tuple[Keys, Rows]]:
        keys, rows = _keys(self.stamp, self.flat.slots()), self.flat.rows()
        for start in range(0, len(keys), _CHUNK):
            yield keys[start : start + _CHUNK], np.ascontiguousarray(rows[start : start + _CHUNK])
        if self._graph is not None:
            keys = self._graph.keys(self.without)
            for start in range(0, len(keys), _CHUNK):
                yield keys[start : start + _CHUNK], self._graph.rows(keys[start : start + _CHUNK])


def _keys(stamp: int, slots: Keys) -> Keys:
    return slots | np.uint64(stamp << _STAMP)


def _in_graph(graph: Graph, vector: Floats, count: int) -> list[Near]:
    keys = graph.nearest(np.frombuffer(quantised(vector), np.int8), max(count, _SEARCHED))
    if not len(keys):
        return []
    rows = graph.rows(keys).astype(np.float32)
    similar = np.vecdot(rows, vector) / np.sqrt(np.vecdot(rows, rows))
    return list(zip((keys & np.uint64(SLOT)).tolist(), similar.tolist(), strict=True))
