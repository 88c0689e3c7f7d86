"""A table that may have a thousand rows and must fit the terminal.

Rich draws short tables. Long ones it would take half a second for, which is longer than reading all the runs, so that they
are laid out here in the same look.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence

from pitstop.cli.terminal.output import Column, is_terminal, notice, paint, plain_lines, use_color
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
) -> None:
    """Print a table on stdout: all of it in a pipe; on a terminal no wider than that.

    There the column ``shorten`` is cut in its middle first, then the columns ``drop`` are left out one after the other,
    which is said on stderr. ``styles`` gives the colour of a cell by its text.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    if not is_terminal():
        lines = plain_lines([[column.title for column in columns], *rows], [column.align for column in columns])
        sys.stdout.write("\n".join(lines) + "\n")
        return
    width = shutil.get_terminal_size().columns
    columns, fitted, left_out = fit(columns, rows, width, shorten, drop)
    draw = _draw_with_rich if len(fitted) <= RICH_ROWS else _draw
    draw(columns, fitted, styles or {})
    sys.stdout.flush()
    if left_out:
        notice(f"left out for the width of the terminal: {', '.join(left_out)} (a pipe and --json show everything)")


def fit(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, shorten: str, drop: Sequence[str]
) -> tuple[list[Column], list[list[str]], list[str]]:
    """The columns and cells that fit into ``width``, and the titles left out."""
    widths = {column.title: _width(column, [row[index] for row in rows]) for index, column in enumerate(columns)}
    left_out: list[str] = []
    least = min(widths[shorten], SHORTEST)
    for title in drop:
        if _total(widths) - widths[shorten] + least <= width:
            break
        del widths[title]
        left_out.append(title)
    room = max(least, width - _total(widths) + widths[shorten])
    kept = [index for index, column in enumerate(columns) if column.title in widths]
    cut = next(index for index, column in enumerate(columns) if column.title == shorten)
    cells = [[_cut(row[index], room) if index == cut else row[index] for index in kept] for row in rows]
    return [columns[index] for index in kept], cells, left_out


def _width(column: Column, cells: Sequence[str]) -> int:
    return max([len(column.title), *map(len, cells)])


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + 2 * (len(widths) - 1)


def _cut(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    tail = (room - 1) // 2  # names end with what tells them apart
    return f"{text[: room - 1 - tail]}…{text[len(text) - tail :]}"


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
        style = styles[title](cell) if title in styles else None
        if style is not None:
            at = line.rfind(cell)
            line = f"{line[:at]}{paint(cell, style)}{line[at + len(cell) :]}"
    return line


def _draw_with_rich(columns: Sequence[Column], rows: Sequence[Sequence[str]], styles: Styles) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # One column of padding and one of the box's own: two between columns, as `fit` reckons.
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        table.add_column(column.title, justify="right" if column.align == "right" else "left", no_wrap=True)
    for row in rows:
        cells = zip(columns, row, strict=True)
        table.add_row(*(Text(cell, style=_style(styles, column.title, cell)) for column, cell in cells))
    Console(no_color=not use_color(), highlight=False).print(table)


def _style(styles: Styles, title: str, cell: str) -> str:
    return (styles[title](cell) if title in styles else None) or ""
