"""RedisTill: a till in Redis, a single server or a cluster. Each method is one script for one owner, whose keys have one hash tag.

What the scripts do and how they notice that Redis has lost something is told in `till.lua`, which has all of them.

Invariant: a script is harmless when it is run twice; the one that is not, to fill an owner anew, uses up a claim that was made for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headgate.budget.book import checked
from headgate.budget.budget import Balance, Scope
from headgate.budget.till import (
    Ask,
    Ending,
    Filling,
    Gone,
    Granted,
    Overdue,
    Place,
    Refused,
    Unknown,
    check,
    check_filling,
)
from headgate.budget.windows import window_end
from headgate.storage.redis import Redis, script
from headgate.storage.redis_node import Argument

_TILL = script((Path(__file__).parent / "till.lua").read_text())
_PAGE = 500
"""Owners that are looked at together."""
_packed = msgspec.msgpack.Encoder().encode


class RedisTill:
    """A till in Redis."""

    def __init__(self, redis: Redis, *, clock: Callable[[], float] | None = None) -> None:
        """`clock` is in unix seconds; without one the server's counts."""
        self._redis = redis
        self._clock = clock
        self._owners = redis.key("owners")
        self._cursor = b"0"
        self._named: deque[str] = deque()

    async def hold(self, ask: Ask) -> Granted | Refused | Unknown:
        """Hold money on all of the scopes or on none."""
        check(ask)
        answer = await self._call(
            ask.owner,
            "hold",
            ask.id,
            _packed(_flat(ask.scopes)),
            ask.amount,
            ask.least,
            ask.tokens,
            _milliseconds(ask.lease),
        )
        return _told(answer)

    async def extend(self, id: str, owner: str, lease: float, amount: int | None) -> Granted | Refused | Gone | Unknown:
        """Begin the lease anew, and hold another amount."""
        wanted = "" if amount is None else checked(amount)
        answer = await self._call(owner, "extend", id, _milliseconds(lease), wanted)
        return Gone() if answer == [b"."] else _told(answer)

    async def end(self, endings: Sequence[Ending]) -> None:
        """Give holds back and count what was spent. All go out together; raises for the first that did not come through."""
        sent = [
            self._call(ending.owner, "finish", ending.id, ending.number, _packed(_places(ending.spent)))
            for ending in endings
        ]
        for answer in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    async def overdue(self, owner: str, limit: int) -> list[Overdue]:
        """Reservations whose lease is over, the oldest first."""
        answer = await self._call(owner, "overdue", limit)
        return [Overdue(id.decode(), owner, int(amount)) for id, amount in zip(answer[::2], answer[1::2], strict=True)]

    async def owners(self, limit: int) -> list[str]:
        """Some of the owners for whom something is held; each process goes through all of them by itself."""
        if len(self._named) < limit:
            self._cursor, found = await self._redis.do("SSCAN", self._owners, self._cursor, "COUNT", _PAGE)
            names = [name.decode() for name in found]
            # One member is always there: see till.lua.
            held = await asyncio.gather(*(self._redis.do("ZCARD", self._redis.key(name, "open")) for name in names))
            self._named.extend(name for name, number in zip(names, held, strict=True) if number > 1)
        return [self._named.popleft() for _ in range(min(limit, len(self._named)))]

    async def fill(self, owner: str, filling: Filling) -> bool:
        """Begin with what the journal says."""
        check_filling(filling)
        windows = [part for window in filling.windows for part in (window, _milliseconds(window_end(window) or 0))]
        said: tuple[Argument, ...] = (
            filling.epoch,
            filling.number,
            _packed(windows),
            _packed(_places(filling.spent.items())),
        )
        known = self._redis.do("SADD", self._owners, owner)
        if not filling.anew:
            _, added = await asyncio.gather(known, self._call(owner, "add", *said))
            return bool(added)
        await asyncio.gather(known, self._call(owner, "claim", filling.epoch))
        reservations = [
            (id, _flat(scopes), str(amount), str(tokens), _milliseconds(lease))
            for id, scopes, amount, tokens, lease in filling.open
        ]
        return bool(await self._call(owner, "fill", *said, _packed(reservations)))

    async def balance(self, owner: str, place: Place) -> Balance | None:
        """What is spent and held."""
        account, window = place
        answer = await self._call(owner, "balance", window, account)
        return Balance(int(answer[0]), int(answer[1])) if answer else None

    async def close(self) -> None:
        """Nothing is to be let go of: the connection is others' too."""

    def _call(self, owner: str, what: str, *args: Argument) -> Any:
        now = "" if self._clock is None else _milliseconds(self._clock())
        return self._redis.call(_TILL, (self._redis.key(owner, "money"),), what, now, *args)


def _told(answer: list[bytes]) -> Granted | Refused | Unknown:
    what = answer[0]
    if what == b"+":
        return Granted(int(answer[1]), int(answer[2]), _balances(answer[3:]))
    if what == b"-":
        return Refused(_balances(answer[1:]))
    return Unknown(tuple(dict.fromkeys(window.decode() for window in answer[1:])))


def _balances(texts: list[bytes]) -> tuple[Balance, ...]:
    return tuple(Balance(int(spent), int(held)) for spent, held in zip(texts[::2], texts[1::2], strict=True))


def _flat(scopes: tuple[Scope, ...]) -> list[str]:
    return [
        part for scope in scopes for part in (scope.window, scope.account, _cap(scope.cap), "t" if scope.tokens else "")
    ]


def _cap(cap: int | None) -> str:
    return "" if cap is None else str(cap) if cap >= 0 else "-"


def _places(spent: Iterable[tuple[Place, int]]) -> list[str]:
    return [part for (account, window), amount in spent for part in (window, account, str(amount))]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
