"""`headgate migrate`: what it does to a database, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from headgate.cli.migrate import migrated
from headgate.fittings_stores import schemas
from headgate.model.errors import Conflict
from headgate.storage.postgres import Step
from tests.servers.pgbouncer import PgBouncer
from tests.unit.cli.conftest import Headgate, printed

FIRST: Step = ("CREATE TABLE one (a integer)", "INSERT INTO one VALUES (1)")
SECOND: Step = ("ALTER TABLE one ADD COLUMN b integer",)
BROKEN: Step = ("CREATE TABLE two (a integer)", "no SQL at all")


@pytest.fixture
def config(tmp_path: Path, database_url: str) -> str:
    path = tmp_path / "shared.yaml"
    path.write_text(f"storage: {{url: '{database_url}'}}")
    return str(path)


def rows(url: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(sql).fetchall()


def test_it_takes_all_steps_of_all_rooms_once_and_says_which(headgate: Headgate, config: str) -> None:
    wanted = {room: len(steps) for room, steps in schemas().items()}
    assert {"budget", "till", "tenants", "billing", "jobs"} <= wanted.keys()
    assert printed(headgate("migrate", "--config", config, "--json")) == {"taken": wanted}
    assert printed(headgate("migrate", "--config", config, "--json")) == {"taken": {}}
    told = headgate("migrate", "--config", config).stdout
    assert told == "nothing to do: the database is prepared for this version\n"


def test_people_are_told_each_room_in_a_line(headgate: Headgate, config: str) -> None:
    lines = headgate("migrate", "--config", config).stdout.splitlines()
    assert len(lines) == len(schemas())
    assert "jobs: 1 step taken" in lines


def test_a_check_changes_nothing_and_fails_where_steps_are_missing(
    headgate: Headgate, config: str, database_url: str
) -> None:
    told = headgate("migrate", "--check", "--config", config, code=1).stderr
    assert told.startswith("error: The database is not prepared for this version (")
    assert told.count("\n") == 1
    assert rows(database_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    headgate("migrate", "--config", config)
    assert printed(headgate("migrate", "--check", "--config", config, "--json")) == {"taken": {}}


def test_with_sqlite_there_is_nothing_to_do(headgate: Headgate) -> None:
    assert headgate("migrate").stdout.startswith("SQLite: nothing to do")
    assert printed(headgate("migrate", "--check", "--json")) == {"taken": {}}


def test_a_server_that_does_not_answer_is_one_line_without_the_password(headgate: Headgate, tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text("storage: {url: 'postgresql://headgate:deep-secret@127.0.0.1:9/headgate'}")
    told = headgate("migrate", "--config", str(path), code=1)
    assert told.stderr.startswith("error: ")
    assert "deep-secret" not in told.output


async def test_processes_that_migrate_at_the_same_time_take_turns(database_url: str, pgbouncer: PgBouncer) -> None:
    urls = [database_url, pgbouncer.through(database_url)] * 2
    taken = await asyncio.gather(*(migrated(url, schemas()) for url in urls))
    assert sorted(len(each) for each in taken) == [0, 0, 0, len(schemas())]


@pytest.mark.parametrize("steps", [(FIRST, BROKEN), (FIRST, SECOND, BROKEN)])
async def test_all_steps_are_taken_or_none(database_url: str, steps: Sequence[Step]) -> None:
    with pytest.raises(Conflict, match="nothing was changed"):
        await migrated(database_url, {"room": steps})
    assert rows(database_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


async def test_a_newer_programs_steps_are_added_and_an_older_one_goes_on(database_url: str) -> None:
    assert await migrated(database_url, {"room": (FIRST,)}) == {"room": 1}
    assert await migrated(database_url, {"room": (FIRST, SECOND)}) == {"room": 1}
    assert rows(database_url, "SELECT a, b FROM one") == [(1, None)]
    assert await migrated(database_url, {"room": (FIRST,)}) == {}
    assert await migrated(database_url, {"room": (FIRST,)}, check=True) == {}
    with pytest.raises(Conflict):
        await migrated(database_url, {"room": (FIRST, SECOND, SECOND)}, check=True)
