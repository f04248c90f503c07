"""What every Directory must do. To check your own: subclass DirectoryConformance and give it a `directory` fixture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headgate.model.errors import Conflict, NotFound
from headgate.model.tenancy import KeyRecord
from headgate.storage.sqlite import connect, migrate
from headgate.tenants.memory import MemoryDirectory
from headgate.tenants.organisations import Organisation
from headgate.tenants.sqlite import SCHEMA, SqliteDirectory
from headgate.tenants.tenants import Account, Directory

ACME = Account(id="t_1", name="acme", overrides={"rpm": 5, "tpm": 2**52, "prefer": ["a", "b"]}, created=1.5)
KEY = KeyRecord(id="key_1", tenant="t_1", digest="d1", role="tenant_admin", user="ann", expires=9.0, created=2.0)


class DirectoryConformance:
    """The guarantees in the docstring of Directory, each as a test."""

    async def test_what_is_put_is_found_by_its_digest(self, directory: Directory) -> None:
        await directory.put_account(ACME)
        await directory.put_key(KEY)
        assert await directory.find("d1") == (KEY, ACME)
        assert await directory.find("d2") is None

    async def test_a_tenant_is_found_by_its_id(self, directory: Directory) -> None:
        await directory.put_account(ACME)
        assert await directory.account("t_1") == ACME
        assert await directory.account("acme") is None

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

    async def test_organisations_are_kept_oldest_first_and_can_be_moved(self, directory: Directory) -> None:
        north, oslo = Organisation(name="north", created=1.0), Organisation(name="oslo", parent="north", created=2.0)
        await directory.put_organisation(north)
        await directory.put_organisation(oslo)
        assert await directory.organisations() == [north, oslo]
        moved = Organisation(name="oslo", created=2.0)
        await directory.put_organisation(moved)
        assert await directory.organisations() == [north, moved]
        assert await directory.drop_organisation("north")
        assert await directory.organisations() == [moved]
        assert not await directory.drop_organisation("north")

    async def test_no_organisation_lies_in_itself_at_any_depth(self, directory: Directory) -> None:
        for name, parent in (("a", None), ("b", "a"), ("c", "b")):
            await directory.put_organisation(Organisation(name=name, parent=parent))
        before = await directory.organisations()
        for name, parent in (("a", "a"), ("a", "b"), ("a", "c"), ("b", "c")):
            with pytest.raises(Conflict) as caught:
                await directory.put_organisation(Organisation(name=name, parent=parent))
            assert caught.value.param == "parent"
        assert await directory.organisations() == before

    async def test_a_parent_must_exist(self, directory: Directory) -> None:
        with pytest.raises(NotFound) as caught:
            await directory.put_organisation(Organisation(name="oslo", parent="north"))
        assert caught.value.param == "parent"
        assert await directory.organisations() == []

    async def test_a_tenants_organisation_must_exist(self, directory: Directory) -> None:
        member = Account(id="t_1", name="acme", overrides={"organisation": "north"})
        with pytest.raises(NotFound) as caught:
            await directory.put_account(member)
        assert caught.value.param == "organisation"
        await directory.put_organisation(Organisation(name="north"))
        await directory.put_account(member)
        with pytest.raises(NotFound):
            await directory.put_account(Account(id="t_1", name="acme", overrides={"organisation": "south"}))
        assert await directory.accounts() == [member]

    async def test_an_organisation_that_something_lies_in_stays(self, directory: Directory) -> None:
        await directory.put_organisation(Organisation(name="north"))
        await directory.put_organisation(Organisation(name="oslo", parent="north"))
        await directory.put_account(Account(id="t_1", name="acme", overrides={"organisation": "oslo"}))
        with pytest.raises(Conflict, match="organisation oslo"):
            await directory.drop_organisation("north")
        with pytest.raises(Conflict, match="tenant acme"):
            await directory.drop_organisation("oslo")
        await directory.put_account(Account(id="t_1", name="acme"))
        assert await directory.drop_organisation("oslo")
        assert await directory.drop_organisation("north")

    async def test_a_deleted_tenant_leaves_its_organisation(self, directory: Directory) -> None:
        await directory.put_organisation(Organisation(name="north"))
        await directory.put_account(Account(id="t_1", name="acme", overrides={"organisation": "north"}))
        await directory.drop_account("t_1")
        assert await directory.drop_organisation("north")

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

    async def test_two_processes_cannot_make_a_circle_together(self, tmp_path: Path) -> None:
        """Each of the two moves is sound; whichever comes second is refused."""
        one, other = SqliteDirectory(tmp_path / "tenants.db"), SqliteDirectory(tmp_path / "tenants.db")
        for name in ("a", "b"):
            await one.put_organisation(Organisation(name=name))
        moves = (
            one.put_organisation(Organisation(name="a", parent="b")),
            other.put_organisation(Organisation(name="b", parent="a")),
        )
        outcomes = await asyncio.gather(*moves, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(Conflict) == 1
        await one.close()
        await other.close()

    async def test_a_file_from_before_there_were_organisations_is_brought_up_to_date(self, tmp_path: Path) -> None:
        connection = connect(tmp_path / "tenants.db")
        migrate(connection, SCHEMA[:1])
        connection.execute("INSERT INTO tenants VALUES ('t_1', 'acme', '{\"rpm\":5}', 1.5)")
        connection.close()
        directory = SqliteDirectory(tmp_path / "tenants.db")
        assert await directory.accounts() == [Account(id="t_1", name="acme", overrides={"rpm": 5}, created=1.5)]
        await directory.put_organisation(Organisation(name="north"))
        await directory.put_account(Account(id="t_1", name="acme", overrides={"organisation": "north"}, created=1.5))
        with pytest.raises(Conflict):
            await directory.drop_organisation("north")
        await directory.close()
