"""Group commit: order, durability, refusal when the file cannot be written, and recovery."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.model.errors import Overloaded
from headgate.storage.commits import BATCH, Commits, encoded
from headgate.storage.sqlite import Checkpoints, connect, migrate

INSERT = "INSERT INTO rows (x) SELECT json_extract(value, '$[0]') FROM json_each(?)"


def opened(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    migrate(connection, (("CREATE TABLE rows (seq INTEGER PRIMARY KEY, x)",),))
    return connection


def commits_over(connection: sqlite3.Connection, path: Path, **options: Any) -> Commits:
    return Commits(connection, INSERT, Checkpoints(path, every=5), **options)


def rows(path: Path) -> list[object]:
    connection = connect(path)
    found = [x for (x,) in connection.execute("SELECT x FROM rows ORDER BY seq")]
    connection.close()
    return found


def fill(connection: sqlite3.Connection) -> None:
    """No page more than there are: SQLite then answers as on a full disk."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")


def empty(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA max_page_count = 1000000")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.db"


async def test_what_is_durable_is_in_the_file_and_in_order(path: Path) -> None:
    commits = commits_over(opened(path), path)
    for number in range(100):
        commits.append(encoded((number,)))
    await commits.durable()
    assert rows(path) == list(range(100))
    assert commits.pending == 0
    assert commits.lag == 0
    await commits.close()


async def test_many_waiters_share_commits(path: Path) -> None:
    commits = commits_over(opened(path), path)

    async def caller(number: int) -> None:
        for turn in range(20):
            commits.append(encoded((f"{number}-{turn}",)))
            await commits.durable()

    await asyncio.gather(*(caller(number) for number in range(20)))
    assert len(rows(path)) == 400
    await commits.close()


async def test_a_row_that_nobody_waits_for_is_written_soon(path: Path) -> None:
    commits = commits_over(opened(path), path, linger=0.001)
    commits.append(encoded(("alone",)))
    while commits.pending:
        await asyncio.sleep(0.001)
    assert rows(path) == ["alone"]
    await commits.close()


async def test_closing_writes_what_waits(path: Path) -> None:
    commits = commits_over(opened(path), path, linger=60)
    commits.append(encoded(("last",)))
    await commits.close()
    assert rows(path) == ["last"]


async def test_what_comes_while_it_closes_is_written_too(path: Path) -> None:
    commits = commits_over(opened(path), path, linger=60)
    commits.append(encoded(("before",)))
    closing = asyncio.create_task(commits.close())
    await asyncio.sleep(0)
    commits.append(encoded(("meanwhile",)))
    await closing
    assert rows(path) == ["before", "meanwhile"]


async def test_what_does_not_come_back_as_it_was_is_replaced_before_it_is_written(path: Path) -> None:
    """Half of a surrogate pair is no UTF-8, and NUL ends a text."""
    commits = commits_over(opened(path), path)
    for text in ("half \ud83d", "before\0after", "\\u0000", "whole \U0001f600"):
        commits.append(encoded((text,)))
    await commits.close()
    assert rows(path) == ["half ?", "before\ufffdafter", "\\u0000", "whole \U0001f600"]


async def test_a_long_backlog_is_written_in_several_statements_and_in_order(path: Path) -> None:
    commits = commits_over(opened(path), path, linger=60)
    for number in range(2 * BATCH + 1):
        commits.append(encoded((number,)))
    await commits.durable()
    assert rows(path) == list(range(2 * BATCH + 1))
    await commits.close()


async def test_a_full_disk_refuses_the_waiter_keeps_the_rows_and_heals(path: Path) -> None:
    connection = opened(path)
    commits = commits_over(connection, path, retry=0.001)
    big = "x" * 10_000
    fill(connection)
    commits.append(encoded((big,)))
    with pytest.raises(Overloaded, match="full"):
        await commits.durable()
    with pytest.raises(Overloaded):
        commits.admit()
    assert commits.pending == 1
    commits.append(encoded(("after",)))
    empty(connection)
    while commits.pending:
        await asyncio.sleep(0.001)
    commits.admit()
    assert rows(path) == [big, "after"]
    await commits.close()


async def test_closing_on_a_full_disk_says_what_is_lost(path: Path) -> None:
    connection = opened(path)
    commits = commits_over(connection, path)
    fill(connection)
    commits.append(encoded(("x" * 10_000,)))
    with pytest.raises(Overloaded, match="1 rows are lost"):
        await commits.close()


async def test_new_work_is_refused_when_too_many_rows_wait(path: Path) -> None:
    commits = commits_over(opened(path), path, limit=3, linger=60)
    for number in range(3):
        commits.admit()
        commits.append(encoded((number,)))
    with pytest.raises(Overloaded):
        commits.admit()
    await commits.durable()
    commits.admit()
    await commits.close()
    with pytest.raises(Overloaded):
        commits.admit()


async def test_a_waiter_that_is_cancelled_disturbs_nobody(path: Path) -> None:
    commits = commits_over(opened(path), path)
    commits.append(encoded((1,)))
    gone, stays = (asyncio.create_task(commits.durable()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert rows(path) == [1]
    await commits.close()


VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_characters="\0", codec="utf-8"))


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=20))
def test_every_value_comes_back_as_it_was(values: list[Any]) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE rows (seq INTEGER PRIMARY KEY, x)")
    connection.execute(INSERT, ((b"[" + b",".join(encoded([value]) for value in values) + b"]").decode(),))
    assert [x for (x,) in connection.execute("SELECT x FROM rows ORDER BY seq")] == values
    connection.close()
