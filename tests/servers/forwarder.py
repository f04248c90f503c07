"""A virtual IP: one address that a client keeps, whichever server is behind it.

The one invariant: after `point_to` no byte comes from the server before, and none goes to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from tests.servers.server import free_port

Done = TypeVar("Done")

PART = 65_536


class Forwarder:
    """Forwards TCP connections of loopback to a port of loopback, in a thread of its own."""

    def __init__(self, target: int) -> None:
        """Returns when it listens; `target` is the port behind it."""
        self.port = free_port()
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._forward, "127.0.0.1", self.port))

    def point_to(self, target: int) -> None:
        """From now on to this port. Open connections are cut."""

        async def turn() -> None:
            self._target = target
            self._cut()

        self._do(turn())

    def close(self) -> None:
        """Cut everything and listen no more."""

        async def end() -> None:
            self._server.close()
            self._cut()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _do(self, what: Coroutine[Any, Any, Done]) -> Done:
        """Have it done in the thread of the connections."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10.0)

    def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(back)
        await asyncio.gather(_pour(reader, back), _pour(there, writer))
        self._open -= {writer, back}


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What comes in goes out, until either side ends."""
    with contextlib.suppress(OSError):
        while part := await reader.read(PART):
            writer.write(part)
            await writer.drain()
    writer.transport.abort()
