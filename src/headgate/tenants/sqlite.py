"""SqliteDirectory: tenants and keys in one SQLite file, which several processes may read and write at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from headgate.model.errors import Conflict, NotFound
from headgate.model.tenancy import KeyRecord
from headgate.storage.sqlite import Database, Step, migrate
from headgate.tenants.tenants import Account

SCHEMA: tuple[Step, ...] = (
    (
        """CREATE TABLE tenants (
            id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, overrides TEXT NOT NULL, created REAL NOT NULL
        ) STRICT""",
        """CREATE TABLE keys (
            id TEXT PRIMARY KEY,
            tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
            digest TEXT NOT NULL UNIQUE,
            role TEXT NOT NULL, name TEXT, user TEXT, expires REAL, revoked REAL, created REAL NOT NULL
        ) STRICT""",
        "CREATE TABLE secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    ),
)

_KEY = "keys.id, tenant, digest, role, keys.name, user, expires, revoked, keys.created"
_ACCOUNT = "tenants.id, tenants.name, overrides, tenants.created"


class SqliteDirectory:
    """A Directory in a file. The schema is made on first use."""

    def __init__(self, path: str | Path) -> None:
        """Opens the file on first use, in a thread of its own."""
        self._database = Database(path)
        self._migrated = False

    async def find(self, digest: str) -> tuple[KeyRecord, Account] | None:
        """The key with this digest, and its tenant."""
        sql = f"SELECT {_KEY}, {_ACCOUNT} FROM keys JOIN tenants ON tenants.id = tenant WHERE digest = ?"
        rows = await self._query(sql, (digest,))
        return (_record(rows[0][:9]), _account(rows[0][9:])) if rows else None

    async def accounts(self) -> list[Account]:
        """All tenants, oldest first."""
        return [_account(row) for row in await self._query(f"SELECT {_ACCOUNT} FROM tenants ORDER BY created, rowid")]

    async def put_account(self, account: Account) -> None:
        """Add or replace a tenant."""
        overrides = msgspec.json.encode(account.overrides).decode()
        try:
            await self._query(
                "INSERT INTO tenants VALUES (?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET name = excluded.name, overrides = excluded.overrides",
                (account.id, account.name, overrides, account.created),
            )
        except sqlite3.IntegrityError:
            raise Conflict(f"There is a tenant named {account.name!r} already.") from None

    async def drop_account(self, id: str) -> bool:
        """Delete a tenant and its keys."""
        return bool(await self._query("DELETE FROM tenants WHERE id = ? RETURNING id", (id,)))

    async def keys(self) -> list[KeyRecord]:
        """All keys, oldest first."""
        return [_record(row) for row in await self._query(f"SELECT {_KEY} FROM keys ORDER BY created, rowid")]

    async def put_key(self, record: KeyRecord) -> None:
        """Add or replace a key."""
        values = msgspec.structs.astuple(record)
        try:
            await self._query(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                " role = excluded.role, name = excluded.name, user = excluded.user, expires = excluded.expires,"
                " revoked = excluded.revoked",
                values,
            )
        except sqlite3.IntegrityError as error:
            if "FOREIGN KEY" in str(error):
                raise NotFound(f"There is no tenant {record.tenant!r}.") from None
            raise Conflict("This key exists already.") from None

    async def secret(self, name: str, make: Callable[[], str]) -> str:
        """The secret of this name; the first process to ask makes it."""
        await self._query("INSERT INTO secrets VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, make()))
        ((value,),) = await self._query("SELECT value FROM secrets WHERE name = ?", (name,))
        return str(value)

    async def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    async def _query(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        if not self._migrated:
            await self._database.call(lambda connection: migrate(connection, SCHEMA))
            self._migrated = True
        return await self._database.query(sql, parameters)


def _record(row: tuple[Any, ...]) -> KeyRecord:
    return KeyRecord(**dict(zip(KeyRecord.__struct_fields__, row, strict=True)))


def _account(row: tuple[Any, ...]) -> Account:
    return Account(id=row[0], name=row[1], overrides=msgspec.json.decode(row[2]), created=row[3])
