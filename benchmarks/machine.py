"""What a measurement ran on: it means nothing without."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_MATRIX_FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "asimd", "bf16")


def describe() -> dict[str, Any]:
    """Return the machine's processor, usable logical CPUs, memory, system and Python; ``load`` is the 1-minute average."""
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        "cpus": usable_cpus(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(psutil.getloadavg()[0], 2),
    }


def usable_cpus() -> int:
    """Return the number of logical CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of ``names``; a package that is missing is left out."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def in_words(machine: dict[str, Any]) -> str:
    """Return one line that says what ``describe`` found."""
    return (
        f"{machine['processor']} ({', '.join(machine['instructions']) or 'no vector extensions known'}), "
        f"{machine['cpus']} CPUs, {machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}, "
        f"load {machine['load']}"
    )


def _processor() -> str:
    if platform.system() == "Darwin":
        answer = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        return answer.stdout.strip() or platform.machine()
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _instructions() -> list[str]:
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return [flag for flag in _MATRIX_FLAGS if flag in flags]


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == key), "")
