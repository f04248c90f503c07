"""What callers do with answers in stock over HTTP: take them out, say that one was wrong, take a stale one, lower the error rate."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.house import ADMIN_KEY, Answer, House, Tenant, eventually, refused

CHAT = "/v1/chat/completions"
PATHS = ("/v1/cache/invalidate", "/cache/invalidate")


@pytest.fixture
def ask(house: House, tenant: Tenant) -> Any:
    def ask(
        text: str = "How do I export my invoices?", *, model: str = "auto", key: str | None = None, **wishes: str
    ) -> Answer:
        headers = {f"x-headgate-{name.replace('_', '-')}": value for name, value in wishes.items()}
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        return house.request("POST", CHAT, body, key=key or tenant.key, headers=headers)

    return ask


def source(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return answer.headers["x-headgate-source"]


def kept(house: House, answer: Answer, tenant: Tenant) -> None:
    """Wait until an answer is in stock: it is given before it is kept."""
    path = f"/admin/cache/entries?tenant={tenant.id}"
    entry = answer.headers["x-headgate-entry"]
    eventually(lambda: entry in [one["id"] for one in house.request("GET", path).json["data"]])


class TestInvalidation:
    @pytest.fixture
    def drop(self, house: House, tenant: Tenant) -> Any:
        def drop(body: Any, *, key: str | None = None, path: str = PATHS[0]) -> Answer:
            return house.request("POST", path, body, key=key or tenant.key)

        return drop

    @pytest.mark.parametrize("path", PATHS)
    def test_all_is_all_of_the_tenants_own(self, house: House, ask: Any, drop: Any, path: str) -> None:
        other = house.tenant()
        ask()
        ask("Where is my parcel?", namespace="shop")
        ask(key=other.key)
        answer = drop({"all": True}, path=path)
        assert (answer.status, answer.json) == (200, {"removed": 2})
        assert source(ask()) == "live"
        assert source(ask(key=other.key)) == "exact"

    @pytest.mark.parametrize(
        ("body", "removed"),
        [
            ({"tags": ["prices"]}, 1),
            ({"tags": ["nothing", "eu"]}, 1),
            ({"tags": ["nothing"]}, 0),
            ({"user": "ann"}, 1),
            ({"namespace": "shop"}, 1),
            ({"namespace": ""}, 0),
            ({"model": "auto"}, 1),
            ({"model": "large"}, 0),
            ({"tags": ["eu"], "user": "ann", "namespace": "shop", "model": "auto"}, 1),
            ({"tags": ["eu"], "user": "bob"}, 0),
        ],
    )
    def test_an_answer_goes_by_all_that_is_said_of_it(self, ask: Any, drop: Any, body: Any, removed: int) -> None:
        ask(cache_tags="prices, eu", user="ann", namespace="shop")
        assert drop(body).json == {"removed": removed}

    def test_one_answer_goes_by_its_id(self, ask: Any, drop: Any) -> None:
        entry = ask().headers["x-headgate-entry"]
        ask("Where is my parcel?")
        assert drop({"entry": entry}).json == {"removed": 1}
        assert source(ask()) == "live"
        assert source(ask("Where is my parcel?")) == "exact"

    def test_an_answer_under_way_is_not_kept(self, house: House, ask: Any, drop: Any, tenant: Tenant) -> None:
        body = {"model": "slow", "messages": [{"role": "user", "content": "How slow is this?"}]}
        before = house.calls().calls
        with house.connection() as line:
            line.send("POST", CHAT, body, key=tenant.key)
            eventually(lambda: house.calls().calls > before)
            assert drop({"all": True}).json == {"removed": 0}
            with line.response() as response:
                assert response.status == 200
        assert source(ask("How slow is this?", model="slow")) == "live"

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({}, None),
            ([], None),
            ({"all": False}, None),
            ({"all": None, "user": None}, None),
            ({"all": 1}, "all"),
            ({"all": "yes"}, "all"),
            ({"all": True, "user": "ann"}, "all"),
            ({"colour": "red"}, "colour"),
            ({"tenant": "other", "all": True}, "tenant"),
            ({"tags": []}, "tags"),
            ({"tags": [1]}, "tags"),
            ({"tags": ["x"] * 101}, "tags"),
            ({"user": ""}, "user"),
            ({"user": "x" * 257}, "user"),
            ({"entry": 7}, "entry"),
        ],
    )
    def test_what_does_not_say_which_is_refused(self, ask: Any, drop: Any, body: Any, param: str | None) -> None:
        ask()
        refused(drop(body), 400, param)
        assert source(ask()) == "exact"

    def test_one_tag_need_not_be_a_list(self, ask: Any, drop: Any) -> None:
        ask(cache_tags="prices")
        assert drop({"tags": "prices"}).json == {"removed": 1}

    def test_a_key_that_is_one_users_reaches_that_users_answers_only(
        self, house: House, tenant: Tenant, ask: Any, drop: Any
    ) -> None:
        made = house.request("POST", "/admin/keys", {"tenant": tenant.id, "user": "ann"}).json["key"]
        ask("Who am I?", key=made)
        ask("Who are you?", user="bob")
        refused(drop({"user": "bob"}, key=made), 403)
        assert drop({"all": True}, key=made).json == {"removed": 1}
        assert source(ask("Who are you?")) == "exact"

    def test_without_a_key_nothing_goes(self, house: House) -> None:
        refused(house.request("POST", PATHS[0], {"all": True}, key=None), 401)

    def test_it_takes_a_post_only(self, house: House, tenant: Tenant) -> None:
        assert house.request("GET", PATHS[0], key=tenant.key).status == 405


class TestFeedback:
    @pytest.fixture
    def say(self, house: House, tenant: Tenant) -> Any:
        def say(body: Any, *, key: str | None = None, path: str = "/v1/feedback") -> Answer:
            return house.request("POST", path, body, key=key or tenant.key)

        return say

    @pytest.mark.parametrize("path", ["/v1/feedback", "/feedback"])
    def test_a_wrong_answer_from_stock_is_withdrawn_at_once(self, ask: Any, say: Any, path: str) -> None:
        ask()
        id = ask().headers["x-request-id"]
        said = {"request_id": id, "correct": False, "reason": "it says nothing about invoices"}
        answer = say(said, path=path)
        assert (answer.status, answer.json["withdrawn"]) == (200, True)
        assert say(said, path=path).json["withdrawn"] is False
        assert source(ask()) == "live"

    def test_a_wrong_live_answer_is_not_given_again(self, ask: Any, say: Any) -> None:
        id = ask().headers["x-request-id"]
        assert say({"request_id": id, "correct": False}).json["withdrawn"]
        assert source(ask()) == "live"

    def test_a_wrong_answer_by_meaning_is_withdrawn_and_teaches(
        self, house: House, tenant: Tenant, ask: Any, say: Any
    ) -> None:
        kept(house, ask("How do I reset my password?"), tenant)
        again = ask("How can I reset my password?")
        assert source(again) == "semantic"
        assert 0 < float(again.headers["x-headgate-confidence"]) <= 1
        told = say({"request_id": again.headers["x-request-id"], "correct": False}).json
        assert (told["withdrawn"], told["learned"]) == (True, True)
        assert source(ask("How can I reset my password?")) == "live"

    def test_a_right_answer_stays(self, ask: Any, say: Any) -> None:
        id = ask().headers["x-request-id"]
        assert say({"request_id": id, "correct": True}).json["withdrawn"] is False
        assert source(ask()) == "exact"

    def test_the_id_of_the_completion_is_understood_too(self, ask: Any, say: Any) -> None:
        assert say({"request_id": ask().json["id"], "correct": False}).json["withdrawn"]

    def test_nobody_speaks_of_the_answers_of_others(self, house: House, ask: Any, say: Any) -> None:
        id = ask().headers["x-request-id"]
        refused(say({"request_id": id, "correct": False}, key=house.tenant().key), 404)
        refused(say({"request_id": "never-was", "correct": False}), 404)
        assert source(ask()) == "exact"

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ([], None),
            ({}, "request_id"),
            ({"request_id": "", "correct": True}, "request_id"),
            ({"request_id": 7, "correct": True}, "request_id"),
            ({"request_id": "x"}, "correct"),
            ({"request_id": "x", "correct": "no"}, "correct"),
            ({"request_id": "x", "correct": True, "reason": 1}, "reason"),
            ({"request_id": "x", "correct": True, "reason": "x" * 1_001}, "reason"),
            ({"request_id": "x", "correct": True, "colour": "red"}, "colour"),
        ],
    )
    def test_what_cannot_be_understood_is_refused(self, say: Any, body: Any, param: str | None) -> None:
        refused(say(body), 400, param)


class TestStrictness:
    """Callers can only raise the bar, and say how."""

    def test_bypass_leaves_only_what_is_exact(self, house: House, tenant: Tenant, ask: Any) -> None:
        kept(house, ask("How do I reset my password?"), tenant)
        assert source(ask("How can I reset my password?", cache_strategy="bypass")) == "live"
        assert source(ask("How can I reset my password?", cache_strategy="bypass")) == "exact"

    def test_an_error_rate_of_nothing_takes_no_paraphrase(self, house: House, tenant: Tenant, ask: Any) -> None:
        kept(house, ask("How do I reset my password?"), tenant)
        assert source(ask("How can I reset my password?", max_error_rate="0")) == "live"

    @pytest.mark.parametrize("strategy", ["standard", "aggressive"])
    def test_a_bolder_wish_changes_nothing(self, house: House, tenant: Tenant, ask: Any, strategy: str) -> None:
        kept(house, ask("How do I reset my password?"), tenant)
        assert source(ask("How can I reset my password?", cache_strategy=strategy)) == "semantic"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("cache_strategy", "reckless"),
            ("max_error_rate", "1.5"),
            ("max_error_rate", "nan"),
            ("cache_stale", "-1"),
            ("cache_stale", "soon"),
        ],
    )
    def test_what_cannot_be_read_is_refused(self, ask: Any, name: str, value: str) -> None:
        refused(ask(**{name: value}), 400, f"x-headgate-{name.replace('_', '-')}")


class TestStaleAnswers:
    def test_an_answer_past_its_time_is_served_and_a_fresh_one_bought(
        self, house: House, tenant: Tenant, ask: Any
    ) -> None:
        first = ask(cache_ttl="0")
        kept(house, first, tenant)
        assert ask(cache="only-if-cached").status == 504
        stale = ask(cache_stale="600", cache_ttl="300")
        assert source(stale) == "exact"
        assert (stale.headers["x-headgate-cache"], stale.headers["x-headgate-cache-reason"]) == ("hit", "stale")
        assert stale.headers["x-headgate-cost-usd"] == "0.00"
        assert stale.headers["x-headgate-entry"] == first.headers["x-headgate-entry"]
        eventually(lambda: ask(cache="only-if-cached").status == 200)
        fresh = ask()
        assert source(fresh) == "exact"
        assert fresh.headers["x-headgate-entry"] != first.headers["x-headgate-entry"]
        assert "x-headgate-cache-reason" not in fresh.headers


class TestRefusals:
    def test_a_refused_request_is_refused_again_without_asking(self, house: House, ask: Any) -> None:
        first = ask(model="broken-400")
        before = house.calls().errors
        again = ask(model="broken-400")
        assert (first.status, again.status) == (400, 400)
        assert again.error["message"] == first.error["message"]
        assert "x-headgate-cache" not in first.headers
        assert (again.headers["x-headgate-cache"], again.headers["x-headgate-cache-reason"]) == ("hit", "refused")
        assert first.headers["x-request-id"] != again.headers["x-request-id"]
        assert house.calls().errors == before
        ask(model="broken-400", cache="no-cache")
        assert house.calls().errors == before + 1

    @pytest.mark.parametrize("model", ["broken-401", "broken-500"])
    def test_what_may_pass_is_asked_again(self, house: House, ask: Any, model: str) -> None:
        ask(model=model)
        before = house.calls().errors
        assert "x-headgate-cache" not in ask(model=model).headers
        assert house.calls().errors > before


def test_chat_tells_how_sure_it_is(house: House, tenant: Tenant) -> None:
    answers = [house.request("POST", "/chat", {"prompt": "What is a webhook?"}, key=tenant.key).json for _ in range(2)]
    assert [(answer["source"], answer["confidence"]) for answer in answers] == [("live", None), ("cache", 1.0)]


def test_the_metrics_count_what_was_taken_out(house: House, ask: Any, tenant: Tenant) -> None:
    ask()
    before = house.metric("headgate_cache_invalidated_total")
    house.request("POST", PATHS[0], {"all": True}, key=tenant.key)
    assert house.metric("headgate_cache_invalidated_total") == before + 1
    text = house.request("GET", "/metrics", key=None).body.decode()
    assert 'headgate_cache_failures_total{part="embedder"} 0.0' in text
    assert "headgate_verdict_confidence_bucket" in text
    assert ADMIN_KEY not in text
