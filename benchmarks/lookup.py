"""What a semantic lookup costs in process, in a tenant with very many entries, for a question that has never been asked.

    python -m benchmarks.lookup [--entries 100000] [--questions PAIRS.jsonl.gz] [--quick]

The cache is that of a gateway: store, model, verdict and prior as they ship. It is filled with questions, and then asked others, none of
which is stored: one at a time, which tells the latency, and 64 at a time, which tells the rate. A third part asks one at a time with a
stopwatch in each part. Time of the processor is told beside time on the clock, for that one does not depend on who else is there.

The questions are made up: sixteen frames that people use, with two words in each from the model's vocabulary. How near they lie to each
other decides what a lookup costs, so it is reported: the share of new questions to which anything is near enough to be read, and of
which anything was read in the end. `--questions` takes them from a file of {a, b, same} as `headgate eval pairs` reads it, and asks
those of which it does not say that anything is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import msgspec
import uvloop

from headgate.bench import Models, bench, open_models
from headgate.cache.cache import Candidate, Hit, Miss, Question, Vector
from headgate.cache.fingerprint import fingerprint
from headgate.cache.guards.guards import unfit
from headgate.cache.keeping import Asked
from headgate.cache.labels import Scope
from headgate.cache.learning import Learning
from headgate.cache.prior import Prior
from headgate.cache.reading import Reader, Reading
from headgate.cache.shipped import SHIPPED
from headgate.cache.tiers import Cache
from headgate.cache.verdict import FAR, CalibratedVerdict
from headgate.config import Config
from headgate.evaluation.files import read_pairs
from headgate.evaluation.model import completion, plain_request
from headgate.model.tenancy import CacheTerms, Namespace, Wishes

TENANT = Namespace("bench")
ANSWER = "It takes two working days. You can follow it under Settings, where you also find whom to ask if it takes any longer. "
ALONE, TIMED, TOGETHER, AT_ONCE = 1_500, 500, 6_000, 64
BATCH = 512
WARM = 50
GOALS = {"p50_ms": 1.5, "p95_ms": 4.0, "per_second": 1_000.0, "bytes_per_entry": 800.0}

_FRAMES = (
    "How does {0} affect {1}?", "What is the difference between {0} and {1}?", "How do I use {0} for {1}?",
    "Can {0} replace {1} in a small company?", "Why is {0} more expensive than {1}?", "Where can I learn about {0} and {1}?",
    "Is {0} a good choice for someone new to {1}?", "What should I know about {0} before I start with {1}?",
    "How long does {0} take without {1}?", "Who invented {0}, and what has it to do with {1}?",
    "What are the risks of {0} during {1}?", "How can I explain {0} to a child who likes {1}?",
    "Which books about {0} also treat {1}?", "Do I need {1} to understand {0}?", "How much {0} is there in {1}?",
    "What happens to {0} after {1}?",
)  # fmt: skip
_WORDS = slice(1_500, 7_500)
"""By frequency, of those with four letters or more: not so common that they say nothing, nor rare."""


class Spread(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p95: float
    mean: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        ordered = sorted(1_000 * one for one in seconds) or [0.0]
        return cls(statistics.median(ordered), ordered[int(0.95 * len(ordered))], statistics.fmean(ordered))

    def __str__(self) -> str:
        return f"p50 {self.p50:6.2f}   p95 {self.p95:6.2f}   mean {self.mean:6.2f} ms"


class Stopwatch:
    """Seconds by what they were spent on, for one lookup at a time."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent.setdefault(what, []).append(time.perf_counter() - began)


class TimedReader:
    """A Reader that tells when the first of some readings began and the last ended, and which texts were asked for."""

    def __init__(self, reader: Reader) -> None:
        self.identity = reader.identity
        self.rarity = reader.rarity
        self.fits = reader.fits
        self._reader = reader
        self.texts: list[str] = []
        self.began = self.ended = 0.0

    async def read(self, text: str) -> Reading:
        self.began = self.began if self.texts else time.perf_counter()
        self.texts.append(text)
        reading = await self._reader.read(text)
        self.ended = time.perf_counter()
        return reading


