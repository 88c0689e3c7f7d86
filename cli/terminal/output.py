"""What commands print: tables, JSON and notices.

Results go to stdout and everything else to stderr, so that ``--json`` output can be piped. Rich is imported only when
there is a terminal to draw on: without one, tables are plain aligned lines that ``grep`` and ``awk`` can read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from pitstop.cli.terminal.streams import can_show
from pitstop.configs.notices import Notice
from pitstop.configs.secrets import mask
from pitstop.configs.shown import finite, json_safe, printable

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36"}

_LEAST_FACT = 20
"""Values of facts are never wrapped to less than this width."""

_PAINTED = re.compile(r"(\x1b\[(?:0|1|2|3[1-6])(?:;(?:1|2|3[1-6]))*m)")

_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


@dataclass(frozen=True)
class Column:
    """One column of a table; ``align`` is ``left`` or ``right``, ``style`` a Rich style for terminals."""

    title: str
    align: str = "left"
    style: str | None = None
    wrap: bool = False


def is_terminal(stream: IO[str] | None = None) -> bool:
    """Whether ``stream`` (stdout unless given) is a terminal that a person looks at."""
    stream = sys.stdout if stream is None else stream
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # replaced by something that is no file, or already closed
        return False


def use_color(stream: IO[str] | None = None) -> bool:
    """Whether colours may be written: a terminal, and ``NO_COLOR`` (any value) not set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def paint(text: str, *styles: str, stream: IO[str] | None = None) -> str:
    """``text`` in the given styles (``bold``, ``dim``, a colour), or unchanged where colours must not be written."""
    text = printable(text)
    if not use_color(stream):
        return text
    codes = ";".join(_STYLES[style] for style in styles)
    return f"\x1b[{codes}m{text}\x1b[0m"


def say(text: str = "") -> None:
    """Print a line of the result on stdout. Control characters are spelt out, as in all that is printed here."""
    print(_shown(text, sys.stdout), flush=True)


def notice(text: str) -> None:
    """Print a line that is not part of the result, on stderr."""
    # One write, for lines that come from several threads.
    print(f"{_shown(text, sys.stderr)}\n", end="", file=sys.stderr, flush=True)


def _shown(text: str, stream: IO[str]) -> str:
    """``text`` with the colours that ``paint`` gave it, and no other character that would control a terminal."""
    if not use_color(stream):
        return printable(text, lines=True)
    return "".join(part if number % 2 else printable(part, lines=True) for number, part in enumerate(_PAINTED.split(text)))


def warn(text: str, hint: str | None = None) -> None:
    """Print a warning on stderr, and below it what to do."""
    notice(f"{paint('warning:', 'yellow', 'bold', stream=sys.stderr)} {text}")
    if hint:
        notice(f"hint: {hint}")


def tell(notices: Iterable[Notice]) -> None:
    """Print what was decided on the user's behalf, on stderr: a loss as a warning."""
    for told in notices:
        (warn if told.loss else notice)(mask(str(told)))


def heading(text: str) -> None:
    """Print an empty line and a heading on stdout."""
    say()
    say(paint(text, "bold"))


def shortened(text: str, room: int, *, keep_start: bool = False) -> str:
    """``text`` in at most ``room`` characters: cut in its middle, since names end with what tells them apart, or at its end."""
    if len(text) <= room:
        return text
    mark = ellipsis()
    tail = 0 if keep_start else (room - len(mark)) // 2
    return f"{text[: room - len(mark) - tail]}{mark}{text[len(text) - tail :]}"


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON on stdout; keys stay in the order given, so that they are stable.

    NaN and infinities are not JSON: they are printed as ``null``.
    """
    print_document(json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_document(document: str) -> None:
    """Print JSON on stdout; a character that its encoding lacks is written as ``\\u2026``, so that nothing of a value is lost."""
    document = json_safe(document)
    if not can_show(document):
        document = _NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], document)
    print(document, flush=True)


def star() -> str:
    """The mark of the best value, as stdout can show it."""
    return "★" if can_show("★") else "*"


def ellipsis() -> str:
    """The mark of text that was cut, as stdout can show it."""
    return "…" if can_show("…") else "..."


def table(columns: Sequence[Column | str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout: drawn by Rich on a terminal, plain aligned lines otherwise.

    ``rows`` hold one string for each column; they are printed as they are, never read as Rich markup.
    """
    heading = [Column(column) if isinstance(column, str) else column for column in columns]
    cells = [[printable(cell) for cell in row] for row in rows]
    if is_terminal():
        draw_table(heading, cells)
        return
    say("\n".join(plain_lines([[column.title for column in heading], *cells], [column.align for column in heading])))


def print_facts(facts: Iterable[tuple[str, str]], width: int) -> None:
    """Print a line for each label and value on stdout, labels padded to ``width``; on a terminal long values wrap below themselves."""
    room = max(_LEAST_FACT, shutil.get_terminal_size().columns - width - 2) if is_terminal() else None
    for label, value in facts:
        lines = [value] if room is None else textwrap.wrap(printable(value), room, break_on_hyphens=False)
        for number, line in enumerate(lines):
            say(f"  {'' if number else label:<{width}}{line}")


def short_digest(name: str) -> str:
    """The name of a base model as people tell it from others: of the 64 letters of its digest the first dozen."""
    place, slash, digest = name.rpartition("/")
    return f"{place}/{digest[:12]}{ellipsis()}" if slash and len(digest) > 40 and "(" not in digest else name


def plain_lines(rows: Sequence[Sequence[str]], aligns: Sequence[str]) -> list[str]:
    """Lay ``rows`` out in columns two spaces apart, without trailing blanks."""
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(aligns))]
    return [
        "  ".join(
            cell.rjust(width) if align == "right" else cell.ljust(width)
            for cell, width, align in zip(row, widths, aligns, strict=True)
        ).rstrip()
        for row in rows
    ]


def draw_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], style: Callable[[str, str], str] = lambda title, cell: ""
) -> None:
    """Let Rich draw a table on stdout. ``style`` gives the Rich style of a cell by its column's title and its text.

    Columns that wrap show all their text; others end in an ellipsis where the terminal is too narrow.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # One column of padding and one of the box's own: two between columns, as in plain lines.
    drawn = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        drawn.add_column(
            column.title,
            justify="right" if column.align == "right" else "left",
            style=column.style,
            no_wrap=not column.wrap,
            overflow="fold" if column.wrap else "ellipsis",
        )
    for row in rows:
        cells = zip(columns, row, strict=True)
        drawn.add_row(*(Text(cell, style=style(column.title, cell)) for column, cell in cells))
    Console(file=sys.stdout, no_color=not use_color(), highlight=False).print(drawn)
