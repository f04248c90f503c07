"""`headgate budgets` and `organisations`, on real files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Headgate, printed, spend

LEDGER = Path("headgate-data/headgate.db")


@pytest.fixture
def acme(headgate: Headgate) -> str:
    """A tenant whose user ann has just spent $0.25."""
    id: str = printed(headgate("tenants", "create", "acme", "--json"))["id"]
    spend(LEDGER, id, 250_000_000, at=time.time())
    return id


def one(headgate: Headgate, *args: str) -> Any:
    """The one standing that a command prints."""
    (standing,) = printed(headgate("budgets", *args, "--json"))
    return standing


def test_budgets_show_what_is_spent_and_left(headgate: Headgate, acme: str) -> None:
    standing = one(headgate, "set", "acme", "--total", "1.00", "--hour", "none")
    assert (standing["tenant"], standing["name"], standing["account"]) == (acme, "acme", f"tenant:{acme}")
    total = standing["windows"]["total"]
    assert (total["cap_usd"], total["spent_usd"], total["left_usd"]) == ("1.00", "0.25", "0.75")
    assert standing["windows"]["hour"]["cap_usd"] is None
    assert one(headgate, "show", "acme") == one(headgate, "show", f"tenant:{acme}") == standing
    line = headgate("budgets", "show", "acme").stdout.splitlines()[-1]
    assert line.split() == ["acme", "total", "usd", "1.00", "0.00", "0.25", "0.00", "0.75", "hard"]
    assert len(headgate("budgets", "show").stdout.splitlines()) >= 5


def test_any_account_has_budgets_in_money_and_in_tokens(headgate: Headgate, acme: str) -> None:
    rule = ("--rule", "grace", "--percent", "10", "--alerts", "90,100")
    row = one(headgate, "set", "user:acme/ann", "--day", "1", *rule)["windows"]["day"]
    assert (row["cap_usd"], row["rule"], row["percent"], row["alerts"]) == ("1.00", "grace", 10, [90, 100])
    row = one(headgate, "set", "user:acme/ann", "--day", "1000", "--unit", "tokens")["tokens"]["day"]
    assert (row["cap_tokens"], row["alerts"]) == (1000, [50, 80, 100])
    assert (
        one(headgate, "set", "feature:acme/search", "--day", "1", "--alerts", "none")["windows"]["day"]["alerts"] == []
    )
    headgate("budgets", "set", "model:acme/sim-small", "--week", "3")
    headgate("organisations", "set", "north")
    headgate("budgets", "set", "organisation:north", "--month", "100")
    shown = printed(headgate("budgets", "show", "--json"))
    names = {each["name"] for each in shown} - {"default", "acme"}
    assert names == {"user:acme/ann", "feature:acme/search", "model:acme/sim-small", "organisation:north"}
    mine = printed(headgate("budgets", "show", "--tenant", "acme", "--json"))
    assert {each["tenant"] for each in mine} == {acme}
    assert "grace 10 %" in headgate("budgets", "show", "user:acme/ann").stdout


def test_a_top_up_and_a_suspension_are_shown_and_written_down(headgate: Headgate, acme: str) -> None:
    headgate("budgets", "set", "acme", "--day", "0.25")
    topped = one(headgate, "top-up", "acme", "day", "0.50")["windows"]["day"]
    assert (topped["extra_usd"], topped["left_usd"]) == ("0.50", "0.50")
    assert one(headgate, "suspend", "acme")["windows"]["day"]["suspended"]
    assert "suspended" in headgate("budgets", "show", "acme").stdout
    assert not one(headgate, "resume", "acme")["windows"]["day"]["suspended"]
    written = printed(headgate("budgets", "changes", "acme", "--json"))
    assert [each["action"] for each in written] == ["resume", "suspend", "top-up", "set"]
    assert {each["by"] for each in written} == {"headgate"}
    assert all(each["account"] == f"tenant:{acme}" and each["at"] <= time.time() for each in written)
    heading, newest = headgate("budgets", "changes", "--limit", "1").stdout.splitlines()
    assert heading.split()[:4] == ["at", "by", "action", "account"]
    assert newest.split()[1:4] == ["headgate", "resume", f"tenant:{acme}"]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("set", "acme"), 2),
        (("set", "acme", "--hour", "-1"), 2),
        (("set", "acme", "--hour", "0.0000000001"), 2),
        (("set", "acme", "--hour", "9223372036.854775808"), 2),
        (("set", "acme", "--hour", "much"), 2),
        (("set", "acme", "--hour", "1.5", "--unit", "tokens"), 2),
        (("set", "acme", "--hour", "9223372036854775808", "--unit", "tokens"), 2),
        (("set", "acme", "--hour", "1", "--unit", "eur"), 2),
        (("set", "acme", "--hour", "1", "--rule", "maybe"), 2),
        (("set", "acme", "--hour", "1", "--alerts", "50;80"), 2),
        (("set", "acme", "--minute", "1"), 2),
        (("set", "acme", "--hour", "1", "--rule", "grace"), 1),
        (("set", "acme", "--hour", "1", "--alerts", "0"), 1),
        (("set", "acme", "--day", "5", "--hour", "0.10"), 1),
        (("set", "user:acme/ann", "--day", "0.10"), 1),
        (("set", "user:acme/ann", "--day", "10", "--unit", "tokens"), 1),
        (("set", "nobody", "--hour", "1"), 1),
        (("set", "person:acme/ann", "--hour", "1"), 1),
        (("set", "organisation:nowhere", "--hour", "1"), 1),
        (("set", "key:acme/key_1", "--hour", "1"), 1),
        (("set", "model:acme/gpt-9", "--hour", "1"), 1),
        (("top-up", "acme", "day", "1"), 1),
        (("top-up", "acme", "hour", "0"), 1),
        (("top-up", "acme", "hour", "-1"), 2),
        (("top-up", "acme", "minute", "1"), 2),
        (("suspend", "nobody"), 1),
        (("resume", "user:nobody/ann"), 1),
        (("changes", "nobody"), 1),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(
    headgate: Headgate, acme: str, args: tuple[str, ...], code: int
) -> None:
    told = headgate("budgets", *args, code=code).stderr
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert printed(headgate("budgets", "changes", "--json")) == []
    assert acme in {each["tenant"] for each in printed(headgate("budgets", "show", "--json"))}


def test_organisations_are_made_moved_listed_and_deleted(headgate: Headgate) -> None:
    headgate("organisations", "set", "north")
    (made,) = printed(headgate("organisations", "set", "oslo", "--parent", "north", "--json"))
    assert (made["name"], made["parent"]) == ("oslo", "north")
    assert [each["name"] for each in printed(headgate("organisations", "list", "--json"))] == ["north", "oslo"]
    assert headgate("organisations", "list").stdout.splitlines()[2].split()[:2] == ["oslo", "north"]
    for args in (
        ("set", "north", "--parent", "oslo"),
        ("set", "south", "--parent", "nowhere"),
        ("set", "a/b"),
        ("delete", "north"),
        ("delete", "nowhere"),
    ):
        assert headgate("organisations", *args, code=1).stderr.count("\n") == 1
    headgate("budgets", "set", "organisation:oslo", "--day", "1")
    assert "budgets" in headgate("organisations", "delete", "oslo", code=1).stderr
    headgate("budgets", "set", "organisation:oslo", "--day", "none")
    assert printed(headgate("organisations", "delete", "oslo", "--json")) == {"name": "oslo", "deleted": True}
    assert headgate("organisations", "delete", "north").stdout == "deleted north\n"
