"""The loss of a run over its steps as a picture for the model card."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pitstop.checkpointing.card.drawing import plain_drawing
from pitstop.checkpointing.card.markdown import clean
from pitstop.checkpointing.disk.metrics_log import Points, is_steep, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES, _DOTS_PER_INCH = (8.0, 4.5), 120
_MARGIN_INCHES = 0.12
_LONGEST_TITLE = 80
_CURVES = (("loss", "training loss", "#2f6fb5"), ("val_loss", "validation loss", "#d1495b"))
_FEW = 60
"""Up to so many points of a curve are marked one by one; validation is marked always, since it is sparse."""


def loss_curve(rows: Iterable[Mapping[str, Any]], title: str) -> bytes | None:
    """A PNG of ``loss`` and ``val_loss`` over ``step`` of the rows of metrics.jsonl; None where no row has a finite one.

    White on every page. The same rows give the same bytes with the same matplotlib. Needs no display, and imports
    matplotlib only here.
    """
    logged = list(rows)
    curves = [(label, colour, pairs) for key, label, colour in _CURVES if (pairs := points(logged, key))]
    if not curves:
        return None
    with plain_drawing():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        margins = ConstrainedLayoutEngine(w_pad=_MARGIN_INCHES, h_pad=_MARGIN_INCHES)
        figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, facecolor="white", layout=margins)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for label, colour, pairs in curves:
            _draw(axes, label, colour, pairs)
        dress(axes, "loss", [value for _, _, pairs in curves for _, value in pairs])
        axes.set_title(clean(title, _LONGEST_TITLE), parse_math=False, fontsize=11, loc="left", pad=10)
        axes.legend(frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _draw(axes: Axes, label: str, colour: str, pairs: Points) -> None:
    steps, values = zip(*pairs, strict=True)
    validation = label.startswith("validation")
    marker = "o" if validation or len(pairs) <= _FEW else ""
    size, width = (5.0, 2.0) if validation else (3.0, 1.5)
    axes.plot(steps, values, label=label, color=colour, linewidth=width, marker=marker, markersize=size)


def dress(axes: Axes, label: str, values: Sequence[float]) -> None:
    """Steps along ``axes``, ``label`` beside their values, logarithmic where these are steep, and a light grid."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    if is_steep(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label, parse_math=False)
    axes.grid(True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
