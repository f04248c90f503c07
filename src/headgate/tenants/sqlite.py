"""SqliteDirectory: tenants, keys and organisations in one SQLite file, which several processes may read and write at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headgate.model.errors import Conflict, NotFound
from headgate.model.tenancy import KeyRecord
from headgate.storage.sqlite import Database, Step, migrate, transaction
from headgate.tenants.organisations import Organisation, check_place, check_unused, no_organisation
from headgate.tenants.tenants import Account

Result = TypeVar("Result")

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
    (
        "CREATE TABLE organisations (name TEXT PRIMARY KEY, parent TEXT REFERENCES organisations, created REAL NOT NULL) STRICT",
        """ALTER TABLE tenants ADD COLUMN organisation TEXT
            GENERATED ALWAYS AS (overrides ->> '$.organisation') VIRTUAL REFERENCES organisations""",
        "CREATE INDEX tenants_by_organisation ON tenants (organisation)",
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

    async def account(self, id: str) -> Account | None:
        """The tenant of this id."""
        rows = await self._query(f"SELECT {_ACCOUNT} FROM tenants WHERE id = ?", (id,))
        return _account(rows[0]) if rows else None

    async def put_account(self, account: Account) -> None:
        """Add or replace a tenant."""
        overrides = msgspec.json.encode(account.overrides).decode()
        try:
            await self._query(
                "INSERT INTO tenants VALUES (?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET name = excluded.name, overrides = excluded.overrides",
                (account.id, account.name, overrides, account.created),
            )
        except sqlite3.IntegrityError as error:
            if "FOREIGN KEY" in str(error):
                raise no_organisation(account.overrides["organisation"], param="organisation") from None
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

    async def put_first_admin(self, record: KeyRecord) -> bool:
        """Add an admin key unless there is one that was not revoked; the look and the change are one statement."""
        sql = (
            "INSERT INTO keys SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?"
            " WHERE NOT EXISTS (SELECT 1 FROM keys WHERE role = 'admin' AND revoked IS NULL) RETURNING id"
        )
        try:
            return bool(await self._query(sql, msgspec.structs.astuple(record)))
        except sqlite3.IntegrityError:
            raise NotFound(f"There is no tenant {record.tenant!r}.") from None

    async def organisations(self) -> list[Organisation]:
        """All organisations, oldest first."""
        return await self._call(_organisations)

    async def put_organisation(self, wanted: Organisation) -> None:
        """Add or move an organisation; the check and the change are one transaction."""

        def put(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                check_place(_organisations(connection), wanted)
                connection.execute(
                    "INSERT INTO organisations VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET parent = excluded.parent",
                    msgspec.structs.astuple(wanted),
                )

        await self._call(put)

    async def drop_organisation(self, name: str) -> bool:
        """Delete an organisation; the check and the change are one transaction."""

        def drop(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                inside = connection.execute("SELECT name FROM tenants WHERE organisation = ?", (name,)).fetchall()
                check_unused(_organisations(connection), name, [tenant for (tenant,) in inside])
                return connection.execute("DELETE FROM organisations WHERE name = ?", (name,)).rowcount > 0

        return await self._call(drop)

    async def secret(self, name: str, make: Callable[[], str]) -> str:
        """The secret of this name; the first process to ask makes it."""
        await self._query("INSERT INTO secrets VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, make()))
        ((value,),) = await self._query("SELECT value FROM secrets WHERE name = ?", (name,))
        return str(value)

    async def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    async def _query(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return await self._call(lambda connection: connection.execute(sql, parameters).fetchall())

    async def _call(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        if not self._migrated:
            await self._database.call(lambda connection: migrate(connection, SCHEMA))
            self._migrated = True
        return await self._database.call(work)


def _organisations(connection: sqlite3.Connection) -> list[Organisation]:
    rows = connection.execute("SELECT name, parent, created FROM organisations ORDER BY created, rowid")
    return [Organisation(name=name, parent=parent, created=created) for name, parent, created in rows]


def _record(row: tuple[Any, ...]) -> KeyRecord:
    return KeyRecord(**dict(zip(KeyRecord.__struct_fields__, row, strict=True)))


def _account(row: tuple[Any, ...]) -> Account:
    return Account(id=row[0], name=row[1], overrides=msgspec.json.decode(row[2]), created=row[3])
