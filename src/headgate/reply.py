"""Reply: what one caller reads of a flight.

Hit, leader, follower, JSON and SSE are one path. `opened()` waits for the first part or raises the real error while a status
line can still be sent; closing the reply leaves the flight, gives the permit back and emits exactly one record.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Literal, Self

import msgspec

from headgate.coalesce.coalesce import Flight
from headgate.coalesce.fee import Fee
from headgate.coalesce.trail import Trail
from headgate.limits.limits import Permit
from headgate.model.chat import Completion, Event
from headgate.model.errors import GatewayError, Internal, UpstreamTimeout
from headgate.model.money import Usage
from headgate.model.record import CallRecord, Source
from headgate.model.tenancy import Principal, Wishes

BATCH = 16_384
"""Bytes from which on what a reader has yet to be given is given in several goes."""
CLIENT_LEFT = 499
"""nginx's status for a client that hung up before its answer was complete; only telemetry sees it."""


_WAITED = frozenset({"live", "coalesced", "coalesced-semantic"})
"""Sources for which a provider was waited for."""


class Ticket(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who asked for what, when: what a record needs to know beside the flight. Times: unix and monotonic seconds."""

    id: str
    at: float
    started: float
    caller: Principal
    wishes: Wishes
    route: str
    stream: bool


class Recourse(msgspec.Struct, frozen=True, gc=False):
    """What a follower can do about a flight that is not for it.

    patience  seconds that it waits for the first part of an answer
    turn      waits until it may start over alone
    again     starts over, alone (True) or together with all others who do under the same budgets; says whether the caller leads then
    """

    patience: float
    turn: Callable[[], Awaitable[None]]
    again: Callable[[bool], tuple[Flight, bool]]


class Reply:
    """One caller's view of a flight. Use it as `async with reply:` so that leaving is never forgotten."""

    def __init__(
        self,
        ticket: Ticket,
        flight: Flight,
        *,
        leads: bool,
        permit: Permit,
        closed: Callable[[CallRecord, Trail, int | None], None],
        clock: Callable[[], float],
        recourse: Recourse | None = None,
        fee: Fee | None = None,
    ) -> None:
        """`leads`: the flight flies because of this caller, who pays for it. `closed` takes the one record, how the answer was found,
        and nano-USD that the caller pays for an answer that others have paid for; None where that is written down already.

        `fee` is what it pays with; None when the caller pays nothing for such an answer.

        `recourse` is for followers, who start over when their flight fails in a way that may pass or that concerns its leader alone,
        when the answer is what the leader's own budget left of it, or when nothing is heard of it for too long: once together with
        all others who do, and if that fails too, each for itself.
        """
        self.ticket = ticket
        self.permit = permit
        self._flight = flight
        self._leads = leads
        self._closed = closed
        self._clock = clock
        self._recourse = recourse
        self._over = 0
        self._left_behind: Literal["slow", "failed"] | None = None
        self._fee = fee
        if fee is not None:
            fee.join(flight, leads=leads)
        self._first: float | None = None
        self._error: GatewayError | None = None
        self._given = False
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
    def at_hand(self) -> bool:
        """Whether the answer is whole already, so that nothing needs to be waited for."""
        return self._flight.completion is not None

    @property
    def started_over(self) -> Literal["slow", "failed", "alone"] | None:
        """Why the flight that this caller had joined did not answer it: it was too `slow`, or had `failed` it; or its own flight had
        followed another in vain and answers `alone`. None where nothing of that happened."""
        return self._left_behind or ("alone" if self._flight.alone else None)

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
        """Nano-USD that this caller would have cost more without cache, coalescing and routing."""
        trail = self._flight.trail
        return trail.routed if self.source == "live" else trail.worth

    @property
    def billed(self) -> int:
        """Nano-USD that this caller pays for an answer from stock of which it was given any part; nothing for a live one, which
        is in the settlement."""
        return 0 if self._fee is None else self._fee.due(self._flight, self.source, given=self._given)

    def overhead(self) -> float:
        """Seconds from the call's arrival to its answer (of a stream, to its first part) that no provider was waited for."""
        spent = self._clock() - self.ticket.started if self._first is None or not self.ticket.stream else self._first
        return max(0.0, spent - self._flight.trail.waited) if self.source in _WAITED else spent

    async def opened(self) -> None:
        """Wait for the first event. Raises the flight's error when it fails before it, and UpstreamTimeout when the
        caller's own time is over."""
        if self._first is not None:
            return
        try:
            if self._recourse is not None or not self._flight.begun:
                await self._first_event()
            if self._fee is not None:
                await self._fee.open(self._flight, self.source)
        except GatewayError as error:
            self._error = error
            raise
        self._first = self._clock() - self.ticket.started

    async def _first_event(self) -> None:
        while True:
            flight, heard = self._flight, True
            recourse = None if self._leads else self._recourse
            until = None if recourse is None else self._clock() + recourse.patience
            while heard and not (flight.begun or flight.ended):
                if self._fee is None or not await self._fee.pledge(flight):
                    heard = await self._news(None if until is None else max(0.0, until - self._clock()))
            if recourse is None or (heard and not _for_its_leader(flight, alike=self._over > 0)):
                break
            self._left_behind = self._left_behind or ("failed" if heard else "slow")
            await self._start_over(recourse)
        if not flight.begun and flight.error is not None:
            raise flight.error.with_traceback(None)

    async def _start_over(self, recourse: Recourse) -> None:
        alone = self._over > 0
        if alone:
            await recourse.turn()
        self._over += 1
        failed = self._flight
        self._flight, self._leads = recourse.again(alone)
        if self._fee is not None:
            self._fee.leave(failed)
            self._fee.join(self._flight, leads=self._leads, over=True)
        failed.leave()  # last: who can start over no more has yet to leave, once

    async def _news(self, patience: float | None = None) -> bool:
        """Wait until something happens to the flight; False when `patience` seconds pass before. Raises UpstreamTimeout."""
        left = self._time_left()
        if left is None and patience is None:
            await self._flight.news()
            return True
        impatient = patience is not None and (left is None or patience < left)
        try:
            async with asyncio.timeout(patience if impatient else left):
                await self._flight.news()
        except TimeoutError:
            if impatient:
                return False
            raise too_late(self.ticket) from None
        return True

    def _time_left(self) -> float | None:
        """Seconds that this caller still waits; None is for ever."""
        timeout = self.ticket.wishes.timeout
        return None if timeout is None else max(0.0, timeout - (self._clock() - self.ticket.started))

    async def events(self) -> AsyncGenerator[Event, None]:
        """All events, from the first on. Raises Interrupted where the answer broke off."""
        await self.opened()
        events, position = self._flight.events, 0
        while await self._more(events, position):
            position += 1
            yield events[position - 1]

    async def chunks(self) -> AsyncGenerator[Sequence[bytes], None]:
        """The parts of the answer as JSON (`coalesce.encoded`), each time all that this reader has yet to be given, or some 16 KB of it.
        Raises Interrupted where the answer broke off."""
        await self.opened()
        chunks, position = self._flight.chunks, 0
        while await self._more(chunks, position):
            begin, size = position, 0
            while position < len(chunks) and size < BATCH:
                size += len(chunks[position])
                position += 1
            yield chunks[begin:position]

    async def _more(self, log: Sequence[object], position: int) -> bool:
        """Wait until one of the flight's logs goes beyond this position; False when the answer ends before. Raises Interrupted where it
        broke off."""
        flight = self._flight
        try:
            while len(log) <= position:
                if flight.error is not None:
                    raise flight.error.with_traceback(None)
                if flight.completion is None:
                    await self._news()
                elif flight.events:
                    self._read_to_end = True
                    return False
                else:
                    flight.unfold()
        except GatewayError as error:
            self._error = error
            raise
        self._given = True
        return True

    async def completion(self) -> Completion:
        """The whole answer, paid for. Raises the flight's error."""
        await self.opened()
        flight = self._flight
        try:
            while not flight.ended:
                await self._news()
            if flight.completion is None:
                raise (flight.error or Internal("The flight has no answer.")).with_traceback(None)
        except GatewayError as error:
            self._error = error
            raise
        self._given = self._read_to_end = True
        return flight.completion

    def close(self) -> None:
        """Leave the flight, give the permit back, emit the record. Closing again does nothing.

        Who leaves early and pays for it has not seen what the flight will cost: the record waits for the flight's end.
        """
        if not self._open:
            return
        self._open = False
        if self._fee is not None and not self._given:
            self._fee.leave(self._flight)
        self._flight.leave()
        self.permit.release()
        duration, overhead = self._clock() - self.ticket.started, self.overhead()
        if self._leads or (self._fee is not None and self._fee.held):
            self._flight.afterwards(lambda: self._end(duration, overhead))
        else:
            self._end(duration, overhead)

    def _end(self, duration: float, overhead: float) -> None:
        written = self._fee is not None and self._fee.written
        self._closed(self._record(duration, overhead), self.trail, None if written else self.billed)
        if self._fee is not None:
            self._fee.drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _record(self, duration: float, overhead: float) -> CallRecord:
        """What is known of this call now; times in seconds, as they were when it was closed."""
        completion, trail = self._flight.completion, self.trail
        if not self._leads:
            trail = msgspec.structs.replace(trail, attempts=[], lookup=None, judged=None)
        return finished(
            self.ticket,
            trail,
            duration=duration,
            status=self._status(),
            error=None if self._error is None else self._error.label,
            source=self.source if self._flight.begun else "none",
            usage=None if completion is None else completion.usage,
            cost=self.cost,
            saved=0 if completion is None else self.saved,
            first_token=self._first,
            overhead=overhead,
        )

    def _status(self) -> int:
        if self._error is not None:
            return self._error.status
        return 200 if self._read_to_end else CLIENT_LEFT


def finished(
    ticket: Ticket,
    trail: Trail,
    *,
    duration: float,
    source: Source,
    cost: int,
    usage: Usage | None = None,
    status: int = 200,
    error: str | None = None,
    saved: int = 0,
    first_token: float | None = None,
    overhead: float = 0.0,
) -> CallRecord:
    """The record of a call, from what ticket and trail tell; without a `usage` it is what the attempts used."""
    if usage is None:
        usage = Usage()
        for attempt in trail.attempts:
            usage = usage.plus(attempt.usage)
    return CallRecord(
        id=ticket.id,
        at=ticket.at,
        tenant=ticket.caller.tenant,
        user=ticket.wishes.user or ticket.caller.user,
        feature=ticket.wishes.feature,
        key=ticket.caller.key,
        route=ticket.route,
        status=status,
        error=error,
        stream=ticket.stream,
        source=source,
        cache=trail.cache,
        cache_reason=trail.cache_reason,
        confidence=trail.confidence,
        judged=trail.judged,
        model=trail.model,
        deployment=trail.deployment,
        route_reason=trail.route_reason,
        route_confidence=trail.route_confidence,
        overflow=trail.overflow,
        attempts=tuple(trail.attempts),
        usage=usage,
        cost=cost,
        saved=saved,
        duration=duration,
        first_token=first_token,
        overhead=overhead,
        lookup=trail.lookup,
    )


def _for_its_leader(flight: Flight, *, alike: bool) -> bool:
    """Whether a flight says nothing about its followers: what it failed of may pass or concerns its leader alone, or its answer
    is what a budget of the leader's own has left of one. `alike`: leader and followers have the same budgets."""
    if flight.begun:
        return flight.trail.personal and not alike
    error = flight.error
    return error is not None and (not alike if error.personal else error.retryable)


def too_late(ticket: Ticket) -> UpstreamTimeout:
    """The error of a caller whose own time, `x-headgate-timeout`, is over."""
    return UpstreamTimeout(f"No answer within the {ticket.wishes.timeout:g} s asked for.")


def refusal(ticket: Ticket, error: GatewayError, trail: Trail, *, duration: float) -> CallRecord:
    """The record of a call that ended before there was anything to read."""
    return finished(
        ticket, trail, duration=duration, source="none", cost=trail.cost, status=error.status, error=error.label
    )
