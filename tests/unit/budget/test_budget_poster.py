"""What becomes of postings while the journal cannot be written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from headgate.budget.budget import Entry
from headgate.budget.poster import Poster
from headgate.budget.postings import Posting, Report, Written
from headgate.budget.spool import Spool
from headgate.model.errors import Overloaded


class Journal:
    """Writes, fails or, until it is `open`, hangs."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.tries = 0
        self.fails = False
        self.open = asyncio.Event()
        self.open.set()

    async def post(self, postings: Sequence[Posting]) -> Report:
        self.tries += 1
        await self.open.wait()
        if self.fails:
            raise Overloaded("It cannot be written.", retry_after=1.0)
        self.written += [one.id for one in postings]
        return Report([Written(taken=True)] * len(postings), {}, {})

    async def hang_when_tried(self) -> None:
        """Once it has failed: hang from the next try on, which is under way when this returns."""
        self.open.clear()
        tries = self.tries
        while self.tries == tries:
            await asyncio.sleep(0)


def hold(id: str) -> Posting:
    return Posting(act="hold", id=id, at=0.0, bill=(Entry(tenant="acme"),), amount=1, capped=True)


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
async def poster(journal: Journal, tmp_path: Path) -> AsyncIterator[Poster]:
    """It may spool four."""
    poster = Poster(journal, Spool(tmp_path / "one", most=4), lambda postings, report: None, retry=0.0)
    yield poster
    journal.fails = False
    journal.open.set()
    await poster.close()


async def test_who_comes_while_a_journal_that_has_failed_is_tried_does_not_wait_for_it(
    journal: Journal, poster: Poster
) -> None:
    journal.fails = True
    assert (await poster.write(hold("a"))).taken
    await journal.hang_when_tried()
    for id in "bcd":
        assert (await poster.write(hold(id))).taken
    journal.fails = False
    journal.open.set()
    await poster.flushed()
    assert journal.written == ["a", "b", "c", "d"]


async def test_when_the_spool_is_full_meanwhile_what_a_budget_limits_is_refused_and_nothing_is_mixed_up(
    journal: Journal, poster: Poster
) -> None:
    journal.fails = True
    assert (await poster.write(hold("a"))).taken
    await journal.hang_when_tried()
    outcomes = await asyncio.gather(*(poster.write(hold(id)) for id in "bcdefg"), return_exceptions=True)
    assert [type(one) for one in outcomes] == [Written] * 3 + [Overloaded] * 3
    with pytest.raises(Overloaded):
        poster.admit(capped=True)
    poster.put(Posting(act="settle", id="a", at=0.0, bill=(Entry(tenant="acme"),)))
    journal.fails = False
    journal.open.set()
    await poster.flushed()
    assert journal.written == ["a", "b", "c", "d", "a"]
    poster.admit(capped=True)
    assert (await poster.write(hold("h"))).taken
    assert journal.written[-1] == "h"
    assert poster.pending == 0


async def test_who_comes_when_it_hangs_for_the_first_time_waits_for_what_becomes_of_it(
    journal: Journal, poster: Poster
) -> None:
    journal.open.clear()
    waiting = asyncio.ensure_future(poster.write(hold("a")))
    while not journal.tries:
        await asyncio.sleep(0)
    assert not waiting.done()
    journal.open.set()
    assert (await waiting).taken
