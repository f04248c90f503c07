"""MemoryDirectory: the reference implementation."""

from __future__ import annotations

from collections.abc import Callable

from headgate.model.errors import Conflict, NotFound
from headgate.model.tenancy import KeyRecord
from headgate.tenants.organisations import Organisation, check_place, check_unused, no_organisation
from headgate.tenants.tenants import Account


class MemoryDirectory:
    """Tenants, keys and organisations in this process's memory."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._keys: dict[str, KeyRecord] = {}
        self._organisations: dict[str, Organisation] = {}
        self._secrets: dict[str, str] = {}

    async def find(self, digest: str) -> tuple[KeyRecord, Account] | None:
        """The key with this digest, and its tenant."""
        for record in self._keys.values():
            if record.digest == digest:
                return record, self._accounts[record.tenant]
        return None

    async def accounts(self) -> list[Account]:
        """All tenants, oldest first."""
        return list(self._accounts.values())

    async def account(self, id: str) -> Account | None:
        """The tenant of this id."""
        return self._accounts.get(id)

    async def put_account(self, account: Account) -> None:
        """Add or replace a tenant."""
        if any(other.name == account.name and other.id != account.id for other in self._accounts.values()):
            raise Conflict(f"There is a tenant named {account.name!r} already.")
        organisation = account.overrides.get("organisation")
        if organisation is not None and organisation not in self._organisations:
            raise no_organisation(organisation, param="organisation")
        self._accounts[account.id] = account

    async def drop_account(self, id: str) -> bool:
        """Delete a tenant and its keys."""
        self._keys = {key: record for key, record in self._keys.items() if record.tenant != id}
        return self._accounts.pop(id, None) is not None

    async def keys(self) -> list[KeyRecord]:
        """All keys, oldest first."""
        return list(self._keys.values())

    async def put_key(self, record: KeyRecord) -> None:
        """Add or replace a key."""
        if record.tenant not in self._accounts:
            raise NotFound(f"There is no tenant {record.tenant!r}.")
        if any(other.digest == record.digest and other.id != record.id for other in self._keys.values()):
            raise Conflict("This key exists already.")
        self._keys[record.id] = record

    async def put_first_admin(self, record: KeyRecord) -> bool:
        """Add an admin key unless there is one that was not revoked."""
        if any(other.role == "admin" and other.revoked is None for other in self._keys.values()):
            return False
        await self.put_key(record)
        return True

    async def organisations(self) -> list[Organisation]:
        """All organisations, oldest first."""
        return list(self._organisations.values())

    async def put_organisation(self, wanted: Organisation) -> None:
        """Add or move an organisation."""
        check_place(self._organisations.values(), wanted)
        self._organisations[wanted.name] = wanted

    async def drop_organisation(self, name: str) -> bool:
        """Delete an organisation."""
        inside = [one.name for one in self._accounts.values() if one.overrides.get("organisation") == name]
        check_unused(self._organisations.values(), name, inside)
        return self._organisations.pop(name, None) is not None

    async def secret(self, name: str, make: Callable[[], str]) -> str:
        """The secret of this name, made when it is asked for first."""
        return self._secrets.setdefault(name, make())

    async def close(self) -> None:
        """Nothing to let go of."""
