"""Whatever several processes do to a job store, in whichever order: PostgreSQL answers as the reference in memory does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from headgate.jobs.jobs import Job, JobStore
from headgate.jobs.memory import MemoryJobs
from headgate.jobs.postgres import SCHEMA, PostgresJobs
from headgate.storage.postgres import Postgres
from tests.conformance.test_job_store import DONE, FAILED, job

Taken = Callable[[JobStore, str, float, Job], Awaitable[Any]]
TAKEN: dict[str, Taken] = {
    "add": lambda store, name, at, _: store.add(replace(job(name), made=at), b"%d" % at),
    "find": lambda store, name, _, __: store.find("acme", name),
    "begin": lambda store, name, at, _: store.begin("acme", name, at),
    "renew": lambda store, _, __, holder: store.renew(holder),
    "put_back": lambda store, _, __, holder: store.put_back(holder),
    "end": lambda store, _, at, holder: store.end(holder, DONE if holder.id == "a" else FAILED, at, at + 2),
    "reopen": lambda store, _, __, ___: store.reopen(),
    "due": lambda store, _, at, __: store.due(at, at + 3, 10),
    "told": lambda store, name, at, _: store.told("acme", name, at + 1 if name == "a" else None),
    "sweep": lambda store, _, at, __: store.sweep(at - 10),
    "states": lambda store, _, __, ___: store.states([("acme", "a"), ("acme", "b"), ("acme", "c")]),
}
"""What happens at each step: to a job, at a time, or by one who has begun some job."""
STEPS = st.lists(st.tuples(st.sampled_from([*TAKEN, "begin"]), st.sampled_from("ab"), st.integers(0, 3)), max_size=40)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as found:
        yield found


@pytest.fixture
def postgres(runner: asyncio.Runner, database_url: str) -> Iterator[Postgres]:
    found = runner.run(prepared(database_url))
    yield found
    runner.run(found.close())


async def prepared(url: str) -> Postgres:
    postgres = Postgres(url, pool=2)
    await postgres.migrate({"jobs": SCHEMA})
    return postgres


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
@example(steps=[("add", "a", 0), ("begin", "a", 0), ("told", "a", 0), ("put_back", "a", 0), ("add", "a", 0)])
def test_any_steps_are_answered_alike(
    runner: asyncio.Runner, postgres: Postgres, steps: list[tuple[str, str, int]]
) -> None:
    runner.run(play(postgres, steps))


async def play(postgres: Postgres, steps: list[tuple[str, str, int]]) -> None:
    await postgres.query("DELETE FROM headgate_jobs")
    # Leases that are over at once: whatever is in flight is queued again by the next look.
    stores: tuple[JobStore, JobStore] = MemoryJobs(lease=0.0), PostgresJobs(postgres, lease=0.0)
    begun: list[Job] = []
    for number, (step, id, which) in enumerate(steps):
        holder = begun[which % len(begun)] if begun else job(id)
        answers = [await TAKEN[step](store, id, float(number), holder) for store in stores]
        assert answers[0] == answers[1], (number, step, id, which)
        if step == "begin" and answers[0] is not None:
            begun.append(answers[0][0])
            assert len({(each.id, each.turn) for each in begun}) == len(begun), "each beginning has its number"
    assert [await store.find("acme", id) for store in stores[:1] for id in "ab"] == [
        await store.find("acme", id) for store in stores[1:] for id in "ab"
    ]
