"""`headgate cache`, on real files; beside a running server in tests/contract/test_admin_cache.py."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headgate.cache.cache import Entry
from headgate.config import Config
from headgate.fittings_stores import open_stock
from headgate.model.chat import Completion
from headgate.model.money import Usage
from headgate.model.tenancy import Key, Namespace
from headgate.storage.sqlite import Claim
from tests.unit.cli.conftest import Headgate, printed

DATA = Path("headgate-data")
FAR = 4_000_000_000.0


def keep(tenant: str, *ids: str, **more: Any) -> None:
    """Put answers into the stock of a data directory that nobody serves from."""
    answer = Completion(
        model="m", choices=[{"message": {"role": "assistant", "content": "Here."}}], usage=Usage(), reported={}
    )

    async def put() -> None:
        async with open_stock(Config(), DATA) as store:
            for id in ids:
                key = Key(Namespace(tenant), id.encode().ljust(32))
                entry = Entry(id=id, key=key, answer=msgspec.msgpack.encode(answer), stored=1.0, expires=FAR, **more)
                assert await store.put(entry, epoch=0)

    asyncio.run(put())


@pytest.fixture
def tenant(headgate: Headgate) -> str:
    """A tenant's id."""
    id: str = printed(headgate("tenants", "create", "acme", "--json"))["id"]
    return id


def test_stats_show_what_each_tenant_has(headgate: Headgate, tenant: str) -> None:
    assert "nothing in stock yet" in headgate("cache", "stats").stdout
    keep(tenant, "one", "two")
    found = printed(headgate("cache", "stats", "--json"))
    assert found["entries"] == 2
    assert [(row["name"], row["entries"]) for row in found["tenants"]] == [("acme", 2)]
    shown = headgate("cache", "stats").stdout
    assert "acme" in shown
    assert shown.splitlines()[-1].startswith("2 entries, ")


def test_a_tenants_own_terms_are_shown(headgate: Headgate) -> None:
    headgate("tenants", "create", "careful", "--cache-mode", "shadow", "--max-error-rate", "0.002")
    line = next(line for line in headgate("cache", "stats").stdout.splitlines() if line.startswith("careful"))
    assert line.split()[-2:] == ["shadow", "0.002"]


def test_invalidate_takes_out_what_is_named(headgate: Headgate, tenant: str) -> None:
    keep(tenant, "one", tags=("prices", "eu"), user="ann", model="auto")
    keep(tenant, "two", tags=("docs",), model="auto")
    assert headgate("cache", "invalidate", "acme", "--tag", "prices", "--user", "bob").stdout == "0 removed\n"
    asked = ("cache", "invalidate", tenant, "--tag", "prices", "--tag", "news", "--model", "auto", "--json")
    assert printed(headgate(*asked)) == {"removed": 1}
    assert printed(headgate("cache", "invalidate", "acme", "--entry", "one", "--json")) == {"removed": 0}
    assert printed(headgate("cache", "invalidate", "acme", "--namespace", "", "--json")) == {"removed": 1}
    keep(tenant, "three")
    assert headgate("cache", "invalidate", "acme", "--all").stdout == "1 removed\n"


def test_what_is_to_go_must_be_said(headgate: Headgate, tenant: str) -> None:
    assert "Say which entries, or --all" in headgate("cache", "invalidate", tenant, code=2).stderr
    assert "`all` is everything" in headgate("cache", "invalidate", tenant, "--all", "--user", "x", code=1).stderr
    assert "no tenant 'nobody'" in headgate("cache", "invalidate", "nobody", "--all", code=1).stderr


def test_while_a_server_keeps_the_directory_its_key_is_needed(headgate: Headgate, tenant: str) -> None:
    keep(tenant, "one")
    claim = Claim(DATA / "headgate.db")
    try:
        assert "HEADGATE_ADMIN_KEY" in headgate("cache", "stats", code=1).stderr
    finally:
        claim.release()


def test_a_server_that_is_not_there_is_told_of(headgate: Headgate) -> None:
    asked = ("cache", "stats", "--admin-key", "hg-x", "--url")
    assert "does not answer" in headgate(*asked, "http://127.0.0.1:1", code=1).stderr
    assert "is no http:// address" in headgate(*asked, "file:///etc/passwd", code=2).stderr


def test_explain_works_without_a_server(headgate: Headgate) -> None:
    asked = ("cache", "explain", "How can I reset my password?", "How do I reset my password?")
    found = printed(headgate(*asked, "--json"))
    assert (found["one"], found["other"]) == asked[2:]
    assert found["served"] is True
    assert 0 < found["confidence"] <= 1
    assert found["error_rate"] == 0.01
    shown = headgate(*asked).stdout
    assert "served" in shown
    assert "yes" in shown


def test_explain_counts_the_routes_settings(headgate: Headgate) -> None:
    Path("headgate.yaml").write_text(
        "providers: {p: {kind: openai, api_key: x}}\nmodels: {m: {provider: p, price: {input: 1, output: 1}}}\n"
        "routes: {careful: {models: [m], cache: {max_error_rate: 0.002}}}\n",
        encoding="utf-8",
    )
    found = printed(headgate("cache", "explain", "Where is it?", "Where is that?", "--route", "careful", "--json"))
    assert found["error_rate"] == 0.002


def test_explain_says_why_it_cannot(headgate: Headgate) -> None:
    Path("headgate.yaml").write_text("cache: {semantic: {mode: off}}\n", encoding="utf-8")
    assert "semantic cache is off" in headgate("cache", "explain", "a", "b", code=1).stderr
    Path("headgate.yaml").write_text(
        "providers: {p: {kind: openai, api_key: x}}\n"
        "cache: {semantic: {embedder: {provider: p, model: m, dimensions: 8}}}\n",
        encoding="utf-8",
    )
    assert "/admin/cache/explain" in headgate("cache", "explain", "a", "b", code=1).stderr


def test_a_tenants_terms_can_be_taken_back(headgate: Headgate, tenant: str) -> None:
    def terms() -> Any:
        return printed(headgate("tenants", "show", tenant, "--json"))["policy"]["cache"]

    headgate("tenants", "update", tenant, "--cache-mode", "off", "--max-error-rate", "0.02")
    assert terms() == {"mode": "off", "max_error_rate": 0.02}
    headgate("tenants", "update", tenant, "--cache-mode", "none")
    assert terms() == {"mode": None, "max_error_rate": 0.02}
    headgate("tenants", "update", tenant, "--max-error-rate", "none")
    assert terms() == {"mode": None, "max_error_rate": None}
    assert "neither a number nor none" in headgate("tenants", "update", tenant, "--max-error-rate", "x", code=2).stderr
    assert "between 0 and 0.5" in headgate("tenants", "update", tenant, "--max-error-rate", "0.9", code=1).stderr
