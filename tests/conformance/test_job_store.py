"""What every job store promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from headgate.jobs.jobs import Job, JobStore, Outcome, Waiting
from headgate.jobs.memory import MemoryJobs
from headgate.jobs.postgres import SCHEMA, PostgresJobs
from headgate.jobs.sqlite import SqliteJobs
from headgate.model.chat import Completion
from headgate.model.money import Usage
from headgate.storage.postgres import Postgres

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


KINDS = ("memory", "memory with leases", "sqlite", "postgres", "pgbouncer")
LEASED = ("memory with leases", "postgres", "pgbouncer")


async def opened(request: pytest.FixtureRequest, tmp_path: Path, *, lease: float = 3_600.0) -> AsyncIterator[JobStore]:
    """The store that the parameter names; `lease`: of one that has any."""
    kind = request.param
    if kind in ("postgres", "pgbouncer"):
        url = request.getfixturevalue("database_url")
        if kind == "pgbouncer":
            url = request.getfixturevalue("pgbouncer").through(url)
        async with prepared(url) as postgres:
            yield PostgresJobs(postgres, lease=lease)
        return
    stores: dict[str, Callable[[], JobStore]] = {
        "memory": MemoryJobs,
        "memory with leases": lambda: MemoryJobs(lease=lease),
        "sqlite": lambda: SqliteJobs(tmp_path / "jobs.db"),
    }
    found = stores[kind]()
    yield found
    await found.close()


@asynccontextmanager
async def prepared(url: str) -> AsyncIterator[Postgres]:
    """A process' connections to a database that has the tables."""
    postgres = Postgres(url, pool=4)
    await postgres.migrate({"jobs": SCHEMA})
    yield postgres
    await postgres.close()


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JobStore]:
    async for found in opened(request, tmp_path):
        yield found


@pytest.fixture(params=LEASED)
async def fleeting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JobStore]:
    """A store whose leases are over at once."""
    async for found in opened(request, tmp_path, lease=0.0):
        yield found


async def begun(store: JobStore, id: str = "a", at: float = 2.0) -> Job:
    """A job that is begun now."""
    found = await store.begin("acme", id, at)
    assert found is not None
    return found[0]


def job(id: str = "a", tenant: str = "acme", made: float = 1.0, **fields: object) -> Job:
    whole = {"tenant": tenant, "id": id, "digest": b"d", "size": len(ASKED), "made": made}
    return Job(**{**whole, **fields})


async def flown(store: JobStore, id: str = "a", *, at: float = 3.0, telling: float | None = None, **of: object) -> Job:
    """A job that has ended."""
    await store.add(job(id, **of), ASKED)
    assert await store.end(await begun(store, id), DONE, at, telling)
    found = await store.find("acme", id)
    assert found is not None
    return found


async def test_nobody_knows_what_was_never_submitted(store: JobStore) -> None:
    assert await store.find("acme", "a") is None
    assert await store.begin("acme", "a", 1.0) is None
    assert (await store.reopen(), await store.due(9e9, 9e9, 10), await store.sweep(9e9)) == ([], [], 0)
    assert await store.states([("acme", "a")]) == {}
    assert not await store.renew(job())


async def test_a_job_is_found_as_it_was_submitted(store: JobStore) -> None:
    assert await store.add(job(), ASKED) == job()
    assert await store.find("acme", "a") == job()


async def test_a_job_is_found_by_its_own_tenant_only(store: JobStore) -> None:
    await store.add(job(), ASKED)
    assert await store.find("other", "a") is None
    other = await store.add(job(tenant="other", made=2.0), b"theirs")
    assert other.made == 2.0
    assert await store.begin("other", "a", 3.0) == (
        replace(other, state="in_flight", begun=3.0, starts=1, turn=1),
        b"theirs",
    )
    assert await store.find("acme", "a") == job()


async def test_an_id_that_is_there_stays_what_it_is(store: JobStore) -> None:
    await store.add(job(), ASKED)
    assert await store.add(job(made=9.0, digest=b"other"), b"other") == job()
    assert await store.begin("acme", "a", 2.0) == (job(state="in_flight", begun=2.0, starts=1, turn=1), ASKED)


async def test_a_job_is_begun_once(store: JobStore) -> None:
    await store.add(job(), ASKED)
    first = await begun(store)
    assert first == job(state="in_flight", begun=2.0, starts=1, turn=1)
    assert await store.begin("acme", "a", 3.0) is None
    assert await store.find("acme", "a") == first
    assert await store.renew(first)
    assert await store.find("acme", "a") == first


