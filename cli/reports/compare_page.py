"""A comparison as one page of HTML: no scripts, nothing from the network, and no text of a run that is not escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from pitstop.cli.reports.compare_text import NOTHING, metric_rows
from pitstop.cli.reports.settings_view import setting_text
from pitstop.configs.shown import printable

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
thead th { border-bottom: 2px solid #888; } tbody th { font-weight: normal; } th.group { font-weight: 600; padding-top: .8rem; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; } td.best { font-weight: 600; color: #1b6e3c; }
tr.differs td { background: #fff6dd; } img { max-width: 100%; height: auto; } .note { color: #7a4b00; }
"""
# Even if something slipped through: the page may load and run nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STAR = "★"


def page(content: Mapping[str, Any], picture: bytes | None) -> str:
    """``content``, as ``comparison`` gives it, as a whole document; ``picture`` is a PNG of the curves."""
    runs = content["runs"]
    names = ", ".join(run["run"] for run in runs)
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(f'Comparison of {names}')}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Comparison of runs</h1>",
        *_table(
            ["", "name", "model", "data"],
            [(run["run"], [run["name"], run["model"] or "-", run["dataset"] or "-"]) for run in runs],
        ),
        "<h2>Metrics</h2>",
        *_table(["", *(run["run"] for run in runs)], metric_rows(content, _STAR)),
        *(f'<p class="note">{_text(note)}</p>' for note in [*content["notes"], *content["problems"]]),
        *_curves(content["curves"], picture),
        "<h2>Settings</h2>",
        *_settings(content),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _table(titles: Sequence[str], rows: Any) -> Iterator[str]:
    yield from _head(titles)
    yield "<tbody>"
    for title, cells in rows:
        yield _row(title, cells)
    yield "</tbody></table></div>"


def _head(titles: Sequence[str]) -> Iterator[str]:
    yield '<div class="wide"><table>\n<thead><tr>'
    yield "".join(f'<th scope="col">{_text(title)}</th>' if title else "<td></td>" for title in titles)
    yield "</tr></thead>"


def _row(title: str, cells: Sequence[str], style: str = "") -> str:
    marked = "".join(
        f'<td class="best">{_text(cell)}</td>' if cell.endswith(f" {_STAR}") else f"<td>{_text(cell)}</td>" for cell in cells
    )
    return f'<tr{style}><th scope="row">{_text(title)}</th>{marked}</tr>'


def _settings(content: Mapping[str, Any]) -> Iterator[str]:
    rows = content["settings"]
    if not rows:
        yield "<p>These runs have the same settings.</p>"
        return
    yield from _head(["", *(run["run"] for run in content["runs"])])
    for group, members in groupby(rows, key=lambda row: row["group"]):
        yield f'<tbody><tr><th class="group" scope="rowgroup" colspan="{len(content["runs"]) + 1}">{_text(group)}</th></tr>'
        for row in members:
            name = row["setting"].removeprefix(f"{group}.")
            yield _row(
                name,
                [setting_text(value, unset=NOTHING) for value in row["values"]],
                ' class="differs"' if row["differs"] else "",
            )
        yield "</tbody>"
    yield "</table></div>"


def _curves(curves: Mapping[str, Any], picture: bytes | None) -> Iterator[str]:
    yield f"<h2>{_text(curves['metric'])} by step</h2>"
    if picture is None:
        yield "<p>Nothing is logged yet.</p>"
        return
    data = base64.b64encode(picture).decode()
    yield f'<img alt="{_text(curves["metric"])} of the runs by optimizer step" src="data:image/png;base64,{data}">'


def _text(text: str) -> str:
    return html.escape(printable(text))
