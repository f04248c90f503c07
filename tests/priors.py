"""Priors for tests: small trees written by hand, and what they are walked by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from headgate.cache.evidence import FEATURES
from headgate.cache.evidence import VERSION as EVIDENCE
from headgate.cache.guards.guards import VERSION as GUARDS
from headgate.cache.prior import Card, Prior, Served
from headgate.cache.trees import Trees

PLENTY = (Served(0.5, 100_000, 2_000), Served(0.9, 50_000, 40))
"""What a prior was worth that has seen much: a rate of 2 % is kept above 0.5, one of 0.1 % above 0.9."""


class Node(msgspec.Struct, frozen=True):
    """Left goes what is at most `threshold`, and with `absent` what is not known. A number is a leaf, in log-odds."""

    feature: int
    threshold: float
    left: Node | float
    right: Node | float
    absent: bool = False


Tree = Node | float


def walked(trees: Sequence[Tree], row: Sequence[float]) -> float:
    """The probability that trees give a row of evidence, one step after the other."""

    def value(tree: Tree) -> float:
        if not isinstance(tree, Node):
            return tree
        known = row[tree.feature]
        left = tree.absent if math.isnan(known) else known <= tree.threshold
        return value(tree.left if left else tree.right)

    return 1.0 / (1.0 + math.exp(-sum(map(value, trees))))


def arrays(trees: Sequence[Tree]) -> dict[str, list[Any]]:
    """The same trees in the form of a prior's file."""
    table: dict[str, list[Any]] = {
        name: [] for name in ("feature", "threshold", "absent", "left", "right", "leaf", "root")
    }

    def put(tree: Tree) -> int:
        if not isinstance(tree, Node):
            table["leaf"].append(tree)
            return -len(table["leaf"])
        place = len(table["feature"])
        for name in ("feature", "threshold", "absent"):
            table[name].append(getattr(tree, name))
        table["left"].append(0)
        table["right"].append(0)
        table["left"][place], table["right"][place] = put(tree.left), put(tree.right)
        return place

    for tree in trees:
        table["root"].append(put(tree))
    return table


def planted(
    trees: Sequence[Tree], served: Sequence[Served] = PLENTY, alone: Sequence[Served] | None = None, **other: Any
) -> Prior:
    """A prior of these trees; `other` is said on its card."""
    return Prior(card(served, alone, **other), Trees(arrays(trees)))


def card(served: Sequence[Served] = PLENTY, alone: Sequence[Served] | None = None, **other: Any) -> Card:
    """A card that fits the evidence of today, but for what is said otherwise."""
    fitting: dict[str, Any] = {
        "version": "t1",
        "evidence": EVIDENCE,
        "guards": GUARDS,
        "features": FEATURES,
        "sha256": "0" * 64,
    }
    return Card(served=tuple(served), served_alone=tuple(served if alone is None else alone), **{**fitting, **other})


def near(
    least: float = 0.5,
    *,
    odds: float = 5.0,
    served: Sequence[Served] = PLENTY,
    alone: Sequence[Served] | None = None,
) -> Prior:
    """A prior that is sure of what is nearer than `least`, by that many log-odds, and as sure that what is further away is wrong."""
    tree = Node(FEATURES.index("similarity"), least, left=-odds, right=odds)
    return planted([tree], served, alone)
