"""Plots of an evaluation, as one PNG: hits against wrong hits over all bars, calibration, and recall over time.

Drawn by matplotlib, the extra `plot`, which is imported here alone and only when a plot is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.evaluation.curves import Bin, calibration, thinned, trade_off
from headgate.evaluation.evaluation import Outcome, Ruling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 2_000
HIGHEST_WRONG = 0.05
STRETCHES = 60
"""Recall over time is taken over so many stretches of a stream."""


class NoPlots(Exception):
    """The library that draws is not installed. The message says what to do."""


def require_plots() -> None:
    """See that plots can be drawn, before anything is measured. Raises NoPlots."""
    if find_spec("matplotlib") is None:
        raise NoPlots("plots need matplotlib: install it with pip install 'headgate[plot]'")


def plot_pairs(rulings: Sequence[Ruling], path: Path, *, title: str) -> None:
    """Draw what was measured on pairs. Raises OSError when the file cannot be written."""
    figure, (trade, bins) = _panels(2, title)
    judged = [(one.confidence, one.same) for one in rulings]
    same = sum(one.same for one in rulings)
    different = len(rulings) - same
    points = thinned(trade_off(judged), MOST_POINTS)
    trade.plot(
        [one.wrong / max(different, 1) for one in points], [(one.served - one.wrong) / max(same, 1) for one in points]
    )
    wrongly = sum(one.served and not one.same for one in rulings) / max(different, 1)
    rightly = sum(one.served and one.same for one in rulings) / max(same, 1)
    trade.plot([wrongly], [rightly], "o", label="served")
    _named(trade, "Same against different pairs served, over all bars", "different pairs served", "same pairs served")
    _calibration(bins, calibration((one.confidence, one.same) for one in rulings if one.judged))
    _save(figure, path)


def plot_stream(outcomes: Sequence[Outcome], path: Path, *, title: str) -> None:
    """Draw what was measured on a stream. Raises OSError when the file cannot be written."""
    figure, (trade, bins, time) = _panels(3, title)
    exact = [one.right for one in outcomes if one.source == "exact"]
    judged = [one.judged for one in outcomes if one.judged is not None]
    points = thinned(trade_off(judged), MOST_POINTS)
    requests, wrong = max(len(outcomes), 1), exact.count(False)
    trade.plot(
        [(len(exact) + one.served) / requests for one in points],
        [(wrong + one.wrong) / (len(exact) + one.served) for one in points],
    )
    rights = [one.right for one in outcomes if one.source != "model"]
    wrongly = rights.count(False) / max(len(rights), 1)
    trade.plot([len(rights) / requests], [wrongly], "o", label="served")
    # Nobody would serve as much as the lowest bars let through; what matters is at the bottom.
    trade.set_ylim(-0.002, max(HIGHEST_WRONG, 3 * wrongly))
    _named(trade, "Wrong hits against hits, over all bars", "hits, of requests", "wrong, of hits")
    _calibration(bins, calibration(judged))
    _recall(time, outcomes)
    _save(figure, path)


def plot_orders(curves: Mapping[str, Sequence[tuple[float, float]]], path: Path, *, title: str) -> None:
    """Draw quality against the share of rich calls for each order of questions. Raises OSError when the file cannot be written."""
    figure, (axes,) = _panels(1, title)
    for name, points in curves.items():
        axes.plot([share for share, _ in points], [quality for _, quality in points], label=name)
    _named(axes, "Quality against cost", "share of questions that the rich model gets", "mean quality")
    _save(figure, path)


def _recall(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Semantic recall in each stretch of the stream, and up to its end."""
    step = max(1, -(-len(outcomes) // STRETCHES))
    places, each, so_far = [], [], []
    found_all = there_all = 0
    for start in range(0, len(outcomes), step):
        stretch = outcomes[start : start + step]
        found, there = _recalled(stretch)
        found_all, there_all = found_all + found, there_all + there
        places.append(start + len(stretch))
        each.append(found / there if there > 0 else float("nan"))
        so_far.append(found_all / there_all if there_all > 0 else float("nan"))
    axes.plot(places, each, alpha=0.4, label="in each stretch")
    axes.plot(places, so_far, label="up to here")
    axes.set_ylim(-0.02, 1.02)
    _named(axes, "Semantic recall over time", "requests", "semantic recall")


def _recalled(stretch: Sequence[Outcome]) -> tuple[int, int]:
    """Right hits beyond exact match, and how many a perfect cache would have had."""
    right = sum(one.source != "model" and one.right is True for one in stretch)
    exact = sum(one.repeat for one in stretch)
    return right - exact, sum(bool(one.known) for one in stretch) - exact


def _calibration(axes: Axes, bins: Sequence[Bin]) -> None:
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axes.plot([one.confidence for one in bins], [one.share for one in bins], "o-", label="bins of 0.1")
    _named(axes, "Calibration", "confidence", "share that was right")


def _named(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=8)


def _panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    # Late: half a second, and an extra. The Agg canvas needs no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * count, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    # A name of a file is no formula.
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure, [figure.add_subplot(1, count, place + 1) for place in range(count)]


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", dpi=130)
