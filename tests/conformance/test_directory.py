"""What every Directory must do. To check your own: subclass DirectoryConformance and give it a `directory` fixture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from headgate.model.errors import Conflict, InvalidRequest, NotFound
from headgate.model.tenancy import KeyRecord, Policy
from headgate.storage.postgres import Postgres
from headgate.storage.sqlite import connect, migrate
from headgate.tenants.memory import MemoryDirectory
from headgate.tenants.organisations import Organisation
from headgate.tenants.postgres import SCHEMA as POSTGRES_SCHEMA
from headgate.tenants.postgres import PostgresDirectory
from headgate.tenants.sqlite import SCHEMA, SqliteDirectory
from headgate.tenants.tenants import Account, Directory, Tenants

ACME = Account(id="t_1", name="acme", overrides={"rpm": 5, "tpm": 2**52, "prefer": ["a", "b"]}, created=1.5)
ADMIN = KeyRecord(id="key_a", tenant="t_1", digest="da", role="admin", created=2.0)
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

    async def test_an_admin_key_is_the_first_until_it_is_revoked(self, directory: Directory) -> None:
        with pytest.raises(NotFound):
            await directory.put_first_admin(ADMIN)
        await directory.put_account(ACME)
        await directory.put_key(KEY)
        assert await directory.put_first_admin(ADMIN)
        second = msgspec.structs.replace(ADMIN, id="key_b", digest="db", created=3.0)
        assert not await directory.put_first_admin(second)
        assert await directory.keys() == [KEY, ADMIN]
        await directory.put_key(msgspec.structs.replace(ADMIN, revoked=4.0))
        assert await directory.put_first_admin(second)

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


async def one_makes_the_admin_key(*directories: Directory) -> None:
    """Processes that start together on an empty store."""
    starting = [Tenants(directory, defaults=Policy()) for directory in directories]
    (key,) = [key for key in await asyncio.gather(*(each.ensure_admin() for each in starting)) if key is not None]
    for each in starting:
        assert (await each.authenticate(key)).role == "admin"
    assert len(await directories[0].keys()) == 1
    assert [await each.ensure_admin() for each in starting] == [None] * len(starting)


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

    async def test_of_processes_that_start_together_one_makes_the_admin_key(self, tmp_path: Path) -> None:
        directories = [SqliteDirectory(tmp_path / "tenants.db") for _ in range(4)]
        await one_makes_the_admin_key(*directories)
        for each in directories:
            await each.close()

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


@asynccontextmanager
async def prepared(url: str) -> AsyncIterator[PostgresDirectory]:
    """A process' directory in a database that has the tables."""
    postgres = Postgres(url, pool=4)
    await postgres.migrate({"tenants": POSTGRES_SCHEMA})
    yield PostgresDirectory(postgres)
    await postgres.close()


class TestPostgresDirectory(DirectoryConformance):
    @pytest.fixture(params=["postgres", "pgbouncer"])
    async def directory(self, request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Directory]:
        through = request.param == "pgbouncer"
        async with prepared(
            request.getfixturevalue("pgbouncer").through(database_url) if through else database_url
        ) as one:
            yield one

    async def test_many_processes_cannot_make_a_circle_together(self, database_url: str) -> None:
        """Each of the moves is sound; the one that would close the circle is refused, whichever it is."""
        async with prepared(database_url) as one, prepared(database_url) as other:
            names = ["a", "b", "c", "d"]
            for name in names:
                await one.put_organisation(Organisation(name=name))
            moves = [
                directory.put_organisation(Organisation(name=name, parent=above))
                for name, above, directory in zip(names, names[1:] + names[:1], [one, other] * 2, strict=True)
            ]
            outcomes = await asyncio.gather(*moves, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes].count(Conflict) == 1
            assert outcomes.count(None) == 3

    async def test_of_processes_that_start_together_one_makes_the_admin_key(self, database_url: str) -> None:
        async with prepared(database_url) as one, prepared(database_url) as other:
            await one_makes_the_admin_key(one, other, one, other)

    async def test_an_organisation_goes_or_a_tenant_comes_into_it(self, database_url: str) -> None:
        async with prepared(database_url) as one, prepared(database_url) as other:
            for number in range(10):
                name = f"north{number}"
                await one.put_organisation(Organisation(name=name))
                member = Account(id=name, name=name, overrides={"organisation": name})
                went, came = await asyncio.gather(
                    one.drop_organisation(name), other.put_account(member), return_exceptions=True
                )
                assert (went is True and isinstance(came, NotFound)) or (isinstance(went, Conflict) and came is None)

    async def test_of_two_processes_that_make_a_secret_both_have_the_same(self, database_url: str) -> None:
        async with prepared(database_url) as one, prepared(database_url) as other:
            made = await asyncio.gather(
                *(directory.secret("pepper", lambda n=n: f"{n}") for n, directory in enumerate([one, other] * 4))
            )
            assert len(set(made)) == 1

    @pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
    async def test_text_that_a_database_does_not_keep_is_refused_and_breaks_nothing(
        self, directory: Directory, text: str
    ) -> None:
        with pytest.raises(InvalidRequest):
            await directory.account(text)
        await directory.put_account(ACME)
        with pytest.raises(InvalidRequest):
            await directory.put_key(KeyRecord(id="key_1", tenant="t_1", digest="d1", user=text))
        assert await directory.keys() == []
