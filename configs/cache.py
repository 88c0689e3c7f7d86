"""Where Pitstop keeps what it can make again: the demo model, saved tracebacks."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/pitstop``, or ``~/.cache/pitstop``; the directory may not exist yet.

    As the XDG specification asks, a relative ``XDG_CACHE_HOME`` is ignored.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = configured if configured.is_absolute() else Path.home() / ".cache"
    return base / "pitstop"
