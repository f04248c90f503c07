"""Counters in Redis: rates and places that all processes share.

A take is one script, on the server's clock. A place is a lease: this process begins the leases of all its running calls anew from time to
time, with one command for each key, so the places of a process that has died are free when they end.

All that this process admits is counted in it as well. That is what it goes by while Redis is away: it then admits as much as one process
may, so N processes admit at most N times the limit, for as long as Redis is away. The places that it has are told to a Redis that is back, or
has forgotten them; what others had used of a minute that Redis forgot is gone.

Invariant: a call that is over, refused or cancelled has no place longer than one lease, whatever happens to anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headgate.limits.limits import Taken
from headgate.limits.memory import MICRO, MemoryCounters, Rate, microseconds
from headgate.model.errors import Overloaded
from headgate.storage.redis import Redis, script

LEASE = 30.0
"""Seconds after which a place is free that nobody renews."""
ROUND = 10.0
"""Seconds between two renewals."""
TOGETHER = 1_000
"""Places that one command renews or gives back at most."""

_TAKE, _RENEW = (script(Path(__file__).with_name(name).read_text("utf-8")) for name in ("take.lua", "renew.lua"))
_LEAVE = script("return redis.call('ZREM', KEYS[1], unpack(ARGV))")
_TAKEN, _BUSY = 0, 1


class RedisCounters:
    """As Counters says, for all processes of one Redis. As a context manager it renews places, and gives all back at the end."""

    def __init__(
        self,
        redis: Redis,
        *,
        process: str | None = None,
        clock: Callable[[], int] | None = None,
        lease: float = LEASE,
        every: float = ROUND,
    ) -> None:
        """`process` is a name that no other process has, a random one unless given; `clock` is in microseconds, the server's unless given.
        `lease` and `every` are seconds."""
        self._redis = redis
        self._clock = clock
        self._lease = round(lease * MICRO)
        self._every = every
        self._names = map(f"{process or secrets.token_hex(8)}-{{}}".format, count())
        self._here = MemoryCounters(names=self._names, clock=clock or microseconds)
        # Places that are over: those whose end is yet to be sent, and all whose end Redis has not confirmed.
        self._gone: dict[str, list[str]] = {}
        self._leaving: dict[str, set[str]] = {}
        self._giving = False
        self._renewing: set[str] = set()
        self._alone = False
        self._back = asyncio.Event()
        self._rounds: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._rounds = asyncio.create_task(self._renew_always())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rounds is not None:
            self._rounds.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._rounds
        self._give()
        left = [one for key, places in self._here.places.items() for one in self._send_leave(key, list(places))]
        await asyncio.gather(*left, return_exceptions=True)

    async def take(self, key: str, *, places: int, limit: int, per_seconds: float, cost: int = 1) -> Taken:
        """As Counters says."""
        if limit < 1:
            return Taken(False, 0, 0.0, per_seconds)
        place, rate = next(self._names), Rate.of(limit, per_seconds)
        keys = [self._redis.key(f"t/{key}", "rate"), self._places_of(key)]
        numbers = places, rate.interval, rate.burst, cost, self._lease
        # Who ends a call and begins the next one at once must not meet its own place: pipelines may overtake each other.
        over = islice(self._leaving.get(key, ()), TOGETHER)
        asked = self._redis.sending(_TAKE, keys, place, *numbers, self._now(), *over)
        try:
            verdict, remaining, reset, wait = await asyncio.shield(asked)
        except Overloaded:
            self._alone = True
            return await self._here.take(key, places=places, limit=limit, per_seconds=per_seconds, cost=cost)
        except asyncio.CancelledError:
            # Nobody knows whether it has a place by now, so it is given back when that has been decided.
            asked.add_done_callback(partial(self._forgone, key, place))
            raise
        if self._alone:
            self._alone = False
            self._back.set()
        if verdict != _TAKEN:
            return Taken(False, remaining, reset / MICRO, wait / MICRO, busy=verdict == _BUSY)
        self._here.note(key, place, limit=limit, per_seconds=per_seconds, cost=cost)
        return Taken(True, remaining, reset / MICRO, 0.0, place)

    def leave(self, key: str, place: str) -> None:
        """As Counters says."""
        if place in self._here.places.get(key, ()):
            self._here.leave(key, place)
            self._give_back(key, place)

    def running(self, key: str) -> int:
        """As Counters says."""
        return self._here.running(key)

    async def renew(self) -> None:
        """Begin the leases of all places of this process anew. What cannot be renewed now is tried again in the next round."""
        asked: list[asyncio.Future[Any]] = []
        for key, places in self._here.places.items():
            self._renewing.add(key)
            begun = [self._places_of(key)], self._lease, self._now()
            asked += [self._redis.sending(_RENEW, *begun, *batch) for batch in _batches(list(places))]
        try:
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            self._alone = self._alone or any(isinstance(one, Overloaded) for one in outcomes)
        finally:
            self._renewing.clear()
            self._give()

    async def _renew_always(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._back.wait(), self._every)
            self._back.clear()
            await self.renew()

    def _forgone(self, key: str, place: str, asked: asyncio.Future[Any]) -> None:
        if not asked.cancelled() and asked.exception() is None:
            self._give_back(key, place)

    def _give_back(self, key: str, place: str) -> None:
        """Together with all that are given back in this turn of the event loop."""
        self._gone.setdefault(key, []).append(place)
        self._leaving.setdefault(key, set()).add(place)
        if not self._giving:
            self._giving = True
            asyncio.get_running_loop().call_soon(self._give)

    def _give(self) -> None:
        """A key whose places are being renewed has to wait: else its renewal could come after this, and bring the place back."""
        self._giving = False
        for key in [key for key in self._gone if key not in self._renewing]:
            self._send_leave(key, self._gone.pop(key))

    def _send_leave(self, key: str, places: Sequence[str]) -> list[asyncio.Future[Any]]:
        leaves = []
        for batch in _batches(places):
            leaves.append(self._redis.sending(_LEAVE, [self._places_of(key)], *batch))
            leaves[-1].add_done_callback(partial(self._left, key, batch))
        return leaves

    def _left(self, key: str, places: Sequence[str], asked: asyncio.Future[Any]) -> None:
        """Redis knows; or it is away, and then the lease ends them."""
        if not asked.cancelled():
            asked.exception()
        leaving = self._leaving.get(key)
        if leaving is not None:
            leaving.difference_update(places)
            if not leaving:
                del self._leaving[key]

    def _places_of(self, key: str) -> str:
        return self._redis.key(f"t/{key}", "places")

    def _now(self) -> int | str:
        """What a script takes for the time; nothing: the server's."""
        return "" if self._clock is None else self._clock()


def _batches(places: Sequence[str]) -> list[Sequence[str]]:
    return [places[at : at + TOGETHER] for at in range(0, len(places), TOGETHER)]
