"""What callers and operators see of the money of a call that several share: headers, usage, metrics."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import openai
import pytest

from tests.contract.house import House, Tenant
from tests.contract.sdk import ask

USERS = ("ann", "bob", "cid", "dan")


async def together(house: House, tenant: Tenant) -> list[dict[str, str]]:
    """The same question of four users at once; the headers of their answers."""

    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=tenant.key) as client:
        create = client.chat.completions.with_raw_response.create

        async def one(user: str) -> dict[str, str]:
            said = {"x-headgate-user": user}
            answer = await create(model="slow", messages=ask("Where do I find my bill?"), extra_headers=said)
            return dict(answer.headers.items())

        return await asyncio.gather(*map(one, USERS))


def usage(house: House, tenant: Tenant, *groups: str) -> Any:
    return house.request("GET", f"/v1/usage?group_by={','.join(groups)}", key=tenant.key).json


@pytest.mark.parametrize(("shares", "times"), [("leader", 1), ("split", 1), ("each", len(USERS))])
def test_what_headers_say_of_a_shared_call_is_what_usage_says(house: House, shares: str, times: int) -> None:
    tenant, before = house.tenant(policy={"shares": shares}), house.calls().calls
    told = asyncio.run(together(house, tenant))
    assert house.calls().calls == before + 1
    assert sorted(one["x-headgate-source"] for one in told) == ["coalesced"] * 3 + ["live"]
    report = usage(house, tenant, "user")
    cost, saved = (sum(Decimal(one[f"x-headgate-{name}-usd"]) for one in told) for name in ("cost", "saved"))
    total = report["total"]
    assert total["requests"] == len(USERS)
    assert (Decimal(total["cost_usd"]), Decimal(total["saved_usd"])) == (cost, saved)
    assert saved == 3 * cost
    assert Decimal(total["billed_usd"]) == times * cost
    billed = {row["user"]: Decimal(row["billed_usd"]) for row in report["data"]}
    assert sum(billed.values()) == times * cost
    if shares == "split":
        assert max(billed.values()) - min(billed.values()) < 4 * Decimal("0.000000001")
    if shares == "each":
        assert set(billed.values()) == {cost}


def test_flights_their_followers_and_what_they_spared_are_metrics(house: House, tenant: Tenant) -> None:
    names = (
        "headgate_flight_joins_total",
        "headgate_followers_per_flight_count",
        "headgate_followers_per_flight_sum",
        "headgate_saved_tokens_total",
    )
    before = {name: house.metric(name) for name in names}
    asyncio.run(together(house, tenant))
    joins, flights, joined, tokens = (house.metric(name) - before[name] for name in names)
    assert (joins, flights, joined) == (3, 1, 3)
    row = next(row for row in usage(house, tenant, "source")["data"] if row["source"] == "coalesced")
    assert tokens == row["prompt_tokens"] + row["completion_tokens"] > 0


def test_a_tenant_that_shares_nothing_makes_every_call(house: House) -> None:
    tenant, before = house.tenant(policy={"coalesce": "off"}), house.calls().calls
    told = asyncio.run(together(house, tenant))
    assert house.calls().calls == before + len(USERS)
    assert {one["x-headgate-source"] for one in told} == {"live"}
