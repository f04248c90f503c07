"""Several gateways that share what replicas share: the cache, and a relay for what is in flight. Each has a provider of its own, so that one
can tell who called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from headgate.cache.memory import MemoryStore
from headgate.coalesce.memory import Board, MemoryRelay
from headgate.coalesce.relay import Log, Relay, Wake
from headgate.coalesce.starts import Starts
from headgate.model.errors import Overloaded
from headgate.model.tenancy import Principal, Wishes
from tests.crowds import PARCEL, Crowd, Reader
from tests.scenarios.house import CALLER
from tests.virtual_time import clock


class Wire:
    """A relay with a network before it: everything takes `seconds` each way, and nothing comes through while it is `cut`, and no answer
    comes back while it is `deaf`. What was told is counted: `pages`, and `asked` of all that was asked."""

    def __init__(self, relay: Relay, seconds: float = 0.0) -> None:
        self._relay = relay
        self._wakes: dict[Any, Wake] = {}
        self.seconds = seconds
        self.cut = False
        self.deaf = False
        self.pages = 0
        self.asked = {"join": 0, "tell": 0, "read": 0, "leave": 0}
        self.logs: list[Log] = []

    def hear(self, place: str, wake: Wake) -> None:
        def through() -> None:
            if not self.cut:
                wake()

        self._wakes[place, wake] = through
        self._relay.hear(place, through)

    def unhear(self, place: str, wake: Wake) -> None:
        self._relay.unhear(place, self._wakes.pop((place, wake)))

    async def join(self, tenant: str, place: str) -> Log:
        found: Log = await self._sent("join", lambda: self._relay.join(tenant, place))
        self.logs.append(found)
        return found

    async def tell(
        self, log: Log, number: int, page: bytes | None, *, joinable: bool, last: bool = False
    ) -> int | None:
        told: int | None = await self._sent(
            "tell", lambda: self._relay.tell(log, number, page, joinable=joinable, last=last)
        )
        self.pages += page is not None
        return told

    async def read(self, log: Log, after: int) -> Sequence[bytes] | None:
        pages: Sequence[bytes] | None = await self._sent("read", lambda: self._relay.read(log, after))
        return pages

    async def leave(self, log: Log) -> None:
        await self._sent("leave", lambda: self._relay.leave(log))

    async def close(self) -> None:
        await self._relay.close()

    async def _sent(self, what: str, ask: Callable[[], Any]) -> Any:
        self.asked[what] += 1
        await self._way()
        answer = await ask()
        if self.deaf:
            raise Overloaded("The wire brings nothing back.", retry_after=1.0)
        await self._way()
        return answer

    async def _way(self) -> None:
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if self.cut:
            raise Overloaded("The wire is cut.", retry_after=1.0)


class Replicas:
    """So many gateways; `scripts` are what each one's provider plays."""

    def __init__(
        self,
        *scripts: Sequence[Any],
        relays: Sequence[Relay] | None = None,
        count: int = 2,
        way: float = 0.0,
        **more: Any,
    ) -> None:
        board = Board(clock)
        self.board = board
        self.store = MemoryStore(now=lambda: 1_000_000.0)
        made = relays or [MemoryRelay(board, f"replica-{number}") for number in range(count)]
        self.wires = [Wire(relay, way) for relay in made]
        given = {"store": self.store, "flights": {"starts": Starts()}, **more}
        scripted = scripts if len(scripts) == len(made) else [scripts[0]] * len(made)
        self.houses = [
            Crowd(*(script if _several(script) else [script]), relay=wire, **given)
            for script, wire in zip(scripted, self.wires, strict=True)
        ]

    def come(
        self, at: int, by: Principal = CALLER, wishes: Wishes | None = None, *, text: str = PARCEL[0], **more: Any
    ) -> Reader:
        """Somebody asks this replica."""
        return self.houses[at].come(text, by, wishes, **more)

    @property
    def calls(self) -> list[int]:
        """How often each replica has called its provider."""
        return [len(house.scripted.calls) for house in self.houses]

    async def at_rest(self) -> None:
        """Nothing is under way anywhere, and nobody listens any more."""
        for house in self.houses:
            await house.at_rest()
        assert all(not places for places in self.board.listeners.values())


def _several(script: Sequence[Any]) -> bool:
    """Whether these are the scripts of several calls."""
    return bool(script) and isinstance(script[0], list | tuple)
