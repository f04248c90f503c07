"""Any order of holds, extensions, endings, fillings and waits: every till in a store answers what the one in memory does.

Two owners, few amounts near a cap and at the largest there is, ids that come again, numbers on both sides of what was filled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.budget.budget import Scope
from headgate.budget.postgres_till import SCHEMA, PostgresTill
from headgate.budget.redis import RedisTill
from headgate.budget.till import Ask, Ending, Filling, Till
from headgate.budget.till_memory import MemoryTill
from headgate.model.money import LARGEST
from headgate.storage.postgres import Postgres
from headgate.storage.redis import Redis
from tests.servers.postgres import PostgresServer
from tests.servers.redis import PATIENT, RedisServer

NOON = 1_795_176_000.0
HOUR = "hour:2026-11-20T12"
MINUTE = "tokens/minute:2026-11-20T12:00"
WINDOWS = (HOUR, "total", MINUTE)

OWNERS = st.sampled_from(["t/acme", "o/all"])
IDS = st.sampled_from(["a", "b", "c", "d"])
LEASES = st.sampled_from([5.0, 50.0])
# Few values, so that sums often come to exactly a cap, or to one more; and those at which parts of a number carry.
AMOUNTS = st.sampled_from([0, 1, 9, 10, 20, 999_999_999, 1_000_000_000, 2**53 + 1, LARGEST - 1, LARGEST])
CAPS = st.sampled_from([None, -1, 0, 20, 40, 1_000_000_019, 2**53 + 20, LARGEST])
NUMBERS = st.integers(0, 6)
EPOCHS = st.integers(1, 4)


@st.composite
def scopes(draw: st.DrawFn) -> tuple[Scope, ...]:
    places = draw(st.lists(st.sampled_from(["hour", "total", "ann", "minute"]), unique=True, max_size=4))
    made = {
        "hour": lambda cap: Scope("tenant:acme", HOUR, cap),
        "total": lambda cap: Scope("tenant:acme", "total", cap),
        "ann": lambda cap: Scope("user:acme/ann", "total", cap),
        "minute": lambda cap: Scope("tenant:acme", MINUTE, cap, tokens=True),
    }
    return tuple(made[place](draw(CAPS)) for place in places)


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    amount = draw(AMOUNTS)
    return Ask(
        id=draw(IDS),
        owner=draw(OWNERS),
        scopes=draw(scopes()),
        amount=amount,
        least=min(amount, draw(AMOUNTS)),
        tokens=draw(AMOUNTS),
        lease=draw(LEASES),
        epoch=0,
    )


PLACES = st.sampled_from(
    [("tenant:acme", HOUR), ("tenant:acme", "total"), ("user:acme/ann", "total"), ("tenant:acme", MINUTE)]
)
SPENT = st.dictionaries(PLACES, AMOUNTS, max_size=3)
ENDINGS = st.builds(
    lambda called, owner, number, spent: Ending(
        id=called, owner=owner, number=number, spent=tuple(spent.items()) if number else ()
    ),
    IDS,
    OWNERS,
    NUMBERS,
    SPENT,
)


@st.composite
def fillings(draw: st.DrawFn) -> Filling:
    anew = draw(st.booleans())
    windows = tuple(draw(st.lists(st.sampled_from(WINDOWS), unique=True)))
    calls = draw(
        st.lists(st.tuples(IDS, scopes(), AMOUNTS, AMOUNTS, LEASES), max_size=2, unique_by=lambda call: call[0])
    )
    opened = [call for call in calls if anew and all(scope.window in windows for scope in call[1])]
    return Filling(epoch=draw(EPOCHS), anew=anew, number=draw(NUMBERS), windows=windows, spent=draw(SPENT), open=opened)


STEPS = st.one_of(
    st.tuples(st.just("hold"), asks()),
    st.tuples(st.just("hold"), asks()),
    st.tuples(st.just("extend"), IDS, OWNERS, LEASES, st.none() | AMOUNTS),
    st.tuples(st.just("end"), st.lists(ENDINGS, max_size=3)),
    st.tuples(st.just("fill"), OWNERS, fillings()),
    st.tuples(st.just("overdue"), OWNERS, st.just(10)),
    st.tuples(st.just("wait"), st.sampled_from([5, 45])),
)
FILLED = [
    ("fill", owner, Filling(epoch=1, anew=True, number=2, windows=WINDOWS, spent={("tenant:acme", HOUR): 3}))
    for owner in ("t/acme", "o/all")
]


async def agree(steps: list[tuple[Any, ...]], make: Callable[[Callable[[], float]], Till]) -> None:
    """Take the steps with both, and compare what each is answered and what is counted in the end."""
    now = NOON
    model, till = MemoryTill(clock=lambda: now), make(lambda: now)
    places = [(account, window) for account in ("tenant:acme", "user:acme/ann") for window in WINDOWS]
    ends = [("balance", owner, place) for owner in ("t/acme", "o/all") for place in places]
    for what, *arguments in [*FILLED, *steps, *ends]:
        if what == "wait":
            now += arguments[0]
            continue
        told, expected = [await _told(getattr(one, what)(*arguments)) for one in (till, model)]
        assert told == expected, (what, arguments)
    assert set(await till.owners(10)) == set(await model.owners(10))


async def _told(answer: Awaitable[Any]) -> Any:
    told = await answer
    # Two whose leases end together may come in either order.
    return sorted(told, key=msgspec.structs.astuple) if isinstance(told, list) else told


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def redis(loop: asyncio.Runner, redis_server: RedisServer) -> Iterator[Redis]:
    redis = Redis(redis_server.url, prefix=uuid4().hex, timeout=PATIENT)
    yield redis
    loop.run(redis.close())


@pytest.fixture(scope="module")
def postgres(loop: asyncio.Runner, postgres_server: PostgresServer) -> Iterator[Postgres]:
    url = postgres_server.database()
    postgres = Postgres(url)
    loop.run(postgres.migrate({"till": SCHEMA}))
    yield postgres
    loop.run(postgres.close())
    postgres_server.drop(url)


shared = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(shared, max_examples=150)
@given(steps=st.lists(STEPS, max_size=30))
def test_redis_answers_as_memory_does(loop: asyncio.Runner, redis: Redis, steps: list[tuple[Any, ...]]) -> None:
    redis.prefix = uuid4().hex
    loop.run(agree(steps, lambda clock: RedisTill(redis, clock=clock)))


@settings(shared, max_examples=80)
@given(steps=st.lists(STEPS, max_size=30))
def test_postgres_answers_as_memory_does(
    loop: asyncio.Runner, postgres: Postgres, steps: list[tuple[Any, ...]]
) -> None:
    async def emptied() -> None:
        for table in ("owners", "windows", "counters", "reservations"):
            await postgres.query(f"DELETE FROM headgate_till_{table}")
        await agree(steps, lambda clock: PostgresTill(postgres, clock=clock))

    loop.run(emptied())
