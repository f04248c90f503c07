"""The connections of one process to PostgreSQL, and the steps that prepare a database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from psycopg import errors
from psycopg.conninfo import make_conninfo

from headgate.model.errors import Conflict, Overloaded
from headgate.storage.postgres import Postgres
from headgate.storage.postgres_pool import Pool

ROOMS = {
    "notes": (
        ("CREATE TABLE notes (text text)",),
        ("ALTER TABLE notes ADD COLUMN at float8", "CREATE INDEX ON notes (at)"),
    )
}
NEWER = {
    "notes": (*ROOMS["notes"], ("ALTER TABLE notes ADD COLUMN by text",)),
    "more": (("CREATE TABLE more (n int)",),),
}


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[Postgres]:
    postgres = Postgres(database_url, pool=4, patience=0.2)
    yield postgres
    await postgres.close()


@pytest.fixture
async def through(database_url, pgbouncer) -> AsyncIterator[Postgres]:
    postgres = Postgres(pgbouncer.through(database_url), pool=4)
    yield postgres
    await postgres.close()


@asynccontextmanager
async def all_taken(postgres: Postgres) -> AsyncIterator[None]:
    """While all of its four connections are in use."""
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(postgres.connection())
        yield


async def connections(postgres: Postgres) -> int:
    """How many lead to its database now."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    ((count,),) = await postgres.query(sql)
    return int(count)


async def test_a_statement_answers_with_its_rows_or_with_none(postgres) -> None:
    assert await postgres.query("CREATE TABLE notes (text text)") == []
    assert await postgres.query("INSERT INTO notes VALUES (%s), (%s)", ("a", "b")) == []
    assert await postgres.query("SELECT text FROM notes WHERE text > %(least)s", {"least": "a"}) == [("b",)]


async def test_a_transaction_is_done_as_a_whole_or_not_at_all(postgres) -> None:
    await postgres.migrate(ROOMS)
    with pytest.raises(errors.DivisionByZero):
        async with postgres.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES ('a')")
            await connection.execute("SELECT 1 / 0")
    assert await postgres.query("SELECT text FROM notes") == []
    async with postgres.transaction() as connection:
        await connection.execute("INSERT INTO notes VALUES ('b')")
    assert await postgres.query("SELECT text FROM notes") == [("b",)]


async def test_a_no_is_an_answer_and_its_connection_is_used_again(postgres, caplog) -> None:
    ((first,),) = await postgres.query("SELECT pg_backend_pid()")
    for _ in range(5):
        with pytest.raises(errors.SyntaxError):
            await postgres.query("SELEKT 1")
        with pytest.raises(errors.InvalidTextRepresentation):
            async with postgres.transaction() as connection:
                await connection.execute("SELECT 'x'::int")
    assert await postgres.query("SELECT pg_backend_pid()") == [(first,)]
    assert caplog.messages == []


async def test_what_fails_in_a_transaction_but_not_in_the_database_is_raised_as_it_is(postgres) -> None:
    with pytest.raises(TimeoutError, match="of something else"):
        async with postgres.transaction():
            raise TimeoutError("of something else")
    assert postgres.footing.closed


async def test_never_are_there_more_connections_than_allowed(database_url) -> None:
    postgres = Postgres(database_url, pool=4, patience=60.0)

    async def ask() -> int:
        await postgres.query("SELECT pg_sleep(0.001)")
        return await connections(postgres)

    assert max(await asyncio.gather(*(ask() for _ in range(100)))) <= 4
    await postgres.close()


async def test_when_all_connections_are_in_use_it_says_which_setting_allows_more(postgres, caplog) -> None:
    async with all_taken(postgres):
        for outcome in await asyncio.gather(*(postgres.query("SELECT 1") for _ in range(10)), return_exceptions=True):
            assert isinstance(outcome, Overloaded)
            assert "All 4 connections to PostgreSQL are in use; `storage.pool` allows more." in str(outcome)
    assert await postgres.query("SELECT 1") == [(1,)]
    assert postgres.footing.closed
    assert caplog.messages == []


