"""The tail of a journal: what is behind a place, and that a journal which replaced another is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from headgate.budget.budget import Entry, Hold, UsageQuery
from headgate.budget.sqlite import SqliteLedger
from headgate.budget.tail import Fork, Tail
from headgate.model.errors import Conflict
from tests.unit.budget.backups import back_up, restore

START = (0, None)
KINDS = ("settle", "lost", "note")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class Books:
    """A journal that a server writes, starts with again, and that somebody copies and restores."""

    def __init__(self, folder: Path) -> None:
        self.path, self.backup, self.clock = folder / "headgate.db", folder / "backup.db", Clock()

    async def write(self, *ids: str, open: Sequence[str] = (), end: Sequence[str] = (), copy: bool = False) -> None:
        """A server's life: answers from stock, calls that begin, a backup, and the end of some of these calls."""
        ledger = SqliteLedger(self.path, now=self.clock)
        for id in ids:
            ledger.note(id, Entry(tenant="t", source="exact", billed=7))
        for id in open:
            entry = Entry(tenant="t", route="auto")
            await ledger.reserve(Hold(id=id, scopes=(), amount=50, least=0, lease=60.0, entry=entry))
            await ledger.dispatched(id)
        await ledger.usage(UsageQuery())
        if copy:
            back_up(self.path, self.backup)
        for id in end:
            ledger.settle(id, [Entry(tenant="t", route="auto", amount=3, billed=3)])
        await ledger.close()

    def restore(self) -> None:
        restore(self.backup, self.path)

    async def rows(
        self, after: tuple[int, int | None] = START, limit: int = 100
    ) -> tuple[tuple[int, int | None], list[str]]:
        tail = Tail(self.path)
        try:
            place, rows = await tail.rows(after, KINDS, limit)
        finally:
            tail.close()
        return place, [row.id for row in rows]

    async def fork(self, after: tuple[int, int | None], moment: float) -> Fork:
        tail = Tail(self.path)
        try:
            return await tail.fork(after, moment, KINDS)
        finally:
            tail.close()


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


async def test_rows_of_the_wanted_kinds_come_in_portions(books: Books) -> None:
    await books.write("a", "b", "c", "d", open=["e"], end=["e"])
    place, ids = await books.rows(limit=2)
    assert (place[0], ids) == (2, ["a", "b"])
    place, ids = await books.rows(place)
    assert (place[0], ids) == (6, ["c", "d", "e"])
    assert await books.rows(place) == (place, [])
    await books.write("f")
    assert (await books.rows(place))[1] == ["f"]


async def test_an_empty_journal_is_at_its_beginning(books: Books) -> None:
    await books.write()
    assert await books.rows() == (START, [])


async def test_another_journal_is_noticed_while_it_is_shorter_and_after_it_has_outgrown_the_place(books: Books) -> None:
    await books.write("a", "b", copy=True)
    await books.write("c", "d")
    place, _ = await books.rows()
    books.restore()
    for more in ([], ["x"], ["y", "z"]):
        await books.write(*more)
        with pytest.raises(Conflict, match="Row 4 of the journal is not the one that was read before"):
            await books.rows(place)
    assert (await books.rows())[1] == ["a", "b", "x", "y", "z"]
    assert (await books.rows((4, None)))[1] == ["z"]


async def test_it_parts_behind_the_last_row_that_both_have(books: Books) -> None:
    await books.write("a", "b", copy=True)
    await books.write("c", "d")
    place, read = (await books.rows())[0], books.clock()
    books.restore()
    await books.write("x", "y", "z")
    fork = await books.fork(place, read)
    assert (fork.place[0], fork.rows, fork.billed, fork.cut_off) == (2, 3, 21, [])
    assert fork.at is not None
    assert fork.first is not None
    assert fork.at < read < fork.first
    assert (await books.rows(fork.place))[1] == ["x", "y", "z"]


async def test_what_was_not_yet_read_of_a_long_backlog_does_not_matter(books: Books) -> None:
    await books.write("a", "b", "c", copy=True)
    await books.write("d")
    (place, _), read = await books.rows(limit=2), books.clock()
    books.restore()
    await books.write("x")
    assert (await books.rows(place))[1] == ["c", "x"]
    with pytest.raises(Conflict, match="is the one that was read before"):
        await books.fork(place, read)


async def test_a_journal_that_was_begun_anew_parts_at_its_beginning(books: Books) -> None:
    await books.write("a", "b")
    place, read = (await books.rows())[0], books.clock()
    books.restore()
    await books.write()
    assert await books.fork(place, read) == Fork(place=START, at=None, first=None, rows=0, billed=0, cut_off=[])
    await books.write("x", "y", "z")
    assert ((await books.fork(place, read)).place, (await books.fork(place, read)).rows) == (START, 3)


async def test_the_end_of_a_call_that_had_begun_before_is_told_apart(books: Books) -> None:
    await books.write("a", open=["call", "other"], end=["call"], copy=True)
    await books.write("b")
    place, read = (await books.rows())[0], books.clock()
    books.restore()
    with pytest.raises(Conflict, match="Start the server"):
        await books.fork(place, read)
    await books.write("x", open=["new"])
    await books.write()
    fork = await books.fork(place, read)
    assert [(row.id, row.kind) for row in fork.cut_off] == [("call", "lost"), ("other", "lost")]
    assert (fork.place[0], fork.rows, fork.billed) == (3, 4, 50 + 50 + 7 + 50)


async def test_a_clock_that_cannot_be_right_is_not_believed(books: Books) -> None:
    await books.write("a", "b", copy=True)
    backup = books.clock()
    await books.write("c", "d")
    place, read = (await books.rows())[0], books.clock()
    books.restore()
    await books.write("x", "y", "z")
    with pytest.raises(Conflict, match="a clock was wrong"):
        await books.fork(place, read + 1_000.0)
    assert (await books.fork(place, backup)).place[0] == 2
