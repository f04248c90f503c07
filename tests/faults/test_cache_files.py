"""What lies beside the cache's file, damaged in every way; and the process killed while entries and invalidations are on their way."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headgate.cache.cache import Selection
from headgate.cache.graph import Graph
from headgate.cache.index import FLOOD, SMALL
from headgate.cache.sqlite import SqliteStore
from tests.conformance.test_cache_store import HOME, PARTITION, Clock, entry, found, key, put

MANY = SMALL + 200
"""Enough for a graph."""


@pytest.fixture(autouse=True, scope="module")
def library() -> None:
    """Graphs are not made before their library is loaded."""
    Graph(4)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


def near(number: int) -> Any:
    drawn = np.random.default_rng(number).standard_normal(16).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


async def opened(path: Path, clock: Clock) -> SqliteStore:
    return await SqliteStore.open(path, now=clock)


async def fill(path: Path, clock: Clock, numbers: range = range(MANY)) -> None:
    store = await opened(path, clock)
    for number in numbers:
        await put(store, entry(str(number), near=near(number), tags=("odd",) if number % 2 else ("even",)))
    await store.close()


def graph_files(path: Path) -> list[Path]:
    return sorted(path.parent.glob("cache.db.graph-*"))


async def missed(store: SqliteStore, numbers: range) -> list[int]:
    """Entries that are not the nearest to their own vector."""
    return [number for number in numbers if await found(store, near(number), count=1) != [str(number)]]


async def test_a_graph_is_there_again_after_a_restart(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(path, clock)
    (file,) = graph_files(path)
    assert file.stat().st_mode & 0o777 == 0o600
    store = await opened(path, clock)
    assert store.size() == MANY
    assert await missed(store, range(MANY)) == []
    await put(store, entry("new", near=near(MANY)))
    assert await found(store, near(MANY), count=1) == ["new"]
    await store.close()
    assert len(graph_files(path)) == 1
    assert "built anew" not in caplog.text


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def foreign(file: Path) -> None:
    file.write_bytes(b"something else altogether" * 1_000)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def replaced_by_a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [truncated, flipped, foreign, emptied, replaced_by_a_directory, Path.unlink])
async def test_a_graph_file_that_is_not_what_was_written_is_built_anew_from_the_rows(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    await fill(path, clock)
    damage(graph_files(path)[0])
    store = await opened(path, clock)
    assert "built anew from the stored answers" in caplog.text
    assert store.size() == MANY
    assert await missed(store, range(MANY)) == []
    await store.close()


async def test_a_graph_that_holds_other_entries_than_its_row_says_is_not_used(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(path, clock)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE graphs SET keys = substr(keys, 1, 800), numbers = substr(numbers, 1, 800)")
    connection.close()
    store = await opened(path, clock)
    assert "built anew" in caplog.text
    assert await missed(store, range(0, MANY, 50)) == []
    await store.close()


async def test_a_large_index_is_built_while_its_vectors_are_searched_one_by_one(path: Path, clock: Clock) -> None:
    store = await opened(path, clock)
    for number in range(FLOOD + 100):
        await put(store, entry(str(number), near=near(number)))
    await store.close()
    graph_files(path)[0].unlink()
    store = await opened(path, clock)
    some = range(0, FLOOD, 500)
    assert await missed(store, some) == []
    await put(store, entry("meanwhile", near=near(FLOOD + 100)))
    await store.invalidate(Selection(tenant="acme", entry="500"))
    await store.settled()
    assert await found(store, near(FLOOD + 100), count=1) == ["meanwhile"]
    assert await missed(store, some) == [500]
    await store.close()
    assert len(graph_files(path)) == 1
    store = await opened(path, clock)
    assert await missed(store, some) == [500]
    await store.close()


async def test_a_graph_that_is_older_than_the_rows_is_used_for_what_is_still_there(path: Path, clock: Clock) -> None:
    """As after a crash: entries came and went since it was written."""
    await fill(path, clock)
    (file,) = graph_files(path)
    content = file.read_bytes()
    connection = sqlite3.connect(path)
    graphs = connection.execute("SELECT * FROM graphs").fetchall()
    store = await opened(path, clock)
    assert await store.invalidate(Selection(tenant="acme", tags=("odd",))) == MANY // 2
    for number in range(MANY, MANY + 100):
        await put(store, entry(str(number), near=near(number)))
    await store.close()
    file.write_bytes(content)
    with connection:
        connection.execute("DELETE FROM graphs")
        connection.executemany("INSERT INTO graphs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", graphs)
    connection.close()
    store = await opened(path, clock)
    assert store.size() == MANY - MANY // 2 + 100
    assert await missed(store, range(0, MANY, 2)) == []
    assert await missed(store, range(MANY, MANY + 100)) == []
    assert not [number for number in range(1, MANY, 2) if str(number) in await found(store, near(number), count=3)]
    await store.close()


async def test_what_expired_while_nobody_served_is_not_found_in_the_graph_either(path: Path, clock: Clock) -> None:
    store = await opened(path, clock)
    for number in range(MANY):
        ends = {0: {"expires": 1_500.0}, 1: {"semantic_until": 1_500.0}, 2: {}}[number % 3]
        await put(store, entry(str(number), near=near(number), **ends))
    await store.close()
    clock.time = 1_600.0
    store = await opened(path, clock)
    for number in range(MANY):
        assert (str(number) in await found(store, near(number), count=3)) == (number % 3 == 2)
        assert (store.peek(key(str(number))) is not None) == (number % 3 != 0)
    await store.close()


async def test_an_old_graph_never_stands_for_entries_of_another_run(path: Path, clock: Clock) -> None:
    """Not even when all that it knew is gone, so that the numbers of entries might begin again."""
    await fill(path, clock)
    (file,) = graph_files(path)
    content = file.read_bytes()
    connection = sqlite3.connect(path)
    graphs = connection.execute("SELECT * FROM graphs").fetchall()
    store = await opened(path, clock)
    await store.invalidate(Selection(tenant="acme"))
    await store.close()
    store = await opened(path, clock)
    for number in range(MANY):
        await put(store, entry(str(number), near=near(5_000 + number)))
    await store.close()
    file.write_bytes(content)
    with connection:
        connection.execute("DELETE FROM graphs")
        connection.executemany("INSERT INTO graphs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", graphs)
    connection.close()
    store = await opened(path, clock)
    for number in range(MANY):
        (nearest,) = await store.nearest(HOME, PARTITION, near(5_000 + number), 1)
        assert nearest.entry.id == str(number)
        assert nearest.similarity > 0.99
    await store.close()


async def test_a_graph_file_of_another_run_is_removed(path: Path, clock: Clock) -> None:
    left = path.with_name("cache.db.graph-0123456789abcdef")
    left.write_bytes(b"left over")
    await fill(path, clock, range(3))
    assert graph_files(path) == []


async def test_partitions_do_not_swap_their_graphs(path: Path, clock: Clock) -> None:
    """A row that has another partition than the graph in which its number is has been tampered with, or damaged; it is not found
    there."""
    await fill(path, clock)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE graphs SET partition = x'00'")
    connection.close()
    store = await opened(path, clock)
    assert await found(store, near(1), partition=b"\0") == []
    assert await missed(store, range(0, MANY, 50)) == []
    await store.close()


CHILD = """
import asyncio, sys
from pathlib import Path
from headgate.cache.cache import Selection
from headgate.cache.sqlite import SqliteStore
from tests.conformance.test_cache_store import Clock, entry, vector

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]), now=Clock())
    for number in range(100_000):
        epoch = store.epoch("acme")
        for name in ("a", "b"):
            await store.put(entry(f"{number} {name}", near=vector(1, number), tags=(name,)), epoch=epoch)
        await asyncio.sleep(0.002 * (number % 7))
        if number % 3 == 0:
            await store.invalidate(Selection(tenant="acme", tags=("a",)))
            print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 4, 9])
async def test_what_was_invalidated_before_a_kill_is_not_there_after_it(path: Path, clock: Clock, after: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(after)]
    child.send_signal(signal.SIGKILL)
    rest = child.communicate()[0]
    last = max([*told, *(int(line) for line in rest.splitlines() if line.strip().isdecimal())])
    store = await opened(path, clock)
    for number in range(last + 1):
        assert store.peek(key(f"{number} a")) is None
    assert [number for number in range(last) if store.peek(key(f"{number} b")) is None] == []
    assert not [
        id for id in await found(store, near(0)[:4], HOME, count=500) if id.endswith("a") and int(id.split()[0]) <= last
    ]
    await store.close()
