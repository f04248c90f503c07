"""Trying out models of uplift on a log: one that is given, or one for each part of the log, fitted on the rest of it.

The invariant: no question is judged by a model that has seen it, unless the caller has brought that model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from headgate.cache.cache import Embedder
from headgate.evaluation.rephrasing import WAYS
from headgate.evaluation.routing_report import ABSTAINED, flipped
from headgate.evaluation.routing_rows import Log
from headgate.routing.knn import CHARACTERS
from headgate.routing.uplift import Uplift
from headgate.routing.uplift_fit import FEWEST_KINDS, TooFew, fitted

PARTS = 5
REPHRASED = 300
"""Questions that are rephrased, spread over the log."""
TOGETHER = 32
"""Texts that are read at a time."""

Numbers = NDArray[np.float64]
Floats = NDArray[np.float32]
Progress = Callable[[str, int], Callable[[], None]]
HoldOut = Literal["task", "row"]


class Trial(msgspec.Struct, frozen=True, eq=False):
    """The order that the log's questions were given, shape (n,), and the model that judged each."""

    order: Numbers
    models: tuple[Uplift, ...]


async def vectors_of(log: Log, embeds: Embedder, progress: Progress) -> Floats:
    """The vectors of a log's questions, shape (n, d). Raises TooFew where the log has those of another embedder."""
    if log.vectors is None:
        return await _read(log.texts, embeds, progress("reading", len(log.texts)))
    if log.vectors.shape[1] != embeds.dimensions:
        raise TooFew(f"the log's vectors have {log.vectors.shape[1]} dimensions, the embedder's {embeds.dimensions}")
    return log.vectors


def given(log: Log, vectors: Floats, model: Uplift) -> Trial:
    """All questions judged by this model."""
    return Trial(_ordered(model, vectors, log.rows.characters), (model,) * len(vectors))


def crossed(log: Log, vectors: Floats, identity: str, hold_out: HoldOut | None, progress: Progress) -> Trial:
    """Each part judged by a model of the others; parts are made of whole tasks or of single rows, by default of tasks where there are
    enough. Raises TooFew."""
    kinds = len(log.kinds)
    if hold_out == "task" and kinds < 2:
        raise TooFew("the log has one task only, which cannot be held out")
    by_task = hold_out == "task" or (hold_out is None and kinds >= FEWEST_KINDS)
    chance, rows = np.random.default_rng(0), log.rows
    part = (chance.permutation(kinds)[rows.kind] if by_task else chance.permutation(len(vectors))) % PARTS
    present = np.unique(part)
    order, models = np.zeros(len(vectors)), np.empty(len(vectors), object)
    done = progress("fitting", len(present))
    for one in present:
        out = part == one
        model = fitted(rows.where(~out), vectors[~out], identity)
        order[out] = _ordered(model, vectors[out], rows.characters[out])
        models[out] = model
        done()
    return Trial(order, tuple(models.tolist()))


async def flips(log: Log, trial: Trial, embeds: Embedder, progress: Progress) -> dict[str, float]:
    """The share of questions that change sides when they are rephrased, by way; none where the log has no texts."""
    if not log.texts:
        return {}
    some = np.linspace(0, len(log.texts) - 1, min(REPHRASED, len(log.texts))).round().astype(int)
    found = {}
    for way, rephrase in WAYS.items():
        texts = [rephrase(log.texts[at]) for at in some]
        vectors = await _read(texts, embeds, progress(f"reading, {way}", len(texts)))
        again = [
            _judged(trial.models[at], vector, len(text))
            for at, vector, text in zip(some.tolist(), vectors, texts, strict=True)
        ]
        found[way] = flipped(trial.order, some, np.array(again))
    return found


def _ordered(model: Uplift, vectors: Floats, characters: Numbers) -> Numbers:
    return np.array([_judged(model, vector, int(size)) for vector, size in zip(vectors, characters, strict=True)])


def _judged(model: Uplift, vector: Floats, characters: int) -> float:
    found = model.estimate(vector, characters)
    return ABSTAINED if found is None else found


async def _read(texts: Sequence[str], embeds: Embedder, done: Callable[[], None]) -> Floats:
    found = []
    for start in range(0, len(texts), TOGETHER):
        some = [text[:CHARACTERS] for text in texts[start : start + TOGETHER]]
        found += await asyncio.gather(*(embeds.embed(text) for text in some))
        for _ in some:
            done()
    return np.stack(found).astype(np.float32)
