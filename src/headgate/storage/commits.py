"""Commits: many callers' rows, written by one thread, a whole batch in one transaction (group commit).

A commit costs about the same for one row as for fifty, so rows that arrive while one is under way share the next. The event
loop hands over once in each of its turns, whatever number of callers wait in it. The batch is ONE statement with ONE JSON
parameter: a statement lets go of the interpreter's lock and takes it back once or twice, while a statement for every row does
so for every row, and each time it may wait for a busy event loop to yield.

Invariant: rows reach the file in the order of `append`, and `durable` returns only when every row appended before it is there.
A batch that fails is kept and tried again, so a full disk delays rows but never drops one.

Group commit: DeWitt et al., "Implementation techniques for main memory database systems", SIGMOD 1984, §5.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from headgate.model import failpoints
from headgate.model.errors import Overloaded
from headgate.storage.sqlite import Checkpoints

LOG_PAGES = 16_000
"""Pages (of 4 KiB) to which the log may grow before a commit itself moves them, should the checkpoints fall behind."""

BATCH = 4_096
"""Rows of one statement at most, so that a long backlog never makes a text that SQLite refuses."""

STEPS_PER_PASSING = 100
"""Steps of SQLite's machine, which takes some hundreds for a row, between two passings of the failpoint inside a commit."""

Value = str | int | float | None
"""What a row may hold."""


class _Handover(msgspec.Struct, frozen=True):
    """What one turn of the loop gives the thread: rows, those who wait for them, and whether it is the last."""

    rows: list[bytes]
    waiters: list[asyncio.Future[None]]
    last: bool = False


class Commits:
    """A bounded queue of rows in front of one SQLite connection, whose only user is this object's thread.

    All methods are called from one event loop.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        insert: str,
        checkpoints: Checkpoints,
        *,
        limit: int = 65_536,
        linger: float = 0.01,
        retry: float = 0.25,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Both the connection and the checkpoints are this object's from now on, and closed by it.

        `insert` has one parameter, a JSON array of rows, each an array of values.

        limit   rows that may wait before `admit` refuses
        linger  seconds that a row nobody waits for may lie before it is written
        retry   seconds between two tries of a failed batch
        """
        self._connection = connection
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        if failpoints.armed("during_commit"):
            connection.set_progress_handler(lambda: failpoints.passed("during_commit"), STEPS_PER_PASSING)
        self._cursor = connection.cursor()
        self._insert = insert
        self._checkpoints = checkpoints
        self._limit = limit
        self._linger = linger
        self._retry = retry
        self._monotonic = monotonic
        self._queue: queue.SimpleQueue[_Handover] = queue.SimpleQueue()
        self._rows: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._backlog: list[bytes] = []
        self._appended = 0
        self._committed = 0
        self._since = 0.0
        self._failure: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="commits", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Rows that are not in the file yet."""
        return self._appended - self._committed

    @property
    def lag(self) -> float:
        """For how many seconds the oldest waiting row has waited, about."""
        return max(0.0, self._monotonic() - self._since) if self.pending else 0.0

    def admit(self) -> None:
        """Raises Overloaded when new work must be refused: the file cannot be written, or too many rows wait."""
        if self._failure is not None:
            raise _refused(self._failure)
        if self.pending >= self._limit or self._closing:
            raise Overloaded("The ledger's queue is full.", retry_after=1.0)

    def append(self, row: bytes) -> None:
        """Queue a row as `encoded` makes it; it is written with the next batch. Never refuses: what was admitted must be recorded."""
        if not self.pending:
            self._since = self._monotonic()
        self._rows.append(row)
        self._appended += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._linger, self._lingered)

    async def durable(self) -> None:
        """Return when every row appended so far is in the file. Raises Overloaded when it cannot be written now."""
        if not self.pending:
            return
        if self._closing:
            raise _refused(self._failure or "it is being closed")
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        if not self._waiters:
            # Not at once: who else waits in this turn of the loop then shares the commit.
            loop.call_soon(self._hand_over)
        self._waiters.append(waiter)
        await waiter

    async def close(self) -> None:
        """Write what waits, end the thread, close the connection. Raises Overloaded when rows could not be written."""
        self._hand_over(last=True)
        self._closing = True
        await asyncio.to_thread(self._thread.join)
        while self._rows and self._failure is None:
            # What came while the thread ended.
            self._backlog, self._rows = self._backlog + self._rows, []
            await asyncio.to_thread(self._commit, [])
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(self._checkpoints.close)
        self._connection.close()
        if self.pending:
            raise _refused(f"{self._failure}; {self.pending} rows are lost")

    def _lingered(self) -> None:
        self._timer = None
        self._hand_over()

    def _hand_over(self, *, last: bool = False) -> None:
        if (self._rows or self._waiters or last) and not self._closing:
            self._queue.put(_Handover(self._rows, self._waiters, last))
            self._rows, self._waiters = [], []

    def _run(self) -> None:
        last = False
        while not last:
            waiters, last = self._take()
            self._commit(waiters)

    def _take(self) -> tuple[list[asyncio.Future[None]], bool]:
        """Move all that was handed over into the backlog; who waits for it, and whether nothing will follow."""
        waiters: list[asyncio.Future[None]] = []
        last = False
        with contextlib.suppress(queue.Empty):
            handed = self._queue.get(timeout=self._retry if self._backlog else None)
            while True:
                self._backlog += handed.rows
                waiters += handed.waiters
                last |= handed.last
                handed = self._queue.get_nowait()
        return waiters, last

    def _commit(self, waiters: list[asyncio.Future[None]]) -> None:
        """Write the backlog, as a rule in one statement. Whatever goes wrong is told to the waiters, and the rows stay."""
        begun = self._monotonic()
        try:
            while self._backlog:
                batch = self._backlog[:BATCH]
                # `executemany`, for `execute` lets go of the interpreter's lock once more, to ask for the last row's id.
                self._cursor.executemany(self._insert, (((b"[" + b",".join(batch) + b"]").decode(),),))
                failpoints.passed("after_commit")
                self._since = begun
                self._committed += len(batch)
                self._checkpoints.committed(len(batch))
                del self._backlog[:BATCH]
        except (sqlite3.Error, MemoryError) as error:
            self._failure = str(error) or type(error).__name__
        else:
            self._failure = None
        self._wake(waiters, self._failure)

    def _wake(self, waiters: list[asyncio.Future[None]], failure: str | None) -> None:
        if waiters:
            # A loop that has ended has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                waiters[0].get_loop().call_soon_threadsafe(_resolve, waiters, failure)


_NUL = b"\\u0000"
_encode = msgspec.json.Encoder().encode


def encoded(row: Sequence[Value]) -> bytes:
    """A row as JSON. Not encoded in the thread, so that no odd text can spoil a batch of others' rows."""
    try:
        text = _encode(row)
    except UnicodeEncodeError:
        text = _NUL
    return text if _NUL not in text else _encode([_clean(value) for value in row])


def _resolve(waiters: list[asyncio.Future[None]], failure: str | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if failure is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(_refused(failure))


def _refused(failure: str) -> Overloaded:
    return Overloaded(f"The ledger cannot be written: {failure}.", retry_after=1.0)


def _clean(value: Value) -> Value:
    """Text with what does not come back from SQLite as it was replaced: half of a surrogate pair, and NUL, which ends a text."""
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd") if isinstance(value, str) else value
