"""Reply: what one caller reads of a flight.

Hit, leader, follower, JSON and SSE are one path. `opened()` waits for the first part or raises the real error while a status
line can still be sent; closing the reply leaves the flight, gives the permit back and emits exactly one record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Self

import msgspec

from headgate.coalesce import Flight, Trail
from headgate.limits.limits import Permit
from headgate.model.chat import Completion, Event
from headgate.model.errors import GatewayError, Internal, UpstreamTimeout
from headgate.model.money import Usage
from headgate.model.record import CallRecord, Source
from headgate.model.tenancy import Principal, Wishes

CLIENT_LEFT = 499
"""nginx's status for a client that hung up before its answer was complete; only telemetry sees it."""


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked for what, when: what a record needs to know beside the flight. Times: unix and monotonic seconds."""

    id: str
    at: float
    started: float
    caller: Principal
    wishes: Wishes
    route: str
    stream: bool


class Reply:
    """One caller's view of a flight. Use it as `async with reply:` so that leaving is never forgotten."""

    def __init__(
        self,
        ticket: Ticket,
        flight: Flight,
        *,
        leads: bool,
        permit: Permit,
        closed: Callable[[CallRecord], Awaitable[None]],
        clock: Callable[[], float],
        again: Callable[[], tuple[Flight, bool]] | None = None,
        patience: float = 5.0,
    ) -> None:
        """`leads`: the flight flies because of this caller, who pays for it. `closed` takes the one record.

        `again` is for followers: it starts over, together with all others who do, and says whether this caller leads then. A
        follower does so once, when its flight fails in a way that may pass, or when a stream says nothing for `patience` seconds.
        """
        self.ticket = ticket
        self.permit = permit
        self._flight = flight
        self._leads = leads
        self._closed = closed
        self._clock = clock
        self._again = again
        self._patience = patience
        self._first: float | None = None
        self._error: GatewayError | None = None
        self._read_to_end = False
        self._open = True

    @property
    def id(self) -> str:
        """The request id."""
        return self.ticket.id

    @property
    def trail(self) -> Trail:
        """How the answer was found, as far as is known by now."""
        return self._flight.trail

    @property
    def source(self) -> Source:
        """Where this caller's answer comes from."""
        source = self._flight.trail.source
        return "coalesced" if source == "live" and not self._leads else source

    @property
    def cost(self) -> int:
        """Nano-USD that this caller pays so far: a flight is paid by its leader."""
        return self._flight.trail.cost if self._leads else 0

    @property
    def saved(self) -> int:
        """Nano-USD that this caller would have paid without cache and coalescing."""
        return 0 if self.source == "live" else self._flight.trail.worth

    def overhead(self) -> float:
        """Seconds since the call came in that were not spent waiting for a provider."""
        spent = self._clock() - self.ticket.started
        if self.source in ("live", "coalesced"):
            return max(0.0, spent - sum(attempt.seconds for attempt in self.trail.attempts))
        return spent

    async def opened(self) -> None:
        """Wait for the first event. Raises the flight's error when it fails before it, and UpstreamTimeout when the
        caller's own time is over."""
        if self._first is not None:
            return
        with self._noting_errors():
            async with self._time_left():
                await self._first_event()
        self._first = self._clock() - self.ticket.started

    async def _first_event(self) -> None:
        flight = self._flight
        heard = await self._heard(self._patience if self._again is not None and self.ticket.stream else None)
        failed = flight.error is not None and not flight.events
        again, self._again = self._again, None
        if again is not None and (not heard or (flight.error is not None and failed and flight.error.retryable)):
            flight.leave()
            self._flight, self._leads = again()
            await self._first_event()
        elif flight.error is not None and failed:
            raise flight.error.with_traceback(None)

    async def _heard(self, patience: float | None) -> bool:
        """Wait for an event or the end; False when `patience` seconds pass without either."""
        flight = self._flight
        try:
            async with asyncio.timeout(patience):
                while not (flight.events or flight.ended):
                    await flight.changed()
        except TimeoutError:
            return False
        return True

    async def events(self) -> AsyncIterator[Event]:
        """All events, from the first on. Raises Interrupted where the answer broke off."""
        await self.opened()
        with self._noting_errors():
            async with self._time_left():
                async for event in self._flight.follow():
                    yield event
        self._read_to_end = True

    async def completion(self) -> Completion:
        """The whole answer, paid for. Raises the flight's error."""
        await self.opened()
        flight = self._flight
        with self._noting_errors():
            async with self._time_left():
                while not flight.ended:
                    await flight.changed()
            if flight.completion is None:
                raise (flight.error or Internal("The flight has no answer.")).with_traceback(None)
        self._read_to_end = True
        return flight.completion

    async def close(self) -> None:
        """Leave the flight, give the permit back, emit the record. Closing again does nothing."""
        if not self._open:
            return
        self._open = False
        self._flight.leave()
        self.permit.release()
        await self._closed(self.record())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def record(self) -> CallRecord:
        """What is known of this call now."""
        completion = self._flight.completion
        record = finished(
            self.ticket,
            self.trail if self._leads else msgspec.structs.replace(self.trail, attempts=[], lookup=None),
            duration=self._clock() - self.ticket.started,
        )
        return msgspec.structs.replace(
            record,
            status=self._status(),
            error=None if self._error is None else self._error.code or self._error.type,
            source=self.source if self._flight.events else "none",
            usage=completion.usage if completion is not None else record.usage,
            cost=self.cost,
            saved=self.saved if completion is not None else 0,
            first_token=self._first,
            overhead=self.overhead(),
        )

    def _status(self) -> int:
        if self._error is not None:
            return self._error.status
        return 200 if self._read_to_end else CLIENT_LEFT

    def _time_left(self) -> contextlib.AbstractAsyncContextManager[object]:
        timeout = self.ticket.wishes.timeout
        if timeout is None:
            return _UNBOUNDED
        left = timeout - (self._clock() - self.ticket.started)
        return asyncio.timeout(max(0.0, left))

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            self._error = UpstreamTimeout(f"No answer within the {self.ticket.wishes.timeout:g} s asked for.")
            raise self._error from None
        except GatewayError as error:
            self._error = error
            raise


def finished(ticket: Ticket, trail: Trail, *, duration: float) -> CallRecord:
    """The record of a call that went well, as far as ticket and trail tell."""
    used = Usage()
    for attempt in trail.attempts:
        used = used.plus(attempt.usage)
    return CallRecord(
        id=ticket.id,
        at=ticket.at,
        tenant=ticket.caller.tenant,
        user=ticket.wishes.user or ticket.caller.user,
        feature=ticket.wishes.feature,
        key=ticket.caller.key,
        route=ticket.route,
        status=200,
        stream=ticket.stream,
        source=trail.source,
        cache=trail.cache,
        cache_reason=trail.cache_reason,
        confidence=trail.confidence,
        model=trail.model,
        deployment=trail.deployment,
        route_reason=trail.route_reason,
        route_confidence=trail.route_confidence,
        attempts=tuple(trail.attempts),
        usage=used,
        cost=trail.cost,
        duration=duration,
        lookup=trail.lookup,
    )


def refusal(ticket: Ticket, error: GatewayError, trail: Trail | None = None) -> CallRecord:
    """The record of a call that ended before there was anything to read."""
    record = finished(ticket, trail or Trail(), duration=0.0)
    return msgspec.structs.replace(record, status=error.status, error=error.code or error.type, source="none")


_UNBOUNDED = contextlib.nullcontext()
