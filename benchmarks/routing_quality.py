"""How good are routing's features at telling which questions need the better model?

    python benchmarks/routing_quality.py FOLDER

FOLDER holds graded answers as JSON lines, gzipped: `*_mixtral_gpt4.jsonl.gz` with {prompt, task, cheap, rich} (made from
RouteLLM's published evaluation, github.com/lm-sys/RouteLLM) and `nine_models.jsonl.gz` with {prompt, task, scores} (from
github.com/ulab-uiuc/LLMRouter). They are not part of this project.

Half of each set, chosen by a checksum of the prompt, is for fitting; everything printed is measured on the other half.
`shipped` are the weights of `difficulty.py`; `fitted` is a logistic fit of the same features on the first half, which is
what features of this kind could reach when they know the traffic. APGR is RouteLLM's: the mean, over all shares of
questions sent to the better model, of the quality gained relative to always using it; random is 0.5.
"""

from __future__ import annotations

import gzip
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from headgate.model.chat import ChatRequest, Message
from headgate.routing.difficulty import WEIGHTS, graded, score, task_of
from headgate.routing.features import features

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


def report(path: Path) -> None:
    """One file's table."""
    every = list(rows(path))
    requests = [ChatRequest(model="auto", messages=(Message("user", prompt),)) for prompt, _, _ in every]
    began = time.perf_counter()
    seen = [features(request) for request in requests]
    decisions = [graded(one, task_of(one, image=False), "medium") for one in seen]
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
    tiers = np.array([decision.tier for decision in decisions])[test]
    abstained = np.mean([decision.confidence == 0 for decision in decisions])
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
