"""Pump: moves one sink's rows from the journal into the outbox, and from the outbox to the sink.

Rows of one tenant are delivered in their order; a tenant whose event must be sent again waits, and no other tenant with it. The wait
doubles with each failure and is drawn at random between nothing and that ("full jitter", Brooker, AWS Architecture Blog, 2015), but
is never shorter than the sink asked for.

Before the first byte of an event leaves, the outbox knows that it was tried. An event whose first try is longer ago than the sink
recognises repetitions is not sent by itself any more: that might bill it twice, so somebody must ask for it.

Of several processes one at a time sends to a sink, for as long as it renews its lease; when it does so no more, another goes on.

When the journal is not the one that was read before, the pump stops until somebody says where to go on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from msgspec.structs import replace

from headgate.billing.billing import (
    MICRO,
    Delivery,
    Event,
    Exporter,
    Line,
    Outbox,
    Outcome,
    Place,
    Standing,
    Unbillable,
    event_id,
)
from headgate.model.errors import Conflict
from headgate.model.failpoints import passed
from headgate.model.leases import held

log = logging.getLogger(__name__)

ROWS = 1_000
"""Journal rows that become events in one transaction, and events that are taken out at once."""
LANES = 16
"""Tenants to whose sink one event at a time is sent, side by side."""
PORTION = 50
"""Events of one tenant that are sent before the others have their turn."""
ALONE = 3
"""Failures in a row after which a tenant's events are no longer sent together with others'."""
POLL = 1.0
"""Seconds between two looks at a journal in which nothing new was."""
LOOK = 10.0
"""Seconds between two counts of what waits, and between two looks whether a sink is another process' any more."""
LEASE = 30.0
"""Seconds after which another process goes on where one that sent to a sink has died."""
FIRST_WAIT = 1.0
LONGEST_WAIT = 300.0
MARGIN = 600.0
"""Seconds before the end of a sink's memory from which on it is not relied on any more."""
ALARM = 20 * 3_600.0
"""Age in seconds of the oldest waiting event at which somebody is told: most sinks remember for 24 hours."""

Feed = Callable[[Place, Sequence[str], int], Awaitable[tuple[Place, list[Line]]]]
"""At most so many rows of these kinds behind a place in the journal, and the place up to which there are no others. Raises Conflict
when the journal was replaced."""
Customers = Callable[[str], Awaitable[str | None]]
"""What whoever bills a tenant calls it; None when nobody said so."""


