"""What OpenAI's SDK sees of the cache and of shared calls, and how a caller steers them by `x-headgate-*` headers."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from tests.contract.house import House, Tenant, eventually
from tests.contract.sdk import MESSAGES, ask, joined


def test_every_answer_says_how_it_was_found(client: openai.OpenAI) -> None:
    create = client.chat.completions.with_raw_response.create
    live, hit = create(model="auto", messages=MESSAGES), create(model="auto", messages=MESSAGES)
    assert (live.headers["x-headgate-source"], live.headers["x-headgate-cache"]) == ("live", "miss")
    assert (hit.headers["x-headgate-source"], hit.headers["x-headgate-cache"]) == ("exact", "hit")
    for answer in (live, hit):
        assert answer.headers["x-request-id"] == answer.parse().id.removeprefix("chatcmpl-")
        assert answer.headers["x-headgate-deployment"] == "small"
        assert answer.headers["x-headgate-model"]
        assert float(answer.headers["x-headgate-overhead-ms"]) >= 0
        assert answer.headers["x-ratelimit-limit-requests"] == "1000000"
        assert int(answer.headers["x-ratelimit-remaining-requests"]) < 1_000_000
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
    assert live.headers["x-headgate-attempts"] == "1"
    assert live.headers["x-headgate-route-reason"]
    assert 0 <= float(live.headers["x-headgate-route-confidence"]) <= 1
    assert float(live.headers["x-headgate-cost-usd"]) > 0 == float(live.headers["x-headgate-saved-usd"])
    assert hit.headers["x-headgate-confidence"] == "1.000"
    assert hit.headers["x-headgate-entry"] == live.headers["x-headgate-entry"]
    assert hit.headers["x-headgate-saved-usd"] == live.headers["x-headgate-cost-usd"]
    assert hit.headers["x-headgate-cost-usd"] == "0.00"
    assert live.request_id == live.headers["x-request-id"]


def test_a_cached_answer_has_an_id_of_its_own_and_the_usage_of_the_first(client: openai.OpenAI, house: House) -> None:
    before = house.calls().calls
    answers = [client.chat.completions.create(model="auto", messages=MESSAGES) for _ in range(3)]
    assert house.calls().calls == before + 1
    assert len({answer.id for answer in answers}) == 3
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    assert answers[0].usage == answers[1].usage == answers[2].usage


def test_a_paraphrase_is_answered_by_meaning(client: openai.OpenAI, house: House) -> None:
    create = client.chat.completions.with_raw_response.create
    first = create(model="auto", messages=ask("How do I reset my password?"))
    before = house.calls().calls

    def found() -> bool:
        again = create(model="auto", messages=ask("How can I reset my password?"))
        assert float(again.headers["x-headgate-confidence"]) <= 1
        assert again.headers["x-headgate-source"] == "semantic"
        assert again.headers["x-headgate-entry"] == first.headers["x-headgate-entry"]
        return True

    eventually(found)
    assert house.calls().calls == before


def test_a_question_that_only_looks_alike_is_not_answered_from_the_cache(client: openai.OpenAI) -> None:
    create = client.chat.completions.with_raw_response.create
    create(model="auto", messages=ask("How many seats are in the team plan of 2023?"))
    other = create(model="auto", messages=ask("How many seats are in the team plan of 2024?"))
    assert other.headers["x-headgate-source"] == "live"


async def test_ten_at_once_make_one_call(later: openai.AsyncOpenAI, house: House) -> None:
    before = house.calls().calls
    create = later.chat.completions.with_raw_response.create
    answers = await asyncio.gather(*(create(model="slow", messages=MESSAGES) for _ in range(10)))
    assert house.calls().calls == before + 1
    sources = sorted(answer.headers["x-headgate-source"] for answer in answers)
    assert sources == ["coalesced"] * 9 + ["live"]
    assert len({answer.parse().id for answer in answers}) == 10
    assert len({answer.parse().choices[0].message.content for answer in answers}) == 1
    assert sum(answer.headers["x-headgate-cost-usd"] != "0.00" for answer in answers) == 1


async def test_ten_streams_at_once_make_one_call(later: openai.AsyncOpenAI, house: House) -> None:
    before = house.calls().calls

    async def read() -> str:
        stream = await later.chat.completions.create(model="slow", messages=MESSAGES, stream=True)
        return joined([chunk async for chunk in stream])

    texts = await asyncio.gather(*(read() for _ in range(10)))
    assert house.calls().calls == before + 1
    assert len(set(texts)) == 1
    assert "export" in texts[0]


class TestTheCallersWishes:
    """Each `x-headgate-*` request header does what it says."""

    @pytest.fixture
    def create(self, client: openai.OpenAI) -> Any:
        def create(text: str = "How do I export my invoices?", **wishes: str) -> Any:
            headers = {f"x-headgate-{name.replace('_', '-')}": value for name, value in wishes.items()}
            return client.chat.completions.with_raw_response.create(
                model="auto", messages=ask(text), extra_headers=headers
            ).headers

        return create

    def test_no_cache_asks_again_and_keeps_the_newer_answer(self, create: Any) -> None:
        first, again = create(), create(cache="no-cache")
        assert again["x-headgate-source"] == "live"
        assert again["x-headgate-entry"] != first["x-headgate-entry"]
        assert create()["x-headgate-entry"] == again["x-headgate-entry"]

    def test_no_store_leaves_nothing_behind(self, create: Any) -> None:
        assert create(cache="no-store")["x-headgate-cache"] == "bypass"
        assert create()["x-headgate-source"] == "live"

    def test_only_if_cached_never_calls(self, create: Any, once: openai.OpenAI, house: House) -> None:
        before = house.calls().calls
        with pytest.raises(openai.InternalServerError) as absent:
            once.chat.completions.create(
                model="auto", messages=MESSAGES, extra_headers={"x-headgate-cache": "only-if-cached"}
            )
        assert (absent.value.status_code, absent.value.code) == (504, "not_cached")
        assert house.calls().calls == before
        create()
        assert create(cache="only-if-cached")["x-headgate-source"] == "exact"

    def test_exact_takes_no_paraphrase(self, create: Any) -> None:
        create("How do I reset my password?")
        assert create("How can I reset my password?", cache="exact")["x-headgate-source"] == "live"

    def test_a_bar_of_one_takes_no_paraphrase(self, create: Any) -> None:
        create("How do I reset my password?")
        assert create("How can I reset my password?", min_confidence="1")["x-headgate-source"] == "live"

    def test_a_ttl_of_zero_keeps_nothing(self, create: Any) -> None:
        create(cache_ttl="0")
        assert create()["x-headgate-source"] == "live"

    def test_namespaces_share_nothing(self, create: Any) -> None:
        create(namespace="one")
        assert create(namespace="two")["x-headgate-source"] == "live"
        assert create(namespace="one")["x-headgate-source"] == "exact"

    def test_users_and_features_are_in_the_usage(self, create: Any, house: House, tenant: Tenant) -> None:
        create(user="ann", feature="export", cache_tags="a, b", coalesce="off")
        report = house.request("GET", "/v1/usage?group_by=user,feature", key=tenant.key).json
        assert [(row["user"], row["feature"], row["requests"]) for row in report["data"]] == [("ann", "export", 1)]

    def test_trace_and_idempotency_headers_are_taken(self, client: openai.OpenAI) -> None:
        headers = {"Idempotency-Key": "one", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        assert client.chat.completions.create(model="auto", messages=MESSAGES, extra_headers=headers).choices

    async def test_coalesce_off_shares_nothing(self, later: openai.AsyncOpenAI, house: House) -> None:
        before = house.calls().calls
        create = later.chat.completions.create
        alone = {"x-headgate-coalesce": "off", "x-headgate-cache": "no-cache"}
        await asyncio.gather(*(create(model="slow", messages=MESSAGES, extra_headers=alone) for _ in range(3)))
        assert house.calls().calls == before + 3

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("cache", "sometimes"),
            ("cache-ttl", "soon"),
            ("cache-ttl", "-1"),
            ("min-confidence", "1.1"),
            ("min-confidence", "nan"),
            ("coalesce", "yes"),
            ("timeout", "0"),
            ("timeout", "inf"),
            ("namespace", ""),
            ("user", "x" * 300),
            ("made-up", "1"),
        ],
    )
    def test_what_makes_no_sense_is_refused_by_name(self, once: openai.OpenAI, name: str, value: str) -> None:
        header = f"x-headgate-{name}"
        with pytest.raises(openai.BadRequestError) as refused:
            once.chat.completions.create(model="auto", messages=MESSAGES, extra_headers={header: value})
        assert refused.value.param == header
