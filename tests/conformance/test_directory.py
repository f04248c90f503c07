"""What every Directory must do. To check your own: subclass DirectoryConformance and give it a `directory` fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headgate.model.errors import Conflict, NotFound
from headgate.model.tenancy import KeyRecord
from headgate.tenants.memory import MemoryDirectory
from headgate.tenants.sqlite import SqliteDirectory
from headgate.tenants.tenants import Account, Directory

ACME = Account(id="t_1", name="acme", overrides={"rpm": 5, "caps": {"hour": 2**62, "day": None}}, created=1.5)
KEY = KeyRecord(id="key_1", tenant="t_1", digest="d1", role="tenant_admin", user="ann", expires=9.0, created=2.0)


class DirectoryConformance:
    """The guarantees in the docstring of Directory, each as a test."""

    async def test_what_is_put_is_found_by_its_digest(self, directory: Directory) -> None:
        await directory.put_account(ACME)
        await directory.put_key(KEY)
        assert await directory.find("d1") == (KEY, ACME)
        assert await directory.find("d2") is None

    async def test_putting_again_replaces(self, directory: Directory) -> None:
        await directory.put_account(ACME)
        await directory.put_key(KEY)
        renamed = Account(id="t_1", name="acme two", created=1.5)
        revoked = KeyRecord(id="key_1", tenant="t_1", digest="d1", revoked=3.0, created=2.0)
        await directory.put_account(renamed)
        await directory.put_key(revoked)
        assert await directory.find("d1") == (revoked, renamed)
        assert await directory.accounts() == [renamed]

    async def test_tenants_and_keys_are_listed_oldest_first(self, directory: Directory) -> None:
        names = ["b", "a", "c"]
        for number, name in enumerate(names):
            await directory.put_account(Account(id=name, name=name, created=float(number)))
            await directory.put_key(KeyRecord(id=f"k{name}", tenant=name, digest=name, created=float(number)))
        assert [account.id for account in await directory.accounts()] == names
        assert [record.tenant for record in await directory.keys()] == names

    async def test_two_tenants_cannot_have_one_name(self, directory: Directory) -> None:
        await directory.put_account(ACME)
        with pytest.raises(Conflict):
            await directory.put_account(Account(id="t_2", name="acme"))

    async def test_a_key_needs_a_tenant(self, directory: Directory) -> None:
        with pytest.raises(NotFound):
            await directory.put_key(KEY)

    async def test_two_keys_cannot_have_one_digest(self, directory: Directory) -> None:
        await directory.put_account(ACME)
        await directory.put_key(KEY)
        with pytest.raises(Conflict):
            await directory.put_key(KeyRecord(id="key_2", tenant="t_1", digest="d1"))

    async def test_a_deleted_tenant_takes_its_keys_along(self, directory: Directory) -> None:
        await directory.put_account(ACME)
        await directory.put_key(KEY)
        assert await directory.drop_account("t_1")
        assert await directory.find("d1") is None
        assert await directory.keys() == []
        assert not await directory.drop_account("t_1")

    async def test_a_secret_is_made_once(self, directory: Directory) -> None:
        assert await directory.secret("pepper", lambda: "one") == "one"
        assert await directory.secret("pepper", lambda: "two") == "one"
        assert await directory.secret("other", lambda: "three") == "three"


class TestMemoryDirectory(DirectoryConformance):
    @pytest.fixture
    def directory(self) -> Directory:
        return MemoryDirectory()


class TestSqliteDirectory(DirectoryConformance):
    @pytest.fixture
    async def directory(self, tmp_path: Path) -> AsyncIterator[Directory]:
        directory = SqliteDirectory(tmp_path / "tenants.db")
        yield directory
        await directory.close()
