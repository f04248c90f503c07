"""Budgets and organisations at run time: what may be spent, by whom, changed while calls are made, and every change written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from headgate.cli.main import main
from tests.contract.house import ADMIN_KEY, Answer, House, Tenant, eventually, opened, settings

WINDOWS = ("hour", "day", "week", "month", "total")


def call(house: House, key: str, text: str = "How do I export my invoices?", **headers: str) -> Answer:
    """One call that no other has made."""
    sent = {"x-headgate-cache": "no-store", **{f"x-headgate-{name}": value for name, value in headers.items()}}
    body = {"model": "small", "messages": [{"role": "user", "content": text}], "max_tokens": 50}
    return house.request("POST", "/v1/chat/completions", body, key=key, headers=sent)


def spent_by(house: House, key: str) -> str:
    cost: str = house.request("GET", "/v1/usage", key=key).json["total"]["cost_usd"]
    return cost


def put(house: House, account: str, body: Any) -> Answer:
    return house.request("PUT", f"/admin/budgets/{quote(account)}", body)


def shown(house: House, account: str) -> Any:
    answer = house.request("GET", f"/admin/budgets/{quote(account)}")
    assert answer.status == 200, answer
    return answer.json


def refused(house: House, account: str, body: Any) -> dict[str, Any]:
    """The error of a change that is refused, after a look that nothing has changed."""
    before = house.request("GET", "/admin/budgets/changes").json
    answer = put(house, account, body)
    assert answer.status in (400, 404), answer
    assert house.request("GET", "/admin/budgets/changes").json == before
    return answer.error


class TestSetting:
    """What is set applies at once, is shown, and can be taken back."""

    def test_a_budget_is_set_spent_and_shown(self, house: House, tenant: Tenant) -> None:
        answer = put(house, tenant.id, {"day": "5", "hour": None})
        assert answer.json["windows"]["day"]["cap_usd"] == "5.00"
        assert answer.json["windows"]["hour"]["cap_usd"] is None
        call(house, tenant.key)
        found = shown(house, tenant.name)
        spent = spent_by(house, tenant.key)
        for window in WINDOWS:
            assert found["windows"][window]["spent_usd"] == spent
            assert found["windows"][window]["held_usd"] == "0.00"
        assert found["windows"]["hour"]["left_usd"] is None
        assert found["windows"]["total"]["ends"] is None
        assert found["windows"]["day"]["id"].startswith("day:20")
        assert found in house.request("GET", "/admin/budgets").json["data"]

    def test_a_budget_that_is_lowered_holds_at_once(self, house: House, tenant: Tenant) -> None:
        call(house, tenant.key)
        put(house, tenant.id, {"total": spent_by(house, tenant.key)})
        answer = call(house, tenant.key)
        assert (answer.status, answer.error["code"]) == (402, "budget_exceeded")
        put(house, tenant.id, {"total": "1.00"})
        assert call(house, tenant.key).status == 200

    def test_a_window_that_is_left_out_stays_as_it_was(self, house: House, tenant: Tenant) -> None:
        put(house, tenant.id, {"day": {"cap": "5", "rule": "grace", "percent": 10, "alerts": [90]}, "week": "9"})
        put(house, tenant.id, {"week": None})
        day = shown(house, tenant.id)["windows"]["day"]
        assert (day["cap_usd"], day["rule"], day["percent"], day["alerts"]) == ("5.00", "grace", 10, [90])
        put(house, tenant.id, {"day": "4"})
        day = shown(house, tenant.id)["windows"]["day"]
        assert (day["cap_usd"], day["rule"], day["percent"], day["alerts"]) == ("4.00", "hard", 0, [90])

    def test_money_and_tokens_of_one_window_are_two_budgets(self, house: House, tenant: Tenant) -> None:
        put(house, tenant.id, {"day": "5"})
        found = put(house, tenant.id, {"day": {"cap": 40, "unit": "tokens"}}).json
        assert found["windows"]["day"]["cap_usd"] == "5.00"
        assert found["tokens"]["day"]["cap_tokens"] == 40
        assert (found["tokens"]["day"]["left_tokens"], found["tokens"]["day"]["spent_tokens"]) == (40, 0)
        assert call(house, tenant.key).error["code"] == "budget_exceeded"

    @pytest.mark.parametrize(
        ("level", "part", "headers"),
        [("user", "ann@example.com/9", {"user": "ann@example.com/9"}), ("feature", "search", {"feature": "search"}),
         ("model", "small", {})],
    )  # fmt: skip
    def test_accounts_beneath_a_tenant_have_budgets_of_their_own(
        self, house: House, tenant: Tenant, level: str, part: str, headers: dict[str, str]
    ) -> None:
        account = f"{level}:{tenant.name}/{part}"
        found = put(house, account, {"hour": "0"})
        assert found.json["account"] == f"{level}:{tenant.id}/{part}"
        assert found.json["name"] == account
        assert set(found.json["windows"]) == {"hour"}
        assert call(house, tenant.key, **headers).status == 402
        if headers:
            assert call(house, tenant.key).status == 200
        assert put(house, account, {"hour": "1"}).status == 200
        assert call(house, tenant.key, **headers).status == 200
        assert shown(house, account)["windows"]["hour"]["spent_usd"] != "0.00"

    def test_a_key_has_a_budget_of_its_own(self, house: House, tenant: Tenant) -> None:
        second = house.request("POST", "/admin/keys", {"tenant": tenant.id}).json
        assert put(house, f"key:{tenant.name}/{second['id']}", {"total": "0"}).status == 200
        assert call(house, second["key"]).status == 402
        assert call(house, tenant.key).status == 200

    def test_an_account_that_begins_to_be_counted_knows_what_it_has_spent(self, house: House, tenant: Tenant) -> None:
        call(house, tenant.key, user="ann")
        spent = spent_by(house, tenant.key)
        call(house, tenant.key, user="bob")
        row = put(house, f"user:{tenant.id}/ann", {"day": "1"}).json["windows"]["day"]
        assert row["spent_usd"] == spent

    def test_a_list_holds_tenants_and_whatever_was_set_and_can_be_narrowed(self, house: House, tenant: Tenant) -> None:
        put(house, f"feature:{tenant.name}/search", {"day": "1"})
        mine = house.request("GET", f"/admin/budgets?tenant={tenant.name}").json["data"]
        assert [one["account"] for one in mine] == [f"tenant:{tenant.id}", f"feature:{tenant.id}/search"]
        everything = house.request("GET", "/admin/budgets").json["data"]
        assert all(one in everything for one in mine)
        one = house.request("GET", f"/admin/budgets?account=feature:{tenant.id}/search").json["data"]
        assert one == mine[1:]
        assert house.request("GET", f"/admin/budgets?account={tenant.name}&tenant=default").json["data"] == []
        for offset, more in ((0, True), (1, False)):
            page = house.request("GET", f"/admin/budgets?tenant={tenant.name}&limit=1&offset={offset}").json
            assert (page["data"], page["has_more"]) == (mine[offset : offset + 1], more)

    def test_budgets_of_a_deleted_tenant_are_nobodys(self, house: House, tenant: Tenant) -> None:
        put(house, tenant.name, {"total": "0"})
        put(house, f"user:{tenant.name}/ann", {"total": "0"})
        house.request("DELETE", f"/admin/tenants/{tenant.id}")
        assert tenant.id not in json.dumps(house.request("GET", "/admin/budgets").json)
        made = house.request("POST", "/admin/tenants", {"name": tenant.name}).json
        key = house.request("POST", "/admin/keys", {"tenant": made["id"]}).json["key"]
        assert call(house, key, user="ann").status == 200
        changes = house.request("GET", f"/admin/budgets/changes?account=tenant:{tenant.id}").json["data"]
        assert [one["cap_usd"] for one in changes] == ["0.00"]


class TestTopUpAndSuspension:
    """For a present window, and until somebody resumes."""

    def test_a_top_up_lets_calls_in_again(self, house: House, tenant: Tenant) -> None:
        call(house, tenant.key)
        put(house, tenant.id, {"day": spent_by(house, tenant.key)})
        assert call(house, tenant.key).status == 402
        body = {"account": tenant.name, "window": "day", "amount": "0.50"}
        day = house.request("POST", "/admin/budgets/top-up", body).json["windows"]["day"]
        assert (day["extra_usd"], day["left_usd"]) == ("0.50", "0.50")
        assert call(house, tenant.key).status == 200
        again = house.request("POST", "/admin/budgets/top-up", body).json["windows"]["day"]
        assert again["extra_usd"] == "1.00"

    def test_a_cap_below_what_is_spent_of_cap_and_top_up_is_refused(self, house: House, tenant: Tenant) -> None:
        put(house, tenant.id, {"day": "0"})
        house.request("POST", "/admin/budgets/top-up", {"account": tenant.id, "window": "day", "amount": "1"})
        assert call(house, tenant.key).status == 200
        assert refused(house, tenant.id, {"day": "0.000000001"})["param"] == "day.cap"

    def test_a_suspended_account_spends_nothing_until_it_is_resumed(self, house: House, tenant: Tenant) -> None:
        for account, headers in ((tenant.name, {}), (f"user:{tenant.name}/ann", {"user": "ann"})):
            answer = house.request("POST", "/admin/budgets/suspend", {"account": account})
            rows = answer.json["windows"].values()
            assert any(row["suspended"] for row in rows)
            assert call(house, tenant.key, **headers).status == 402
            assert house.request("POST", "/admin/budgets/suspend", {"account": account}).json == answer.json
            answer = house.request("POST", "/admin/budgets/resume", {"account": account})
            assert not any(row["suspended"] for row in answer.json["windows"].values())
            assert call(house, tenant.key, **headers).status == 200

    def test_a_change_of_the_cap_does_not_resume(self, house: House, tenant: Tenant) -> None:
        put(house, tenant.id, {"day": "1"})
        house.request("POST", "/admin/budgets/suspend", {"account": tenant.id})
        put(house, tenant.id, {"day": "2", "hour": "2"})
        assert call(house, tenant.key).status == 402

    @pytest.mark.parametrize(
        ("body", "status", "param"),
        [
            ({"window": "day", "amount": "1"}, 400, "window"),
            ({"window": "hour", "amount": "0"}, 400, "amount"),
            ({"window": "hour", "amount": "-1"}, 400, "amount"),
            ({"window": "hour", "amount": "0.0000000001"}, 400, "amount"),
            ({"window": "hour", "amount": "9223372036.854775807"}, 400, "amount"),
            ({"window": "hour", "amount": True}, 400, "amount"),
            ({"window": "hour"}, 400, "amount"),
            ({"window": "minute", "amount": "1"}, 400, "window"),
            ({"window": "hour", "amount": "1", "currency": "EUR"}, 400, "currency"),
            ({"window": "hour", "amount": 1.5, "unit": "tokens"}, 400, "amount"),
            ({"window": "hour", "amount": "1", "unit": "bytes"}, 400, "unit"),
            ({"window": "hour", "amount": "1", "account": "user:nobody/ann"}, 404, "account"),
            ({"window": "hour", "amount": "1", "account": "person:ann"}, 400, "account"),
        ],
    )
    def test_a_wrong_top_up_is_refused(self, house: House, tenant: Tenant, body: Any, status: int, param: str) -> None:
        put(house, tenant.id, {"hour": "1", "day": None})
        before = house.request("GET", "/admin/budgets/changes").json
        answer = house.request("POST", "/admin/budgets/top-up", {"account": tenant.id, **body})
        assert (answer.status, answer.error["param"]) == (status, param), answer
        assert house.request("GET", "/admin/budgets/changes").json == before


class TestWrongBudgets:
    """Nothing that cannot be is taken, and then nothing at all is changed."""

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"hour": "-1"}, "hour"),
            ({"hour": "0.0000000001"}, "hour"),
            ({"hour": 9.5e-10}, "hour"),
            ({"hour": "9223372036.854775808"}, "hour"),
            ({"hour": "NaN"}, "hour"),
            ({"hour": True}, "hour"),
            ({"hour": ["1"]}, "hour"),
            ({"minute": "1"}, "minute"),
            ({"year": "1"}, "year"),
            ({"hour": {}}, "hour.cap"),
            ({"hour": {"cap": "1", "currency": "EUR"}}, "hour.currency"),
            ({"hour": {"cap": "1", "unit": "bytes"}}, "hour.unit"),
            ({"hour": {"cap": "1", "unit": "tokens"}}, "hour.cap"),
            ({"hour": {"cap": 1.0, "unit": "tokens"}}, "hour.cap"),
            ({"hour": {"cap": -1, "unit": "tokens"}}, "hour.cap"),
            ({"hour": {"cap": 2**63, "unit": "tokens"}}, "hour.cap"),
            ({"hour": {"cap": "1", "rule": "maybe"}}, "hour.rule"),
            ({"hour": {"cap": "1", "rule": "grace"}}, "hour.percent"),
            ({"hour": {"cap": "1", "rule": "overage", "percent": 99}}, "hour.percent"),
            ({"hour": {"cap": "1", "percent": 5}}, "hour.percent"),
            ({"hour": {"cap": "1", "rule": "grace", "percent": "5"}}, "hour.percent"),
            ({"hour": {"cap": 1, "unit": "tokens", "rule": "overage", "percent": 150}}, "hour.rule"),
            ({"hour": {"cap": "1", "alerts": [0]}}, "hour.alerts"),
            ({"hour": {"cap": "1", "alerts": [1] * 9}}, "hour.alerts"),
            ({"hour": {"cap": "1", "colour": "red"}}, "hour.colour"),
            ({"day": "3", "total": {"cap": "1", "percent": 5}}, "total.percent"),
        ],
    )  # fmt: skip
    def test_what_is_no_budget_is_refused_naming_the_field(
        self, house: House, tenant: Tenant, body: Any, param: str
    ) -> None:
        before = shown(house, tenant.id)
        assert refused(house, tenant.id, body)["param"] == param
        assert shown(house, tenant.id) == before

    def test_a_cap_below_what_is_spent_is_refused_in_all_windows_or_none(self, house: House, tenant: Tenant) -> None:
        call(house, tenant.key, user="ann")
        error = refused(house, tenant.id, {"hour": "7", "day": "0.000000001"})
        assert error["param"] == "day.cap"
        assert "suspend" in error["message"]
        assert shown(house, tenant.id)["windows"]["hour"]["cap_usd"] == "1000.00"
        for body in ({"day": "0.000000001"}, {"total": "0"}, {"month": {"cap": 3, "unit": "tokens"}}):
            assert refused(house, f"user:{tenant.id}/ann", body)["param"].endswith(".cap")

    @pytest.mark.parametrize(
        ("account", "status"),
        [
            ("nobody", 404),
            ("tenant:nobody", 404),
            ("user:nobody/ann", 404),
            ("organisation:nowhere", 404),
            ("key:default/key_unknown", 404),
            ("model:default/gpt-9", 404),
            ("person:ann", 400),
            ("user:default", 400),
            ("user:default/", 400),
            ("tenant:default/ann", 400),
            ("user:default/" + "x" * 257, 400),
            ("feature:default/a\x7fb", 400),
        ],
    )
    def test_an_account_there_is_not_is_refused(self, house: House, account: str, status: int) -> None:
        for answer in (
            put(house, account, {"hour": "1"}),
            house.request("GET", f"/admin/budgets/{quote(account)}"),
            house.request("POST", "/admin/budgets/suspend", {"account": account}),
            house.request("POST", "/admin/budgets/resume", {"account": account}),
        ):
            assert (answer.status, answer.error["param"]) == (status, "account"), answer

    def test_a_key_of_one_tenant_is_none_of_another(self, house: House, tenant: Tenant) -> None:
        key = house.request("GET", f"/admin/keys?tenant={tenant.id}").json["data"][0]["id"]
        assert refused(house, f"key:default/{key}", {"hour": "1"})["param"] == "account"


class TestChanges:
    """Each change is a row of the journal: who, when, what."""

    def test_every_change_is_written_down_newest_first(self, house: House, tenant: Tenant) -> None:
        put(house, tenant.id, {"day": "5"})
        house.request("POST", "/admin/budgets/top-up", {"account": tenant.id, "window": "day", "amount": "2"})
        other = house.request("POST", "/admin/keys", {"tenant": "default", "role": "admin"}).json
        body = {"account": tenant.id}
        house.request("POST", "/admin/budgets/suspend", body, key=other["key"])
        found = house.request("GET", f"/admin/budgets/changes?account={tenant.name}").json["data"]
        assert [one["action"] for one in found] == ["suspend", "top-up", "set"]
        assert [one["by"] for one in found] == [other["id"], "key_admin", "key_admin"]
        assert [one["account"] for one in found] == [f"tenant:{tenant.id}"] * 3
        assert (found[1]["amount_usd"], found[1]["extra_usd"], found[1]["cap_usd"]) == ("2.00", "2.00", "5.00")
        assert found[0]["at"] >= found[1]["at"] >= found[2]["at"] > 1_700_000_000
        newest = house.request("GET", "/admin/budgets/changes?limit=1").json["data"]
        assert newest == found[:1]

    @pytest.mark.parametrize(
        ("query", "param"), [("limit=0", "limit"), ("limit=x", "limit"), ("account=a:b", "account")]
    )
    def test_a_wrong_question_is_refused(self, house: House, query: str, param: str) -> None:
        answer = house.request("GET", f"/admin/budgets/changes?{query}")
        assert (answer.status, answer.error["param"]) == (400, param)


class TestOrganisations:
    """Tenants in organisations, organisations in one another, and budgets that all in one share."""

    def test_all_beneath_an_organisation_share_its_budget(self, house: House) -> None:
        house.request("PUT", "/admin/organisations/world")
        house.request("PUT", "/admin/organisations/europe", {"parent": "world"})
        first, second = (house.tenant(policy={"organisation": name}) for name in ("world", "europe"))
        shared = put(house, "organisation:world", {"day": "1"}).json
        assert (shared["tenant"], shared["windows"]["day"]["spent_usd"]) == (None, "0.00")
        call(house, second.key)
        spent = shown(house, "organisation:world")["windows"]["day"]["spent_usd"]
        assert spent == spent_by(house, second.key)
        put(house, "organisation:world", {"day": spent})
        for one in (first, second):
            assert call(house, one.key).status == 402

    def test_what_is_moved_pays_where_it_is_at_once(self, house: House) -> None:
        for name in ("poor", "rich", "between"):
            house.request("PUT", f"/admin/organisations/{name}")
        put(house, "organisation:poor", {"day": "0"})
        one = house.tenant(policy={"organisation": "between"})
        assert call(house, one.key).status == 200
        house.request("PUT", "/admin/organisations/between", {"parent": "poor"})
        assert call(house, one.key).status == 402
        house.request("PATCH", f"/admin/tenants/{one.id}", {"policy": {"organisation": "rich"}})
        assert call(house, one.key).status == 200

    def test_an_organisation_is_made_moved_shown_and_deleted(self, house: House) -> None:
        assert house.request("PUT", "/admin/organisations/top").json["parent"] is None
        made = house.request("PUT", "/admin/organisations/low", {"parent": "top"}).json
        assert (made["name"], made["parent"]) == ("low", "top")
        one = house.tenant(policy={"organisation": "low"})
        found = house.request("GET", "/admin/organisations/low").json
        assert (found["above"], found["tenants"]) == (["top"], [one.id])
        assert house.request("GET", "/admin/organisations/top").json["tenants"] == [one.id]
        assert made in house.request("GET", "/admin/organisations").json["data"]
        for name in ("top", "low"):
            assert house.request("DELETE", f"/admin/organisations/{name}").status == 409
        house.request("DELETE", f"/admin/tenants/{one.id}")
        for name in ("low", "top"):
            assert house.request("DELETE", f"/admin/organisations/{name}").status == 204
            assert house.request("GET", f"/admin/organisations/{name}").status == 404
            assert house.request("DELETE", f"/admin/organisations/{name}").status == 404

    def test_budgets_do_not_outlive_an_organisation(self, house: House) -> None:
        house.request("PUT", "/admin/organisations/short")
        put(house, "organisation:short", {"day": "1"})
        assert house.request("DELETE", "/admin/organisations/short").error["code"] == "conflict"
        put(house, "organisation:short", {"day": None})
        assert house.request("DELETE", "/admin/organisations/short").status == 204
        assert put(house, "organisation:short", {"day": "1"}).status == 404
        assert "organisation:short" not in json.dumps(house.request("GET", "/admin/budgets").json)

    @pytest.mark.parametrize(
        ("name", "parent", "status", "param"),
        [
            ("ring-1", "ring-3", 409, "parent"),
            ("ring-1", "ring-1", 409, "parent"),
            ("ring-1", "nowhere", 404, "parent"),
            ("ring-1", 5, 400, "parent"),
            ("a%20", None, 400, "name"),
            ("x" * 65, None, 400, "name"),
            ("a:b", None, 400, "name"),
        ],
    )
    def test_what_cannot_be_is_refused_and_changes_nothing(
        self, house: House, name: str, parent: Any, status: int, param: str
    ) -> None:
        house.request("PUT", "/admin/organisations/ring-1")
        house.request("PUT", "/admin/organisations/ring-2", {"parent": "ring-1"})
        house.request("PUT", "/admin/organisations/ring-3", {"parent": "ring-2"})
        before = house.request("GET", "/admin/organisations").json
        answer = house.request("PUT", f"/admin/organisations/{name}", {"parent": parent})
        assert (answer.status, answer.error["param"]) == (status, param), answer
        assert house.request("GET", "/admin/organisations").json == before


class TestCommandLine:
    """Commands that write into the files of a running server, which learns of it within two seconds."""

    def test_a_running_server_obeys_what_the_command_line_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HEADGATE_ADMIN_KEY", ADMIN_KEY)
        data = tmp_path / "data"
        with opened(data) as house:
            config = tmp_path / "headgate.yaml"
            config.write_text(json.dumps(settings(house.simulator.url)))

            def headgate(*args: str) -> Any:
                places = ("--config", str(config), "--data", str(data), "--json")
                outcome = CliRunner().invoke(main, [*args, *places])
                assert outcome.exit_code == 0, outcome.output
                return json.loads(outcome.stdout)

            def answers(status: int, **headers: str) -> None:
                eventually(lambda: call(house, one.key, **headers).status == status)

            one = house.tenant()
            assert call(house, one.key).status == 200
            headgate("budgets", "suspend", one.name)
            answers(402)
            headgate("budgets", "resume", one.name)
            answers(200)
            headgate("budgets", "set", f"user:{one.name}/ann", "--day", "0")
            answers(402, user="ann")
            headgate("budgets", "top-up", f"user:{one.name}/ann", "day", "1")
            answers(200, user="ann")
            headgate("budgets", "set", f"model:{one.name}/small", "--hour", "5", "--rule", "soft")
            headgate("organisations", "set", "north")
            headgate("budgets", "set", "organisation:north", "--total", "0")
            headgate("tenants", "update", one.name, "--organisation", "north")
            answers(402)
            headgate("tenants", "update", one.name, "--organisation", "none")
            answers(200)
            by_file = headgate("budgets", "changes")
            assert house.request("GET", "/admin/budgets/changes").json["data"] == by_file
            assert {change["by"] for change in by_file} == {"headgate"}
