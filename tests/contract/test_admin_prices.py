"""`/admin/prices`: what models cost, changed while the server runs, and models whose price nobody knows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headgate.assembly import open_books, open_engine
from headgate.budget.budget import UsageQuery
from headgate.config import Config
from headgate.model.chat import ChatRequest
from headgate.model.errors import Unpriced
from headgate.model.money import Price, Rare, Usage, from_usd
from headgate.model.tenancy import Principal
from headgate.simulator.simulator import Running, Simulator
from tests.contract.house import House, Tenant, refused

PATH = "/admin/prices/sim/simulated-plain"


@pytest.fixture
def repriced(house: House) -> Iterator[House]:
    """The server, whose `plain` costs afterwards what it did before."""
    yield house
    house.request("DELETE", PATH)


def cost(house: House, tenant: Tenant, text: str) -> tuple[int, int]:
    """What one call to `plain` cost in nano-USD, and how many tokens it used."""
    body = {"model": "plain", "messages": [{"role": "user", "content": text}]}
    answer = house.request("POST", "/v1/chat/completions", body, key=tenant.key)
    assert answer.status == 200, answer.body
    return from_usd(answer.headers["x-headgate-cost-usd"]), answer.json["usage"]["total_tokens"]


def row(house: House, **query: str) -> Any:
    """The one price that a query finds."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    (found,) = house.request("GET", f"/admin/prices?{asked}").json["data"]
    return found


def test_every_model_is_listed_with_its_price_and_where_it_is_from(house: House) -> None:
    listed = house.request("GET", "/admin/prices").json
    names = {one["name"]: one for one in listed["data"]}
    assert {"small", "large", "plain", "claude"} <= names.keys()
    assert (listed["as_of"], len(listed["digest"]), listed["currency"]) == ("2026-08-21", 16, "USD")
    small = names["small"]
    assert (small["provider"], small["model"], small["origin"]) == ("sim", "simulated-small", "model")
    assert small["overridden"] is True
    assert small["prices"]["input"] == {"usd": "0.15", "fallback": False}


def test_a_kind_of_token_without_a_price_is_shown_at_the_plain_one_as_a_fallback(house: House) -> None:
    prices = row(house, model="small")["prices"]
    assert prices["cached_input"] == {"usd": "0.15", "fallback": True, "charged_as": "input"}
    assert prices["reasoning"] == {"usd": "0.60", "fallback": True, "charged_as": "output"}
    assert prices["audio_input"]["fallback"]
    assert prices["image_output"]["fallback"]


def test_a_model_of_the_table_can_be_looked_up_though_nobody_can_call_it(house: House) -> None:
    found = row(house, provider="anthropic", model="claude-sonnet-4-5")
    assert (found["origin"], found["overridden"], found["search_usd"]) == ("table", False, "0.01")
    assert found["prices"]["cache_write_hour"] == {"usd": "6.00", "fallback": False}
    assert [tier["above"] for tier in found["tiers"]] == [200_000]
    daily = row(house, provider="deepseek", model="deepseek-chat")
    assert [(one["from"], one["to"]) for one in daily["periods"]] == [("00:30Z", "16:30Z")]
    unknown = row(house, provider="openai", model="gpt-9-imaginary")
    assert (unknown["prices"], unknown["origin"]) == (None, None)


def test_a_changed_price_is_that_of_the_next_call_and_can_be_taken_back(repriced: House, tenant: Tenant) -> None:
    digest = repriced.request("GET", "/admin/prices").json["digest"]
    before, _ = cost(repriced, tenant, "before")
    body = {"input": "1000", "output": 1000, "call": 0.25}
    put = repriced.request("PUT", PATH, body)
    assert put.status == 200, put.body
    assert (put.json["origin"], put.json["name"], put.json["call_usd"]) == ("changed", "plain", "0.25")
    charged, tokens = cost(repriced, tenant, "after")
    assert charged == tokens * 1_000_000 + 250_000_000 > before
    assert repriced.request("GET", "/admin/prices").json["digest"] != digest
    assert repriced.request("DELETE", PATH).json["origin"] == "model"
    assert cost(repriced, tenant, "again")[0] < 1_000_000
    assert repriced.request("GET", "/admin/prices").json["digest"] == digest
    refused(repriced.request("DELETE", PATH), 404)


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (PATH, {"input": "1"}, 400, "output"),
        (PATH, {"input": "-1", "output": "1"}, 400, "input"),
        (PATH, {"input": "0.0000000001", "output": "1"}, 400, "input"),
        (PATH, {"input": True, "output": "1"}, 400, "input"),
        (PATH, {"input": "1", "output": "1", "smell": "1"}, 400, "smell"),
        (PATH, {"input": "1", "output": "1000001"}, 400, "output"),
        (PATH, {"input": "1", "output": "1", "search": "1001"}, 400, "search"),
        (PATH, {"input": "1", "output": "1", "tiers": [{"above": 0, "input": 1, "output": 1}]}, 400, "tiers.0.above"),
        ("/admin/prices/nobody/x", {"input": "1", "output": "1"}, 404, "provider"),
        ("/admin/prices/sim/" + "x" * 301, {"input": "1", "output": "1"}, 400, "model"),
    ],
)
def test_what_cannot_be_a_price_is_refused_and_changes_nothing(
    house: House, path: str, body: Any, status: int, param: str
) -> None:
    before = house.request("GET", "/admin/prices").json
    refused(house.request("PUT", path, body), status, param)
    assert house.request("GET", "/admin/prices").json == before


