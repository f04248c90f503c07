"""`python -m benchmarks.redis_cache`: cached answers in a Redis 8 on loopback, by themselves. Prints figures and writes JSON.

- Bytes of Redis' memory for an entry of one tenant and partition, beside what the store tells of it.
- A lookup that finds nothing exact and searches by meaning among all entries, alone and 32 at a time; and how often the nearest is found.
- An exact hit; puts; puts at the tenant's bound, where each makes room.
- Round trips of a hit and of a lookup that searches.
- An invalidation of half of the entries, and for how long it keeps another client waiting at a time.

Vectors are drawn as in `cache_store.py`. Goals are of 100,000 entries; exit code 0 also when one is missed: a busy machine misses goals.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import click
import msgspec

from benchmarks.cache_store import HOME, PARTITION, QUICK, Size, Times, entries, key, recall, times, vectors
from benchmarks.plan import MANY, Goal
from headgate.cache.cache import Entry, Search, Selection
from headgate.cache.redis import RedisStore
from headgate.storage.news import News
from headgate.storage.redis import Redis
from tests.servers.redis import RedisServer

LATEST = Path(__file__).with_name("results") / "redis_cache.json"
COUNT = 8
"""Candidates of a search, as the tiers ask for."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in µs; `stall` in ms."""

    entries: int
    bytes_each: float
    told_each: float
    searches: Times
    searches_a_second: float
    recall: float
    hits: Times
    hits_a_second: float
    puts: Times
    puts_at_bound: Times
    trips_of_hit: float
    trips_of_search: float
    invalidate_s: float
    stall: float

    def goals(self) -> list[Goal]:
        """What it should keep."""
        return [
            Goal(name="search, p95", figure=self.searches.p95, bound=5_000, unit="µs", at_most=True),
            Goal(name="the nearest is found", figure=self.recall, bound=0.98, unit="", at_most=False),
            Goal(name="round trips of a hit", figure=self.trips_of_hit, bound=1, unit="", at_most=True),
            Goal(name="round trips of a search", figure=self.trips_of_search, bound=1, unit="", at_most=True),
            Goal(name="longest wait for an invalidation", figure=self.stall, bound=50, unit="ms", at_most=True),
        ]


async def timed(work: Callable[[int], Awaitable[object]], count: int) -> Times:
    """One after the other."""
    took = []
    for number in range(count):
        began = time.perf_counter()
        await work(number)
        took.append(time.perf_counter() - began)
    return times(took)


async def a_second(work: Callable[[int], Awaitable[object]], count: int) -> float:
    """How many are done in a second with 32 at a time."""

    async def some(start: int) -> None:
        for number in range(start, count, MANY):
            await work(number)

    began = time.perf_counter()
    await asyncio.gather(*(some(start) for start in range(MANY)))
    return count / (time.perf_counter() - began)


async def fill(store: RedisStore, made: Sequence[Entry]) -> None:
    for start in range(0, len(made), MANY):
        some = (made[number] for number in range(start, min(start + MANY, len(made))))
        await asyncio.gather(*(store.put(one, epoch=0) for one in some))


async def invalidated(store: RedisStore, url: str) -> tuple[float, float]:
    """Remove half of the entries by a tag: seconds, and the longest that another client waited meanwhile, ms."""
    other, stall = Redis(url), 0.0
    began = time.perf_counter()
    task = asyncio.create_task(store.invalidate(Selection(tenant=HOME.tenant, tags=("even",))))
    while not task.done():
        asked = time.perf_counter()
        await other.probe()
        stall = max(stall, time.perf_counter() - asked)
    took = time.perf_counter() - began
    await other.close()
    return took, 1e3 * stall


def memory_of(server: RedisServer) -> int:
    """Bytes that Redis has allocated."""
    lines = server.command("INFO", "memory").splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith("used_memory:"))


