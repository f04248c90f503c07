"""PostgresJournal: the journal that several processes write, which is the truth of what is spent and what is open.

What is written is one call of `headgate_post`, whatever the number of rows; only where a rule bills what lies beyond a cap, what was spent before
has to be read first, under the same lock.

Invariant: a hold is taken under the epochs in force or not at all. Who begins a new epoch therefore sees every hold that was taken before,
and whatever is held from then on was granted by a till that was filled with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import msgspec

from headgate.budget.budget import Entry, Match, Scope
from headgate.budget.counters import is_live
from headgate.budget.places import Places
from headgate.budget.postgres_acts import (
    act_of,
    overage_of,
    scopes_from,
    sums_of,
    surcharge_of,
)
from headgate.budget.postgres_counting import Counting, lock, named
from headgate.budget.postgres_reading import ENTRY, POST, PostgresReading, entry_of
from headgate.budget.postgres_schema import SPENDING
from headgate.budget.postings import Call, Posting, Report, Written, endings_of, spent_of
from headgate.budget.sums import MICRO
from headgate.budget.till import WINDOW_KEPT, Ending, Filling, Place, owner_of
from headgate.budget.windows import kind_of
from headgate.storage.postgres import Connection, Postgres, Row

SUMS_KEPT = 35 * 86_400.0
"""Seconds for which sums are kept after the end of their window."""

_SUMS = """SELECT h.seq, e.epoch, (SELECT json_agg(json_build_array(account, "window", spent)) FROM headgate_spent
    WHERE owner = %(owner)s AND "window" = ANY (%(windows)s))
    FROM headgate_head h LEFT JOIN headgate_epochs e ON e.owner = %(owner)s"""
_PLACES = """SELECT s.account, s."window", s.spent FROM jsonb_array_elements(%s::jsonb) w JOIN headgate_spent s
    ON s.owner = w ->> 0 AND s."window" = w ->> 1 AND s.account = w ->> 2"""
_ENDED = f"SELECT id, seq, scopes, {ENTRY} FROM headgate_journal WHERE {SPENDING} AND scopes <> '[]'"
_UNATTENDED = """UPDATE headgate_calls SET due = now() + interval '1 hour' + interval '1 second' * lease
    WHERE state = 'open' AND due < now() RETURNING owners"""
_FORGET = """DELETE FROM headgate_calls WHERE id IN (SELECT id FROM headgate_calls
    WHERE state <> 'open' AND touched < now() - interval '1 day' ORDER BY touched LIMIT 50000)"""
_WINDOWS = """WITH RECURSIVE each ("window") AS (SELECT min("window") FROM headgate_spent UNION ALL
    SELECT (SELECT min("window") FROM headgate_spent s WHERE s."window" > each."window") FROM each WHERE each."window" IS NOT NULL)
    SELECT "window" FROM each WHERE "window" IS NOT NULL"""

_entry = msgspec.json.Decoder(Entry)
_json = msgspec.json.encode


class PostgresJournal(PostgresReading):
    """The journal for those who spend."""

    def __init__(self, postgres: Postgres, *, now: Callable[[], float] = time.time, courtesy: float = 1.0) -> None:
        """`now` is in unix seconds; `courtesy`: seconds in which one who began an epoch has filled a till with it. The connections are
        closed by whoever opened them."""
        super().__init__(postgres, now=now)
        self._courtesy = courtesy

    async def post(self, postings: Sequence[Posting]) -> Report:
        """Durable: write all of them or none."""
        places = Places()
        watched = _json(sorted({named(place) for one in postings for place in _watched(one)})).decode()
        if not any(map(overage_of, postings)):
            acts = b",".join(act_of(one, places) for one in postings)
            ((told,),) = await self._postgres.query(POST, (f"[{acts.decode()}]", watched))
            return _report(told)
        async with self._postgres.transaction() as connection:
            await lock(connection)
            surcharges = await _surcharges(connection, postings)
            acts = b",".join(act_of(one, places, surcharges.get(at, 0)) for at, one in enumerate(postings))
            cursor = await connection.execute(POST, (f"[{acts.decode()}]", watched))
            ((told,),) = await cursor.fetchall()
        return _report(told)

    async def begin(self, owner: str, seen: int, windows: Sequence[str]) -> Filling | None:
        """Begin a new epoch of an owner, unless somebody else has just done so."""
        ((told,),) = await self._postgres.query("SELECT headgate_begin(%s, %s, %s)", (owner, seen, self._courtesy))
        if told is None:
            return None
        oldest = self._now() - WINDOW_KEPT
        spent = {(account, window): spent for account, window, spent in told["spent"] or () if is_live(window, oldest)}
        calls = []
        for id, scopes, amount, tokens, lease in told["open"] or ():
            mine = tuple(scope for scope in scopes_from(scopes) if owner_of(scope.account) == owner)
            calls.append((id, mine, amount, tokens, lease))
        held = (scope.window for _, scopes, *_ in calls for scope in scopes)
        return Filling(
            epoch=told["epoch"],
            anew=True,
            number=told["number"],
            windows=tuple(dict.fromkeys([*windows, *(window for _, window in spent), *held])),
            spent=spent,
            open=calls,
        )

    async def sums(self, owner: str, windows: Sequence[str]) -> Filling:
        """What is spent in some windows of an owner."""
        ((number, epoch, spent),) = await self._postgres.query(_SUMS, {"owner": owner, "windows": list(windows)})
        return Filling(
            epoch=epoch or 0,
            anew=False,
            number=number,
            windows=tuple(windows),
            spent={(account, window): amount for account, window, amount in spent or ()},
        )

    async def ended_since(self, owner: str, number: int) -> list[Ending]:
        """The endings on an owner's scopes behind a number."""
        rows = await self._postgres.query(f"{_ENDED} AND seq > %s ORDER BY id", (number,))
        return [ending for ending in _endings(rows) if ending.owner == owner]

    async def endings(self, ids: Sequence[str]) -> list[Ending]:
        """How these reservations ended, for every owner."""
        return _endings(await self._postgres.query(f"{_ENDED} AND id = ANY (%s) ORDER BY id", (list(ids),)))

    async def calls(self, ids: Sequence[str]) -> dict[str, Call]:
        """Those of these reservations that the journal knows."""
        sql = "SELECT id, state, scopes, entry, amount, tokens FROM headgate_calls WHERE id = ANY (%s)"
        return {
            id: Call(
                id=id,
                state=state,
                scopes=scopes_from(scopes),
                entry=_entry.decode(entry) if entry else Entry(tenant=""),
                amount=amount,
                tokens=tokens,
            )
            for id, state, scopes, entry, amount, tokens in await self._postgres.query(sql, (list(ids),))
        }

    async def count(self, scope: Scope, match: Match, *, anew: bool) -> int | None:
        """Count a scope: add what is missing, adopt open calls."""
        return await Counting(self._postgres, scope, match, now=self._now).count(anew=anew)

    async def unattended(self) -> list[str]:
        """Owners of calls that have been open for an hour longer than their lease."""
        rows = await self._postgres.query(_UNATTENDED)
        return sorted({owner for (owners,) in rows for owner in owners})

    async def sweep(self) -> None:
        """Forget ended calls and the sums of windows that were over long before the newest row; divide the months to come."""
        while True:
            ((left,),) = await self._postgres.query(f"WITH gone AS ({_FORGET} RETURNING 1) SELECT count(*) FROM gone")
            if not left:
                break
        await self._postgres.query("SELECT headgate_add_month(now()), headgate_add_month(now() + interval '1 month')")
        ((at, since),) = await self._postgres.query(
            "SELECT (SELECT at FROM headgate_journal ORDER BY seq DESC LIMIT 1), since FROM headgate_head"
        )
        oldest = min(self._now(), (at or 0) / MICRO) - SUMS_KEPT
        over = [window for (window,) in await self._postgres.query(_WINDOWS) if not is_live(window, oldest)]
        if over and oldest > since:
            async with self._postgres.transaction() as connection:
                await lock(connection)
                await connection.execute("UPDATE headgate_head SET since = %s", (int(oldest),))
                await connection.execute('DELETE FROM headgate_spent WHERE "window" = ANY (%s)', (over,))


