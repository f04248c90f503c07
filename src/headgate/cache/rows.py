"""The cache's file: one row for each entry, with its pack as it lies in memory and its vector beside it.

Invariant: a row is whole or it is not used: its checksum covers every column. Texts are stored as bytes, so that no odd one spoils
a batch of others' rows.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from headgate.cache.kept import Kept, Make, Place
from headgate.model.chat import Completion
from headgate.model.tenancy import Namespace

SCHEMA = (
    (
        """CREATE TABLE entries (
            tenant TEXT NOT NULL, namespace TEXT NOT NULL, digest TEXT NOT NULL,
            expires REAL NOT NULL, entry TEXT NOT NULL,
            PRIMARY KEY (tenant, namespace, digest)
        ) WITHOUT ROWID""",
        "CREATE INDEX entries_expires ON entries (expires)",
    ),
    (
        "DROP TABLE entries",
        """CREATE TABLE entries (
            number INTEGER PRIMARY KEY, tenant BLOB NOT NULL, namespace BLOB NOT NULL, partition BLOB,
            deployment BLOB NOT NULL, model BLOB NOT NULL, vector BLOB, pack BLOB NOT NULL, sum INTEGER NOT NULL
        )""",
        """CREATE TABLE graphs (
            tenant BLOB NOT NULL, namespace BLOB NOT NULL, partition BLOB NOT NULL, dimensions INTEGER NOT NULL,
            file TEXT NOT NULL, digest BLOB NOT NULL, keys BLOB NOT NULL, numbers BLOB NOT NULL
        )""",
        "CREATE TABLE state (form BLOB NOT NULL, generation INTEGER NOT NULL)",
        "INSERT INTO state VALUES (x'', 0)",
    ),
)
"""Answers of the first version are not carried over: they lack who asked, and what for."""

NUMBERS = 1 << 40
"""Entries of one generation, which is one opening of the file; so that no number is ever given twice, whatever was lost."""

_COLUMNS = "number, tenant, namespace, partition, deployment, model, vector, pack, sum"
_TOGETHER = 50
"""Rows of one statement: each one lets go of the interpreter's lock and has to wait for it."""
_FORM = 2
"""Of packs; a number that is raised with every change of it."""

Row = tuple[int, bytes, bytes, bytes | None, bytes, bytes, bytes | None, bytes, int]


def begin(connection: sqlite3.Connection) -> tuple[int, int]:
    """Begin a generation; inside a transaction. Its number, and how many entries were let go of because another version of this program,
    in which an answer has another form, has written them."""
    form = _form()
    stored, generation = connection.execute("SELECT form, generation FROM state").fetchone()
    removed = 0
    if stored != form:
        removed = connection.execute("DELETE FROM entries").rowcount
        connection.execute("DELETE FROM graphs")
    connection.execute("UPDATE state SET form = ?, generation = ?", [form, generation + 1])
    return generation + 1, removed


def write(connection: sqlite3.Connection, kept: Iterable[Kept], gone: Sequence[int], *, wipe: bool) -> None:
    """Write what came and remove what went, after everything when `wipe`; inside a transaction."""
    if wipe:
        connection.execute("DELETE FROM entries")
        connection.execute("DELETE FROM graphs")
    if gone:
        numbers = msgspec.json.encode(gone).decode()
        connection.execute("DELETE FROM entries WHERE number IN (SELECT value FROM json_each(?))", [numbers])
    rows = iter(kept)
    while batch := [_row(one) for one in itertools.islice(rows, _TOGETHER)]:
        places = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * len(batch))
        connection.execute(
            f"INSERT OR REPLACE INTO entries ({_COLUMNS}) VALUES {places}", list(itertools.chain.from_iterable(batch))
        )


def read(connection: sqlite3.Connection) -> Iterator[tuple[int, Kept | None]]:
    """All entries by number, oldest first; None for a row that is not whole."""
    for row in connection.execute(f"SELECT {_COLUMNS} FROM entries ORDER BY number"):
        try:
            yield row[0], _kept(row)
        except (TypeError, ValueError):
            yield row[0], None


def place_columns(place: Place) -> tuple[bytes, bytes, bytes | None]:
    """Tenant, namespace and partition."""
    return _bytes(place.namespace.tenant), _bytes(place.namespace.name), place.partition


@functools.lru_cache(maxsize=1_024)
def place_of(tenant: bytes, namespace: bytes, partition: bytes | None) -> Place:
    """The place with these columns."""
    return Place(Namespace(_text(tenant), _text(namespace)), partition)


@functools.lru_cache(maxsize=1_024)
def _make(deployment: bytes, model: bytes) -> Make:
    return Make(_text(deployment), _text(model))


def _row(kept: Kept) -> Row:
    columns = (*place_columns(kept.place), _bytes(kept.make.deployment), _bytes(kept.make.model))
    return kept.number, *columns, kept.vector, kept.pack, _sum(columns, kept.vector, kept.pack)


def _kept(row: Row) -> Kept | None:
    number, tenant, namespace, partition, deployment, model, vector, pack, stored = row
    if stored != _sum((tenant, namespace, partition, deployment, model), vector, pack):
        return None
    return Kept(number, place_of(tenant, namespace, partition), _make(deployment, model), pack, vector)


def _sum(columns: tuple[bytes | None, ...], vector: bytes | None, pack: bytes) -> int:
    """Damage is what this is for, not malice."""
    small = b"\0".join([b"" if column is None else column for column in columns])
    return zlib.crc32(pack, zlib.crc32(small if vector is None else vector + small))


def _form() -> bytes:
    """What says in which form packs and the answers in them are."""
    answers = msgspec.json.encode(msgspec.json.schema(Completion), order="deterministic")
    return hashlib.sha256(b"%d " % _FORM + answers).digest()


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _text(stored: bytes) -> str:
    return stored.decode(errors="surrogatepass")