async def test_what_is_put_back_was_never_begun(store: JobStore) -> None:
    await store.add(job(), ASKED)
    await store.put_back(job())
    await store.put_back(await begun(store))
    assert await store.find("acme", "a") == job(turn=2)
    assert await store.begin("acme", "a", 5.0) == (job(state="in_flight", begun=5.0, starts=1, turn=3), ASKED)


async def test_only_the_last_beginning_can_renew_put_back_or_end(store: JobStore) -> None:
    await store.add(job(), ASKED)
    first = await begun(store)
    await store.put_back(first)
    last = await begun(store, at=4.0)
    assert not await store.renew(first)
    assert not await store.end(first, FAILED, 9.0, 9.0)
    await store.put_back(first)
    assert await store.find("acme", "a") == last
    assert await store.renew(last)
    assert await store.end(last, DONE, 5.0, None)


async def test_an_end_is_kept_and_what_was_asked_for_is_not(store: JobStore) -> None:
    ended = await flown(store, telling=4.0)
    assert (ended.state, ended.begun, ended.ended, ended.telling) == ("done", 2.0, 3.0, 4.0)
    assert ended.outcome == DONE
    assert await store.begin("acme", "a", 5.0) is None


async def test_what_has_ended_does_not_change_any_more(store: JobStore) -> None:
    ended = await flown(store)
    assert not await store.end(ended, FAILED, 9.0, 9.0)
    assert not await store.renew(ended)
    await store.put_back(ended)
    assert await store.find("acme", "a") == ended
    assert await store.reopen() == []


async def test_only_what_is_in_flight_ends(store: JobStore) -> None:
    await store.add(job(), ASKED)
    assert not await store.end(job(), FAILED, 9.0, None)
    assert await store.find("acme", "a") == job()


async def test_a_failure_is_kept_as_one(store: JobStore) -> None:
    await store.add(job(), ASKED)
    assert await store.end(await begun(store), FAILED, 3.0, None)
    found = await store.find("acme", "a")
    assert found is not None
    assert (found.state, found.outcome) == ("failed", FAILED)


async def test_all_that_is_queued_is_listed_oldest_first(store: JobStore) -> None:
    await store.add(job("late", made=3.5), ASKED)
    await store.add(job("early", made=1.0), ASKED)
    await store.add(job("middle", made=2.0, tenant="other"), ASKED)
    await flown(store, "ended")
    waiting = [
        Waiting("acme", "early", len(ASKED), 1.0),
        Waiting("other", "middle", len(ASKED), 2.0),
        Waiting("acme", "late", len(ASKED), 3.5),
    ]
    assert await store.reopen() == waiting
    await store.put_back(await begun(store, "early"))
    assert await store.reopen() == waiting


async def test_what_an_earlier_process_had_in_flight_is_queued_again_in_its_old_place(tmp_path: Path) -> None:
    """Where there are no leases: they would have to end first."""
    for store in (MemoryJobs(), SqliteJobs(tmp_path / "jobs.db")):
        await store.add(job("late", made=3.0), ASKED)
        await store.add(job("early", made=1.0), ASKED)
        await begun(store, "early")
        for _ in range(2):
            assert [waiting.id for waiting in await store.reopen()] == ["early", "late"]
        again = await begun(store, "early", at=5.0)
        assert (again.starts, again.begun) == (2, 5.0)
        await store.close()


@pytest.mark.parametrize("store", LEASED, indirect=True)
async def test_what_a_living_process_has_in_flight_stays_its_own(store: JobStore) -> None:
    assert store.lease == 3_600.0
    await store.add(job(), ASKED)
    first = await begun(store)
    assert await store.reopen() == []
    assert await store.begin("acme", "a", 3.0) is None
    assert await store.find("acme", "a") == first


async def test_a_job_whose_lease_is_over_is_queued_again_in_its_old_place(fleeting: JobStore) -> None:
    await fleeting.add(job("late", made=3.0), ASKED)
    await fleeting.add(job("early", made=1.0), ASKED)
    first = await begun(fleeting, "early")
    assert [waiting.id for waiting in await fleeting.reopen()] == ["early", "late"]
    assert not await fleeting.renew(first)
    last = await begun(fleeting, "early", at=5.0)
    assert (last.starts, last.begun, last.turn) == (2, 5.0, 2)


async def test_an_end_after_the_lease_is_taken_unless_somebody_else_has_begun(fleeting: JobStore) -> None:
    for id in ("a", "b"):
        await fleeting.add(job(id), ASKED)
    first, other = await begun(fleeting, "a"), await begun(fleeting, "b")
    await fleeting.reopen()
    assert await fleeting.end(first, DONE, 4.0, None)
    last = await begun(fleeting, "b", at=5.0)
    assert not await fleeting.end(other, FAILED, 6.0, None)
    assert await fleeting.find("acme", "b") == last
    assert await fleeting.reopen() == [Waiting("acme", "b", len(ASKED), 1.0)]


