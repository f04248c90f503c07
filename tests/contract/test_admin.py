"""What operators see and do: tenants, keys, budgets, usage, health, metrics, and the reference of it all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headgate.assembly import open_engine
from headgate.config import Config
from headgate.model.ids import Ids
from headgate.server.admin import management
from headgate.server.app import App
from headgate.server.edge import HttpLimits
from tests.contract.house import ADMIN_KEY, House, Tenant

TURNS = [{"role": "user", "content": "How do I export my invoices?"}]
MONEY = re.compile(r"-?\d+\.\d{2,9}")


def ask(house: House, key: str, model: str = "auto", **headers: str) -> None:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"model": model, "messages": TURNS}
    assert house.request("POST", "/v1/chat/completions", body, key=key, headers=sent).status == 200


class TestTenants:
    """Made, listed, changed, deleted."""

    def test_a_tenant_is_made_as_it_is_asked_for(self, house: House) -> None:
        body = {
            "name": "Acme Inc.",
            "budget": {"hour": "1.50", "month": 20},
            "rpm": 60,
            "concurrency": 5,
            "policy": {"allowed_models": ["auto"], "tier": "low", "abandoned": "cancel"},
        }
        made = house.request("POST", "/admin/tenants", body)
        assert made.status == 201
        tenant = made.json
        assert isinstance(tenant["id"], str)
        assert tenant["budget"] == {"hour": "1.50", "day": None, "week": None, "month": "20.00", "total": None}
        assert (tenant["rpm"], tenant["concurrency"]) == (60, 5)
        assert tenant["policy"]["allowed_models"] == ["auto"]
        assert tenant["tpm"] is None
        for name in (tenant["id"], "Acme%20Inc."):
            assert house.request("GET", f"/admin/tenants/{name}").json == tenant
        assert tenant in house.request("GET", "/admin/tenants").json["data"]

    def test_what_is_left_out_of_a_change_stays(self, house: House) -> None:
        tenant = house.tenant(rpm=7, budget={"hour": "1.00", "day": "2.00"})
        changed = house.request("PATCH", f"/admin/tenants/{tenant.id}", {"budget": {"hour": None}}).json
        assert changed["budget"] == {"hour": None, "day": "2.00", "week": None, "month": None, "total": None}
        assert changed["rpm"] == 7
        assert house.request("PATCH", f"/admin/tenants/{tenant.id}", {"rpm": None}).json["rpm"] == 1_000_000

    def test_whose_a_tenant_is_and_how_it_pays_can_be_said(self, house: House) -> None:
        house.request("PUT", "/admin/organisations/said")
        policy = {"organisation": "said", "zone": "Europe/Berlin", "hit_percent": 50, "customer": "cus_1"}
        made = house.request("POST", "/admin/tenants", {"name": "said-so", "tpm": 5_000, "policy": policy}).json
        assert (made["tpm"], {name: made["policy"][name] for name in policy}) == (5_000, policy)
        taken_back = {"tpm": None, "policy": dict.fromkeys(policy)}
        changed = house.request("PATCH", "/admin/tenants/said-so", taken_back).json
        assert changed["tpm"] is None
        shown = {name: changed["policy"][name] for name in policy}
        assert shown == {"organisation": None, "zone": "UTC", "hit_percent": 0, "customer": None}

    def test_what_a_tenants_calls_share_and_who_pays_for_it_can_be_said(self, house: House) -> None:
        policy = {"coalesce": "exact", "shares": "split"}
        made = house.request("POST", "/admin/tenants", {"name": "sharers", "policy": policy}).json
        assert {name: made["policy"][name] for name in policy} == policy
        changed = house.request("PATCH", "/admin/tenants/sharers", {"policy": {"shares": "each"}}).json
        assert (changed["policy"]["coalesce"], changed["policy"]["shares"]) == ("exact", "each")
        changed = house.request("PATCH", "/admin/tenants/sharers", {"policy": dict.fromkeys(policy)}).json
        assert {name: changed["policy"][name] for name in policy} == {"coalesce": "semantic", "shares": "leader"}

    def test_an_unknown_organisation_is_named_and_no_tenant_is_made(self, house: House) -> None:
        answer = house.request("POST", "/admin/tenants", {"name": "lost", "policy": {"organisation": "nowhere"}})
        assert (answer.status, answer.error["param"]) == (404, "organisation")
        assert house.request("GET", "/admin/tenants/lost").status == 404

    def test_a_change_that_is_refused_in_part_changes_nothing(self, house: House, tenant: Tenant) -> None:
        ask(house, tenant.key)
        before = house.request("GET", f"/admin/tenants/{tenant.id}").json
        changes = house.request("GET", "/admin/budgets/changes").json
        for body, status in (
            ({"rpm": 5, "budget": {"day": "7", "total": "0"}}, 400),
            ({"budget": {"day": "7"}, "rpm": 0}, 400),
            ({"budget": {"day": "7"}, "policy": {"organisation": "nowhere"}}, 404),
            ({"budget": {"day": "7"}, "name": "default"}, 409),
        ):
            assert house.request("PATCH", f"/admin/tenants/{tenant.id}", body).status == status
        assert house.request("GET", f"/admin/tenants/{tenant.id}").json == before
        assert house.request("GET", "/admin/budgets/changes").json == changes

    def test_a_name_is_taken_once(self, house: House, tenant: Tenant) -> None:
        answer = house.request("POST", "/admin/tenants", {"name": tenant.name})
        assert (answer.status, answer.error["code"]) == (409, "conflict")

    def test_a_deleted_tenants_key_opens_nothing_and_its_bill_stays(self, house: House, tenant: Tenant) -> None:
        ask(house, tenant.key)
        gone = house.request("DELETE", f"/admin/tenants/{tenant.id}")
        assert (gone.status, gone.body) == (204, b"")
        assert house.request("GET", f"/admin/tenants/{tenant.id}").status == 404
        assert house.request("GET", "/v1/models", key=tenant.key).status == 401
        rows = house.request("GET", "/admin/usage?group_by=tenant").json["data"]
        assert [row["requests"] for row in rows if row["tenant"] == tenant.id] == [1]

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({}, "name"),
            ({"name": None}, "name"),
            ({"name": ""}, "name"),
            ({"name": "a/b"}, "name"),
            ({"name": "x" * 65}, "name"),
            ({"name": "ok", "colour": "red"}, "colour"),
            ({"name": "ok", "budget": {"hour": "much"}}, "budget.hour"),
            ({"name": "ok", "budget": {"hour": -1}}, "budget.hour"),
            ({"name": "ok", "budget": {"hour": True}}, "budget.hour"),
            ({"name": "ok", "budget": {"hour": "1e400"}}, "budget.hour"),
            ({"name": "ok", "budget": {"hour": "0.0000000001"}}, "budget.hour"),
            ({"name": "ok", "budget": {"hour": "9223372036.854775808"}}, "budget.hour"),
            ({"name": "ok", "budget": {"minute": "1"}}, "budget.minute"),
            ({"name": "ok", "budget": {"hour": {"cap": "1"}}}, "budget.hour"),
            ({"name": "ok", "rpm": 0}, "rpm"),
            ({"name": "ok", "rpm": "fast"}, "rpm"),
            ({"name": "ok", "rpm": 10**12}, "rpm"),
            ({"name": "ok", "rpm": True}, "rpm"),
            ({"name": "ok", "rpm": "60"}, "rpm"),
            ({"name": "ok", "tpm": 0}, "tpm"),
            ({"name": "ok", "tpm": 1.5}, "tpm"),
            ({"name": "ok", "concurrency": -1}, "concurrency"),
            ({"name": "ok", "policy": {"tier": "huge"}}, "policy.tier"),
            ({"name": "ok", "policy": {"allowed_models": "auto"}}, "policy.allowed_models"),
            ({"name": "ok", "policy": {"zone": "Europe/Atlantis"}}, "zone"),
            ({"name": "ok", "policy": {"zone": "../../etc/passwd"}}, "zone"),
            ({"name": "ok", "policy": {"hit_percent": -1}}, "hit_percent"),
            ({"name": "ok", "policy": {"hit_percent": "all"}}, "policy.hit_percent"),
            ({"name": "ok", "policy": {"customer": "a\nb"}}, "customer"),
            ({"name": "ok", "policy": {"coalesce": "on"}}, "policy.coalesce"),
            ({"name": "ok", "policy": {"coalesce": False}}, "policy.coalesce"),
            ({"name": "ok", "policy": {"shares": "nobody"}}, "policy.shares"),
        ],
    )
    def test_a_wrong_field_is_named_and_nothing_is_made(self, house: House, body: Any, param: str) -> None:
        before = len(house.request("GET", "/admin/tenants").json["data"])
        answer = house.request("POST", "/admin/tenants", body)
        assert (answer.status, answer.error["param"]) == (400, param), answer
        assert len(house.request("GET", "/admin/tenants").json["data"]) == before

    def test_an_unknown_tenant_is_not_found(self, house: House) -> None:
        for method, path in (
            ("GET", "tenants/no"),
            ("DELETE", "tenants/no"),
            ("GET", "budgets/no"),
            ("GET", "usage?tenant=no"),
        ):
            answer = house.request(method, f"/admin/{path}")
            assert (answer.status, answer.error["code"]) == (404, "not_found")


class TestKeys:
    """Shown once, turned over, revoked."""

    def test_a_key_is_shown_once_and_never_again(self, house: House, tenant: Tenant) -> None:
        made = house.request("POST", "/admin/keys", {"tenant": tenant.name, "name": "web", "user": "ann"}).json
        assert made["key"].startswith("hg-")
        assert (made["tenant"], made["name"], made["role"], made["user"]) == (tenant.id, "web", "caller", "ann")
        for path in ("/admin/keys", f"/admin/keys?tenant={tenant.id}"):
            listed = house.request("GET", path)
            assert made["id"] in [record["id"] for record in listed.json["data"]]
            assert made["key"].encode() not in listed.body
            assert b"digest" not in listed.body
        assert len(house.request("GET", f"/admin/keys?tenant={tenant.id}").json["data"]) == 2

    def test_a_turned_key_opens_what_the_old_one_did(self, house: House, tenant: Tenant) -> None:
        old = house.request("POST", "/admin/keys", {"tenant": tenant.id, "user": "ann"}).json
        new = house.request("POST", f"/admin/keys/{old['id']}/rotate")
        assert new.status == 201
        assert (new.json["user"], new.json["tenant"]) == ("ann", tenant.id)
        assert house.request("GET", "/v1/models", key=new.json["key"]).status == 200
        assert house.request("GET", "/v1/models", key=old["key"]).status == 401

    def test_a_turned_key_may_have_grace(self, house: House, tenant: Tenant) -> None:
        old = house.request("POST", "/admin/keys", {"tenant": tenant.id}).json
        house.request("POST", f"/admin/keys/{old['id']}/rotate", {"grace": 60})
        assert house.request("GET", "/v1/models", key=old["key"]).status == 200

    def test_a_time_without_a_zone_is_in_utc(self, house: House, tenant: Tenant) -> None:
        for written in ("2040-01-01T00:00:00", "2040-01-01T00:00:00Z", "2040-01-01T02:00:00+02:00", 2_208_988_800):
            made = house.request("POST", "/admin/keys", {"tenant": tenant.id, "expires": written}).json
            assert made["expires"] == 2_208_988_800

    def test_only_an_admin_key_opens_admin(self, house: House, tenant: Tenant) -> None:
        lesser = house.request("POST", "/admin/keys", {"tenant": tenant.id, "role": "tenant_admin"}).json["key"]
        other = house.request("POST", "/admin/keys", {"tenant": "default", "role": "admin"}).json
        for key, status in ((tenant.key, 403), (lesser, 403), (None, 401), (other["key"], 200)):
            for path in ("tenants", "keys", "budgets", "usage", "health"):
                assert house.request("GET", f"/admin/{path}", key=key).status == status
        assert house.request("POST", "/admin/tenants", {"name": "mine"}, key=tenant.key).error["code"] == "forbidden"

    @pytest.mark.parametrize(
        ("body", "status", "param"),
        [
            ({}, 400, "tenant"),
            ({"tenant": 1}, 400, "tenant"),
            ({"tenant": "nobody"}, 404, None),
            ({"tenant": "default", "role": "king"}, 400, "role"),
            ({"tenant": "default", "expires": "soon"}, 400, "expires"),
            ({"tenant": "default", "name": "a\nb"}, 400, "name"),
            ({"tenant": "default", "more": 1}, 400, "more"),
        ],
    )
    def test_a_wrong_field_is_named(self, house: House, body: Any, status: int, param: str | None) -> None:
        answer = house.request("POST", "/admin/keys", body)
        assert (answer.status, answer.error["param"]) == (status, param), answer

    def test_an_admin_key_belongs_to_the_default_tenant(self, house: House, tenant: Tenant) -> None:
        answer = house.request("POST", "/admin/keys", {"tenant": tenant.id, "role": "admin"})
        assert (answer.status, answer.error["param"]) == (400, "role")

    @pytest.mark.parametrize("grace", [-1, "long", None, True, 1e300])
    def test_grace_is_a_number_of_seconds(self, house: House, tenant: Tenant, grace: Any) -> None:
        key = house.request("GET", f"/admin/keys?tenant={tenant.id}").json["data"][0]["id"]
        answer = house.request("POST", f"/admin/keys/{key}/rotate", {"grace": grace})
        assert (answer.status, answer.error["param"]) == (400, "grace")

    def test_an_unknown_key_is_not_found(self, house: House) -> None:
        assert house.request("DELETE", "/admin/keys/no").status == 404
        assert house.request("POST", "/admin/keys/no/rotate").status == 404


class TestUsage:
    """In decimal text."""

    def test_usage_is_summed_by_what_is_asked(self, house: House, tenant: Tenant) -> None:
        for feature in ("a", "b", "b"):
            ask(house, tenant.key, x_headgate_feature=feature, x_headgate_user="ann")
        ask(house, tenant.key, "large", x_headgate_user="bob")
        report = house.request("GET", "/v1/usage?group_by=feature,source", key=tenant.key).json
        found = {(row["feature"], row["source"]): row["requests"] for row in report["data"]}
        assert found == {("a", "live"): 1, ("b", "exact"): 2, ("", "live"): 1}
        assert report["total"]["requests"] == 4
        for row in (*report["data"], report["total"]):
            assert MONEY.fullmatch(row["cost_usd"])
            assert MONEY.fullmatch(row["saved_usd"])
        assert float(report["total"]["saved_usd"]) > 0
        for by in ("tenant", "key", "user", "route", "model", "day"):
            rows = house.request("GET", f"/admin/usage?tenant={tenant.id}&group_by={by}").json["data"]
            assert sum(row["requests"] for row in rows) == 4
            assert all(isinstance(row[by], str) for row in rows)

    def test_usage_is_the_callers_own_and_within_its_time(self, house: House, tenant: Tenant) -> None:
        ask(house, tenant.key)
        assert house.request("GET", "/v1/usage?from=2001-01-01", key=tenant.key).json["total"]["requests"] == 1
        assert house.request("GET", "/v1/usage?to=2001-01-01", key=tenant.key).json["total"]["requests"] == 0
        assert house.request("GET", "/v1/usage?from=32503680000", key=tenant.key).json["data"] == []
        assert house.request("GET", "/v1/usage", key=house.tenant().key).json["total"]["requests"] == 0


class TestOperation:
    """Health, readiness, metrics, and the reference."""

    def test_it_is_alive_and_ready(self, house: House) -> None:
        assert house.request("GET", "/healthz", key=None).json == {"status": "alive"}
        assert house.request("GET", "/readyz", key=None).json == {"status": "ready"}
        head = house.request("HEAD", "/healthz", key=None)
        assert (head.status, head.body) == (200, b"")

    def test_health_tells_of_stores_and_deployments(self, house: House) -> None:
        health = house.request("GET", "/admin/health").json
        assert set(health["stores"].values()) == {"ok"}
        assert health["deployments"]["small"]["state"] == "closed"

    async def test_what_is_not_ready_says_which_store(self, tmp_path: Path) -> None:
        async with open_engine(Config.default({}), tmp_path) as engine:
            await engine.tenants.close()
            app = App(
                gateway=engine.gateway,
                tenants=engine.tenants,
                jobs=engine.jobs,
                limits=HttpLimits(),
                management=management(engine),
                metrics=engine.metrics.render,
                probe=engine.faults,
                new_id=Ids(),
            )
            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            async def receive() -> Any:
                return {"type": "http.request"}

            scope = {"type": "http", "method": "GET", "path": "/readyz", "headers": [], "query_string": b""}
            await app(scope, receive, send)
            assert sent[0]["status"] == 503
            assert b'"tenants"' in sent[1]["body"]
            assert b'"ledger"' not in sent[1]["body"]

    def test_metrics_can_be_read_and_name_nobody(self, house: House, tenant: Tenant) -> None:
        ask(house, tenant.key, x_headgate_user="ann-the-user")
        ask(house, tenant.key)
        house.request("POST", "/v1/chat/completions", {"model": "broken-500", "messages": TURNS}, key=tenant.key)
        answer = house.request("GET", "/metrics", key=None)
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        families = {family.name for family in text_string_to_metric_families(answer.body.decode())}
        assert {name.removesuffix("_total") for name in METRICS} <= families
        assert b"ann-the-user" not in answer.body
        assert b"export" not in answer.body

    def test_the_reference_is_a_page_that_needs_nothing_else(self, house: House) -> None:
        page = house.request("GET", "/docs", key=None)
        assert page.headers["content-type"].startswith("text/html")
        assert b"/openapi.json" in page.body
        assert not re.search(rb"""(src|href)=["']?(https?:)?//""", page.body)

    def test_the_openapi_document_lists_every_path(self, house: House) -> None:
        document = house.request("GET", "/openapi.json", key=None).json
        assert document["openapi"].startswith("3.1")
        assert set(document["paths"]) >= {
            "/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1/models/{model}", "/v1/usage", "/chat", "/api/v1/ai/query",
            "/healthz", "/readyz", "/metrics", "/admin/tenants", "/admin/tenants/{tenant}", "/admin/keys",
            "/admin/keys/{key}", "/admin/keys/{key}/rotate", "/admin/budgets", "/admin/budgets/{account}",
            "/admin/budgets/changes", "/admin/budgets/top-up", "/admin/budgets/suspend", "/admin/budgets/resume",
            "/admin/organisations", "/admin/organisations/{name}", "/admin/usage", "/admin/health",
        }  # fmt: skip
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                assert operation["summary"], path
                assert set(operation["responses"]) >= {"default"}, (path, method)
                assert "422" not in operation["responses"]
                inside = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
                assert inside == set(re.findall(r"{(\w+)}", path))

    def test_every_reference_in_the_document_leads_somewhere(self, house: House) -> None:
        answer = house.request("GET", "/openapi.json", key=None)
        for name in re.findall(rb'"#/components/schemas/(\w+)"', answer.body):
            assert name.decode() in answer.json["components"]["schemas"]

    def test_every_listed_path_answers(self, house: House) -> None:
        for path, operations in house.request("GET", "/openapi.json", key=None).json["paths"].items():
            for method in operations:
                real = re.sub(r"{\w+}", "no", path)
                answer = house.request(method.upper(), real, key=ADMIN_KEY)
                assert answer.status in (200, 204, 400, 404), (method, path)
                assert b"There is no /" not in answer.body


METRICS = (
    "headgate_requests_total", "headgate_request_duration_seconds", "headgate_overhead_seconds",
    "headgate_time_to_first_token_seconds", "headgate_cache_lookups_total", "headgate_cache_lookup_seconds",
    "headgate_cache_entries", "headgate_flights_total", "headgate_flight_followers", "headgate_routing_decisions_total",
    "headgate_router_confidence", "headgate_attempts_total", "headgate_breaker_state", "headgate_tokens_total",
    "headgate_cost_usd_total", "headgate_saved_usd_total", "headgate_reservations_open", "headgate_ledger_lag_seconds",
    "headgate_event_loop_lag_seconds", "headgate_budget_used_ratio", "headgate_fallbacks_total",
)  # fmt: skip
