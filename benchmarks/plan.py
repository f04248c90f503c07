"""How much is measured, and what comes out: the values that the parts of the benchmark hand to each other."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

MANY = 32


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long to measure. `seconds` is one burst with 32 connections, `single_seconds` one with a single connection."""

    rounds: int = 3
    seconds: int = 4
    single_seconds: int = 2
    starts: int = 5
    steady_seconds: int = 8
    streams: int = 10


QUICK = Plan(rounds=2, seconds=1, single_seconds=1, starts=3, steady_seconds=3, streams=4)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """The median of several measurements, with the smallest and the largest."""

    median: float
    least: float
    most: float


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Something that must be true for the figures to mean anything."""

    name: str
    holds: bool
    detail: str = ""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A figure beside the bound that it should keep: from above when `at_most`, else from below."""

    name: str
    figure: float
    bound: float
    unit: str
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether the figure keeps its bound."""
        return self.figure <= self.bound if self.at_most else self.figure >= self.bound


def figure(values: Sequence[float]) -> Figure:
    """Median, least and most of at least one value."""
    return Figure(median=statistics.median(values), least=min(values), most=max(values))
