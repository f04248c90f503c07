"""PostgresDirectory: tenants, keys and organisations in a database that several processes read and change.

Names, digests and who belongs where are the database's own constraints. That no organisation lies in itself is checked under a lock on the
table, which is held until the change is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import msgspec
from psycopg import errors

from headgate.model.errors import Conflict, InvalidRequest, NotFound
from headgate.model.tenancy import KeyRecord
from headgate.storage.postgres import Connection, Postgres, Row, Step
from headgate.tenants.organisations import Organisation, check_place, check_unused, no_organisation
from headgate.tenants.tenants import Account

SCHEMA: tuple[Step, ...] = (
    (
        """CREATE TABLE headgate_organisations (
            name text PRIMARY KEY, parent text REFERENCES headgate_organisations, created float8 NOT NULL,
            number bigint GENERATED ALWAYS AS IDENTITY
        )""",
        """CREATE TABLE headgate_tenants (
            id text PRIMARY KEY, name text NOT NULL UNIQUE, overrides text NOT NULL, created float8 NOT NULL,
            organisation text REFERENCES headgate_organisations, number bigint GENERATED ALWAYS AS IDENTITY
        )""",
        "CREATE INDEX headgate_tenants_by_organisation ON headgate_tenants (organisation)",
        """CREATE TABLE headgate_keys (
            id text PRIMARY KEY, tenant text NOT NULL REFERENCES headgate_tenants ON DELETE CASCADE,
            digest text NOT NULL UNIQUE, role text NOT NULL, name text, "user" text, expires float8, revoked float8,
            created float8 NOT NULL, number bigint GENERATED ALWAYS AS IDENTITY
        )""",
        "CREATE INDEX headgate_keys_by_tenant ON headgate_keys (tenant)",
        "CREATE TABLE headgate_secrets (name text PRIMARY KEY, value text NOT NULL)",
    ),
)

_KEY = 'k.id, k.tenant, k.digest, k.role, k.name, k."user", k.expires, k.revoked, k.created'
_ACCOUNT = "t.id, t.name, t.overrides, t.created"
_PUT_KEY = (
    'INSERT INTO headgate_keys (id, tenant, digest, role, name, "user", expires, revoked, created)'
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
)


class PostgresDirectory:
    """A Directory in one database, of which each process has its own connections."""

    def __init__(self, postgres: Postgres) -> None:
        """The connections are closed by whoever opened them."""
        self._postgres = postgres

    async def find(self, digest: str) -> tuple[KeyRecord, Account] | None:
        """The key with this digest, and its tenant."""
        sql = f"SELECT {_KEY}, {_ACCOUNT} FROM headgate_keys k JOIN headgate_tenants t ON t.id = k.tenant WHERE k.digest = %s"
        rows = await self._query(sql, (digest,))
        return (_record(rows[0][:9]), _account(rows[0][9:])) if rows else None

    async def accounts(self) -> list[Account]:
        """All tenants, oldest first."""
        rows = await self._query(f"SELECT {_ACCOUNT} FROM headgate_tenants t ORDER BY t.created, t.number")
        return [_account(row) for row in rows]

    async def account(self, id: str) -> Account | None:
        """The tenant of this id."""
        rows = await self._query(f"SELECT {_ACCOUNT} FROM headgate_tenants t WHERE t.id = %s", (id,))
        return _account(rows[0]) if rows else None

    async def put_account(self, account: Account) -> None:
        """Add or replace a tenant."""
        overrides = msgspec.json.encode(account.overrides).decode()
        organisation = account.overrides.get("organisation")
        try:
            await self._query(
                "INSERT INTO headgate_tenants (id, name, overrides, created, organisation) VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT (id) DO UPDATE SET name = excluded.name, overrides = excluded.overrides,"
                " organisation = excluded.organisation",
                (account.id, account.name, overrides, account.created, organisation),
            )
        except errors.ForeignKeyViolation:
            raise no_organisation(str(organisation), param="organisation") from None
        except errors.UniqueViolation:
            raise Conflict(f"There is a tenant named {account.name!r} already.") from None

    async def drop_account(self, id: str) -> bool:
        """Delete a tenant and its keys."""
        return bool(await self._query("DELETE FROM headgate_tenants WHERE id = %s RETURNING id", (id,)))

    async def keys(self) -> list[KeyRecord]:
        """All keys, oldest first."""
        rows = await self._query(f"SELECT {_KEY} FROM headgate_keys k ORDER BY k.created, k.number")
        return [_record(row) for row in rows]

    async def put_key(self, record: KeyRecord) -> None:
        """Add or replace a key."""
        try:
            await self._query(
                f"{_PUT_KEY} ON CONFLICT (id) DO UPDATE SET role = excluded.role, name = excluded.name,"
                ' "user" = excluded."user", expires = excluded.expires, revoked = excluded.revoked',
                msgspec.structs.astuple(record),
            )
        except errors.ForeignKeyViolation:
            raise NotFound(f"There is no tenant {record.tenant!r}.") from None
        except errors.UniqueViolation:
            raise Conflict("This key exists already.") from None

    async def put_first_admin(self, record: KeyRecord) -> bool:
        """Add an admin key unless there is one that was not revoked. Who comes second waits for the tenant, and looks after that."""
        async with self._postgres.transaction() as connection:
            cursor = await connection.execute(
                "SELECT id FROM headgate_tenants WHERE id = %s FOR UPDATE", (record.tenant,)
            )
            if await cursor.fetchone() is None:
                raise NotFound(f"There is no tenant {record.tenant!r}.")
            cursor = await connection.execute(
                "SELECT id FROM headgate_keys WHERE role = 'admin' AND revoked IS NULL LIMIT 1"
            )
            if await cursor.fetchone() is not None:
                return False
            await connection.execute(_PUT_KEY, msgspec.structs.astuple(record))
        return True

    async def organisations(self) -> list[Organisation]:
        """All organisations, oldest first."""
        async with self._postgres.connection() as connection:
            return await _organisations(connection)

    async def put_organisation(self, wanted: Organisation) -> None:
        """Add or move an organisation."""
        async with self._changing_organisations() as connection:
            check_place(await _organisations(connection), wanted)
            await connection.execute(
                "INSERT INTO headgate_organisations (name, parent, created) VALUES (%s, %s, %s)"
                " ON CONFLICT (name) DO UPDATE SET parent = excluded.parent",
                msgspec.structs.astuple(wanted),
            )

    async def drop_organisation(self, name: str) -> bool:
        """Delete an organisation."""
        try:
            return await self._drop_organisation(name)
        except errors.ForeignKeyViolation:
            # A tenant came into it after the look; now it is seen.
            return await self._drop_organisation(name)

    async def _drop_organisation(self, name: str) -> bool:
        async with self._changing_organisations() as connection:
            cursor = await connection.execute("SELECT name FROM headgate_tenants WHERE organisation = %s", (name,))
            inside = [tenant for (tenant,) in await cursor.fetchall()]
            check_unused(await _organisations(connection), name, inside)
            cursor = await connection.execute("DELETE FROM headgate_organisations WHERE name = %s", (name,))
            return cursor.rowcount > 0

    async def secret(self, name: str, make: Callable[[], str]) -> str:
        """The secret of this name; the first process to ask makes it."""
        await self._query("INSERT INTO headgate_secrets VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, make()))
        ((value,),) = await self._query("SELECT value FROM headgate_secrets WHERE name = %s", (name,))
        return str(value)

    async def close(self) -> None:
        """Nothing of its own to let go of."""

    async def _query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with _readable():
            return await self._postgres.query(sql, parameters)

    @contextlib.asynccontextmanager
    async def _changing_organisations(self) -> AsyncIterator[Connection]:
        """A transaction in which nobody else changes organisations; who reads them does not wait."""
        with _readable():
            async with self._postgres.transaction() as connection:
                await connection.execute("LOCK TABLE headgate_organisations IN SHARE ROW EXCLUSIVE MODE")
                yield connection


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Raises InvalidRequest for text that PostgreSQL does not keep: with a NUL in it, or half a character."""
    try:
        yield
    except (errors.DataError, UnicodeEncodeError):
        raise InvalidRequest("A text must hold no NUL character, and whole characters only.") from None


async def _organisations(connection: Connection) -> list[Organisation]:
    cursor = await connection.execute(
        "SELECT name, parent, created FROM headgate_organisations ORDER BY created, number"
    )
    return [
        Organisation(name=name, parent=parent, created=created) for name, parent, created in await cursor.fetchall()
    ]


def _record(row: Row) -> KeyRecord:
    return KeyRecord(**dict(zip(KeyRecord.__struct_fields__, row, strict=True)))


def _account(row: Row) -> Account:
    return Account(id=row[0], name=row[1], overrides=msgspec.json.decode(row[2]), created=row[3])
