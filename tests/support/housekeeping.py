"""A base directory with runs that share a base model, for tests of what is removed and what stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.storage import Storage
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.stores import ForgetfulStorage, save

DIGEST = "shared-base-0001"
UNUSED = "unused-base-0002"
LOSSES = {1: 0.9, 2: 0.1, 3: 0.8, 4: 0.7, 5: 0.6}
"""By step: 2 is the best, 5 the last."""


def config(keep_last_n: int | None = 1, **checkpoint: Any) -> dict[str, Any]:
    """Settings of a run as far as retention looks at them."""
    return {"training": {"checkpoint": {"monitor": "val_loss", "mode": "min", "keep_last_n": keep_last_n, **checkpoint}}}


def place_base(base_dir: Path, digest: str = DIGEST, storage: Storage | None = None) -> BaseModels:
    """Save a base model of 3,000 bytes."""
    disk = storage or ForgetfulStorage()
    models = BaseModels(base_dir, disk)
    models.save_once(digest, lambda directory: disk.write_file(directory / "model.safetensors", b"abc" * 1000) and None)
    return models


def make_run(
    base_dir: Path,
    name: str = "a-run",
    *,
    steps: tuple[int, ...] = tuple(LOSSES),
    keep_last_n: int | None = 1,
    resumed_from: int | None = None,
    group: str = "",
    storage: Storage | None = None,
    base: bool = True,
) -> RunDirectory:
    """A completed run with a checkpoint for each of ``steps``, and with the shared base unless ``base`` is false."""
    disk = storage or ForgetfulStorage()
    metadata = {"base_model": {"digest": DIGEST, "saved": True}} if base else {}
    run = create_run(base_dir / group, name=name, config=config(keep_last_n), metadata=metadata, storage=disk)
    if base:
        place_base(base_dir, storage=disk).link_into(run.path, DIGEST)
    for step in steps:
        save(run.store, step, loss=LOSSES[step])
    run.store.repair_pointers()
    if resumed_from is not None:
        run.record_resume(run.store.resolve(f"checkpoint-{resumed_from}"), {})
    run.sync_checkpoints({"status": "completed"})
    return run


def names(run: RunDirectory) -> list[str]:
    """The run's checkpoints as a reader finds them now, each hashed again."""
    fresh = RunDirectory(run.path, ForgetfulStorage())
    return [fresh.store.verify(name).name for name in fresh.store.names()]


def checkpoints(*steps: int) -> list[str]:
    """Their names."""
    return [f"checkpoint-{step}" for step in steps]


def litter(base_dir: Path) -> list[str]:
    """Temporary and trash names anywhere below ``base_dir``."""
    return sorted(
        str(path.relative_to(base_dir)) for path in base_dir.rglob(".t*-*") if path.name.startswith((".tmp-", ".trash-"))
    )
