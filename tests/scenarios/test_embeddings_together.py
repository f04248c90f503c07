"""Embeddings of several callers in one call, through the whole gateway: who pays what, what a failure sets off, and who owes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.assembly import open_engine
from headgate.budget.estimate import measure_input
from headgate.embedding import Embedded
from headgate.model.errors import AllFailed, GatewayError, Rejected, Throttled, Unavailable, UpstreamError
from headgate.model.tenancy import Principal, Wishes
from headgate.providers.batched import Batched
from headgate.providers.lanes import Bounds
from headgate.simulator.simulator import Simulator
from tests.scenarios.house import CALLER, PRICE, House
from tests.scenarios.test_a_whole_engine import DIMENSIONS, configured, journal, told
from tests.vectors import BAD, Vectors, listed, tokens, vector
from tests.virtual_time import in_virtual_time, run

EACH = PRICE.input // 1_000_000
"""Nano-USD for a token."""
TEXTS = [f"text {'and more ' * number}of {number}" for number in range(12)]


class Office:
    """A house whose embeddings go together."""

    def __init__(self, *fails: UpstreamError, held: bool = False) -> None:
        self.provider = Vectors(held=held, fails=fails)
        batched = Batched(self.provider, Bounds(items=64), weigh=lambda given: measure_input(given).likely)
        self.house = House({"one": batched})

    def ask(self, given: Any, who: Principal = CALLER, wishes: Wishes | None = None) -> asyncio.Task[Embedded]:
        return asyncio.create_task(self.house.gateway.embed(who, {"model": "one", "input": given}, wishes))

    async def under_way(self, calls: int = 1) -> None:
        """Until so many calls have gone out."""
        while len(self.provider.asked) < calls:
            await asyncio.sleep(0)


def own(embedded: Embedded, given: Any) -> bool:
    rows = {row["index"]: row["embedding"] for row in embedded.body["data"]}
    return rows == {index: vector(one, {}) for index, one in enumerate(listed(given))}


async def test_callers_of_one_tenant_share_a_call_and_each_pays_its_share() -> None:
    office = Office()
    answers = await asyncio.gather(*map(office.ask, TEXTS))
    assert all(own(answer, text) for answer, text in zip(answers, TEXTS, strict=True))
    assert len(office.provider.asked) == 1
    counted = tokens(TEXTS)
    assert sum(answer.record.usage.prompt_tokens for answer in answers) == counted
    assert await office.house.settled() == sum(answer.record.cost for answer in answers) == counted * EACH
    rows = await office.house.journal("key")
    assert sum(row.requests for row in rows) == len(TEXTS)
    assert not any(attempt.usage.estimated for answer in answers for attempt in answer.record.attempts)
    assert office.house.ledger.open_reservations() == 0


parties = st.lists(st.lists(st.text("ab ", min_size=1, max_size=30), min_size=1, max_size=5), min_size=1, max_size=12)


@given(parties, st.integers(0, 100_000))
@settings(max_examples=40, deadline=None)
def test_the_journal_holds_what_the_provider_counted_to_the_token(inputs: list[list[str]], count: int) -> None:
    async def play() -> None:
        office = Office(held=True)
        calls = [office.ask(one) for one in inputs]
        await office.under_way()
        (asked,) = office.provider.asked
        asked.end.set_result({**asked.answer(), "usage": {"prompt_tokens": count, "total_tokens": count}})
        answers = await asyncio.gather(*calls)
        assert sum(answer.body["usage"]["prompt_tokens"] for answer in answers) == count
        (row,) = await office.house.journal()
        assert (row.prompt_tokens, row.cost) == (count, count * EACH)

    run(play())


async def test_two_tenants_never_meet_in_a_call() -> None:
    office = Office()
    other = Principal(tenant="beta", key="key-2")
    calls = [office.ask(text, who) for text in TEXTS for who in (CALLER, other)]
    await asyncio.gather(*calls)
    assert [asked.inputs for asked in office.provider.asked] == [TEXTS, TEXTS]
    rows = {row.group["tenant"]: row.cost for row in await office.house.journal("tenant")}
    assert rows == {"acme": tokens(TEXTS) * EACH, "beta": tokens(TEXTS) * EACH}


async def test_only_the_guilty_is_refused_and_the_refused_call_costs_nothing() -> None:
    office = Office()
    inputs = [*TEXTS[:3], [BAD, "innocent"], *TEXTS[3:6]]
    answers = await asyncio.gather(*map(office.ask, inputs), return_exceptions=True)
    (refused,) = [answer for answer in answers if isinstance(answer, BaseException)]
    assert isinstance(refused, Rejected)
    assert answers.index(refused) == 3
    (noted,) = [record for record in office.house.notes.records if record.status == 400]
    assert refused.request_id == noted.id
    fine = [answer for answer in answers if isinstance(answer, Embedded)]
    assert all(own(answer, text) for answer, text in zip(fine, TEXTS[:6], strict=True))
    assert len(office.provider.asked) == 1 + len(inputs)
    assert await office.house.settled() == tokens(TEXTS[:6]) * EACH


@pytest.mark.parametrize("error", [Unavailable("broke"), Throttled("slow down", retry_after=0.5)])
async def test_who_shared_a_failed_call_shares_the_next_one(error: UpstreamError) -> None:
    office = Office(error)
    answers = await asyncio.gather(*map(office.ask, TEXTS[:8]))
    assert all(own(answer, text) for answer, text in zip(answers, TEXTS, strict=False))
    assert [len(asked.inputs) for asked in office.provider.asked] == [8, 8], "eight callers, one retry"
    assert len(set(office.house.slept)) == 1
    assert [len(answer.record.attempts) for answer in answers] == [2] * 8


async def test_one_failed_call_of_many_callers_is_one_failure_to_the_breaker() -> None:
    office = Office(Rejected("no such model", status=404), Unavailable("broke"))
    for expected in (Rejected, Embedded):
        answers = await asyncio.gather(*map(office.ask, TEXTS), return_exceptions=True)
        assert {type(answer) for answer in answers} == {expected}
        assert office.house.breakers.health("one")["state"] == "closed"
    assert len({answer.record.id for answer in answers if isinstance(answer, Embedded)}) == len(TEXTS)


async def test_each_of_those_who_fail_together_has_an_error_of_its_own() -> None:
    office = Office(*[Unavailable("broke")] * 9)
    errors = await asyncio.gather(*map(office.ask, TEXTS[:8]), return_exceptions=True)
    assert {type(error) for error in errors} == {AllFailed}
    assert len({error.request_id for error in errors if isinstance(error, GatewayError)}) == 8
    assert await office.house.settled() == 0
    assert office.house.ledger.open_reservations() == 0


@in_virtual_time
async def test_who_leaves_before_its_inputs_went_owes_nothing_and_who_leaves_later_owes_its_share() -> None:
    office = Office(held=True)
    first = office.ask("one two three")
    await office.under_way()
    waits = office.ask("four")
    for _ in range(20):
        await asyncio.sleep(0)
    assert office.house.ledger.open_reservations() == 2
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    assert await office.house.settled() == 0
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert await office.house.settled() == measure_input("one two three").likely * EACH, "an estimate: nobody will tell"
    assert [asked.inputs for asked in office.provider.asked] == [["one two three"]]
    assert office.provider.open == 0
    assert office.house.ledger.open_reservations() == 0


async def test_the_caches_own_embeddings_go_together_and_the_operator_pays_the_providers_count(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        embedder = {"provider": "sim", "model": "embedding", "dimensions": DIMENSIONS}
        config = configured(simulator, cache={"semantic": {"embedder": embedder, "first_stage": "off"}})
        async with open_engine(config, tmp_path) as engine:
            questions = [f"How do I return the lamp number {number}?" for number in range(16)]
            await asyncio.gather(*(told(engine.gateway, question) for question in questions))
            rows = {row.group["tenant"]: row for row in await journal(engine.gateway, "tenant")}
        seen = simulator.stats().by_model["embedding"]
    assert seen.calls < len(questions)
    assert rows["operator"].requests == len(questions)
    assert (rows["operator"].prompt_tokens, rows["operator"].cost) == (seen.prompt_tokens, seen.prompt_tokens * 500)
