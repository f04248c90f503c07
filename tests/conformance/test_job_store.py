"""What every job store promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from headgate.jobs.jobs import Job, JobStore, Outcome, Waiting
from headgate.jobs.memory import MemoryJobs
from headgate.jobs.sqlite import SqliteJobs
from headgate.model.chat import Completion
from headgate.model.money import Usage

ASKED = b'{"model":"auto"}'
DONE = Outcome(
    call="c1",
    at=7,
    source="live",
    model="m",
    cost=5,
    completion=Completion(
        model="m",
        choices=[{"index": 0, "message": {"role": "assistant", "content": "Hé\0llo."}, "finish_reason": "stop"}],
        usage=Usage(prompt_tokens=3),
        reported={"prompt_tokens": 3},
    ),
)
FAILED = Outcome(error={"message": "No.", "code": "budget_exceeded"})


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JobStore]:
    found: JobStore = MemoryJobs() if request.param == "memory" else SqliteJobs(tmp_path / "jobs.db")
    yield found
    await found.close()


def job(id: str = "a", tenant: str = "acme", made: float = 1.0, **fields: object) -> Job:
    whole = {"tenant": tenant, "id": id, "digest": b"d", "size": len(ASKED), "made": made}
    return Job(**{**whole, **fields})


async def flown(store: JobStore, id: str = "a", *, at: float = 3.0, telling: float | None = None, **of: object) -> Job:
    """A job that has ended."""
    await store.add(job(id, **of), ASKED)
    await store.begin("acme", id, 2.0)
    await store.end("acme", id, DONE, at, telling)
    found = await store.find("acme", id)
    assert found is not None
    return found


async def test_nobody_knows_what_was_never_submitted(store: JobStore) -> None:
    assert await store.find("acme", "a") is None
    assert await store.begin("acme", "a", 1.0) is None
    assert (await store.reopen(), await store.due(9e9, 10), await store.sweep(9e9)) == ([], [], 0)


async def test_a_job_is_found_as_it_was_submitted(store: JobStore) -> None:
    assert await store.add(job(), ASKED) == job()
    assert await store.find("acme", "a") == job()


async def test_a_job_is_found_by_its_own_tenant_only(store: JobStore) -> None:
    await store.add(job(), ASKED)
    assert await store.find("other", "a") is None
    other = await store.add(job(tenant="other", made=2.0), b"theirs")
    assert other.made == 2.0
    assert await store.begin("other", "a", 3.0) == (
        replace(other, state="in_flight", begun=3.0, starts=1),
        b"theirs",
    )
    assert await store.find("acme", "a") == job()


async def test_an_id_that_is_there_stays_what_it_is(store: JobStore) -> None:
    await store.add(job(), ASKED)
    assert await store.add(job(made=9.0, digest=b"other"), b"other") == job()
    begun = await store.begin("acme", "a", 2.0)
    assert begun is not None
    assert begun[1] == ASKED


async def test_a_job_is_begun_once(store: JobStore) -> None:
    await store.add(job(), ASKED)
    begun = job(state="in_flight", begun=2.0, starts=1)
    assert await store.begin("acme", "a", 2.0) == (begun, ASKED)
    assert await store.begin("acme", "a", 3.0) is None
    assert await store.find("acme", "a") == begun


async def test_what_is_put_back_was_never_begun(store: JobStore) -> None:
    await store.add(job(), ASKED)
    await store.put_back("acme", "a")
    await store.begin("acme", "a", 2.0)
    await store.put_back("acme", "a")
    assert await store.find("acme", "a") == job()
    begun = await store.begin("acme", "a", 5.0)
    assert begun == (job(state="in_flight", begun=5.0, starts=1), ASKED)


async def test_an_end_is_kept_and_what_was_asked_for_is_not(store: JobStore) -> None:
    ended = await flown(store, telling=4.0)
    assert (ended.state, ended.begun, ended.ended, ended.telling) == ("done", 2.0, 3.0, 4.0)
    assert ended.outcome == DONE
    assert await store.begin("acme", "a", 5.0) is None


async def test_what_has_ended_does_not_change_any_more(store: JobStore) -> None:
    ended = await flown(store)
    await store.end("acme", "a", FAILED, 9.0, 9.0)
    await store.put_back("acme", "a")
    assert await store.find("acme", "a") == ended
    assert await store.reopen() == []


async def test_only_what_is_in_flight_ends(store: JobStore) -> None:
    await store.add(job(), ASKED)
    await store.end("acme", "a", FAILED, 9.0, None)
    assert await store.find("acme", "a") == job()


async def test_a_failure_is_kept_as_one(store: JobStore) -> None:
    await store.add(job(), ASKED)
    await store.begin("acme", "a", 2.0)
    await store.end("acme", "a", FAILED, 3.0, None)
    found = await store.find("acme", "a")
    assert found is not None
    assert (found.state, found.outcome) == ("failed", FAILED)


async def test_after_a_start_what_was_in_flight_is_queued_again_in_its_old_place(store: JobStore) -> None:
    await store.add(job("late", made=3.0), ASKED)
    await store.add(job("early", made=1.0), ASKED)
    await store.add(job("middle", made=2.0, tenant="other"), ASKED)
    await flown(store, "ended")
    await store.begin("acme", "early", 4.0)
    waiting = [
        Waiting("acme", "early", len(ASKED), 1.0),
        Waiting("other", "middle", len(ASKED), 2.0),
        Waiting("acme", "late", len(ASKED), 3.0),
    ]
    assert await store.reopen() == waiting
    assert await store.reopen() == waiting
    found = await store.begin("acme", "early", 5.0)
    assert found is not None
    assert (found[0].starts, found[1]) == (2, ASKED)


async def test_ends_are_due_in_their_order_and_no_earlier(store: JobStore) -> None:
    for id, telling in (("a", 9.0), ("b", 5.0), ("c", None), ("d", 7.0)):
        await flown(store, id, telling=telling)
    assert [found.id for found in await store.due(8.0, 10)] == ["b", "d"]
    assert [found.id for found in await store.due(9.0, 2)] == ["b", "d"]
    assert [found.id for found in await store.due(4.9, 10)] == []


async def test_a_told_end_is_due_no_more_and_one_to_be_told_again_is_due_later(store: JobStore) -> None:
    await flown(store, "a", telling=3.0)
    await flown(store, "b", telling=3.0)
    await store.told("acme", "a", None)
    await store.told("acme", "b", 8.0)
    assert await store.due(7.0, 10) == []
    (again,) = await store.due(8.0, 10)
    assert (again.id, again.tries, again.outcome) == ("b", 1, DONE)
    await store.told("other", "b", None)
    assert await store.due(8.0, 10) == [again]


async def test_the_sweep_takes_what_ended_long_ago_and_nothing_that_is_open(store: JobStore) -> None:
    await flown(store, "old", at=10.0)
    await flown(store, "new", at=20.0)
    await store.add(job("queued", made=0.0), ASKED)
    await store.add(job("flying", made=0.0), ASKED)
    await store.begin("acme", "flying", 0.5)
    assert await store.sweep(20.0) == 1
    known = [id for id in ("old", "new", "queued", "flying") if await store.find("acme", id) is not None]
    assert known == ["new", "queued", "flying"]
    assert await store.add(job("old", made=30.0), ASKED) == job("old", made=30.0)
