"""One server for all contract tests; each test has a tenant of its own, so none sees another's answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import openai
import pytest

from tests.contract.house import ADMIN_KEY, House, Tenant, eventually, opened


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A running server with HEADGATE_ADMIN_KEY set."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HEADGATE_ADMIN_KEY", ADMIN_KEY)
        with opened(tmp_path_factory.mktemp("data")) as running:
            yield running


@pytest.fixture
def tenant(house: House) -> Tenant:
    """A tenant that nobody else has used."""
    return house.tenant()


@pytest.fixture
def client(house: House, tenant: Tenant) -> Iterator[openai.OpenAI]:
    """The official SDK with only the base URL and the key changed."""
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=tenant.key) as made:
        yield made


@pytest.fixture
def once(client: openai.OpenAI) -> openai.OpenAI:
    """The SDK without its retries."""
    return client.with_options(max_retries=0)


@pytest.fixture
async def later(house: House, tenant: Tenant) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK for asyncio."""
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=tenant.key) as made:
        yield made


@pytest.fixture
def unharmed(house: House) -> Iterator[None]:
    """A refused request leaves everything as it was, and the server goes on answering."""
    eventually(house.at_rest)
    before = house.standing()
    yield
    assert house.standing() == before
    assert house.request("GET", "/healthz").status == 200
