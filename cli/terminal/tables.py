"""A table that may have a thousand rows and must fit the terminal.

Rich draws short tables. Long ones it would take half a second for, which is longer than reading all the runs, so that they
are laid out here in the same look.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence

from pitstop.cli.terminal.output import Column, draw_table, is_terminal, notice, paint, plain_lines, shortened, table, use_color
from pitstop.configs.shown import printable

RICH_ROWS = 60
SHORTEST = 16
"""The column that gives way is never cut below this width."""

Styles = Mapping[str, Callable[[str], str | None]]


def print_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    shorten: str,
    drop: Sequence[str] = (),
    styles: Styles | None = None,
    keep_start: bool = False,
) -> None:
    """Print a table on stdout: all of it in a pipe; on a terminal no wider than that.

    There the column ``shorten`` is cut in its middle first (with ``keep_start`` at its end), then the columns ``drop`` are
    left out one after the other, which is said on stderr. ``styles`` gives the colour of a cell by its text.
    """
    if not is_terminal():
        table(columns, rows)
        return
    rows = [[printable(cell) for cell in row] for row in rows]
    width = shutil.get_terminal_size().columns
    columns, fitted, left_out = fit(columns, rows, width, shorten, drop, keep_start=keep_start)
    if len(fitted) > RICH_ROWS:
        _draw(columns, fitted, styles or {})
    else:
        draw_table(columns, fitted, lambda title, cell: _style(styles or {}, title, cell) or "")
    sys.stdout.flush()
    if left_out:
        notice(f"left out for the width of the terminal: {', '.join(left_out)} (a pipe and --json show everything)")


def fit(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int,
    shorten: str,
    drop: Sequence[str],
    *,
    keep_start: bool = False,
) -> tuple[list[Column], list[list[str]], list[str]]:
    """The columns and cells that fit into ``width``, and the titles left out."""
    widths = {column.title: max([len(column.title), *(len(row[index]) for row in rows)]) for index, column in enumerate(columns)}
    left_out: list[str] = []
    least = min(widths[shorten], SHORTEST)
    for title in drop:
        if _total(widths) - widths[shorten] + least <= width:
            break
        del widths[title]
        left_out.append(title)
    room = max(least, width - _total(widths) + widths[shorten])
    indices = [index for index, column in enumerate(columns) if column.title in widths]
    flexible = next(index for index, column in enumerate(columns) if column.title == shorten)
    cells = [
        [shortened(row[index], room, keep_start=keep_start) if index == flexible else row[index] for index in indices]
        for row in rows
    ]
    return [columns[index] for index in indices], cells, left_out


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + 2 * (len(widths) - 1)


def _draw(columns: Sequence[Column], rows: Sequence[Sequence[str]], styles: Styles) -> None:
    titles = [column.title for column in columns]
    lines = plain_lines([titles, *rows], [column.align for column in columns])
    widest = max(map(len, lines))
    if use_color() and styles:
        lines[1:] = [_colour(line, titles, row, styles) for line, row in zip(lines[1:], rows, strict=True)]
    sys.stdout.write("\n".join([paint(lines[0], "bold"), "─" * widest, *lines[1:]]) + "\n")


def _colour(line: str, titles: Sequence[str], row: Sequence[str], styles: Styles) -> str:
    """Paint the cells of a line that is laid out already: escape codes have no width, so they come last."""
    for title, cell in zip(titles, row, strict=True):
        style = _style(styles, title, cell)
        if style is not None:
            start = line.rfind(cell)
            line = f"{line[:start]}{paint(cell, style)}{line[start + len(cell) :]}"
    return line


def _style(styles: Styles, title: str, cell: str) -> str | None:
    return styles[title](cell) if title in styles else None
