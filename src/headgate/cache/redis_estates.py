"""Estates: what this process knows of what each tenant has in Redis, from every answer of a script and from what others tell.

An epoch is the number of the tenant's last invalidation, the same in all processes that know of it; 0 before the first. What it was when an
answer was asked for is compared in Redis with what has been invalidated since, so a process that has not heard of an invalidation yet
stores nothing wrong: it only lets callers join flights for as long as the news takes.

Invariant: what Redis has lost is never taken for nothing: whoever has spoken of a tenant with a memory that is gone says so (`born`), and
one who has not, but was cut off since it began, has its first answer refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from headgate.cache.cache import Selection

KIND = "invalidated"
"""Of the news that tell of an invalidation."""


class Estate(msgspec.Struct, gc=False):
    """Of one tenant. `born`: when its memory in Redis began, µs, 0 where that is not known; `number`: of its last invalidation."""

    born: int = 0
    number: int = 0
    size: int = 0
    weight: int = 0


class _News(msgspec.Struct, array_like=True, gc=False):
    tenant: bytes
    selection: Selection
    number: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_News).decode
_selection = msgspec.msgpack.Decoder(Selection).decode


class Estates:
    """Of all tenants that this process has spoken of."""

    def __init__(self) -> None:
        """Nothing is known of anybody."""
        self._tenants: dict[str, Estate] = {}
        self.on_invalidated: Callable[[str], None] = lambda _: None
        """Is told which tenant's entries have been invalidated, here or elsewhere."""
        self.begun = 0
        """How often listening to the news has begun."""

    def of(self, tenant: str) -> Estate:
        """What is known of this one; of a stranger, nothing."""
        return self._tenants.get(tenant) or Estate()

    def all(self) -> dict[str, Estate]:
        """All that are known."""
        return self._tenants

    def keep(self, tenants: Collection[str]) -> None:
        """Only these have entries."""
        for tenant in self._tenants.keys() - set(tenants):
            self._tenants[tenant].size = self._tenants[tenant].weight = 0

    def since(self, tenant: str, epoch: int) -> int:
        """What to tell Redis of when an answer was asked for: the epoch; -1, which it refuses, where that may be from before a loss."""
        return epoch if self.of(tenant).born or self.begun < 2 else -1

    def learn(self, tenant: str, told: Sequence[int]) -> None:
        """What a script has answered first. Answers may overtake each other: of one memory, the highest number counts."""
        known, (born, number, size, weight) = self.of(tenant), told
        if born == known.born:
            number = max(number, known.number)
        self._tenants[tenant] = Estate(born, number, size, weight)
        if number != known.number:
            self.on_invalidated(tenant)

    def hear(self, tenant: str, number: int) -> None:
        """An invalidation has happened somewhere."""
        known = self._tenants.setdefault(tenant, Estate())
        if number > known.number:
            known.number = number
            self.on_invalidated(tenant)


def written(selection: Selection) -> bytes:
    """A selection as it is remembered in Redis, without its tenant. Raises ValueError for one with a text that no encoding has."""
    return _encode(msgspec.structs.replace(selection, tenant=""))


def read(tenant: str, selection: bytes) -> Selection:
    """The other way round."""
    return msgspec.structs.replace(_selection(selection), tenant=tenant)


def body(selection: Selection, number: int) -> bytes:
    """What others are told of an invalidation. Raises ValueError as `written`."""
    tenant = selection.tenant.encode(errors="surrogatepass")
    return _encode(_News(tenant, msgspec.structs.replace(selection, tenant=""), number))


def told(body: bytes) -> tuple[Selection, int]:
    """What was invalidated, and its number. Raises ValueError for what is no such body."""
    news = _decode(body)
    return msgspec.structs.replace(news.selection, tenant=news.tenant.decode(errors="surrogatepass")), news.number
