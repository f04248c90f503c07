"""`python -m benchmarks.readers PORT PID COUNT`: many callers of one streamed answer, as light as a client can be.

Reads one raw HTTP request from standard input and sends it on COUNT connections at once, to the server with process id PID. Prints a
line of JSON about what came back and what the server spent on it. One thread, one epoll, no parser: events are counted by their
beginning, and an answer is over with its last chunk.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.load import END_OF_CHUNKS, EVENT, LoadFailed, percentile
from benchmarks.servers import HOST, fetch, resident_mb

FOLLOWERS = b"headgate_flight_followers "
SETTLE_LIMIT = 30.0
SILENCE_LIMIT = 30.0
STEADY = 10
"""Events at either end of the stream that are left out of what an event costs: connections begin and end there."""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One stream and its readers. Milliseconds count from when the same event reached the first of all readers.

    events       of the stream, the same for each reader
    whole        readers that got all of them and the end
    first_*      of the first byte of a follower, from the leader's first byte
    behind_*     of all events; `last_ms`: the last event at the last reader
    cpu_us       the server's, for each reader and event in the middle of the stream; `join_us`: for each reader that joined
    starved      share of its busy time that the server waited for a core which others had: of a figure worth believing, little
    reader_kb    resident memory that the server grew by while all were waiting, for each
    """

    readers: int
    events: int
    seconds: float
    whole: int
    first_p50_ms: float
    first_p99_ms: float
    behind_p50_ms: float
    behind_p99_ms: float
    last_ms: float
    cpu_us: float
    join_us: float
    starved: float
    reader_kb: float


class _Crowd:
    """All connections, and when what arrived on each."""

    def __init__(self, port: int, pid: int, count: int) -> None:
        self.lines = [socket.create_connection((HOST, port), timeout=SETTLE_LIMIT) for _ in range(count)]
        self.places = {line.fileno(): place for place, line in enumerate(self.lines)}
        self.heads = [b""] * count
        self.first = [0.0] * count
        self.arrivals: list[list[float]] = [[] for _ in range(count)]
        self.tails = [b""] * count
        self.spent: list[float] = []
        self._pid = pid

    def send(self, request: bytes) -> None:
        """Let all ask; the first one leads."""
        for line in self.lines:
            line.sendall(request)
            line.setblocking(False)

    def read(self) -> None:
        """Read until every answer is over. Raises LoadFailed when nothing comes for long."""
        poll = select.epoll()
        for line in self.lines:
            poll.register(line, select.EPOLLIN)
        while self.tails.count(END_OF_CHUNKS) < len(self.lines):
            ready = poll.poll(SILENCE_LIMIT)
            if not ready:
                raise LoadFailed(f"{self.tails.count(END_OF_CHUNKS)} of {len(self.lines)} streams ended")
            for descriptor, _ in ready:
                self._take(self.places[descriptor])
        poll.close()

    def _take(self, place: int) -> None:
        data = self.lines[place].recv(262_144)
        now = time.perf_counter()
        if not data:
            raise LoadFailed(f"the server hung up after {self.heads[place][:200]!r}")
        arrived = self.arrivals[place]
        if not self.first[place]:
            self.first[place] = now
            self.heads[place] = data[:4_096]
        arrived += [now] * data.count(EVENT)
        self.tails[place] = (self.tails[place] + data)[-len(END_OF_CHUNKS) :]
        while len(arrived) > len(self.spent):
            self.spent.append(
                cpu_seconds(self._pid)
            )  # the first to hear of an event: so much has been spent on those before


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def hear(port: int, pid: int, count: int, request: bytes) -> Heard:
    """Send the request on `count` connections and read the answers. Raises LoadFailed."""
    before = resident_mb(pid)
    os.sched_setaffinity(0, os.sched_getaffinity(0) - os.sched_getaffinity(pid) or os.sched_getaffinity(0))
    crowd = _Crowd(port, pid, count)
    spent = cpu_seconds(pid)
    crowd.send(request)
    _await_followers(port, count - 1)
    grown, joined = resident_mb(pid) - before, cpu_seconds(pid) - spent
    ran, waited = _scheduled(pid)
    crowd.read()
    now_ran, now_waited = _scheduled(pid)
    starved = (now_waited - waited) / (now_ran - ran + now_waited - waited)
    return _heard(crowd, grown_mb=grown, joined_s=joined, starved=starved)


def _scheduled(pid: int) -> tuple[int, int]:
    """Nanoseconds that a process' first thread, which runs its event loop, has run and has waited to run."""
    ran, waited, _ = map(int, Path(f"/proc/{pid}/schedstat").read_text().split())
    return ran, waited


def _await_followers(port: int, count: int) -> None:
    give_up = time.monotonic() + SETTLE_LIMIT
    while time.monotonic() < give_up:
        _, page = fetch(port, "/metrics")
        line = next(line for line in page.splitlines() if line.startswith(FOLLOWERS))
        if float(line.removeprefix(FOLLOWERS)) == count:
            return
        time.sleep(0.01)
    raise LoadFailed(f"only {line.decode()} of {count} joined one flight")


def _heard(crowd: _Crowd, *, grown_mb: float, joined_s: float, starved: float) -> Heard:
    count, events = len(crowd.lines), max(map(len, crowd.arrivals))
    leads = [place for place, head in enumerate(crowd.heads) if b"x-headgate-source: live" in head]
    if len(leads) != 1 or events <= 2 * STEADY:
        raise LoadFailed(f"{len(leads)} of {count} led, {events} events came: {crowd.heads[0][:500]!r}")
    firsts = [1000 * (first - crowd.first[leads[0]]) for place, first in enumerate(crowd.first) if place != leads[0]]
    earliest = [min(arrived[place] for arrived in crowd.arrivals if place < len(arrived)) for place in range(events)]
    behind = [1000 * (at - since) for arrived in crowd.arrivals for at, since in zip(arrived, earliest, strict=False)]
    middle = events - 2 * STEADY
    return Heard(
        readers=count,
        events=events,
        seconds=max(arrived[-1] for arrived in crowd.arrivals) - earliest[0],
        whole=sum(len(arrived) == events for arrived in crowd.arrivals),
        first_p50_ms=percentile(firsts, 0.5),
        first_p99_ms=percentile(firsts, 0.99),
        behind_p50_ms=percentile(behind, 0.5),
        behind_p99_ms=percentile(behind, 0.99),
        last_ms=1000 * (max(arrived[-1] for arrived in crowd.arrivals) - earliest[-1]),
        cpu_us=1e6 * (crowd.spent[-STEADY - 1] - crowd.spent[STEADY - 1]) / (middle * count),
        join_us=1e6 * joined_s / count,
        starved=starved,
        reader_kb=1000 * grown_mb / count,
    )


def main() -> None:
    """What the head of this file says."""
    port, pid, count = map(int, sys.argv[1:])
    print(msgspec.json.encode(hear(port, pid, count, sys.stdin.buffer.read())).decode())


if __name__ == "__main__":
    main()
