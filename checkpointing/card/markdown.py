"""Text that users chose, made harmless in Markdown, YAML and Python source: a run's name must not open a table or a link."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence

from pitstop.configs.secrets import mask
from pitstop.configs.shown import printable

LONGEST = 300
"""No cell, name or path is shown longer than this."""

# Dashes, dots, slashes and signs of equality mean nothing in the middle of a line, where every text of ours stands.
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#!|~&$@:])")
_BARE_ADDRESS = re.compile(r"(?i)\bwww\.")  # becomes a link by itself


def clean(text: str, longest: int = LONGEST) -> str:
    """``text`` on one line, without control characters and tokens, cut to ``longest`` characters."""
    line = printable(mask(" ".join(text.split())))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def escaped(text: str) -> str:
    """``text`` as Markdown shows it literally, inside a line or a table's cell."""
    return _BARE_ADDRESS.sub(lambda match: f"{match[0][:-1]}\\.", _SPECIAL.sub(r"\\\1", clean(text)))


def quoted(text: str) -> str:
    """``text`` as a string of YAML and of Python alike."""
    return json.dumps(clean(text), ensure_ascii=False)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """The lines of a table whose cells are Markdown already; those of the columns numbered in ``right`` stand at the right."""
    rule = ["---:" if number in right else "---" for number in range(len(titles))]
    return [f"| {' | '.join(cells)} |" for cells in (titles, rule, *rows)]
