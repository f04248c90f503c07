"""Counting: an account that was not counted before is counted from now on, by all processes, whichever of them learns of it when.

Its calls know nothing of it as long as their process does not. So each process that learns of it has what is missing added: what rows of its
calls spent that did not count there, from the row up to which that was done the last time.

Invariant: a row counts on a place once, either because it says so or because it was added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from headgate.budget.book import matches, same
from headgate.budget.budget import Entry, Match, Scope
from headgate.budget.journal import row_of, seed_rows
from headgate.budget.places import Places
from headgate.budget.postgres_acts import act, scopes_from, scopes_text
from headgate.budget.postgres_reading import POST, SHARED, spent_on
from headgate.budget.postgres_schema import LOCK, SPENDING
from headgate.budget.postings import by_owner
from headgate.budget.sums import micros
from headgate.budget.till import Place, owner_of
from headgate.budget.windows import window_bounds
from headgate.storage.postgres import Connection, Postgres

STALLED = "SET LOCAL idle_in_transaction_session_timeout = '5s'"
"""A process that is stopped in the middle lets go of the lock then."""

_SEEDED = """SELECT (SELECT seeded FROM headgate_spent WHERE owner = %s AND "window" = %s AND account = %s), seq FROM headgate_head"""
_MISSING = f"""SELECT sum({{spent}}) FROM headgate_journal WHERE {SPENDING} AND seq > %(after)s AND seq <= %(until)s
    AND tenant = ANY (%(tenants)s) AND at >= %(since)s AND at < %(end)s AND position(%(place)s IN scopes) = 0
    AND (kind <> 'note' OR scopes <> '[]' OR {SHARED} > 0) {{mine}}"""
_OPEN = "SELECT id, scopes, entry FROM headgate_calls WHERE state = 'open' FOR UPDATE"
_SEED = """INSERT INTO headgate_spent (owner, "window", account, seeded) VALUES (%s, %s, %s, %s)
    ON CONFLICT (owner, "window", account) DO UPDATE SET seeded = excluded.seeded"""
# Whoever asks may fill it at once.
_EPOCH = """INSERT INTO headgate_epochs AS e (owner, epoch, at) VALUES (%s, 1, '-infinity')
    ON CONFLICT (owner) DO UPDATE SET epoch = e.epoch + 1, at = '-infinity' RETURNING epoch"""

_entry = msgspec.json.Decoder(Entry)


class Counting:
    """One account, from now on."""

    def __init__(self, postgres: Postgres, scope: Scope, match: Match, *, now: Callable[[], float]) -> None:
        """`match`: its calls. `now` is in unix seconds."""
        self._postgres = postgres
        self._scope = scope
        self._match = match
        self._now = now
        self._place: Place = (scope.account, scope.window)

    async def count(self, *, anew: bool) -> int | None:
        """Add what is missing and adopt open calls; the owner's new epoch when that changed anything, or when it is to begin `anew`.

        What was written before is summed before the lock is taken, for that may take long.
        """
        while True:
            ((seeded, until),) = await self._postgres.query(_SEEDED, named(self._place))
            ((before,),) = await self._postgres.query(*self._missing(seeded or 0, until))
            async with self._postgres.transaction() as connection:
                await lock(connection)
                ((again, last),) = await _rows(connection, _SEEDED, named(self._place))
                if again != seeded:
                    continue  # another process has done so meanwhile
                ((since,),) = await _rows(connection, *self._missing(until, last))
                changed = await self._change(connection, int(before or 0) + int(since or 0), last)
                if not changed and not anew:
                    return None
                ((epoch,),) = await _rows(connection, _EPOCH, (owner_of(self._scope.account),))
                return int(epoch)

    def _missing(self, after: int, until: int) -> tuple[str, dict[str, Any]]:
        """What the calls of an account have spent in a window, by rows behind `after`, as far as they did not count on this place.

        An answer from stock of which nothing was held anywhere is owed nowhere, unless it is part of a price.
        """
        field = self._match.field
        mine = "" if field is None else f'AND "{field}" = %(value)s'
        if field == "deployment":
            mine += " AND kind <> 'note'"  # an answer from stock costs its deployment nothing
        since, end = window_bounds(self._place[1]) or (float("-1e13"), 1e13)
        return _MISSING.format(spent=spent_on(self._place), mine=mine), {
            "after": after,
            "until": until,
            "tenants": list(self._match.tenants),
            "since": micros(since),
            "end": micros(end),
            "place": msgspec.json.encode(self._place).decode(),
            "value": self._match.value,
        }

    async def _change(self, connection: Connection, spent: int, last: int) -> bool:
        """Write down what was missing, and up to where it was looked for; whether anything was."""
        rows = [*await self._adopt(connection), *(seed_rows(self._place, spent, self._now()) if spent else ())]
        if rows:
            owner, window, account = named(self._place)
            text = act("write", account, rows, sums=[(owner, window, account, str(spent))]).decode()
            await connection.execute(POST, (f"[{text}]", "[]"))
        await connection.execute(_SEED, (*named(self._place), last))
        return bool(rows)

    async def _adopt(self, connection: Connection) -> list[bytes]:
        """Let open calls count on this place too; the rows that say so."""
        rows = []
        for id, text, entry in await _rows(connection, _OPEN, ()):
            scopes, said = scopes_from(text), _entry.decode(entry)
            if matches(self._match, said) and not any(same(self._scope, other) for other in scopes):
                scopes = (*scopes, self._scope)
                await connection.execute(
                    "UPDATE headgate_calls SET scopes = %s, owners = %s WHERE id = %s",
                    (scopes_text(scopes), list(by_owner(scopes)), id),
                )
                places = Places().text(scopes)
                rows.append(row_of(id, "adopt", self._now(), said, attempt=len(scopes), scopes=places))
        return rows


def named(place: Place) -> tuple[str, str, str]:
    """Owner, window and account, by which sums are found."""
    return owner_of(place[0]), place[1], place[0]


async def lock(connection: Connection) -> None:
    """Be the only one who writes rows and begins epochs, until the end of the transaction."""
    await connection.execute(STALLED)
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))


async def _rows(connection: Connection, sql: Any, parameters: Any) -> list[tuple[Any, ...]]:
    return await (await connection.execute(sql, parameters)).fetchall()