async def measure(server: RedisServer, size: Size) -> Findings:
    redis = Redis(server.url, timeout=10.0)
    # No bound is met while it fills.
    store = await RedisStore.open(redis, News(redis), entries_per_tenant=size.entries, bytes_per_tenant=1 << 40)
    made, asked = entries(size.entries), vectors(size.searches, seed=999_999)
    before = memory_of(server)
    await fill(store, made)
    bytes_each = (memory_of(server) - before) / size.entries

    async def search(number: int) -> None:
        looked = await store.look(key(number, 7), Search(PARTITION, asked[number % len(asked)], COUNT))
        if isinstance(looked, Entry) or len(looked) != COUNT:
            raise RuntimeError("a search found something else than its candidates")

    async def hit(number: int) -> None:
        if await store.get(key(number * 7 % size.entries)) is None:
            raise RuntimeError("an entry that was stored is not found")

    others = entries(size.searches // 2, seed=7_000)
    later = [others[number] for number in range(len(others))]
    again = [made[number] for number in range(1, size.searches // 2, 2)]
    await search(0)
    trips = redis.round_trips
    searches = await timed(search, size.searches)
    of_search = (redis.round_trips - trips) / size.searches
    trips = redis.round_trips
    hits = await timed(hit, size.searches)
    of_hit = (redis.round_trips - trips) / size.searches
    told_each = store.weight() / size.entries
    searches_a_second, hits_a_second = await a_second(search, size.searches), await a_second(hit, 4 * size.searches)
    right = await recall(store, made, min(200, size.searches))
    at_bound = await timed(lambda number: store.put(later[number], epoch=0), len(later))
    for one in again:
        await store.invalidate(Selection(tenant=HOME.tenant, entry=one.id))
    puts = await timed(lambda number: store.put(again[number], epoch=store.epoch(HOME.tenant)), len(again))
    seconds, stall = await invalidated(store, server.url)
    await store.close()
    await redis.close()
    return Findings(
        entries=size.entries,
        bytes_each=bytes_each,
        told_each=told_each,
        searches=searches,
        searches_a_second=searches_a_second,
        recall=right,
        hits=hits,
        hits_a_second=hits_a_second,
        puts=puts,
        puts_at_bound=at_bound,
        trips_of_hit=of_hit,
        trips_of_search=of_search,
        invalidate_s=seconds,
        stall=stall,
    )


def text(found: Findings) -> str:
    """What is printed."""

    def line(name: str, one: Times) -> str:
        return f"{name:34} {one.mean:9.0f} {one.p50:9.0f} {one.p95:9.0f} {one.most:9.0f}"

    rows = [
        f"{found.entries:,} entries of one tenant and partition, 384 dimensions; µs",
        f"{'':34} {'mean':>9} {'p50':>9} {'p95':>9} {'most':>9}",
        line(f"search, {COUNT} candidates", found.searches),
        line("exact hit", found.hits),
        line("put", found.puts),
        line("put at the bound", found.puts_at_bound),
        "",
        f"bytes of an entry in Redis: {found.bytes_each:,.0f}; the store says {found.told_each:,.0f}",
        f"a second, {MANY} at a time: {found.searches_a_second:,.0f} searches, {found.hits_a_second:,.0f} hits",
        f"invalidation of half: {found.invalidate_s:.1f} s",
        "",
    ]
    rows += [
        f"{'met   ' if goal.met else 'MISSED'} {goal.name}: {goal.figure:,.2f} {goal.unit} (bound {goal.bound:,g})"
        for goal in found.goals()
    ]
    return "\n".join(rows)


@click.command()
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=LATEST, show_default=True, help="JSON file."
)
@click.option("--quick", is_flag=True, help="Small numbers: half a minute, and no figure to believe.")
def main(out: Path, *, quick: bool) -> None:
    """Measure the cache's store in Redis."""
    with RedisServer() as server:
        found = asyncio.run(measure(server, QUICK if quick else Size()))
    click.echo(text(found))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    click.echo(f"\nwritten to {out}")


if __name__ == "__main__":
    main()