def test_only_the_admin_key_may_see_and_change_prices(house: House, tenant: Tenant) -> None:
    assert house.request("GET", "/admin/prices", key=tenant.key).status == 403
    assert house.request("PUT", PATH, {"input": "1", "output": "1"}, key=tenant.key).status == 403


ASK = ChatRequest.parse({"model": "odd", "messages": [{"role": "user", "content": "What is this?"}]})


def config(provider: Running, unpriced: str) -> Config:
    """One model, whose price nobody knows."""
    return Config.model_validate(
        {
            "providers": {"sim": {"kind": "openai", "base_url": f"{provider.url}/v1", "allow_private": True}},
            "models": {"odd": {"provider": "sim", "model": "simulated-odd"}},
            "budget": {"unpriced": unpriced},
            "telemetry": {"log": "off"},
        }
    )


async def test_a_model_without_a_price_is_refused_under_a_budget(tmp_path: Path) -> None:
    async with Simulator().serve() as provider:
        async with open_engine(config(provider, "refuse"), tmp_path) as engine:
            async with await engine.gateway.chat(Principal(tenant="acme"), ASK) as reply:
                with pytest.raises(Unpriced):
                    await reply.completion()
        assert provider.stats().calls == 0


async def test_an_operator_may_allow_it_and_sees_what_was_not_priced(tmp_path: Path) -> None:
    async with Simulator().serve() as provider, open_engine(config(provider, "allow"), tmp_path) as engine:
        async with await engine.gateway.chat(Principal(tenant="acme"), ASK) as reply:
            used = (await reply.completion()).usage
        await engine.gateway.flights.idle()
        (found,) = await engine.gateway.budget.ledger.usage(UsageQuery(group_by=("deployment",)))
        assert (found.group["deployment"], found.cost) == ("odd", 0)
        line = f'headgate_unpriced_tokens_total{{deployment="odd"}} {used.total_tokens}.0'
        assert line in engine.metrics.render().decode()


async def test_a_price_set_beside_the_server_applies_without_a_restart_and_outlives_it(tmp_path: Path) -> None:
    """As `headgate prices set` does it: the server reads the journal every two seconds, here when it is told to."""
    async with Simulator().serve() as provider:
        chosen = config(provider, "refuse")
        async with open_engine(chosen, tmp_path) as engine, open_books(chosen, tmp_path) as books:
            await books.pricing.set("sim", "simulated-odd", Price(input=10**9, output=10**9), by="test")
            await engine.pricing.refresh()
            async with await engine.gateway.chat(Principal(tenant="acme"), ASK) as reply:
                used = (await reply.completion()).usage
                assert reply.cost == used.total_tokens * 1_000
        async with open_engine(chosen, tmp_path) as engine:
            listing = engine.pricing.table.listing("sim", "simulated-odd", "odd")
            assert listing is not None
            assert (listing.origin, listing.price.input) == ("changed", 10**9)


async def test_a_call_under_way_keeps_the_price_it_was_planned_with(tmp_path: Path) -> None:
    async with Simulator().serve() as provider, open_engine(config(provider, "refuse"), tmp_path) as engine:
        await engine.pricing.set("sim", "simulated-odd", Price(input=10**9, output=10**9))
        streamed = ChatRequest.parse({**ASK.body, "stream": True})
        async with await engine.gateway.chat(Principal(tenant="acme"), streamed) as reply:
            await reply.opened()
            await engine.pricing.set("sim", "simulated-odd", Price(input=10**12, output=10**12))
            used = (await reply.completion()).usage
            assert reply.cost == used.total_tokens * 1_000


async def test_the_digest_of_a_price_is_in_the_journal_with_rare_kinds_of_tokens(tmp_path: Path) -> None:
    async with Simulator().serve() as provider, open_engine(config(provider, "allow"), tmp_path) as engine:
        ledger, pricing = engine.gateway.budget.ledger, engine.pricing
        await pricing.set("sim", "simulated-odd", Price(input=10**9, output=10**9))
        async with await engine.gateway.chat(Principal(tenant="acme"), ASK) as reply:
            await reply.completion()
        async with engine.gateway.budget.for_operator("heard", feature="test", ceiling=0) as reservation:
            await reservation.cleared(0, 0)
            used = Usage(prompt_tokens=9, rare=Rare(audio_input=4))
            reservation.charge(deployment="odd", model="m", amount=0, usage=used)
        await ledger.usage(UsageQuery())
        rows = list(_journal(tmp_path))
    assert [row["prices"] for row in rows if row["kind"] == "settle"] == [pricing.table.digest, ""]
    assert [row["detail"] for row in rows if row["id"] == "heard" and row["kind"] == "settle"] == ['{"audio_input":4}']
    assert [row["model"] for row in rows if row["kind"] == "price"] == ["sim/simulated-odd"]


def _journal(data: Path) -> Iterator[dict[str, Any]]:
    with closing(sqlite3.connect(data / "headgate.db")) as connection:
        connection.row_factory = sqlite3.Row
        for found in connection.execute("SELECT * FROM journal ORDER BY seq"):
            yield dict(found)
