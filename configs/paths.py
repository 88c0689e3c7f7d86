"""Places on this machine: the settings that may hold one, and the cache directory. Imports neither the schema nor a library."""

from __future__ import annotations

import os
from pathlib import Path

PATHS = (
    "model.id",
    "model.from_run",
    "model.config",
    "model.tokenizer",
    "data.train",
    "data.eval",
    "data.root",
    "evaluation.sample_prompts",
    "training.checkpoint.base_dir",
)
"""Dotted paths of the settings that may hold a place on this machine."""

VERBATIM = ("data.prompt_template", "data.system_prompt")
"""Settings whose white space counts, and which ``@FILE`` reads from a file."""

JSON_TEXTS = ("data.train_settings", "data.eval_settings")
"""Lists of JSON texts, in which a comma parts nothing."""

PAIRS = ("data.columns", "data.roles", "data.template_options")
"""Lists of ``NAME=VALUE``, which YAML may write as a mapping."""


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/pitstop``, or ``~/.cache/pitstop``; the directory may not exist yet.

    As the XDG specification asks, a relative ``XDG_CACHE_HOME`` is ignored.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = configured if configured.is_absolute() else Path.home() / ".cache"
    return base / "pitstop"


def obstacle(directory: Path) -> str | None:
    """What stands where ``directory``, or one above it, would be made, in words; None where nothing does."""
    for path in (*reversed(directory.parents), directory):
        if path.is_dir():
            continue
        if path.is_symlink():
            return f"{path} is a link to {path.readlink()}, which is {'no directory' if path.exists() else 'not there'}"
        return f"{path} is a file" if path.exists() else None
    return None
