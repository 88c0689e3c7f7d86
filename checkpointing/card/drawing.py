"""matplotlib, as curves and comparisons are drawn with it: into memory, and alike on every machine."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

_BACKEND = "MPLBACKEND"


@contextlib.contextmanager
def plain_drawing() -> Iterator[None]:
    """Draw inside as matplotlib does by itself, whatever a back end in the environment or a matplotlibrc say."""
    _import()
    from matplotlib import style

    with style.context("default"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a text may hold letters that the font has not
        yield


def _import() -> None:
    """Import matplotlib with the back end that needs no display: it refuses to be imported with one that is not there, as a notebook's."""
    if "matplotlib" in sys.modules:
        return
    configured = os.environ.get(_BACKEND)
    os.environ[_BACKEND] = "agg"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where its cache cannot be written, and does without
    try:
        import matplotlib  # noqa: F401
    finally:
        del os.environ[_BACKEND]
        if configured is not None:
            os.environ[_BACKEND] = configured
