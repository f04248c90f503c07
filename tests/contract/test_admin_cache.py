"""`/admin/cache`: what is in stock for whom, taking it out, what a tenant's own terms are, and why an answer is served."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from headgate.cli.main import main
from tests.contract.house import ADMIN_KEY, Answer, House, Tenant, eventually, refused

CHAT = "/v1/chat/completions"


@pytest.fixture
def ask(house: House, tenant: Tenant) -> Any:
    def ask(text: str = "How do I export my invoices?", *, key: str | None = None, **wishes: str) -> Answer:
        headers = {f"x-headgate-{name.replace('_', '-')}": value for name, value in wishes.items()}
        body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
        answer = house.request("POST", CHAT, body, key=key or tenant.key, headers=headers)
        assert answer.status == 200, answer.body
        return answer

    return ask


def row_of(house: House, tenant: Tenant) -> Any:
    rows = house.request("GET", "/admin/cache").json["tenants"]
    return next((row for row in rows if row["id"] == tenant.id), None)


class TestStock:
    def test_what_is_in_stock_is_shown_for_each_tenant(self, house: House, tenant: Tenant, ask: Any) -> None:
        assert row_of(house, tenant) is None
        ask()
        eventually(lambda: row_of(house, tenant) is not None)
        row = row_of(house, tenant)
        assert (row["name"], row["entries"]) == (tenant.name, 1)
        assert row["bytes"] > 0
        whole = house.request("GET", "/admin/cache").json
        assert whole["entries"] >= 1
        assert whole["bytes"] >= row["bytes"]
        assert whole["exact"] == {"mode": "on", "ttl": 86_400.0, "stale": 3_600.0}
        semantic = whole["semantic"]
        assert (semantic["mode"], semantic["ttl"], semantic["max_error_rate"]) == ("on", 3_600.0, 0.01)
        assert semantic["embedder"].startswith("all-MiniLM")
        assert whole["parts"]["embedder"]["well"] is True
        assert whole["routes"]["auto"]["strategy"] == "standard"

    def test_what_was_learnt_of_a_tenant_is_shown_with_it(self, house: House, tenant: Tenant, ask: Any) -> None:
        ask("How do I reset my password?")
        eventually(lambda: row_of(house, tenant) is not None)
        again = ask("How can I reset my password?")
        assert again.headers["x-headgate-source"] == "semantic"
        shown = house.request("GET", f"/admin/cache?tenant={tenant.name}").json
        assert [row["id"] for row in shown["tenants"]] == [tenant.id]
        (scope,) = shown["learning"]["scopes"]
        assert (scope["drift"], scope["namespace"], len(scope["digest"])) == ("ok", "", 16)
        assert scope["by_meaning"] == 1
        assert 0 < scope["bar"] < 1
        assert "scopes" not in house.request("GET", "/admin/cache").json["learning"]
        refused(house.request("GET", "/admin/cache?tenant=nobody"), 404)

    def test_entries_are_listed_newest_first_with_what_they_are(self, house: House, tenant: Tenant, ask: Any) -> None:
        ask("What is a webhook?", cache_tags="docs", user="ann", namespace="shop")
        ask("How do I pay?", user="bob")
        path = f"/admin/cache/entries?tenant={tenant.name}"
        eventually(lambda: len(house.request("GET", path).json["data"]) == 2)
        newest, oldest = house.request("GET", path).json["data"]
        assert (newest["question"], oldest["question"]) == ("How do I pay?", "What is a webhook?")
        assert (oldest["user"], oldest["tags"], oldest["namespace"]) == ("ann", ["docs"], "shop")
        assert (oldest["model"], oldest["deployment"]) == ("auto", "small")
        assert oldest["stored"] < oldest["by_meaning_until"] < oldest["expires"]
        assert oldest["answer"]
        assert float(oldest["worth_usd"]) > 0
        for query in ("user=ann", "tag=docs", "namespace=shop", "skip=1", "model=auto&tag=docs"):
            assert house.request("GET", f"{path}&{query}").json["data"] == [oldest], query
        assert house.request("GET", f"{path}&limit=1").json["data"] == [newest]
        assert house.request("GET", f"{path}&model=large").json["data"] == []

    def test_what_is_asked_wrongly_is_refused(self, house: House, tenant: Tenant) -> None:
        refused(house.request("GET", "/admin/cache/entries"), 400, "tenant")
        refused(house.request("GET", "/admin/cache/entries?tenant=nobody"), 404)
        refused(house.request("GET", f"/admin/cache/entries?tenant={tenant.id}&limit=0"), 400, "limit")

    def test_callers_see_none_of_it(self, house: House, tenant: Tenant) -> None:
        for path in ("/admin/cache", f"/admin/cache/entries?tenant={tenant.id}"):
            refused(house.request("GET", path, key=tenant.key), 403)


class TestTakingOut:
    def test_one_entry(self, house: House, tenant: Tenant, ask: Any) -> None:
        entry = ask().headers["x-headgate-entry"]
        path = f"/admin/cache/entries/{entry}?tenant="
        refused(house.request("DELETE", f"{path}{house.tenant().id}"), 404)
        assert house.request("DELETE", f"{path}{tenant.name}").json == {"removed": 1}
        refused(house.request("DELETE", f"{path}{tenant.name}"), 404)
        assert ask().headers["x-headgate-source"] == "live"

    def test_many(self, house: House, tenant: Tenant, ask: Any) -> None:
        ask("What is a webhook?", cache_tags="docs")
        ask("How do I pay?")
        path = "/admin/cache/invalidate"
        assert house.request("POST", path, {"tenant": tenant.name, "tags": ["docs"]}).json == {"removed": 1}
        assert house.request("POST", path, {"tenant": tenant.id, "all": True}).json == {"removed": 1}

    @pytest.mark.parametrize("body", [{}, {"all": True}, {"tenant": "nobody", "all": True}])
    def test_a_tenant_has_to_be_named(self, house: House, body: Any) -> None:
        assert house.request("POST", "/admin/cache/invalidate", body).status in (400, 404)

    def test_so_has_what_is_to_go(self, house: House, tenant: Tenant) -> None:
        path = "/admin/cache/invalidate"
        refused(house.request("POST", path, {"tenant": tenant.id}), 400)
        refused(house.request("POST", path, {"tenant": tenant.id, "colour": "red"}), 400, "colour")
        refused(house.request("POST", path, {"tenant": tenant.id, "all": True, "user": "ann"}), 400, "all")


class TestTerms:
    """`policy.cache`: how the semantic cache treats a tenant's calls."""

    def change(self, house: House, tenant: Tenant, cache: Any) -> Answer:
        return house.request("PATCH", f"/admin/tenants/{tenant.id}", {"policy": {"cache": cache}})

    def test_a_tenant_that_only_watches_is_served_nothing_by_meaning_and_told_so(
        self, house: House, tenant: Tenant, ask: Any
    ) -> None:
        shown = self.change(house, tenant, {"mode": "shadow"}).json
        assert shown["policy"]["cache"] == {"mode": "shadow", "max_error_rate": None}
        ask("How do I reset my password?")
        eventually(lambda: (row_of(house, tenant) or {}).get("entries") == 1)
        answer = ask("How can I reset my password?")
        assert (answer.headers["x-headgate-cache"], answer.headers["x-headgate-source"]) == ("shadow", "live")
        assert 0 < float(answer.headers["x-headgate-confidence"]) <= 1
        assert row_of(house, tenant)["cache"]["mode"] == "shadow"

    def test_fields_change_one_by_one_and_null_takes_one_back(self, house: House, tenant: Tenant) -> None:
        self.change(house, tenant, {"mode": "shadow", "max_error_rate": 0.002})
        assert self.change(house, tenant, {"mode": None}).json["policy"]["cache"] == {
            "mode": None,
            "max_error_rate": 0.002,
        }
        assert self.change(house, tenant, None).json["policy"]["cache"] == {"mode": None, "max_error_rate": None}

    def test_a_tenant_may_be_created_with_them(self, house: House) -> None:
        made = house.request("POST", "/admin/tenants", {"name": "strict", "policy": {"cache": {"max_error_rate": 0.0}}})
        assert made.json["policy"]["cache"] == {"mode": None, "max_error_rate": 0.0}

    @pytest.mark.parametrize(
        ("cache", "param"),
        [
            ({"mode": "bold"}, "policy.cache.mode"),
            ({"max_error_rate": 0.6}, "policy.cache.max_error_rate"),
            ({"max_error_rate": -0.1}, "policy.cache.max_error_rate"),
            ({"colour": "red"}, "policy.cache.colour"),
        ],
    )
    def test_what_there_is_not_is_refused(self, house: House, tenant: Tenant, cache: Any, param: str) -> None:
        refused(self.change(house, tenant, cache), 400, param)


