"""How good are routing's features, and models of uplift fitted on a log, at telling which questions need the better model? How long do
decisions take?

    python benchmarks/routing_quality.py FOLDER

FOLDER holds graded answers as JSON lines, gzipped: `*_mixtral_gpt4.jsonl.gz` with {prompt, task, cheap, rich} (made from
RouteLLM's published evaluation, github.com/lm-sys/RouteLLM) and `nine_models.jsonl.gz` with {prompt, task, scores} (from
github.com/ulab-uiuc/LLMRouter). They are not part of this project.

Half of each set, chosen by a checksum of the prompt, is for fitting; everything printed is measured on the other half.
`shipped` are the weights of `difficulty.py`; `fitted` is a logistic fit of the same features on the first half, which is
what features of this kind could reach when they know the traffic. APGR is RouteLLM's: the mean, over all shares of
questions sent to the better model, of the quality gained relative to always using it; random is 0.5.

`uplift` is what `headgate route train` fits on the first half; `unseen` are models that judge tasks that they have not seen. What they abstain
on goes to the better model first. At the end: the time of a decision by features, and by the nearest of 50,000 outcomes.
"""

from __future__ import annotations

import asyncio
import gzip
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from headgate.cache.embedders import MiniLM
from headgate.evaluation.routing_rows import Log, read_log
from headgate.evaluation.routing_trial import crossed, given, vectors_of
from headgate.model.chat import ChatRequest, Message
from headgate.model.tenancy import Policy
from headgate.routing.deciders import Asked
from headgate.routing.difficulty import WEIGHTS, graded, score, task_of
from headgate.routing.features import features
from headgate.routing.knn import KnnDecider, Neighbours
from headgate.routing.knn_cells import quantised
from headgate.routing.outcomes import Outcome
from headgate.routing.route import Route
from headgate.routing.uplift_curves import apgr, cpt
from headgate.routing.uplift_fit import fitted as uplift

PAIR = ("llama-3.1-8b-instruct", "llama-3.1-nemotron-51b-instruct")
KEPT = 0.95

Numbers = NDArray[np.float64]


def rows(path: Path) -> Iterator[tuple[str, float, float]]:
    """Prompt, and whether the cheap and the rich model were right."""
    with gzip.open(path) as lines:
        for line in lines:
            row = msgspec.json.decode(line)
            scores = row.get("scores")
            cheap, rich = (scores[PAIR[0]], scores[PAIR[1]]) if scores else (row["cheap"], row["rich"])
            yield row["prompt"], float(cheap), float(rich)


def fitted(seen: Numbers, target: Numbers) -> Numbers:
    """Weights of a logistic regression with a mild ridge, by Newton's method."""
    table = np.c_[seen, np.ones(len(seen))]
    weights = np.zeros(table.shape[1])
    ridge = np.diag([3.0] * seen.shape[1] + [1e-6])
    for _ in range(30):
        chance = 1 / (1 + np.exp(-table @ weights))
        slope = table.T @ (chance - target) + ridge @ weights
        weights -= np.linalg.solve((table * (chance * (1 - chance))[:, None]).T @ table + ridge, slope)
    found: Numbers = weights[:-1]
    return found


def curve(order: Numbers, cheap: Numbers, rich: Numbers) -> Numbers:
    """Quality after sending the first 0, 1, ... questions of the order to the rich model."""
    gain = (rich - cheap)[np.argsort(-order, kind="stable")]
    quality: Numbers = (cheap.sum() + np.concatenate([[0.0], np.cumsum(gain)])) / len(cheap)
    return quality


def line(name: str, order: Numbers, cheap: Numbers, rich: Numbers, shares: tuple[float, ...]) -> str:
    """APGR, the share of rich calls that keeps 95 % of the rich model's quality, and quality at given shares."""
    quality = curve(order, cheap, rich)
    apgr = float(np.mean((quality - cheap.mean()) / (rich.mean() - cheap.mean())))
    need = int(np.argmax(quality >= KEPT * rich.mean())) / len(cheap)
    at = "  ".join(f"{quality[round(share * len(cheap))]:.3f}" for share in shares)
    return f"  {name:<10} {apgr:6.3f}  {need:12.1%}        {at}"


def main(folder: Path) -> None:
    """Print a table for each file."""
    for path in sorted(folder.glob("*.jsonl.gz")):
        report(path)
        asyncio.run(learned(path))
    timed()


