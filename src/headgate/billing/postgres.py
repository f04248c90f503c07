"""PostgresOutbox: events in a database that several processes share. One of them at a time sends to a sink.

Who sends has the sink's lease, by the server's clock. Each step of sending locks the lease for its transaction and is refused once another
process has it, so what one that was frozen still wants to write changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import msgspec

from headgate.billing.billing import Delivery, Event, Outcome, Place, Standing
from headgate.model.errors import Overloaded
from headgate.storage.postgres import Connection, Postgres, Step

SCHEMA: tuple[Step, ...] = (
    (
        """CREATE TABLE headgate_sinks (
            sink text PRIMARY KEY, place bigint NOT NULL, checksum bigint, read float8 NOT NULL, mark bigint NOT NULL DEFAULT 0,
            delivered bigint NOT NULL DEFAULT 0, billed numeric NOT NULL DEFAULT 0, stopped text NOT NULL DEFAULT ''
        )""",
        """CREATE TABLE headgate_events (
            sink text NOT NULL, id text NOT NULL, seq bigint NOT NULL, tenant text NOT NULL, billed bigint NOT NULL,
            body bytea, made float8 NOT NULL, tried float8, tries integer NOT NULL, reason text NOT NULL, parked boolean NOT NULL,
            PRIMARY KEY (sink, id)
        )""",
        "CREATE INDEX headgate_events_in_order ON headgate_events (sink, parked, seq)",
        "CREATE TABLE headgate_sink_leases (sink text PRIMARY KEY, holder text NOT NULL, until timestamptz NOT NULL)",
    ),
)

_FIELDS = "id, seq, tenant, billed, body, made, tried, tries, reason"
_OF = "FROM headgate_events e WHERE e.sink = s.sink AND"
_STANDINGS = f"""SELECT s.sink, s.place, s.delivered, s.billed, s.stopped,
    (SELECT count(*) {_OF} NOT e.parked), (SELECT coalesce(sum(e.billed), 0) {_OF} NOT e.parked),
    (SELECT count(*) {_OF} e.parked), (SELECT coalesce(sum(e.billed), 0) {_OF} e.parked),
    (SELECT min(e.made) {_OF} NOT e.parked), (SELECT e.reason {_OF} NOT e.parked ORDER BY e.seq LIMIT 1)
    FROM headgate_sinks s ORDER BY s.sink COLLATE "C\""""


