"""What the file behind the cache survives: restarts, damage, a full or write-protected disk, another version."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from headgate.cache.cache import Entry
from headgate.cache.sqlite import PURGE_EVERY, SqliteStore
from tests.conformance.test_cache_store import HOME, Clock, entry, found, key, vector


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


async def opened(path: Path, clock: Clock, *, per_tenant: int = 100) -> SqliteStore:
    return await SqliteStore.open(path, per_tenant=per_tenant, now=clock)


async def fill(path: Path, clock: Clock, *entries: Entry, per_tenant: int = 100) -> None:
    store = await opened(path, clock, per_tenant=per_tenant)
    for one in entries:
        await store.put(one)
    await store.close()


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        return int(count)
    finally:
        connection.close()


@contextmanager
def no_room() -> Iterator[None]:
    """No file of this process may grow, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_a_restart_keeps_entries_with_vectors_and_times(path: Path, clock: Clock) -> None:
    kept = entry("one", near=vector(1, 2, 3), expires=1_500.25, semantic_until=1_200.5)
    await fill(path, clock, kept, entry("plain"))
    store = await opened(path, clock)
    assert store.size() == 2
    assert store.peek(kept.key) == kept
    (candidate,) = await store.nearest(HOME, b"p", vector(1, 2, 3), 1)
    assert candidate.entry.vector == vector(1, 2, 3).tobytes()
    assert candidate.similarity == pytest.approx(1.0, abs=1e-6)
    clock.time = 1_200.5
    assert await found(store, vector(1, 2, 3)) == []
    assert store.peek(kept.key) is not None
    clock.time = 1_500.25
    assert store.peek(kept.key) is None
    await store.close()


async def test_what_expired_meanwhile_does_not_come_back(path: Path, clock: Clock) -> None:
    await fill(
        path, clock, entry("one", near=vector(1), expires=1_010.0), entry("two", near=vector(1), semantic_until=1_010.0)
    )
    clock.time = 1_010.0
    store = await opened(path, clock)
    assert store.peek(key("one")) is None
    assert store.peek(key("two")) is not None
    assert await found(store, vector(1)) == []
    await store.close()


async def test_a_restart_keeps_to_the_bound_and_to_what_lives_longest(path: Path, clock: Clock) -> None:
    await fill(path, clock, *(entry(str(number), expires=1_100.0 + number) for number in range(6)))
    store = await opened(path, clock, per_tenant=2)
    assert [number for number in range(6) if store.peek(key(str(number)))] == [4, 5]
    await store.close()


async def test_the_last_of_two_under_one_key_is_there_after_a_restart(path: Path, clock: Clock) -> None:
    await fill(path, clock, entry("one", near=vector(1), id="old"), entry("one", near=vector(0, 1), id="new"))
    store = await opened(path, clock)
    assert await found(store, vector(0, 1)) == ["new"]
    assert store.size() == 1
    await store.close()


async def test_expired_and_surplus_rows_leave_the_file_in_time(path: Path, clock: Clock) -> None:
    store = await opened(path, clock, per_tenant=3)
    for number in range(6):
        await store.put(entry(str(number), expires=1_100.0 + number))
    await store.close()
    assert rows(path) == 6
    store = await opened(path, clock, per_tenant=3)
    clock.time += PURGE_EVERY + 1
    await store.put(entry("last", expires=9_000.0))
    await store.close()
    assert rows(path) == 1


@pytest.mark.parametrize(
    "damage",
    [b"this is no database at all, and long enough to be looked at" * 30, b"SQLite format 3\0" + b"\xff" * 5_000],
)
async def test_a_file_that_is_no_database_is_set_aside_and_begun_anew(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    path.write_bytes(damage)
    await fill(path, clock, entry("one"))
    assert path.with_suffix(".broken").read_bytes() == damage
    assert "begun anew" in caplog.text
    store = await opened(path, clock)
    assert store.peek(key("one")) is not None
    await store.close()


async def test_damage_in_the_middle_of_a_file_costs_its_answers_and_no_start(path: Path, clock: Clock) -> None:
    """The header is sound, so it opens; what is wrong shows when the rows are read."""
    await fill(path, clock, *(entry(f"{number}", near=vector(1)) for number in range(60)))
    content = bytearray(path.read_bytes())
    content[4_096:] = b"\x5a" * (len(content) - 4_096)
    path.write_bytes(content)
    await fill(path, clock, entry("after"))
    store = await opened(path, clock)
    assert store.peek(key("after")) is not None
    assert path.with_suffix(".broken").exists()
    await store.close()


async def test_a_file_of_a_newer_version_is_set_aside(path: Path, clock: Clock) -> None:
    await fill(path, clock, entry("one"))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    store = await opened(path, clock)
    assert store.size() == 0
    assert path.with_suffix(".broken").exists()
    await store.close()


@pytest.mark.parametrize(
    "row", ['{"id": 1}', "nothing", msgspec.json.encode(msgspec.structs.replace(entry("bad"), answer=b"\xc1")).decode()]
)
async def test_a_row_that_cannot_be_read_is_skipped(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, row: str
) -> None:
    """The last one holds an answer in a form that this version does not know."""
    await fill(path, clock, entry("one"))
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("INSERT INTO entries VALUES ('acme', '', 'aa', 9e9, ?)", [row])
    connection.close()
    store = await opened(path, clock)
    assert store.size() == 1
    assert "1 stored answers cannot be read" in caplog.text
    await store.close()


async def test_a_full_disk_costs_nothing_but_persistence(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(path, clock, entry("before"))
    store = await opened(path, clock)
    with no_room():
        await store.put(entry("one", near=vector(1)))
        assert store.peek(key("before")) is not None
        assert store.peek(key("one")) is not None
        assert await found(store, vector(1)) == ["one"]
        await store.close()
    assert caplog.text.count("in memory only") == 1
    store = await opened(path, clock)
    assert store.peek(key("before")) is not None
    assert store.peek(key("one")) is None
    await store.close()


async def test_a_disk_that_is_full_at_the_first_start_is_written_to_when_it_has_room(path: Path, clock: Clock) -> None:
    with no_room():
        store = await opened(path, clock)
        await store.put(entry("one"))
        assert store.peek(key("one")) is not None
    await store.put(entry("two"))
    await store.close()
    again = await opened(path, clock)
    assert again.peek(key("two")) is not None
    await again.close()


async def test_a_file_that_cannot_be_opened_is_not_moved_away(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "absent" / "cache.db"
    store = await opened(path, clock)
    await store.put(entry("one"))
    assert store.peek(key("one")) is not None
    await store.close()
    assert not path.parent.exists()
    assert "cannot be read" in caplog.text


async def test_closing_writes_what_waits(path: Path, clock: Clock) -> None:
    await fill(path, clock, *(entry(str(number)) for number in range(50)))
    assert rows(path) == 50