class TestExplanation:
    PATH = "/admin/cache/explain"

    def explain(self, house: House, one: str, other: str, **more: Any) -> Any:
        answer = house.request("POST", self.PATH, {"one": one, "other": other, **more})
        assert answer.status == 200, answer.body
        return answer.json

    def test_a_rewording_would_be_served(self, house: House, tenant: Tenant) -> None:
        told = self.explain(
            house, "How can I reset my password?", "How do I reset my password?", tenant=tenant.name, route="auto"
        )
        assert told["one"] == "How can I reset my password?"
        assert told["served"] is True
        assert 0 < told["confidence"] <= 1
        assert told["error_rate"] == 0.01

    def test_a_look_alike_would_not_and_the_reason_says_why(self, house: House) -> None:
        told = self.explain(house, "Refund after 14 days?", "Refund after 30 days?")
        assert told["served"] is False
        assert told["reason"]

    def test_a_tenants_own_rate_counts(self, house: House, tenant: Tenant) -> None:
        house.request("PATCH", f"/admin/tenants/{tenant.id}", {"policy": {"cache": {"max_error_rate": 0.002}}})
        told = self.explain(house, "How do I pay?", "How can I pay?", tenant=tenant.id)
        assert told["error_rate"] == 0.002

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"one": "x"},
            {"one": "", "other": "x"},
            {"one": "x", "other": "y" * 4_001},
            {"one": "x", "other": "y", "a": 1},
        ],
    )
    def test_two_questions_are_needed(self, house: House, body: Any) -> None:
        refused(house.request("POST", self.PATH, body), 400, house.request("POST", self.PATH, body).error["param"])

    def test_callers_may_not_ask(self, house: House, tenant: Tenant) -> None:
        refused(house.request("POST", self.PATH, {"one": "x", "other": "y"}, key=tenant.key), 403)


