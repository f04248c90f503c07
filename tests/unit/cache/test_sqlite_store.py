"""What the file behind the cache survives: restarts, damage, a full or write-protected disk, another version."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headgate.cache.cache import Entry, Selection
from headgate.cache.packing import digest
from headgate.cache.rows import SCHEMA
from headgate.cache.sqlite import SqliteStore
from headgate.model.errors import Overloaded
from headgate.model.tenancy import Namespace
from tests.conformance.test_cache_store import HOME, Clock, entry, found, key, put, unseen, vector


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


async def opened(path: Path, clock: Clock, *, bound: int = 100, stale_for: float = 0.0) -> SqliteStore:
    return await SqliteStore.open(path, entries_per_tenant=bound, stale_for=stale_for, now=clock)


async def fill(path: Path, clock: Clock, *entries: Entry) -> None:
    store = await opened(path, clock)
    for one in entries:
        await put(store, one)
    await store.close()


def names(path: Path) -> list[str]:
    """Of the entries in the file; a name is what a key's digest begins with."""
    connection = sqlite3.connect(path)
    try:
        packs = connection.execute("SELECT pack FROM entries ORDER BY number").fetchall()
        return [digest(pack).rstrip(b"\0").decode() for (pack,) in packs]
    finally:
        connection.close()


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
    assert store.peek(kept.key) == await store.find("acme", "one") == unseen(kept)
    (candidate,) = await store.nearest(HOME, b"p", vector(1, 2, 3), 1)
    assert candidate.entry == unseen(kept)
    assert candidate.similarity == pytest.approx(1.0, abs=1e-4)
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


async def test_what_is_stale_is_kept_over_a_restart_for_as_long_as_it_may_be_served(path: Path, clock: Clock) -> None:
    store = await opened(path, clock, stale_for=30.0)
    await put(store, entry("one", near=vector(1), expires=1_010.0))
    await store.close()
    clock.time = 1_020.0
    store = await opened(path, clock, stale_for=30.0)
    assert store.peek(key("one")) is None
    assert store.peek(key("one"), stale=20.0) is not None
    assert await found(store, vector(1)) == []
    await store.close()
    clock.time = 1_040.0
    store = await opened(path, clock, stale_for=30.0)
    assert store.size() == 0
    await store.close()


async def test_a_restart_keeps_to_the_bound_and_to_what_is_worth_most(path: Path, clock: Clock) -> None:
    await fill(path, clock, *(entry(str(number), worth=1_000 * number) for number in range(6)))
    store = await opened(path, clock, bound=2)
    assert [number for number in range(6) if store.peek(key(str(number)))] == [4, 5]
    await store.close()
    assert rows(path) == 2


async def test_odd_names_survive_a_restart(path: Path, clock: Clock) -> None:
    place = Namespace("ac\0me\ud800", "\U0001f600'; --")
    await fill(path, clock, entry("one", place, near=vector(1), deployment="\ud800", model="\0"), entry("two"))
    store = await opened(path, clock)
    held = store.peek(key("one", place))
    assert held is not None
    assert (held.deployment, held.model) == ("\ud800", "\0")
    assert await found(store, vector(1), place) == ["one"]
    assert store.peek(key("two")) is not None
    await store.close()


async def test_the_last_of_two_under_one_key_is_there_after_a_restart(path: Path, clock: Clock) -> None:
    await fill(path, clock, entry("one", near=vector(1), id="old"), entry("one", near=vector(0, 1), id="new"))
    store = await opened(path, clock)
    assert await found(store, vector(0, 1)) == ["new"]
    assert store.size() == 1
    await store.close()


async def test_what_is_evicted_or_expired_leaves_the_file(path: Path, clock: Clock) -> None:
    store = await opened(path, clock, bound=3)
    for number in range(6):
        await put(store, entry(str(number), expires=1_100.0 + number))
        if number == 3:
            # Written, unlike those that go while they wait.
            await store.invalidate(Selection(tenant="nobody"))
    await store.close()
    assert rows(path) == 3
    store = await opened(path, clock, bound=3)
    clock.time += 300.0
    await put(store, entry("last", expires=9_000.0))
    await store.close()
    assert rows(path) == 1


