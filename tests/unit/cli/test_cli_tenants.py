"""`headgate tenants` and `keys`, on real files."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from headgate.assembly import open_books
from headgate.budget.sqlite import SqliteLedger
from headgate.config import Config
from headgate.model.errors import Unauthenticated
from headgate.model.tenancy import Principal
from tests.unit.cli.conftest import Headgate, printed


def who(key: str) -> Principal:
    """Whom a key belongs to, asked as the server asks."""

    async def ask() -> Principal:
        async with open_books(Config(), Path("headgate-data")) as books:
            return await books.tenants.authenticate(key)

    return asyncio.run(ask())


def test_a_tenant_is_created_with_the_terms_that_were_given(headgate: Headgate) -> None:
    terms = ("--hour", "5", "--day", "none", "--rpm", "60", "--allow", "auto", "--prefer", "gpt-4o", "--tier", "low")
    made = printed(headgate("tenants", "create", "acme", *terms, "--json"))
    assert made["budget"] == {"hour": "5.00", "day": None, "week": None, "month": None, "total": None}
    assert (made["name"], made["rpm"], made["concurrency"]) == ("acme", 60, 50)
    said = {"allowed_models": ["auto"], "prefer": ["gpt-4o"], "tier": "low", "abandoned": "finish"}
    assert {name: made["policy"][name] for name in said} == said
    assert made["created"] <= time.time()
    assert printed(headgate("tenants", "show", "acme", "--json")) == made
    assert printed(headgate("tenants", "show", made["id"], "--json")) == made


def test_defaults_come_from_the_configuration(headgate: Headgate) -> None:
    Path("headgate.yaml").write_text("tenant_defaults: {budget: {hour: none, month: 12.50}, rpm: 7}")
    made = printed(headgate("tenants", "create", "acme", "--json"))
    assert (made["budget"]["hour"], made["budget"]["month"], made["rpm"]) == (None, "12.50", 7)


def test_changes_leave_the_rest_alone_and_words_take_limits_away(headgate: Headgate) -> None:
    headgate("tenants", "create", "acme", "--hour", "5", "--allow", "auto", "--prefer", "x", "--tier", "high")
    changes = ("--hour", "none", "--allow", "all", "--prefer", "none", "--tier", "auto", "--name", "acme-2")
    changed = printed(headgate("tenants", "update", "acme", *changes, "--json"))
    assert changed["budget"]["hour"] is None
    said = {"allowed_models": None, "prefer": [], "tier": None, "abandoned": "finish"}
    assert {name: changed["policy"][name] for name in said} == said
    assert printed(headgate("tenants", "update", "acme-2", "--rpm", "9", "--json"))["name"] == "acme-2"


def test_tenants_are_listed_and_shown_for_people(headgate: Headgate) -> None:
    headgate("tenants", "create", "acme", "--hour", "0.25")
    line = next(each for each in headgate("tenants", "list").stdout.splitlines() if " acme " in each)
    assert line.split()[1:] == ["acme", "0.25", "none", "none", "none", "none", "120", "50", "-"]
    shown = headgate("tenants", "show", "acme").stdout
    assert "allowed models    all\n" in shown
    assert "tier              auto\n" in shown


def test_a_tenant_is_deleted_with_its_keys_when_meant(headgate: Headgate) -> None:
    headgate("tenants", "create", "acme")
    key = headgate("keys", "create", "acme").stdout.strip()
    assert headgate("tenants", "delete", "acme", code=2).stderr.startswith("error: This deletes acme and all its keys")
    assert who(key).role == "caller"
    assert headgate("tenants", "delete", "acme", "--yes").stdout.startswith("deleted acme (t_")
    with pytest.raises(Unauthenticated):
        who(key)


@pytest.mark.parametrize(
    "args",
    [
        ("tenants", "create", "acme"),
        ("tenants", "show", "nobody"),
        ("keys", "revoke", "key_nope"),
        ("keys", "create", "no"),
    ],
)
def test_what_the_store_refuses_is_one_line_and_exit_code_one(headgate: Headgate, args: tuple[str, ...]) -> None:
    headgate("tenants", "create", "acme")
    told = headgate(*args, code=1).stderr
    assert told.startswith("error: There is ")
    assert told.count("\n") == 1


def test_whose_a_tenant_is_and_how_it_pays_can_be_said_and_taken_back(headgate: Headgate) -> None:
    headgate("organisations", "set", "north")
    terms = ("--organisation", "north", "--zone", "Europe/Berlin", "--hit-percent", "50", "--customer", "cus_1")
    made = printed(headgate("tenants", "create", "acme", "--week", "20", "--tpm", "5000", *terms, "--json"))
    assert (made["tpm"], made["budget"]["week"]) == (5_000, "20.00")
    said = {"organisation": "north", "zone": "Europe/Berlin", "hit_percent": 50, "customer": "cus_1"}
    assert {name: made["policy"][name] for name in said} == said
    back = ("--organisation", "none", "--customer", "none", "--tpm", "none", "--zone", "UTC")
    changed = printed(headgate("tenants", "update", "acme", *back, "--json"))
    assert changed["tpm"] is None
    assert [changed["policy"][name] for name in ("organisation", "customer", "zone")] == [None, None, "UTC"]


def test_what_its_calls_share_and_who_pays_for_it_can_be_said(headgate: Headgate) -> None:
    made = printed(headgate("tenants", "create", "acme", "--coalesce", "exact", "--shares", "split", "--json"))
    assert (made["policy"]["coalesce"], made["policy"]["shares"]) == ("exact", "split")
    changed = printed(headgate("tenants", "update", "acme", "--coalesce", "off", "--json"))
    assert (changed["policy"]["coalesce"], changed["policy"]["shares"]) == ("off", "split")
    shown = headgate("tenants", "show", "acme").output
    assert "shares in flight  off" in shown
    assert "shared, paid by   split" in shown


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--coalesce", "sometimes"), 2),
        (("--shares", "nobody"), 2),
        (("--organisation", "nowhere"), 1),
        (("--zone", "Europe/Atlantis"), 1),
        (("--tpm", "many"), 2),
        (("--tpm", "0"), 1),
        (("--hit-percent", "-1"), 2),
        (("--hour", "-1"), 2),
        (("--hour", "0.0000000001"), 2),
        (("--hour", "9223372036.854775808"), 2),
    ],
)
def test_wrong_terms_make_no_tenant_and_change_none(headgate: Headgate, args: tuple[str, ...], code: int) -> None:
    headgate("tenants", "create", "acme")
    before = printed(headgate("tenants", "list", "--json"))
    assert headgate("tenants", "create", "globex", *args, code=code).stderr.count("\n") == 1
    assert headgate("tenants", "update", "acme", "--day", "3", *args, code=code).stderr.count("\n") == 1
    assert printed(headgate("tenants", "list", "--json")) == before
    assert printed(headgate("budgets", "changes", "--json")) == []


def test_nothing_to_change_is_bad_usage(headgate: Headgate) -> None:
    assert "Nothing to change" in headgate("tenants", "update", "acme", code=2).stderr


def test_a_new_key_is_printed_alone_and_opens_the_door(headgate: Headgate) -> None:
    headgate("tenants", "create", "acme")
    outcome = headgate("keys", "create", "acme", "--name", "ci", "--user", "kim", "--role", "tenant_admin")
    caller = who(outcome.stdout.strip())
    assert (caller.user, caller.role) == ("kim", "tenant_admin")
    assert "shown only now" in outcome.stderr


def test_keys_are_listed_without_the_keys_themselves(headgate: Headgate) -> None:
    headgate("tenants", "create", "acme")
    made = printed(headgate("keys", "create", "acme", "--expires", "2027-01-01", "--json"))
    assert made["expires"] == 1_798_761_600
    (listed,) = printed(headgate("keys", "list", "--tenant", "acme", "--json"))
    assert listed == {name: value for name, value in made.items() if name != "key"}
    headgate("keys", "create", "acme", "--expires", "2020-01-01")
    headgate("keys", "revoke", listed["id"])
    shown = headgate("keys", "list", "--tenant", "acme").stdout
    assert "revoked" in shown
    assert "expired" in shown
    assert made["key"] not in shown


def test_a_revoked_key_opens_nothing(headgate: Headgate) -> None:
    headgate("tenants", "create", "acme")
    made = printed(headgate("keys", "create", "acme", "--json"))
    assert headgate("keys", "revoke", made["id"]).stdout.startswith(f"revoked {made['id']}")
    with pytest.raises(Unauthenticated):
        who(made["key"])


def test_a_rotated_key_works_for_its_grace_and_no_longer(headgate: Headgate) -> None:
    headgate("tenants", "create", "acme")
    old = printed(headgate("keys", "create", "acme", "--json"))
    new = printed(headgate("keys", "rotate", old["id"], "--grace", "1h", "--json"))
    assert who(old["key"]).tenant == who(new["key"]).tenant
    headgate("keys", "rotate", new["id"])
    with pytest.raises(Unauthenticated):
        who(new["key"])


def test_commands_work_while_another_process_serves_from_the_ledger(headgate: Headgate) -> None:
    """The server claims its ledger for as long as it lives; reading it and making keys needs no claim."""
    headgate("tenants", "create", "acme")
    serving = SqliteLedger("headgate-data/headgate.db")
    try:
        assert printed(headgate("usage", "--json"))["data"] == []
        key = headgate("keys", "create", "acme").stdout.strip()
        assert who(key).role == "caller"
        headgate("budgets", "show", "acme")
        headgate("doctor")
    finally:
        asyncio.run(serving.close())


def test_a_tenants_data_may_be_held_in_regions_and_let_go_again(headgate: Headgate) -> None:
    made = printed(headgate("tenants", "create", "acme", "--residency", "eu", "--residency", "ch", "--json"))
    assert made["policy"]["residency"] == ["eu", "ch"]
    assert "eu, ch" in headgate("tenants", "show", "acme").stdout
    free = printed(headgate("tenants", "update", "acme", "--residency", "none", "--json"))
    assert free["policy"]["residency"] is None
    assert "any region" in headgate("tenants", "show", "acme").stdout
    assert "residency" in headgate("tenants", "update", "acme", "--residency", "Europe!", code=1).stderr
