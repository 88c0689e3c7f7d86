"""A comparison as text: tables no wider than the terminal, and curves in plain characters."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pitstop.checkpointing.disk.metrics_log import is_steep
from pitstop.cli.reports.settings_view import setting_text
from pitstop.cli.terminal.output import heading, is_terminal, paint, plain_lines, say, shortened, star, use_color
from pitstop.cli.terminal.plot import MARKS, Curve, PlotStyle, plot
from pitstop.cli.terminal.streams import can_show
from pitstop.configs.shown import printable

NOTHING = "-"
_SHORT_DIGEST = 10
_VALUE_WIDTHS = (40, 32, 24, 18)
"""On a terminal no value takes more; less, where that keeps the runs beside each other. A pipe, --html and --json have all of it."""

_LEAST_VALUE = 12
_COLOURS = ("cyan", "yellow", "green", "red", "magenta", "blue")
_HEIGHT = 12

Row = tuple[str, list[str]]


def print_comparison(content: Mapping[str, Any], *, plotted: bool, complete: bool) -> None:
    """Print ``content`` on stdout; ``plotted`` with the curves, ``complete`` when it holds all settings."""
    labels = [run["run"] for run in content["runs"]]
    say(paint("Runs", "bold"))
    for number, run in enumerate(content["runs"]):
        name = printable(run["name"])
        if is_terminal():
            name = shortened(name, max(_LEAST_VALUE, shutil.get_terminal_size().columns - len(printable(run["run"])) - 2))
        say(f"{_painted(run['run'], number)}  {name}")
    heading("Settings" if complete else "Settings that differ")
    rows = [(row["setting"], [setting_text(value, unset=NOTHING) for value in row["values"]]) for row in content["settings"]]
    if rows:
        _print_table(labels, rows)
    else:
        say("none: these runs have the same settings")
    heading("Metrics")
    _print_table(labels, list(metric_rows(content, star())), right=True)
    for note in content["notes"]:
        say(printable(note))
    if plotted:
        _print_plot(content["curves"])


def metric_rows(content: Mapping[str, Any], mark: str) -> Iterator[Row]:
    """The rows of the table of metrics: what it is called, and a text for each run."""
    runs = content["runs"]
    yield "status", [run["status"] for run in runs]
    yield "steps", [_steps(run) for run in runs]
    units = [unit for unit in ("tokens", "images") if any(run[unit] is not None for run in runs)] or ["tokens"]
    for unit in units:
        yield unit, [count_text(run[unit]) for run in runs]
    bests = [run["best_checkpoint"] for run in runs]
    yield "best checkpoint", [best["name"] if best else NOTHING for best in bests]
    yield "chosen by", [f"{best['metric']} ({best['mode']})" if best else NOTHING for best in bests]
    for metric in content["metrics"]:
        cells = [number_text(value) for value in metric["values"]]
        yield metric["metric"], [f"{cell} {mark}" if index in metric["best"] else cell for index, cell in enumerate(cells)]
    yield "last logged loss", [number_text(run["last_loss"]) for run in runs]
    for unit in units:
        yield f"{unit}/s (median)", [number_text(run[f"{unit}_per_s"]) for run in runs]
    for title, kind in (("training data", "data"), ("evaluation data", "eval_data"), ("base model", "base")):
        digests = [run["identity"][kind] for run in runs]
        is_same = content["same"][kind]
        yield title, ["same" if is_same else NOTHING if digest is None else digest[:_SHORT_DIGEST] for digest in digests]


def _steps(run: Mapping[str, Any]) -> str:
    if run["step"] is None:
        return NOTHING
    return f"{run['step']:,}/{run['total_steps']:,}" if run["total_steps"] else f"{run['step']:,}"


def number_text(value: float | None) -> str:
    """Four digits; a dash where nothing is known, ``nan`` where it was not finite."""
    return NOTHING if value is None else f"{value:.4g}"


def count_text(value: float | None) -> str:
    """A whole number with its thousands set apart."""
    return number_text(value) if value is None or math.isnan(value) else f"{value:,.0f}"


# Tables


def _print_table(labels: Sequence[str], rows: Sequence[Row], *, right: bool = False) -> None:
    printed = [(printable(title), [printable(cell) for cell in cells]) for title, cells in rows]
    labels = [printable(label) for label in labels]
    if not is_terminal():
        _print_block(["", *labels], [[title, *cells] for title, cells in printed], right=right)
        return
    width = shutil.get_terminal_size().columns
    head = max(len(title) for title, _ in printed)
    for number, (block, widest) in enumerate(blocks(labels, printed, width - head)):
        if number:
            say()
        cells = [[title, *(shortened(values[index], widest) for index in block)] for title, values in printed]
        _print_block(["", *(labels[index] for index in block)], cells, right=right)


def blocks(labels: Sequence[str], rows: Sequence[Row], room: int) -> list[tuple[list[int], int]]:
    """Which runs stand beside each other in ``room`` characters, the rest below, and how long values may be there.

    Values are cut before runs are parted; each block has at least one run.
    """
    limits = [max(_LEAST_VALUE, min(width, room - 2)) for width in _VALUE_WIDTHS]
    longest = [max([len(cells[index]) for _, cells in rows], default=0) for index in range(len(labels))]
    widths = {
        limit: [2 + max(len(label), min(cell, limit)) for label, cell in zip(labels, longest, strict=True)] for limit in limits
    }
    limit = next((limit for limit in limits if sum(widths[limit]) <= room), limits[-2])
    indices: list[list[int]] = []
    free = 0
    for index, width in enumerate(widths[limit]):
        if not indices or width > free:
            indices.append([])
            free = room
        indices[-1].append(index)
        free -= width
    return [(block, limit) for block in indices]


def _print_block(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool) -> None:
    aligns = ["left", *("right" if right else "left" for _ in titles[1:])]
    heading, *lines = plain_lines([titles, *rows], aligns)
    say(paint(heading, "bold"))
    for line in lines:
        say(line.replace(star(), paint(star(), "green")) if star() != "*" else line)


# Curves


def _print_plot(curves: Mapping[str, Any]) -> None:
    series = curves["series"]
    values = [value for curve in series for _, value in [*curve["points"], *curve["validation_points"]]]
    metric, validation = printable(curves["metric"]), printable(curves["validation_metric"])
    logarithmic = is_steep(values)
    heading(f"{metric} by step{', logarithmic' if logarithmic else ''}")
    if not values:
        say("nothing is logged yet")
        return
    curves_drawn = [Curve(number, curve["points"]) for number, curve in enumerate(series)]
    curves_drawn += [Curve(number, curve["validation_points"], dashed=True) for number, curve in enumerate(series)]
    unicode, coloured = can_show("⠒┤"), use_color()
    style = PlotStyle(braille=unicode and coloured and len(series) <= len(_COLOURS), lines=unicode)
    width = shutil.get_terminal_size().columns
    lines = plot(curves_drawn, width=width, height=_HEIGHT, logarithmic=logarithmic, style=style, paint=_painted)
    sys.stdout.write("\n".join(lines) + "\n")
    for number, curve in enumerate(series):
        if curve["points"] or curve["validation_points"]:
            _legend(number, curve, metric, validation, braille=style.braille)


def _legend(number: int, curve: Mapping[str, Any], metric: str, validation: str, *, braille: bool) -> None:
    mark = "⠒" if braille else MARKS[number % len(MARKS)]
    parts = [f"{_painted(mark * 5, number)} {metric}"] if curve["points"] else []
    if curve["validation_points"]:
        parts.append(f"{_painted(f'{mark * 2} {mark * 2}', number)} {validation}")
    say(f"  {curve['run']}  {'  '.join(parts)}")


def _painted(text: str, number: int) -> str:
    return paint(text, _COLOURS[number % len(_COLOURS)])
