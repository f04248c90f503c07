"""SQLite connections: opening, migrations, work in a thread, and who may write.

Invariant: a transaction that has committed is never lost to a killed process. Every file is in WAL mode with
`synchronous=NORMAL`: a commit is a write to the operating system, so `kill -9` loses nothing; a power cut or a kernel crash
may lose the commits since the last checkpoint, but never corrupts the file or keeps half of a transaction
(https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from headgate.model.errors import Conflict, Overloaded

BUSY_SECONDS = 5.0
"""How long a connection waits for another process's transaction before it gives up."""

Result = TypeVar("Result")
Step = tuple[str, ...]


def connect(path: str | Path) -> sqlite3.Connection:
    """Open a database file, or create it for this user's eyes alone; statements commit by themselves unless inside `transaction`.

    The connection may be handed from one thread to another but not used by two at once. Raises sqlite3.Error.
    """
    # SQLite gives the log beside it the same mode. A path that cannot be made is SQLite's to complain of.
    with contextlib.suppress(OSError):
        Path(path).touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("SELECT 1 FROM sqlite_master")
    except UnicodeDecodeError as error:
        # SQLite quotes what is damaged, and Python cannot read that.
        connection.close()
        raise sqlite3.DatabaseError(f"malformed database schema: {error.object!r}") from None
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the statements inside or none; takes the write lock at once, so it never fails half way for a reader's sake."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is read inside is of one moment; who writes meanwhile is not kept waiting."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


@contextlib.contextmanager
def lenient(connection: sqlite3.Connection) -> Iterator[None]:
    """Inside, text that damage has made none (it is not UTF-8 any more) can be read too; it has lone surrogates in it."""
    connection.text_factory = _any_text
    try:
        yield
    finally:
        connection.text_factory = str


def _any_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def migrate(connection: sqlite3.Connection, steps: Sequence[Step]) -> None:
    """Bring a file to the newest schema: step n (statements) takes it from version n to n + 1.

    Safe when two processes start at once. Raises Conflict when a newer program has written the file.
    """
    with transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(steps):
            raise Conflict(f"The database has schema version {version}; this program knows {len(steps)}. Upgrade it.")
        for step in steps[version:]:
            for statement in step:
                connection.execute(statement)
        if version < len(steps):
            connection.execute(f"PRAGMA user_version = {len(steps)}")


def set_aside(path: Path) -> None:
    """Move a file that nothing can be done with out of the way, to `.broken`, or leave it when even that cannot be done."""
    with contextlib.suppress(OSError):
        path.replace(path.with_suffix(".broken"))
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


class Database:
    """One connection that works in one thread of its own, so that no disk is waited for on the event loop."""

    def __init__(self, path: str | Path) -> None:
        """Opens the file on first use, in its thread."""
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")

    async def call(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `work` with the connection. Raises Overloaded when the disk is full, unreadable or locked for too long."""
        return await asyncio.wrap_future(self.start(work))

    async def query(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that a statement gives. Raises Overloaded as `call` does."""
        return await self.call(lambda connection: connection.execute(sql, parameters).fetchall())

    def start(self, work: Callable[[sqlite3.Connection], Result]) -> Future[Result]:
        """As `call`, from any thread and without waiting."""
        return self._thread.submit(self._run, work)

    def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            if self._connection is None:
                self._connection = connect(self._path)
            return work(self._connection)
        except sqlite3.OperationalError as error:
            raise Overloaded(f"The database cannot be used now: {error}.", retry_after=1.0) from error

    def close(self) -> None:
        """Finish the work begun and close the connection."""
        self._thread.shutdown(wait=True)
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Checkpoints:
    """Moves what was committed from the log into the database file, in a thread of its own.

    That is the part of a commit that waits for the disk to obey (fsync); SQLite would do it inside the commit that fills
    the log, and every caller of that commit would wait too.
    """

    def __init__(self, path: str | Path, *, every: int = 2_000) -> None:
        """`every` is the number of rows after which it is done."""
        self._database = Database(path)
        self._every = every
        self._rows = 0
        self._running: Future[Any] | None = None

    def committed(self, rows: int) -> None:
        """Count rows that were just committed; never waits. Call it from one thread."""
        self._rows += rows
        if self._rows >= self._every and (self._running is None or self._running.done()):
            self._rows = 0
            # One that fails (a full disk) is repeated later, and meanwhile the log keeps everything.
            self._running = self._database.start(
                lambda connection: connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            )

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


class Claim:
    """The exclusive right to serve from a file, for as long as this process lives or until `release`.

    Advisory, in a lock file beside the database: readers and other tools may still open the database itself.
    """

    def __init__(self, path: str | Path) -> None:
        """Take the claim. Raises Conflict naming the process that has it."""
        self._file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise Conflict(
                f"{path} is in use by process {holder}: one server at a time can keep a ledger. Stop that one, or give "
                "this one a data directory of its own."
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the claim back. The lock file stays: removing it would let two processes lock two files of one name."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