class PostgresOutbox:
    """An outbox in one database, of which each process has its own connections."""

    def __init__(self, postgres: Postgres, *, replica: str) -> None:
        """`replica`: what this process is called, as no other is or ever was. The connections are closed by whoever opened them."""
        self._postgres = postgres
        self._replica = replica

    async def claim(self, sink: str, seconds: float) -> bool:
        """Send to a sink for so many seconds from now, alone."""
        rows = await self._postgres.query(
            """INSERT INTO headgate_sink_leases AS lease VALUES (%s, %s, now() + make_interval(secs => %s))
                ON CONFLICT (sink) DO UPDATE SET holder = excluded.holder, until = excluded.until
                WHERE lease.holder = excluded.holder OR lease.until <= now() RETURNING sink""",
            (sink, self._replica, seconds),
        )
        return bool(rows)

    async def release(self, sink: str) -> None:
        """Let others send to a sink. The row stays: who had it before must not take it for one that nobody ever had."""
        await self._postgres.query(
            "UPDATE headgate_sink_leases SET holder = '', until = '-infinity' WHERE sink = %s AND holder = %s",
            (sink, self._replica),
        )

    async def place(self, sink: str) -> Place:
        """The place in the journal up to which events were made."""
        async with self._postgres.connection() as connection:
            return await _place(connection, sink)

    async def add(self, sink: str, events: Sequence[Event], place: Place) -> None:
        """Take in the events of all rows up to `place`."""
        async with self._sending(sink) as connection:
            if place.row > (await _place(connection, sink)).row:
                await _take(connection, sink, events, place)

    async def rewind(self, sink: str, before: Place, events: Sequence[Event], place: Place) -> bool:
        """Go back from `before` to an earlier place, and park events."""
        async with self._postgres.transaction() as connection:
            if await _place(connection, sink) != before:
                return False
            await _take(connection, sink, events, place)
            await connection.execute("UPDATE headgate_sinks SET stopped = '' WHERE sink = %s", (sink,))
            return True

    async def stop(self, sink: str, reason: str) -> None:
        """Note why nothing is sent any more, or that it is again."""
        await self._postgres.query("UPDATE headgate_sinks SET stopped = %s WHERE sink = %s", (_text(reason), sink))

    async def pending(self, sink: str, limit: int, without: Collection[str] = ()) -> list[Event]:
        """The oldest events to be sent, except those of some tenants."""
        return await self._events(sink, limit, without, parked=False)

    async def rendered(self, sink: str, event: Event) -> None:
        """Keep the body of an event that had none; one that still has none is parked."""
        async with self._sending(sink) as connection:
            await connection.execute(
                "UPDATE headgate_events SET body = %s, reason = %s, parked = %s WHERE sink = %s AND id = %s AND NOT parked",
                (event.body, _text(event.reason), event.body is None, sink, event.id),
            )

    async def trying(self, sink: str, events: Sequence[Event], at: float) -> int:
        """Note that events are about to be sent. The mark of the last delivery."""
        async with self._sending(sink) as connection:
            await connection.execute(
                "UPDATE headgate_events SET tried = %s WHERE sink = %s AND id = ANY(%s) AND tried IS NULL",
                (at, sink, _ids(events)),
            )
            cursor = await connection.execute("SELECT mark FROM headgate_sinks WHERE sink = %s", (sink,))
            row = await cursor.fetchone()
            return 0 if row is None else int(row[0])

    async def resolve(self, sink: str, events: Sequence[Event], delivery: Delivery) -> None:
        """Note what became of events."""
        pairs = list(zip(events, delivery.outcomes, strict=True))
        gone = [event for event, outcome in pairs if outcome.verdict == "delivered"]
        async with self._sending(sink) as connection:
            await connection.execute(
                "UPDATE headgate_sinks SET mark = %s, delivered = delivered + %s, billed = billed + %s WHERE sink = %s",
                (delivery.mark, len(gone), sum(event.billed for event in gone), sink),
            )
            await connection.execute("DELETE FROM headgate_events WHERE sink = %s AND id = ANY(%s)", (sink, _ids(gone)))
            await _set_back(connection, sink, [pair for pair in pairs if pair[1].verdict != "delivered"])

    async def park(self, sink: str, events: Sequence[Event], reason: str) -> None:
        """Set events aside until somebody asks for them."""
        async with self._sending(sink) as connection:
            await connection.execute(
                "UPDATE headgate_events SET parked = true, reason = %s WHERE sink = %s AND id = ANY(%s)",
                (_text(reason), sink, _ids(events)),
            )

    async def retry(self, sink: str, ids: Collection[str] | None = None) -> int:
        """Send parked events again, all or those with these ids."""
        rows = await self._postgres.query(
            """WITH chosen AS (
                    UPDATE headgate_events SET parked = false, tried = NULL, tries = 0 WHERE sink = %(sink)s AND parked
                    AND (%(ids)s::text[] IS NULL OR id = ANY(%(ids)s::text[])) RETURNING 1
                )
                SELECT count(*) FROM chosen""",
            {"sink": sink, "ids": None if ids is None else sorted(ids)},
        )
        return int(rows[0][0])

    async def parked(self, sink: str, limit: int) -> list[Event]:
        """The oldest events that were set aside."""
        return await self._events(sink, limit, (), parked=True)

    async def standings(self) -> list[Standing]:
        """Where every sink stands, by name."""
        return [_standing(row) for row in await self._postgres.query(_STANDINGS)]

    async def close(self) -> None:
        """Nothing of its own to let go of."""

    async def _events(self, sink: str, limit: int, without: Collection[str], *, parked: bool) -> list[Event]:
        rows = await self._postgres.query(
            f"""SELECT {_FIELDS} FROM headgate_events WHERE sink = %s AND parked = %s
                AND tenant <> ALL(%s::text[]) ORDER BY seq LIMIT %s""",
            (sink, parked, sorted(without), limit),
        )
        return [Event(**dict(zip(Event.__struct_fields__, row, strict=True))) for row in rows]

    @contextlib.asynccontextmanager
    async def _sending(self, sink: str) -> AsyncIterator[Connection]:
        """A transaction during which the sink's lease goes to nobody else. Raises Overloaded when another process has it."""
        async with self._postgres.transaction() as connection:
            cursor = await connection.execute(
                "SELECT holder FROM headgate_sink_leases WHERE sink = %s FOR SHARE", (sink,)
            )
            row = await cursor.fetchone()
            if row is not None and row[0] != self._replica:
                raise Overloaded(f"Another process sends to the billing sink {sink}.", retry_after=1.0)
            yield connection