async def test_who_waits_for_a_connection_and_is_cancelled_takes_none_along(postgres) -> None:
    async with all_taken(postgres):
        waiting = [asyncio.ensure_future(postgres.query("SELECT 1")) for _ in range(10)]
        await asyncio.sleep(0)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with all_taken(postgres):
        pass


async def test_who_is_cancelled_at_any_moment_takes_no_connection_along(postgres) -> None:
    for turns in range(60):
        one = asyncio.ensure_future(postgres.query("SELECT 1"))
        for _ in range(turns % 12):
            await asyncio.sleep(0)
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
    # What was left in the middle of a statement has its place back once the server was told.
    async with asyncio.timeout(20):
        while True:
            try:
                async with all_taken(postgres):
                    break
            except Overloaded:
                continue
    assert postgres.footing.closed


async def test_a_statement_that_nobody_waits_for_any_more_is_stopped(postgres, database_url) -> None:
    asking = asyncio.ensure_future(postgres.query("SELECT pg_sleep(600)"))
    sql = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"
    other = Postgres(database_url)
    async with asyncio.timeout(20):
        while await other.query(sql) != [(1,)]:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        while await other.query(sql) != [(0,)]:
            await asyncio.sleep(0.01)
    await other.close()


async def test_a_transaction_that_waits_for_something_else_when_it_is_cancelled_is_rolled_back(postgres) -> None:
    await postgres.migrate(ROOMS)
    begun = asyncio.Event()

    async def write() -> None:
        async with postgres.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES ('a')")
            begun.set()
            await asyncio.Event().wait()

    writing = asyncio.ensure_future(write())
    await begun.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    async with postgres.transaction() as connection:
        await connection.execute("LOCK TABLE notes")
        cursor = await connection.execute("SELECT text FROM notes")
        assert await cursor.fetchall() == []


async def test_that_others_hold_a_lock_is_no_fault_of_the_server(postgres) -> None:
    await postgres.migrate(ROOMS)
    async with postgres.transaction() as holder:
        await holder.execute("LOCK TABLE notes")
        for _ in range(5):
            with pytest.raises(Overloaded, match="lock"):
                async with postgres.transaction() as connection:
                    await connection.execute("LOCK TABLE notes NOWAIT")
    assert postgres.footing.closed


async def test_an_idle_connection_is_closed_in_time(database_url) -> None:
    pool = Pool(database_url, most=4, patience=1.0, idle=0.0)
    async with pool.connection() as first, pool.connection() as second:
        pass
    assert second.closed, "it came back first"
    assert first.stands
    await pool.close()
    assert first.closed


