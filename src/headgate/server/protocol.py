"""uvicorn's HTTP protocol with four manners of ours: bounded headers; errors in OpenAI's shape even where the request is so broken
that no application sees it (two Content-Lengths, garbage, an unfinished line); an end for clients that do not read what they asked
for, of which no more than `MOST_WAITING` bytes and one piece wait for each; and a whole response, or the head of a stream, in one write.

The last spares each of our twenty headers two regular expressions and a round through ASGI's two messages, a tenth of what a cached
answer costs. Header values of such a response are checked here for what would end a header.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from headgate.model.errors import InvalidRequest
from headgate.server.edge import HANG_UP, STREAM, WHOLE, Header, Message

CHUNKED: Header = (b"transfer-encoding", b"chunked")
MOST_HEADERS = 100
MOST_HEADER_BYTES = 65_536
MOST_WAITING = 65_536
"""Bytes waiting for a client from which on nothing is added, until it has taken half of them."""
PATIENCE = 30.0
"""Seconds that it has to do so."""

log = logging.getLogger(__name__)


class Cycle(RequestResponseCycle):
    """One request and its response, which may come whole."""

    patience = PATIENCE
    hung_up: Callable[[], None] | None = None

    def tell(self, whom: Callable[[], None] | None) -> None:
        """Whom to tell when the client hangs up before it has its answer."""
        self.hung_up = whom
        if whom is not None and self.disconnected:
            whom()

    async def send(self, message: Message) -> None:  # type: ignore[override] # two messages more than ASGI has
        """Take an ASGI message; or `WHOLE`: status, headers and body at once; or `STREAM`: status and headers of a body in chunks."""
        if self.flow.write_paused and not self.disconnected:
            await self._drained()
        kind = message["type"]
        if kind not in (WHOLE, STREAM):
            return await super().send(message)  # type: ignore[arg-type]
        if self.disconnected:
            return
        if kind == STREAM:
            self.transport.write(self._head(message, CHUNKED))
            self.response_started = self.chunked_encoding = True
            return
        body = b"" if self.scope["method"] == "HEAD" else message["body"]
        self.transport.write(self._head(message) + body)
        self.response_started = self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _head(self, message: Message, *more: Header) -> bytes:
        """Status line and headers, with the empty line after them. Raises RuntimeError where one would end before its end."""
        parts = [STATUS_LINE[message["status"]]]
        headers = [*self.default_headers, *message["headers"], *more]
        if not self.keep_alive:
            headers.append((b"connection", b"close"))
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        head = b"".join(parts)
        lines = len(headers) + 1
        if head.count(b"\n") != lines or head.count(b"\r") != lines:
            raise RuntimeError("A header holds a line break.")
        return head + b"\r\n"

    async def _drained(self) -> None:
        """Wait until the client has read, or cut it off: what it holds, its place among them, is wanted by others."""
        try:
            async with asyncio.timeout(self.patience):
                await self.flow.drain()
        except TimeoutError:
            waiting, path, client = self.transport.get_write_buffer_size(), self.scope["path"], self.scope["client"]
            log.warning("client %s of %s is cut off: %d bytes waited for it %g s", client, path, waiting, self.patience)
            self.transport.abort()


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, patience: float = PATIENCE, **more: Any) -> None:
        """`patience`: seconds that a client has to take what waits for it; the rest is uvicorn's."""
        super().__init__(*args, **more)
        self._patience = patience

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """A client has come."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=MOST_WAITING, low=MOST_WAITING // 2)

    def on_message_begin(self) -> None:
        """A request starts: nothing of its headers has been seen."""
        super().on_message_begin()
        self._header_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header as uvicorn does, unless there are too many."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MOST_HEADER_BYTES or len(self.headers) >= MOST_HEADERS:
            raise httptools.HttpParserError("too many headers")
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The request is known: its task has been made but has not run yet, so its response can still learn our manner."""
        super().on_headers_complete()
        self.cycle.__class__ = Cycle
        cycle = cast("Cycle", self.cycle)
        cycle.patience = self._patience
        extensions: dict[str, Any] = {WHOLE: {}, HANG_UP: cycle.tell}
        self.scope["extensions"] = extensions

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or the server has closed."""
        cycle = cast("Cycle | None", self.cycle)
        super().connection_lost(exc)
        if cycle is not None and not cycle.response_complete and cycle.hung_up is not None:
            cycle.hung_up()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long; one whose answer nobody has read will not end by being asked to."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, and close."""
        error = InvalidRequest(
            f"{msg.rstrip('.')}: the request line, its headers (at most {MOST_HEADERS}, {MOST_HEADER_BYTES} bytes) or its "
            "Content-Length are malformed."
        )
        body = msgspec.json.encode(error.body())
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % len(body) + body)
        self.transport.close()
