"""Reply: what one caller reads of a flight.

Hit, leader, follower, JSON and SSE are one path. `opened()` waits for the first part or raises the real error while a status
line can still be sent; closing the reply leaves the flight, gives the permit back and emits exactly one record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

import msgspec

from headgate.coalesce import Flight, Trail
from headgate.limits.limits import Permit
from headgate.model.chat import Completion, Event
from headgate.model.errors import GatewayError, Internal, UpstreamTimeout
from headgate.model.money import Usage
from headgate.model.record import Attempt, CallRecord, Source
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
    ) -> None:
        """`leads`: the flight flies because of this caller, who pays for it. `closed` takes the one record."""
        self.ticket = ticket
        self.permit = permit
        self._flight = flight
        self._leads = leads
        self._closed = closed
        self._clock = clock
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
        """Wait for the first event. Raises the flight's error when it fails before it, UpstreamTimeout when the caller's
        own time is over."""
        flight = self._flight
        with self._noting_errors():
            async with self._patience():
                while not (flight.events or flight.ended):
                    await flight.changed()
            if flight.error is not None and not flight.events:
                raise flight.error.with_traceback(None)
            self._first = self._clock() - self.ticket.started

    async def events(self) -> AsyncIterator[Event]:
        """All events, from the first on. Raises Interrupted where the answer broke off."""
        with self._noting_errors():
            async with self._patience():
                async for event in self._flight.follow():
                    yield event
        self._read_to_end = True

    async def completion(self) -> Completion:
        """The whole answer, paid for. Raises the flight's error."""
        flight = self._flight
        with self._noting_errors():
            async with self._patience():
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
        ticket, trail = self.ticket, self.trail
        completion, duration = self._flight.completion, self._clock() - ticket.started
        attempts = tuple(trail.attempts) if self._leads else ()
        return CallRecord(
            id=ticket.id,
            at=ticket.at,
            tenant=ticket.caller.tenant,
            user=ticket.wishes.user or ticket.caller.user,
            feature=ticket.wishes.feature,
            key=ticket.caller.key,
            route=ticket.route,
            status=self._status(),
            error=None if self._error is None else self._error.code or self._error.type,
            stream=ticket.stream,
            source=self.source if self._flight.events else "none",
            cache=trail.cache,
            cache_reason=trail.cache_reason,
            confidence=trail.confidence,
            model=trail.model,
            deployment=trail.deployment,
            route_reason=trail.route_reason,
            route_confidence=trail.route_confidence,
            attempts=attempts,
            usage=completion.usage if completion is not None else _used(attempts),
            cost=self.cost,
            saved=self.saved if completion is not None else 0,
            duration=duration,
            first_token=self._first,
            overhead=self.overhead(),
            lookup=trail.lookup if self._leads else None,
        )

    def _status(self) -> int:
        if self._error is not None:
            return self._error.status
        return 200 if self._read_to_end else CLIENT_LEFT

    def _patience(self) -> contextlib.AbstractAsyncContextManager[object]:
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


def _used(attempts: Sequence[Attempt]) -> Usage:
    used = Usage()
    for attempt in attempts:
        used = used.plus(attempt.usage)
    return used


_UNBOUNDED = contextlib.nullcontext()