async def _place(connection: Connection, sink: str) -> Place:
    """Where a sink stands; inside a transaction, nobody else moves it until that is over."""
    cursor = await connection.execute(
        "SELECT place, checksum, read FROM headgate_sinks WHERE sink = %s FOR UPDATE", (sink,)
    )
    row = await cursor.fetchone()
    return Place() if row is None else Place(*row)


async def _take(connection: Connection, sink: str, events: Sequence[Event], place: Place) -> None:
    """Stand at a place, with these events."""
    await connection.execute(
        """INSERT INTO headgate_sinks (sink, place, checksum, read) VALUES (%s, %s, %s, %s) ON CONFLICT (sink)
            DO UPDATE SET place = excluded.place, checksum = excluded.checksum, read = excluded.read""",
        (sink, *msgspec.structs.astuple(place)),
    )
    columns = [[getattr(event, field) for event in events] for field in _FIELDS.split(", ")[:-1]]
    await connection.execute(
        f"""INSERT INTO headgate_events (sink, {_FIELDS}, parked)
            SELECT %s, *, body IS NULL FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bigint[], %s::bytea[],
            %s::float8[], %s::float8[], %s::integer[], %s::text[]) AS event ({_FIELDS}) ON CONFLICT DO NOTHING""",
        (sink, *columns, [_text(event.reason) for event in events]),
    )


async def _set_back(connection: Connection, sink: str, pairs: Sequence[tuple[Event, Outcome]]) -> None:
    """Keep what was not delivered. A refused body is forgotten: it is made anew when somebody retries."""
    await connection.execute(
        """UPDATE headgate_events AS event SET tries = tries + 1, reason = back.reason, parked = back.refused,
            body = CASE WHEN back.refused THEN NULL ELSE body END
            FROM unnest(%s::text[], %s::text[], %s::boolean[]) AS back (id, reason, refused)
            WHERE event.sink = %s AND event.id = back.id""",
        (
            [event.id for event, _ in pairs],
            [_text(outcome.reason) for _, outcome in pairs],
            [outcome.verdict == "refused" for _, outcome in pairs],
            sink,
        ),
    )


def _ids(events: Sequence[Event]) -> list[str]:
    return [event.id for event in events]


def _text(reason: str) -> str:
    """What a sink has said, as PostgreSQL keeps text: without NUL, and in whole characters."""
    return reason.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _standing(row: Sequence[Any]) -> Standing:
    sink, place, delivered, billed, stopped, pending, pending_billed, parked, parked_billed, oldest, reason = row
    return Standing(
        sink=sink,
        place=place,
        delivered=delivered,
        delivered_billed=int(billed),
        pending=pending,
        pending_billed=int(pending_billed),
        parked=parked,
        parked_billed=int(parked_billed),
        oldest=oldest,
        reason=reason or "",
        stopped=stopped,
    )