async def test_after_the_end_there_are_no_connections(postgres) -> None:
    async with postgres.connection() as connection:
        await postgres.query("SELECT 1")
        await postgres.close()
        await connection.execute("SELECT 1")
    assert connection.closed
    with pytest.raises(Overloaded, match="closed"):
        await postgres.query("SELECT 1")
    await postgres.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cret%zz@localhost/db",
        "postgresql://ann:s3cret@[::1/db",
        "postgresql://ann:p@s3cret@localhost/db",
        "postgresql://ann:s3cret@localhost/db?nonsense=1",
    ],
)
def test_a_url_that_cannot_be_read_is_not_quoted(url) -> None:
    with pytest.raises(Conflict) as caught:
        Postgres(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None or "s3cret" not in str(caught.value.__cause__)


async def test_steps_are_taken_once_and_in_their_order(postgres) -> None:
    assert await postgres.migrate(ROOMS) == {"notes": 2}
    assert await postgres.migrate(ROOMS) == {}
    assert await postgres.migrate(NEWER) == {"notes": 1, "more": 1}
    rows = await postgres.query("SELECT room, step FROM headgate_steps ORDER BY 1, 2")
    assert rows == [("more", 1), ("notes", 1), ("notes", 2), ("notes", 3)]


async def test_processes_that_prepare_a_database_together_take_turns(postgres, database_url, through) -> None:
    others = [Postgres(database_url) for _ in range(4)]
    taken = await asyncio.gather(*(each.migrate(ROOMS) for each in (*others, postgres, through)))
    assert sorted(map(len, taken)) == [0, 0, 0, 0, 0, 1]
    assert {"notes": 2} in taken
    for each in others:
        await each.close()


async def test_a_step_that_fails_leaves_nothing(postgres) -> None:
    broken = {**ROOMS, "worse": (("CREATE TABLE worse (n int)", "CREATE TABLE worse (n int)"),)}
    with pytest.raises(Conflict, match='nothing was changed: relation "worse" already exists'):
        await postgres.migrate(broken)
    for table in ("notes", "worse", "headgate_steps"):
        assert await postgres.query("SELECT to_regclass(%s)", (table,)) == [(None,)]
    assert await postgres.migrate(ROOMS) == {"notes": 2}


async def test_a_program_accepts_the_schema_of_a_newer_one_and_tells_an_older_one(postgres) -> None:
    with pytest.raises(Conflict, match=r"not prepared for this version \(notes\): run `headgate migrate`"):
        await postgres.check(ROOMS)
    await postgres.migrate(NEWER)
    await postgres.check(ROOMS)
    assert await postgres.migrate(ROOMS) == {}
    with pytest.raises(Conflict, match=r"\(later\)"):
        await postgres.check({**NEWER, "later": (("SELECT 1",),)})


async def test_a_step_may_take_longer_than_a_statement(database_url) -> None:
    postgres = Postgres(database_url, seconds=0.5)
    assert await postgres.migrate({"slow": (("SELECT pg_sleep(0.7)",),)}) == {"slow": 1}
    await postgres.close()


async def test_all_of_it_works_behind_pgbouncer(through) -> None:
    assert await through.migrate(NEWER) == {"notes": 3, "more": 1}
    await through.check(NEWER)

    async def note(number: int) -> None:
        async with through.transaction() as connection, connection.cursor() as cursor:
            await cursor.executemany("INSERT INTO notes (text) VALUES (%s)", [(f"{number}a",), (f"{number}b",)])

    await asyncio.gather(*(note(number) for number in range(50)))
    for _ in range(10):  # a prepared statement would be missed on some of them
        assert await through.query("SELECT count(*) FROM notes WHERE text > %s", ("",)) == [(100,)]


async def test_a_database_that_is_not_prepared_and_rights_that_are_missing_are_told_with_what_to_do(
    postgres, database_url, caplog
) -> None:
    with pytest.raises(Overloaded, match='relation "notes" does not exist: run `headgate migrate`'):
        await postgres.query("SELECT * FROM notes")
    await postgres.migrate(ROOMS)
    await postgres.query("DROP ROLE IF EXISTS guest")
    await postgres.query("CREATE ROLE guest LOGIN")
    guest = Postgres(make_conninfo(database_url, user="guest"))
    with pytest.raises(Overloaded, match=r"permission denied for table notes: grant it to the user of `storage\.url`"):
        await guest.query("SELECT * FROM notes")
    with pytest.raises(Overloaded, match="permission denied for table headgate_steps"):
        await guest.check(ROOMS)
    await postgres.query("GRANT SELECT ON headgate_steps TO guest")
    assert await guest.migrate(ROOMS) == {}, "it is complete, and nothing has to be allowed"
    with pytest.raises(Overloaded, match="permission denied for schema public"):
        await guest.migrate(NEWER)
    assert guest.footing.closed
    assert len(caplog.messages) == 2
    await guest.close()
    await postgres.query("DROP OWNED BY guest")
    await postgres.query("DROP ROLE guest")
