"""What every tail of a journal promises. How a backup is restored is for each: tests/unit/budget/test_budget_tail.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from headgate.budget.budget import DurableLedger, Entry, Hold, UsageQuery
from headgate.budget.posted import Bookmark, Fork, JournalTail
from headgate.budget.postgres import PostgresJournal
from headgate.budget.postgres_tail import PostgresTail
from headgate.budget.shared import SharedLedger
from headgate.budget.sqlite import SqliteLedger
from headgate.budget.tail import Tail
from headgate.budget.till_memory import MemoryTill
from headgate.model.errors import Conflict
from headgate.storage.postgres import Postgres
from tests.journals import connected, emptied

START: Bookmark = (0, None)
KINDS = ("settle", "lost", "note")


class Clock:
    """Each look is a second later than the one before."""

    def __init__(self) -> None:
        self.now = 1_795_176_000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class Place(Protocol):
    """Where a journal is: who reads it behind a place, who writes it, and how it is begun anew."""

    tail: JournalTail
    clock: Clock

    def ledger(self) -> DurableLedger: ...

    def begin_anew(self) -> None: ...


class InFile:
    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, Clock()
        self.tail = Tail(path)

    def ledger(self) -> DurableLedger:
        return SqliteLedger(self.path, now=self.clock)

    def begin_anew(self) -> None:
        self.tail.close()
        for file in self.path.parent.glob("headgate.db*"):
            file.unlink()
        self.tail = Tail(self.path)


class InPostgres:
    def __init__(self, url: str, postgres: Postgres) -> None:
        self.url, self.postgres, self.clock = url, postgres, Clock()
        self.tail = PostgresTail(postgres)

    def ledger(self) -> DurableLedger:
        journal = PostgresJournal(self.postgres, now=self.clock)
        return SharedLedger(MemoryTill(clock=self.clock), journal, now=self.clock)

    def begin_anew(self) -> None:
        emptied(self.url)


@pytest.fixture(params=["file", "postgres"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "file":
        found = InFile(tmp_path / "headgate.db")
        yield found
        found.tail.close()
        return
    url = request.getfixturevalue("database_url")
    async with connected(url) as postgres:
        yield InPostgres(url, postgres)


@asynccontextmanager
async def writing(place: Place) -> AsyncIterator[DurableLedger]:
    """A process that writes, until what it wrote is in the journal."""
    ledger = place.ledger()
    yield ledger
    await ledger.usage(UsageQuery())
    await ledger.close()


async def noted(place: Place, *ids: str) -> None:
    """Answers from stock, a row for each."""
    async with writing(place) as ledger:
        for id in ids:
            ledger.note(id, Entry(tenant="t", source="exact", billed=7))
            await ledger.usage(UsageQuery())


async def read(place: Place, after: Bookmark = START, limit: int = 100) -> tuple[Bookmark, list[str]]:
    end, rows = await place.tail.rows(after, KINDS, limit)
    return end, [row.id for row in rows]


async def test_rows_of_the_wanted_kinds_come_in_portions(place: Place) -> None:
    await noted(place, "a", "b", "c")
    async with writing(place) as ledger:
        entry = Entry(tenant="t", route="auto", model="m", amount=3, billed=4, user="ann")
        await ledger.reserve(Hold(id="d", scopes=(), amount=50, least=0, lease=60.0, entry=entry))
        await ledger.dispatched("d")
        ledger.settle("d", [entry])
    end, ids = await read(place, limit=2)
    assert (end[0], ids) == (2, ["a", "b"])
    end, ids = await read(place, end)
    assert (end[0], ids) == (5, ["c", "d"])
    assert await read(place, end) == (end, [])
    await noted(place, "e")
    assert (await read(place, end))[1] == ["e"]


async def test_a_row_is_told_as_it_was_written(place: Place) -> None:
    await noted(place, "a")
    _, (row,) = await place.tail.rows(START, KINDS, 10)
    assert (row.seq, row.id, row.kind) == (1, "a", "note")
    assert (row.entry.tenant, row.entry.source, row.entry.billed) == ("t", "exact", 7)
    assert 1_795_176_000_000_000 < row.at <= place.clock.now * 1_000_000


async def test_a_journal_without_rows_is_at_its_beginning(place: Place) -> None:
    await noted(place)
    assert await read(place) == (START, [])


async def test_another_journal_is_noticed_until_nobody_asks_for_the_row(place: Place) -> None:
    await noted(place, "a", "b")
    end, _ = await read(place)
    place.begin_anew()
    for more in ((), ("x",), ("y", "z")):
        await noted(place, *more)
        with pytest.raises(Conflict, match="Row 2 of the journal is not the one that was read before"):
            await read(place, end)
    assert (await read(place))[1] == ["x", "y", "z"]
    assert (await read(place, (2, None)))[1] == ["z"]


async def test_where_a_journal_parts_from_the_one_before_is_told(place: Place) -> None:
    await noted(place, "a", "b")
    end, moment = (await read(place))[0], place.clock()
    with pytest.raises(Conflict, match="is the one that was read before"):
        await place.tail.fork(end, moment, KINDS)
    place.begin_anew()
    await noted(place)
    nothing = Fork(place=START, at=None, first=None, rows=0, billed=0, cut_off=[])
    assert await place.tail.fork(end, moment, KINDS) == nothing
    await noted(place, "x", "y", "z")
    fork = await place.tail.fork(end, moment, KINDS)
    assert (fork.place, fork.at, fork.rows, fork.billed) == (START, None, 3, 21)
    assert fork.first is not None
    assert fork.first > moment


async def test_a_clock_that_cannot_be_right_is_refused(place: Place) -> None:
    await noted(place, "a", "b")
    end, _ = await read(place)
    place.begin_anew()
    await noted(place, "x", "y", "z")
    with pytest.raises(Conflict, match="a clock was wrong"):
        await place.tail.fork(end, place.clock(), KINDS)


async def test_an_alert_is_written_once(place: Place) -> None:
    await noted(place, "a")
    assert await place.tail.tell("one", place.clock(), Entry(tenant="t"), "{}")
    assert not await place.tail.tell("one", place.clock(), Entry(tenant="t"), "{}")
    _, rows = await place.tail.rows(START, ("alert",), 10)
    assert [(row.id, row.detail) for row in rows] == [("one", "{}")]
