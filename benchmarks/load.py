"""Making load: wrk for requests a second and latency, a raw-socket client for a fixed rate and for streams.

The fixed rate is an open loop: a request is sent when its time has come, on a free connection or a new one, whether or not
earlier ones have been answered, so a slow server cannot slow its own load down.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec

from benchmarks.servers import HOST

CHAT_PATH = "/v1/chat/completions"
SCRIPT = Path(__file__).with_name("load.lua")
END_OF_HEAD = b"\r\n\r\n"
END_OF_CHUNKS = b"\r\n0\r\n\r\n"
EVENT = b"\ndata: "
ANSWER_LIMIT = 60.0


class LoadFailed(Exception):
    """A server broke a connection or answered what it should not; the figures would mean nothing."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where load goes: a server's port, and the headers of every request beside the content type."""

    name: str
    port: int
    headers: Mapping[str, str] = {}


class Burst(msgspec.Struct, frozen=True, kw_only=True):
    """What wrk reports. `refused` answers had a status above 399, `counted` ones the status that was asked for."""

    requests: int
    duration_us: int
    refused: int
    broken: int
    counted: int
    p50_us: int
    p95_us: int
    p99_us: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / (self.duration_us / 1e6)


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of a fixed rate, in milliseconds; `late_p99_ms` is how late the client itself was at sending."""

    requests: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    late_p99_ms: float
    statuses: dict[str, int]


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """One streamed answer: seconds from the request to each event, in order, and to the end."""

    arrivals: Sequence[float]
    seconds: float
    complete: bool


def wrk(target: Target, bodies: Path, *, connections: int, seconds: float, first: int, counted: int = 0) -> Burst:
    """Run wrk on one thread; `first` and `counted` are explained in load.lua. Raises LoadFailed."""
    command = [shutil.which("wrk") or "wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "30s"]
    for name, value in target.headers.items():
        command += ["-H", f"{name}: {value}"]
    command += [
        "-s",
        str(SCRIPT),
        f"http://{HOST}:{target.port}{CHAT_PATH}",
        "--",
        str(bodies),
        str(first),
        str(counted),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in ended.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise LoadFailed(f"wrk against {target.name} reported nothing:\n{ended.stdout}{ended.stderr}")
    burst = msgspec.json.decode(found[0].removeprefix("RESULT "), type=Burst)
    if not burst.requests:
        raise LoadFailed(f"{target.name} answered nothing within {seconds:g} s")
    return burst


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest of `values` that at least `share` (0 to 1) of them do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -(-len(ranked) * round(share * 1000) // 1000) - 1))]


def encoded(target: Target, body: bytes) -> bytes:
    """A whole HTTP request."""
    headers = {"host": f"{HOST}:{target.port}", "content-type": "application/json", **target.headers}
    lines = [f"POST {CHAT_PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, f"content-length: {len(body)}")).encode() + END_OF_HEAD + body


class Connection(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection with at most one request under way; notes when each read arrived."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[None] | None = None
        self._received = bytearray()
        self._size: int | None = None
        self.reads: list[tuple[float, int]] = []

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; the status and the raw answer, head included. Raises LoadFailed when it breaks."""
        loop = asyncio.get_running_loop()
        if self._transport is None:
            await loop.create_connection(lambda: self, HOST, _port(request))
        self._received.clear()
        self._size = None
        self.reads = []
        self._answered = loop.create_future()
        if self._transport is None:
            raise LoadFailed("the connection was closed at once")
        self._transport.write(request)
        await asyncio.wait_for(self._answered, ANSWER_LIMIT)
        return int(self._received[9:12]), bytes(self._received)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport that asyncio made."""
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Note the time, and end the request when its answer is complete."""
        self._received += data
        self.reads.append((time.perf_counter(), len(self._received)))
        if self._answered is not None and not self._answered.done() and self._complete():
            self._answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way, if any."""
        self._transport = None
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(LoadFailed(f"the connection was lost: {exc or 'closed by the server'}"))

    def _complete(self) -> bool:
        if self._size is None:
            head = self._received.find(END_OF_HEAD)
            if head < 0:
                return False
            self._size = _answer_size(bytes(self._received[:head]).lower(), head + len(END_OF_HEAD))
        if self._size:
            return len(self._received) >= self._size
        return self._received.endswith(END_OF_CHUNKS)


async def steady(target: Target, bodies: Sequence[bytes], *, rate: float) -> Spread:
    """Send every body at `rate` a second in an open loop and wait for all answers."""
    free: list[Connection] = []
    used: list[Connection] = []
    latencies: list[float] = []
    late: list[float] = []
    statuses: dict[str, int] = {}

    async def send(body: bytes, due: float) -> None:
        if not free:
            used.append(Connection())
            free.append(used[-1])
        connection = free.pop()
        began = time.perf_counter()
        late.append(began - due)
        status, _ = await connection.ask(encoded(target, body))
        latencies.append(time.perf_counter() - began)
        statuses[str(status)] = statuses.get(str(status), 0) + 1
        free.append(connection)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for place, body in enumerate(bodies):
            due = began + place / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(send(body, due))
    for connection in used:
        connection.close()
    return Spread(
        requests=len(latencies),
        p50_ms=1000 * percentile(latencies, 0.5),
        p95_ms=1000 * percentile(latencies, 0.95),
        p99_ms=1000 * percentile(latencies, 0.99),
        late_p99_ms=1000 * percentile(late, 0.99),
        statuses=statuses,
    )


async def stream(connection: Connection, target: Target, body: bytes) -> Streamed:
    """Ask for one streamed answer and time its events. Raises LoadFailed when the status is not 200."""
    began = time.perf_counter()
    status, answer = await connection.ask(encoded(target, body))
    if status != 200:
        raise LoadFailed(f"{target.name} answered a stream with {status}: {answer[-300:]!r}")
    return Streamed(
        arrivals=[moment - began for moment in _event_times(answer, connection.reads)],
        seconds=connection.reads[-1][0] - began,
        complete=b"data: [DONE]" in answer,
    )


def _event_times(answer: bytes, reads: Sequence[tuple[float, int]]) -> list[float]:
    """When each event that starts in `answer` had begun to arrive."""
    times = []
    place = answer.find(EVENT)
    for moment, size in reads:
        while 0 <= place < size:
            times.append(moment)
            place = answer.find(EVENT, place + len(EVENT))
    return times


def _answer_size(head: bytes, head_size: int) -> int:
    """Bytes of the whole answer, 0 when it is sent in chunks."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return head_size + int(value)
    return 0


def _port(request: bytes) -> int:
    line = next(line for line in request.split(b"\r\n") if line.startswith(b"host: "))
    return int(line.rpartition(b":")[2])
