"""Curves in plain characters: points in, lines of text out. Pure, and knows nothing of runs or terminals.

With colours each curve is a line of braille dots, two by four of them in a character. Without, such lines could not be
told apart, so each curve has a mark of its own, one in a character.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

Points = Sequence[tuple[float, float]]
Paint = Callable[[str, int], str]

MARKS = "ox+*#@%&"
"""By number of the curve; more curves start again."""

_DASH = 3
"""Of a dashed line so many cells' width in dots is drawn, and as much left out."""

_BRAILLE = 0x2800
_BRAILLE_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column] of the dots in a character
_LEAST_WIDTH = 8
_LONGEST_COUNT = 1e12


@dataclass(frozen=True)
class Curve:
    """``points`` are (x, y) with ascending x; ``number`` chooses mark and colour; ``dashed`` draws every other piece."""

    number: int
    points: Points
    dashed: bool = False


class PlotStyle(NamedTuple):
    """``braille`` dots or marks; ``lines`` for axes of line characters, else ASCII."""

    braille: bool = False
    lines: bool = False


@dataclass
class _Canvas:
    """Cells of ``across`` by ``down`` dots."""

    columns: int
    rows: int
    across: int
    down: int
    dots: dict[tuple[int, int], int] = field(default_factory=dict)
    owners: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def dot(self, x: int, y: int, number: int) -> None:
        cell = (x // self.across, y // self.down)
        self.dots[cell] = self.dots.get(cell, 0) | _BRAILLE_BITS[y % self.down][x % self.across]
        owners = self.owners.setdefault(cell, [])
        if number not in owners:
            owners.append(number)

    def owner(self, column: int, row: int) -> int:
        """Curves that share cells take turns, so that one on top of the other does not vanish."""
        owners = sorted(self.owners[column, row])
        return owners[column % len(owners)]


def plot(
    curves: Sequence[Curve],
    *,
    width: int,
    height: int = 12,
    logarithmic: bool = False,
    style: PlotStyle = PlotStyle(),  # noqa: B008
    paint: Paint = lambda text, number: text,
    x_title: str = "step",
) -> list[str]:
    """Lines of at most ``width`` characters: ``height`` rows of the plot, the axis, its labels and ``x_title``.

    ``paint`` colours what belongs to the curve of a number. [] where no curve has a point. ``logarithmic`` needs values
    above 0.
    """
    everything = [point for curve in curves for point in curve.points]
    if not everything:
        return []
    scale = math.log10 if logarithmic else float
    first, last = _range([x for x, _ in everything])
    low, high = _range([scale(y) for _, y in everything], flat=0.05)
    across, down = (2, 4) if style.braille else (1, 1)
    labels = _y_labels(low, high, height, down, logarithmic=logarithmic)
    margin = max(map(len, labels))
    canvas = _Canvas(max(_LEAST_WIDTH, width - margin - 2), height, across, down)
    for curve in curves:
        places = [
            (_place(x, first, last, canvas.columns * across), _place(scale(y), high, low, height * down)) for x, y in curve.points
        ]
        _draw(canvas, places, curve)
    return [*_body(canvas, labels, style, paint), *_x_axis(first, last, canvas.columns, margin, style, x_title)]


def _range(values: Sequence[float], flat: float = 0.0) -> tuple[float, float]:
    """Least and largest; where they are one, with ``flat`` of it (or of 1) to either side."""
    low, high = min(values), max(values)
    if low == high:
        margin = flat * (abs(low) or 1.0)
        return low - margin, high + margin
    return low, high


def _place(value: float, first: float, last: float, count: int) -> int:
    """Which of ``count`` dots from ``first`` to ``last`` is nearest to ``value``; 0 where all values are one."""
    if first == last:
        return 0
    return math.floor((value - first) / (last - first) * (count - 1) + 0.5)


def _draw(canvas: _Canvas, places: Sequence[tuple[int, int]], curve: Curve) -> None:
    period = _DASH * canvas.across
    for x, y in _line(places):
        if not curve.dashed or (x // period) % 2 == 0:
            canvas.dot(x, y, curve.number)
    if curve.dashed:
        for x, y in places:  # what was measured is never in a gap
            canvas.dot(x, y, curve.number)


def _line(places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Every dot on the straight lines between ``places``."""
    yield from places[:1]
    for (x, y), (to_x, to_y) in pairwise(places):
        steps = max(abs(to_x - x), abs(to_y - y))
        for step in range(1, steps + 1):
            yield x + _share(to_x - x, step, steps), y + _share(to_y - y, step, steps)


def _share(distance: int, step: int, steps: int) -> int:
    """``distance · step / steps`` to the nearest whole number, halves away from zero."""
    share = (2 * abs(distance) * step + steps) // (2 * steps)
    return share if distance >= 0 else -share


def _y_labels(low: float, high: float, height: int, down: int, *, logarithmic: bool) -> list[str]:
    """A label at top, middle and bottom, padded to one width; "" for the other rows."""
    texts = [""] * height
    for row in {0, height // 2, height - 1}:
        if row == 0:
            value = high
        elif row == height - 1:
            value = low
        else:
            value = high - (high - low) * (row * down + (down - 1) / 2) / (height * down - 1)
        texts[row] = f"{10.0**value if logarithmic else value:.4g}"
    widest = max(map(len, texts))
    return [text.rjust(widest) for text in texts]


def _body(canvas: _Canvas, labels: Sequence[str], style: PlotStyle, paint: Paint) -> Iterator[str]:
    tick, bar = ("┤", "│") if style.lines else ("+", "|")
    for row, label in enumerate(labels):
        cells = "".join(_cell(canvas, column, row, style, paint) for column in range(canvas.columns))
        yield f"{label} {tick if label.strip() else bar}{cells}".rstrip()


def _cell(canvas: _Canvas, column: int, row: int, style: PlotStyle, paint: Paint) -> str:
    bits = canvas.dots.get((column, row))
    if bits is None:
        return " "
    number = canvas.owner(column, row)
    return paint(chr(_BRAILLE + bits) if style.braille else MARKS[number % len(MARKS)], number)


def _x_axis(first: float, last: float, columns: int, margin: int, style: PlotStyle, title: str) -> Iterator[str]:
    corner, dash = ("└", "─") if style.lines else ("+", "-")
    indent = " " * (margin + 1)
    yield f"{indent}{corner}{dash * columns}"
    start, end = _x_label(first), _x_label(last) if last != first else ""
    middle = title if len(start) + len(title) + len(end) + 2 <= columns else ""
    room = columns - len(start) - len(end)
    yield f"{indent} {start}{middle.center(room)}{end}".rstrip()


def _x_label(value: float) -> str:
    return f"{value:,.0f}" if abs(value) < _LONGEST_COUNT else f"{value:.4g}"
