"""PostgresProof: whether the journal in PostgreSQL is right. Everything is read in one moment, while processes go on writing.

Partitions that were taken away are not missed: rows are counted from the oldest that there is, and sums are compared where their window began
after it.
"""

from __future__ import annotations

from headgate.budget.counters import is_live
from headgate.budget.journal import Walk
from headgate.budget.postgres_acts import places_of, sums_of
from headgate.budget.postgres_reading import ENTRY, ROWS, entry_of
from headgate.budget.postgres_schema import SPENDING
from headgate.budget.proof import Proof
from headgate.budget.sums import MICRO, Sum
from headgate.budget.till import Place
from headgate.budget.windows import window_bounds
from headgate.storage.postgres import Connection, Postgres

_CALLS = """SELECT count(*), coalesce(sum((ends > 1)::int), 0), coalesce(sum(unheld::int), 0) FROM (
    SELECT count(*) FILTER (WHERE kind IN ('settle', 'lost')) AS ends,
        coalesce(bool_or(kind NOT IN ('hold', 'extend') AND amount > 0)
            AND coalesce(min(seq) FILTER (WHERE kind NOT IN ('hold', 'extend') AND amount > 0) < min(seq) FILTER (WHERE kind = 'hold'), true), false)
        OR coalesce(sum(amount) FILTER (WHERE kind = 'lost'), 0) > coalesce(sum(amount) FILTER (WHERE kind IN ('hold', 'extend')), 0) AS unheld
    FROM headgate_journal WHERE kind IN ('hold', 'extend', 'charge', 'settle', 'lost') GROUP BY id) calls"""
"""How many calls there are, how many ended twice, and how many cost something before it was held, or were lost at more than that."""

_OWED = "SELECT count(*) FROM headgate_journal WHERE kind NOT IN ('hold', 'extend', 'charge', 'settle', 'lost', 'seed') AND amount <> 0"
_ENDS = f"""SELECT count(*) FROM headgate_calls c WHERE c.state IN ('settled', 'lost') AND NOT EXISTS (
    SELECT FROM headgate_journal j WHERE j.id = c.id AND j.{SPENDING})"""
"""Calls that are said to have ended, of which the journal does not say so."""

_COUNTED = f"SELECT scopes, {ENTRY} FROM headgate_journal WHERE ({SPENDING} OR kind = 'seed') AND scopes <> '[]'"
_TOLD = "SELECT scopes, max(attempt) FROM headgate_journal WHERE kind = 'alert' AND scopes <> '[]' GROUP BY scopes"


async def prove(postgres: Postgres) -> Proof:
    """Check the journal and what is kept beside it. Of a journal with damaged rows nothing else is said. Raises Overloaded when it cannot be
    read; this takes as long as to read all of it."""
    async with postgres.transaction() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found, began = await _rows(connection)
        if not found.sound:
            return found
        cursor = await connection.execute(_CALLS)
        ((calls, twice, unheld),) = await cursor.fetchall()
        ((owed,),) = await (await connection.execute(_OWED)).fetchall()
        ((unsaid,),) = await (await connection.execute(_ENDS)).fetchall()
        sums, unequal = await _compared(connection, began if found.first > 1 else None)
    return Proof(
        rows=found.rows, calls=calls, ended_twice=twice, unheld=unheld + owed, sums=sums, unequal=unequal + unsaid
    )


async def _rows(connection: Connection) -> tuple[Proof, float]:
    """Is every row there as it was written, from the oldest to the newest; and when the oldest was, unix seconds. `first` is its number
    where nothing is wrong."""
    walk: Walk | None = None
    oldest, began = 0, 0.0
    async with connection.cursor(name="rows") as cursor:
        await cursor.execute(f"{ROWS} ORDER BY seq".encode())
        async for row in cursor:
            if walk is None:
                walk, oldest, began = Walk(row[0]), row[0], row[6] / MICRO
            walk.see(row)
    ((last,),) = await (await connection.execute("SELECT seq FROM headgate_head")).fetchall()
    if walk is None:
        return Proof(rows=0, damaged=0, missing=last, first=0), began
    missing = walk.missing + max(0, last + 1 - walk.expected)
    return Proof(rows=walk.rows, damaged=walk.damaged, missing=missing, first=walk.first or oldest), began


async def _compared(connection: Connection, began: float | None) -> tuple[int, int]:
    """How many sums the journal makes, and how many of those kept differ; only of windows that began since, if the oldest rows are gone."""
    made: dict[Place, int] = {}
    async with connection.cursor(name="counted") as cursor:
        await cursor.execute(_COUNTED.encode())
        async for scopes, *columns in cursor:
            for place, part in sums_of([(scopes, entry_of(columns))]).items():
                made[place] = made.get(place, 0) + part
    told = {}
    for scopes, percent in await (await connection.execute(_TOLD)).fetchall():
        for place in places_of(scopes):
            told[place] = percent
    ((since,),) = await (await connection.execute("SELECT since FROM headgate_head")).fetchall()
    rows = await connection.execute('SELECT account, "window", spent, told FROM headgate_spent')
    kept = {(account, window): Sum(int(spent), told) for account, window, spent, told in await rows.fetchall()}
    places = [place for place in made.keys() | told.keys() | kept.keys() if _is_whole(place, since, began)]
    differing = sum(Sum(made.get(place, 0), told.get(place, 0)) != kept.get(place, Sum()) for place in places)
    return len(places), differing


def _is_whole(place: Place, since: float, began: float | None) -> bool:
    """Whether all of a window's rows are there, and its sum is kept."""
    if not is_live(place[1], since):
        return False
    return began is None or (window_bounds(place[1]) or (0.0, 0.0))[0] > began
