"""What a training ran on: what decides whether a resumed one can be bit for bit the same. No host name, no paths."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.state.versions import COMPUTING, installed
from pitstop.trainers.machine.device import Precision


def describe(device: torch.device, precision: Precision, processes: int) -> dict[str, Any]:
    """Versions, device, precision, threads and processes, as JSON-able values."""
    on_cuda, versions = device.type == "cuda", installed(COMPUTING)
    return {
        "versions": {package: versions.get(package, "missing") for package in COMPUTING},
        "device": torch.cuda.get_device_name(device) if on_cuda else device.type,
        "processor": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda if on_cuda else None,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,
        "precision": precision.mixed,
        "threads": torch.get_num_threads(),
        "world_size": processes,
    }


def differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is not the same, as name → (recorded, current); versions by package. What ``recorded`` does not know is passed over."""
    old, new = _flat(recorded), _flat(current)
    return {name: (old[name], new[name]) for name in old if name in new and old[name] != new[name]}


def in_one_line(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """``torch 2.13.0 → 2.14.0, threads 2 → 4``."""
    return ", ".join(f"{name} {old} → {new}" for name, (old, new) in changes.items())


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    versions = environment.get("versions")
    packages = dict(versions) if isinstance(versions, Mapping) else {}
    return {**packages, **{name: value for name, value in environment.items() if name != "versions"}}


def processor() -> str:
    """The processor's model: libraries choose their kernels, and so their rounding, by it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