async def test_what_is_invalidated_is_gone_from_the_file_when_the_call_returns(path: Path, clock: Clock) -> None:
    """Whether it had been written before or was on its way. The file is read as if the process had been killed now."""
    store = await opened(path, clock)
    await put(store, entry("written"))
    await store.invalidate(Selection(tenant="acme", tags=("none has it",)))
    assert rows(path) == 1
    await put(store, entry("on its way"))
    await put(store, entry("another's", Namespace("beta")))
    assert await store.invalidate(Selection(tenant="acme", tags=("a",))) == 2
    assert names(path) == ["another's"]
    await store.close()
    assert names(path) == ["another's"]


async def test_an_invalidation_that_the_disk_has_no_room_for_is_told_and_made_good_later(
    path: Path, clock: Clock
) -> None:
    await fill(path, clock, entry("one"), entry("two", tags=("b",)))
    store = await opened(path, clock)
    with no_room():
        with pytest.raises(Overloaded, match="cannot be written"):
            await store.invalidate(Selection(tenant="acme", tags=("a",)))
        assert store.peek(key("one")) is None
    await store.invalidate(Selection(tenant="acme", tags=("c",)))
    assert names(path) == ["two"]
    await store.close()


async def test_what_nobody_could_read_does_not_come_back(path: Path, clock: Clock) -> None:
    """An invalidation could not have found it."""
    await fill(path, clock, entry("one"))
    path.rename(path.with_suffix(".elsewhere"))
    path.mkdir()
    store = await opened(path, clock)
    assert store.size() == 0
    path.rmdir()
    path.with_suffix(".elsewhere").rename(path)
    assert await store.invalidate(Selection(tenant="acme", tags=("a",))) == 0
    await store.close()
    store = await opened(path, clock)
    assert store.size() == 0
    await store.close()


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
    "change",
    [
        "pack = substr(pack, 1, 60)",
        "pack = zeroblob(length(pack))",
        "tenant = CAST('beta' AS BLOB)",
        "namespace = CAST('other' AS BLOB)",
        "partition = x'00'",
        "vector = zeroblob(4)",
        "vector = 'text'",
        "pack = 7",
        "model = CAST('other' AS BLOB)",
        "sum = 0",
    ],
)
async def test_a_row_that_was_damaged_is_skipped_and_removed(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    await fill(path, clock, entry("one"), entry("bad", near=vector(1)))
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(f"UPDATE entries SET {change} WHERE partition IS NOT NULL")
    connection.close()
    store = await opened(path, clock)
    assert store.size() == 1
    assert "1 stored answers cannot be read" in caplog.text
    await store.close()
    assert names(path) == ["one"]


async def test_answers_in_the_form_of_another_version_are_removed(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """They must not be found and then fail."""
    await fill(path, clock, entry("one"), entry("two"))
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE state SET form = x'00'")
    connection.close()
    store = await opened(path, clock)
    assert store.size() == 0
    assert "2 stored answers were written by another version" in caplog.text
    await store.close()
    assert rows(path) == 0


async def test_a_file_of_the_first_version_is_begun_anew(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in SCHEMA[0]:
            connection.execute(statement)
        connection.execute("INSERT INTO entries VALUES ('acme', '', 'aa', 9e9, '{}')")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    await fill(path, clock, entry("one"))
    assert "an earlier version" in caplog.text
    store = await opened(path, clock)
    assert store.size() == 1
    assert not path.with_suffix(".broken").exists()
    await store.close()


async def test_a_full_disk_costs_nothing_but_persistence(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(path, clock, entry("before"))
    store = await opened(path, clock)
    with no_room():
        await put(store, entry("one", near=vector(1)))
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
        await put(store, entry("one"))
        assert store.peek(key("one")) is not None
    await put(store, entry("two"))
    await store.close()
    again = await opened(path, clock)
    assert again.peek(key("two")) is not None
    await again.close()


async def test_a_file_that_cannot_be_opened_is_not_moved_away(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "absent" / "cache.db"
    store = await opened(path, clock)
    await put(store, entry("one"))
    assert store.peek(key("one")) is not None
    await store.close()
    assert not path.parent.exists()
    assert "cannot be read" in caplog.text


async def test_closing_writes_what_waits(path: Path, clock: Clock) -> None:
    await fill(path, clock, *(entry(str(number)) for number in range(50)))
    assert rows(path) == 50
