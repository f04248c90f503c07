"""SQLite: migrations, transactions, the thread of one's own, and the claim on a file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from headgate.model.errors import Conflict, Overloaded
from headgate.storage.sqlite import Claim, Database, connect, lenient, migrate, snapshot, transaction

STEPS = (("CREATE TABLE a (x INTEGER)",), ("CREATE TABLE b (x INTEGER)", "INSERT INTO b VALUES (7)"))


def test_a_file_is_brought_to_the_newest_schema_once(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db")
    migrate(connection, STEPS[:1])
    migrate(connection, STEPS)
    migrate(connection, STEPS)
    assert connection.execute("SELECT x FROM b").fetchall() == [(7,)]
    connection.close()


def test_a_file_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db")
    migrate(connection, STEPS)
    with pytest.raises(Conflict, match="version 2"):
        migrate(connection, STEPS[:1])
    connection.close()


def test_a_step_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db")
    with pytest.raises(Exception, match="syntax"):
        migrate(connection, (("CREATE TABLE a (x INTEGER)", "CREATE TABEL b"),))
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db")
    migrate(connection, (("CREATE TABLE c (x INTEGER NOT NULL)",),))
    with pytest.raises(sqlite3.IntegrityError), transaction(connection):
        connection.executemany("INSERT INTO c VALUES (?)", [(1,), (2,), (None,)])
    assert connection.execute("SELECT count(*) FROM c").fetchone() == (0,)
    connection.close()


def test_files_are_in_wal_mode_and_check_foreign_keys(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    connection.close()


async def test_a_database_works_in_its_thread_and_its_troubles_are_typed(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")
    await database.call(lambda connection: migrate(connection, STEPS))
    assert await database.query("SELECT x + ? FROM b", (1,)) == [(8,)]
    database.close()
    nowhere = Database(tmp_path / "no such folder" / "a.db")
    with pytest.raises(Overloaded):
        await nowhere.query("SELECT 1")
    nowhere.close()


def test_a_claim_is_freed_by_its_release_and_by_the_death_of_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    code = f"import sys; from headgate.storage.sqlite import Claim; c = Claim({str(path)!r}); print('ok', flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == b"ok\n"
    with pytest.raises(Conflict, match=f"process {child.pid}"):
        Claim(path)
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    claim = Claim(path)
    claim.release()
    Claim(path).release()


def test_a_snapshot_is_of_one_moment_and_keeps_no_writer_waiting(tmp_path: Path) -> None:
    reader, writer = connect(tmp_path / "a.db"), connect(tmp_path / "a.db")
    migrate(writer, STEPS)
    with snapshot(reader):
        assert reader.execute("SELECT x FROM b").fetchall() == [(7,)]
        writer.execute("UPDATE b SET x = 8")
        assert reader.execute("SELECT x FROM b").fetchall() == [(7,)]
    assert reader.execute("SELECT x FROM b").fetchall() == [(8,)]
    reader.close()
    writer.close()


def test_text_that_damage_has_made_none_can_be_read_when_it_is_asked_for(tmp_path: Path) -> None:
    connection = connect(tmp_path / "a.db")
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="UTF-8"):
            connection.execute("SELECT CAST(x'61ff' AS TEXT)").fetchone()
        with lenient(connection):
            assert connection.execute("SELECT CAST(x'61ff' AS TEXT)").fetchone() == ("a\udcff",)
    connection.close()


def test_a_schema_that_is_no_text_any_more_is_a_database_error(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = connect(path)
    migrate(connection, STEPS)
    connection.close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE a", b"CREATE TABLE \xe1"))
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        connect(path)


def test_opening_a_file_that_is_up_to_date_writes_nothing_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    states = []
    for _ in range(2):
        connection = connect(path)
        migrate(connection, STEPS)
        connection.close()
        states.append(path.read_bytes())
    assert states[0] == states[1]
