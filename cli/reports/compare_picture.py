"""The curves of several runs in one picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pitstop.checkpointing.card.curve import dress
from pitstop.checkpointing.card.drawing import plain_drawing
from pitstop.checkpointing.card.markdown import clean
from pitstop.cli.terminal.output import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#2f6fb5", "#d1495b", "#3a8f5c", "#c77f1a", "#7a4fb0", "#1f9aa6", "#8a5a3c", "#555555")
"""By number of the run; as many as can be compared."""

_INCHES, _DOTS_PER_INCH = (9.0, 5.0), 120
_LONGEST_LABEL = 60
_FEW = 60
"""Up to so many points of a curve are marked one by one; validation is marked always, since it is sparse."""


def picture(content: Mapping[str, Any]) -> bytes | None:
    """A PNG of the curves in ``content``, as ``comparison`` gives it; None where no run has a point.

    White on every page; validation is dashed. Needs no display, and imports matplotlib only here.
    """
    curves = content["curves"]
    if not any(curve["points"] or curve["validation_points"] for curve in curves["series"]):
        return None
    with plain_drawing():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _draw(axes, content)
        values = [value for curve in curves["series"] for _, value in [*curve["points"], *curve["validation_points"]]]
        dress(axes, _short(curves["metric"]), values)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _draw(axes: Axes, content: Mapping[str, Any]) -> None:
    curves = content["curves"]
    lines, labels = [], []
    for number, (run, curve) in enumerate(zip(content["runs"], curves["series"], strict=True)):
        run_label = _short(f"{run['run']} {run['name']}")
        for key, metric in (("points", curves["metric"]), ("validation_points", curves["validation_metric"])):
            if not curve[key]:
                continue
            dashed = key == "validation_points"
            steps, values = zip(*curve[key], strict=True)
            marker = "o" if dashed or len(steps) <= _FEW else ""
            lines += axes.plot(
                steps,
                values,
                color=COLOURS[number % len(COLOURS)],
                linestyle="--" if dashed else "-",
                linewidth=1.5,
                marker=marker,
                markersize=4.0 if dashed else 2.5,
            )
            labels.append(f"{_short(metric)}   {run_label}")
    # A label that begins with an underscore would be left out, and one with dollars be read as a formula.
    legend = axes.legend(lines, ["-"] * len(lines), frameon=False, fontsize=8)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)


def _short(text: str) -> str:
    return shortened(clean(text), _LONGEST_LABEL)
