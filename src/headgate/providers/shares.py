"""Shares: one embeddings answer for several callers, taken apart.

The invariant: every vector goes to whose input it is of, and every count of the usage is given out to the last token and no token twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headgate.model.chat import Json
from headgate.model.money import Usage


def apportioned(count: int, weights: Sequence[int]) -> list[int]:
    """Whole shares of `count` by weight, not all of them 0, which sum to it: by the method of the largest remainder (Hamilton's)."""
    total = sum(weights)
    parts = [divmod(count * weight, total) for weight in weights]
    shares = [whole for whole, _ in parts]
    nearest = sorted(range(len(parts)), key=lambda index: -parts[index][1])  # of equals the first: the sort is stable
    for index in nearest[: count - sum(shares)]:
        shares[index] += 1
    return shares


def split(counts: Json, weights: Sequence[int]) -> list[Json]:
    """A report of usage for each weight: every whole number is apportioned, every other number is shared in proportion, and what is no
    number is said to all."""
    shares: list[Json] = [{} for _ in weights]
    for name, value in counts.items():
        for share, part in zip(shares, _parts(value, weights), strict=True):
            share[name] = part
    return shares


def split_usage(usage: Usage, weights: Sequence[int]) -> list[Usage]:
    """The same for usage that was read already."""
    return [msgspec.convert(share, Usage) for share in split(msgspec.to_builtins(usage), weights)]


def taken_apart(answer: Json, sizes: Sequence[int], weights: Sequence[int]) -> list[Json] | None:
    """The answer to each caller, in OpenAI's shape: `sizes` says how many inputs each had, `weights` their estimated tokens.

    None when it does not hold one vector for each input. What else it says is said to all.
    """
    rows = _in_order(answer.get("data"), sum(sizes))
    if rows is None:
        return None
    reported = answer.get("usage")
    usages = split(reported, weights) if isinstance(reported, dict) else None
    answers: list[Json] = []
    begin = 0
    for number, size in enumerate(sizes):
        own = [{**row, "index": index} for index, row in enumerate(rows[begin : begin + size])]
        answers.append({**answer, "data": own} if usages is None else {**answer, "data": own, "usage": usages[number]})
        begin += size
    return answers


def _parts(value: Any, weights: Sequence[int]) -> Sequence[Any]:
    if type(value) is int and value >= 0:
        return apportioned(value, weights)
    if isinstance(value, float):
        return [value * weight / sum(weights) for weight in weights]
    if isinstance(value, dict):
        return split(value, weights)
    return [value] * len(weights)


def _in_order(rows: Any, count: int) -> list[Json] | None:
    """The rows by their index; as they came where none has one."""
    if not isinstance(rows, list) or len(rows) != count:
        return None
    if all(row.get("index") is None for row in rows):
        return rows
    placed = {index: row for row in rows if type(index := row.get("index")) is int}
    return [placed[index] for index in range(count)] if placed.keys() == set(range(count)) else None
