"""The one HTTP client: HTTP/1.1 over kept-alive connections to one configured origin.

It follows no redirect, keeps no cookie, reads no proxy from the environment, accepts no compressed body and connects only to
addresses that egress has checked. The invariant: whoever stops waiting, at any point, closes the connection, so that the
provider stops working and billing. docs/adr/0004 says why it is our own.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import NoReturn, Self

import msgspec

from headgate.model.errors import Malformed, Unavailable, UpstreamError, UpstreamTimeout
from headgate.providers.connection import Connection
from headgate.providers.egress import Egress, Lookup, Origin, look_up

MAX_BODY = 16 * 1024 * 1024
"""Most bytes of an answer that is read whole."""

MAX_IDLE = 256
IDLE_SECONDS = 30.0
LINGER_SECONDS = 1.0

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[ -~]*")
_OURS = frozenset({"host", "connection", "content-length", "content-type", "transfer-encoding", "accept-encoding"})


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds: to connect, until the answer's head, and between two pieces of its body."""

    connect: float = 5.0
    first_byte: float = 60.0
    idle: float = 60.0


class Answer:
    """An answer whose head has come. Whoever holds it must close it; `finish` keeps the connection if it can.

    Read an accepted one inside `with answer:`, which closes it and tells an error that ends it how much had come.
    """

    def __init__(self, http: Http, connection: Connection) -> None:
        """Made by `Http.post` and `Http.get`."""
        self._http = http
        self._connection: Connection | None = connection
        self._received = 0
        self.status = connection.status

    def header(self, name: str) -> str | None:
        """The first header of that name, which must be given in lower case."""
        wanted = name.encode("ascii")
        connection = self._held()
        return next((value.decode("latin-1") for key, value in connection.headers if key == wanted), None)

    async def read(self) -> bytes:
        """The next part of the body, of any size; empty at its end. Raises UpstreamError."""
        try:
            piece = await self._held().read(self._http.timeouts.idle)
        except UpstreamError as error:
            self._http.name_it(error)
        self._received += len(piece)
        return piece

    async def whole(self, limit: int = MAX_BODY) -> bytes:
        """The rest of the body. Raises UpstreamError; Malformed when it is longer than `limit` bytes."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            size += len(piece)
            if size > limit:
                raise Malformed(f"{self._http.name} sent an answer of more than {limit} bytes.")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self) -> None:
        """The answer's meaning is known to be complete: keep the connection as soon as its last bytes have come."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.complete:
            self._http.put_back(connection)
        else:
            connection.linger(LINGER_SECONDS)

    def close(self) -> None:
        """Let go: keep the connection when the body has been read to its end, else close it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._http.put_back(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """An error that the provider told of is its word that nothing more was made; any other leaves us with what came."""
        if isinstance(error, Malformed):
            error.sent = True
        if isinstance(error, UpstreamError) and error.sent:
            error.received = self._proven()
        self.close()

    def _proven(self) -> int:
        """Bytes of body that must have been made: those that came, or all, where the head says how many those are."""
        length = None if self._connection is None or not self._received else self.header("content-length")
        promised = int(length) if length is not None and length.isascii() and length.isdigit() else 0
        return max(self._received, promised)

    def _held(self) -> Connection:
        if self._connection is None:
            raise Malformed("The answer was read after it was closed.")
        return self._connection


class Http:
    """A client of one origin. Use it in one event loop; `close` it at the end."""

    def __init__(
        self,
        origin: Origin,
        *,
        name: str,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        allow_private: bool = False,
        timeouts: Timeouts | None = None,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup = look_up,
    ) -> None:
        """`headers` go with every request, as does `content_type`; `tls` replaces the system's certificate authorities.

        Raises ValueError when a header cannot be sent.
        """
        self.name = name
        self.timeouts = Timeouts() if timeouts is None else timeouts
        self._origin = origin
        self._egress = Egress(origin, allow_private=allow_private, lookup=lookup)
        self._tls = None
        if origin.scheme == "https":
            self._tls = ssl.create_default_context() if tls is None else tls
        self._fixed = _fixed_headers(origin, headers or {}, content_type)
        self._kept: list[Connection] = []
        self._closed = False

    async def post(self, path: str, body: bytes, *, timeout: float, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a body, with headers for it alone, and wait for the answer's head; all of the exchange has `timeout` seconds.

        Raises UpstreamTimeout, Unavailable or Malformed; an HTTP error status is an Answer like any other.
        """
        request = b"POST %b%b HTTP/1.1\r\n%b%b%d\r\n\r\n%b" % (
            self._origin.path.encode("ascii"),
            path.encode("ascii"),
            _lines(_sendable(headers)) if headers else b"",
            self._fixed,
            len(body),
            body,
        )
        return await self._asked(request, timeout)

    async def get(self, path: str, *, timeout: float) -> Answer:
        """Ask for what is at `path`; otherwise as `post`."""
        place = self._origin.path.encode("ascii") + path.encode("ascii")
        return await self._asked(b"GET %b HTTP/1.1\r\n%b0\r\n\r\n" % (place, self._fixed), timeout)

    async def _asked(self, request: bytes, timeout: float) -> Answer:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        connection, sent = None, False
        try:
            connection = self._take(loop) or await self._connect(loop, timeout)
            connection.send(request, end=end, total=timeout)
            sent = True
            await connection.head(self.timeouts.first_byte)
            answer = Answer(self, connection)
            if (answer.header("content-encoding") or "identity").lower() != "identity":
                raise Malformed("sent a compressed answer, which was not asked for")
        except UpstreamError as error:
            self._drop(connection)
            self.name_it(error, sent=sent)
        except BaseException:
            self._drop(connection)
            raise
        return answer

    @property
    def kept(self) -> int:
        """How many idle connections are kept."""
        return len(self._kept)

    async def close(self) -> None:
        """Close every idle connection; those in use are closed when their answer is."""
        self._closed = True
        while self._kept:
            self._kept.pop().abort()

    def name_it(self, error: UpstreamError, *, sent: bool = True) -> NoReturn:
        """Raise the error again, saying whose it is, and whether the request had gone when it happened."""
        named = type(error)(f"{self.name} {error.message}.")
        named.sent = sent
        raise named from None

    def put_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it when that is not possible."""
        if self._closed or not connection.usable or len(self._kept) >= MAX_IDLE:
            connection.abort()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._kept.append(connection)

    def _take(self, loop: asyncio.AbstractEventLoop) -> Connection | None:
        """The connection used last: it is the least likely to be closed by the other side at this moment."""
        while self._kept:
            connection = self._kept.pop()
            if connection.usable and loop.time() - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    @staticmethod
    def _drop(connection: Connection | None) -> None:
        if connection is not None:
            connection.abort()

    async def _connect(self, loop: asyncio.AbstractEventLoop, total: float) -> Connection:
        seconds = min(self.timeouts.connect, total)
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._egress.addresses()
                return await self._open(loop, addresses, seconds / len(addresses))
        except TimeoutError:
            kind = "connect" if self.timeouts.connect <= total else "total"
            raise UpstreamTimeout(f"cannot be reached in time: the {kind} timeout of {seconds:g} s ran out") from None

    async def _open(self, loop: asyncio.AbstractEventLoop, addresses: list[str], share: float) -> Connection:
        """The first address that answers; each gets its share of the time, so a dead one does not use it up."""
        failure: OSError = OSError()
        for address in addresses:
            try:
                async with asyncio.timeout(share):
                    _, connection = await loop.create_connection(
                        lambda: Connection(loop, idle=self.put_back),
                        address,
                        self._origin.port,
                        ssl=self._tls,
                        server_hostname=self._origin.host.rstrip(".") if self._tls is not None else None,
                    )
                    return connection
            except OSError as error:
                failure = error
                self._egress.failed(address)
        if isinstance(failure, TimeoutError):
            raise failure
        raise Unavailable(_why(failure)) from None


def _why(failure: OSError) -> str:
    """A few words without addresses in them."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        return f"cannot be trusted: {failure.verify_message}"
    if isinstance(failure, ssl.SSLError):
        return "cannot be reached: TLS failed"
    if isinstance(failure, ConnectionRefusedError):
        return "cannot be reached: connection refused"
    return "cannot be reached: network error"


def _fixed_headers(origin: Origin, headers: Mapping[str, str], content_type: str) -> bytes:
    """Everything between the request line and the length of the body."""
    lines = {"accept": "*/*", "user-agent": "headgate", **_sendable(headers)}
    fixed = {"host": origin.authority, **lines, "accept-encoding": "identity", "content-type": content_type}
    return _lines(fixed) + b"content-length: "


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, named in lower case. Raises ValueError when one cannot be sent."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"The header {name!r} cannot be sent: names and values must be plain ASCII on one line.")
        if name.lower() in _OURS:
            raise ValueError(f"The header {name!r} is set by Headgate itself.")
    return {name.lower(): value for name, value in headers.items()}


def _lines(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")
