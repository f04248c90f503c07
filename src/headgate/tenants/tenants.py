"""Tenants: who is calling, and what may they do?

Keys are random and are stored as keyed BLAKE2b (RFC 7693) under a secret, the pepper, so a stolen database opens no door unless the pepper
is stolen with it; a slow hash would buy nothing against 256 random bits and cost every request its time.

Invariant: no key is ever stored or logged, and one that was revoked, has expired or was deleted opens nothing later than two
seconds after, whichever process did it, nor, while the directory cannot be asked, an hour after (known.py).
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from headgate.model.errors import Conflict, InvalidRequest, NotFound, Unauthenticated
from headgate.model.tenancy import DEFAULT_TENANT, KeyRecord, KeyRole, Policy, Principal, Tenant
from headgate.tenants.known import FRESH_SECONDS, Known, KnownKeys
from headgate.tenants.names import checked_name
from headgate.tenants.organisations import Organisation, Organisations
from headgate.tenants.overrides import merged, with_defaults

ENVIRONMENTS_KEY = "key_admin"
"""The id of the key in HEADGATE_ADMIN_KEY, which no directory holds."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as it is stored: `overrides` are the fields of its policy that differ from the defaults."""

    id: str
    name: str
    overrides: dict[str, Any] = {}
    created: float = 0.0


