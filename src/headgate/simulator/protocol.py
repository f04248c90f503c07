"""The HTTP/1.1 server of the simulator: an asyncio.Protocol on httptools.

It exists beside ordinary servers because it must break the protocol on purpose: reset, stall, cut and lie about lengths.
Invariants: answers leave in the order of their requests; what the peer does not read is not generated (and not billed).
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from typing import cast

import httptools
import msgspec

from headgate.simulator.delivery import Delivery, Ending
from headgate.simulator.playback import Playback

MAX_BODY = 64 * 1024 * 1024
MAX_WAITING = 16

Answering = Callable[["Request"], Delivery]


class Request(msgspec.Struct):
    """One request as received.

    `fault` is the `x-sim-fault` header, `anthropic` whether that vendor's SDK asks, `unreadable` the status that a
    request deserves which is no HTTP (400) or too large (413).
    """

    method: bytes = b""
    target: str = ""
    fault: str = ""
    anthropic: bool = False
    body: bytes = b""
    keep_alive: bool = True
    chunked_allowed: bool = True
    unreadable: int = 0


class Connection(asyncio.Protocol):
    """One client connection; `answer` decides, this class only speaks."""

    def __init__(
        self,
        answer: Answering,
        *,
        bill: Callable[[str, int, int], None],
        opened: Callable[[Connection], None],
        closed: Callable[[Connection], None],
        outage: Callable[[float], None],
        tokens_per_s: float,
    ) -> None:
        self._answer = answer
        self._bill = bill
        self._opened = opened
        self._closed = closed
        self._outage = outage
        self._tokens_per_s = tokens_per_s
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: collections.deque[Request] = collections.deque()
        self._playback: Playback | None = None
        self._blocked = False
        self._last = False
        self._deaf = False
        self._serving = False
        self._gone = False
        self._request = Request()
        self._body: list[bytes] = []
        self._size = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport and announce the connection."""
        self.transport = cast("asyncio.Transport", transport)
        self._opened(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """The peer has gone: stop generating."""
        self._gone = True
        self._waiting.clear()
        if self._playback:
            self._playback.cancel()
        self._closed(self)

    def pause_writing(self) -> None:
        """The peer reads too slowly: generate no more for now."""
        self._blocked = True
        if self._playback:
            self._playback.block()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._blocked = False
        if self._playback:
            self._playback.unblock()
        self._serve()

    def data_received(self, data: bytes) -> None:
        """Parse, then answer what is complete."""
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True
        except httptools.HttpParserError:
            self._give_up(400)
        self._serve()

    # httptools callbacks

    def on_message_begin(self) -> None:
        """A new request starts."""
        self._request = Request()
        self._body = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; few matter."""
        match name.lower():
            case b"x-sim-fault":
                self._request.fault = value.decode("latin-1")
            case b"anthropic-version":
                self._request.anthropic = True
            case b"expect" if value.lower() == b"100-continue" and self._playback is None:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            case b"content-length" if int(value) > MAX_BODY:
                self._size = MAX_BODY + 1

    def on_body(self, body: bytes) -> None:
        """A part of the body; beyond the limit it is counted, not kept."""
        self._size += len(body)
        if self._size <= MAX_BODY:
            self._body.append(body)
        else:
            self._body.clear()
            self._give_up(413)

    def on_message_complete(self) -> None:
        """The request is whole; queue it behind those before it."""
        if self._deaf:
            return
        request = self._request
        request.method = self._parser.get_method()
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request.chunked_allowed = self._parser.get_http_version() == "1.1"
        request.keep_alive = request.chunked_allowed and self._parser.should_keep_alive()
        self._waiting.append(request)
        if len(self._waiting) > MAX_WAITING:
            self.transport.pause_reading()

    # answering

    def abort(self) -> None:
        """Drop the connection."""
        self.transport.abort()

    def _give_up(self, status: int) -> None:
        """Queue the answer to a request that cannot be read, and listen to no more."""
        if not self._deaf:
            self._deaf = True
            self._waiting.append(Request(target=self._request.target, keep_alive=False, unreadable=status))

    def _serve(self) -> None:
        """Answer waiting requests, one after the other, as far as nothing has to be waited for."""
        if self._serving:
            return
        self._serving = True
        while self._waiting and self._playback is None and not (self._blocked or self._last or self._gone):
            request = self._waiting.popleft()
            if len(self._waiting) == MAX_WAITING:
                self.transport.resume_reading()
            self._play(self._answer(request), request)
        self._serving = False
        if (self._last or (self._deaf and not self._waiting)) and self._playback is None:
            self.transport.close()

    def _play(self, delivery: Delivery, request: Request) -> None:
        self._last = self._last or not request.keep_alive
        first_lines = _framed(delivery, request) if delivery.head else b""
        if self._tokens_per_s == 0 and delivery.delay == 0 and delivery.length is not None and _simple(delivery):
            body, generated = delivery.frames[0]
            self._bill(delivery.model, delivery.prompt_tokens, generated)
            self.transport.write(first_lines + body)
            return
        self._playback = Playback(
            delivery,
            first_lines,
            transport=self.transport,
            chunked=delivery.length is None and request.chunked_allowed,
            tokens_per_s=self._tokens_per_s,
            bill=self._bill,
            finished=self._finished,
            outage=self._outage,
        )
        self._playback.start()

    def _finished(self) -> None:
        self._playback = None
        self._serve()


def _simple(delivery: Delivery) -> bool:
    return delivery.ending is Ending.DONE and len(delivery.frames) == 1


def _framed(delivery: Delivery, request: Request) -> bytes:
    """The complete head: how the body is delimited and whether the connection stays."""
    lines = delivery.head
    if delivery.length is not None:
        lines += b"content-length: %d\r\n" % delivery.length
    elif request.chunked_allowed:
        lines += b"transfer-encoding: chunked\r\n"
    if not request.keep_alive:
        lines += b"connection: close\r\n"
    return lines + b"\r\n"
