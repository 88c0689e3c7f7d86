"""With which versions a checkpoint was saved, and by the Python API on what. No host name, no paths."""

from __future__ import annotations

import functools
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

COMPUTING = ("pitstop", "torch", "transformers", "tokenizers", "jinja2", "peft", "accelerate", "bitsandbytes", "numpy")
"""The packages whose versions decide what a training computes."""

_HOSTS = ("pytorch-lightning", "trl")


@functools.cache
def installed(packages: tuple[str, ...]) -> dict[str, str]:
    """Those of ``packages`` that are installed, with their versions; looked up once."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def describe() -> dict[str, Any]:
    """The versions of the packages that compute, and the kind of machine."""
    return {"versions": dict(installed(COMPUTING + _HOSTS)), "processor": platform.machine(), "python": platform.python_version()}
