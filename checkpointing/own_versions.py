"""With which versions and on what a checkpoint was saved by the Python API. No host name, no paths."""

from __future__ import annotations

import functools
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("pitstop", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "numpy", "pytorch-lightning", "trl")


@functools.cache
def _installed() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, Any]:
    """The versions of the packages that compute, and the kind of machine."""
    return {"versions": dict(_installed()), "processor": platform.machine(), "python": platform.python_version()}
