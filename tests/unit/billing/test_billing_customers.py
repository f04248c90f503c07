"""What tenants are called by whoever bills them, and how often the directory is asked."""

from __future__ import annotations

from headgate.fittings_billing import FRESH_SECONDS, KNOWN_SECONDS, customers_of
from headgate.model.tenancy import Policy
from headgate.tenants.memory import MemoryDirectory
from headgate.tenants.tenants import Account, Tenants


class CountingDirectory(MemoryDirectory):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def account(self, id: str) -> Account | None:
        self.asked += 1
        return await super().account(id)

    async def accounts(self) -> list[Account]:
        raise AssertionError("all tenants were read for one")


async def test_a_name_is_asked_for_again_soon_when_there_is_none_and_later_when_there_is() -> None:
    directory, now = CountingDirectory(), [0.0]
    customer = customers_of(Tenants(directory, defaults=Policy()), monotonic=lambda: now[0])
    await directory.put_account(Account(id="t_1", name="acme"))
    assert (await customer("t_1"), await customer("t_1"), directory.asked) == (None, None, 1)
    await directory.put_account(Account(id="t_1", name="acme", overrides={"customer": "cus_1"}))
    now[0] += FRESH_SECONDS
    assert (await customer("t_1"), await customer("t_1"), directory.asked) == ("cus_1", "cus_1", 2)
    await directory.put_account(Account(id="t_1", name="acme", overrides={"customer": "cus_2"}))
    now[0] += KNOWN_SECONDS - 0.1
    assert (await customer("t_1"), directory.asked) == ("cus_1", 2)
    now[0] += 0.1
    assert (await customer("t_1"), directory.asked) == ("cus_2", 3)


async def test_a_tenant_that_was_deleted_is_called_as_it_was_last() -> None:
    directory, now = CountingDirectory(), [0.0]
    customer = customers_of(Tenants(directory, defaults=Policy()), monotonic=lambda: now[0])
    await directory.put_account(Account(id="t_1", name="acme", overrides={"customer": "cus_1"}))
    assert await customer("t_1") == "cus_1"
    await directory.drop_account("t_1")
    now[0] += KNOWN_SECONDS
    assert await customer("t_1") == "cus_1"
    assert await customer("t_2") is None