def made_up() -> Iterator[str]:
    """Questions without end, all different, always the same ones."""
    vocabulary = (SHIPPED / "vocab.txt").read_text(encoding="utf-8").splitlines()
    listed = vocabulary[vocabulary.index("the") :]
    words = [word for word in listed if word.isascii() and word.isalpha() and len(word) >= 4][_WORDS]
    drawn, seen = random.Random(7), set()
    while True:
        text = drawn.choice(_FRAMES).format(drawn.choice(words), drawn.choice(words))
        if text not in seen and unfit(text) is None:
            seen.add(text)
            yield text


def divided(path: Path | None, entries: int, new: int) -> tuple[list[str], list[str]]:
    """What is stored, and what is asked."""
    if path is None:
        texts = made_up()
        return list(islice(texts, entries)), list(islice(texts, new))
    pairs = read_pairs(path)
    texts_of = list(dict.fromkeys(text for pair in pairs for text in (pair.a, pair.b) if unfit(text) is None))
    known = {text for pair in pairs if pair.same for text in (pair.a, pair.b)}
    random.Random(7).shuffle(texts_of)
    asked = list(islice((text for text in texts_of if text not in known), new))
    chosen = set(asked)
    return [text for text in texts_of if text not in chosen][:entries], asked


class Desk:
    """The cache, asked as a pipeline asks it."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._treated = cache.treatment("", CacheTerms(), Wishes())

    async def fill(self, texts: Sequence[str]) -> None:
        for start in range(0, len(texts), BATCH):
            batch = [plain_request(text) for text in texts[start : start + BATCH]]
            questions = await asyncio.gather(*(self.cache.question(request, self._treated) for request in batch))
            for place, (request, question) in enumerate(zip(batch, questions, strict=True), start):
                key, asked = fingerprint(TENANT, request), Asked(id=f"{place:032x}", epoch=0, worth=1_000_000)
                await self.cache.store(key, question, completion(ANSWER), self._treated, asked)
            print(f"\rfilling: {start + len(batch):,} of {len(texts):,}", end="", file=sys.stderr)
        print(file=sys.stderr)

    def said(self, texts: Sequence[str]) -> int:
        """Bytes of all texts and answers that are stored."""
        hits = (self.cache.peek(fingerprint(TENANT, plain_request(text))) for text in texts)
        return sum(len(hit.entry.answer) + len((hit.entry.text or "").encode()) for hit in hits if hit is not None)

    async def question(self, text: str) -> Question | None:
        return await self.cache.question(plain_request(text), self._treated)

    async def look(self, text: str) -> Hit | Miss:
        request = plain_request(text)
        question = await self.cache.question(request, self._treated)
        return await self.cache.lookup(fingerprint(TENANT, request), question, self._treated)


async def alone(desk: Desk, texts: Iterable[str]) -> list[float]:
    """Seconds of each lookup, one after the other."""
    taken = []
    for text in texts:
        began = time.perf_counter()
        await desk.look(text)
        taken.append(time.perf_counter() - began)
    return taken


async def together(desk: Desk, texts: Sequence[str]) -> None:
    """All lookups, so many at a time."""
    waiting = iter(texts)

    async def work() -> None:
        for text in waiting:
            await desk.look(text)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


class Parts(msgspec.Struct):
    """How many questions had anything near, how many had to be read with it, how many texts that were, and the time in each part."""

    near: int = 0
    reading: int = 0
    read: int = 0
    watch: Stopwatch = msgspec.field(default_factory=Stopwatch)


async def parts(desk: Desk, reader: Reader, texts: Sequence[str]) -> Parts:
    """The same lookups in pieces, with a verdict that has learnt nothing."""
    found, timed = Parts(), TimedReader(reader)
    verdict = CalibratedVerdict(timed, Prior.load(), Learning())
    for text in texts:
        with found.watch.timing("question"):
            question = await desk.question(text)
        if question is None:
            continue
        with found.watch.timing("search"):
            candidates = await nearest(desk.cache, question.partition, question.vector)
        if not candidates or candidates[0].similarity < FAR:
            continue
        found.near += 1
        timed.texts.clear()
        began = time.perf_counter()
        await verdict.judge(Scope(TENANT, question.scope), text, candidates, 0.005, True)
        whole, read = time.perf_counter() - began, timed.ended - timed.began if timed.texts else 0.0
        found.watch.spent.setdefault("judging", []).append(whole - read)
        if timed.texts:
            found.reading += 1
            found.read += len(timed.texts) - 1
            found.watch.spent.setdefault("reading", []).append(read)
    return found


async def nearest(cache: Cache, partition: bytes, vector: Vector) -> Sequence[Candidate]:
    return await cache.entries.nearest(TENANT, partition, vector, 8)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure(arguments: argparse.Namespace) -> None:
    share = 5 if arguments.quick else 1
    counts = [WARM, ALONE // share, TIMED // share, TOGETHER // share]
    stored, new = divided(arguments.questions, arguments.entries, sum(counts))
    if len(new) < sum(counts):
        raise SystemExit(f"only {len(new):,} of the questions are new; {sum(counts):,} are asked")
    config = Config.model_validate({"cache": {"entries_per_tenant": max(len(stored), 1)}})
    async with open_models(config) as models:
        await report(Desk(bench(config, models, now=time.time).cache), models, stored, iter(new), counts)


async def report(desk: Desk, models: Models, stored: list[str], new: Iterator[str], counts: list[int]) -> None:
    before = resident()
    await desk.fill(stored)
    said, size = desk.said(stored), desk.cache.size()
    beside = (desk.cache.weight() - said) / size
    print(f"{size:,} entries; beside text and answer {beside:,.0f} bytes each by the cache's own count, "
          f"{(resident() - before - said) / size:,.0f} by the system's")  # fmt: skip
    warm, single, timed, many = (list(islice(new, count)) for count in counts)
    await alone(desk, warm)
    worked = time.process_time()
    one = Spread.of(await alone(desk, single))
    worked = time.process_time() - worked
    print(f"one at a time   {one};   {1_000 * worked / len(single):.2f} ms of the processor each")
    began, worked = time.perf_counter(), time.process_time()
    await together(desk, many)
    rate, worked = len(many) / (time.perf_counter() - began), time.process_time() - worked
    print(f"{AT_ONCE} at a time   {rate:,.0f} a second;   {1_000 * worked / len(many):.2f} ms of the processor each")
    if models.reads is not None:
        await tell_parts(desk, models.reads, timed)
    measured = {"p50_ms": one.p50, "p95_ms": one.p95, "per_second": rate, "bytes_per_entry": beside}
    for name, goal in GOALS.items():
        kept = measured[name] >= goal if name == "per_second" else measured[name] <= goal
        print(f"{'ok  ' if kept else 'MISS'}  {name}: {measured[name]:,.2f}, goal {goal:,.1f}")


async def tell_parts(desk: Desk, reader: Reader, texts: Sequence[str]) -> None:
    found = await parts(desk, reader, texts)
    for what in ("question", "search", "judging", "reading"):
        taken = found.watch.spent.get(what, [])
        print(f"  {what:<10} {Spread.of(taken)}   in {len(taken) / len(texts):.0%} of the lookups")
    print(f"  to {found.near / len(texts):.0%} of the new questions something was near, for {found.reading / len(texts):.0%} "
          f"it had to be read: {found.read / len(texts):.2f} texts a lookup")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="What a semantic lookup costs in process.")
    parser.add_argument("--entries", type=int, default=100_000, help="stored questions")
    parser.add_argument("--questions", type=Path, help="a file of pairs to take the questions from")
    parser.add_argument("--quick", action="store_true", help="a fifth of the lookups")
    uvloop.run(measure(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
