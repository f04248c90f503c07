"""Requests that were submitted and are answered in their own time, through the whole gateway in memory."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from headgate.jobs.jobs import ENDED, Job, Outcome
from headgate.jobs.lanes import Bounds, Lanes
from headgate.jobs.memory import MemoryJobs
from headgate.limits.limits import Limits
from headgate.limits.memory import MemoryCounters
from headgate.model.errors import (
    Conflict,
    ModelNotAllowed,
    NotFound,
    Overloaded,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnknownModel,
)
from headgate.model.tenancy import Caps, Policy, Principal, Wishes
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.worker import LONGEST_REST, Worker
from tests.crowds import PARCEL, REFUND, Crowd
from tests.scenarios.house import CALLER, House, ask
from tests.virtual_time import after, clock, in_virtual_time

START = 1_000_000.0


class Office:
    """A house with a worker; `principals` are who keys belong to, and keys that are not there are valid no more."""

    def __init__(self, *scripts: Any, house: House | None = None, store: MemoryJobs | None = None, **more: Any) -> None:
        self.provider = ScriptedProvider(*scripts)
        self.house = house or House({"one": self.provider}, clock=clock)
        self.store = store or MemoryJobs()
        self.principals = {CALLER.key: CALLER}
        self.ends = 0
        self.waits: list[float] = []
        numbers = itertools.count(1)
        self.worker = Worker(
            self.house.gateway,
            self.store,
            self.caller,
            new_id=lambda: f"job-{next(numbers)}",
            waited=self.waits.append,
            now=lambda: START + clock(),
            **more,
        )

    async def caller(self, tenant: str, key: str) -> Principal:
        if key not in self.principals:
            raise Unauthenticated("The API key is not valid any more.")
        return replace(self.principals[key], tenant=tenant)

    async def __aenter__(self) -> Office:
        self.running = asyncio.create_task(self.worker.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.worker.close(0)

    async def submit(
        self, text: str = "Where is my parcel?", id: str | None = None, caller: Principal = CALLER, **wishes: Any
    ) -> Job:
        return await self.worker.submit(caller, ask(text), Wishes(**wishes), id)

    async def ended(self, job: Job) -> Outcome:
        while True:
            news = self.worker.news(job.tenant, job.id)
            found = await self.worker.find(job.tenant, job.id)
            if found.state in ENDED:
                news.cancel()
                assert found.outcome is not None
                assert found.outcome.state == found.state
                return found.outcome
            await news

    async def state(self, job: Job) -> str:
        return (await self.worker.find(job.tenant, job.id)).state


def text(outcome: Outcome) -> str:
    assert outcome.completion is not None, outcome.error
    return outcome.completion.text


def code(outcome: Outcome) -> str:
    assert outcome.error is not None
    return str(outcome.error["code"])


@in_virtual_time
async def test_what_is_submitted_is_answered_and_paid_like_any_other_call() -> None:
    async with Office(answer("On ", "its way.")) as office:
        job = await office.submit()
        assert job.state == "queued"
        outcome = await office.ended(job)
        assert (text(outcome), outcome.source, outcome.model) == ("On its way.", "live", "one-1")
        assert outcome.cost == await office.house.settled() > 0
        (record,) = office.house.notes.records
        assert (record.id, record.status, record.tenant) == (outcome.call, 200, "acme")


@in_virtual_time
async def test_it_goes_through_its_states_and_each_is_told() -> None:
    async with Office([after(5.0), *answer("Hello.")]) as office:
        job = await office.submit()
        states = [job.state, await office.state(job)]
        while states[-1] not in ENDED:
            await office.worker.news(job.tenant, job.id)
            states.append(await office.state(job))
        assert states == ["queued", "in_flight", "done"]
        assert clock() == 5.0


@in_virtual_time
async def test_the_same_again_under_the_same_id_is_the_same_request() -> None:
    async with Office() as office:
        first = await office.submit(id="mine")
        outcome = await office.ended(first)
        again = await office.submit(id="mine")
        assert (again.id, again.state, again.outcome) == ("mine", "done", outcome)
        assert len(office.provider.calls) == 1


@in_virtual_time
async def test_twice_at_the_same_time_under_one_id_is_one_request() -> None:
    async with Office() as office:
        jobs = await asyncio.gather(*(office.submit(id="mine") for _ in range(5)))
        assert len({job.made for job in jobs}) == 1
        await office.ended(jobs[0])
        assert len(office.provider.calls) == 1
        assert office.worker.counts() == {}


@in_virtual_time
async def test_another_request_under_the_same_id_is_refused() -> None:
    async with Office() as office:
        await office.submit(id="mine")
        with pytest.raises(Conflict):
            await office.submit("How do I pay?", id="mine")
        with pytest.raises(Conflict):
            await office.submit(id="mine", feature="mail")


@in_virtual_time
async def test_two_tenants_may_use_the_same_id_and_see_their_own() -> None:
    async with Office(answer("One."), answer("Two.")) as office:
        mine = await office.submit(id="mine")
        await office.ended(mine)
        theirs = await office.submit(id="mine", caller=replace(CALLER, tenant="other"))
        assert text(await office.ended(theirs)) == "Two."
        assert text(await office.ended(mine)) == "One."
        with pytest.raises(NotFound) as foreign:
            await office.worker.find("third", "mine")
        with pytest.raises(NotFound) as unknown:
            await office.worker.find("acme", "never")
        assert foreign.value.message == unknown.value.message


@in_virtual_time
async def test_a_model_that_is_not_there_or_not_allowed_is_refused_at_once() -> None:
    async with Office() as office:
        with pytest.raises(UnknownModel):
            await office.worker.submit(CALLER, ask(model="nothing"), Wishes())
        limited = replace(CALLER, policy=Policy(allowed_models=("other",)))
        with pytest.raises(ModelNotAllowed):
            await office.submit(caller=limited)
        assert office.worker.counts() == {}


@in_virtual_time
async def test_what_the_provider_refuses_fails_with_its_error_and_what_was_spent() -> None:
    async with Office([Unavailable("down")]) as office:
        outcome = await office.ended(await office.submit())
        assert (code(outcome), outcome.completion, outcome.cost) == ("all_deployments_failed", None, 0)


@in_virtual_time
async def test_it_joins_a_call_that_is_under_way_and_costs_nothing() -> None:
    async with Office([after(1.0), *answer("Hello.")]) as office:
        async with await office.house.gateway.chat(CALLER, ask(stream=True)) as leader:
            outcome = await office.ended(await office.submit())
            assert (await leader.completion()).text == text(outcome) == "Hello."
        assert (outcome.source, outcome.cost, outcome.started_over) == ("coalesced", 0, None)
        assert len(office.provider.calls) == 1


@in_virtual_time
async def test_a_call_that_brings_nothing_is_waited_for_so_long_and_then_one_is_made_for_this_tenant_alone() -> None:
    hangs, calls = asyncio.Event(), answer("By itself.")
    async with Office([hangs], calls, patience=1.5) as office:
        async with await office.house.gateway.chat(CALLER, ask()):
            job = await office.submit()
            outcome = await office.ended(job)
            assert clock() == 1.5
        assert (text(outcome), outcome.source, outcome.started_over) == ("By itself.", "live", "slow")
        assert outcome.cost > 0


@in_virtual_time
async def test_of_many_that_wait_for_the_same_silent_call_one_makes_the_next_for_all() -> None:
    hangs = asyncio.Event()
    async with Office([hangs], answer("For all."), patience=1.5) as office:
        async with await office.house.gateway.chat(CALLER, ask()):
            jobs = [await office.submit() for _ in range(5)]
            outcomes = [await office.ended(job) for job in jobs]
        assert {text(outcome) for outcome in outcomes} == {"For all."}
        assert {outcome.started_over for outcome in outcomes} == {"slow"}
        assert sorted(outcome.source for outcome in outcomes) == ["coalesced"] * 4 + ["live"]
        assert len(office.provider.calls) == 2


@in_virtual_time
async def test_a_call_that_fails_its_follower_is_told_of_as_well() -> None:
    async with Office([after(0.5), Unavailable("down")], [Unavailable("down")], answer("At last.")) as office:
        async with await office.house.gateway.chat(CALLER, ask()):
            outcome = await office.ended(await office.submit())
        assert (text(outcome), outcome.started_over) == ("At last.", "failed")


@in_virtual_time
async def test_only_requests_with_the_same_coalesce_key_share_a_call_and_only_if_they_are_the_same() -> None:
    async with Office([after(1.0), *answer("Hello.")]) as office:
        asked = [
            ("Where is my parcel?", "a"),
            ("Where is my parcel?", "b"),
            ("Where is my parcel?", "a"),
            ("Pay?", "a"),
        ]
        jobs = [await office.submit(text, coalesce_key=key) for text, key in asked]
        sources = [(await office.ended(job)).source for job in jobs]
        assert sorted(sources[:1] + sources[2:3]) == ["coalesced", "live"]
        assert sources[1] == sources[3] == "live"
        assert len(office.provider.calls) == 3


@in_virtual_time
async def test_one_that_asks_the_same_in_other_words_shares_a_call_and_calls_for_itself_when_that_brings_nothing() -> (
    None
):
    house = Crowd([asyncio.Event()], answer("By itself."), [after(2.5), *answer("Shared.")])
    async with Office(house=house, patience=1.5) as office:
        async with await house.gateway.chat(CALLER, ask(PARCEL[0])):
            outcome = await office.ended(await office.submit(PARCEL[1]))
        assert (text(outcome), outcome.source, outcome.started_over) == ("By itself.", "live", "alone")
        jobs = [await office.submit(wording) for wording in REFUND[:2]]
        outcomes = [await office.ended(job) for job in jobs]
        assert [text(outcome) for outcome in outcomes] == ["Shared.", "Shared."]
        assert {outcome.source for outcome in outcomes} == {"live", "coalesced-semantic"}
        assert len(house.asked) == 3


@in_virtual_time
async def test_in_other_words_too_only_those_with_the_same_coalesce_key_share_a_call() -> None:
    house = Crowd([after(1.0), *answer("Hello.")])
    async with Office(house=house) as office:
        jobs = [await office.submit(wording, coalesce_key=key) for wording, key in zip(REFUND, "aba", strict=False)]
        sources = [(await office.ended(job)).source for job in jobs]
        assert sorted([sources[0], sources[2]]) == ["coalesced-semantic", "live"]
        assert sources[1] == "live"


@in_virtual_time
async def test_the_time_counts_from_the_submission_also_in_the_queue() -> None:
    scripts = [after(3.0), *answer("Hello.")], [asyncio.Event()]
    async with Office(*scripts, lanes=Lanes(Bounds(at_work=1))) as office:
        first = await office.submit("One?")
        second = await office.submit("Two?", timeout=2.0)
        third = await office.submit("Three?", timeout=4.0)
        assert text(await office.ended(first)) == "Hello."
        assert code(await office.ended(second)) == "upstream_timeout"
        assert code(await office.ended(third)) == "upstream_timeout"
        assert clock() == 4.0
        assert office.waits == [0.0, 3.0, 3.0]
        assert len(office.provider.calls) == 2


@in_virtual_time
async def test_a_tenant_at_its_rate_waits_and_loses_nothing() -> None:
    async with Office() as office:
        office.house.gateway.limits = Limits(MemoryCounters(clock=lambda: int(clock() * 1e6)))
        office.principals[CALLER.key] = replace(CALLER, policy=Policy(rpm=2))
        jobs = [await office.submit(f"Question {number}?") for number in range(4)]
        outcomes = [await office.ended(job) for job in jobs]
        assert {outcome.state for outcome in outcomes} == {"done"}
        assert len(office.provider.calls) == 4
        assert 60.0 <= clock() <= 60.0 + LONGEST_REST


@in_virtual_time
async def test_a_limit_that_an_operator_raises_is_seen_soon() -> None:
    async with Office() as office:
        office.principals[CALLER.key] = replace(CALLER, policy=Policy(concurrency=0))
        job = await office.submit()
        await asyncio.sleep(60)
        assert await office.state(job) == "queued"
        office.principals[CALLER.key] = CALLER
        await office.ended(job)
        assert clock() <= 60 + LONGEST_REST


@in_virtual_time
async def test_a_spent_budget_fails_a_request_and_one_that_is_only_held_does_not() -> None:
    provider = ScriptedProvider([after(20.0), *answer("Hello.")], answer("Hello."))
    house = House({"one": provider}, clock=clock, caps=Caps(hour=300_000), max_output=100)
    async with Office(house=house) as office:
        first, second = await office.submit("One?"), await office.submit("Two?")
        await asyncio.sleep(1)
        assert (await office.state(first), await office.state(second)) == ("in_flight", "queued")
        assert {(await office.ended(job)).state for job in (first, second)} == {"done"}
        assert 20.0 <= clock() <= 20.0 + LONGEST_REST
        await house.allow("tenant:acme", 30_000)
        assert code(await office.ended(await office.submit("Three?"))) == "budget_exceeded"


@in_virtual_time
async def test_a_key_that_was_revoked_meanwhile_pays_for_nothing_any_more() -> None:
    async with Office([after(5.0), *answer("Hello.")], lanes=Lanes(Bounds(at_work=1))) as office:
        first, second = await office.submit("One?"), await office.submit("Two?")
        await asyncio.sleep(1)
        del office.principals[CALLER.key]
        assert text(await office.ended(first)) == "Hello."
        assert code(await office.ended(second)) == "invalid_api_key"
        assert len(office.provider.calls) == 1


@in_virtual_time
async def test_too_many_of_one_tenant_are_refused_and_others_are_not() -> None:
    lanes = Lanes(Bounds(at_work=2, open_of_a_tenant=3))
    async with Office([after(5.0), *answer("Hello.")], lanes=lanes) as office:
        jobs = [await office.submit(f"Question {number}?", id=f"id-{number}") for number in range(3)]
        with pytest.raises(RateLimited):
            await office.submit("One too many?")
        assert (await office.submit("Question 1?", id="id-1")).id == "id-1"
        other = await office.submit(caller=replace(CALLER, tenant="other"))
        await office.ended(other)
        assert clock() == 5.0
        for job in jobs:
            await office.ended(job)
        await office.submit("Now there is room?")


@in_virtual_time
async def test_a_server_that_stops_finishes_what_is_at_work_and_leaves_the_rest_to_the_next_one() -> None:
    store = MemoryJobs()
    async with Office([after(5.0), *answer("Hello.")], store=store, lanes=Lanes(Bounds(at_work=1))) as office:
        first, second = await office.submit("One?"), await office.submit("Two?")
        await asyncio.sleep(1)
        news = office.worker.news(second.tenant, second.id)
        closing = asyncio.create_task(office.worker.close(30))
        await news
        with pytest.raises(Overloaded):
            await office.submit("Three?")
        await closing
        assert (await office.state(first), await office.state(second)) == ("done", "queued")
        assert clock() == 5.0
    async with Office(answer("From the next one."), store=store) as office:
        assert text(await office.ended(second)) == "From the next one."


@in_virtual_time
async def test_what_takes_longer_than_a_stopping_server_waits_is_put_back_as_if_it_had_not_begun() -> None:
    store = MemoryJobs()
    async with Office([asyncio.Event()], store=store) as office:
        job = await office.submit()
        await asyncio.sleep(1)
        await office.worker.close(3)
        found = await office.worker.find(job.tenant, job.id)
        assert (found.state, found.starts) == ("queued", 0)


@in_virtual_time
async def test_what_a_killed_process_had_in_flight_is_begun_again_but_not_for_ever() -> None:
    store = MemoryJobs()
    async with Office(store=store) as office:
        job = await office.submit()
        await office.ended(job)
    await store.add(replace(job, id="poison"), b"{}")
    for start in range(3):
        found = await store.begin("acme", "poison", START)
        assert found is not None
        assert found[0].starts == start + 1
        await store.reopen()
    async with Office(store=store) as office:
        outcome = await office.ended(replace(job, id="poison"))
        assert (code(outcome), len(office.provider.calls)) == ("internal_error", 0)


@in_virtual_time
async def test_a_request_that_waits_for_longer_than_it_is_kept_fails() -> None:
    async with Office(keep=60.0) as office:
        office.principals[CALLER.key] = replace(CALLER, policy=Policy(concurrency=0))
        job = await office.submit()
        outcome = await office.ended(job)
        assert code(outcome) == "upstream_timeout"
        assert 60.0 <= clock() <= 60.0 + LONGEST_REST
        await asyncio.sleep(59)
        await office.worker.sweep()
        assert await office.state(job) == "failed"
        await asyncio.sleep(2)
        await office.worker.sweep()
        with pytest.raises(NotFound):
            await office.state(job)


class Flaky(MemoryJobs):
    """Works, except when it is told not to."""

    broken = False

    async def reopen(self) -> Any:
        self._look()
        return await super().reopen()

    async def end(self, *given: Any) -> None:
        self._look()
        await super().end(*given)

    async def begin(self, *given: Any) -> Any:
        self._look()
        return await super().begin(*given)

    def _look(self) -> None:
        if self.broken:
            raise Overloaded("The disk is full.", retry_after=1.0)


@in_virtual_time
async def test_a_disk_that_is_full_delays_an_end_and_loses_none() -> None:
    store = Flaky()
    async with Office(store=store) as office:
        job = await office.submit()
        while await office.state(job) != "in_flight":
            await asyncio.sleep(0)
        store.broken = True
        await asyncio.sleep(10)
        assert await office.state(job) == "in_flight"
        waits = await office.submit("Another one?")
        store.broken = False
        assert text(await office.ended(job)) == text(await office.ended(waits)) == "Hello."
        assert len(office.provider.calls) == 2


@in_virtual_time
async def test_until_the_store_can_be_read_nothing_is_accepted() -> None:
    store = Flaky()
    store.broken = True
    async with Office(store=store) as office:
        with pytest.raises(Overloaded):
            await office.submit()
        store.broken = False
        await asyncio.sleep(2)
        await office.ended(await office.submit())


@in_virtual_time
async def test_whoever_hangs_up_while_submitting_leaves_nothing_half_done() -> None:
    async with Office() as office:
        submitting = asyncio.create_task(office.submit(id="mine"))
        await asyncio.sleep(0)
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)
        await asyncio.sleep(1)
        assert office.worker.counts() == {}
        known = await office.store.find("acme", "mine")
        assert known is None or known.state == "done"
