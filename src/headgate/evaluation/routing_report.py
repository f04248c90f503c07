"""What a model of uplift is worth on a log: its order of the questions against orders that need none.

The invariant: the names of the figures are a promise to whoever reads the JSON. Abstaining is the safe default: an abstention goes to the
rich model before any question that was judged. Intervals are of 95 %, by bootstrap over questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from headgate.evaluation.routing_rows import Log
from headgate.routing.uplift_curves import Graded, apgr, cpt, qualities

DRAWS = 200
POINTS = 20
"""Steps of the cost-quality curve."""
ABSTAINED = 2.0
"""Above every estimate."""
MATERIAL = 2.0
"""Standard errors that the rich model must gain for APGR to mean anything: it is a quotient by that gain."""

Numbers = NDArray[np.float64]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """How good one order is. Shares of rich calls in `cpt50`, `cpt80` and in the curve's points [share, quality]; None where the rich model
    gains nothing to speak of."""

    apgr: float | None
    interval: tuple[float, float] | None
    cpt50: float | None
    cpt80: float | None
    curve: list[tuple[float, float]]


class TaskReport(msgspec.Struct, frozen=True, kw_only=True):
    """One task: its questions, what the rich model gains, the model's APGR and the share of abstentions."""

    questions: int
    gain: float
    apgr: float | None
    abstained: float


class RoutingReport(msgspec.Struct, frozen=True, kw_only=True):
    """A log as the model sees it. `cheap` and `rich` are the mean qualities of both models; `flips`: share of questions that change sides,
    at the middle of the order, when they are rephrased in that way."""

    questions: int
    cheap: float
    rich: float
    abstained: float
    orders: dict[str, Order]
    flips: dict[str, float]
    tasks: dict[str, TaskReport]


def reported(log: Log, order: Numbers, flips: Mapping[str, float], *, seed: int = 0) -> RoutingReport:
    """The figures of an order of a log's questions; `seed` draws the random order and the bootstrap."""
    rows = log.rows
    chance = np.random.default_rng(seed)
    known = np.isfinite(rows.cheap).all() and np.isfinite(rows.rich).all()
    orders = {
        "model": order,
        "random": chance.random(len(order)),
        "longest": rows.characters,
        **({"oracle": rows.rich - rows.cheap} if known else {}),
    }
    quality = qualities(order, rows)
    tasks = {}
    for at, name in enumerate(log.kinds):
        part = rows.where(rows.kind == at)
        tasks[name or "-"] = _task(part, order[rows.kind == at])
    return RoutingReport(
        questions=len(order),
        cheap=float(quality[0]),
        rich=float(quality[-1]),
        abstained=float(np.mean(order == ABSTAINED)),
        orders={name: _measured(one, rows, seed) for name, one in orders.items()},
        flips=dict(flips),
        tasks=tasks,
    )


def flipped(order: Numbers, some: NDArray[np.int64], rephrased: Numbers) -> float:
    """The share of `some` of the questions that are on the other side of the order's middle when they are rephrased."""
    middle = float(np.median(order))
    return float(np.mean((order[some] > middle) != (rephrased > middle)))


def material(rows: Graded) -> bool:
    """Whether the rich model gains more than chance would give it."""
    sides = [one[np.isfinite(one)] for one in (rows.rich, rows.cheap)]
    if min(map(len, sides)) < 2:
        return False
    if len(sides[0]) == len(sides[1]) == len(rows.kind):
        gain = rows.rich - rows.cheap
        return bool(gain.mean() > MATERIAL * gain.std() / np.sqrt(len(gain)))
    error = np.sqrt(sum(side.var() / len(side) for side in sides))
    return bool(sides[0].mean() - sides[1].mean() > MATERIAL * error)


def _task(rows: Graded, order: Numbers) -> TaskReport:
    quality = qualities(order, rows)
    return TaskReport(
        questions=len(order),
        gain=float(quality[-1] - quality[0]),
        apgr=apgr(order, rows) if material(rows) else None,
        abstained=float(np.mean(order == ABSTAINED)),
    )


def _measured(order: Numbers, rows: Graded, seed: int) -> Order:
    quality = qualities(order, rows)
    places = np.linspace(0, len(order), POINTS + 1).round().astype(int)
    curve = [(float(at / len(order)), float(quality[at])) for at in places]
    if not material(rows):
        return Order(apgr=None, interval=None, cpt50=None, cpt80=None, curve=curve)
    return Order(
        apgr=apgr(order, rows),
        interval=_interval(order, rows, np.random.default_rng(seed)),
        cpt50=cpt(order, rows, 0.5),
        cpt80=cpt(order, rows, 0.8),
        curve=curve,
    )


def _interval(order: Numbers, rows: Graded, chance: np.random.Generator) -> tuple[float, float]:
    found = []
    for _ in range(DRAWS):
        drawn = chance.integers(len(order), size=len(order))
        value = apgr(order[drawn], rows.where(drawn))
        if value is not None:
            found.append(value)
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def report_lines(report: RoutingReport) -> Iterator[str]:
    """The figures for people."""
    yield (
        f"{report.questions} questions; all cheap {report.cheap:.3f}, all rich {report.rich:.3f};"
        f" abstained {report.abstained:.1%}"
    )
    yield f"{'order':<10} {'APGR':>6}  {'95 %':<15} {'CPT50':>6} {'CPT80':>6}"
    for name, one in report.orders.items():
        bounds = "-" if one.interval is None else f"{one.interval[0]:.3f} to {one.interval[1]:.3f}"
        yield f"{name:<10} {_figure(one.apgr):>6}  {bounds:<15} {_share(one.cpt50):>6} {_share(one.cpt80):>6}"
    if report.flips:
        yield "flips when rephrased: " + ", ".join(f"{way} {share:.1%}" for way, share in report.flips.items())
    if len(report.tasks) > 1:
        width = max(map(len, report.tasks))
        yield f"{'task':<{width}} {'questions':>9} {'gain':>7} {'APGR':>6} {'abstained':>9}"
        for name, task in report.tasks.items():
            yield f"{name:<{width}} {task.questions:>9} {task.gain:>7.3f} {_figure(task.apgr):>6} {task.abstained:>9.1%}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
