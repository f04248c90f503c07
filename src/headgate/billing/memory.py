"""MemoryOutbox: the reference implementation. Nothing outlives the process."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from headgate.billing.billing import Delivery, Event, Outcome, Place, Standing


class MemoryOutbox:
    """An outbox in this process's memory."""

    def __init__(self) -> None:
        self._pending: dict[str, dict[str, Event]] = {}
        self._parked: dict[str, dict[str, Event]] = {}
        self._places: dict[str, tuple[Place, int, int, int]] = {}
        self._stopped: dict[str, str] = {}

    async def claim(self, sink: str, seconds: float) -> bool:  # noqa: ARG002 - one process alone sends
        """Yes: nobody else sends."""
        return True

    async def release(self, sink: str) -> None:
        """Nobody else waits for it."""

    async def place(self, sink: str) -> Place:
        """The place in the journal up to which events were made."""
        return self._of(sink)[0]

    async def add(self, sink: str, events: Sequence[Event], place: Place) -> None:
        """Take in the events of all rows up to `place`."""
        if place.row > self._of(sink)[0].row:
            self._take(sink, events, place)

    async def rewind(self, sink: str, before: Place, events: Sequence[Event], place: Place) -> bool:
        """Go back from `before` to an earlier place, and park events."""
        if self._of(sink)[0] != before:
            return False
        self._take(sink, events, place)
        self._stopped.pop(sink, None)
        return True

    def _take(self, sink: str, events: Sequence[Event], place: Place) -> None:
        self._places[sink] = place, *self._of(sink)[1:]
        for event in events:
            if event.id not in self._pending.get(sink, {}) and event.id not in self._parked.get(sink, {}):
                self._put(self._pending if event.body is not None else self._parked, sink, event)

    async def stop(self, sink: str, reason: str) -> None:
        """Note why nothing is sent any more, or that it is again."""
        self._stopped[sink] = reason

    async def pending(self, sink: str, limit: int, without: Collection[str] = ()) -> list[Event]:
        """The oldest events to be sent, except those of some tenants."""
        found = [event for event in self._pending.get(sink, {}).values() if event.tenant not in without]
        return sorted(found, key=_seq)[:limit]

    async def rendered(self, sink: str, event: Event) -> None:
        """Keep the body of an event that had none; one that still has none is parked."""
        if event.id in self._pending.get(sink, {}):
            del self._pending[sink][event.id]
            self._put(self._pending if event.body is not None else self._parked, sink, event)

    async def trying(self, sink: str, events: Sequence[Event], at: float) -> int:
        """Note that events are about to be sent. The mark of the last delivery."""
        for event in events:
            kept = self._pending[sink][event.id]
            self._put(self._pending, sink, replace(kept, tried=at if kept.tried is None else kept.tried))
        return self._of(sink)[3]

    async def resolve(self, sink: str, events: Sequence[Event], delivery: Delivery) -> None:
        """Note what became of events."""
        place, delivered, billed, _ = self._of(sink)
        for event, outcome in zip(events, delivery.outcomes, strict=True):
            kept = self._pending[sink].pop(event.id)
            if outcome.verdict == "delivered":
                delivered, billed = delivered + 1, billed + kept.billed
            else:
                self._set_back(sink, kept, outcome)
        self._places[sink] = place, delivered, billed, delivery.mark

    def _set_back(self, sink: str, event: Event, outcome: Outcome) -> None:
        event = replace(event, tries=event.tries + 1, reason=outcome.reason)
        if outcome.verdict == "again":
            self._put(self._pending, sink, event)
        else:
            self._put(self._parked, sink, replace(event, body=None))

    async def park(self, sink: str, events: Sequence[Event], reason: str) -> None:
        """Set events aside until somebody asks for them."""
        for event in events:
            self._put(self._parked, sink, replace(self._pending[sink].pop(event.id), reason=reason))

    async def retry(self, sink: str, ids: Collection[str] | None = None) -> int:
        """Send parked events again, all or those with these ids."""
        parked = self._parked.get(sink, {})
        chosen = [event for event in parked.values() if ids is None or event.id in ids]
        for event in chosen:
            self._put(self._pending, sink, replace(parked.pop(event.id), tried=None, tries=0))
        return len(chosen)

    async def parked(self, sink: str, limit: int) -> list[Event]:
        """The oldest events that were set aside."""
        return sorted(self._parked.get(sink, {}).values(), key=_seq)[:limit]

    async def standings(self) -> list[Standing]:
        """Where every sink stands, by name."""
        return [self._standing(sink) for sink in sorted({*self._places, *self._pending, *self._parked})]

    async def close(self) -> None:
        """Nothing to let go of."""

    def _standing(self, sink: str) -> Standing:
        place, delivered, billed, _ = self._of(sink)
        pending = sorted(self._pending.get(sink, {}).values(), key=_seq)
        parked = self._parked.get(sink, {}).values()
        return Standing(
            sink=sink,
            place=place.row,
            delivered=delivered,
            delivered_billed=billed,
            pending=len(pending),
            pending_billed=sum(event.billed for event in pending),
            parked=len(parked),
            parked_billed=sum(event.billed for event in parked),
            oldest=min((event.made for event in pending), default=None),
            reason=pending[0].reason if pending else "",
            stopped=self._stopped.get(sink, ""),
        )

    def _of(self, sink: str) -> tuple[Place, int, int, int]:
        """Place, delivered events and what they billed, and the mark."""
        return self._places.get(sink, (Place(), 0, 0, 0))

    @staticmethod
    def _put(among: dict[str, dict[str, Event]], sink: str, event: Event) -> None:
        among.setdefault(sink, {})[event.id] = event


def _seq(event: Event) -> int:
    return event.seq
