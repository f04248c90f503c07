"""What a process meets when its PostgreSQL is killed, hangs, is restarted or does not let it in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from headgate.model.errors import Overloaded
from headgate.storage.postgres import Postgres
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.waiting import is_refused_at_once, outcome, until_well

SECONDS = 0.5
POOL = 4
SECRET = "s3cret-of-ann"


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
async def postgres(server: PostgresServer) -> AsyncIterator[Postgres]:
    postgres = Postgres(server.url, pool=POOL, patience=SECONDS, seconds=SECONDS)
    await all_at_once(postgres)
    yield postgres
    await postgres.close()


async def all_at_once(postgres: Postgres) -> list[object]:
    """What those meet who use every connection at the same time."""
    return await asyncio.gather(*(outcome(postgres.query("SELECT pg_sleep(0.01)")) for _ in range(POOL)))


def changes(caplog) -> list[str]:
    """What is in the log: nobody but the footing has anything to say."""
    assert {record.name for record in caplog.records} <= {"headgate.storage.footing"}
    return caplog.messages


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "in order"])
async def test_a_restart_while_nobody_asks_is_not_noticed(server, postgres, caplog, killed) -> None:
    if killed:
        await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
    assert not any(isinstance(one, Overloaded) for one in await all_at_once(postgres))
    assert changes(caplog) == []


async def test_a_restart_behind_pgbouncer_while_nobody_asks_is_not_noticed(server, caplog) -> None:
    with PgBouncer(server.url) as bouncer:
        postgres = Postgres(bouncer.url, pool=POOL)
        await all_at_once(postgres)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)
        assert not any(isinstance(one, Overloaded) for one in await all_at_once(postgres))
        await asyncio.to_thread(bouncer.restart)
        assert not any(isinstance(one, Overloaded) for one in await all_at_once(postgres))
        await postgres.close()
    assert changes(caplog) == []


async def test_a_server_that_is_killed_refuses_at_once_and_is_found_again(server, postgres, caplog) -> None:
    await asyncio.to_thread(server.kill)
    for _ in range(3):
        assert isinstance(await outcome(postgres.query("SELECT 1")), Overloaded)
    assert await is_refused_at_once(lambda: postgres.query("SELECT 1"))
    await asyncio.to_thread(server.restart)
    await until_well(postgres.probe)
    assert not any(isinstance(one, Overloaded) for one in await all_at_once(postgres))
    told = changes(caplog)
    assert len(told) == 2
    assert told[0].startswith("PostgreSQL does not answer: connection to server at ")
    assert told[1] == "PostgreSQL answers again"


async def test_what_a_killed_server_was_doing_is_told_and_not_repeated(server, postgres) -> None:
    await postgres.query("CREATE TABLE notes (text text)")

    async def add() -> None:
        async with postgres.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES ('a')")
            await asyncio.to_thread(server.kill)
            await connection.execute("INSERT INTO notes VALUES ('b')")

    assert isinstance(await outcome(add()), Overloaded)
    await asyncio.to_thread(server.restart)
    await until_well(postgres.probe)
    assert await postgres.query("SELECT * FROM notes") == []


async def test_connections_that_are_cut_in_mid_traffic_are_made_anew(server, postgres, caplog) -> None:
    over = asyncio.Event()

    async def ask() -> list[object]:
        outcomes = []
        while not over.is_set():
            outcomes.append(await outcome(postgres.query("SELECT 1")))
        return outcomes

    asking = [asyncio.ensure_future(ask()) for _ in range(2)]
    with psycopg.connect(server.url, autocommit=True) as other:
        for _ in range(5):
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'headgate' AND pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.05)
    over.set()
    outcomes = [one for task in asking for one in await task]
    lost = [one for one in outcomes if isinstance(one, Overloaded)]
    assert len(lost) <= 10, "one of each connection that was cut while it was in use"
    assert not any(isinstance(one, Overloaded) for one in await all_at_once(postgres))
    assert changes(caplog) == []


async def test_a_server_that_hangs_keeps_nobody_waiting_longer_than_allowed(server, postgres, caplog) -> None:
    await asyncio.to_thread(server.stop_the_world)
    async with asyncio.timeout(SECONDS * 8):
        outcomes = await asyncio.gather(*(outcome(postgres.query("SELECT 1")) for _ in range(50)))
    assert all(isinstance(one, Overloaded) for one in outcomes)
    assert await is_refused_at_once(lambda: postgres.query("SELECT 1"))
    server.go_on()
    await until_well(postgres.probe)
    await until_well(lambda: all_are_back(postgres))
    assert [line.partition(": ")[0] for line in changes(caplog)] == [
        "PostgreSQL does not answer",
        "PostgreSQL answers again",
    ]


async def all_are_back(postgres: Postgres) -> None:
    """Raises Overloaded unless all connections work, each with the answers to its own questions."""
    asked = (postgres.query("SELECT pg_sleep(0.01), %s::int", (number,)) for number in range(POOL))
    for number, rows in enumerate(await asyncio.gather(*asked, return_exceptions=True)):
        if isinstance(rows, Overloaded):
            raise rows
        assert [row[1] for row in rows] == [number]


async def test_a_server_that_hangs_when_it_is_connected_to_is_given_up_as_soon(server) -> None:
    postgres = Postgres(server.url, seconds=SECONDS)
    await asyncio.to_thread(server.stop_the_world)
    async with asyncio.timeout(SECONDS * 8):
        assert isinstance(await outcome(postgres.probe()), Overloaded)
    await postgres.close()
    server.go_on()


async def test_who_leaves_while_the_server_hangs_leaves_at_once_and_nothing_behind(server, caplog) -> None:
    postgres = Postgres(server.url, pool=POOL, seconds=600)
    await all_at_once(postgres)
    await asyncio.to_thread(server.stop_the_world)

    async def write() -> None:
        async with postgres.transaction() as connection, connection.cursor() as cursor:
            await cursor.executemany("SELECT %s", [("a",), ("b",)])

    asking = [
        asyncio.ensure_future(each)
        for each in (
            postgres.query("SELECT 1"),
            postgres.query("SELECT 1"),
            write(),
            write(),
            postgres.query("SELECT 1"),
        )
    ]
    await asyncio.sleep(0.05)
    for one in asking:
        one.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert all(one.done() for one in asking)
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*asking, return_exceptions=True))
    server.go_on()
    await until_well(lambda: all_are_back(postgres))
    await postgres.close()
    assert changes(caplog) == []


async def test_closing_while_nothing_answers_ends(server) -> None:
    postgres = Postgres(server.url, pool=POOL, seconds=600)
    await all_at_once(postgres)
    await asyncio.to_thread(server.stop_the_world)
    waiting = [asyncio.ensure_future(postgres.query("SELECT 1")) for _ in range(POOL - 1)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    async with asyncio.timeout(10):
        await postgres.close()
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    server.go_on()


@pytest.fixture
def guarded(server: PostgresServer) -> PostgresServer:
    """One that wants the password of the user `ann`."""
    rules = server.folder / "data" / "pg_hba.conf"
    rules.write_text(
        f"host all ann 127.0.0.1/32 scram-sha-256\nhost all barred 127.0.0.1/32 reject\n{rules.read_text()}"
    )
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE ann LOGIN PASSWORD '{SECRET}'")
        connection.execute("CREATE ROLE barred LOGIN")
        connection.execute("SELECT pg_reload_conf()")
    server.wait_until(lambda: refuses(server), "its rules")
    return server


def refuses(server: PostgresServer) -> bool:
    try:
        psycopg.connect(server.url, user="barred").close()
    except psycopg.OperationalError:
        return True
    return False


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"user": "ann", "password": f"not-{SECRET}"}, "password authentication failed"),
        ({"user": "ann"}, "no password supplied"),
        ({"user": "nobody-knows"}, 'role "nobody-knows" does not exist'),
        ({"user": "barred"}, "rejects connection"),
        ({"user": "ann", "password": SECRET, "dbname": "nowhere"}, 'database "nowhere" does not exist'),
    ],
)
async def test_a_server_that_lets_nobody_in_is_told_at_once_in_one_line_with_what_to_do(
    guarded, caplog, settings, told
) -> None:
    postgres = Postgres(make_conninfo(guarded.url, **settings), patience=600.0, seconds=600.0)
    async with asyncio.timeout(60):
        for _ in range(5):
            with pytest.raises(Overloaded) as caught:
                await postgres.probe()
    assert told in str(caught.value)
    assert "`storage.url`" in str(caught.value)
    assert SECRET not in repr(caught.value)
    assert "\n" not in str(caught.value)
    (line,) = changes(caplog)
    assert line.startswith("PostgreSQL does not do its work: ")
    assert SECRET not in line
    await postgres.close()


async def test_a_server_without_a_connection_left_says_which_settings_do_not_fit(caplog) -> None:
    with PostgresServer(max_connections=5, superuser_reserved_connections=0, max_wal_senders=0) as server:
        postgres, greedy = Postgres(server.url), [psycopg.connect(server.url) for _ in range(4)]
        await postgres.probe()
        outcomes = await asyncio.gather(*(outcome(postgres.query("SELECT pg_sleep(0.2)")) for _ in range(5)))
        refused = [str(one) for one in outcomes if isinstance(one, Overloaded)]
        assert len(refused) == 4
        assert all("`max_connections` there must hold `storage.pool`" in one for one in refused)
        assert postgres.footing.closed, "those that there are go on working"
        for one in greedy:
            one.close()
        await postgres.close()


async def test_a_server_that_became_a_replica_is_connected_to_anew(server, postgres) -> None:
    ((before,),) = await postgres.query("SELECT pg_backend_pid()")
    with psycopg.connect(server.url, autocommit=True) as other:
        other.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        other.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(20):
            while await outcome(postgres.query("SHOW default_transaction_read_only")) != [("on",)]:
                await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="read-only"):
            await postgres.query("CREATE TABLE notes (text text)")
    assert await postgres.query("SELECT pg_backend_pid()") != [(before,)]
