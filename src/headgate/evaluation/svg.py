"""Charts as inline SVG: lines and dots over two axes, drawn without any library, coloured by the page's style sheet.

The invariant: every text is escaped, every number finite, and the picture says in words what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

import msgspec

Where = tuple[float, float]

WIDTH, HEIGHT = 470, 310
LEFT, RIGHT, TOP, BOTTOM = 62, 22, 12, 46
TONES = 8
"""Colours that the style sheet has; further series repeat them with another dash."""


class Axis(msgspec.Struct, frozen=True):
    """What is shown along one side, from 0 or `low` to `high`, and how its numbers are written."""

    label: str
    high: float
    written: Callable[[float], str]
    low: float = 0.0

    def ticks(self) -> list[float]:
        """Four to eight round numbers within it."""
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span / 5))
        step = next(power * one for one in (1, 2, 5, 10) if span / (power * one) <= 7)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Points that belong together. `tone` is its colour, None the quiet one of references; `dots`: each point is marked and says
    its text; `whiskers`: from where to where each may lie on the upright axis."""

    points: Sequence[Where]
    tone: int | None = None
    line: bool = True
    dashed: bool = False
    dots: Sequence[str] = ()
    whiskers: Sequence[Where] = ()


def chart(name: str, told: str, x: Axis, y: Axis, series: Iterable[Series]) -> str:
    """An SVG element; `name` and `told` are its title and what it shows, for those who do not see it."""
    frame = _Frame(x, y)
    id = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    width, height = WIDTH - LEFT - RIGHT + 6, HEIGHT - TOP - BOTTOM + 6
    return "\n".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{id}-t {id}-d">',
            f'<title id="{id}-t">{escape(name)}</title><desc id="{id}-d">{escape(told)}</desc>',
            f'<clipPath id="{id}-c"><rect x="{LEFT}" y="{TOP - 6}" width="{width}" height="{height}"/></clipPath>',
            *_scales(frame),
            f'<g clip-path="url(#{id}-c)">',
            *(part for one in series for part in _drawn(frame, one)),
            "</g></svg>",
        ]
    )


class _Frame:
    """From values to places in the picture."""

    def __init__(self, x: Axis, y: Axis) -> None:
        self.x, self.y = x, y

    def across(self, value: float) -> float:
        share = (value - self.x.low) / (self.x.high - self.x.low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def up(self, value: float) -> float:
        share = (value - self.y.low) / (self.y.high - self.y.low)
        # What lies far outside is drawn just outside: a renderer's numbers have an end.
        return round(HEIGHT - BOTTOM - min(max(share, -1.0), 2.0) * (HEIGHT - TOP - BOTTOM), 1)


def _scales(frame: _Frame) -> Iterable[str]:
    floor, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in frame.y.ticks():
        at = frame.up(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{end}" y1="{at}" y2="{at}"/>'
        yield f'<text class="tick" x="{LEFT - 8}" y="{at + 4}" text-anchor="end">{escape(frame.y.written(value))}</text>'
    for value in frame.x.ticks():
        at = frame.across(value)
        yield f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP}" y2="{floor}"/>'
        yield f'<text class="tick" x="{at}" y="{floor + 17}" text-anchor="middle">{escape(frame.x.written(value))}</text>'
    yield f'<line class="axis" x1="{LEFT}" x2="{end}" y1="{floor}" y2="{floor}"/>'
    middle, height = (LEFT + end) / 2, (TOP + floor) / 2
    yield f'<text class="label" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(frame.x.label)}</text>'
    yield (
        f'<text class="label" transform="translate(13 {height}) rotate(-90)" text-anchor="middle">'
        f"{escape(frame.y.label)}</text>"
    )


def _drawn(frame: _Frame, series: Series) -> Iterable[str]:
    tone = "quiet" if series.tone is None else f"tone{series.tone % TONES}"
    dash = " dashed" if series.dashed or (series.tone or 0) >= TONES else ""
    places = [(frame.across(x), frame.up(y)) for x, y in series.points]
    if series.line and len(places) > 1:
        path = "M" + "L".join(f"{x} {y}" for x, y in places)
        yield f'<path class="line {tone}{dash}" d="{path}"/>'
    for (x, _), (low, high) in zip(places, series.whiskers, strict=False):
        yield f'<line class="whisker {tone}" x1="{x}" x2="{x}" y1="{frame.up(low)}" y2="{frame.up(high)}"/>'
    for (x, y), text in zip(places, series.dots, strict=False):
        yield f'<circle class="dot {tone}" cx="{x}" cy="{y}" r="4.5"><title>{escape(text)}</title></circle>'


def percent(value: float) -> str:
    """`0.5 %`, `20 %`."""
    return f"{round(value * 100, 4):g} %"


def dollars(value: float) -> str:
    """`$1,250`, `$1.20`, `$0.0021`."""
    if value >= 100:
        return f"${value:,.0f}"
    return f"${value:.2f}" if value >= 1 or round(value, 2) == round(value, 9) else f"${value:.3g}"


def counted(value: float) -> str:
    """`800`, `25k`, `1.25M`."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{round(value / size, 2):g}{unit}"
    return f"{value:g}"
