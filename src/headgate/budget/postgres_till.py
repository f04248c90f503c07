"""PostgresTill: a till in PostgreSQL. Each method is one call of a function there, which locks the owner's row; `till_1.sql` has them all.

Its tables are not logged: what a crash may have torn is empty afterwards, so it is unknown.

Invariant: nothing outlives its statement, so it works behind PgBouncer in transaction mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from headgate.budget.book import checked
from headgate.budget.budget import Balance, Scope
from headgate.budget.till import (
    Ask,
    Ending,
    Filling,
    Gone,
    Granted,
    Overdue,
    Place,
    Refused,
    Unknown,
    check,
    check_filling,
)
from headgate.budget.windows import window_end
from headgate.storage.postgres import Connection, Postgres, Step

SCHEMA: tuple[Step, ...] = (((Path(__file__).parent / "till_1.sql").read_text(),),)
"""The steps of the room `till`."""

_HOLD = (
    "SELECT what, granted, of_epoch, missing, spent, held FROM headgate_till_hold(%s, %s, %s::text[], %s::text[], %s::numeric[],"
    " %s::boolean[], %s::numeric, %s::numeric, %s::numeric, %s::float8, %s::float8)"
)
_EXTEND = "SELECT what, granted, of_epoch, NULL, spent, held FROM headgate_till_extend(%s, %s, %s::float8, %s::numeric, %s::float8)"
_END = "SELECT headgate_till_end(%s, %s, %s::bigint, %s::text[], %s::text[], %s::numeric[], %s::float8)"
_FILL = "SELECT headgate_till_fill(%s, %s::bigint, %s, %s::bigint, %s::text[], %s::float8[], %s::text[], %s::text[], %s::numeric[], %s::float8)"
_BEGIN = (
    "SELECT headgate_till_begin(%s, %s, %s::text[], %s::text[], %s::numeric[], %s::boolean[], %s::numeric, %s::numeric,"
    " headgate_till_time(%s::float8) + %s::float8)"
)
_OVERDUE = "SELECT id, amount FROM headgate_till_reservations WHERE owner = %s AND is_open AND due <= headgate_till_time(%s::float8) ORDER BY due LIMIT %s"
_OWNERS = (
    "SELECT owner FROM headgate_till_owners o WHERE owner > %s AND EXISTS (SELECT FROM headgate_till_reservations r WHERE r.owner = o.owner AND r.is_open)"
    " ORDER BY owner LIMIT %s"
)
_BALANCE = (
    "SELECT coalesce(c.spent, 0), coalesce(c.held, 0) FROM headgate_till_windows w LEFT JOIN headgate_till_counters c"
    " ON c.owner = w.owner AND c.window_id = w.window_id AND c.account = %s"
    " WHERE w.owner = %s AND w.window_id = %s AND w.until > headgate_till_time(%s::float8)"
)


class PostgresTill:
    """A till in PostgreSQL."""

    def __init__(self, postgres: Postgres, *, clock: Callable[[], float] | None = None) -> None:
        """`clock` is in unix seconds; without one the server's counts. The steps of SCHEMA were taken."""
        self._postgres = postgres
        self._clock = clock
        self._after = ""

    async def hold(self, ask: Ask) -> Granted | Refused | Unknown:
        """Hold money on all of the scopes or on none."""
        check(ask)
        row = await self._row(
            _HOLD, ask.owner, ask.id, *_columns(ask.scopes), ask.amount, ask.least, ask.tokens, ask.lease, self._now()
        )
        return _held(row)

    async def extend(self, id: str, owner: str, lease: float, amount: int | None) -> Granted | Refused | Gone | Unknown:
        """Begin the lease anew, and hold another amount."""
        wanted = None if amount is None else checked(amount)
        row = await self._row(_EXTEND, owner, id, lease, wanted, self._now())
        return Gone() if row[0] == "gone" else _held(row)

    async def end(self, endings: Sequence[Ending]) -> None:
        """Give holds back and count what was spent. All or none."""
        # In one order for all, so that nobody waits for somebody who waits.
        async with self._postgres.transaction() as connection:
            for one in sorted(endings, key=lambda ending: ending.owner):
                await _do(connection, _END, one.owner, one.id, one.number, *_places(one.spent), self._now())

    async def overdue(self, owner: str, limit: int) -> list[Overdue]:
        """Reservations whose lease is over, the oldest first."""
        rows = await self._postgres.query(_OVERDUE, (owner, self._now(), limit))
        return [Overdue(id, owner, int(amount)) for id, amount in rows]

    async def owners(self, limit: int) -> list[str]:
        """Some of the owners for whom something is held, by name; behind the last one the first again."""
        rows = await self._postgres.query(_OWNERS, (self._after, limit))
        self._after = rows[-1][0] if len(rows) == limit else ""
        return [owner for (owner,) in rows]

    async def fill(self, owner: str, filling: Filling) -> bool:
        """Begin with what the journal says."""
        check_filling(filling)
        now = self._now()
        windows = list(filling.windows)
        said = (filling.epoch, filling.anew, filling.number, windows, [window_end(window) for window in windows])
        async with self._postgres.transaction() as connection:
            if not (await _do(connection, _FILL, owner, *said, *_places(filling.spent.items()), now))[0]:
                return False
            for id, scopes, amount, tokens, lease in filling.open if filling.anew else ():
                await _do(connection, _BEGIN, owner, id, *_columns(scopes), amount, tokens, now, lease)
        return True

    async def balance(self, owner: str, place: Place) -> Balance | None:
        """What is spent and held."""
        account, window = place
        rows = await self._postgres.query(_BALANCE, (account, owner, window, self._now()))
        return Balance(int(rows[0][0]), int(rows[0][1])) if rows else None

    async def close(self) -> None:
        """Nothing is to be let go of: the connections are others' too."""

    async def _row(self, sql: str, *parameters: Any) -> tuple[Any, ...]:
        (row,) = await self._postgres.query(sql, parameters)
        return row

    def _now(self) -> float | None:
        return None if self._clock is None else self._clock()


async def _do(connection: Connection, sql: str, *parameters: Any) -> tuple[Any, ...]:
    cursor = await connection.execute(sql, parameters)
    row = await cursor.fetchone()
    return () if row is None else row


def _held(row: tuple[Any, ...]) -> Granted | Refused | Unknown:
    what, granted, epoch, missing, spent, held = row
    if what == "unknown":
        return Unknown(tuple(dict.fromkeys(missing or ())))
    balances = tuple(Balance(int(one), int(other)) for one, other in zip(spent or (), held or (), strict=True))
    return Granted(int(granted), epoch, balances) if what == "granted" else Refused(balances)


def _columns(scopes: tuple[Scope, ...]) -> tuple[list[str], list[str], list[int | None], list[bool]]:
    return (
        [scope.window for scope in scopes],
        [scope.account for scope in scopes],
        [scope.cap for scope in scopes],
        [scope.tokens for scope in scopes],
    )


def _places(spent: Iterable[tuple[Place, int]]) -> tuple[list[str], list[str], list[int]]:
    all = list(spent)
    return [window for (_, window), _ in all], [account for (account, _), _ in all], [amount for _, amount in all]
