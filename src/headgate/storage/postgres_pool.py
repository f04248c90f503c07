"""Connections to PostgreSQL, which the tasks of one process take turns on.

Why none of the pools there are: theirs connect in the background and tell nobody why that fails, so a wrong password looks like a slow server;
they hand out what a restarted server has left behind, one dead connection after the other; and who is cancelled while a server hangs waits on
until the server is asked, in vain, to stop. Here who needs a connection makes it, an idle one is looked at before it is used, and one that was
left in the middle of an exchange is closed on the spot.

Invariants: there are never more than `most` connections; one whose exchange was broken off is never used again; `close` waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from psycopg import generators, waiting
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGcancelConn

from headgate.model.errors import Conflict

DEFAULTS: dict[str, Any] = {
    "application_name": "headgate",
    "connect_timeout": 2,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""What a URL that says nothing of it means: each of its hosts is tried for two seconds, and a connection that a network has forgotten is
found out within a minute."""
IDLE_SECONDS = 600.0
"""Seconds after which an idle connection is closed, when another one comes back."""
STOPPING_SECONDS = 2.0
"""How long the server is asked to stop what nobody waits for any more."""
_WAKE = 0.1
"""Psycopg's own interval of looking up while it waits."""


class Exhausted(Exception):
    """All connections stayed in use for as long as one was waited for."""


class Closed(Exception):
    """The pool was closed."""


class Lent(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that is closed at once when who waits on it is cancelled. Psycopg itself would ask the server to stop and wait for that,
    for ten seconds where the server hangs."""

    stop: PGcancelConn | None = None
    """What asks the server to stop, where it was left in the middle of a statement."""
    round: int = 0
    """How often all connections were renewed before it was made."""
    idle_since: float = 0.0
    """When it came back, by the event loop's clock."""

    async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Go on with an exchange until it is done."""
        if not args:
            kwargs.setdefault("interval", _WAKE)
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, *args, **kwargs)
        except asyncio.CancelledError:
            self.leave()
            raise

    def leave(self) -> None:
        """Close it, whatever is under way on it."""
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            with contextlib.suppress(
                psycopg.Error
            ):  # libpq can since 17; with an older one the server finds out by itself
                self.stop = self.pgconn.cancel_conn()
        self.pgconn.finish()

    @property
    def stands(self) -> bool:
        """Whether it is still open, as far as this side knows. A server has nothing to say on an idle connection but that it goes."""
        if self.closed:
            return False
        look = select.poll()
        look.register(self.pgconn.socket, select.POLLIN)
        return not look.poll(0)


class Pool:
    """Connects when it is first used."""

    def __init__(self, url: str, *, most: int, patience: float, idle: float = IDLE_SECONDS) -> None:
        """`most`: connections; `patience`: seconds that one is waited for while all are in use; `idle`: seconds that one is kept unused.
        Raises Conflict when the URL cannot be read."""
        self._settings = DEFAULTS | _settings(url)
        self._patience = patience
        self._idle = idle
        self._slots = asyncio.Semaphore(most)
        self._free: deque[Lent] = deque()
        self._stopping: set[asyncio.Task[None]] = set()
        self._round = 0
        self._closed = False

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Lent]:
        """One connection for this task alone, whose statements commit by themselves. Raises Exhausted, Closed, and psycopg's
        OperationalError when none can be made."""
        connection = await self._taken()
        try:
            yield connection
        finally:
            self._give(connection)

    def renew(self) -> None:
        """Use no connection again that there is now: they lead where one has turned out to be of no use."""
        self._round += 1
        while self._free:
            self._free.pop().leave()

    async def close(self) -> None:
        """Close all connections; those in use when they come back."""
        self._closed = True
        self.renew()
        for task in self._stopping:
            task.cancel()
        await asyncio.gather(*self._stopping, return_exceptions=True)

    async def _taken(self) -> Lent:
        try:
            async with asyncio.timeout(self._patience):
                await self._slots.acquire()
        except TimeoutError:
            raise Exhausted from None
        try:
            if self._closed:
                raise Closed
            return self._kept() or await self._made()
        except BaseException:
            self._slots.release()
            raise

    def _kept(self) -> Lent | None:
        """The idle connection that was used last; the others may grow old."""
        while self._free:
            connection = self._free.pop()
            if connection.stands:
                return connection
            connection.leave()
        return None

    async def _made(self) -> Lent:
        # No statement is prepared: behind PgBouncer the next one may run on another of the server's connections.
        made = self._round
        connection = await Lent.connect(autocommit=True, prepare_threshold=None, **self._settings)
        connection.round = made
        return connection

    def _give(self, connection: Lent) -> None:
        """Keep it where it is as good as new. Nothing here waits, so that no cancellation loses a connection."""
        idle = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if idle and connection.round == self._round and not self._closed:
            connection.idle_since = now = asyncio.get_running_loop().time()
            self._free.append(connection)
            while self._free[0].idle_since < now - self._idle:
                self._free.popleft().leave()
        else:
            connection.leave()
        if connection.stop is None or self._closed:
            self._slots.release()
            return
        # Its place is taken until the server was told, so that those who work for nobody do not add up there.
        task = asyncio.get_running_loop().create_task(self._stop(connection.stop))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop(self, stop: PGcancelConn) -> None:
        try:
            async with asyncio.timeout(STOPPING_SECONDS):
                stop.start()
                await waiting.wait_conn_async(generators.cancel(stop), interval=_WAKE)
        except (psycopg.Error, OSError, TimeoutError):
            pass  # It is gone, or hangs; it was asked.
        finally:
            stop.finish()
            self._slots.release()


def _settings(url: str) -> dict[str, Any]:
    """What a URL says. An error of libpq's would quote it, with the password."""
    try:
        settings = conninfo_to_dict(url)
    except psycopg.Error:
        settings = {"host": "@"}
    if "@" in str(settings.get("host", "")):
        raise Conflict(
            "The URL of the database cannot be read; in a password, `@`, `:`, `/` and `%` are written as `%40`, `%3A`, `%2F`, `%25`."
        )
    return dict(settings)
