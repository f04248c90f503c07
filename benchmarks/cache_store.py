"""`python -m benchmarks.cache_store`: where cached answers lie, by itself, in process. Prints a table and writes JSON.

- Memory of an entry beside its text and its answer: what the process grew by, with all entries in one tenant and partition.
- A search by meaning among 1,000, 10,000 and 100,000 entries of one partition, and how often it finds the nearest.
- An exact hit; puts, also at the tenant's bound; an invalidation, and for how long it keeps others waiting at a time.
- Opening the file: after a close, and with an index that is damaged, with the searches until there is a new one.

Vectors are drawn: bundles in a space of fewer directions than numbers, as questions' vectors are. Each part runs in a process of its
own. Exit code 0 also when a goal is missed: a busy machine misses goals.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import hashlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from benchmarks.plan import Goal
from headgate.cache.cache import CacheStore, Entry, Selection
from headgate.cache.memory import MemoryStore
from headgate.cache.sqlite import SqliteStore
from headgate.model.tenancy import Key, Namespace

LATEST = Path(__file__).with_name("results") / "cache_store.json"
HOME = Namespace("t_0123456789abcdef")
PARTITION = hashlib.sha256(b"partition").digest()
DIMENSIONS = 384
TEXT, ANSWER = "What is the capital of France, and how many people live there?", os.urandom(600)
DAY = 86_400.0
Result = TypeVar("Result")


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    entries: int = 100_000
    searches: int = 2_000


QUICK = Size(entries=12_000, searches=300)


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Of many calls of one kind, in µs."""

    mean: float
    p50: float
    p95: float
    most: float


class InMemory(msgspec.Struct, frozen=True, kw_only=True):
    """`searches` by the number of entries; `recall` is of the nearest; `stall` the longest turn of an invalidation, ms."""

    bytes_beside: float
    told_beside: float
    searches: dict[int, Times]
    recall: float
    hits: Times
    puts: Times
    puts_at_bound: Times
    invalidate_s: float
    stall: float


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """`settled_s`: until the index was built anew; 0 when it did not have to be."""

    open_s: float
    searches: Times
    settled_s: float
    settled: Times


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    size: Size
    memory: InMemory
    puts_per_s: float
    close_s: float
    clean: Opened
    damaged: Opened

    def goals(self) -> list[Goal]:
        """The figures that something was promised of."""
        largest = self.memory.searches[max(self.memory.searches)]
        return [
            Goal(
                name="memory beside text and answer", figure=self.memory.bytes_beside, bound=800, unit="B", at_most=True
            ),
            Goal(name="search, mean", figure=largest.mean, bound=250, unit="µs", at_most=True),
            Goal(name="search, p95", figure=largest.p95, bound=1_000, unit="µs", at_most=True),
            Goal(name="the nearest is found", figure=self.memory.recall, bound=0.98, unit="", at_most=False),
            Goal(name="opening after a close", figure=self.clean.open_s, bound=2, unit="s", at_most=True),
            Goal(name="opening with a damaged index", figure=self.damaged.open_s, bound=2, unit="s", at_most=True),
            Goal(name="longest wait for an invalidation", figure=self.memory.stall, bound=5, unit="ms", at_most=True),
        ]


def vectors(count: int, *, seed: int) -> Any:
    """Unit vectors, shape (count, DIMENSIONS); those of all seeds are about the same things."""
    import numpy as np

    about = np.random.default_rng(0)
    topics, spread = about.standard_normal((3_000, 60)), about.standard_normal((60, DIMENSIONS))
    drawn = np.random.default_rng(seed)
    points = topics[drawn.integers(0, len(topics), count)] + 0.7 * drawn.standard_normal((count, 60))
    found = (points @ spread + 0.8 * drawn.standard_normal((count, DIMENSIONS))).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def entries(count: int, *, seed: int = 1) -> Sequence[Entry]:
    """Entries of one partition, made one thousand at a time as they are asked for."""
    return _Entries(count, seed)


class _Entries(Sequence[Entry]):
    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._block: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        from headgate.cache.quantise import quantised

        if self._block[0] != number // 1_000:
            self._block = number // 1_000, vectors(1_000, seed=self._seed + number // 1_000)
        now = time.time()
        return Entry(
            id=hashlib.blake2b(b"%d %d" % (self._seed, number), digest_size=16).hexdigest(),
            key=key(number, self._seed),
            answer=ANSWER + b"%d" % number,
            stored=now,
            expires=now + DAY + number % 3_600,
            worth=100_000 + 1_000 * (number % 500),
            deployment="gpt-4o-mini",
            model="auto",
            user=f"user {number % 100}",
            tags=("even",) if number % 2 == 0 else ("odd",),
            partition=PARTITION,
            text=TEXT,
            vector=quantised(self._block[1][number % 1_000]),
            semantic_until=now + DAY / 2 + number % 3_600,
        )


