"""SqliteOutbox: events in a file of their own beside the ledger, so that a sink that is away for days does not weigh on it.

The file is made on first use. One process sends; others may look, and may ask for parked events to be sent again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headgate.billing.billing import Delivery, Event, Outcome, Place, Standing
from headgate.storage.sqlite import Database, Step, migrate, transaction

SCHEMA: tuple[Step, ...] = (
    (
        """CREATE TABLE sinks (
            sink TEXT PRIMARY KEY, place INTEGER NOT NULL, checksum INTEGER, read REAL NOT NULL, mark INTEGER NOT NULL,
            delivered INTEGER NOT NULL, billed TEXT NOT NULL, stopped TEXT NOT NULL
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE events (
            sink TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, tenant TEXT NOT NULL, billed INTEGER NOT NULL,
            body BLOB, made REAL NOT NULL, tried REAL, tries INTEGER NOT NULL, reason TEXT NOT NULL, parked INTEGER NOT NULL,
            PRIMARY KEY (sink, id)
        ) STRICT""",
        "CREATE INDEX events_in_order ON events (sink, parked, seq)",
    ),
)

Result = TypeVar("Result")

_FIELDS = "id, seq, tenant, billed, body, made, tried, tries, reason"
_STANDINGS = """SELECT s.sink, s.place, s.delivered, s.billed, s.stopped,
    (SELECT count(*) FROM events e WHERE e.sink = s.sink AND e.parked = :parked),
    (SELECT coalesce(sum(billed >> 32), 0) FROM events e WHERE e.sink = s.sink AND e.parked = :parked),
    (SELECT coalesce(sum(billed & 4294967295), 0) FROM events e WHERE e.sink = s.sink AND e.parked = :parked),
    (SELECT min(made) FROM events e WHERE e.sink = s.sink AND e.parked = :parked),
    (SELECT reason FROM events e WHERE e.sink = s.sink AND e.parked = :parked ORDER BY seq LIMIT 1)
    FROM sinks s ORDER BY s.sink"""


class SqliteOutbox:
    """An outbox in one file."""

    def __init__(self, path: str | Path) -> None:
        """Opens the file, or makes it, on first use."""
        self._database = Database(path)
        self._migrated = False

    async def claim(self, sink: str, seconds: float) -> bool:  # noqa: ARG002 - one process alone sends
        """Yes: nobody else sends."""
        return True

    async def release(self, sink: str) -> None:
        """Nobody else waits for it."""

    async def place(self, sink: str) -> Place:
        """The place in the journal up to which events were made."""
        return await self._call(lambda connection: _sink(connection, sink)[0])

    async def add(self, sink: str, events: Sequence[Event], place: Place) -> None:
        """Take in the events of all rows up to `place`."""

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                if place.row > _sink(connection, sink)[0].row:
                    _take(connection, sink, events, place)

        await self._call(work)

    async def rewind(self, sink: str, before: Place, events: Sequence[Event], place: Place) -> bool:
        """Go back from `before` to an earlier place, and park events."""

        def work(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                if _sink(connection, sink)[0] != before:
                    return False
                _take(connection, sink, events, place)
                connection.execute("UPDATE sinks SET stopped = '' WHERE sink = ?", (sink,))
                return True

        return await self._call(work)

    async def stop(self, sink: str, reason: str) -> None:
        """Note why nothing is sent any more, or that it is again."""
        await self._change("UPDATE sinks SET stopped = ? WHERE sink = ?", [(reason, sink)])

    async def pending(self, sink: str, limit: int, without: Collection[str] = ()) -> list[Event]:
        """The oldest events to be sent, except those of some tenants."""
        return await self._call(lambda connection: _events(connection, sink, 0, limit, without))

    async def rendered(self, sink: str, event: Event) -> None:
        """Keep the body of an event that had none; one that still has none is parked."""
        await self._change(
            "UPDATE events SET body = ?, reason = ?, parked = ? WHERE sink = ? AND id = ? AND parked = 0",
            [(event.body, event.reason, int(event.body is None), sink, event.id)],
        )

    async def trying(self, sink: str, events: Sequence[Event], at: float) -> int:
        """Note that events are about to be sent. The mark of the last delivery."""
        fresh = [(at, sink, event.id) for event in events if event.tried is None]
        if fresh:
            await self._change("UPDATE events SET tried = ? WHERE sink = ? AND id = ?", fresh)
        return await self._call(lambda connection: _sink(connection, sink)[3])

    async def resolve(self, sink: str, events: Sequence[Event], delivery: Delivery) -> None:
        """Note what became of events."""
        pairs = list(zip(events, delivery.outcomes, strict=True))
        gone = [event for event, outcome in pairs if outcome.verdict == "delivered"]

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                billed = int(_sink(connection, sink)[2]) + sum(event.billed for event in gone)
                connection.execute(
                    "UPDATE sinks SET mark = ?, delivered = delivered + ?, billed = ? WHERE sink = ?",
                    (delivery.mark, len(gone), str(billed), sink),
                )
                connection.executemany(
                    "DELETE FROM events WHERE sink = ? AND id = ?", [(sink, event.id) for event in gone]
                )
                connection.executemany(*_set_back(sink, pairs))

        await self._call(work)

    async def park(self, sink: str, events: Sequence[Event], reason: str) -> None:
        """Set events aside until somebody asks for them."""
        rows = [(reason, sink, event.id) for event in events]
        await self._change("UPDATE events SET parked = 1, reason = ? WHERE sink = ? AND id = ?", rows)

    async def retry(self, sink: str, ids: Collection[str] | None = None) -> int:
        """Send parked events again, all or those with these ids."""
        chosen = None if ids is None else msgspec.json.encode(sorted(ids)).decode()

        def work(connection: sqlite3.Connection) -> int:
            return connection.execute(
                """UPDATE events SET parked = 0, tried = NULL, tries = 0 WHERE sink = :sink AND parked = 1
                    AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))""",
                {"sink": sink, "ids": chosen},
            ).rowcount

        return await self._call(work)

    async def parked(self, sink: str, limit: int) -> list[Event]:
        """The oldest events that were set aside."""
        return await self._call(lambda connection: _events(connection, sink, 1, limit))

    async def standings(self) -> list[Standing]:
        """Where every sink stands, by name."""
        pending, parked = await self._call(
            lambda connection: [connection.execute(_STANDINGS, {"parked": parked}).fetchall() for parked in (0, 1)]
        )
        aside = {row[0]: row for row in parked}
        return [_standing(row, aside.get(row[0], row)) for row in pending]

    async def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    async def _change(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany(sql, rows)

        await self._call(work)

    async def _call(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        def ready(connection: sqlite3.Connection) -> Result:
            if not self._migrated:
                migrate(connection, SCHEMA)
                self._migrated = True
            return work(connection)

        return await self._database.call(ready)


def _sink(connection: sqlite3.Connection, sink: str) -> tuple[Place, int, int, int]:
    """Place, delivered events and what they billed, and the mark."""
    sql = "SELECT place, checksum, read, delivered, billed, mark FROM sinks WHERE sink = ?"
    row = connection.execute(sql, (sink,)).fetchone()
    return (Place(), 0, 0, 0) if row is None else (Place(*row[:3]), row[3], int(row[4]), row[5])


def _take(connection: sqlite3.Connection, sink: str, events: Sequence[Event], place: Place) -> None:
    """Stand at a place, with these events."""
    connection.execute(
        """INSERT INTO sinks VALUES (?, ?, ?, ?, 0, 0, '0', '')
            ON CONFLICT DO UPDATE SET place = excluded.place, checksum = excluded.checksum, read = excluded.read""",
        (sink, *msgspec.structs.astuple(place)),
    )
    connection.executemany(
        f"INSERT INTO events (sink, {_FIELDS}, parked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(sink, *msgspec.structs.astuple(event), int(event.body is None)) for event in events],
    )


def _events(
    connection: sqlite3.Connection, sink: str, parked: int, limit: int, without: Collection[str] = ()
) -> list[Event]:
    rows = connection.execute(
        f"""SELECT {_FIELDS} FROM events WHERE sink = ? AND parked = ?
            AND tenant NOT IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?""",
        (sink, parked, msgspec.json.encode(sorted(without)).decode(), limit),
    )
    return [Event(**dict(zip(Event.__struct_fields__, row, strict=True))) for row in rows]


def _set_back(sink: str, pairs: Sequence[tuple[Event, Outcome]]) -> tuple[str, list[tuple[Any, ...]]]:
    """The statement that keeps what was not delivered. A refused body is forgotten: it is made anew when somebody retries."""
    rows = [
        (outcome.reason, refused, refused, sink, event.id)
        for event, outcome in pairs
        if outcome.verdict != "delivered"
        for refused in [int(outcome.verdict == "refused")]
    ]
    return (
        """UPDATE events SET tries = tries + 1, reason = ?, parked = ?, body = CASE ? WHEN 1 THEN NULL ELSE body END
            WHERE sink = ? AND id = ?""",
        rows,
    )


def _standing(pending: Sequence[Any], parked: Sequence[Any]) -> Standing:
    sink, place, delivered, billed, stopped, count, high, low, oldest, reason = pending
    return Standing(
        sink=sink,
        place=place,
        delivered=delivered,
        delivered_billed=int(billed),
        pending=count,
        pending_billed=(high << 32) + low,
        parked=parked[5],
        parked_billed=(parked[6] << 32) + parked[7],
        oldest=oldest,
        reason=reason or "",
        stopped=stopped,
    )