async def test_the_states_of_many_are_told_at_once_and_of_none_that_is_not_there(store: JobStore) -> None:
    for id in ("a", "b"):
        await store.add(job(id), ASKED)
    await flown(store, "c")
    await begun(store, "b")
    names = [("acme", id) for id in "abcd"] + [("other", "a")]
    assert await store.states(names) == {("acme", "a"): "queued", ("acme", "b"): "in_flight", ("acme", "c"): "done"}
    assert await store.states([]) == {}


async def test_ends_are_due_in_their_order_and_no_earlier(store: JobStore) -> None:
    for id, telling in (("a", 9.0), ("b", 5.0), ("c", None), ("d", 7.0)):
        await flown(store, id, telling=telling)
    assert [found.id for found in await store.due(4.9, 5.0, 10)] == []
    assert [found.id for found in await store.due(8.0, 8.0, 10)] == ["b", "d"]
    assert [found.id for found in await store.due(9.0, 20.0, 2)] == ["b", "d"]
    assert [found.id for found in await store.due(19.0, 20.0, 10)] == ["a"]


async def test_who_asks_what_is_due_has_it_alone_for_a_while(store: JobStore) -> None:
    await flown(store, "a", telling=3.0)
    (mine,) = await store.due(5.0, 65.0, 10)
    assert (mine.id, mine.tries, mine.outcome) == ("a", 0, DONE)
    assert await store.due(64.0, 70.0, 10) == []
    assert [again.id for again in await store.due(65.0, 70.0, 10)] == ["a"]


async def test_a_told_end_is_due_no_more_and_one_to_be_told_again_is_due_later(store: JobStore) -> None:
    await flown(store, "a", telling=3.0)
    await flown(store, "b", telling=3.0)
    await store.told("acme", "a", None)
    await store.told("acme", "b", 8.0)
    assert await store.due(7.0, 7.0, 10) == []
    await store.told("other", "b", None)
    (again,) = await store.due(8.0, 9.0, 10)
    assert (again.id, again.tries, again.outcome) == ("b", 1, DONE)


async def test_the_sweep_takes_what_ended_long_ago_and_nothing_that_is_open(store: JobStore) -> None:
    await flown(store, "old", at=10.0)
    await flown(store, "new", at=20.0)
    await store.add(job("queued", made=0.0), ASKED)
    await store.add(job("flying", made=0.0), ASKED)
    await begun(store, "flying")
    assert await store.sweep(20.0) == 1
    known = [id for id in ("old", "new", "queued", "flying") if await store.find("acme", id) is not None]
    assert known == ["new", "queued", "flying"]
    assert await store.add(job("old", made=30.0), ASKED) == job("old", made=30.0)


@pytest.mark.parametrize("through", ["postgres", "pgbouncer"])
async def test_of_many_processes_that_begin_a_job_at_once_one_has_it(
    request: pytest.FixtureRequest, database_url: str, through: str
) -> None:
    url = request.getfixturevalue("pgbouncer").through(database_url) if through == "pgbouncer" else database_url
    async with prepared(url) as one, prepared(url) as other:
        stores = [PostgresJobs(one), PostgresJobs(other)]
        ids = [f"job-{number}" for number in range(20)]
        for id in ids:
            await stores[0].add(job(id), ASKED)
        tries = [store.begin("acme", id, 2.0) for id in ids for store in stores * 2]
        won = [found[0].id for found in await asyncio.gather(*tries) if found is not None]
        assert sorted(won) == sorted(ids)


async def test_what_two_processes_put_under_one_id_is_one_job(database_url: str) -> None:
    async with prepared(database_url) as one, prepared(database_url) as other:
        stores = [PostgresJobs(one), PostgresJobs(other)] * 4
        kept = await asyncio.gather(*(store.add(job(made=float(n)), b"%d" % n) for n, store in enumerate(stores)))
        assert len({each.made for each in kept}) == 1
        found = await stores[0].begin("acme", "a", 9.0)
        assert found is not None
        assert found[1] == b"%d" % kept[0].made


async def test_two_processes_that_ask_what_is_due_share_it_out(database_url: str) -> None:
    async with prepared(database_url) as one, prepared(database_url) as other:
        stores = [PostgresJobs(one), PostgresJobs(other)]
        for number in range(20):
            await flown(stores[0], f"job-{number}", telling=3.0)
        portions = await asyncio.gather(*(store.due(5.0, 65.0, 5) for store in stores * 3))
        told = [each.id for portion in portions for each in portion]
        assert len(told) == len(set(told)) > 0
