"""What every LabelLog must do. To check your own: subclass LabelLogConformance and give it an `open_log` fixture."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from headgate.cache import labels_behind
from headgate.cache.labels import Label, LabelLog, Scope, Served
from headgate.cache.labels_behind import LabelsBehind
from headgate.cache.labels_memory import MemoryLabels
from headgate.model.tenancy import Namespace
from headgate.storage import behind, behind_postgres
from headgate.storage.behind_postgres import PostgresRows
from headgate.storage.behind_sqlite import SqliteRows
from headgate.storage.postgres import Postgres

OpenLog = Callable[[], Awaitable[LabelLog]]
SCOPE = Scope(Namespace("acme", "de"), bytes(range(32)))


def label(number: int) -> Label:
    return Label(
        scope=SCOPE,
        entry=f"e{number}",
        confidence=0.25 + number / 1_000_000,
        right=number % 2 > 0,
        origin="miss" if number % 3 else "check",
        served=number % 5 > 0,
        at=1_000.5 + number,
        uniform=number % 7 > 0,
    )


def answer(number: int) -> Served:
    return Served(id=f"r{number}", tenant="acme", entry=f"e{number}", tier="semantic", scope=SCOPE, confidence=0.97)


class LabelLogConformance:
    """Inherit from this. Each call of `open_log` opens the log that the one before has closed."""

    async def test_a_new_log_is_empty(self, open_log: OpenLog) -> None:
        log = await open_log()
        labels, answers = log.past()
        assert (list(labels), list(answers)) == ([], [])
        await log.close()

    async def test_what_was_kept_is_there_again_in_its_order(self, open_log: OpenLog) -> None:
        log = await open_log()
        for number in range(50):
            log.label(label(number))
            log.served(answer(number))
        await log.close()
        again = await open_log()
        labels, answers = again.past()
        assert list(labels) == [label(number) for number in range(50)]
        assert list(answers) == [answer(number) for number in range(50)]
        await again.close()

    async def test_what_is_kept_later_comes_after_it(self, open_log: OpenLog) -> None:
        for number in range(3):
            log = await open_log()
            log.label(label(number))
            await log.close()
        log = await open_log()
        assert [one.entry for one in log.past()[0]] == ["e0", "e1", "e2"]
        await log.close()

    async def test_answers_that_have_no_scope_teach_nothing_and_are_not_kept(self, open_log: OpenLog) -> None:
        log = await open_log()
        log.served(Served(id="r", tenant="acme", entry="e", tier="exact"))
        await log.close()
        log = await open_log()
        assert list(log.past()[1]) == []
        await log.close()


class TestMemoryLabels(LabelLogConformance):
    @pytest.fixture
    def open_log(self) -> OpenLog:
        log = MemoryLabels()

        async def open_log() -> LabelLog:
            return log

        return open_log


class TestLabelsBehindInAFile(LabelLogConformance):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "labels.db"

    @pytest.fixture
    def open_log(self, path: Path) -> OpenLog:
        return lambda: LabelsBehind.open(SqliteRows(path, labels_behind.TABLES))

    async def test_the_oldest_are_forgotten(self, open_log: OpenLog, path: Path) -> None:
        log = await open_log()
        most = labels_behind.LABELS
        for start in range(0, most + 3_000, 5_000):
            for number in range(start, min(start + 5_000, most + 3_000)):
                log.label(label(number))
            await log.close()
            log = await open_log()
        labels, _ = log.past()
        await log.close()
        assert len(labels) == most
        assert labels[-1] == label(most + 2_999)
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT count(*) FROM labels").fetchone()[0] <= most + behind.BOUND_EVERY
        connection.close()

    @pytest.mark.parametrize("content", [b"not a database at all" * 100, b""])
    async def test_a_broken_file_is_set_aside_and_begun_anew(
        self, open_log: OpenLog, path: Path, content: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.write_bytes(content)
        log = await open_log()
        log.label(label(1))
        await log.close()
        log = await open_log()
        assert list(log.past()[0]) == [label(1)]
        await log.close()
        if content:
            assert path.with_suffix(".broken").read_bytes() == content
            assert "begun anew" in caplog.text

    async def test_a_file_of_a_newer_version_is_set_aside(self, open_log: OpenLog, path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 9")
        connection.close()
        log = await open_log()
        assert list(log.past()[0]) == []
        await log.close()
        assert path.with_suffix(".broken").exists()

    async def test_a_row_that_is_none_is_skipped(self, open_log: OpenLog, path: Path) -> None:
        log = await open_log()
        log.label(label(1))
        log.label(label(2))
        await log.close()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE labels SET origin = 'dream' WHERE entry = 'e1'")
        connection.close()
        log = await open_log()
        assert [one.entry for one in log.past()[0]] == ["e2"]
        await log.close()

    async def test_a_place_that_cannot_be_written_costs_what_was_learnt_and_nothing_else(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            log = await LabelsBehind.open(SqliteRows(tmp_path / "nowhere" / "labels.db", labels_behind.TABLES))
            log.label(label(1))
            log.label(label(2))
            await log.close()
        assert "cannot be written" in caplog.text


class TestLabelsBehindInPostgreSQL(LabelLogConformance):
    @pytest.fixture
    async def postgres(self, database_url: str) -> AsyncIterator[Postgres]:
        postgres = Postgres(database_url)
        await postgres.migrate({"learnt": [behind_postgres.schema(labels_behind.TABLES)]})
        yield postgres
        await postgres.close()

    @pytest.fixture
    def open_log(self, postgres: Postgres) -> OpenLog:
        return lambda: LabelsBehind.open(PostgresRows(postgres, labels_behind.TABLES, replica="one"))

    async def test_what_one_replica_has_learnt_others_know_soon_and_once(self, postgres: Postgres) -> None:
        one, two = [
            await LabelsBehind.open(PostgresRows(postgres, labels_behind.TABLES, replica=name))
            for name in ("one", "two")
        ]
        one.label(label(1))
        one.served(answer(1))
        two.label(label(2))
        await one.close()
        await two.close()
        assert await two.others() == ([label(1)], [answer(1)])
        assert await two.others() == ([], [])
        assert await one.others() == ([label(2)], [])

    async def test_a_database_that_is_gone_costs_what_was_learnt_and_nothing_else(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        gone = Postgres("postgresql://127.0.0.1:1/nowhere", patience=0.1)
        log = await LabelsBehind.open(PostgresRows(gone, labels_behind.TABLES, replica="one"))
        log.label(label(1))
        assert await log.others() == ([], [])
        await log.close()
        await gone.close()
        assert "cannot be written" in caplog.text
