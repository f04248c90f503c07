"""Warm again: from the cache's file and the graphs beside it to a shelf, and the graphs back to disk when it closes.

Invariant: the rows are the truth. A graph file is used when its checksum is the one in the database, and only for those vectors whose
rows are still there, by number, in the same partition; whatever is missing, damaged or of another making is built anew from the rows,
while they are searched one by one: exact, and slower (7 ms among 100,000).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headgate.cache.kept import Kept, Place
from headgate.cache.rows import place_columns, place_of, read
from headgate.cache.shelf import Shelf

if TYPE_CHECKING:
    from headgate.cache.index import Index

log = logging.getLogger(__name__)

_SELECT = "SELECT tenant, namespace, partition, dimensions, file, digest, keys, numbers FROM graphs"


class _Written(msgspec.Struct, frozen=True):
    """What the database says of a graph's file: `numbers` are those of the entries whose vectors lie under the `keys`."""

    tenant: bytes
    namespace: bytes
    partition: bytes
    dimensions: int
    file: str
    digest: bytes
    keys: bytes
    numbers: bytes


class _Lying(msgspec.Struct, frozen=True):
    """A graph that was read: its place and index, and where the vector of which entry lies."""

    place: Place
    number: int
    index: Index
    slots: dict[int, int]


def fill(connection: sqlite3.Connection, path: Path, shelf: Shelf) -> list[int]:
    """Put on the shelf what lies in the file at `path` and still fits. Returns the numbers of rows that are not to stay."""
    (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
    shelf.reserve(count)
    graphs = {lying.place: lying for lying in _graphs(connection, path, shelf)}
    surplus, unreadable = [], 0
    for number, kept in read(connection):
        if kept is None:
            unreadable += 1
        if kept is None or not _put(shelf, kept, graphs.get(kept.place)):
            surplus.append(number)
    for lying in graphs.values():
        _let_go(shelf, lying)
    shelf.settle()
    if unreadable:
        log.warning("%d stored answers cannot be read and are skipped", unreadable)
    return surplus


def _put(shelf: Shelf, kept: Kept, lying: _Lying | None) -> bool:
    slot = None if lying is None or kept.vector is None else lying.slots.pop(kept.number, None)
    put = shelf.put(kept, slot)
    if lying is not None and slot is not None and not (put and shelf.slots.searchable[slot]):
        # Too old to be found by its meaning, or altogether. What was put and evicted again has been removed already.
        lying.slots[kept.number] = slot
    return put


def _let_go(shelf: Shelf, lying: _Lying) -> None:
    """Remove from the graph what has no row, and the hold on its place that was taken for the time of filling."""
    for slot in lying.slots.values():
        lying.index.remove(slot)
    if not len(lying.index):
        shelf.indexes[lying.number] = None
    shelf.places.give(lying.number)


def _graphs(connection: sqlite3.Connection, path: Path, shelf: Shelf) -> list[_Lying]:
    found = []
    for row in connection.execute(_SELECT).fetchall():
        written = _Written(*row)
        try:
            index, slots = _loaded(path, written, shelf)
        except (OSError, RuntimeError, ValueError) as error:
            log.warning(
                "index file %s cannot be used, it is built anew from the stored answers: %s", written.file, error
            )
            continue
        place = place_of(written.tenant, written.namespace, written.partition)
        number = shelf.places.take(place)
        while number >= len(shelf.indexes):
            shelf.indexes.append(None)
        shelf.indexes[number] = index
        found.append(_Lying(place, number, index, slots))
    return found


def _loaded(path: Path, written: _Written, shelf: Shelf) -> tuple[Index, dict[int, int]]:
    """The index, and in which slot which entry is to be."""
    file = path.with_name(written.file)
    with file.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").digest() != written.digest:
            raise ValueError("it is not the file that was written")
    import numpy as np

    from headgate.cache.graph import Graph
    from headgate.cache.index import SLOT, Index

    graph, held = Graph.load(file, written.dimensions), np.frombuffer(written.keys, np.uint64)
    if not np.array_equal(np.sort(graph.keys()), np.sort(held)):
        raise ValueError("it does not hold what it should")
    slots = (held & np.uint64(SLOT)).tolist()
    shelf.slots.reserve(max(slots, default=-1) + 1)
    index = Index(written.dimensions, shelf.slots.flat)
    index.take(graph)
    return index, dict(zip(np.frombuffer(written.numbers, np.uint64).tolist(), slots, strict=True))


def keep_graphs(connection: sqlite3.Connection, path: Path, shelf: Shelf) -> None:
    """Write the graphs beside the file at `path`, and name them in it; inside a transaction. All rows of their entries must be
    written. Raises OSError, RuntimeError or sqlite3.Error."""
    connection.execute("DELETE FROM graphs")
    written = []
    for number, index in enumerate(shelf.indexes):
        graph = None if index is None else index.settled()
        if graph is None:
            continue
        import numpy as np

        from headgate.cache.index import SLOT

        keys = graph.keys()
        numbers = np.array(shelf.slots.numbers, dtype=np.uint64)[keys & np.uint64(SLOT)]
        file = path.with_name(f"{path.name}.graph-{secrets.token_hex(8)}")
        # For this user's eyes alone: what a question was about can be guessed from its vector.
        file.touch(mode=0o600)
        written.append(file.name)
        graph.save(file)
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").digest()
        row = (
            *place_columns(shelf.places[number]),
            *(graph.dimensions, file.name, digest, keys.tobytes(), numbers.tobytes()),
        )
        connection.execute("INSERT INTO graphs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def remove_graphs(connection: sqlite3.Connection, path: Path) -> None:
    """Remove the graph files beside the file at `path` that it does not name."""
    named = {file for (file,) in connection.execute("SELECT file FROM graphs")}
    for file in path.parent.glob(f"{path.name}.graph-*"):
        if file.name not in named:
            with contextlib.suppress(OSError):
                file.unlink()
