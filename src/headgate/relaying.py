"""Relaying: what a flight does when the same is asked of another replica meanwhile: lead there, or follow.

It goes as among the callers of one process: who follows waits for the first part of the answer as long as its patience lasts, and as long as
nobody was given any of it starts over: first all together in one further flight, then each process by itself.

Invariant: where nobody can be asked who else is answering, a flight answers by itself, at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import msgspec

from headgate.cache.tiers import UNKNOWN_EPOCH
from headgate.coalesce.coalesce import Flight, Flights
from headgate.coalesce.hearing import Hearing
from headgate.coalesce.pouring import Pouring
from headgate.coalesce.relay import Log, Page, Refusal, Relay, Told, encode
from headgate.coalesce.telling import Telling
from headgate.model.chat import Completion
from headgate.model.errors import GatewayError
from headgate.stock import Errand

log = logging.getLogger(__name__)

GRACE = 1.0
"""Seconds to say how flights have ended when the process does."""

_encode = msgspec.msgpack.Encoder().encode


class Relaying:
    """The flights of one process among those of all replicas."""

    def __init__(self, relay: Relay | None, flights: Flights, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Without a `relay` there is but this process. `clock` is monotonic, in seconds."""
        self._relay = relay
        self._flights = flights
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def joined(
        self, flight: Flight, errand: Errand, personal: Hashable, patience: float
    ) -> AsyncIterator[Completion | None]:
        """The answer that another replica's flight has brought; None where this one has to answer. While it does the others can follow it:
        leave when the answer lies in stock. `personal`: the budgets that are the caller's own; `patience`: seconds to the first part.

        Raises what is refused to all who ask this, and Interrupted where an answer broke off of which a part was given.
        """
        if self._relay is None or flight.shared is None or errand.epoch == UNKNOWN_EPOCH:
            yield None
            return
        for place, alike in _places(flight.shared, errand, personal):
            found, asked = await self._found(self._relay, errand.ticket.caller.tenant, place)
            if found is None:
                break
            if found.leads:
                telling = Telling(self._relay, found, flight, self._flights.takes, asked=asked)
                with self._told(self._relay, found, telling, flight, errand):
                    yield None
                return
            completion = await self._followed(self._relay, found, flight, patience, alike=alike)
            if completion is not None:
                yield completion
                return
            flight.alone = True
        if flight.alone:
            await self._flights.starts.turn()
        yield None

    async def _found(self, relay: Relay, tenant: str, place: str) -> tuple[Log | None, bool]:
        """Whom to follow, or that this flight leads, and whether somebody has been heard of there meanwhile; None where nobody can be asked."""
        joining, heard = asyncio.ensure_future(relay.join(tenant, place)), asyncio.Event()
        relay.hear(place, heard.set)
        try:
            return await asyncio.shield(joining), heard.is_set()
        except asyncio.CancelledError:
            self._begin(_undone(relay, joining))
            raise
        except GatewayError:
            return None, False
        except Exception:
            log.exception("other replicas could not be asked for a flight")
            return None, False
        finally:
            relay.unhear(place, heard.set)

    @contextmanager
    def _told(self, relay: Relay, found: Log, telling: Telling, flight: Flight, errand: Errand) -> Iterator[None]:
        """Let others follow while the flight does its work."""
        self._woken(relay, found, telling)
        try:
            yield
        finally:
            # Who does not want what lies in stock asks for what is in flight now, and for nothing that is over.
            stored = not flight.apart and errand.ticket.wishes.cache != "no-cache"
            telling.over(kept=stored and flight.completion is not None)

    async def _followed(
        self, relay: Relay, found: Log, flight: Flight, patience: float, *, alike: bool
    ) -> Completion | None:
        """The answer of the flight that others fly; None where this one has to look for another. Raises what that one was refused."""
        hearing, began = Hearing(relay, found, given=lambda: bool(flight.events)), self._clock()
        copy, flight.tab.elsewhere = hearing.copy, True
        listening = self._woken(relay, found, hearing)
        pouring = Pouring(
            flight,
            copy,
            fits=lambda leader, _: alike or not leader.trail.personal,
            note=lambda: _note(flight, copy),
        )
        try:
            completion = await pouring.read(patience)
        finally:
            listening.cancel()
            self._begin(_left(relay, found))
            flight.trail.waited += self._clock() - began
        if completion is not None:
            flight.apart = copy.trail.personal or copy.trail.shortened or not completion.complete
            return completion
        if copy.error is not None and Refusal.of(copy.error) is not None:
            raise copy.error.with_traceback(None)
        flight.tab.elsewhere = False
        return None

    def _woken(self, relay: Relay, found: Log, one: Telling | Hearing) -> asyncio.Task[None]:
        """Let it run, and wake it when something happens to its log."""
        relay.hear(found.place, one.wake)
        task = self._begin(one.run())
        task.add_done_callback(lambda _: relay.unhear(found.place, one.wake))
        return task

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a flight could not be passed on", exc_info=task.exception())

    async def idle(self) -> None:
        """Wait until all has been told that there is to tell."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def close(self) -> None:
        """Tell how the flights have ended, and let go of the relay."""
        if self._relay is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self.idle()
        for task in list(self._tasks):
            task.cancel()
        await self.idle()
        await self._relay.close()


async def _undone(relay: Relay, joining: asyncio.Future[Log]) -> None:
    """Who has asked is gone: nobody is to wait for it."""
    with suppress(GatewayError):
        found = await joining
        if found.leads:
            await relay.tell(found, 1, encode(Page(failed=True)), joinable=False, last=True)
        else:
            await relay.leave(found)


async def _left(relay: Relay, found: Log) -> None:
    with suppress(GatewayError):
        await relay.leave(found)


def _places(shared: Hashable, errand: Errand, personal: Hashable) -> Iterator[tuple[str, bool]]:
    """Where to look for others, one after the other, and whether all there have the same budgets of their own."""
    yield _place(shared), errand.over
    if not errand.over:
        yield _place((*errand.shared, personal)), True


def _place(shared: Hashable) -> str:
    return hashlib.blake2b(_encode(shared), digest_size=16).hexdigest()


def _note(flight: Flight, copy: Flight) -> None:
    """What is known of the answer now."""
    Told.of(copy.trail).note(flight.trail)
    flight.trail.source = "coalesced"
