"""What the static first stage spares and what it costs, on a labelled stream of requests.

    python -m benchmarks.first_stage STREAM.jsonl.gz

Each line of the stream is {tenant, text, answer}: two requests deserve the same answer iff both tenant and answer are equal. A question is
one that its tenant has not asked in the same words before; its *rewordings* are the earlier questions with its answer that the
model finds at a cosine of 0.75 or more. A rewording is *missed* when its static similarity is under the bound: it would be lost if it
were all that lies there. A rewording is *lost* when nothing else in the place is near either, so that the model is not asked. A question
is *spared* when the model is not asked. The bound is chosen on the first half of the lines, as the highest at which the upper end of
the 95 % interval of Clopper and Pearson for the missed share is under 0.5 %; the second half is the report.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from headgate.cache.accuracy import interval
from headgate.cache.inference import Session
from headgate.cache.shipped import SHIPPED
from headgate.cache.static import NEAR, FirstStage, StaticEmbedder
from headgate.cache.wordpiece import WordPiece

REWORDING = 0.75
MISSED = 0.005
BATCH = 32

Floats = NDArray[np.float32]


class Line(msgspec.Struct, frozen=True):
    """A request and the number of the answer that it deserves."""

    tenant: str
    text: str
    answer: int


class Asked(msgspec.Struct, frozen=True):
    """A question. `nearest` is the highest static similarity of anything in its place, `rewording` that of its rewordings, if any."""

    line: int
    entries: int
    nearest: float
    rewording: float | None


class Share(msgspec.Struct, frozen=True):
    """A share with its 95 % interval."""

    count: int
    of: int

    def __str__(self) -> str:
        low, high = interval(self.count, self.of)
        return f"{self.count:,} of {self.of:,}: {self.count / max(self.of, 1):.2%} ({low:.2%} to {high:.2%})"


def read(path: Path) -> list[Line]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return [msgspec.json.decode(line, type=Line) for line in file]


def model_vectors(texts: list[str]) -> Floats:
    """Of the shipped model, shape (n, 384); texts of one length go through it together."""
    wordpiece = WordPiece((SHIPPED / "vocab.txt").read_text(encoding="utf-8").splitlines())
    session = Session(SHIPPED / "model.int8.onnx")
    pieces = [wordpiece.encode(text) for text in texts]
    order = sorted(range(len(texts)), key=lambda place: len(pieces[place]))
    vectors = np.zeros((len(texts), 384), np.float32)
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        vectors[places] = [vector for vector, *_ in session([pieces[place] for place in places])]
    return vectors


def static_vectors(embedder: StaticEmbedder, texts: list[str]) -> Floats:
    """As the first stage keeps them: rounded to bytes."""
    zero = np.zeros(embedder.dimensions, np.float32)
    made = [embedder.embed(text) for text in texts]
    rounded: Floats = (np.rint(np.stack([zero if one is None else one for one in made]) * 127) / 127).astype(np.float32)
    return rounded


def replay(lines: list[Line], embedder: StaticEmbedder) -> list[Asked]:
    texts = sorted({line.text for line in lines})
    numbers = {text: number for number, text in enumerate(texts)}
    model, static = model_vectors(texts), static_vectors(embedder, texts)
    places: dict[str, dict[int, int]] = defaultdict(dict)
    asked = []
    for position, line in enumerate(lines):
        number, place = numbers[line.text], places[line.tenant]
        if number in place:
            continue
        if place:
            there = np.fromiter(place, np.int64)
            similar = static[there] @ static[number]
            same = np.fromiter(place.values(), np.int64) == line.answer
            true = similar[same & (model[there] @ model[number] >= REWORDING)]
            rewording = float(true.max()) if len(true) else None
            asked.append(Asked(position, len(place), float(similar.max()), rewording))
        place[number] = line.answer
    return asked


def highest_bound(asked: list[Asked]) -> float:
    """The highest bound, to two digits, at which the missed share is surely low enough."""
    found = [one.rewording for one in asked if one.rewording is not None]
    bounds = (hundredths / 100 for hundredths in range(100, 0, -1))
    return next((b for b in bounds if interval(sum(r < b for r in found), len(found))[1] <= MISSED), 0.0)


def report(title: str, asked: list[Asked], bound: float) -> None:
    found = [one for one in asked if one.rewording is not None]
    missed = sum(one.rewording is not None and one.rewording < bound for one in found)
    print(
        f"{title}: {len(asked):,} questions, {statistics.mean(one.entries for one in asked):,.0f} entries in their place"
    )
    print(f"  spared      {Share(sum(one.nearest < bound for one in asked), len(asked))}")
    print(f"  missed      {Share(missed, len(found))}")
    print(f"  lost        {Share(sum(one.nearest < bound for one in found), len(found))}")


def microseconds(embedder: StaticEmbedder, texts: list[str]) -> tuple[float, float]:
    """Medians: a vector of a text, and a look at 1,000 entries."""
    stage = FirstStage(embedder)
    stage.empty("place")
    for text in texts[:1000]:
        stage.add("place", text)
    taken: tuple[list[float], list[float]] = [], []
    for text in texts[-1000:]:
        begun = time.perf_counter()
        embedder.embed(text)
        made = time.perf_counter()
        stage.near("place", text)
        taken[0].append(made - begun)
        taken[1].append(time.perf_counter() - made)
    vector, look = (statistics.median(times) * 1e6 for times in taken)
    return vector, look


def main() -> int:
    parser = argparse.ArgumentParser(description="What the static first stage spares, and what it costs.")
    parser.add_argument("stream", type=Path, help="requests, one JSON object a line: {tenant, text, answer}")
    lines = read(parser.parse_args().stream)
    embedder = StaticEmbedder.load()
    asked = replay(lines, embedder)
    first = [one for one in asked if one.line < len(lines) // 2]
    second = [one for one in asked if one.line >= len(lines) // 2]
    bound = highest_bound(first)
    print(
        f"{embedder.identity}, {embedder.dimensions} numbers; bound from the first half {bound:.2f}, shipped {NEAR:.2f}"
    )
    report("first half ", first, NEAR)
    report("second half", second, NEAR)
    vector, look = microseconds(embedder, sorted({line.text for line in lines}))
    print(f"a vector takes {vector:.0f} µs, a look at 1,000 entries {look:.0f} µs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
