"""The listening socket and its connections: start, outage, shutdown.

Invariant: after `close` no socket and no task of the simulator is left.
"""

from __future__ import annotations

import asyncio

from headgate.simulator.counts import Counts
from headgate.simulator.playback import reset_connection
from headgate.simulator.protocol import Answering, Connection

BACKLOG = 2048


class Listener:
    """Accepts connections for one simulator on one address."""

    def __init__(self, answer: Answering, counts: Counts, *, tokens_per_s: float) -> None:
        self._answer = answer
        self._counts = counts
        self._tokens_per_s = tokens_per_s
        self._connections: set[Connection] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._server: asyncio.Server | None = None
        self._reopening: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int) -> int:
        """Bind and listen; returns the real port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port, backlog=BACKLOG)
        self._host = host
        self._port = int(self._server.sockets[0].getsockname()[1])
        return self._port

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._reopening:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
        if self._server:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        await self._idle.wait()

    def _connection(self) -> Connection:
        return Connection(
            self._answer,
            bill=self._counts.bill,
            opened=self._opened,
            closed=self._closed,
            outage=self._outage,
            tokens_per_s=self._tokens_per_s,
        )

    def _opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._idle.clear()

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._idle.set()

    def _outage(self, seconds: float) -> None:
        """Be unreachable for a while: reset every connection and refuse new ones."""
        for connection in list(self._connections):
            reset_connection(connection.transport)
        if self._server and self._reopening is None:
            self._server.close()
            self._reopening = asyncio.get_running_loop().create_task(self._reopen(seconds))

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.open(self._host, self._port)
        self._reopening = None
