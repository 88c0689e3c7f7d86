"""What whoever resumes a run asks for. Imports nothing that takes time: commands make it before the libraries are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ResumeRequest:
    """``run`` is a run reference, ``checkpoint`` a name, ``best`` or ``last``; ``flags`` (setting → value) change its settings."""

    base_dir: str
    run: str
    checkpoint: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    env_file: Path | None = None
    allow_changed_data: bool = False
    allow_changed_base: bool = False
    fallback_new: bool = False
