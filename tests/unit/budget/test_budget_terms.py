"""Terms: on which scopes a call counts, and which of them limit it."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.budget.allowance import Allowance
from headgate.budget.allowances import Allowances
from headgate.budget.budget import Scope
from headgate.budget.terms import Scoping, Terms
from headgate.model.tenancy import Caps, Policy, Principal, Wishes

NOON = 1_795_176_000.0
"""2026-11-20T12:00:00Z."""

WISHES = Wishes()


class House:
    """Allowances, a clock and who asks."""

    def __init__(self, defaults: Caps | None = None) -> None:
        self.now = NOON
        self.allowances = Allowances(defaults)
        self.scoping = Scoping(self.allowances, now=lambda: self.now)

    def allow(self, account: str, cap: int | None = 100, **fields: Any) -> None:
        self.allowances.put(Allowance(**{"account": account, "window": "day", "cap": cap, **fields}))

    def terms(self, wishes: Wishes = WISHES, **fields: Any) -> Terms:
        return self.scoping.terms(Principal(**{"tenant": "acme", "key": "k1", **fields}), wishes)

    def places(self, wishes: Wishes = WISHES, **fields: Any) -> list[tuple[str, str]]:
        return [(scope.account, scope.window) for scope in self.terms(wishes, **fields).scopes]


@pytest.fixture
def house() -> House:
    return House()


TENANT = [
    ("tenant:acme", "hour:2026-11-20T12"),
    ("tenant:acme", "day:2026-11-20"),
    ("tenant:acme", "week:2026-W47"),
    ("tenant:acme", "month:2026-11"),
    ("tenant:acme", "total"),
]


def test_a_tenants_windows_are_always_counted(house: House) -> None:
    terms = house.terms()
    assert [(scope.account, scope.window) for scope in terms.scopes] == TENANT
    assert all(scope.cap is None for scope in terms.scopes)
    assert not terms.capped


def test_a_tenant_of_which_nothing_was_said_has_the_default_caps() -> None:
    house = House(Caps(day=5))
    house.allow("tenant:other", 9)
    caps = {scope.window: scope.cap for scope in house.terms().scopes}
    assert caps["day:2026-11-20"] == 5
    assert house.terms(tenant="other").scopes[1].cap == 9
    assert house.terms().capped


def test_a_call_counts_on_everybody_above_and_beneath_its_tenant(house: House) -> None:
    for account in ("organisation:team", "organisation:all", "user:acme/ann", "key:acme/k1", "feature:acme/search"):
        house.allow(account)
    for account in ("organisation:other", "user:acme/bob", "user:other/ann", "key:acme/k2"):
        house.allow(account)
    further = set(house.places(Wishes(feature="search"), user="ann", organisations=("team", "all"))) - set(TENANT)
    assert {account for account, _ in further} == {
        "organisation:team",
        "organisation:all",
        "user:acme/ann",
        "key:acme/k1",
        "feature:acme/search",
    }


def test_the_user_that_a_caller_names_goes_before_that_of_its_key(house: House) -> None:
    house.allow("user:acme/ann")
    house.allow("user:acme/bob")
    assert ("user:acme/bob", "day:2026-11-20") in house.places(Wishes(user="bob"), user="ann")
    assert ("user:acme/ann", "day:2026-11-20") not in house.places(Wishes(user="bob"), user="ann")


def test_an_organisation_named_twice_counts_once(house: House) -> None:
    house.allow("organisation:all")
    assert len(house.places(organisations=("all", "all"))) == len(TENANT) + 1


def test_windows_are_those_of_the_tenants_zone_and_of_utc_above_it(house: House) -> None:
    house.now = NOON + 12 * 3_600 - 60
    house.allow("organisation:all")
    house.allow("key:acme/k1")
    places = house.places(policy=Policy(zone="Asia/Tokyo"), organisations=("all",))
    assert ("organisation:all", "day:2026-11-20") in places
    assert ("key:acme/k1", "day:2026-11-21@Asia/Tokyo") in places
    assert ("tenant:acme", "day:2026-11-21@Asia/Tokyo") in places


def test_a_change_applies_to_the_next_call(house: House) -> None:
    assert not house.terms().capped
    house.allow("key:acme/k1")
    assert house.terms().capped
    house.allow("key:acme/k1", suspended=True)
    assert house.terms().scopes[-1].cap == -1
    house.allow("key:acme/k1", None)
    assert not house.terms().capped


def test_a_new_window_begins_with_the_clock(house: House) -> None:
    before = house.places()
    house.now += 3_599
    assert house.places() == before
    house.now += 1
    assert house.places()[0] == ("tenant:acme", "hour:2026-11-20T13")
    house.now -= 1
    assert house.places() == before


def test_callers_of_whom_nothing_was_said_share_their_terms(house: House) -> None:
    """However many users a caller invents, they take no room."""
    house.allow("user:acme/ann")
    assert house.terms(Wishes(user="u1", feature="f1")) is house.terms(Wishes(user="u2", feature="f2"), key="k2")
    assert house.terms(Wishes(user="ann")) is not house.terms(Wishes(user="u1"))


@pytest.mark.parametrize(
    ("fields", "cap", "capped"),
    [
        ({"rule": "hard"}, 100, True),
        ({"rule": "soft"}, None, False),
        ({"rule": "overage", "percent": 150}, None, False),
        ({"rule": "grace", "percent": 20}, 120, True),
        ({"rule": "degrade"}, None, True),
        ({"rule": "soft", "suspended": True}, -1, True),
        ({"rule": "degrade", "suspended": True}, -1, True),
        ({"unit": "tokens"}, 100, False),
        ({"extra": 7, "extra_window": "day:2026-11-20"}, 107, True),
        ({"extra": 7, "extra_window": "day:2026-11-19"}, 100, True),
        ({"rule": "grace", "percent": 10, "extra": 10, "extra_window": "day:2026-11-20"}, 121, True),
    ],
)
def test_what_a_rule_lets_in(house: House, fields: dict[str, Any], cap: int | None, capped: bool) -> None:
    house.allow("key:acme/k1", **fields)
    terms = house.terms()
    assert terms.scopes[-1].cap == cap
    assert terms.capped == capped
    assert terms.scopes[-1].allowance is not None


def test_an_allowance_without_a_cap_only_counts(house: House) -> None:
    house.allow("key:acme/k1", None)
    assert house.terms().scopes[-1] == Scope("key:acme/k1", "day:2026-11-20")


def test_where_there_is_no_cheaper_tier_a_degrading_budget_refuses(house: House) -> None:
    house.allow("key:acme/k1", rule="degrade")
    house.allow("model:acme/big", 50, rule="degrade")
    terms = house.terms()
    assert [scope.account for scope in terms.degrading] == ["key:acme/k1", "model:acme/big"]
    assert [scope.cap for scope in terms.scopes_of(["big"], tiered=True)[-2:]] == [None, None]
    assert [scope.cap for scope in terms.scopes_of(["big"], tiered=False)[-2:]] == [100, 50]


def test_a_call_counts_on_the_models_it_may_go_to(house: House) -> None:
    house.allow("model:acme/big")
    house.allow("model:acme/big", window="month")
    house.allow("model:acme/small")
    house.allow("model:other/big")
    terms = house.terms()
    assert terms.capped
    scopes = terms.scopes_of(["big", "other", "big"], tiered=False)
    assert [(scope.account, scope.window, scope.deployment) for scope in scopes[len(TENANT) :]] == [
        ("model:acme/big", "day:2026-11-20", "big"),
        ("model:acme/big", "month:2026-11", "big"),
    ]
    assert terms.scopes_of((name for name in ["big", "other", "big"]), tiered=False) is scopes
    assert terms.scopes_of(["other"], tiered=False) == terms.scopes


def test_tokens_a_minute_are_a_scope_of_the_tenant(house: House) -> None:
    assert house.terms(policy=Policy(tpm=900, zone="Asia/Tokyo")).scopes[-1] == Scope(
        "tenant:acme", "tokens/minute:2026-11-20T12:00", 900, tokens=True
    )


def test_a_rate_of_tokens_begins_anew_with_every_minute(house: House) -> None:
    limited = Policy(tpm=900)
    assert house.terms(policy=limited).scopes[-1].window == "tokens/minute:2026-11-20T12:00"
    house.now += 60
    assert house.terms(policy=limited).scopes[-1].window == "tokens/minute:2026-11-20T12:01"


def test_a_token_budget_has_a_window_of_its_own(house: House) -> None:
    house.allow("tenant:acme", 7)
    house.allow("tenant:acme", 900, unit="tokens")
    scopes = {scope.window: (scope.cap, scope.tokens) for scope in house.terms().scopes}
    assert scopes["day:2026-11-20"] == (7, False)
    assert scopes["tokens/day:2026-11-20"] == (900, True)


def test_only_accounts_beneath_the_tenant_that_limit_money_are_personal(house: House) -> None:
    house.allow("tenant:acme")
    house.allow("organisation:all")
    house.allow("key:acme/k1", rule="soft")
    house.allow("feature:acme/search", unit="tokens")
    house.allow("user:acme/ann")
    terms = house.terms(Wishes(feature="search"), user="ann", organisations=("all",))
    assert terms.personal == ("user:acme/ann",)
