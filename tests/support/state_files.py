"""The files of an adapter and of an optimizer as a checkpoint holds them, for tests that look into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pitstop.checkpointing.state.snapshot import AdapterBuffer, OptimizerBuffer, Snapshot


def adapter_files(model: Any) -> dict[str, bytes]:
    """Those of the adapter of a ``PeftModel``."""
    return _bytes(AdapterBuffer(model).take())


def optimizer_files(optimizer: Any, names: Mapping[int, str]) -> dict[str, bytes]:
    """Those of an optimizer; ``names`` maps ``id(parameter)`` to its name."""
    return _bytes(OptimizerBuffer(optimizer, names).take())


def _bytes(snapshot: Snapshot) -> dict[str, bytes]:
    return {name: bytes(content) for name, content in snapshot.files().items()}  # type: ignore[arg-type]