async def _surcharges(connection: Connection, postings: Sequence[Posting]) -> dict[int, int]:
    """What rules add to these bills, by their place in the batch. Those that have ended already count for nothing."""
    wanted = {named((scope.account, scope.window)) for one in postings for scope in overage_of(one)}
    cursor = await connection.execute(_PLACES, (_json(sorted(wanted)).decode(),))
    before: dict[Place, int] = {(account, window): int(spent) for account, window, spent in await cursor.fetchall()}
    ids = [one.id for one in postings]
    cursor = await connection.execute(
        "SELECT id FROM headgate_calls WHERE id = ANY (%s) AND state IN ('settled', 'lost')", (ids,)
    )
    ended = {id for (id,) in await cursor.fetchall()}
    surcharges = {}
    for at, one in enumerate(postings):
        if one.id not in ended and one.act in ("settle", "lost", "note"):
            surcharges[at] = surcharge_of(one, before)
            for place, amount in spent_of(one).items():
                before[place] = before.get(place, 0) + amount
    return surcharges


def _watched(posting: Posting) -> list[Place]:
    """Places of an ending whose thresholds somebody wants to be told of."""
    if posting.act not in ("settle", "lost", "note"):
        return []
    return [
        (scope.account, scope.window)
        for scope in posting.scopes
        if scope.allowance is not None and scope.allowance.alerts and kind_of(scope.window) != "minute"
    ]


def _report(told: Any) -> Report:
    written = [Written(taken, fenced, state, number) for taken, fenced, state, number in told["written"]]
    sums = {(account, window): (spent, percent) for account, window, spent, percent in told["sums"] or ()}
    return Report(written, sums, told["epochs"] or {})


def _endings(rows: list[Row]) -> list[Ending]:
    """What tills are to be told of these rows, which are ordered by id."""
    endings = []
    for id, some in groupby(rows, key=lambda row: row[0]):
        mine = list(some)
        spent = sums_of((scopes, entry_of(columns)) for _, _, scopes, *columns in mine)
        owners = {owner_of(place[0]) for _, _, scopes, *_ in mine for place in msgspec.json.decode(scopes)}
        endings += endings_of(id, max(row[1] for row in mine), spent, sorted(owners))
    return endings
