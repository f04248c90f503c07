"""The relay in Redis: a key for each place, whose value names the log of who leads there; a stream for each log; a set of who follows it.

The keys of one tenant lie together, so that each step is one script, which asks for one node of a cluster. Who has something to read is told
so through a channel of its own, on one connection for all flights of the process; what is not heard there is found by looking.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

from headgate.coalesce.relay import LEASE, LINGER, TTL, Log, Wake
from headgate.storage.redis import Redis, Script, script


def _script(name: str) -> Script:
    return script(Path(__file__).with_name(name).read_text())


_JOIN, _TELL, _READ = map(_script, ("join.lua", "tell.lua", "read.lua"))

_LEAVE = script("""
-- KEYS: the place. ARGV: the log's name, this replica, what channels begin with.
if redis.call('ZREM', KEYS[1] .. ':' .. ARGV[1] .. ':readers', ARGV[2]) == 1 then
  redis.call('PUBLISH', ARGV[3] .. string.match(ARGV[1], '^(.*)-%d+$'), KEYS[1])
end
""")


class RedisRelay:
    """See Relay. Redis forgets it all by itself, as everything here has its time."""

    def __init__(self, redis: Redis, replica: str) -> None:
        """`replica` names this process alone, also among those that were before it."""
        self._redis = redis
        self._replica = replica
        self._channel = "relay:"
        self._channels = f"{redis.prefix}:{self._channel}"
        self._wakes: dict[str, list[Wake]] = {}
        self._numbers = itertools.count(1)
        self._listening: asyncio.Task[None] | None = None

    def hear(self, place: str, wake: Wake) -> None:
        """See Relay."""
        self._wakes.setdefault(place, []).append(wake)

    def unhear(self, place: str, wake: Wake) -> None:
        """See Relay."""
        self._wakes[place].remove(wake)
        if not self._wakes[place]:
            del self._wakes[place]

    async def join(self, tenant: str, place: str) -> Log:
        """See Relay."""
        if self._listening is None:
            listening = self._redis.listen(self._channel + self._replica, self._heard, self._begun)
            self._listening = asyncio.get_running_loop().create_task(listening)
        own = f"{self._replica}-{next(self._numbers)}"
        keys = (self._place(tenant, place),)
        name: bytes = await self._redis.call(
            _JOIN, keys, own, _milliseconds(TTL), _milliseconds(LEASE), self._replica, self._channels
        )
        return Log(tenant, place, name.decode(), leads=name == own.encode())

    async def tell(
        self, log: Log, number: int, page: bytes | None, *, joinable: bool, last: bool = False
    ) -> int | None:
        """See Relay."""
        kept = _milliseconds(LINGER if last else TTL)
        told = (0, b"") if page is None else (number, page)
        readers: int = await self._redis.call(
            _TELL, (self._place(log.tenant, log.place),), log.name, *told, kept, int(joinable), self._channels
        )
        return None if readers < 0 else readers

    async def read(self, log: Log, after: int) -> Sequence[bytes] | None:
        """See Relay."""
        pages: Sequence[bytes] | None = await self._redis.call(
            _READ,
            (self._place(log.tenant, log.place),),
            log.name,
            after,
            self._replica,
            _milliseconds(LEASE),
            self._channels,
        )
        return pages

    async def leave(self, log: Log) -> None:
        """See Relay."""
        place = self._place(log.tenant, log.place)
        await self._redis.call(_LEAVE, (place,), log.name, self._replica, self._channels)

    async def close(self) -> None:
        """See Relay."""
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listening
            self._listening = None

    def _place(self, tenant: str, place: str) -> str:
        return self._redis.key(f"t/{tenant}", "flight", place)

    def _heard(self, key: bytes) -> None:
        self._wake(key.decode().rpartition(":")[2])

    def _begun(self) -> None:
        """Of what was said before nothing was heard."""
        for place in list(self._wakes):
            self._wake(place)

    def _wake(self, place: str) -> None:
        for wake in list(self._wakes.get(place, ())):
            wake()


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1_000)
