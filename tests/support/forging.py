"""Checkpoints as an attacker would make them: any content, under a manifest whose hashes fit."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.manifest import sealed, unsealed
from pitstop.checkpointing.store.store import CheckpointFacts, CheckpointInfo, CheckpointStore
from pitstop.configs.load import load_settings, settings_to_dict
from support.stores import START, ForgetfulStorage

STEP, EPOCH = 3, 0.5
CONFIG: dict[str, Any] = settings_to_dict(
    load_settings(flags={"model.id": "owner/name", "data.train": ["train.jsonl"], "lora.rank": 4}, environ={}).settings
)


class _Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.canary), "w"))


def pickled(canary: Path) -> bytes:
    """A pickle that makes the file ``canary`` when it is loaded."""
    return pickle.dumps(_Payload(canary))


def raw_tensors(header: Any, body: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with any header (bytes as they are, else JSON) that claims any length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensors(values: Mapping[str, tuple[tuple[int, ...], bytes]]) -> bytes:
    """A sound safetensors file of float32 tensors: name → shape and bytes."""
    header, at = {}, 0
    for name, (shape, data) in values.items():
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    return raw_tensors(header, b"".join(data for _, data in values.values()))


def sound_files() -> dict[str, bytes]:
    """The files of a checkpoint at ``STEP`` whose parts agree, but for the random state, which only says that it is one."""
    steps = struct.pack("<f", STEP)
    moments = {"w::step": ((), steps), "w::exp_avg": ((2,), bytes(8)), "w::exp_avg_sq": ((2,), bytes(8))}
    progress = {
        "step": STEP,
        "epoch": 0,
        "position": 6,
        "tokens": 90,
        "learning_rate": 0.1,
        "grad_norm": 1.0,
        "boundary_pending": False,
        "unlogged": {"total": 0.0, "tokens": 0},
        "unscored": {"total": 3.0, "tokens": 9},
        "best_value": None,
        "best_step": None,
        "evaluations_without_improvement": 0,
    }
    state = {"format_version": 1, "global_step": STEP, "epoch": 0, "progress": progress, "settings": CONFIG, "scaler": None}
    state["environment"] = {"versions": {"torch": "2.13.0"}, "device": "cpu", "threads": 2, "cuda": None}
    meta = {"class": "AdamW", "groups": [{"parameters": ["w"]}], "scalars": {}, "tensors": sorted(moments)}
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "owner/name", "r": 4}
    return {
        layout.ADAPTER_WEIGHTS: tensors({"w": ((2,), bytes(8))}),
        layout.ADAPTER_CONFIG: json.dumps(adapter).encode(),
        layout.OPTIMIZER: tensors(moments),
        layout.OPTIMIZER_META: json.dumps(meta).encode(),
        layout.TRAINER_STATE: json.dumps(state).encode(),
        layout.rng_file(0): b"{}",
    }


def commit(directory: Path, files: Mapping[str, bytes], *, step: int = STEP, epoch: float = EPOCH) -> CheckpointInfo:
    """A committed checkpoint with ``files`` in the store ``directory``."""
    return CheckpointStore(directory, ForgetfulStorage()).write(
        f"checkpoint-{step}",
        files,
        CheckpointFacts(
            step=step,
            epoch=epoch,
            metrics={},
            world_size=1,
            fingerprints={"base": "b" * 64, "data": "d"},
            versions={},
            saved_at=START,
        ),
    )


def reseal(checkpoint: Path, **changes: Any) -> None:
    """Give a checkpoint a manifest that fits what lies there now, with ``changes`` to its content."""
    path = checkpoint / layout.MANIFEST
    content = unsealed(path.read_bytes(), "there")
    found = [each for each in checkpoint.rglob("*") if each.is_file() and each != path]
    content["files"] = {
        each.relative_to(checkpoint).as_posix(): {
            "size": each.stat().st_size,
            "sha256": hashlib.sha256(each.read_bytes()).hexdigest(),
        }
        for each in found
    }
    path.write_bytes(sealed({**content, **changes}))


def change_json(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.chmod(0o600)
    path.write_text(json.dumps(content))


def snapshot(root: Path) -> dict[str, object]:
    """All that lies below ``root`` with its content, to be compared later."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = path.readlink()
        else:
            found[name] = path.read_bytes() if path.is_file() else "directory or special"
    return found


def deep_directory(path: Path) -> None:
    """Make directories in ``path``, each in the one before, deeper than a recursion goes. Python cannot remove them: use rm."""
    here = Path.cwd()
    try:
        os.chdir(path)
        for _ in range(1500):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(here)
