"""Logs of routing to learn from or to measure on: graded answers, or outcomes exported from a gateway.

The invariant: what is read is whole, or BadFile says in which line it is not. All lines of a file are of one kind.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from headgate.evaluation.evaluation import Half
from headgate.evaluation.files import BadFile, numbered_lines
from headgate.routing.knn_cells import restored
from headgate.routing.outcomes import Outcome
from headgate.routing.route import TIERS
from headgate.routing.uplift_curves import Graded

Floats = NDArray[np.float32]
Kind = TypeVar("Kind")


class Log(msgspec.Struct, frozen=True, eq=False):
    """What a file holds. `texts` of graded answers, `vectors`, shape (n, d), of exported outcomes: one of both; `kinds` are the names of
    the tasks, `cheap` and `rich` what the two models are called, `read` how many lines there were."""

    rows: Graded
    kinds: tuple[str, ...]
    texts: tuple[str, ...]
    vectors: Floats | None
    cheap: str
    rich: str
    read: int


class _GradedLine(msgspec.Struct):
    prompt: str
    task: str = ""
    cheap: float | None = None
    rich: float | None = None
    scores: dict[str, float] | None = None


def read_log(path: Path, *, cheap: str | None = None, rich: str | None = None, half: Half | None = None) -> Log:
    """The log in a file. `cheap` and `rich`: which two models are compared where lines have `scores`; by default the one that is best on
    the whole, and the one that is worst. `half`: the lines whose checksum is even, or odd. Raises BadFile."""
    lines = [one for one in numbered_lines(path) if half in (None, _half_of(one[1]))]
    if not lines:
        raise BadFile(f"{path}: the file is empty")
    try:
        graded = "prompt" in msgspec.json.decode(lines[0][1], type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise BadFile(f"{path}:{lines[0][0]}: {error}") from None
    return _answers(path, lines, cheap, rich) if graded else _outcomes(path, lines)


def _half_of(line: bytes) -> Half:
    """By a checksum, so that no order of the lines puts all of one task into one half."""
    return "second" if zlib.crc32(line) & 1 else "first"


def _answers(path: Path, lines: Sequence[tuple[int, bytes]], cheap: str | None, rich: str | None) -> Log:
    found = _decoded(path, lines, _GradedLine)
    if found[0].scores is not None:
        cheap, rich = _pair(path, found, cheap, rich)
    pairs = []
    for (number, _), line in zip(lines, found, strict=True):
        scores = {"cheap": line.cheap, "rich": line.rich} if line.scores is None else line.scores
        pair = scores.get(cheap or "cheap"), scores.get(rich or "rich")
        if pair[0] is None or pair[1] is None or not all(map(math.isfinite, (pair[0], pair[1]))):
            raise BadFile(f"{path}:{number}: no number for {cheap or 'cheap'} and for {rich or 'rich'}")
        pairs.append(pair)
    texts = tuple(line.prompt for line in found)
    kinds, kind = _kinds([line.task for line in found])
    worth = np.array(pairs, float)
    sizes = np.array([len(text) for text in texts], float)
    rows = Graded(worth[:, 0], worth[:, 1], np.ones(len(texts)), kind, sizes)
    return Log(rows, kinds, texts, None, cheap or "cheap", rich or "rich", len(lines))


def _pair(path: Path, found: Sequence[_GradedLine], cheap: str | None, rich: str | None) -> tuple[str, str]:
    """The names of the two models. Raises BadFile for one that is not there."""
    means = {
        name: float(np.mean([(line.scores or {}).get(name, 0.0) for line in found])) for name in found[0].scores or {}
    }
    if len(means) < 2:
        raise BadFile(f"{path}: scores of two models or more are needed")
    for name in (cheap, rich):
        if name is not None and name not in means:
            raise BadFile(f"{path}: no model is called {name!r}; there are {', '.join(sorted(means))}")
    best = rich or max((name for name in means if name != cheap), key=means.__getitem__)
    return cheap or min((name for name in means if name != best), key=means.__getitem__), best


def _outcomes(path: Path, lines: Sequence[tuple[int, bytes]]) -> Log:
    """Those of which something is known, and that went to the lowest or to the highest of their candidates."""
    told = [
        one
        for one in _decoded(path, lines, Outcome)
        if one.outcome is not None and one.origin != "error" and one.vector and len(one.candidates) > 1
    ]
    ends = [(min(one.candidates, key=TIERS.index), max(one.candidates, key=TIERS.index)) for one in told]
    kept = [(one, low) for one, (low, high) in zip(told, ends, strict=True) if one.tier in (low, high)]
    if not kept:
        raise BadFile(f"{path}: no outcome in it tells of the lowest or the highest tier")
    size = len(kept[0][0].vector)
    if any(len(one.vector) != size for one, _ in kept):
        raise BadFile(f"{path}: its vectors are of several sizes, so several embedders have made them")
    kinds, kind = _kinds([one.task for one, _ in kept])
    worth = np.array([one.outcome for one, _ in kept], float)
    lowest = np.array([one.tier == low for one, low in kept])
    rows = Graded(
        np.where(lowest, worth, np.nan),
        np.where(lowest, np.nan, worth),
        np.array([1 / max(one.propensity, 0.001) for one, _ in kept]),
        kind,
        np.array([math.expm1(8 * (one.features[0] if one.features else 0.0)) for one, _ in kept]),
    )
    return Log(rows, kinds, (), restored([one.vector for one, _ in kept]), "lowest tier", "highest tier", len(lines))


def _decoded(path: Path, lines: Sequence[tuple[int, bytes]], kind: type[Kind]) -> list[Kind]:
    decode: Callable[[bytes], Kind] = msgspec.json.Decoder(kind).decode
    found = []
    for number, line in lines:
        try:
            found.append(decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadFile(f"{path}:{number}: {str(error).replace(' - at `$.', ' - at `')}") from None
    return found


def _kinds(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    found = sorted(set(names))
    place = {name: at for at, name in enumerate(found)}
    return tuple(found), np.array([place[name] for name in names], np.int64)