def key(number: int, seed: int = 1) -> Key:
    return Key(HOME, hashlib.sha256(b"%d %d" % (seed, number)).digest())


def times(seconds: list[float]) -> Times:
    ordered = sorted(1e6 * one for one in seconds)
    size = len(ordered)
    return Times(
        mean=sum(ordered) / size, p50=ordered[size // 2], p95=ordered[int(0.95 * (size - 1))], most=ordered[-1]
    )


def memory_of_this() -> int:
    """Bytes of memory that are this process's own, without what it has freed and only not given back."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty"):
            return 1_024 * int(line.split()[1])
    return 0


async def puts(store: CacheStore, made: Sequence[Entry], start: int, stop: int) -> list[float]:
    took = []
    for number in range(start, stop):
        entry = made[number]
        began = time.perf_counter()
        await store.put(entry, epoch=0)
        took.append(time.perf_counter() - began)
    return took


async def searched(store: CacheStore, count: int) -> Times:
    asked = vectors(count, seed=999_999)
    took = []
    for vector in asked:
        began = time.perf_counter()
        await store.nearest(HOME, PARTITION, vector, 3)
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0)
    return times(took)


async def recall(store: CacheStore, made: Sequence[Entry], count: int) -> float:
    """How often the nearest is what comparing with every vector finds."""
    import numpy as np

    from headgate.cache.quantise import restored

    asked = vectors(count, seed=999_998)
    best, who = np.full(count, -2.0), np.zeros(count, int)
    for start in range(0, len(made), 1_000):
        some = [made[number] for number in range(start, min(start + 1_000, len(made)))]
        similar = asked @ np.stack([restored(one.vector or b"") for one in some]).T
        better = similar.max(axis=1) > best
        who[better], best[better] = start + similar.argmax(axis=1)[better], similar.max(axis=1)[better]
    found = [(await store.nearest(HOME, PARTITION, vector, 1))[0].entry.id for vector in asked]
    return sum(id == made[int(number)].id for id, number in zip(found, who, strict=True)) / count


async def measure_memory(size: Size) -> InMemory:
    from headgate.cache.graph import Graph

    # Loads the libraries, which are not the entries' memory.
    Graph(DIMENSIONS)
    made, store = entries(size.entries), MemoryStore(entries_per_tenant=size.entries)
    vectors(1_000, seed=1)
    payload = len(TEXT.encode()) + len(ANSWER) + len(str(size.entries)) - 1
    small = MemoryStore()
    await puts(small, entries(10, seed=5), 0, 10)
    await searched(small, size.searches)
    before, done, found = memory_of_this(), 0, {}
    took: list[float] = []
    for step in sorted({min(1_000, size.entries), min(10_000, size.entries), size.entries}):
        took = await puts(store, made, done, step)
        done = step
        found[step] = await searched(store, size.searches)
    grown = (memory_of_this() - before) / size.entries
    hits = []
    for number in range(10 * size.searches):
        wanted = key(number * 7 % size.entries)
        began = time.perf_counter()
        store.peek(wanted)
        hits.append(time.perf_counter() - began)
    right = await recall(store, made, size.searches // 4)
    at_bound = await puts(store, entries(size.searches, seed=7_000), 0, size.searches)
    seconds, stall = await invalidated(store)
    return InMemory(
        bytes_beside=grown - payload,
        told_beside=store.weight() / max(1, store.size()) - payload,
        searches=found,
        recall=right,
        hits=times(hits),
        puts=times(took),
        puts_at_bound=times(at_bound),
        invalidate_s=seconds,
        stall=stall,
    )


async def invalidated(store: MemoryStore) -> tuple[float, float]:
    """Remove half of the entries by a tag: seconds, and the longest that another task waited meanwhile, ms."""
    began = time.perf_counter()
    task = asyncio.create_task(store.invalidate(Selection(tenant=HOME.tenant, tags=("even",))))
    stall = 0.0
    while not task.done():
        turn = time.perf_counter()
        await asyncio.sleep(0)
        stall = max(stall, time.perf_counter() - turn)
    took = time.perf_counter() - began
    await store.close()
    return took, 1e3 * stall


async def fill(path: Path, size: Size) -> tuple[float, float]:
    """Entries a second, from the first to the last one on the disk but without drawing their vectors; and seconds of the close."""
    made, store = entries(size.entries), await SqliteStore.open(path, entries_per_tenant=size.entries)
    took = 0.0
    for number in range(size.entries):
        entry = made[number]
        began = time.perf_counter()
        await store.put(entry, epoch=0)
        await asyncio.sleep(0)
        took += time.perf_counter() - began
    began = time.perf_counter()
    await store.close()
    return size.entries / took, time.perf_counter() - began


async def reopened(path: Path, size: Size, *, settle: bool) -> Opened:
    began = time.perf_counter()
    store = await SqliteStore.open(path, entries_per_tenant=size.entries)
    open_s = time.perf_counter() - began
    at_once = await searched(store, min(200, size.searches))
    if settle:
        await store.settled()
    settled_s = time.perf_counter() - began if settle else 0.0
    found = Opened(open_s=open_s, searches=at_once, settled_s=settled_s, settled=await searched(store, size.searches))
    await store.close()
    return found


def damage(path: Path) -> None:
    """One byte of every index beside the file."""
    for file in path.parent.glob(f"{path.name}.graph-*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)


def run_memory(size: Size) -> InMemory:
    return asyncio.run(measure_memory(size))


def run_fill(path: Path, size: Size) -> tuple[float, float]:
    return asyncio.run(fill(path, size))


def run_reopened(path: Path, size: Size, settle: bool) -> Opened:
    return asyncio.run(reopened(path, size, settle=settle))


def alone(work: Callable[..., Result], *arguments: object) -> Result:
    """In a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(folder: Path, size: Size) -> Findings:
    """All parts, one after the other."""
    path = folder / "cache.db"
    memory = alone(run_memory, size)
    puts_per_s, close_s = alone(run_fill, path, size)
    clean = alone(run_reopened, path, size, False)
    damage(path)
    damaged = alone(run_reopened, path, size, True)
    return Findings(size=size, memory=memory, puts_per_s=puts_per_s, close_s=close_s, clean=clean, damaged=damaged)


def text(found: Findings) -> str:
    """The table."""
    size, memory = found.size, found.memory
    rows = [(f"search among {count:,}", one) for count, one in memory.searches.items()]
    rows += [("exact hit", memory.hits), ("put", memory.puts), ("put at the bound", memory.puts_at_bound)]
    rows += [
        ("search just after opening", found.clean.searches),
        ("search while an index is built", found.damaged.searches),
    ]
    lines = [f"{size.entries:,} entries of {DIMENSIONS} dimensions in one partition", ""]
    lines += [f"{'':<34} {'mean':>9} {'p50':>9} {'p95':>9} {'most':>9}  µs"]
    lines += [f"{name:<34} {one.mean:>9.1f} {one.p50:>9.1f} {one.p95:>9.1f} {one.most:>9.1f}" for name, one in rows]
    lines += [
        "",
        f"memory of an entry beside text and answer: {memory.bytes_beside:.0f} B (told: {memory.told_beside:.0f} B)",
        f"invalidating half of them: {memory.invalidate_s:.2f} s",
        f"with a file: {found.puts_per_s:,.0f} puts/s, closing {found.close_s:.2f} s",
        f"a damaged index was built anew {found.damaged.settled_s:.1f} s after opening began",
        "",
    ]
    for goal in found.goals():
        bound = f"{'at most' if goal.at_most else 'at least'} {goal.bound:,g} {goal.unit}"
        lines.append(f"{goal.name:<34} {goal.figure:>9,.3f} {goal.unit:<3} {'ok' if goal.met else 'MISS':<5} {bound}")
    return "\n".join(lines)


@click.command()
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=LATEST, show_default=True, help="JSON file."
)
@click.option("--quick", is_flag=True, help="Small numbers: some seconds, and no figure to believe.")
def main(out: Path, *, quick: bool) -> None:
    """Measure the cache's store in process."""
    size = QUICK if quick else Size()
    with tempfile.TemporaryDirectory(prefix="headgate-cache-") as name:
        found = measure(Path(name), size)
    click.echo(text(found))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    click.echo(f"\nwritten to {out}")


if __name__ == "__main__":
    main()
