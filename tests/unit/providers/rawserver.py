"""A server of raw bytes, for what no HTTP server would do."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

Play = Callable[["Visit"], Awaitable[None]]


class Visit:
    """One connection: `request` reads the next one, `say` sends bytes, `gone` waits until the client has left."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.requests: list[bytes] = []

    async def request(self) -> bytes:
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        whole = head + await self._reader.readexactly(length)
        self.requests.append(whole)
        return whole

    async def say(self, *pieces: bytes) -> None:
        """Each piece is sent on its own, with a turn of the event loop in between."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def answer(self, body: bytes, *, status: str = "200 OK", headers: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        await self.say(head.encode() + body)

    async def gone(self) -> None:
        while await self._reader.read(65_536):
            pass


class RawServer:
    """Where it listens, and every connection it has had."""

    def __init__(self) -> None:
        self.url = ""
        self.visits: list[Visit] = []
        self.left = asyncio.Event()


@contextlib.asynccontextmanager
async def raw_server(play: Play, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Plays `play` for every connection; `left` is set when a client has gone while it was being played or after."""
    running = RawServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = Visit(reader, writer)
        running.visits.append(visit)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await play(visit)
        running.left.set()
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    running.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield running
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks)
