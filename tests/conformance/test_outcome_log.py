"""What every OutcomeLog must do. To check your own: subclass OutcomeLogConformance and give it an `open_log` fixture."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from headgate.routing import outcomes_behind
from headgate.routing.outcomes import Outcome, OutcomeLog
from headgate.routing.outcomes_behind import OutcomesBehind
from headgate.routing.outcomes_memory import MemoryOutcomes
from headgate.storage import behind, behind_postgres
from headgate.storage.behind_postgres import PostgresRows
from headgate.storage.behind_sqlite import SqliteRows
from headgate.storage.postgres import Postgres

OpenLog = Callable[[], Awaitable[OutcomeLog]]


def outcome(number: int, **more) -> Outcome:
    told = {"outcome": 0.5, "origin": "feedback"} if number % 3 else {}
    return Outcome(
        id=f"c{number}",
        at=1_000.5 + number,
        tenant="acme",
        route="auto",
        candidates={"low": ("small",), "high": ("large", "larger")},
        tier="low" if number % 2 else "high",
        propensity=0.99,
        decider="features" if number % 5 else None,
        version=1,
        features=(0.25, 1.0),
        vector=bytes(range(8)),
        deployment="small" if number % 7 else None,
        cost=number,
        latency=0.5,
        **{**told, **more},
    )


class OutcomeLogConformance:
    """Inherit from this. Each call of `open_log` opens the log that the one before has closed."""

    async def test_a_new_log_is_empty(self, open_log: OpenLog) -> None:
        log = await open_log()
        assert list(log.past()) == []
        assert log.lost == 0
        await log.close()

    async def test_what_was_kept_is_there_again_in_its_order(self, open_log: OpenLog) -> None:
        log = await open_log()
        for number in range(50):
            log.keep(outcome(number))
        await log.close()
        log = await open_log()
        assert list(log.past()) == [outcome(number) for number in range(50)]
        await log.close()

    async def test_what_is_said_later_takes_the_place_of_what_was_known(self, open_log: OpenLog) -> None:
        log = await open_log()
        for number in range(3):
            log.keep(outcome(number))
        later = outcome(0, outcome=0.0, origin="retry")
        log.keep(later)
        await log.close()
        log = await open_log()
        assert list(log.past()) == [later, outcome(1), outcome(2)]
        log.keep(outcome(1, outcome=1.0, origin="judge"))
        await log.close()
        log = await open_log()
        assert [one.origin for one in log.past()] == ["retry", "judge", "feedback"]
        await log.close()


class TestMemoryOutcomes(OutcomeLogConformance):
    @pytest.fixture
    def open_log(self) -> OpenLog:
        log = MemoryOutcomes()

        async def open_log() -> OutcomeLog:
            return log

        return open_log

    def test_the_oldest_are_forgotten(self) -> None:
        log = MemoryOutcomes(most=3)
        for number in range(5):
            log.keep(outcome(number))
        assert [one.id for one in log.past()] == ["c2", "c3", "c4"]


class TestOutcomesBehindInAFile(OutcomeLogConformance):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "routing.db"

    @pytest.fixture
    def open_log(self, path: Path) -> OpenLog:
        return lambda: OutcomesBehind.open(SqliteRows(path, outcomes_behind.TABLES))

    async def test_the_oldest_are_forgotten(self, open_log: OpenLog, path: Path) -> None:
        log = await open_log()
        most = outcomes_behind.ROWS
        for start in range(0, most + 4_000, 9_000):
            for number in range(start, min(start + 9_000, most + 4_000)):
                log.keep(outcome(number))
            await log.close()
            log = await open_log()
        past = log.past()
        await log.close()
        assert len(past) == most
        assert past[-1] == outcome(most + 3_999)
        with sqlite3.connect(path) as connection:
            rows = connection.execute("SELECT count(*) FROM outcomes").fetchone()[0]
        connection.close()
        assert rows <= most + behind.BOUND_EVERY

    @pytest.mark.parametrize("content", [b"not a database at all" * 100, b""])
    async def test_a_broken_file_is_set_aside_and_begun_anew(
        self, open_log: OpenLog, path: Path, content: bytes
    ) -> None:
        path.write_bytes(content)
        log = await open_log()
        log.keep(outcome(1))
        await log.close()
        log = await open_log()
        assert list(log.past()) == [outcome(1)]
        await log.close()
        if content:
            assert path.with_suffix(".broken").read_bytes() == content

    async def test_a_row_that_is_none_is_skipped(self, open_log: OpenLog, path: Path) -> None:
        log = await open_log()
        for number in range(4):
            log.keep(outcome(number))
        await log.close()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE outcomes SET tier = 'dream' WHERE id = 'c0'")
            connection.execute("UPDATE outcomes SET candidates = '{' WHERE id = 'c2'")
        connection.close()
        log = await open_log()
        assert [one.id for one in log.past()] == ["c1", "c3"]
        await log.close()

    async def test_a_place_that_cannot_be_written_costs_the_outcomes_which_are_counted(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            log = await OutcomesBehind.open(SqliteRows(tmp_path / "nowhere" / "routing.db", outcomes_behind.TABLES))
            log.keep(outcome(1))
            log.keep(outcome(2))
            await log.close()
        assert "cannot be written" in caplog.text
        assert log.lost == 2

    async def test_more_than_can_wait_is_lost_and_counted(self, open_log: OpenLog) -> None:
        log = await open_log()
        for number in range(behind.WAITING + 3):
            log.keep(outcome(number))
        assert log.lost == 3
        await log.close()


def test_a_row_is_json_and_back() -> None:
    for number in range(3):
        assert msgspec.json.decode(msgspec.json.encode(outcome(number)), type=Outcome) == outcome(number)


class TestOutcomesBehindInPostgreSQL(OutcomeLogConformance):
    @pytest.fixture
    async def postgres(self, database_url: str) -> AsyncIterator[Postgres]:
        postgres = Postgres(database_url)
        await postgres.migrate({"learnt": [behind_postgres.schema(outcomes_behind.TABLES)]})
        yield postgres
        await postgres.close()

    @pytest.fixture
    def open_log(self, postgres: Postgres) -> OpenLog:
        return lambda: OutcomesBehind.open(PostgresRows(postgres, outcomes_behind.TABLES, replica="one"))

    async def test_what_is_said_later_of_a_call_is_news_to_others_again(self, postgres: Postgres) -> None:
        one, two = [
            await OutcomesBehind.open(PostgresRows(postgres, outcomes_behind.TABLES, replica=name))
            for name in ("one", "two")
        ]
        said = msgspec.structs.replace(outcome(1), outcome=0.25, origin="feedback")
        one.keep(outcome(1))
        await one.close()
        assert await two.others() == [outcome(1)]
        one.keep(said)
        await one.close()
        assert await two.others() == [said]
        assert await two.others() == []
