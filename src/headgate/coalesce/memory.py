"""The relay in memory: several replicas within one process, the reference for what every relay does."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

from headgate.coalesce.relay import LEASE, LINGER, TTL, Log, Wake


class _Kept:
    """A log: its pages, who follows until when, and when it is gone."""

    def __init__(self, leader: str, until: float) -> None:
        self.leader = leader
        self.until = until
        self.pages: list[bytes] = []
        self.readers: dict[str, float] = {}


class Board:
    """What all replicas see. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.leading: dict[tuple[str, str], str] = {}
        self.logs: dict[str, _Kept] = {}
        self.listeners: dict[str, dict[str, list[Wake]]] = {}
        self.numbers = itertools.count(1)

    def log(self, name: str) -> _Kept | None:
        """A log that is not gone."""
        kept = self.logs.get(name)
        if kept is not None and kept.until <= self.clock():
            del self.logs[name]
            return None
        return kept

    def wake(self, replica: str, place: str) -> None:
        """Tell a replica that something has happened at a place."""
        for wake in list(self.listeners.get(replica, {}).get(place, ())):
            wake()


class MemoryRelay:
    """What one replica sees of a board."""

    def __init__(self, board: Board, replica: str) -> None:
        """`replica` names this one alone."""
        self._board = board
        self._replica = replica
        board.listeners[replica] = {}

    def hear(self, place: str, wake: Wake) -> None:
        """See Relay."""
        self._board.listeners[self._replica].setdefault(place, []).append(wake)

    def unhear(self, place: str, wake: Wake) -> None:
        """See Relay."""
        places = self._board.listeners[self._replica]
        places[place].remove(wake)
        if not places[place]:
            del places[place]

    async def join(self, tenant: str, place: str) -> Log:
        """See Relay."""
        board, at = self._board, (tenant, place)
        name = board.leading.get(at)
        kept = None if name is None else board.log(name)
        if name is not None and kept is not None:
            self._follow(kept, place)
            return Log(tenant, place, name, leads=False)
        name = board.leading[at] = f"{self._replica}-{next(board.numbers)}"
        board.logs[name] = _Kept(self._replica, board.clock() + TTL)
        return Log(tenant, place, name, leads=True)

    async def tell(
        self, log: Log, number: int, page: bytes | None, *, joinable: bool, last: bool = False
    ) -> int | None:
        """See Relay."""
        board, at = self._board, (log.tenant, log.place)
        kept = board.log(log.name)
        if kept is None:
            return None
        now = board.clock()
        kept.until = now + (LINGER if last else TTL)
        leads = board.leading.get(at)
        if joinable and (leads is None or board.log(leads) is None):
            # Of one that could not be joined for a while: too long as long as it had not ended.
            board.leading[at] = log.name
        elif not joinable and leads == log.name:
            del board.leading[at]
        kept.readers = {reader: until for reader, until in kept.readers.items() if until > now}
        if page is not None and number > len(kept.pages):
            kept.pages.append(page)
            for reader in kept.readers:
                board.wake(reader, log.place)
        return len(kept.readers)

    async def read(self, log: Log, after: int) -> Sequence[bytes] | None:
        """See Relay."""
        kept = self._board.log(log.name)
        if kept is None:
            return None
        self._follow(kept, log.place)
        return kept.pages[after:]

    async def leave(self, log: Log) -> None:
        """See Relay."""
        kept = self._board.log(log.name)
        if kept is not None and kept.readers.pop(self._replica, None) is not None:
            self._board.wake(kept.leader, log.place)

    async def close(self) -> None:
        """See Relay."""

    def _follow(self, kept: _Kept, place: str) -> None:
        now = self._board.clock()
        known = kept.readers.get(self._replica, 0.0) > now
        kept.readers[self._replica] = now + LEASE
        if not known:
            self._board.wake(kept.leader, place)
