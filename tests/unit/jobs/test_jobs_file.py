"""What lies in the file of jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.jobs.jobs import Asked, Outcome
from headgate.jobs.sqlite import SCHEMA, SqliteJobs
from headgate.model.errors import Overloaded
from headgate.model.tenancy import Wishes
from headgate.storage.sqlite import connect, migrate
from tests.conformance.test_job_store import ASKED, DONE, begun, job

SECRET = b"my deepest secret" * 400


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    store = SqliteJobs(tmp_path / "jobs.db")
    await store.add(job(), SECRET)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    await store.close()


async def test_what_was_asked_for_is_gone_when_the_job_has_ended(tmp_path: Path) -> None:
    store = SqliteJobs(tmp_path / "jobs.db")
    await store.add(job(), SECRET)
    first = await begun(store)
    assert SECRET[:17] in written(tmp_path)
    await store.end(first, DONE, 3.0, None)
    await store.close()
    assert SECRET[:17] not in written(tmp_path)
    assert b"llo." in written(tmp_path)


async def test_what_came_of_it_is_gone_after_the_sweep(tmp_path: Path) -> None:
    store = SqliteJobs(tmp_path / "jobs.db")
    await store.add(job(), SECRET)
    await store.end(await begun(store), DONE, 3.0, None)
    await store.sweep(4.0)
    await store.close()
    assert b"llo." not in written(tmp_path)


async def test_the_next_process_finds_what_the_last_one_left(tmp_path: Path) -> None:
    store = SqliteJobs(tmp_path / "jobs.db")
    await store.add(job(), SECRET)
    await begun(store)
    await store.close()
    store = SqliteJobs(tmp_path / "jobs.db")
    assert [waiting.id for waiting in await store.reopen()] == ["a"]
    await store.close()


async def test_a_file_from_before_beginnings_had_numbers_is_brought_up_to_date(tmp_path: Path) -> None:
    connection = connect(tmp_path / "jobs.db")
    migrate(connection, SCHEMA[:1])
    connection.execute(
        "INSERT INTO jobs VALUES ('acme', 'a', ?, ?, 1.0, 'in_flight', 2.0, NULL, 1, ?, NULL, 0, ?)",
        (b"d", len(ASKED), b"", ASKED),
    )
    connection.close()
    store = SqliteJobs(tmp_path / "jobs.db")
    assert [waiting.id for waiting in await store.reopen()] == ["a"]
    assert await begun(store, at=5.0) == job(state="in_flight", begun=5.0, starts=2, turn=1)
    await store.close()


async def test_a_file_that_is_no_database_is_an_error_that_may_pass(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"something else altogether" * 1_000)
    store = SqliteJobs(tmp_path / "jobs.db")
    with pytest.raises(Overloaded, match="file of jobs cannot be used"):
        await store.find("acme", "a")
    await store.close()


def test_what_asks_for_the_same_has_the_same_digest_whoever_asks() -> None:
    one = Asked(body={"model": "auto", "messages": []}, wishes=Wishes(user="u"), key="k")
    assert one.digest == Asked(body={"messages": [], "model": "auto"}, wishes=Wishes(user="u"), key="other").digest
    assert one.digest != Asked(body=one.body, wishes=Wishes(), key="k").digest
    assert one.digest != Asked(body={**one.body, "n": 2}, wishes=one.wishes, key="k").digest


def test_a_job_that_has_not_ended_has_no_outcome() -> None:
    assert job().outcome is None
    assert Outcome().state == "failed"