class Directory(Protocol):
    """Where tenants, keys and organisations are kept. Every method may wait; changes of other processes are seen at once.

    Guarantees: names of tenants and digests of keys are unique; a deleted tenant's keys are gone with it; every organisation that
    a tenant or another organisation names exists, and none lies in itself.
    """

    async def find(self, digest: str) -> tuple[KeyRecord, Account] | None:
        """The key with this digest, and its tenant."""
        ...

    async def accounts(self) -> list[Account]:
        """All tenants, oldest first."""
        ...

    async def account(self, id: str) -> Account | None:
        """The tenant of this id."""
        ...

    async def put_account(self, account: Account) -> None:
        """Add a tenant, or replace the one of the same id.

        Raises Conflict when another one has the name, NotFound when its organisation does not exist.
        """
        ...

    async def drop_account(self, id: str) -> bool:
        """Delete a tenant and its keys; False when there is none."""
        ...

    async def keys(self) -> list[KeyRecord]:
        """All keys, revoked ones too, oldest first."""
        ...

    async def put_key(self, record: KeyRecord) -> None:
        """Add a key, or replace the one of the same id. Raises NotFound when its tenant does not exist."""
        ...

    async def put_first_admin(self, record: KeyRecord) -> bool:
        """Add an admin key unless there is one that was not revoked; whether it was added. Of many who do so at once, one does.

        Raises NotFound when its tenant does not exist.
        """
        ...

    async def organisations(self) -> list[Organisation]:
        """All organisations, oldest first."""
        ...

    async def put_organisation(self, wanted: Organisation) -> None:
        """Add an organisation, or move the one of the same name. Raises as `check_place`."""
        ...

    async def drop_organisation(self, name: str) -> bool:
        """Delete an organisation; False when there is none. Raises as `check_unused`."""
        ...

    async def secret(self, name: str, make: Callable[[], str]) -> str:
        """The secret of this name; made once, whoever asks first, and the same for all ever after."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...


class IssuedKey(msgspec.Struct, frozen=True):
    """A new key: its record, and the key itself, which is shown this once."""

    record: KeyRecord
    key: str


class Tenants:
    """Tells who a key belongs to, and manages tenants and keys. Call `ensure_admin` once before serving."""

    def __init__(
        self,
        directory: Directory,
        *,
        defaults: Policy,
        pepper: str | None = None,
        admin_key: str | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], str] = secrets.token_urlsafe,
    ) -> None:
        """`defaults` is the policy of tenants that say nothing else.

        pepper     the secret that keys are digested with; without one the directory keeps one
        admin_key  the admin's key; without one it is made at the first start
        random     a url-safe text of that many random bytes
        """
        self._directory = directory
        self._defaults = defaults
        self._pepper = None if pepper is None else pepper.encode()
        self._admin_key = admin_key
        self._now = now
        self._monotonic = monotonic
        self._random = random
        self._known = KnownKeys(self._found, monotonic)
        self._zones: dict[str, str] = {}
        self._zones_until = -math.inf
        self.organisations = Organisations(directory, changed=self._forget, now=now)

    async def authenticate(self, key: str) -> Principal:
        """Who this key belongs to. Raises Unauthenticated, and Overloaded when that is not known and the directory cannot be asked."""
        if not key:
            raise Unauthenticated("No API key. Send it as `Authorization: Bearer hg-...` or `x-api-key`.")
        pepper = self._pepper or await self._load_pepper()
        known = await self._known.of(_digest(pepper, key))
        if known is None:
            raise Unauthenticated("The API key is not valid.")
        if known.expires is not None and known.expires <= self._now():
            raise Unauthenticated("The API key has expired.")
        return known.principal

    async def ensure_admin(self) -> str | None:
        """Make sure that the default tenant and an admin key exist; the key when it was made just now, else None. Of processes that start
        together, one makes it."""
        await self._load_pepper()
        accounts = await self._directory.accounts()
        if all(account.id != DEFAULT_TENANT for account in accounts):
            await self._directory.put_account(Account(id=DEFAULT_TENANT, name=DEFAULT_TENANT, created=self._now()))
        if self._admin_key is not None:
            return None
        issued = await self._issued(tenant=DEFAULT_TENANT, name="admin", role="admin")
        return issued.key if await self._directory.put_first_admin(issued.record) else None

    async def create(
        self,
        name: str,
        *,
        policy: dict[str, Any] | None = None,
        prepare: Callable[[str], Awaitable[None]] | None = None,
    ) -> Tenant:
        """A new tenant. `policy` holds the fields that differ from the defaults.

        `prepare` is called with its id before it exists: what limits it is there first, and if that fails, there is no tenant.
        Raises InvalidRequest for a bad name or field, Conflict when the name is taken, NotFound for the organisation.
        """
        overrides = merged({}, policy or {}, self._defaults)
        account = Account(id=f"t_{self._random(9)}", name=checked_name(name), overrides=overrides, created=self._now())
        await self._refuse_misplaced(account)
        if prepare is not None:
            await prepare(account.id)
        await self._directory.put_account(account)
        self._zones_until = -math.inf
        return self._tenant(account)

    async def update(self, id: str, *, name: str | None = None, policy: dict[str, Any] | None = None) -> Tenant:
        """Change a tenant's name, or fields of its policy; a field given as None falls back to the default.

        Raises NotFound, also for the organisation, InvalidRequest, Conflict.
        """
        account = await self._account(id)
        overrides = merged(account.overrides, policy or {}, self._defaults)
        renamed = account.name if name is None else checked_name(name)
        account = msgspec.structs.replace(account, name=renamed, overrides=overrides)
        await self._refuse_misplaced(account)
        await self._directory.put_account(account)
        self._forget()
        return self._tenant(account)

    async def get(self, id: str) -> Tenant:
        """The tenant of this id. Raises NotFound."""
        return self._tenant(await self._account(id))

    async def called(self, wanted: str) -> Tenant:
        """The tenant with this id, else the one with this name. Raises NotFound, naming one that is nearly so called."""
        known = await self._directory.accounts()
        for one in (*(each for each in known if each.id == wanted), *(each for each in known if each.name == wanted)):
            return self._tenant(one)
        near = difflib.get_close_matches(wanted, [each.name for each in known], n=1)
        raise NotFound(f"There is no tenant {wanted!r}" + (f"; did you mean {near[0]}?" if near else "."))

    async def list_tenants(self) -> list[Tenant]:
        """All tenants, oldest first."""
        return [self._tenant(account) for account in await self._directory.accounts()]

    async def zone(self, tenant: str) -> str:
        """The time zone of a tenant's windows; the default for one there is not. Asked many times at once, the directory is asked once."""
        at = self._monotonic()
        if self._zones_until <= at:
            accounts = await self._directory.accounts()
            self._zones = {one.id: one.overrides["zone"] for one in accounts if "zone" in one.overrides}
            self._zones_until = at + FRESH_SECONDS
        return self._zones.get(tenant, self._defaults.zone)

    async def members(self, organisation: str) -> tuple[str, ...]:
        """The ids of the tenants that belong to an organisation, or to one beneath it."""
        inside = await self.organisations.beneath(organisation)
        return tuple(one.id for one in await self.list_tenants() if one.policy.organisation in inside)

    async def delete(self, id: str) -> None:
        """Delete a tenant and its keys; the journal keeps its rows. Raises NotFound, Conflict for the default tenant."""
        if id == DEFAULT_TENANT:
            raise Conflict("The default tenant always exists; it cannot be deleted.")
        if not await self._directory.drop_account(id):
            raise _no_tenant(id)
        self._forget()

    async def create_key(
        self,
        tenant: str,
        *,
        name: str | None = None,
        role: KeyRole = "caller",
        user: str | None = None,
        expires: float | None = None,
    ) -> IssuedKey:
        """A new key; `expires` in unix seconds. Raises NotFound, InvalidRequest."""
        await self._account(tenant)
        if role not in ("admin", "tenant_admin", "caller"):
            raise InvalidRequest("`role` must be admin, tenant_admin or caller.", param="role")
        if role == "admin" and tenant != DEFAULT_TENANT:
            raise InvalidRequest("An admin key belongs to the tenant `default`.", param="role")
        called = None if name is None else checked_name(name)
        issued = await self._issued(tenant=tenant, name=called, role=role, user=user, expires=expires)
        await self._directory.put_key(issued.record)
        return issued

    async def list_keys(self, tenant: str | None = None) -> list[KeyRecord]:
        """The keys of a tenant, or all, oldest first."""
        return [record for record in await self._directory.keys() if tenant in (None, record.tenant)]

    async def revoke_key(self, id: str) -> KeyRecord:
        """Revoke a key for good; again changes nothing. Raises NotFound."""
        record = await self._record(id)
        if record.revoked is None:
            record = msgspec.structs.replace(record, revoked=self._now())
            await self._directory.put_key(record)
            self._forget()
        return record

    async def rotate_key(self, id: str, *, grace: float = 0.0) -> IssuedKey:
        """A new key like this one, which itself stops working after `grace` seconds. Raises NotFound, Conflict."""
        old = await self._record(id)
        if old.revoked is not None:
            raise Conflict(f"The key {id} is revoked; make a new one.")
        issued = await self.create_key(old.tenant, name=old.name, role=old.role, user=old.user, expires=old.expires)
        ends = self._now() + grace
        ends = ends if old.expires is None else min(ends, old.expires)
        await self._directory.put_key(msgspec.structs.replace(old, expires=ends))
        self._forget()
        return issued

    async def close(self) -> None:
        """Let go of the directory."""
        await self._directory.close()

    async def _found(self, digest: str) -> Known | None:
        if self._admin_key is not None and hmac.compare_digest(digest, _digest(self._pepper or b"", self._admin_key)):
            account = await self._account(DEFAULT_TENANT)
            return Known(await self._principal(account, key=ENVIRONMENTS_KEY, role="admin"), None)
        found = await self._directory.find(digest)
        if found is None or not hmac.compare_digest(found[0].digest, digest) or found[0].revoked is not None:
            return None
        record, account = found
        principal = await self._principal(account, key=record.id, role=record.role, user=record.user)
        return Known(principal, record.expires)

    async def _principal(self, account: Account, *, key: str, role: KeyRole, user: str | None = None) -> Principal:
        policy = with_defaults(account.overrides, self._defaults)
        above = await self.organisations.lineage(policy.organisation)
        return Principal(tenant=account.id, organisations=above, policy=policy, key=key, role=role, user=user)

    def _forget(self) -> None:
        self._zones_until = -math.inf
        self._known.forget()

    def _tenant(self, account: Account) -> Tenant:
        policy = with_defaults(account.overrides, self._defaults)
        return Tenant(id=account.id, name=account.name, policy=policy, created=account.created)

    async def _account(self, id: str) -> Account:
        account = await self._directory.account(id)
        if account is None:
            raise _no_tenant(id)
        return account

    async def _record(self, id: str) -> KeyRecord:
        for record in await self._directory.keys():
            if record.id == id:
                return record
        raise NotFound(f"There is no key {id!r}.")

    async def _refuse_misplaced(self, wanted: Account) -> None:
        for account in await self._directory.accounts():
            if account.name == wanted.name and account.id != wanted.id:
                raise Conflict(f"There is a tenant named {wanted.name!r} already.")
        organisation = wanted.overrides.get("organisation")
        if organisation is not None:
            await self.organisations.called(organisation, param="organisation")

    async def _issued(self, **fields: Any) -> IssuedKey:
        """A key that is in no directory yet; `fields` are those of its record that are chosen."""
        key = f"hg-{self._random(32)}"
        digest = _digest(self._pepper or await self._load_pepper(), key)
        return IssuedKey(KeyRecord(id=f"key_{self._random(9)}", digest=digest, created=self._now(), **fields), key)

    async def _load_pepper(self) -> bytes:
        if self._pepper is None:
            self._pepper = (await self._directory.secret("pepper", lambda: self._random(32))).encode()
        return self._pepper


def _digest(pepper: bytes, key: str) -> str:
    return hashlib.blake2b(key.encode("utf-8", "replace"), key=pepper[:64], digest_size=32).hexdigest()


def _no_tenant(id: str) -> NotFound:
    return NotFound(f"There is no tenant {id!r}.")