class TestCommandLine:
    """`headgate cache` beside a running server asks the server, which alone knows what it has in memory."""

    def run(self, house: House, *args: str, key: str = ADMIN_KEY) -> Any:
        return CliRunner().invoke(
            main, ["cache", *args, "--url", house.url], env={"HEADGATE_ADMIN_KEY": key}, prog_name="headgate"
        )

    def test_stats_are_the_servers(self, house: House, tenant: Tenant, ask: Any) -> None:
        ask()
        eventually(lambda: row_of(house, tenant) is not None)
        found = json.loads(self.run(house, "stats", "--json").stdout)
        assert tenant.name in [row["name"] for row in found["tenants"]]
        assert tenant.name in self.run(house, "stats").stdout

    def test_what_is_taken_out_is_gone_at_once(self, house: House, tenant: Tenant, ask: Any) -> None:
        ask(cache_tags="docs")
        eventually(lambda: row_of(house, tenant) is not None)
        assert self.run(house, "invalidate", tenant.name, "--tag", "docs").stdout == "1 removed\n"
        assert ask().headers["x-headgate-source"] == "live"

    def test_the_servers_words_are_passed_on(self, house: House) -> None:
        told = self.run(house, "invalidate", "nobody", "--all")
        assert (told.exit_code, "no tenant 'nobody'" in told.stderr) == (1, True)
        told = self.run(house, "stats", key="hg-wrong")
        assert (told.exit_code, "not valid" in told.stderr) == (1, True)