async def learned(path: Path) -> None:
    """What models of uplift make of one file."""
    reads = MiniLM.load()
    try:
        nine = path.name.startswith("nine")
        log = read_log(path, cheap=PAIR[0] if nine else None, rich=PAIR[1] if nine else None)
        vectors = await vectors_of(log, reads, lambda *_: lambda: None)
    finally:
        await reads.close()
    first = np.array([zlib.crc32(text.encode()) & 1 == 0 for text in log.texts])
    model = uplift(log.rows.where(first), vectors[first], reads.identity)
    half = Log(log.rows.where(~first), log.kinds, (), vectors[~first], log.cheap, log.rich, log.read)
    told("uplift", half, given(half, vectors[~first], model).order)
    if len(log.kinds) > 1:
        told("unseen", log, crossed(log, vectors, reads.identity, "task", lambda *_: lambda: None).order)


def told(name: str, log: Log, order: Numbers) -> None:
    """One line: APGR, and the least shares of rich calls for 50 and 80 % of the gain."""
    figures = apgr(order, log.rows), cpt(order, log.rows, 0.5), cpt(order, log.rows, 0.8)
    shown = "  ".join("-" if one is None else f"{one:.3f}" for one in figures)
    print(f"  {name:<10}  {shown} (APGR, CPT50, CPT80); abstained {np.mean(order == order.max()):.1%}")


def timed(outcomes: int = 50_000, decisions: int = 500) -> None:
    """The time of a decision among so many outcomes of one tenant, without that of reading the question."""
    chance, size = np.random.default_rng(7), 384
    centres = chance.normal(size=(200, size))
    vectors = (centres[chance.integers(200, size=outcomes)] + 0.8 * chance.normal(size=(outcomes, size))).astype(
        np.float32
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    route = Route("auto", {"low": ("a",), "medium": ("b",), "high": ("c",)})
    known, began = Neighbours(size), time.perf_counter()
    for at, vector in enumerate(vectors):
        tier = ("low", "medium", "high")[at % 3]
        known.learn(
            Outcome(
                id=str(at), at=0.0, tenant="t", route="auto", candidates=route.tiers, tier=tier, propensity=1.0,  # type: ignore[arg-type]
                vector=quantised(vector), outcome=float(at % 2), origin="feedback",
            )
        )  # fmt: skip
    learning = (time.perf_counter() - began) / outcomes
    request = ChatRequest(model="auto", messages=(Message("user", "Where is my parcel?"),))
    asked = Asked(
        id="c", tenant="t", user=None, policy=Policy(), route=route, request=request, seen=features(request), text="q"
    )
    decider, took = KnnDecider(_unread, known), []
    for vector in vectors[chance.integers(outcomes, size=decisions)]:
        began = time.perf_counter()
        decider.judged(asked, vector)
        took.append(time.perf_counter() - began)
    print(
        f"\nknn among {outcomes} outcomes: {np.median(took) * 1e6:.0f} us, p99 {np.quantile(took, 0.99) * 1e6:.0f} us;"
        f" learning one {learning * 1e6:.0f} us"
    )


async def _unread(text: str) -> Numbers:
    """No embedder: the vectors are at hand."""
    raise LookupError(text)


def report(path: Path) -> None:
    """One file's table."""
    every = list(rows(path))
    requests = [ChatRequest(model="auto", messages=(Message("user", prompt),)) for prompt, _, _ in every]
    began = time.perf_counter()
    seen = [features(request) for request in requests]
    opinions = [(task_of(one, image=False), graded(one)) for one in seen]
    each = (time.perf_counter() - began) / len(every)
    train = np.array([zlib.crc32(prompt.encode()) & 1 == 0 for prompt, _, _ in every])
    test = ~train
    cheap, rich = (np.array([row[at] for row in every]) for at in (1, 2))
    table = np.array([[getattr(one, name) for name in WEIGHTS] for one in seen])
    orders = {
        "shipped": np.array([score(one) for one in seen]),
        "fitted": table @ fitted(table[train], (rich > cheap)[train].astype(float)),
        "longest": np.array([float(len(prompt)) for prompt, _, _ in every]),
        "random": np.random.default_rng(7).random(len(every)),
        "oracle": rich - cheap,
    }
    tiers = np.array([opinion.tier or "medium" for _, opinion in opinions])[test]
    abstained = np.mean([opinion.tier is None for _, opinion in opinions])
    shares = tuple(float(np.mean(np.isin(tiers, chosen))) for chosen in (("medium", "high"), ("high",)))
    print(
        f"\n{path.name}: {int(test.sum())} questions, always cheap {cheap[test].mean():.3f}, always rich {rich[test].mean():.3f}"
    )
    print(
        f"  tiers: {', '.join(f'{tier} {np.mean(tiers == tier):.1%}' for tier in ('low', 'medium', 'high'))};", end=" "
    )
    print(f"abstained {abstained:.1%}; {each * 1e6:.0f} us each")
    print(
        f"  order        APGR  rich for 95 %   quality with {shares[0]:.1%} and {shares[1]:.1%} rich (not low, high only)"
    )
    for name, order in orders.items():
        print(line(name, order[test], cheap[test], rich[test], shares))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
