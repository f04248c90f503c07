"""What every outbox promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from headgate.billing.billing import DELIVERED, Delivery, Event, Outbox, Outcome, Place
from headgate.billing.memory import MemoryOutbox
from headgate.billing.postgres import SCHEMA, PostgresOutbox
from headgate.billing.sqlite import SqliteOutbox
from headgate.model.errors import Overloaded
from headgate.storage.postgres import Postgres

AGAIN = Outcome("again", "500")
REFUSED = Outcome("refused", "400: no such customer")
SINK = "stripe"


@pytest.fixture(params=["memory", "sqlite", "postgres", "pgbouncer"])
async def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Outbox]:
    if request.param in ("postgres", "pgbouncer"):
        url = request.getfixturevalue("database_url")
        through = request.param == "pgbouncer"
        async with prepared(request.getfixturevalue("pgbouncer").through(url) if through else url) as database:
            yield PostgresOutbox(database, replica="one")
        return
    found: Outbox = MemoryOutbox() if request.param == "memory" else SqliteOutbox(tmp_path / "outbox.db")
    yield found
    await found.close()


@asynccontextmanager
async def prepared(url: str) -> AsyncIterator[Postgres]:
    """Connections to a database that has the tables."""
    postgres = Postgres(url, pool=6)
    await postgres.migrate({"billing": SCHEMA})
    yield postgres
    await postgres.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Postgres]:
    async with prepared(database_url) as found:
        yield found


def event(seq: int, tenant: str = "a", **fields: object) -> Event:
    whole = {"id": f"e{seq}", "seq": seq, "tenant": tenant, "billed": seq, "body": b"%d" % seq, "made": float(seq)}
    return Event(**{**whole, **fields})


def ids(events: list[Event]) -> list[str]:
    return [event.id for event in events]


async def test_a_sink_that_nobody_knows_begins_at_the_beginning(outbox: Outbox) -> None:
    assert await outbox.place(SINK) == Place()
    assert await outbox.pending(SINK, 10) == []
    assert await outbox.parked(SINK, 10) == []
    assert await outbox.standings() == []


async def test_events_and_their_place_come_together(outbox: Outbox) -> None:
    await outbox.add(SINK, [event(2), event(1)], Place(7, 2**32 - 1, 5.5))
    assert await outbox.place(SINK) == Place(7, 2**32 - 1, 5.5)
    assert await outbox.pending(SINK, 10) == [event(1), event(2)]


async def test_a_place_that_was_reached_before_changes_nothing(outbox: Outbox) -> None:
    await outbox.add(SINK, [event(1)], Place(7))
    await outbox.add(SINK, [event(9)], Place(7))
    await outbox.add(SINK, [event(9)], Place(3))
    assert (await outbox.place(SINK), ids(await outbox.pending(SINK, 10))) == (Place(7), ["e1"])


async def test_an_event_that_is_there_stays_as_it_is(outbox: Outbox) -> None:
    await outbox.add(SINK, [event(1), event(2, body=None, reason="no customer")], Place(2))
    await outbox.add(SINK, [event(1, body=b"other"), event(2), event(3)], Place(3))
    assert await outbox.pending(SINK, 10) == [event(1), event(3)]
    assert ids(await outbox.parked(SINK, 10)) == ["e2"]


async def test_a_sink_goes_back_from_where_it_stands_and_from_nowhere_else(outbox: Outbox) -> None:
    before, back = Place(7, 70, 5.0), Place(2, 20, 3.0)
    await outbox.add(SINK, [event(1), event(7)], before)
    await outbox.resolve(SINK, [event(1)], Delivery((DELIVERED,), 9))
    await outbox.stop(SINK, "replaced")
    assert not await outbox.rewind(SINK, Place(7, 71, 5.0), [event(3, body=None)], back)
    assert not await outbox.rewind(SINK, Place(6, 70, 5.0), [], back)
    assert (await outbox.place(SINK), await outbox.parked(SINK, 10)) == (before, [])
    assert await outbox.rewind(SINK, before, [event(3, body=None, reason="look"), event(7, body=None)], back)
    assert await outbox.place(SINK) == back
    assert await outbox.pending(SINK, 10) == [event(7)]
    assert await outbox.parked(SINK, 10) == [event(3, body=None, reason="look")]
    (standing,) = await outbox.standings()
    assert (standing.delivered, standing.delivered_billed, standing.stopped) == (1, 1, "")
    assert await outbox.trying(SINK, [], 0.0) == 9
    await outbox.add(SINK, [event(3), event(4)], Place(4))
    assert ids(await outbox.pending(SINK, 10)) == ["e4", "e7"]


async def test_why_a_sink_has_stopped_is_shown_until_it_goes_on(outbox: Outbox) -> None:
    await outbox.stop("lago", "")
    assert await outbox.standings() == []
    await outbox.add(SINK, [], Place(7))
    assert [standing.stopped for standing in await outbox.standings()] == [""]
    await outbox.stop(SINK, "replaced")
    assert [standing.stopped for standing in await outbox.standings()] == ["replaced"]
    await outbox.stop(SINK, "")
    assert [standing.stopped for standing in await outbox.standings()] == [""]


async def test_sinks_know_nothing_of_each_other(outbox: Outbox) -> None:
    await outbox.add(SINK, [event(1)], Place(1))
    assert await outbox.place("lago") == Place()
    assert await outbox.pending("lago", 10) == []


async def test_the_oldest_come_first_and_some_tenants_may_be_left_out(outbox: Outbox) -> None:
    await outbox.add(SINK, [event(1, "a"), event(2, "b"), event(3, "a"), event(4, "c")], Place(4))
    assert ids(await outbox.pending(SINK, 2)) == ["e1", "e2"]
    assert ids(await outbox.pending(SINK, 2, {"a"})) == ["e2", "e4"]


async def test_the_first_try_is_remembered_and_no_later_one(outbox: Outbox) -> None:
    await outbox.add(SINK, [event(1)], Place(1))
    await outbox.trying(SINK, await outbox.pending(SINK, 1), 10.0)
    await outbox.trying(SINK, await outbox.pending(SINK, 1), 20.0)
    assert [each.tried for each in await outbox.pending(SINK, 1)] == [10.0]


async def test_what_was_delivered_goes_and_is_counted(outbox: Outbox) -> None:
    await outbox.add(SINK, [event(1), event(2)], Place(2))
    events = await outbox.pending(SINK, 10)
    await outbox.resolve(SINK, events, Delivery((DELIVERED, AGAIN), 99))
    assert await outbox.pending(SINK, 10) == [event(2, tries=1, reason="500")]
    (standing,) = await outbox.standings()
    assert (standing.delivered, standing.delivered_billed, standing.pending, standing.pending_billed) == (1, 1, 1, 2)
    assert (standing.oldest, standing.reason) == (2.0, "500")
    assert await outbox.trying(SINK, [], 0.0) == 99


async def test_what_was_refused_is_parked_and_made_anew_when_somebody_asks(outbox: Outbox) -> None:
    await outbox.add(SINK, [event(1), event(2)], Place(2))
    events = await outbox.pending(SINK, 10)
    await outbox.trying(SINK, events, 5.0)
    await outbox.resolve(SINK, events, Delivery((REFUSED, DELIVERED)))
    assert await outbox.pending(SINK, 10) == []
    assert await outbox.parked(SINK, 10) == [event(1, tried=5.0, tries=1, body=None, reason=REFUSED.reason)]
    assert await outbox.retry(SINK) == 1
    (again,) = await outbox.pending(SINK, 10)
    assert (again.tried, again.tries, again.body) == (None, 0, None)
    await outbox.rendered(SINK, replace(again, body=b"new", reason=""))
    assert await outbox.pending(SINK, 10) == [event(1, body=b"new")]


async def test_what_cannot_be_made_is_parked_from_the_start(outbox: Outbox) -> None:
    await outbox.add(SINK, [event(1, body=None, reason="no customer"), event(2)], Place(2))
    assert ids(await outbox.pending(SINK, 10)) == ["e2"]
    assert [each.reason for each in await outbox.parked(SINK, 10)] == ["no customer"]
    await outbox.retry(SINK, ["e1"])
    (again,) = [each for each in await outbox.pending(SINK, 10) if each.body is None]
    await outbox.rendered(SINK, replace(again, reason="still none"))
    assert [each.reason for each in await outbox.parked(SINK, 10)] == ["still none"]


async def test_what_is_set_aside_keeps_its_body(outbox: Outbox) -> None:
    await outbox.add(SINK, [event(1)], Place(1))
    await outbox.park(SINK, await outbox.pending(SINK, 1), "too old")
    assert await outbox.parked(SINK, 10) == [event(1, reason="too old")]
    assert await outbox.retry(SINK, ["other"]) == 0
    assert await outbox.retry(SINK, ["e1"]) == 1
    assert [each.body for each in await outbox.pending(SINK, 1)] == [b"1"]


async def test_amounts_may_be_as_large_as_the_journal_keeps(outbox: Outbox) -> None:
    largest = 2**63 - 1
    await outbox.add(SINK, [event(1, billed=largest), event(2, billed=largest), event(3, billed=largest)], Place(3))
    first = await outbox.pending(SINK, 1)
    await outbox.resolve(SINK, first, Delivery((DELIVERED,)))
    second = await outbox.pending(SINK, 1)
    await outbox.resolve(SINK, second, Delivery((DELIVERED,)))
    (standing,) = await outbox.standings()
    assert (standing.delivered_billed, standing.pending_billed) == (2 * largest, largest)


async def test_a_file_tells_the_next_process_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    before = SqliteOutbox(path)
    await before.add(SINK, [event(1), event(2, body=None, reason="no customer"), event(3)], Place(3))
    await before.trying(SINK, await before.pending(SINK, 1), 5.0)
    await before.resolve(SINK, [event(3)], Delivery((DELIVERED,), 17))
    standings = await before.standings()
    await before.close()
    after = SqliteOutbox(path)
    assert await after.standings() == standings
    assert await after.pending(SINK, 10) == [event(1, tried=5.0)]
    assert await after.trying(SINK, [], 0.0) == 17
    await after.close()


async def test_who_sends_alone_may_go_on_doing_so_and_let_go(outbox: Outbox) -> None:
    assert await outbox.claim(SINK, 60.0)
    await outbox.add(SINK, [event(1), event(2)], Place(2))
    assert await outbox.claim(SINK, 60.0)
    await outbox.trying(SINK, await outbox.pending(SINK, 1), 10.0)
    await outbox.release(SINK)
    assert await outbox.claim(SINK, 60.0)
    await outbox.resolve(SINK, [event(1)], Delivery((DELIVERED,)))
    assert ids(await outbox.pending(SINK, 10)) == ["e2"]


async def test_what_a_sink_says_is_kept_whatever_it_is(outbox: Outbox) -> None:
    await outbox.add(SINK, [event(1)], Place(1))
    await outbox.resolve(SINK, [event(1)], Delivery((Outcome("again", "a\0b\u2028"),)))
    (again,) = await outbox.pending(SINK, 1)
    assert (again.tries, again.reason[0], again.reason[2:]) == (1, "a", "b\u2028")


async def test_of_many_processes_one_sends_to_a_sink_and_others_to_other_sinks(database: Postgres) -> None:
    replicas = [PostgresOutbox(database, replica=f"{number}") for number in range(6)]
    claims = await asyncio.gather(*(replica.claim(SINK, 60.0) for replica in replicas))
    assert claims.count(True) == 1
    assert await replicas[0].claim("lago", 60.0)
    await replicas[claims.index(False)].release(SINK)
    assert not await replicas[claims.index(False)].claim(SINK, 60.0)
    await replicas[claims.index(True)].release(SINK)
    assert await replicas[claims.index(False)].claim(SINK, 60.0)


async def test_a_process_that_died_leaves_nothing_locked(database: Postgres) -> None:
    dead, living = PostgresOutbox(database, replica="dead"), PostgresOutbox(database, replica="living")
    assert await dead.claim(SINK, 0.0)
    await dead.add(SINK, [event(1)], Place(1))
    await dead.trying(SINK, [event(1)], 5.0)
    assert await living.claim(SINK, 60.0)
    assert await living.pending(SINK, 10) == [event(1, tried=5.0)]


@pytest.mark.parametrize("released", [False, True])
async def test_one_that_was_frozen_changes_nothing_once_another_has_sent(database: Postgres, released: bool) -> None:
    frozen, other = PostgresOutbox(database, replica="frozen"), PostgresOutbox(database, replica="other")
    assert await frozen.claim(SINK, 0.0)
    await frozen.add(SINK, [event(1), event(2), event(3, body=None)], Place(3))
    assert await other.claim(SINK, 60.0)
    await other.resolve(SINK, [event(1)], Delivery((DELIVERED,), 7))
    if released:
        await other.release(SINK)
    before = await other.pending(SINK, 10), await other.parked(SINK, 10), await other.standings()
    steps = [
        frozen.add(SINK, [event(1), event(4)], Place(4)),
        frozen.trying(SINK, [event(2)], 5.0),
        frozen.resolve(SINK, [event(2)], Delivery((DELIVERED,), 9)),
        frozen.park(SINK, [event(2)], "too old"),
        frozen.rendered(SINK, event(2, body=b"other")),
    ]
    for step in steps:
        with pytest.raises(Overloaded, match="Another process"):
            await step
    assert (await other.pending(SINK, 10), await other.parked(SINK, 10), await other.standings()) == before


async def test_a_sink_that_is_claimed_and_has_had_nothing_stands_nowhere(outbox: Outbox) -> None:
    await outbox.claim(SINK, 60.0)
    assert await outbox.standings() == []
