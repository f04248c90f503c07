"""The shelf in Redis: what the scripts do, as calls. All of a tenant's lies under one hash tag.

Invariant: an entry and its vector come and go in one script, which is one step for everybody. Nothing here decides what to do when Redis
does not answer: every method raises Overloaded then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote

from headgate.cache.cache import Candidate, Entry, Search, Selection, Vector
from headgate.cache.redis_estates import Estates, read, written
from headgate.cache.redis_rows import Row, name_of, number_of, opened, place_of
from headgate.cache.redis_vectors import IN_SETS, Scripts, Vectors, index, known
from headgate.model.tenancy import Key
from headgate.storage.redis import Redis, Script

PORTION = 256
"""Entries that are looked at in one script."""
REMOVED = 32
"""Entries that are let go of in one: some 5 ms where all have vectors in a large set, whose neighbours are then linked anew."""
REMEMBERED = 64
"""Invalidations of a tenant that are kept one by one."""
EFFORT = 100
"""Vectors of a set that a search looks through, at least."""
_TENANTS = ("cache", "tenants")


class RedisShelf:
    """Entries of all tenants, and what this process knows of them."""

    def __init__(
        self, redis: Redis, estates: Estates, *, entries: int, weight: int, clock: Callable[[], float] | None
    ) -> None:
        """At most so many entries and bytes of a tenant; `clock`, unix seconds, in place of the server's."""
        self._redis = redis
        self._estates = estates
        self._entries = entries
        self._weight = weight
        self._clock = clock
        self.evictions = 0
        self._vectors: Vectors | None = None
        self._asked = False
        self._indexed: set[int] = set()

    async def vectors(self) -> Vectors | None:
        """How vectors are kept; None where the server cannot. It is asked once."""
        if not self._asked:
            self._vectors = await known(self._redis)
            self._asked = True
        return self._vectors

    async def _scripts(self) -> Scripts:
        return (await self.vectors() or IN_SETS).scripts

    async def _ready(self, dimensions: int) -> None:
        """There is an index for vectors of so many dimensions, where one is needed."""
        if self._vectors is not None and self._vectors.indexed and dimensions not in self._indexed:
            await index(self._redis, dimensions)
            self._indexed.add(dimensions)

    async def look(self, key: Key, search: Search | None, *, exact: bool, stale: float) -> Entry | list[Candidate]:
        """The entry under this key, if it is wanted and there, or else what is near. It counts as a use of the entry."""
        scripts, tenant, name = await self._scripts(), key.namespace.tenant, name_of(key) if exact else b""
        place, vector, count = b"", b"", 0
        if search is not None:
            place, vector = place_of(key.namespace, search.partition), search.vector.astype("float32").tobytes()
            count = search.count
            await self._ready(len(search.vector))
        told = await self._call(tenant, scripts.look, name, repr(stale), place, vector, count, max(EFFORT, 2 * count))
        if told[1]:
            found = opened(tenant, *told[1])
            # Another's name may be the same, whatever the odds.
            return found if found.key == key else []
        if search is None:
            return []
        if told[3]:
            self._indexed.discard(len(search.vector))
        return _candidates(tenant, told[2], search.vector)

    async def put(self, tenant: str, entry: Entry, row: Row, since: int) -> bool:
        """Store an entry, unless it was invalidated since."""
        scripts = await self._scripts()
        if row.vector:
            await self._ready(len(row.vector) // 4)
        while True:
            said = await self._call(
                tenant, scripts.put, since, self._entries, self._weight, row.name, row.head, row.body, row.vector
            )
            match said[1]:
                case b"since" if not any(read(tenant, one).includes(entry) for one in said[2]):
                    since = said[0][1]
                case b"again":
                    self.evictions += said[2]
                case b"stored":
                    self.evictions += said[2]
                    return True
                case _:
                    return False

    def use(self, key: Key) -> asyncio.Future[Any]:
        """Count a use of an entry. It is sent at once; there is nothing to wait for but that it is done."""
        sent = self._sending(key.namespace.tenant, (self._vectors or IN_SETS).scripts.use, name_of(key))
        sent.add_done_callback(_passed_over)
        return sent

    async def called(self, tenant: str, id: str) -> list[tuple[bytes, bytes]]:
        """Name and head of the entry with this id, if there is one."""
        try:
            told = await self._call(tenant, (await self._scripts()).called, id.encode())
        except UnicodeEncodeError:
            return []
        return [(told[1][0], told[1][1])] if told[1] else []

    async def heads(self, selection: Selection) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        """Names and heads of the selected entries, in portions and in no order; one may come twice. All that are there throughout come."""
        if selection.entry is not None:
            yield _fitting(selection, await self.called(selection.tenant, selection.entry))
            return
        cursor = b"0"
        while True:
            _, cursor, flat = await self._call(selection.tenant, (await self._scripts()).scan, cursor, PORTION)
            yield _fitting(selection, list(zip(flat[::2], flat[1::2], strict=True)))
            if cursor == b"0":
                return

    async def entries(self, tenant: str, names: Sequence[bytes]) -> list[Entry]:
        """The entries with these names, without those that have gone."""
        if not names:
            return []
        told = await self._call(tenant, (await self._scripts()).bodies, *names)
        return [opened(tenant, head, body) for head, body in told[1]]

    async def remove(self, tenant: str, heads: Sequence[tuple[bytes, bytes]]) -> int:
        """Let go of these entries, but for those that others have replaced. How many it were."""
        removed = 0
        for start in range(0, len(heads), REMOVED):
            part = [(name, b"%.0f" % number_of(head)) for name, head in heads[start : start + REMOVED]]
            told = await self._call(tenant, (await self._scripts()).remove, *(one for pair in part for one in pair))
            removed += int(told[1])
        return removed

    async def begin(self, selection: Selection) -> tuple[int, int]:
        """Begin a new epoch of the tenant: nothing that is selected and was asked for before is stored from now on, by anybody. Its number,
        and that of the tenant's newest entry. Raises ValueError for a text that no encoding has, which no entry has either."""
        told = await self._call(selection.tenant, (await self._scripts()).begin, written(selection), REMEMBERED)
        return told[0][1], told[1]

    async def sweep(self, tenant: str) -> None:
        """Let go of what is too old, and learn how the tenant stands."""
        while (await self._call(tenant, (await self._scripts()).sweep, REMOVED))[1] == REMOVED:
            pass

    async def note(self, tenant: str, until: float) -> None:
        """Write down that the tenant has entries until then, unix seconds, so that they are swept."""
        await self._redis.do("ZADD", self._redis.key(*_TENANTS), "GT", int(until) + 1, _plain(tenant))

    async def tenants(self, now: float) -> list[str]:
        """All tenants that have entries, in whatever process."""
        key = self._redis.key(*_TENANTS)
        await self._redis.do("ZREMRANGEBYSCORE", key, "-inf", int(now))
        found = await self._redis.do("ZRANGE", key, 0, -1)
        return [unquote(one.decode(), errors="surrogatepass") for one in found]

    async def _call(self, tenant: str, one: Script, *args: bytes | str | int) -> Any:
        """What a script answers; what it says of the tenant is learnt."""
        told = await self._sending(tenant, one, *args)
        self._estates.learn(tenant, told[0])
        return told

    def _sending(self, tenant: str, one: Script, *args: bytes | str | int) -> asyncio.Future[Any]:
        # A tenant's name may hold what a key may not; of an ordinary one nothing changes.
        key = self._redis.key("t/" + _plain(tenant), "cache")
        now = "" if self._clock is None else repr(self._clock())
        return self._redis.sending(one, [key], now, self._estates.of(tenant).born, *args)


def _passed_over(answer: asyncio.Future[Any]) -> None:
    """Nobody waits for it; what keeps Redis from answering it says itself."""
    if not answer.cancelled():
        answer.exception()


def _plain(tenant: str) -> str:
    return quote(tenant, errors="surrogatepass")


def _fitting(selection: Selection, heads: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [one for one in heads if selection.includes(opened(selection.tenant, one[1], None))]


def _candidates(tenant: str, rows: Sequence[tuple[bytes, bytes, bytes]], vector: Vector) -> list[Candidate]:
    """Each with the similarity of its stored vector to the question's whole one, as in `index.py`: Redis compares two rounded ones."""
    if not rows:
        return []
    import numpy as np  # late: whoever made the vector has loaded it

    kept = b"".join(raw for _, _, raw in rows)
    whole = len(kept) == 4 * len(rows) * len(vector)
    stored = np.frombuffer(kept, np.float32 if whole else np.int8).reshape(len(rows), -1).astype(np.float32)
    similar = np.vecdot(stored, vector) / np.sqrt(np.vecdot(stored, stored))
    found = [
        Candidate(opened(tenant, head, body), similarity)
        for (head, body, _), similarity in zip(rows, similar.tolist(), strict=True)
    ]
    return sorted(found, key=lambda one: -one.similarity)