class Pump:
    """One sink's. `run` it as a task, or call `turn`."""

    def __init__(
        self,
        sink: str,
        exporter: Exporter,
        outbox: Outbox,
        feed: Feed,
        customers: Customers,
        *,
        since: float = 0.0,
        now: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`since`: rows before this unix time are not sent. `now` in unix seconds; `draw` gives numbers from 0 to 1."""
        self.sink = sink
        self.standing = Standing(sink=sink)
        self._exporter = exporter
        self._outbox = outbox
        self._feed = feed
        self._customers = customers
        self._since = since
        self._now = now
        self._draw = draw
        self._place: Place | None = None
        self._stopped: str | None = None
        self._waits: dict[str, tuple[int, float]] = {}
        self._looked = 0.0
        self._alarmed = False

    async def run(self) -> None:
        """Send whenever no other process does, until cancelled."""
        while True:
            try:
                await self._send_alone()
            except Exception:
                log.exception("billing sink %s cannot be claimed; it is tried again", self.sink)
            await asyncio.sleep(LOOK)

    async def _send_alone(self) -> None:
        """Turn after turn, for as long as nobody else may send to the sink; nothing while somebody else does."""
        since = asyncio.get_running_loop().time()
        if not await self._outbox.claim(self.sink, LEASE):
            return
        self._place = self._stopped = None  # whoever had it before has moved it
        try:
            async with held(lambda: self._outbox.claim(self.sink, LEASE), since=since, seconds=LEASE):
                await self._turns()
        except TimeoutError:
            log.warning("billing sink %s is left to other processes: its lease could not be renewed", self.sink)
        finally:
            self.standing = Standing(sink=self.sink)
            with suppress(Exception):
                await self._outbox.release(self.sink)

    async def _turns(self) -> None:
        """Turn after turn. One that fails is told and does not end the next."""
        while True:
            try:
                wait = await self.turn()
            except Exception:
                log.exception("billing sink %s cannot go on; it is tried again", self.sink)
                wait = LOOK
            await asyncio.sleep(wait)

    async def turn(self) -> float:
        """Make events of new rows and deliver what is due. Seconds until there may be more to do."""
        try:
            more = await self._fill()
        except Conflict as conflict:
            self._place = None  # somebody else says where to go on
            await self._stop(conflict.message)
            return LOOK
        await self._stop("")
        now = self._now()
        served = {tenant for tenant, (_, due) in self._waits.items() if due > now}
        busy = more
        while events := await self._outbox.pending(self.sink, ROWS, served):
            lanes = self._lanes(events)
            if self._exporter.batch == 1:
                async with asyncio.TaskGroup() as group:
                    for lane in lanes:
                        group.create_task(self._lane(lane, 1))
            else:
                for lane in lanes:
                    await self._lane(lane, 1 if self._failures(lane[0]) >= ALONE else self._exporter.batch)
            served.update(event.tenant for lane in lanes for event in lane)
            busy = True
        if now - self._looked >= LOOK or not self._looked:
            self._looked = now
            await self._look()
        return 0.0 if busy else POLL

    def oldest(self) -> float:
        """Seconds that the oldest event has waited, as of the last look."""
        return 0.0 if self.standing.oldest is None else max(0.0, self._now() - self.standing.oldest)

    async def _fill(self) -> bool:
        """Make events of the rows behind our place; whether there may be more."""
        if self._place is None:
            self._place = await self._outbox.place(self.sink)
        place, lines = await self._feed(self._place, self._exporter.kinds, ROWS)
        if place.row > self._place.row:
            place = replace(place, at=self._now())
            events = [event for line in lines if (event := await self._event(line)) is not None]
            await self._outbox.add(self.sink, events, place)
            self._place = place
        return len(lines) >= ROWS

    async def _stop(self, reason: str) -> None:
        """Tell once why nothing is sent any more; without a reason, that it is again."""
        if reason == self._stopped:
            return
        await self._outbox.stop(self.sink, reason)
        if reason:
            log.error("billing sink %s has stopped: %s", self.sink, reason)
        elif self._stopped:
            log.warning("billing sink %s goes on", self.sink)
        self._stopped = reason
        await self._look()

    async def _event(self, line: Line) -> Event | None:
        if line.at < self._since * MICRO:
            return None
        reason, body = "", None
        id = event_id(self.sink, line)
        try:
            body = self._exporter.render(line, id, await self._customers(line.tenant))
            if body is None:
                return None
        except Unbillable as error:
            reason = str(error)
        return Event(
            id=id, seq=line.seq, tenant=line.tenant, billed=line.billed, body=body, made=self._now(), reason=reason
        )

    def _lanes(self, events: list[Event]) -> list[list[Event]]:
        """What is sent in its order. One at a time: a few events of each tenant, so that nobody waits for another's long backlog.
        In batches: all together, but a tenant that failed again and again by itself, for one of its events may break the sink."""
        lanes: dict[str, list[Event]] = {}
        for event in events:
            alone = self._exporter.batch == 1 or self._failures(event) >= ALONE
            lanes.setdefault(event.tenant if alone else "", []).append(event)
        if self._exporter.batch > 1:
            return list(lanes.values())
        return [lane[:PORTION] for lane in list(lanes.values())[:LANES]]

    def _failures(self, event: Event) -> int:
        """How often its tenant has failed since it last succeeded."""
        return self._waits.get(event.tenant, (0, 0.0))[0]

    async def _lane(self, events: list[Event], size: int) -> None:
        """Deliver in order, so many at once, until something must be sent again."""
        for at in range(0, len(events), size):
            batch = events[at : at + size]
            if not await self._send([ready for event in batch if (ready := await self._ready(event)) is not None]):
                return

    async def _ready(self, event: Event) -> Event | None:
        """The event with a body, unless it is parked: nothing can be made of it, or its sink may have forgotten it."""
        remembers = self._exporter.remembers
        if event.body is None:
            return await self._anew(event)
        if event.tried is not None and remembers is not None and self._now() - event.tried > remembers - MARGIN:
            hours = (self._now() - event.tried) / 3_600
            await self._outbox.park(
                self.sink,
                [event],
                f"tried first {hours:.0f} h ago, and the sink may have forgotten it: look there whether it has {event.id},"
                f" and only if not, retry ({event.reason})",
            )
            return None
        return event

    async def _anew(self, event: Event) -> Event | None:
        """The event with a body made of its row again; parked when that cannot be."""
        _, lines = await self._feed(Place(event.seq - 1), self._exporter.kinds, 1)
        fresh = await self._event(lines[0]) if lines else None
        if fresh is None or fresh.id != event.id:
            event = replace(event, reason="there is nothing to be sent for its row any more")
        else:
            event = replace(event, body=fresh.body, reason=fresh.reason)
        await self._outbox.rendered(self.sink, event)
        return None if event.body is None else event

    async def _send(self, events: list[Event]) -> bool:
        """One delivery; whether nothing in it must be sent again."""
        if not events:
            return True
        mark = await self._outbox.trying(self.sink, events, self._now())
        try:
            delivery = await self._exporter.deliver(events, mark)
        except Exception as error:
            log.exception("billing sink %s failed", self.sink)
            delivery = Delivery((Outcome("again", f"{type(error).__name__}: {error}"),) * len(events), mark)
        passed("during_export")
        await self._outbox.resolve(self.sink, events, delivery)
        return self._learn(events, delivery)

    def _learn(self, events: list[Event], delivery: Delivery) -> bool:
        """Let the tenants wait whose events must be sent again."""
        failed: dict[str, Outcome] = {}
        for event, outcome in zip(events, delivery.outcomes, strict=True):
            if outcome.verdict == "again":
                failed.setdefault(event.tenant, outcome)
            elif outcome.verdict == "refused":
                log.error("billing sink %s refuses %s of %s: %s", self.sink, event.id, event.tenant, outcome.reason)
        for tenant in {event.tenant for event in events} - failed.keys():
            self._waits.pop(tenant, None)
        for tenant, outcome in failed.items():
            failures = self._waits.get(tenant, (0, 0.0))[0] + 1
            longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures, 16))
            wait = max(self._draw() * longest, min(outcome.retry_after or 0.0, LONGEST_WAIT))
            self._waits[tenant] = failures, self._now() + wait
        return not failed

    async def _look(self) -> None:
        """Count what waits, and tell once when it has waited too long."""
        found = {standing.sink: standing for standing in await self._outbox.standings()}
        self.standing = found.get(self.sink, self.standing)
        late = self.oldest() >= ALARM
        if late and not self._alarmed:
            log.error(
                "billing sink %s: %d events wait, the oldest for %.0f h; last reason: %s. See `headgate billing status`.",
                self.sink, self.standing.pending, self.oldest() / 3_600, self.standing.reason or "none",
            )  # fmt: skip
        self._alarmed = late
